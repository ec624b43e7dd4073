"""Rows about reading: end to end, pulls of what is in memory and of what is not, pulls beside
sends."""

import host
from brokers import ASYNC, SYNC
from judge import (
    Line, at_least, at_most, compare, missing, number, ratios, with_range, Spread,
)
from rows_send import FLUSH, JAVA, OPEN_IN_FLIGHT, ORBIT
from session import BODY_BYTES, ORBIT_IN_FLIGHT, QUEUES
from trouble import Trouble

E2E_RATE = 10_000
PULL_BATCH = 32
PULL_IN_FLIGHT = 8
# All of it stays in memory: a quarter of memoryLimit with us, the page cache with Java.
TAIL_MEMORY = "4GiB"
TAIL_MESSAGES = {True: 300_000, False: 800_000}
COLD_MESSAGES = {ORBIT: 4_000_000, JAVA: 1_000_000}
COLD_READ_BYTES = 4 << 30
ALONE, WITH_PULLS = "sends alone", "sends and pulls"


# End to end

def e2e(session):
    java = session.java(session.best("async"))
    options = {"topic": "e2e", "rate": E2E_RATE, "body_bytes": BODY_BYTES, "spin": True}
    with session.orbit(ASYNC) as orbit:
        for broker in (java, orbit):
            with session.turn(broker):
                broker.create_topic("e2e", QUEUES)
                session.prime(broker, "e2e", **options)
        for round_ in session.rounds():
            for broker in (java, orbit):
                with session.turn(broker):
                    session.bench(broker, f"{E2E_RATE:,}/s", round_, "e2e", **options)


def e2e_key(cells):
    """The figure's name: end to end is the run's main part, or one beside the sends."""
    names = [key for cell in cells.all for key in cell.values if key.endswith("p50_us")]
    named = [name for name in names if name.startswith("end to end")]
    return (named or ["p50_us"])[0]


def judge_e2e(session):
    found = session.found()
    what, target = f"end to end p50 at {E2E_RATE:,}/s, ASYNC_FLUSH", "≤ 1/5 of Java's"
    cells = found.pick(row="e2e")
    ours, theirs, key = cells.pick(peer=ORBIT), cells.pick(peer=JAVA), e2e_key(cells)
    if ratios(ours, theirs, key) is None:
        return [missing(found, "e2e", what, target)]
    line = compare(what, target, ours, theirs, key, unit="ms", most=1 / 5, scale=1e-3)
    refused = theirs.spread("refused")
    if refused and refused.median:
        line.theirs += f", {number(refused.median)} refused"
    return [line]


# Pull, tail

def pull_options(topic, count):
    return {"topic": topic, "count": count, "batch": PULL_BATCH, "in_flight": PULL_IN_FLIGHT,
            "warmup_seconds": 0, "seconds": 120}


def pull_tail(session):
    java = session.java(session.best("async"))
    count = TAIL_MESSAGES[session.plan.is_quick]
    with session.orbit(ASYNC, memoryLimit=TAIL_MEMORY) as orbit:
        for broker in (java, orbit):
            with session.turn(broker):
                session.build_backlog(broker, "tail", count)
                # Once unmeasured: the JIT, and whatever the first reader of a topic pays.
                session.prime(broker, "pull", **pull_options("tail", count))
        for round_ in session.rounds():
            for broker in (java, orbit):
                with session.turn(broker):
                    session.bench(broker, "tail", round_, "pull", **pull_options("tail", count))


def judge_pull_tail(session):
    found = session.found()
    what, target = "pull of a tail in memory, 32 a request", "≥ 5 × Java"
    cells = found.pick(row="pull-tail")
    ours, theirs = cells.pick(peer=ORBIT), cells.pick(peer=JAVA)
    if ratios(ours, theirs, "rate") is None:
        return [missing(found, "pull-tail", what, target)]
    return [compare(what, target, ours, theirs, "rate", unit="/s", least=5)]


# Pull, cold

def pull_cold(session):
    cold_java(session)
    session.stop_java()
    count = COLD_MESSAGES[ORBIT]
    with session.orbit(SYNC) as orbit:
        with session.turn(orbit):
            session.build_backlog(orbit, "cold", count)
            stored = session.stored_bytes(orbit, "cold")
        for round_ in session.rounds():
            orbit.thaw()
            orbit.stop(keep_data=True)
            files = sorted(orbit.data.glob("store/shard-*/log/*"))
            host.forget(orbit.data)
            session.add_values(orbit, "the disk itself", round_,
                               {"bytes_per_second": host.sequential_read(files, COLD_READ_BYTES)},
                               peer="host")
            host.forget(orbit.data)
            orbit.start()
            with session.turn(orbit):
                cell = session.bench(orbit, "cold", round_, "pull", **pull_options("cold", count))
            if stored and "rate" in cell.values:
                cell.values["bytes_per_second"] = cell.values["rate"] * stored
                session.save()


def cold_java(session):
    """Once: a restarted JVM is cold itself, which is what a consumer meets after a restart."""
    java = session.java(session.best("sync"))
    count = COLD_MESSAGES[JAVA]
    with session.turn(java):
        session.build_backlog(java, "cold", count)
    java.thaw()
    java.stop(keep_data=True)
    # A running broker's mapped logs cannot be dropped: it is stopped, they are, it is started.
    host.forget(java.data)
    java.start()
    with session.turn(java):
        session.bench(java, "cold", 1, "pull", **pull_options("cold", count))
    # It is not warm any more.
    session.stop_java()


def judge_pull_cold(session):
    found = session.found()
    what, target = "pull of a cold backlog, share of the disk's sequential read", "≥ 80 %"
    cells = found.pick(row="pull-cold")
    ours, disk = cells.pick(peer=ORBIT), cells.pick(peer="host")
    share = ratios(ours, disk, "bytes_per_second")
    if share is None:
        return [missing(found, "pull-cold", what, target)]
    percent = Spread(100 * share.median, 100 * share.low, 100 * share.high, share.count)
    lines = [Line(what, target, at_least(percent, 80), with_range(percent, "%"),
                  with_range(ours.spread("bytes_per_second"), "MB/s", 1e-6),
                  with_range(disk.spread("bytes_per_second"), "MB/s (disk)", 1e-6))]
    theirs = cells.pick(peer=JAVA)
    if ratios(ours, theirs, "rate") is not None:
        line = compare("the same beside Java, just restarted", "–", ours, theirs, "rate",
                       unit="/s", least=1)
        line.verdict = "shown"
        lines.append(line)
    return lines


# Pulls beside sends

def pull_send(session):
    session.stop_java()
    whole = session.capacity(ORBIT, "sync")
    with session.orbit(FLUSH["sync"]) as orbit:
        with session.turn(orbit):
            orbit.create_topic("mixed", QUEUES)
            if whole is None:
                cell = session.bench(orbit, "capacity", 1, topic="mixed", body_bytes=BODY_BYTES,
                                     in_flight=ORBIT_IN_FLIGHT)
                if not cell.is_sound:
                    raise Trouble("OrbitMQ's capacity is not known, so half of it is not either: "
                                  "measure the row send-sync first")
                whole = cell.values["rate"]
        options = {"topic": "mixed", "rate": int(whole / 2), "in_flight": OPEN_IN_FLIGHT,
                   "body_bytes": BODY_BYTES}
        for round_ in session.rounds():
            for case, workload in ((ALONE, "send"), (WITH_PULLS, "mixed")):
                with session.turn(orbit):
                    session.bench(orbit, case, round_, workload, **options)


def judge_pull_send(session):
    found = session.found()
    what, target = "send p99 at half load with pulls, to sends alone, SYNC_FLUSH", "≤ 1.3 ×"
    cells = found.pick(row="pull-send")
    beside, alone = cells.pick(case=WITH_PULLS), cells.pick(case=ALONE)
    spread = ratios(beside, alone, "p99_us")
    if spread is None:
        return [missing(found, "pull-send", what, target)]
    return [Line(what, target, at_most(spread, 1.3), with_range(spread, "×"),
                 with_range(beside.spread("p99_us"), "ms", 1e-3),
                 with_range(alone.spread("p99_us"), "ms (alone)", 1e-3))]
