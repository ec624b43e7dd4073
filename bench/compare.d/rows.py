"""All rows, in the order in which they are measured: those of one Java broker together.

Each names its table, its target in words, how it is measured and how it is judged. A row without
a measurement of its own judges what the rows it needs have measured.
"""

import dataclasses
import functools
from collections.abc import Callable

import ceiling
import rows_read
import rows_scale
import rows_send
import rows_stock

SENDING, LATENCY, READING = "Sending", "Latency", "Reading"
COST, SCALE, STOCK = "Cost", "Scale", "Clients that are not ours"
TABLES = (SENDING, LATENCY, READING, COST, SCALE, STOCK)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the comparison."""

    id: str
    table: str
    what: str
    target: str
    judge: Callable
    measure: Callable | None = None
    needs: tuple = ()
    # About how long it takes, in seconds, for a plan.
    seconds: Callable = lambda plan: 0
    is_main: bool = False


def _capacity_seconds(mode, plan):
    if plan.is_quick:
        return plan.java + 2 * plan.cell
    scout = 18 + plan.scout_warm_seconds + len(rows_send.SCOUT_DEPTHS) * plan.cell
    scouts = len(rows_send.SCOUTED[mode]) * scout
    shown = len(rows_send.SHOWN[mode]) + 1
    return scouts + shown * (plan.java + plan.rounds * 2 * plan.cell) + plan.rounds * plan.cell


def _pairs(plan, cells=1):
    return plan.rounds * 2 * cells * plan.cell


def _latency_seconds(plan):
    if plan.is_quick:
        return _pairs(plan) + plan.cell
    return _pairs(plan, len(rows_send.LATENCY_SHARES) + 1)


def _stock_seconds(plan, brokers=2):
    lines = rows_stock.SKIP_LINES[plan.is_quick] + rows_stock.LINES[plan.is_quick]
    return plan.rounds * brokers * (5 * lines + 4)


def _of(mode, function):
    return functools.partial(function, mode=mode)


def _mode_rows(mode, flush):
    send, latency, depth1 = f"send-{mode}", f"latency-{mode}", f"depth1-{mode}"
    return {
        "send": Row(
            send, SENDING, f"send capacity, {flush}, single messages", "≥ 20 × Java's best",
            _of(mode, rows_send.judge_capacity), _of(mode, rows_send.capacity),
            seconds=functools.partial(_capacity_seconds, mode), is_main=True,
        ),
        "latency": Row(
            latency, LATENCY, f"latency at 10, 30, 50, 70 % of Java's capacity, {flush}",
            "p99 ≤ 1/5, p99.9 ≤ 1/10 of Java's", _of(mode, rows_send.judge_latency),
            _of(mode, rows_send.latency), seconds=_latency_seconds, is_main=True,
        ),
        "depth1": Row(
            depth1, LATENCY, f"one send at a time, {flush}, p50",
            "≤ 1/2 of Java's" if mode == "async" else "≤ 1.3 × (round trip + durable write)",
            _of(mode, rows_send.judge_depth1), _of(mode, rows_send.depth1),
            needs=("ceiling",) if mode == "sync" else (),
            seconds=lambda plan: plan.rounds * 3 * plan.cell + 3 * plan.prime_seconds,
            is_main=True,
        ),
    }


ON_ASYNC = _mode_rows("async", "ASYNC_FLUSH")
ON_SYNC = _mode_rows("sync", "SYNC_FLUSH")

ROWS = (
    Row("ceiling", "", "what the host allows", "–", lambda session: [], ceiling.measure,
        seconds=lambda plan: 35 if plan.is_quick else 85, is_main=True),
    ON_ASYNC["send"],
    ON_ASYNC["latency"],
    ON_ASYNC["depth1"],
    Row("e2e", LATENCY, "end to end p50 at 10,000/s", "≤ 1/5 of Java's", rows_read.judge_e2e,
        rows_read.e2e, seconds=lambda plan: _pairs(plan) + 2 * plan.prime_seconds),
    Row("pull-tail", READING, "pull of what is in memory", "≥ 5 × Java",
        rows_read.judge_pull_tail, rows_read.pull_tail,
        seconds=lambda plan: plan.rounds * 12 + (20 if plan.is_quick else 40), is_main=True),
    Row("stock-producer", STOCK, "stock Java producer, -w 64, 1 KiB",
        "≥ against Java, ≤ 1/5 of its broker CPU", rows_stock.judge_producer, rows_stock.producer,
        seconds=functools.partial(_stock_seconds, brokers=3)),
    Row("stock-clients", STOCK, "stock producer and consumer together", "–",
        rows_stock.judge_clients, rows_stock.clients, seconds=_stock_seconds),
    ON_SYNC["send"],
    ON_SYNC["latency"],
    ON_SYNC["depth1"],
    Row("batch", SENDING, "batches of 32, SYNC_FLUSH, beside Java and Kafka",
        "≥ 10 × Java, > Kafka at ≤ 1/2 of its CPU", rows_send.judge_batch, rows_send.batch,
        seconds=lambda plan: plan.java + plan.rounds * (4 * plan.cell + 30)),
    Row("pull-cold", READING, "pull of what is not in memory",
        "≥ 80 % of the disk's sequential read", rows_read.judge_pull_cold, rows_read.pull_cold,
        seconds=lambda plan: 90 + plan.rounds * 20),
    Row("pipeline", SENDING, "share of the bare pipeline", "≥ 70 %, 128 B ≥ 60 %",
        rows_send.judge_pipeline, rows_send.pipeline, needs=("ceiling",),
        seconds=functools.partial(_pairs, cells=2)),
    Row("pull-send", LATENCY, "pull while sending at 50 %", "send p99 ≤ 1.3 × alone",
        rows_read.judge_pull_send, rows_read.pull_send, seconds=_pairs),
    Row("topics", SCALE, "1, 1,000, 10,000 topics × 4 queues", "≥ 90 % of one topic's capacity",
        rows_scale.judge_topics, rows_scale.topics,
        seconds=lambda plan: plan.rounds * (3 * plan.cell + 15)),
    Row("connections", SCALE, "1, 100, 5,000 connections, same rate", "CPU a message ≤ 1.5 ×",
        rows_scale.judge_connections, rows_scale.connections,
        seconds=lambda plan: plan.rounds * (3 * plan.cell + 5)),
    Row("cross-core", SCALE, "2 shards, queues on the other core", "≥ 85 % per core",
        rows_scale.judge_cross_core, rows_scale.cross_core,
        seconds=lambda plan: _pairs(plan) + plan.cell),
    Row("idle", COST, "idle with 1,000 clients", "≤ 1 % of a core", rows_scale.judge_idle,
        rows_scale.idle_clients,
        seconds=lambda plan: plan.rounds * (rows_scale.IDLE_SECONDS[plan.is_quick] + 7)),
    Row("cpu", COST, "CPU a message at Java's 50 % load", "≤ 1/10 of Java's",
        rows_scale.judge_cpu, needs=("latency-async", "latency-sync"), is_main=True),
    Row("device-bytes", COST, "device bytes a message, SYNC_FLUSH, depth 1 and full load",
        "≤ 8 KiB, ≤ 1.15 × stored", rows_scale.judge_device, needs=("depth1-sync", "send-sync"),
        is_main=True),
    Row("rss", COST, "RSS at full load", "≤ memoryLimit's default", rows_scale.judge_rss,
        needs=("send-async", "send-sync"), is_main=True),
)
BY_ID = {row.id: row for row in ROWS}


def chosen(only, is_quick):
    """The rows asked for and those they need, in order; None asks for all of the plan."""
    wanted = set(only) if only else {row.id for row in ROWS if row.is_main or not is_quick}
    for row in ROWS[::-1]:
        if row.id in wanted:
            wanted.update(row.needs)
    return [row for row in ROWS if row.id in wanted]
