"""Rows of a third party: RocketMQ's own benchmark clients against both brokers."""

import fetch
import stock
from brokers import ASYNC
from judge import compare, missing, ratios
from rows_send import JAVA, ORBIT
from session import QUEUES

# Of five seconds each: the clients' JIT shares one core and takes about half a minute.
SKIP_LINES = {True: 2, False: 5}
LINES = {True: 2, False: 4}
TARGET_RATE, TARGET_CPU = "≥ 1 ×", "≤ 1/5 of Java's"


# Takes the requests of the 64 threads up together, and answers them so.
TUNED = {"readInterval": 500}
TUNED_CASE = "Producer, readInterval=500"


def _alternate(session, topic, tools, tuned=None):
    """Java, OrbitMQ as shipped and, with `tuned` keys, OrbitMQ once more."""
    java = session.java(session.best("async"))
    jars = fetch.jars("rocketmq", session.say)
    skip, lines = SKIP_LINES[session.plan.is_quick], LINES[session.plan.is_quick]

    def run(broker, round_, case=None):
        with session.turn(broker):
            # A topic for each round: the consumer begins without a backlog.
            broker.create_topic(f"{topic}-{round_}", QUEUES)
            found = stock.rocketmq_clients(session, jars, broker, f"{topic}-{round_}", tools, skip,
                                           lines)
            for tool, values in found.items():
                session.add_values(broker, case or tool, round_, values)

    with session.orbit(ASYNC) as orbit:
        for round_ in session.rounds():
            run(java, round_)
            run(orbit, round_)
            if tuned:
                with session.orbit(ASYNC, **tuned) as gathered:
                    run(gathered, round_, TUNED_CASE)


def producer(session):
    _alternate(session, "stock", ("Producer",), TUNED)


def clients(session):
    _alternate(session, "both", ("Producer", "Consumer"))


def _sides(session, row, tool):
    cells = session.found().pick(row=row, case=tool)
    return cells.pick(peer=ORBIT), cells.pick(peer=JAVA)


def judge_producer(session):
    shipped, theirs = _sides(session, "stock-producer", "Producer")
    tuned, _ = _sides(session, "stock-producer", TUNED_CASE)
    name = "stock Java producer, -w 64 -s 1024"
    asked = ((f"{name}: rate", TARGET_RATE, "rate", "/s", 1, None),
             (f"{name}: broker CPU per message", TARGET_CPU, "cpu_us", "µs", None, 1 / 5))
    lines = []
    for what, target, key, unit, least, most in asked:
        if ratios(shipped, theirs, key) is None:
            lines.append(missing(session.found(), "stock-producer", what, target))
            continue
        lines.append(compare(what, target, shipped, theirs, key, unit=unit, least=least, most=most))
        if ratios(tuned, theirs, key) is not None:
            lines.append(compare(f"{what}, readInterval=500", "–", tuned, theirs, key, unit=unit,
                                 least=least, most=1 if most else None).shown())
    return lines


def judge_clients(session):
    lines = []
    for tool, key, what, unit, most in (
        ("Producer", "rate", "stock producer beside a stock consumer: rate", "/s", False),
        ("Consumer", "rate", "stock consumer: rate", "/s", False),
        ("Consumer", "mean_us", "stock consumer: mean time from born to consumed", "ms", True),
        ("Consumer", "cores", "broker cores used by both", "", True),
    ):
        ours, theirs = _sides(session, "stock-clients", tool)
        if ratios(ours, theirs, key) is None:
            lines.append(missing(session.found(), "stock-clients", what, "–"))
            continue
        line = compare(what, "–", ours, theirs, key, unit=unit, least=None if most else 1,
                       most=1 if most else None, scale=1e-3 if unit == "ms" else 1)
        lines.append(line.shown())
    return lines
