"""The processes a comparison starts: pinned, frozen while another is measured, and ended.

Owns every process it starts and touches no other. None outlives this program, however it ends:
the kernel kills them with it.
"""

import ctypes
import os
import signal
import subprocess
import time

from trouble import Trouble

POLL_SECONDS = 0.02
TAIL_LINES = 20
PR_SET_PDEATHSIG = 1
TICKS = os.sysconf("SC_CLK_TCK")
LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    """For a child about to run its program: the kernel ends it with us."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def core_list(cores):
    """`0,1`, as taskset wants it."""
    return ",".join(str(core) for core in cores)


class Process:
    """One running child."""

    def __init__(self, name, popen, log):
        self.name = name
        self.popen = popen
        self.log = log
        self.frozen = False

    @property
    def pid(self):
        return self.popen.pid

    def is_alive(self):
        return self.popen.poll() is None

    def freeze(self):
        """Stops the clock for it, so that it takes nothing from whoever is measured."""
        if self.is_alive() and not self.frozen:
            os.kill(self.pid, signal.SIGSTOP)
            self.frozen = True

    def thaw(self):
        if self.is_alive() and self.frozen:
            os.kill(self.pid, signal.SIGCONT)
        self.frozen = False

    def end(self, grace_seconds=20):
        """Asks it to end, then makes it."""
        if self.is_alive():
            self.popen.terminate()
            self.thaw()
            try:
                self.popen.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.popen.wait()

    def tail(self):
        """The last lines of its log, indented."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        except OSError:
            lines = []
        return "\n".join("    " + line for line in lines) or "    (its log is empty)"

    def wait_until(self, ready, what, seconds):
        """Polls `ready` until it is true."""
        end = time.monotonic() + seconds
        while not ready():
            if not self.is_alive():
                code = self.popen.returncode
                raise Trouble(
                    f"{self.name} ended while starting (exit code {code}); the end of its log "
                    f"says why, and a port taken meanwhile is cured by a second run:\n"
                    f"{self.tail()}"
                )
            if time.monotonic() > end:
                raise Trouble(
                    f"{self.name} runs, but {what} did not happen in {seconds} s; if the machine "
                    f"is busy, repeat when it is not. The end of its log:\n{self.tail()}"
                )
            time.sleep(POLL_SECONDS)

    def cpu_seconds(self):
        """User and system time of all its threads so far."""
        with open(f"/proc/{self.pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def thread_cpu_seconds(self, prefix):
        """The same for each thread whose name starts so."""
        spent = {}
        for task in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{task}/stat", encoding="utf-8") as stat:
                    head, _, rest = stat.read().rpartition(")")
            except OSError:
                continue
            name = head.partition("(")[2]
            if name.startswith(prefix):
                fields = rest.split()
                spent[name] = (int(fields[11]) + int(fields[12])) / TICKS
        return spent

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0


class Processes:
    """All children, so that none is forgotten."""

    def __init__(self):
        self._all = []

    def start(self, name, argv, cores, log, env=None, cwd=None):
        """Starts a program pinned to `cores`, its output in the file `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        argv = ["taskset", "-c", core_list(cores), *map(str, argv)]
        with open(log, "ab") as out:
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                # Ctrl-C is ours to handle: they are ended in order.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        process = Process(name, popen, log)
        self._all.append(process)
        return process

    def end(self, process, grace_seconds=20):
        process.end(grace_seconds)
        self._all.remove(process)

    def end_all(self):
        """Leaves nothing running; their data is about to be deleted, so no grace."""
        for process in self._all:
            if process.is_alive():
                process.popen.kill()
        for process in self._all:
            process.popen.wait()
        self._all.clear()
