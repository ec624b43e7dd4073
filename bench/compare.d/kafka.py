"""One Kafka node (KRaft, page cache) and its own producer, for the row of batches.

Kafka's protocol is not ours: it is driven by its ProducerPerformance, on the load cores.
"""

import shutil
import subprocess

import host
from brokers import GIB, java_heap_bytes
from trouble import Trouble

START_SECONDS = 240
SERVER = "kafka.Kafka"
FORMAT = "kafka.tools.StorageTool"
TOPICS = "org.apache.kafka.tools.TopicCommand"
PRODUCER = "org.apache.kafka.tools.ProducerPerformance"
# 16 bytes in base64, as StorageTool wants a cluster named.
CLUSTER = "Y29tcGFyZS1hLWJyb2tlcg"
# As kafka-run-class.sh sets.
G1 = """
-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35
-XX:+ExplicitGCInvokesConcurrent
""".split()
CLIENT_PROPERTIES = {"acks": "all", "linger.ms": 5, "batch.size": 65536}


class Kafka:
    """A running node."""

    def __init__(self, jars, data, processes, cores):
        self.name, self.config, self.mode = "Kafka", "page cache", "async"
        self.jars, self.data, self.processes, self.cores = jars, data, processes, cores
        self.main = None
        data.mkdir(parents=True, exist_ok=True)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def _class(self, name):
        return ["java", *G1, f"-Dkafka.logs.dir={self.data}", "-cp", f"{self.jars}/*", name]

    def properties(self):
        lines = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self.port + 1}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@127.0.0.1:{self.port + 1}",
            "log.dirs": f"{self.data}/store",
            "offsets.topic.replication.factor": 1,
            # It is frozen while others are measured and must not be taken for dead.
            "broker.session.timeout.ms": 600_000,
        }
        return "".join(f"{key}={value}\n" for key, value in lines.items())

    def start(self):
        self.port = host.free_port(2)
        self.address = f"127.0.0.1:{self.port}"
        conf = self.data / "server.properties"
        conf.write_text(self.properties(), encoding="utf-8")
        self._tool(FORMAT, "format", "-t", CLUSTER, "-c", conf)
        heap = min(GIB, java_heap_bytes()) >> 20
        argv = self._class(SERVER)
        argv[1:1] = [f"-Xms{heap}m", f"-Xmx{heap}m"]
        log = self.data / "kafka.log"
        self.main = self.processes.start(self.name, [*argv, conf], self.cores, log)
        listening = lambda: host.is_listening(self.address)  # noqa: E731
        self.main.wait_until(listening, "its port opening", START_SECONDS)

    def _tool(self, name, *args):
        argv = [*self._class(name), *map(str, args)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).splitlines()[-5:]
            last = "\n".join("    " + line for line in lines)
            raise Trouble(f"Kafka's {name.rpartition('.')[2]} failed:\n{last}")

    def create_topic(self, topic, queues):
        # This also waits until the node serves requests.
        self._tool(TOPICS, "--bootstrap-server", self.address, "--create", "--if-not-exists",
                   "--topic", topic, "--partitions", queues)

    def freeze(self):
        self.main.freeze()

    def thaw(self):
        self.main.thaw()

    def producer(self, topic, body_bytes):
        """The command line of a producer that runs until it is ended."""
        argv = [*self._class(PRODUCER), "--topic", topic, "--num-records", 2_000_000_000]
        argv += ["--record-size", body_bytes, "--throughput", -1, "--producer-props"]
        argv += [f"bootstrap.servers={self.address}"]
        return argv + [f"{key}={value}" for key, value in CLIENT_PROPERTIES.items()]

    def describe(self):
        text = self.properties().replace(str(self.data), "DATA")
        return text + "".join(f"# producer: {k}={v}\n" for k, v in CLIENT_PROPERTIES.items())

    def stop(self):
        if self.main:
            self.processes.end(self.main, grace_seconds=0)
        shutil.rmtree(self.data, ignore_errors=True)
