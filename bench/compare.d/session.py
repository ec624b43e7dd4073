"""One comparison while it runs: who is alive, whose turn it is, what was measured so far.

At any moment at most one broker runs; the others are frozen or not started. Every cell is saved
as soon as it is there, so that an end at any moment keeps what was measured.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import tempfile
import time

import brokers
import fetch
import generator
import host
import wire
from judge import Cell, Cells
from kafka import Kafka
from processes import Processes, core_list
from trouble import Trouble, Unusable

BODY_BYTES = 1024
QUEUES = 8
JAVA_IN_FLIGHT = 256
ORBIT_IN_FLIGHT = 4096
DEFAULT_BEST = {"async": "async-tuned", "sync": "sync-stock"}
ATTEMPTS = 2


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much of everything."""

    is_quick: bool
    rounds: int
    # Of one cell: measured, and before that.
    seconds: int
    ramp_seconds: int
    # Load on a fresh JVM before anything counts, and before another kind of load counts.
    java_warm_seconds: int
    # The same where only the best of several is looked for.
    scout_warm_seconds: int
    prime_seconds: int

    @property
    def cell(self):
        """About the time one cell takes, with its turn."""
        return self.seconds + self.ramp_seconds + 2

    @property
    def java(self):
        """About the time until a Java broker is there and warm."""
        return 18 + self.java_warm_seconds

    @staticmethod
    def quick():
        return Plan(True, 1, 5, 1, 20, 20, 3)

    @staticmethod
    def full():
        return Plan(False, 3, 10, 2, 60, 40, 8)


def sweep(data):
    """Deletes what runs left that were killed: folders with the number of no living process."""
    for folder in data.glob("compare-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not pathlib.Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


class Session:
    """What rows measure with."""

    def __init__(self, plan, binary, data, out, cores, notes):
        self.plan = plan
        self.binary = binary
        sweep(data)
        # A folder of our own: what else lies there is not ours to delete.
        self.data = pathlib.Path(tempfile.mkdtemp(prefix=f"compare-{os.getpid()}-", dir=data))
        self.out = out
        self.broker_cores, self.load_cores = cores
        self.notes = notes
        self.processes = Processes()
        self.cells = []
        self.done = {}
        self.saved = {}
        self.configs = {}
        self.row = ""
        self.started = time.monotonic()
        self._alive = []
        self._java = None
        self._undo = contextlib.ExitStack()
        self._numbers = itertools.count(1)

    # What is said and saved

    def say(self, text):
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"{minutes:3d}:{seconds:02d}  {text}", flush=True)

    def load(self):
        """Takes over what an earlier run saved in the same folder."""
        path = self.out / "session.json"
        if path.exists():
            try:
                saved = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise Unusable(f"{path} is damaged: choose another --out") from None
            if saved.get("plan") != dataclasses.asdict(self.plan):
                raise Unusable(f"{path.parent} was measured with other rounds or times: repeat "
                               "with the same --quick, --rounds and --seconds, or another --out")
            self.cells = [Cell(**cell) for cell in saved["cells"]]
            self.done, self.configs = saved["done"], saved["configs"]
            self.saved = {key: saved[key] for key in ("facts", "plan") if key in saved}
        taken = [int(path.name[:4]) for path in (self.out / "raw").glob("[0-9]" * 4 + "-*")]
        self._numbers = itertools.count(max(taken, default=0) + 1)

    def save(self):
        whole = {
            **self.saved,
            "done": self.done,
            "configs": self.configs,
            "cells": [dataclasses.asdict(cell) for cell in self.cells],
        }
        part = self.out / "session.json.part"
        part.write_text(json.dumps(whole, indent=1), encoding="utf-8")
        part.replace(self.out / "session.json")

    def begin(self, row):
        """Forgets what an earlier run measured for the row."""
        self.row = row
        self.done.pop(row, None)
        for cell in self.cells:
            if cell.row == row and cell.file:
                (self.out / cell.file).unlink(missing_ok=True)
        self.cells = [cell for cell in self.cells if cell.row != row]

    def add(self, cell):
        self.cells.append(cell)
        self.save()
        values = cell.values
        shown = [f"{values['rate']:,.0f}/s"] if "rate" in values else []
        shown += [f"{key[:-3]} {values[key] / 1000:.2f} ms"
                  for key in ("p50_us", "p99_us") if key in values]
        shown += [f"CPU {values['cpu_us']:.2f} µs"] if "cpu_us" in values else []
        if "bytes_per_second" in values:
            shown.append(f"{values['bytes_per_second'] / 1e6:,.0f} MB/s")
        if "cores" in values and not shown:
            shown.append(f"{values['cores']:.2%} of a core")
        shown += [cell.note] if cell.note else []
        shown += ["VOID: " + "; ".join(cell.void)] if cell.void else []
        shown += ["failed: " + cell.failed] if cell.failed else []
        who = f"{cell.peer} {cell.config}".strip()
        self.say(f"{cell.row}: {who}, {cell.case}, round {cell.round}: {', '.join(shown)}")

    def add_values(self, broker, case, round_, values, peer=None):
        """A cell of figures that did not come from the generator."""
        config = "" if peer else broker.config
        self.add(Cell(self.row, peer or broker.name, config, case, round_, values=values))

    def found(self):
        return Cells(self.cells)

    # Who is alive, and whose turn it is

    def rounds(self):
        return range(1, self.plan.rounds + 1)

    def _folder(self, name):
        return self.data / f"{name}-{next(self._numbers)}"

    def freeze_all(self):
        for broker in self._alive:
            broker.freeze()

    @contextlib.contextmanager
    def turn(self, broker):
        """Only this broker runs, and what others wrote is on the disk."""
        self.freeze_all()
        os.sync()
        broker.thaw()
        if not broker.main.is_alive():
            raise Trouble(f"{broker.name} has ended; the end of its log:\n{broker.main.tail()}")
        try:
            yield broker
        finally:
            broker.freeze()

    def java(self, name, warm_seconds=None):
        """Java RocketMQ in that configuration, warm and frozen; the one before is stopped."""
        warm_seconds = warm_seconds or self.plan.java_warm_seconds
        java = self._java
        if java and java.config == name and java.main.is_alive():
            self._warm(java, warm_seconds - java.warm_seconds)
            return java
        self.stop_java()
        config = brokers.CONFIGS[name]
        if config.read_ahead_kib:
            self._undo.enter_context(host.read_ahead(self.data, config.read_ahead_kib))
        self.freeze_all()
        self.say(f"starting Java RocketMQ {name}, then {warm_seconds} s of load")
        jars = fetch.jars("rocketmq", self.say)
        java = brokers.Java(jars, config, self._folder("java"), self.processes, self.broker_cores)
        self._alive.append(java)
        self._java = java
        self.configs[f"java-{name}"] = java.describe()
        self._warm(java, warm_seconds)
        return java

    def _warm(self, java, seconds):
        """Load that counts for nothing but the JIT."""
        if seconds > 0:
            with self.turn(java):
                java.create_topic("warm", QUEUES)
                self._load(java, "send", topic="warm", in_flight=JAVA_IN_FLIGHT, seconds=seconds,
                           body_bytes=BODY_BYTES)
            java.warm_seconds += seconds

    def stop_java(self):
        if self._java:
            self._alive.remove(self._java)
            self._java.stop()
            self._java = None
        self._undo.close()

    @contextlib.contextmanager
    def orbit(self, flush, shards=1, cores=None, **keys):
        """OrbitMQ, fresh and frozen; stopped and deleted afterwards."""
        self.freeze_all()
        orbit = brokers.Orbit(self.binary, self._folder("orbitmq"), self.processes,
                              cores or self.broker_cores[:shards], flush, shards, keys.items())
        self.configs["orbitmq-" + "-".join(map(str, orbit.settings.values()))] = orbit.describe()
        with self._guest(orbit):
            yield orbit

    @contextlib.contextmanager
    def kafka(self):
        self.freeze_all()
        self.say("starting Kafka")
        jars = fetch.jars("kafka", self.say)
        kafka = Kafka(jars, self._folder("kafka"), self.processes, self.broker_cores)
        self.configs["kafka"] = kafka.describe()
        with self._guest(kafka):
            yield kafka

    @contextlib.contextmanager
    def _guest(self, broker):
        self._alive.append(broker)
        broker.freeze()
        try:
            yield broker
        finally:
            self._alive.remove(broker)
            broker.stop()

    def close(self):
        """Ends and deletes all that is left."""
        self.processes.end_all()
        self._undo.close()
        shutil.rmtree(self.data, ignore_errors=True)

    # Measuring

    def _load(self, broker, workload, *, topic, seconds, label="", cores=None, **options):
        """Runs the generator once against a broker whose turn it is."""
        argv = generator.command_line(
            self.binary, workload, cores or self.load_cores, namesrv=broker.namesrv, topic=topic,
            cores=core_list(cores or self.load_cores), quiet=True, label=label or None,
            seconds=None if "count" in options else seconds,
            broker_pid=broker.main.pid, broker_data=broker.data, **options,
        )
        log = self.data / "generator.log"
        log.write_text("")
        wait = seconds + options.get("warmup_seconds", 0)
        code, outcome, words = generator.run(argv, wait, log)
        if not broker.main.is_alive():
            raise Trouble(
                f"{broker.name} ended during the load; the end of its log:\n{broker.main.tail()}"
            )
        return code, outcome, words

    def bench(self, broker, case, round_, workload="send", beside="", **options):
        """One cell; repeated once if it was void or failed."""
        options.setdefault("seconds", self.plan.seconds)
        options.setdefault("warmup_seconds", self.plan.ramp_seconds)
        label = f"{broker.name} {broker.config}, {case}"
        for attempt in range(1, ATTEMPTS + 1):
            code, outcome, words = self._load(broker, workload, label=label, **options)
            cell = Cell(self.row, broker.name, broker.config, case, round_, beside)
            if outcome is None:
                cell.failed = f"the generator ended with exit code {code}: {words}"
            else:
                cell.void = outcome.get("void") or []
                cell.values = generator.figures(outcome)
                cell.note, cell.failed = generator.verdict(outcome, code, words)
                name = f"{self.row}-{broker.name}-{broker.config}-{case}"
                cell.file = self.write_raw(name, outcome)
            if cell.is_sound:
                break
            if attempt < ATTEMPTS:
                self.say(f"repeating: {'; '.join(cell.void) or cell.failed}")
                (self.out / (cell.file or "none")).unlink(missing_ok=True)
        self.add(cell)
        return cell

    def write_raw(self, name, outcome):
        name = "".join(c if c.isalnum() else "-" for c in name.lower().replace("%", "percent"))
        path = f"raw/{next(self._numbers):04d}-{name}.json"
        (self.out / "raw").mkdir(exist_ok=True)
        (self.out / path).write_text(json.dumps(outcome, indent=1), encoding="utf-8")
        return path

    def prime(self, broker, workload, **options):
        """Lets a JIT see a kind of load before it counts. What comes of it does not matter."""
        options.setdefault("seconds", self.plan.prime_seconds)
        self._load(broker, workload, **options)

    def build_backlog(self, broker, topic, messages):
        """Puts so many messages into a topic, in batches, as fast as it goes."""
        broker.create_topic(topic, QUEUES)
        code, _, words = self._load(broker, "send", topic=topic, count=messages, batch=32,
                                    in_flight=32, body_bytes=BODY_BYTES, seconds=300)
        if code not in (0, generator.EXIT_VOID):
            raise Trouble(f"the backlog on {broker.name} could not be written: {words}")

    def best(self, mode):
        """The name of Java's best configuration that loses nothing acknowledged.

        Of those that took turns with us, once there are any; before that, of all that were tried.
        """
        cells = self.found().pick(row=f"send-{mode}", peer="Java RocketMQ").all
        cells = [cell for cell in cells if cell.beside] or cells
        ranked = {}
        for name in Cells(cells).configs():
            config = brokers.CONFIGS[name]
            rate = Cells(cells).pick(config=name).best_case().spread("rate")
            if rate and not config.is_unsafe and not config.read_ahead_kib:
                ranked[name] = rate.median
        return max(ranked, key=ranked.get) if ranked else DEFAULT_BEST[mode]

    def capacity(self, peer, mode):
        """What `send-MODE` found for the broker in its best case, or None."""
        cells = self.found().pick(row=f"send-{mode}", peer=peer)
        if peer == "Java RocketMQ":
            cells = cells.pick(config=self.best(mode))
        spread = cells.best_case().spread("rate")
        return spread.median if spread else None

    def stored_bytes(self, broker, topic):
        for queue in range(QUEUES):
            found = wire.stored_bytes(broker.address, topic, queue)
            if found:
                return found
        return None
