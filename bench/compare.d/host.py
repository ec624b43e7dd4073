"""Facts about this machine, its cores and its disk. No host names.

Changes one thing, and only when asked to: the read-ahead of the data disk, which it restores.
"""

import concurrent.futures
import contextlib
import mmap
import os
import pathlib
import platform
import shutil
import socket
import subprocess
import time

from trouble import Trouble, Unusable

MIB = 1 << 20
READ_BYTES = 4 * MIB
READS_IN_FLIGHT = 4
PORT_LOW, PORT_HIGH = 20_000, 32_000


def read(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def output(*argv):
    """What a program prints, or nothing if it is not there."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60,
                              cwd=pathlib.Path(__file__).parent)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # Java prints its version as if it were an error.
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else ""


def split_cores(broker, load):
    """The cores of broker and load: as given, else half of those we may use each."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise Unusable(
            "this machine lets us use one core; broker and generator need one each. "
            "Run where two are free."
        )
    half = len(usable) // 2
    broker = parse_cores(broker, usable) if broker else usable[:half]
    load = parse_cores(load, usable) if load else [c for c in usable[half:] if c not in broker]
    if not load or set(broker) & set(load):
        raise Unusable(
            f"broker cores {broker} and load cores {load} overlap or leave none: name both with "
            f"--broker-cores and --load-cores, out of {usable}"
        )
    return broker, load


def parse_cores(text, usable):
    """`0`, `0,2` or `0-3`."""
    cores = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            cores += range(int(first), int(last if dash else first) + 1)
    except ValueError:
        raise Unusable(f"`{text}` is no list of cores: write 0, 0,2 or 0-3") from None
    wrong = [core for core in cores if core not in usable]
    if wrong or not cores:
        raise Unusable(f"cores {wrong or text} may not be used here, {usable} may")
    return sorted(set(cores))


def free_port(stride=3):
    """The first of `stride` free ports in a row."""
    for first in range(PORT_LOW + os.getpid() % 1000 * 4, PORT_HIGH, stride):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + stride):
                    listener = held.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise Trouble("no free ports on 127.0.0.1: end what listens there and repeat")


def is_listening(address):
    name, _, port = address.rpartition(":")
    try:
        with socket.create_connection((name, int(port)), timeout=1):
            return True
    except OSError:
        return False


def memory_bytes():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def mount_of(path):
    """Device, file system and options of the mount that holds `path`."""
    best, path = ("", "", "", ""), str(pathlib.Path(path).resolve())
    for line in read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        point, options = left.split()[4:6]
        kind, source = right.split()[:2]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, source, kind, options)
    return best


def queue_of(path):
    """`/sys/block/…/queue` of the disk below `path`, or None."""
    device = os.stat(path).st_dev
    here = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    for place in (here, here.parent):
        if (place / "queue").is_dir():
            return place / "queue"
    return None


def check_disk(path, need_bytes):
    _, _, kind, _ = mount_of(path)
    if kind in ("tmpfs", "ramfs"):
        raise Unusable(f"{path} is in memory ({kind}): give --data a folder on a real disk")
    free = shutil.disk_usage(path).free
    if free < need_bytes:
        raise Unusable(
            f"{free / 1e9:.0f} GB are free below {path}, {need_bytes / 1e9:.0f} GB are needed: "
            "free some or give --data another disk"
        )


TCP_CONGESTION_CONTROL = "/proc/sys/net/ipv4/tcp_congestion_control"


def facts(path, cores):
    """What a reader must know of the machine."""
    _, _, kind, options = mount_of(path)
    cpu = [line for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    found = {
        "processor": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "cores usable": len(os.sched_getaffinity(0)),
        "broker cores": " ".join(map(str, cores[0])),
        "load cores": " ".join(map(str, cores[1])),
        "memory": f"{memory_bytes() / (1 << 30):.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": f"{kind} ({options})",
        "TCP congestion control": read(TCP_CONGESTION_CONTROL),
        "load average at start": " ".join(read("/proc/loadavg").split()[:3]),
    }
    queue = queue_of(path)
    for name in ("rotational", "write_cache", "fua", "read_ahead_kb", "scheduler"):
        if queue and (queue / name).exists():
            found[f"disk {name}"] = read(queue / name)
    return found


def versions(binary):
    return {
        "orbitmq": output(binary, "version"),
        "commit": output("git", "describe", "--always", "--dirty"),
        "rustc": output("rustc", "--version"),
        "java": output("java", "-version").splitlines()[0:1],
        "python": platform.python_version(),
    }


def forget(folder):
    """Drops the pages of all files below `folder` from the page cache; needs no rights.

    Pages that a running process has mapped stay: stop it first.
    """
    os.sync()
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sequential_read(files, bytes_max):
    """Bytes per second of reading these files in order, past the page cache."""
    places = []
    for path in files:
        size = os.path.getsize(path) // READ_BYTES * READ_BYTES
        places += [(path, at) for at in range(0, size, READ_BYTES)]
    places = places[: max(1, bytes_max // READ_BYTES)]
    opened = {path: os.open(path, os.O_RDONLY | os.O_DIRECT) for path, _ in places}
    # Anonymous maps begin at a page, which direct reads need.
    buffers = [mmap.mmap(-1, READ_BYTES) for _ in range(READS_IN_FLIGHT)]

    def lane(number):
        mine = places[number::READS_IN_FLIGHT]
        return sum(os.preadv(opened[path], [buffers[number]], at) for path, at in mine)

    try:
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
            done = sum(pool.map(lane, range(READS_IN_FLIGHT)))
        return done / max(time.monotonic() - start, 1e-9)
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


@contextlib.contextmanager
def read_ahead(path, kib):
    """Another read-ahead for the disk below `path`, for a while."""
    queue = queue_of(path)
    if os.geteuid() != 0 or queue is None or not (queue / "read_ahead_kb").exists():
        raise Trouble("read_ahead_kb can be changed by root on a block device only: left out")
    before = read(queue / "read_ahead_kb")
    (queue / "read_ahead_kb").write_text(str(kib))
    try:
        yield
    finally:
        (queue / "read_ahead_kb").write_text(before)
