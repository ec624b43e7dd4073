"""Rows about sending: capacity, the bare pipeline's share, batches, latency at a rate, depth 1."""

import ceiling
import stock
from brokers import ASYNC, SYNC
from judge import (
    Line, at_least, at_most, compare, missing, number, ratios, with_range, Spread, MET, MISSED,
)
from session import BODY_BYTES, JAVA_IN_FLIGHT, ORBIT_IN_FLIGHT, QUEUES

JAVA, ORBIT, KAFKA = "Java RocketMQ", "OrbitMQ", "Kafka"
FLUSH = {"async": ASYNC, "sync": SYNC}
# Tried once each, to find the configuration that the rounds are run with.
SCOUTED = {
    "async": ("async-tuned", "async-tuned-t4", "async-tuned-t16", "async-tuned-spin",
              "async-tuned-warm", "async-tuned-pool"),
    "sync": ("sync-tuned", "sync-tuned-t4", "sync-tuned-t16-spin"),
}
SHOWN = {"async": ("async-stock",), "sync": ("sync-stock", "sync-nommap")}
SCOUT_DEPTHS = (64, 256)
LATENCY_SHARES = (10, 30, 50, 70)
# An open loop must not be held back by its own limit.
OPEN_IN_FLIGHT = 8192
BATCH = 32
BATCH_DEPTHS = (64, 256)
PIPELINE_BODIES = {1024: (ORBIT_IN_FLIGHT, 70), 128: (8192, 60)}
PIPELINE_CASES = [(body, codec) for codec in (ceiling.JSON, ceiling.BINARY)
                  for body in PIPELINE_BODIES]
KAFKA_LINES = 3


def in_flight(depth):
    return f"{depth:,} in flight"


# Capacity

def capacity(session, mode):
    plan = session.plan
    if plan.is_quick:
        shown = (session.best(mode),)
    else:
        for name in SCOUTED[mode]:
            scout(session, name)
        shown = tuple(dict.fromkeys((*SHOWN[mode], *extra(session, mode), session.best(mode))))
    for name in shown:
        capacity_beside(session, mode, name, is_last=name == shown[-1])


def extra(session, mode):
    return ("sync-stock-ra128",) if mode == "sync" and session.notes.get("read-ahead") else ()


def scout(session, name):
    java = session.java(name, session.plan.scout_warm_seconds)
    with session.turn(java):
        java.create_topic("scout", QUEUES)
        for depth in SCOUT_DEPTHS:
            session.bench(java, in_flight(depth), 1, topic="scout", in_flight=depth,
                          body_bytes=BODY_BYTES)


def capacity_beside(session, mode, name, is_last):
    java = session.java(name)
    with session.orbit(FLUSH[mode]) as orbit:
        for broker in (java, orbit):
            with session.turn(broker):
                broker.create_topic("capacity", QUEUES)
        for round_ in session.rounds():
            depths = [(java, JAVA_IN_FLIGHT), (orbit, ORBIT_IN_FLIGHT)]
            if is_last and not session.plan.is_quick:
                # Once at equal depth as well, so that nobody has to believe in ours.
                depths.append((orbit, JAVA_IN_FLIGHT))
            for broker, depth in depths:
                with session.turn(broker):
                    cell = session.bench(broker, in_flight(depth), round_, beside=name,
                                         topic="capacity", in_flight=depth, body_bytes=BODY_BYTES)
                    if broker is orbit:
                        cell.values["stored_bytes"] = session.stored_bytes(orbit, "capacity")
                        session.save()


def judge_capacity(session, mode):
    row, target = f"send-{mode}", "≥ 20 × Java's best"
    cells = session.found()
    lines = []
    best = session.best(mode)
    for name in cells.pick(row=row, peer=JAVA).configs():
        ours = cells.pick(row=row, peer=ORBIT, beside=name).best_case()
        theirs = cells.pick(row=row, peer=JAVA, config=name, beside=name).best_case()
        if not ours.all or not theirs.all:
            continue
        line = compare(f"{FLUSH[mode]}, single messages, Java {name}", target, ours, theirs, "rate",
                       unit="/s", least=20)
        if name != best:
            line.target, line.verdict = "–", "shown"
        lines.append(line)
    if not any(line.verdict in (MET, MISSED) for line in lines):
        lines.append(missing(cells, row, f"{FLUSH[mode]}, single messages", target))
    return lines


# Batches, and Kafka

def batch(session):
    java = session.java(session.best("sync"))
    options = {"topic": "batch", "batch": BATCH, "body_bytes": BODY_BYTES}

    def run(broker, round_):
        with session.turn(broker):
            broker.create_topic("batch", QUEUES)
            for depth in BATCH_DEPTHS:
                session.bench(broker, f"batches of 32, {in_flight(depth)}", round_,
                              in_flight=depth, **options)

    with session.turn(java):
        java.create_topic("batch", QUEUES)
        session.prime(java, "send", in_flight=BATCH_DEPTHS[0], **options)
    with session.kafka() as kafka:
        with session.turn(kafka):
            kafka.create_topic("batch", QUEUES)
            stock.kafka_producer(session, kafka, lines=session.plan.java_warm_seconds // 5)
        for round_ in session.rounds():
            run(java, round_)
            # A store of its own each round: this one fills more than a gigabyte a second.
            with session.orbit(SYNC) as orbit:
                run(orbit, round_)
            with session.turn(kafka):
                values = stock.kafka_producer(session, kafka, lines=KAFKA_LINES)
                session.add_values(kafka, "64 KiB client batches", round_, values)


def judge_batch(session):
    cells = session.found().pick(row="batch")
    ours, java = (cells.pick(peer=peer).best_case() for peer in (ORBIT, JAVA))
    kafka = cells.pick(peer=KAFKA)
    lines = []
    asked = (
        ("batches of 32, SYNC_FLUSH, to Java", "≥ 10 ×", java, "rate", "/s", 10, None),
        ("batches of 32 to Kafka's page cache: rate", "> 1 ×", kafka, "rate", "/s", 1, None),
        ("the same: broker CPU per message", "≤ 1/2", kafka, "cpu_us", "µs", None, 0.5),
    )
    for what, target, theirs, key, unit, least, most in asked:
        if ratios(ours, theirs, key) is None:
            lines.append(missing(session.found(), "batch", what, target))
        else:
            lines.append(compare(what, target, ours, theirs, key, unit=unit, least=least,
                                 most=most))
    return lines


# The bare pipeline

def pipeline(session):
    session.stop_java()
    for round_ in session.rounds():
        # A store of its own each round, so that no more than one is on the disk.
        with session.orbit(SYNC) as orbit, session.turn(orbit):
            orbit.create_topic("pipeline", QUEUES)
            for body_bytes, codec in PIPELINE_CASES:
                session.bench(orbit, f"{body_bytes} B, {codec}", round_, topic="pipeline",
                              codec=codec, body_bytes=body_bytes,
                              in_flight=PIPELINE_BODIES[body_bytes][0])


def judge_pipeline(session):
    cells = session.found()
    lines = []
    for body_bytes, codec in PIPELINE_CASES:
        percent = PIPELINE_BODIES[body_bytes][1]
        what = f"share of the bare pipeline, SYNC_FLUSH, {body_bytes:,} B, {codec} headers"
        target = f"≥ {percent} %"
        case = f"{body_bytes} B, {codec}"
        ours = cells.pick(row="pipeline", case=case).spread("rate")
        build, most = ceiling.pipeline(cells, body_bytes, codec)
        if ours is None or not most:
            lines.append(missing(cells, "pipeline", what, target, case))
            continue
        share = Spread(*(100 * x / most for x in (ours.median, ours.low, ours.high)), ours.count)
        lines.append(Line(what, target, at_least(share, percent), with_range(share, "%"),
                          with_range(ours, "/s"), f"{number(most)} /s ({build})"))
    return lines


# Latency at a rate

def shares(session):
    return (50,) if session.plan.is_quick else LATENCY_SHARES


# Three ways to run OrbitMQ: as shipped; on a core that it never lets sleep; and to save processor
# time, taking requests up at most 500 times a second.
SPIN_US = 2000
SPUN = f"spinBeforePark={SPIN_US}"
# Under SYNC_FLUSH half of that: a message waits for the disk anyway, and Java's median is longer.
READ_INTERVAL_US = {"sync": 4000, "async": 2000}
GATHERED = {mode: f"50 %, readInterval={us}" for mode, us in READ_INTERVAL_US.items()}
SPUN_CASE = f"50 %, {SPUN}"
TUNED_SHARE = 50


def latency(session, mode):
    name = session.best(mode)
    java = session.java(name)
    whole = session.capacity(JAVA, mode)

    def send(broker, case, share, round_):
        # The generator spins on its core: its own wake-ups are no part of either broker's latency.
        with session.turn(broker):
            session.bench(broker, case, round_, beside=name, topic="latency", spin=True,
                          rate=max(1, int(whole * share / 100)), in_flight=OPEN_IN_FLIGHT,
                          body_bytes=BODY_BYTES)

    with session.orbit(FLUSH[mode]) as orbit:
        for broker in (java, orbit):
            with session.turn(broker):
                broker.create_topic("latency", QUEUES)
                if whole is None:
                    # Without the row before: a look at Java, that counts for the rate only.
                    cell = session.bench(java, "capacity", 1, topic="latency", beside=name,
                                         in_flight=JAVA_IN_FLIGHT, body_bytes=BODY_BYTES)
                    whole = cell.values["rate"]
        for share in shares(session):
            for round_ in session.rounds():
                send(java, f"{share} %", share, round_)
                send(orbit, f"{share} %", share, round_)
    others = [(GATHERED[mode], {"readInterval": READ_INTERVAL_US[mode]})]
    if not session.plan.is_quick:
        others.append((SPUN_CASE, {"spinBeforePark": SPIN_US}))
    for case, keys in others:
        with session.orbit(FLUSH[mode], **keys) as orbit:
            with session.turn(orbit):
                orbit.create_topic("latency", QUEUES)
            for round_ in session.rounds():
                send(orbit, case, TUNED_SHARE, round_)


LATENCIES = (("p99_us", "p99", 5), ("p999_us", "p99.9", 10))


def judge_latency(session, mode):
    row = f"latency-{mode}"
    found = session.found()
    cells = found.pick(row=row)
    lines = []
    for share in shares(session):
        theirs = cells.pick(peer=JAVA, case=f"{share} %")
        ours = cells.pick(peer=ORBIT, case=f"{share} %")
        for key, name, part in LATENCIES:
            what = f"{name} at {share} % of Java's capacity, {FLUSH[mode]}"
            target = f"≤ 1/{part} of Java's"
            if ratios(ours, theirs, key) is None:
                lines.append(missing(found, row, what, target, f"{share} %"))
                continue
            line = compare(what, target, ours, theirs, key, unit="ms", most=1 / part, scale=1e-3)
            refused = theirs.spread("refused")
            if refused and refused.median:
                line.theirs += f", {number(refused.median)} refused"
            lines.append(line)
    theirs, shipped = (cells.pick(peer=peer, case=f"{TUNED_SHARE} %") for peer in (JAVA, ORBIT))
    spun = cells.pick(peer=ORBIT, case=SPUN_CASE)
    shown = [("p50_us", "p50", shipped, "")]
    shown += [(key, name, spun, f", {SPUN}") for key, name in
              (("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9"))]
    for key, name, ours, how in shown:
        if ratios(ours, theirs, key) is not None:
            what = f"{name} at {TUNED_SHARE} % of Java's capacity, {FLUSH[mode]}{how}"
            lines.append(compare(what, "–", ours, theirs, key, unit="ms", most=1, scale=1e-3).shown())
    return lines


# Depth 1

def depth1(session, mode):
    name = session.best(mode)
    java = session.java(name)
    options = {"topic": "depth1", "in_flight": 1, "body_bytes": BODY_BYTES}
    with session.orbit(FLUSH[mode]) as shipped, \
            session.orbit(FLUSH[mode], spinBeforePark=SPIN_US) as spun:
        sides = ((java, "depth 1"), (shipped, "depth 1"), (spun, f"depth 1, {SPUN}"))
        for broker, _ in sides:
            with session.turn(broker):
                broker.create_topic("depth1", QUEUES)
                session.prime(broker, "send", **options)
        for round_ in session.rounds():
            for broker, case in sides:
                with session.turn(broker):
                    session.bench(broker, case, round_, beside=name, spin=True, **options)


def judge_depth1(session, mode):
    row = f"depth1-{mode}"
    found = session.found()
    cells = found.pick(row=row)
    theirs = cells.pick(peer=JAVA)
    shipped = cells.pick(peer=ORBIT, case="depth 1")
    spun = cells.pick(peer=ORBIT, case=f"depth 1, {SPUN}")
    what = f"p50 of one send at a time, {FLUSH[mode]}"
    if mode == "sync":
        lines = judge_depth1_sync(found, what, shipped)
        rest = ((shipped, f"{what}, beside Java"), (spun, f"{what}, {SPUN}, beside Java"))
    elif ratios(spun, theirs, "p50_us") is None:
        return [missing(found, row, what, "≤ 1/2 of Java's")]
    else:
        lines = [compare(f"{what}, {SPUN}", "≤ 1/2 of Java's", spun, theirs, "p50_us", unit="ms",
                         most=0.5, scale=1e-3)]
        rest = ((shipped, f"{what}, as shipped"),)
    for ours, what in rest:
        if ratios(ours, theirs, "p50_us") is not None:
            line = compare(what, "–", ours, theirs, "p50_us", unit="ms", most=1, scale=1e-3)
            lines.append(line.shown())
    return lines


def judge_depth1_sync(found, what, ours):
    target = "≤ 1.3 × (loopback round trip + one durable write)"
    least = ceiling.depth1_us(found)
    mine = ours.spread("p50_us")
    if mine is None or not least:
        return [missing(found, "depth1-sync", what, target)]
    over = Spread(*(x / least for x in (mine.median, mine.low, mine.high)), mine.count)
    return [Line(what, target, at_most(over, 1.3), with_range(over, "×"),
                 with_range(mine, "ms", 1e-3), f"{number(least / 1000)} ms (host)")]
