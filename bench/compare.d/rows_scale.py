"""Rows about what grows: topics, connections, shards, idle clients; and what a run costs."""

import time

import idle
from brokers import SYNC
from judge import (
    MISSED, Line, Spread, at_least, at_most, compare, missing, number, ratios, with_range,
)
from rows_send import FLUSH, GATHERED, JAVA, ORBIT, READ_INTERVAL_US
from session import BODY_BYTES, ORBIT_IN_FLIGHT, QUEUES

MIB = 1 << 20
TOPICS = (1, 1_000, 10_000)
TOPIC_QUEUES = 4
CONNECTIONS = (1, 100, 5_000)
CONNECTIONS_RATE = 20_000
# Below this share of it, the cost of a message is that of another load.
REACHED = 0.95
IDLE_CLIENTS = 1_000
IDLE_SETTLE_SECONDS = 5
IDLE_SECONDS = {True: 10, False: 30}
SHARDS = 2
# The second executor's part of the work from which on it took part.
CROSS_SHARE = 0.2
CROSS_TRIES = 6
# Where CPU is judged and not latency, the generator may be this late.
LAG_MS = 1_000
SAME, CROSS = "same core", "other core"
DEPTH1_DEVICE_BYTES = 8 << 10


# Topics

def topics(session):
    session.stop_java()
    for round_ in session.rounds():
        for count in TOPICS:
            with session.orbit(SYNC) as orbit, session.turn(orbit):
                session.bench(orbit, f"{count:,} topics", round_, "topics", topic="many",
                              topics=count, queues=TOPIC_QUEUES, in_flight=ORBIT_IN_FLIGHT,
                              body_bytes=BODY_BYTES)


def judge_topics(session):
    found = session.found()
    cells = found.pick(row="topics")
    one = cells.pick(case=f"{TOPICS[0]:,} topics")
    lines = []
    for count in TOPICS[1:]:
        what, target = f"capacity with {count:,} topics × {TOPIC_QUEUES} queues", "≥ 90 % of one's"
        many = cells.pick(case=f"{count:,} topics")
        share = ratios(many, one, "rate")
        if share is None:
            lines.append(missing(found, "topics", what, target, f"{count:,} topics"))
            continue
        lines.append(Line(what, target, at_least(share, 0.9), with_range(share, "%", 100),
                          with_range(many.spread("rate"), "/s"),
                          with_range(one.spread("rate"), "/s (one topic)")))
    return lines


# Connections

def connections(session):
    session.stop_java()
    with session.orbit(SYNC) as orbit:
        with session.turn(orbit):
            orbit.create_topic("connections", QUEUES)
        for round_ in session.rounds():
            for count in CONNECTIONS:
                with session.turn(orbit):
                    session.bench(orbit, f"{count:,} connections", round_, topic="connections",
                                  connections=count, rate=CONNECTIONS_RATE, body_bytes=BODY_BYTES,
                                  max_lag_ms=LAG_MS,
                                  in_flight=max(2, ORBIT_IN_FLIGHT // count))


def judge_connections(session):
    found = session.found()
    cells = found.pick(row="connections")
    one = cells.pick(case=f"{CONNECTIONS[0]:,} connections")
    lines = []
    for count in CONNECTIONS[1:]:
        what = f"CPU per message, {count:,} connections, {CONNECTIONS_RATE:,}/s in all"
        target = "≤ 1.5 × one's"
        many = cells.pick(case=f"{count:,} connections")
        spread = ratios(many, one, "cpu_us")
        if spread is None:
            lines.append(missing(found, "connections", what, target, f"{count:,} connections"))
            continue
        rate = many.spread("rate").median
        verdict = at_most(spread, 1.5)
        if rate < REACHED * CONNECTIONS_RATE:
            what, verdict = f"{what}: only {number(rate)}/s came through", MISSED
        lines.append(Line(what, target, verdict, with_range(spread, "×"),
                          with_range(many.spread("cpu_us"), "µs"),
                          with_range(one.spread("cpu_us"), "µs (one connection)")))
    return lines


# Two shards

def cross_core(session):
    """One connection, one queue: on its own core or on the other, as the executors' CPU tells.

    With one core for the broker, both cores of the machine are taken and the generator shares
    them: as much is sent as goes, and what is compared is the CPU a message costs the broker.
    """
    session.stop_java()
    cores = session.broker_cores[:SHARDS]
    everywhere = session.broker_cores + session.load_cores
    load = session.load_cores if len(cores) == SHARDS else everywhere
    cores = cores if len(cores) == SHARDS else everywhere[:SHARDS]
    with session.orbit(SYNC, shards=SHARDS, cores=cores) as orbit:
        with session.turn(orbit):
            # Queues go round the shards: two topics of one queue lie on different ones.
            for topic in ("left", "right"):
                orbit.create_topic(topic, 1)
        seen = {SAME: 0, CROSS: 0}
        for attempt in range(CROSS_TRIES * session.plan.rounds):
            if min(seen.values()) >= session.plan.rounds:
                break
            # Connections go round the shards as well, each run's a fixed number further: topics
            # that change as often would meet the same one each time.
            topic = ("left", "left", "right", "right")[attempt % 4]
            with session.turn(orbit):
                before = orbit.main.thread_cpu_seconds("shard-")
                cell = session.bench(orbit, "unknown", 1, topic=topic, body_bytes=BODY_BYTES,
                                     in_flight=ORBIT_IN_FLIGHT, cores=load)
                after = orbit.main.thread_cpu_seconds("shard-")
            # Not the executors' helper threads, whose names go on.
            shards = [name for name in after if name.removeprefix("shard-").isdigit()]
            spent = sorted(after[name] - before.get(name, 0) for name in shards)
            cell.case = CROSS if spent[0] > CROSS_SHARE * spent[-1] else SAME
            seen[cell.case] += 1
            cell.round = seen[cell.case]
            session.save()
            session.say(f"cross-core: that was the {cell.case}")


def judge_cross_core(session):
    found = session.found()
    what = "2 shards: messages per core-second, queue on the other core to the same core"
    target = "≥ 85 %"
    cells = found.pick(row="cross-core")
    same, cross = cells.pick(case=SAME), cells.pick(case=CROSS)
    share = ratios(same, cross, "cpu_us")
    if share is None:
        return [missing(found, "cross-core", what, target)]
    return [Line(what, target, at_least(share, 0.85), with_range(share, "%", 100),
                 with_range(cross.spread("cpu_us"), "µs a message"),
                 with_range(same.spread("cpu_us"), "µs (same core)"))]


# Idle clients

def idle_clients(session):
    session.stop_java()
    seconds = IDLE_SECONDS[session.plan.is_quick]
    with session.orbit(SYNC) as orbit:
        for round_ in session.rounds():
            with session.turn(orbit):
                orbit.create_topic("idle", QUEUES)
                crowd = idle.Crowd(IDLE_CLIENTS, orbit.address, "idle", QUEUES)
                try:
                    crowd.live(IDLE_SETTLE_SECONDS)
                    start, cpu = time.monotonic(), orbit.main.cpu_seconds()
                    crowd.live(seconds)
                    share = (orbit.main.cpu_seconds() - cpu) / (time.monotonic() - start)
                finally:
                    crowd.close()
                session.add_values(orbit, f"{IDLE_CLIENTS:,} clients", round_,
                                   {"cores": share, "rss": orbit.main.rss_bytes()})


def judge_idle(session):
    found = session.found()
    what = f"idle with {IDLE_CLIENTS:,} clients that heartbeat and long-poll"
    target = "≤ 1 % of a core"
    cells = found.pick(row="idle")
    share = cells.spread("cores")
    if share is None:
        return [missing(found, "idle", what, target)]
    return [Line(what, target, at_most(share, 0.01), with_range(share, "%", 100),
                 f"{number(cells.spread('rss').median / MIB)} MiB RSS")]


# What other rows measured already

def judge_cpu(session):
    found = session.found()
    lines = []
    for mode in ("sync", "async"):
        row = f"latency-{mode}"
        what = f"broker CPU per message at 50 % of Java's capacity, {FLUSH[mode]}"
        tuned = f"{what}, readInterval={READ_INTERVAL_US[mode]}"
        theirs, shipped = (found.pick(row=row, peer=peer, case="50 %") for peer in (JAVA, ORBIT))
        gathered = found.pick(row=row, case=GATHERED[mode], peer=ORBIT)
        target = "≤ 1/10 of Java's"
        if ratios(gathered, theirs, "cpu_us") is None:
            lines.append(missing(found, row, tuned, target, "50 %"))
            continue
        lines.append(compare(tuned, target, gathered, theirs, "cpu_us", unit="µs", most=1 / 10))
        for key, name in (("p50_us", "p50"), ("p99_us", "p99")):
            line = compare(f"the same: {name}", "–", gathered, theirs, key, unit="ms", most=1,
                           scale=1e-3)
            lines.append(line.shown())
        if ratios(shipped, theirs, "cpu_us") is not None:
            line = compare(f"{what}, as shipped", "–", shipped, theirs, "cpu_us", unit="µs", most=1)
            lines.append(line.shown())
    return lines


def judge_device(session):
    found = session.found()
    one = found.pick(row="depth1-sync", peer=ORBIT, case="depth 1").spread("device_bytes")
    what, target = "device bytes per 1 KiB message, SYNC_FLUSH, depth 1", "≤ 8 KiB"
    if one is None:
        lines = [missing(found, "depth1-sync", what, target)]
    else:
        theirs = found.pick(row="depth1-sync", peer=JAVA).spread("device_bytes")
        lines = [Line(what, target, at_most(one, DEPTH1_DEVICE_BYTES),
                      with_range(one, "KiB", 1 / 1024), with_range(one, "KiB", 1 / 1024),
                      with_range(theirs, "KiB", 1 / 1024),
                      theirs is not None and one.median > theirs.median)]
    what, target = "the same at full load, to the stored bytes", "≤ 1.15 ×"
    cells = found.pick(row="send-sync", peer=ORBIT).best_case()
    stored, written = cells.spread("stored_bytes"), cells.spread("device_bytes")
    if stored is None or written is None:
        return [*lines, missing(found, "send-sync", what, target)]
    over = Spread(*(x / stored.median for x in (written.median, written.low, written.high)),
                  written.count)
    theirs = found.pick(row="send-sync", peer=JAVA).spread("device_bytes")
    return [*lines, Line(what, target, at_most(over, 1.15), with_range(over, "×"),
                         with_range(written, "B"), with_range(theirs, "B"))]


def judge_rss(session):
    found = session.found()
    lines = []
    for mode in ("sync", "async"):
        what, target = f"RSS at full load, one shard, {FLUSH[mode]}", "≤ 256 MiB"
        cells = found.pick(row=f"send-{mode}")
        ours = cells.pick(peer=ORBIT).spread("rss_max")
        theirs = cells.pick(peer=JAVA).spread("rss_max")
        if ours is None:
            lines.append(missing(found, f"send-{mode}", what, target))
            continue
        lines.append(Line(what, target, at_most(ours, 256 * MIB), with_range(ours, "MiB", 1 / MIB),
                          with_range(ours, "MiB", 1 / MIB), with_range(theirs, "MiB", 1 / MIB)))
    return lines
