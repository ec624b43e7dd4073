"""OrbitMQ and Java RocketMQ as running servers, each with its configuration as used.

A broker is started once per row (OrbitMQ) or per configuration (Java, whose JIT wants warmth) and
frozen while another is measured.
"""

import dataclasses
import shutil

import host
import wire
from trouble import Trouble

START_SECONDS = 240
# After a long freeze the name server may have struck the broker off; it registers every 30 s.
ROUTE_SECONDS = 45
CREATE_SECONDS = 30
GIB = 1 << 30
# Neither may begin to delete or refuse because of what else lies on the disk.
DISK_PERCENT = 95

# What JDK 17 has to open for netty, direct buffers and mapped files.
MODULES = """
--add-exports java.base/jdk.internal.ref=ALL-UNNAMED --add-exports java.base/sun.nio.ch=ALL-UNNAMED
--add-opens java.base/java.nio=ALL-UNNAMED --add-opens java.base/sun.nio.ch=ALL-UNNAMED
--add-opens java.base/java.lang=ALL-UNNAMED --add-opens java.base/java.util=ALL-UNNAMED
--add-opens java.base/jdk.internal.misc=ALL-UNNAMED
""".split()
# As in the official runbroker.sh and runserver.sh.
G1 = """
-server -XX:+UseG1GC -XX:G1HeapRegionSize=16m -XX:G1ReservePercent=25
-XX:InitiatingHeapOccupancyPercent=30 -XX:SoftRefLRUPolicyMSPerMB=0
-XX:-OmitStackTraceInFastThrow -XX:-UseLargePages -XX:+AlwaysPreTouch
""".split()
CLIENT = ["-server", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:+PerfDisableSharedMem"]


@dataclasses.dataclass(frozen=True)
class Config:
    """One way to run Java RocketMQ."""

    name: str
    flush: str
    keys: tuple = ()
    note: str = ""
    # Acknowledged messages can be lost to kill -9: never the one that is compared.
    is_unsafe: bool = False
    read_ahead_kib: int | None = None

    @property
    def mode(self):
        return "sync" if self.flush == "SYNC_FLUSH" else "async"


TUNED = (
    ("useEpollNativeSelector", "true"),
    ("putConsumeQueueDataByFileChannel", "false"),
    ("transferMsgByHeap", "false"),
    ("useABSLock", "true"),
)
POOL = (("transientStorePoolEnable", "true"), ("transientStorePoolSize", "5"))
NO_MMAP = (("writeWithoutMmap", "true"),)
SPIN = (("useReentrantLockWhenPutMessage", "false"), ("useABSLock", "false"))


def threads(count):
    return (("sendMessageThreadPoolNums", str(count)),)


ASYNC, SYNC = "ASYNC_FLUSH", "SYNC_FLUSH"
CONFIGS = {
    config.name: config
    for config in (
        Config("async-stock", ASYNC, note="as shipped"),
        Config("async-tuned", ASYNC, TUNED, "native epoll, no heap copies, adaptive lock"),
        Config("async-tuned-t4", ASYNC, TUNED + threads(4), "tuned, 4 send threads"),
        Config("async-tuned-t16", ASYNC, TUNED + threads(16), "tuned, 16 send threads"),
        Config("async-tuned-spin", ASYNC, TUNED + threads(4) + SPIN, "tuned, 4 threads, spin lock"),
        Config("async-tuned-warm", ASYNC, TUNED + (("warmMapedFileEnable", "true"),),
               "tuned, mapped files touched ahead"),
        Config("async-tuned-pool", ASYNC, TUNED + POOL,
               "tuned, transient store pool: kill -9 loses acknowledged messages", True),
        Config("sync-stock", SYNC, note="as shipped"),
        Config("sync-nommap", SYNC, NO_MMAP, "writes with the file channel, not the mapping"),
        Config("sync-tuned", SYNC, TUNED, "native epoll, no heap copies, adaptive lock"),
        Config("sync-tuned-t4", SYNC, TUNED + threads(4), "tuned, 4 send threads"),
        Config("sync-tuned-t16-spin", SYNC, TUNED + threads(16) + SPIN,
               "tuned, 16 threads, spin lock"),
        Config("sync-stock-ra128", SYNC, note="as shipped, disk read-ahead 128 KiB",
               read_ahead_kib=128),
    )
}


def java_heap_bytes():
    """A quarter of the box, at most the 8 GiB of runbroker.sh: the page cache needs the rest."""
    return max(GIB, min(8 * GIB, host.memory_bytes() // 4))


def addresses():
    """Free ones for a name server and a broker."""
    # A broker also listens two below its port (the VIP channel) and, in Java, one above (HA).
    port = host.free_port(5)
    return f"127.0.0.1:{port}", f"127.0.0.1:{port + 3}"


class Broker:
    """What all servers share."""

    def __init__(self, name, config, data, processes, cores):
        self.name = name
        self.config = config
        self.data = data
        self.processes = processes
        self.cores = cores
        self.parts = []
        self.topics = []
        data.mkdir(parents=True, exist_ok=True)

    def begin(self):
        """Starts it; a part that does not come up leaves none of the others running."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def freeze(self):
        for part in self.parts:
            part.freeze()

    def thaw(self):
        """Lets it run on and waits until clients find it again."""
        was_frozen = any(part.frozen for part in self.parts)
        for part in self.parts:
            part.thaw()
        if was_frozen:
            self.wait_for_routes()

    def wait_for_routes(self):
        for topic in self.topics[-1:]:
            ready = lambda: wire.has_route(self.namesrv, topic)  # noqa: E731
            self.main.wait_until(ready, f"a route for {topic}", ROUTE_SECONDS)

    def create_topic(self, topic, queues):
        """On the broker itself, so that both begin with the same queues."""
        if topic in self.topics:
            return
        refusals = []

        def is_created():
            # A broker may listen a moment before all of it serves.
            refusals.append(wire.create_topic(self.address, topic, queues))
            return refusals[-1] is None

        try:
            self.main.wait_until(is_created, f"creating topic {topic}", CREATE_SECONDS)
        except Trouble as trouble:
            answer = refusals[-1] if refusals else "none"
            raise Trouble(f"{trouble}\n    its answer: {answer}") from None
        self.topics.append(topic)
        self.wait_for_routes()

    def stop(self, keep_data=False):
        for part in reversed(self.parts):
            # What is about to be deleted need not be closed in order.
            self.processes.end(part, grace_seconds=20 if keep_data else 0)
        self.parts.clear()
        if not keep_data:
            shutil.rmtree(self.data, ignore_errors=True)


class Orbit(Broker):
    """`orbitmq standalone`: name server and broker in one process."""

    def __init__(self, binary, data, processes, cores, flush, shards=1, keys=()):
        super().__init__("OrbitMQ", flush_name(flush, shards), data, processes, cores)
        self.binary = binary
        self.flush = flush
        self.settings = {"shards": shards, "flushDiskType": flush,
                         "diskMaxUsedSpaceRatio": DISK_PERCENT, **dict(keys)}
        self.begin()

    @property
    def mode(self):
        return "sync" if self.flush == SYNC else "async"

    def start(self):
        self.namesrv, self.address = addresses()
        # One executor per shard; more cores than that are not taken.
        taken = self.cores[: self.settings["shards"]]
        cores = f"{taken[0]}-{taken[0]}" if len(taken) == 1 else ",".join(map(str, taken))
        argv = [self.binary, "standalone", "--data", self.data / "store", "--cores", cores]
        argv += ["--listen", self.address, "--namesrv-listen", self.namesrv]
        for key, value in self.settings.items():
            argv += ["--set", f"{key}={value}"]
        log = self.data / "orbitmq.log"
        self.main = self.processes.start(self.name, argv, self.cores, log)
        self.parts = [self.main]
        self.main.wait_until(
            lambda: wire.has_route(self.namesrv, "TBW102") and host.is_listening(self.address),
            "readiness (both ports and a route)", START_SECONDS,
        )

    def describe(self):
        return "\n".join(f"{key} = {value}" for key, value in self.settings.items()) + "\n"


def flush_name(flush, shards):
    mode = "sync" if flush == SYNC else "async"
    return mode if shards == 1 else f"{mode}, {shards} shards"


class Java(Broker):
    """Name server and broker of Java RocketMQ, each its own JVM."""

    BROKER = "org.apache.rocketmq.broker.BrokerStartup"
    NAMESRV = "org.apache.rocketmq.namesrv.NamesrvStartup"

    def __init__(self, jars, config, data, processes, cores):
        super().__init__("Java RocketMQ", config.name, data, processes, cores)
        self.jars = jars
        self.mode = config.mode
        self.settings = config
        self.warm_seconds = 0
        self.begin()

    def start(self):
        self.namesrv, self.address = addresses()
        self._start_namesrv()
        conf = self.data / "broker.conf"
        port = int(self.address.rpartition(":")[2])
        conf.write_text(self.properties(port, self.data / "store"), encoding="utf-8")
        heap = java_heap_bytes() // (1 << 20)
        jvm = [f"-Xms{heap}m", f"-Xmx{heap}m", f"-XX:MaxDirectMemorySize={2 * heap}m"]
        self.main = self._launch("broker", jvm, self.BROKER, conf)
        self.parts.append(self.main)
        self.main.wait_until(
            lambda: host.is_listening(self.address)
            and wire.is_registered(self.namesrv, "broker-a"),
            "readiness (its port and its registration)", START_SECONDS,
        )

    def _start_namesrv(self):
        conf = self.data / "namesrv.conf"
        conf.write_text(
            f"listenPort={self.namesrv.rpartition(':')[2]}\n"
            f"kvConfigPath={self.data}/kvConfig.json\n"
            f"configStorePath={self.data}/namesrv.properties\n",
            encoding="utf-8",
        )
        jvm = ["-Xms512m", "-Xmx512m"]
        namesrv = self._launch("name server", jvm, self.NAMESRV, conf)
        self.parts = [namesrv]
        namesrv.wait_until(lambda: host.is_listening(self.namesrv), "its port opening",
                           START_SECONDS)

    def _launch(self, part, jvm, main, conf):
        home = self.data / "home"
        (home / "conf").mkdir(parents=True, exist_ok=True)
        argv = ["java", *jvm, *G1, *MODULES, f"-Duser.home={self.data}"]
        argv += ["-cp", f"{home}/conf:{self.jars}/*", main, "-c", conf]
        log = self.data / f"{part.replace(' ', '')}.log"
        env = {"ROCKETMQ_HOME": str(home)}
        return self.processes.start(f"{self.name} {part}", argv, self.cores, log, env)

    def properties(self, port, store):
        lines = {
            "brokerClusterName": "DefaultCluster",
            "brokerName": "broker-a",
            "brokerId": 0,
            "brokerRole": "ASYNC_MASTER",
            "namesrvAddr": self.namesrv,
            "brokerIP1": "127.0.0.1",
            "listenPort": port,
            "haListenPort": port + 1,
            "flushDiskType": self.settings.flush,
            "storePathRootDir": store,
            "storePathCommitLog": f"{store}/commitlog",
            "autoCreateTopicEnable": "true",
            "fileReservedTime": 48,
            "diskMaxUsedSpaceRatio": DISK_PERCENT,
            **dict(self.settings.keys),
        }
        return "".join(f"{key}={value}\n" for key, value in lines.items())

    def describe(self):
        heap = java_heap_bytes() // (1 << 20)
        jvm = f"-Xms{heap}m -Xmx{heap}m -XX:MaxDirectMemorySize={2 * heap}m {' '.join(G1)}"
        text = self.properties(10911, "DATA/store").replace(self.namesrv, "NAMESRV")
        return f"# java {jvm}\n{text}"


def java_client(jars, data, main, *args):
    """The command line of a Java client, run by class."""
    argv = ["java", *CLIENT, *MODULES, f"-Duser.home={data}"]
    argv += ["-Drocketmq.client.logUseSlf4j=false", "-cp", f"{jars}/*", main, *args]
    return argv
