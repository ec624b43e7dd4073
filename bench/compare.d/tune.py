"""Sweeps of one knob each: a broker on its core, the generator on another, one CSV and one SVG per
sweep. What tuning.md shows was recorded with this.
"""

import argparse
import csv
import datetime
import pathlib
import subprocess
import sys

import brokers
import generator
import processes
from trouble import Trouble

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "target" / "release" / "orbitmq"
TOPIC = "tune"
QUEUES = 8
WARMUP_SECONDS = 1
COLUMNS = ["flush", "knob", "rate", "p50_us", "p99_us", "p999_us", "cpu_us", "cores",
           "device_bytes", "void"]

# Each sweep is recorded with both.
BOTH = (brokers.ASYNC, brokers.SYNC)
CLOSED = {"closed": True}


# `keys` and `load` give, for a value, the broker's keys and the generator's options.
def sweep(title, values, keys, load, x_label, y, y_label, log_x=True, log_y=False):
    return {"title": title, "values": values, "keys": keys, "load": load, "x_label": x_label,
            "y": y, "y_label": y_label, "log_x": log_x, "log_y": log_y}


SWEEPS = {
    "in-flight": sweep(
        "Messages under way and rate (closed loop, 1 KiB)", [1, 4, 16, 64, 256, 1024, 4096],
        lambda _: (), lambda n: {"in_flight": n, **CLOSED},
        "messages under way", "rate", "messages per second", log_y=True),
    "rate": sweep(
        "Rate and 99th percentile (open loop, 1 KiB)",
        [2000, 10_000, 50_000, 100_000, 150_000, 200_000],
        lambda _: (), lambda n: {"rate": n},
        "messages per second", "p99_us", "99th percentile, µs", log_y=True),
    "body": sweep(
        "Body size and rate (closed loop)", [128, 512, 1024, 4096, 16_384, 65_536],
        lambda _: (),
        lambda n: {"body_bytes": n, "in_flight": max(64, (4 << 20) // n), **CLOSED},
        "bytes of a body", "rate", "messages per second", log_y=True),
    "flushBatchBytes": sweep(
        "flushBatchBytes and rate (closed loop, 1 KiB, 4,096 under way)",
        [65_536, 131_072, 262_144, 524_288, 1 << 20, 4 << 20],
        lambda n: (("flushBatchBytes", n),), lambda _: {"in_flight": 4096, **CLOSED},
        "flushBatchBytes", "rate", "messages per second"),
    "writesInFlight": sweep(
        "writesInFlight and rate (closed loop, 1 KiB, 4,096 under way)", [1, 2, 4, 8],
        lambda n: (("writesInFlight", n),), lambda _: {"in_flight": 4096, **CLOSED},
        "writesInFlight", "rate", "messages per second"),
    "spinBeforePark": sweep(
        "spinBeforePark and the time of one send at a time (1 KiB)", [0, 20, 50, 100, 200, 500],
        lambda n: (("spinBeforePark", n),), lambda _: {"in_flight": 1, **CLOSED},
        "spinBeforePark, µs", "p50_us", "median, µs", log_x=False),
    "readInterval": sweep(
        "readInterval and CPU per message (20,000 messages of 1 KiB a second)",
        [0, 250, 500, 1000, 2000, 4000],
        lambda n: (("readInterval", n),), lambda _: {"rate": 20_000, "spin": True},
        "readInterval, µs", "cpu_us", "broker CPU per message, µs", log_x=False),
    "connections": sweep(
        "Connections and CPU per message (20,000 messages of 1 KiB a second)",
        [1, 10, 100, 1000, 5000],
        lambda _: (), lambda n: {"connections": n, "rate": 20_000},
        "connections", "cpu_us", "broker CPU per message, µs"),
}


def measure(name, flush, value, args, running):
    """One point: a fresh broker, one run."""
    entry = SWEEPS[name]
    data = args.data / "tune"
    broker = brokers.Orbit(BINARY, data, running, [args.broker_core], flush,
                           keys=entry["keys"](value))
    try:
        broker.create_topic(TOPIC, QUEUES)
        options = {"body_bytes": 1024, **entry["load"](value)}
        line = generator.command_line(
            BINARY, "send", [args.load_core], namesrv=broker.namesrv, topic=TOPIC,
            cores=args.load_core, seconds=args.seconds, warmup_seconds=WARMUP_SECONDS,
            broker_pid=broker.main.pid, broker_data=broker.data, quiet=True, **options)
        code, outcome, words = generator.run(line, args.seconds + WARMUP_SECONDS,
                                             args.out / "generator.log")
        if outcome is None:
            raise Trouble(f"{name} {value}, {flush}: no result (exit code {code}): {words}")
        found = generator.figures(outcome)
        found["void"] = " ".join(outcome.get("void") or [])
        return found
    finally:
        broker.stop()


def record(name, args, running):
    path = args.out / f"{name}.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for flush in BOTH:
            for value in SWEEPS[name]["values"]:
                found = measure(name, flush, value, args, running)
                row = {**found, "flush": flush, "knob": value}
                table.writerow([shown(row.get(column, "")) for column in COLUMNS])
                file.flush()
                print(f"  {name} {value} {flush}: {found['rate']:,.0f}/s, "
                      f"p50 {found['p50_us']:,.0f} µs, p99 {found['p99_us']:,.0f} µs, "
                      f"CPU {found['cpu_us']:.2f} µs {found['void']}", flush=True)
    draw(name, path)


def shown(value):
    return f"{value:.3f}" if isinstance(value, float) else value


def draw(name, path):
    entry = SWEEPS[name]
    argv = [BINARY, "bench", "plot", path, "--x", "knob", "--y", entry["y"], "--by", "flush",
            "--title", entry["title"], "--x-label", entry["x_label"],
            "--y-label", entry["y_label"], "--out", path.with_suffix(".svg")]
    argv += [flag for flag, wanted in (("--log-x", entry["log_x"]), ("--log-y", entry["log_y"]))
             if wanted]
    subprocess.run([str(word) for word in argv], check=True)


def arguments(words):
    parser = argparse.ArgumentParser(
        prog="bench/tune", description="Sweeps the knobs of tuning.md; needs a release build.")
    parser.add_argument("--out", type=pathlib.Path, help="default: perf/tuning-<today>")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "target" / "tune",
                        help="a folder on the disk to measure (default: %(default)s)")
    parser.add_argument("--only", help=f"some of {', '.join(SWEEPS)}")
    parser.add_argument("--seconds", type=int, default=5, help="of each point (default: 5)")
    parser.add_argument("--broker-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    args = parser.parse_args(words)
    today = datetime.date.today().isoformat()
    args.out = args.out or ROOT / "perf" / f"tuning-{today}"
    args.names = args.only.split(",") if args.only else list(SWEEPS)
    for name in args.names:
        if name not in SWEEPS:
            parser.error(f"no sweep is called {name}: there are {', '.join(SWEEPS)}")
    return args


def main(words):
    args = arguments(words)
    if not BINARY.exists():
        print("bench/tune: build first, with cargo build --release", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    points = sum(len(SWEEPS[name]["values"]) for name in args.names) * len(BOTH)
    minutes = points * (args.seconds + WARMUP_SECONDS + 2) / 60
    print(f"{points} points, about {minutes:.0f} minutes")
    running = processes.Processes()
    try:
        for name in args.names:
            print(f"{name}: {SWEEPS[name]['title']}", flush=True)
            record(name, args, running)
    except Trouble as trouble:
        print(f"bench/tune: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        running.end_all()
    return 0
