"""Load tools that are not ours: RocketMQ's benchmark clients and Kafka's producer.

They print a line every few seconds. The first lines are their warm-up; over the lines after them
the broker's CPU is read as well. Closed loop, averages only: a third party's view, not the
measurement.
"""

import re
import time

from brokers import java_client
from trouble import Trouble

PRODUCER = "org.apache.rocketmq.example.benchmark.Producer"
CONSUMER = "org.apache.rocketmq.example.benchmark.Consumer"
LINE_SECONDS_MAX = 60
POLL_SECONDS = 0.05
SEND_LINE = re.compile(r"Send TPS: (?P<rate>[\d.]+).*?Average RT\(ms\): +(?P<mean_ms>[\d.]+)"
                       r".*?Send Failed: (?P<failed>\d+)")
CONSUME_LINE = re.compile(r"TPS: (?P<rate>[\d.]+).*?AVG\(B2C\) RT\(ms\): +(?P<mean_ms>[\d.]+)")
KAFKA_LINE = re.compile(r"records sent, (?P<rate>[\d.]+) records/sec .*?"
                        r"(?P<mean_ms>[\d.]+) ms avg latency")


class Watched:
    """A load tool whose lines are read as they come."""

    def __init__(self, process, pattern):
        self.process = process
        self.pattern = pattern

    def found(self):
        text = self.process.log.read_text(errors="replace")
        return [match.groupdict() for match in map(self.pattern.search, text.splitlines()) if match]

    def wait(self, count):
        """Until so many lines are there."""
        end = time.monotonic() + LINE_SECONDS_MAX + count * 15
        while len(self.found()) < count:
            if not self.process.is_alive() or time.monotonic() > end:
                state = "no line came" if self.process.is_alive() else "it ended"
                raise Trouble(f"{self.process.name}: {state}; the end of its output:\n"
                              f"{self.process.tail()}")
            time.sleep(POLL_SECONDS)


def watch(broker, watched, skip, lines):
    """Figures over `lines` lines after the first `skip`, for each of the tools."""
    for tool in watched:
        tool.wait(skip)
    start, cpu = time.monotonic(), broker.main.cpu_seconds()
    begun = [len(tool.found()) for tool in watched]
    for tool, first in zip(watched, begun):
        tool.wait(first + lines)
    seconds, cpu = time.monotonic() - start, broker.main.cpu_seconds() - cpu
    taken = [tool.found()[first : first + lines] for tool, first in zip(watched, begun)]
    rates = [sum(float(line["rate"]) for line in mine) / len(mine) for mine in taken]
    made = []
    for mine, rate in zip(taken, rates):
        made.append({
            "rate": rate,
            "mean_us": 1000 * sum(float(line["mean_ms"]) for line in mine) / len(mine),
            "cpu_us": 1e6 * cpu / seconds / max(sum(rates), 1e-9),
            "cores": cpu / seconds,
            "refused": int(mine[-1].get("failed") or 0),
        })
    return made


def _start(session, name, argv):
    log = session.data / f"{name}-{time.monotonic_ns()}.log"
    return session.processes.start(name, argv, session.load_cores, log)


def kafka_producer(session, kafka, lines, skip=2):
    """Runs Kafka's producer over so many of its lines, five seconds each."""
    process = _start(session, "ProducerPerformance", kafka.producer("batch", 1024))
    try:
        return watch(kafka, [Watched(process, KAFKA_LINE)], skip, max(1, lines))[0]
    finally:
        session.processes.end(process, grace_seconds=1)


def rocketmq_clients(session, jars, broker, topic, tools, skip, lines):
    """Runs RocketMQ's benchmark clients together; figures by tool, ten seconds a line."""
    argvs = {
        "Producer": (SEND_LINE, PRODUCER, ["-w", "64", "-s", "1024"]),
        "Consumer": (CONSUME_LINE, CONSUMER, ["-g", "compare_stock", "-p", "false"]),
    }
    watched = []
    try:
        for tool in tools:
            pattern, main, args = argvs[tool]
            # Always with a topic: their default is a system topic, which a broker may refuse.
            args = [*args, "-t", topic, "-n", broker.namesrv]
            process = _start(session, tool, java_client(jars, session.data, main, *args))
            watched.append(Watched(process, pattern))
        return dict(zip(tools, watch(broker, watched, skip, lines)))
    finally:
        for tool in watched:
            session.processes.end(tool.process, grace_seconds=1)
