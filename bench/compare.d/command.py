"""The command: arguments, the plan it prints, the order of rows, how it ends.

Exit codes: 0 all measured (targets may be missed), 1 a row could not be measured, 2 nothing can be
measured here or bad arguments, 3 void runs remain, 130 interrupted. What was measured is kept.
"""

import argparse
import datetime
import pathlib
import dataclasses
import os
import resource
import signal
import sys

import fetch
import host
import rows
import tables
from session import Plan, Session
from trouble import Trouble, Unusable

EXIT_FAILED, EXIT_UNUSABLE, EXIT_VOID, EXIT_INTERRUPTED = 1, 2, 3, 130
DISK_BYTES = {True: 12 * 10**9, False: 35 * 10**9}
MEMORY_BYTES = 6 << 30
FILES_MIN = 6_000
BUSY_LOAD = 0.5
DESCRIPTION = """Measures OrbitMQ beside Java RocketMQ (and Kafka, for batches) on this machine
and writes a report. Fetches what it needs from Maven, starts every broker itself on 127.0.0.1,
and leaves nothing behind but the report."""


def parse(argv):
    parser = argparse.ArgumentParser(prog="bench/compare", description=DESCRIPTION)
    parser.add_argument("--quick", action="store_true", help="the main rows in 6 minutes")
    parser.add_argument("--out", metavar="DIR", help="the report [default: perf/DATE]")
    parser.add_argument("--only", metavar="ROW,…", help="these rows and what they need; the "
                        "others are kept from an earlier run in the same folder")
    parser.add_argument("--resume", action="store_true", help="leave out rows that are done")
    parser.add_argument("--list", action="store_true", help="show the rows and end")
    parser.add_argument("--data", metavar="DIR", default=str(fetch.CACHE / "data"),
                        help="on the disk to measure [default: target/compare/data]")
    parser.add_argument("--broker-cores", metavar="LIST", help="[default: half of the cores]")
    parser.add_argument("--load-cores", metavar="LIST", help="[default: the other half]")
    parser.add_argument("--rounds", type=int, metavar="N", help="[default: 3, quick 1]")
    parser.add_argument("--seconds", type=int, metavar="N", help="of a run [default: 10, quick 5]")
    parser.add_argument("--read-ahead", action="store_true", help="also run Java with a disk "
                        "read-ahead of 128 KiB; needs root, restores it")
    options = parser.parse_args(argv)
    options.only = [name for name in (options.only or "").split(",") if name]
    unknown = [name for name in options.only if name not in rows.BY_ID]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; `bench/compare --list` shows them all")
    for name in ("rounds", "seconds"):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= 600:
            parser.error(f"--{name} is between 1 and 600")
    return options


def plan_of(options):
    plan = Plan.quick() if options.quick else Plan.full()
    given = {name: getattr(options, name) for name in ("rounds", "seconds")}
    return dataclasses.replace(plan, **{k: v for k, v in given.items() if v is not None})


def show_rows():
    for row in rows.ROWS:
        main = "*" if row.is_main else " "
        needs = f"  (from {', '.join(row.needs)})" if row.needs else ""
        print(f"{main} {row.id:15} {row.what}: {row.target}{needs}")
    print("\n* also in --quick")


def prepare(options):
    """Everything that can be refused before the first minute is spent."""
    fetch.tools()
    cores = host.split_cores(options.broker_cores, options.load_cores)
    if host.memory_bytes() < MEMORY_BYTES:
        raise Unusable(f"the brokers want {MEMORY_BYTES >> 30} GiB of memory, this machine has "
                       f"{host.memory_bytes() / (1 << 30):.1f}")
    if options.read_ahead and os.geteuid() != 0:
        raise Unusable("--read-ahead changes the disk's read_ahead_kb, which only root may")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < FILES_MIN:
        raise Unusable(f"{FILES_MIN:,} open files are needed, {most:,} allowed: raise `ulimit -Hn`")
    # Only the glommio pipeline of `bench ceiling` needs locked memory, for the buffers it registers;
    # many systems allow a process more than it starts with.
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
    data = pathlib.Path(options.data).resolve()
    out = pathlib.Path(options.out or fetch.ROOT / "perf" / datetime.date.today().isoformat())
    for folder in (data, out):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unusable(f"{folder} cannot be made: {error.strerror}") from None
    host.check_disk(data, DISK_BYTES[options.quick])
    return cores, data, out.resolve()


def announce(session, todo):
    busy = os.getloadavg()[0]
    if busy > BUSY_LOAD:
        session.say(f"the load average is {busy:.1f}: other programs run here, and figures taken "
                    "beside them are void or worthless; end them first")
    total = sum(row.seconds(session.plan) for row in todo)
    plan = session.plan
    session.say(f"{len(todo)} rows, about {total / 60:.0f} min: {plan.rounds} round(s) of "
                f"{plan.seconds} s, Java warmed for {plan.java_warm_seconds} s; broker on core(s) "
                f"{session.broker_cores}, load on {session.load_cores}")
    for row in todo:
        session.say(f"  {row.id:15} {row.seconds(plan) / 60:4.1f} min  {row.what}")


def measure(session, todo):
    """Measures the rows; returns the sentences of those that failed."""
    troubles = []
    left = sum(row.seconds(session.plan) for row in todo)
    for row in todo:
        session.say(f"== {row.id}: {row.what} (about {left / 60:.0f} min left)")
        left -= row.seconds(session.plan)
        if row.measure:
            session.begin(row.id)
            try:
                row.measure(session)
            except (Trouble, OSError) as trouble:
                # What one broken row leaves running must not disturb the next.
                session.stop_java()
                troubles.append(f"{row.id}: {trouble}")
                session.say(f"{row.id} could not be measured: {trouble}")
                continue
        session.done[row.id] = True
        session.save()
        for line in row.judge(session):
            session.say(f"   {line.verdict}: {line.what}: {line.measured}, target {line.target}")
        tables.write(session)
    return troubles


def finish(session, troubles, todo):
    """Writes the report and says how it went; returns the exit code."""
    lines = tables.write(session)
    trouble = tables.page(session)
    if trouble:
        troubles = [*troubles, f"report.html: {trouble}"]
    session.say(f"report: {os.path.relpath(session.out)}/README.md")
    asked = {row.id for row in todo}
    void = sorted({cell.row for cell in session.cells if cell.void})
    failed = {cell.row: cell.failed for cell in session.cells if cell.failed}
    troubles = [*troubles, *(f"{row}: {why}" for row, why in failed.items() if row in asked)]
    for mine in (lines[name] for name in lines if name in asked):
        for line in mine:
            print(f"{line.verdict:>12}  {line.what}: {line.measured}  (target {line.target})")
    for text in troubles:
        print(f"bench/compare: {text}", file=sys.stderr)
    if troubles:
        rows_of = dict.fromkeys(text.partition(":")[0] for text in troubles)
        again = ",".join(name for name in rows_of if name in asked)
        print(f"bench/compare: repeat with --only {again or 'ROW'} and the same --out",
              file=sys.stderr)
        return EXIT_FAILED
    if void:
        print(f"bench/compare: void runs in {', '.join(void)}: the machine was too busy or the "
              f"generator's cores too few; repeat with --only {','.join(void)} and the same --out",
              file=sys.stderr)
        return EXIT_VOID
    return 0


def run(options):
    cores, data, out = prepare(options)
    binary = fetch.orbitmq(print)
    todo = rows.chosen(options.only, options.quick)
    # Before anything is measured: no network is a reason to stop now, not in half an hour.
    for name in ("rocketmq",) + (("kafka",) if rows.BY_ID["batch"] in todo else ()):
        try:
            fetch.jars(name, print)
        except Trouble as trouble:
            raise Unusable(str(trouble)) from None
    session = Session(plan_of(options), binary, data, out, cores,
                      {"read-ahead": options.read_ahead})
    code = EXIT_FAILED
    try:
        if options.only or options.resume:
            session.load()
        elif (out / "session.json").exists():
            raise Unusable(f"{os.path.relpath(out)} holds a comparison: --resume continues it, "
                           "--only ROW repeats a row of it, --out begins another")
        if options.resume:
            todo = [row for row in todo if not session.done.get(row.id)]
        elif options.only:
            # What was needed and is done already stays.
            todo = [r for r in todo if r.id in options.only or not session.done.get(r.id)]
        session.saved["facts"] = {**host.facts(data, cores), **host.versions(binary)}
        session.saved["plan"] = dataclasses.asdict(session.plan)
        # Our own little work stays off the broker's cores.
        os.sched_setaffinity(0, cores[1])
        announce(session, todo)
        code = finish(session, measure(session, todo), todo)
    except KeyboardInterrupt:
        session.say("interrupted; what was measured is kept, --resume continues")
        if session.cells:
            session.save()
            tables.write(session)
        code = EXIT_INTERRUPTED
    finally:
        session.close()
    return code


def _interrupt(_signal, _frame):
    raise KeyboardInterrupt


def main(argv):
    options = parse(argv)
    if options.list:
        show_rows()
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return run(options)
    except Unusable as trouble:
        print(f"bench/compare: {trouble}", file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        print("bench/compare: interrupted before anything was measured", file=sys.stderr)
        return EXIT_INTERRUPTED
