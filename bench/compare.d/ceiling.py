"""`orbitmq bench ceiling`: what this host allows, measured once in a session.

The result's form is `src/loadgen/ceiling.rs`. It is kept as cells of the row `ceiling`, so that
rows measured later, or in a resumed run, find it.
"""

import json
import subprocess

from judge import Cell
from processes import core_list, die_with_parent
from trouble import Trouble

ROW = "ceiling"
FORMAT = 1
SECONDS_MAX = 600
# Headers of the frames: as most clients write them, and RocketMQ's own form.
JSON, BINARY = "json", "binary"


def measure(session):
    """Runs it alone on the machine and keeps its points."""
    session.stop_java()
    session.freeze_all()
    cores = session.broker_cores + session.load_cores
    # We keep to the load cores ourselves, and a child may only use its parent's.
    argv = ["taskset", "-c", core_list(cores), str(session.binary), "bench", "ceiling"]
    argv += ["--json", "--data", str(session.data)]
    argv += ["--cores", f"{session.broker_cores[0]},{session.load_cores[0]}"]
    argv += ["--quick"] if session.plan.is_quick else []
    session.say("measuring the host: loopback, disk, bare pipeline")
    _keep(session, "ceiling", _run(argv), JSON)
    session.say("measuring the bare pipeline with binary headers")
    _keep(session, "binary-ceiling", _run([*argv, "--only", "pipeline", "--codec", BINARY]), BINARY)
    session.save()


def _run(argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False,
                              timeout=SECONDS_MAX, preexec_fn=die_with_parent)
        report = json.loads(done.stdout)
    except (ValueError, subprocess.TimeoutExpired):
        words = "it did not end" if "done" not in locals() else done.stderr.strip()[-300:]
        raise Trouble(f"`orbitmq bench ceiling` gave no result: {words}") from None
    if report.get("format") != FORMAT:
        raise Trouble(f"`orbitmq bench ceiling` writes format {report.get('format')}, not {FORMAT}")
    return report


def _keep(session, name, report, codec):
    file = session.write_raw(name, report)
    for cell in cells(report, codec):
        cell.file = file
        session.cells.append(cell)


def cells(report, codec=JSON):
    """The points of a report on frames with headers of this codec."""
    made = []
    for point in report.get("loopback") or []:
        made.append(_cell("loopback", f"{point['bodyBytes']} B, depth {point['depth']}", point))
    for point in report.get("disk") or []:
        case = f"{point['blockBytes'] // 1024} KiB, depth {point['depth']}, {point['sync']}"
        made.append(_cell("disk", case, point))
    for point in report["pipeline"]:
        case = f"{point['flush']}, {point['bodyBytes']} B, {codec}, depth {point['depth']}"
        made.append(_cell(f"pipeline on {point['build']}", case, point))
    return made


def _cell(config, case, point):
    values = {"rate": point.get("messagesPerSecond", point.get("writesPerSecond"))}
    for key in ("p50", "p99"):
        if point.get(key) is not None:
            values[f"{key}_us"] = point[key] / 1000
    for key in ("serverCoreShare", "megabytesPerSecond"):
        if key in point:
            values[key] = point[key]
    return Cell(ROW, "host", config, case, 1, values=values)


def pipeline(found, body_bytes, codec):
    """The better build of the bare pipeline with SYNC_FLUSH, and its messages per second."""
    best = ("", None)
    for cell in found.pick(row=ROW).all:
        fits = cell.case.startswith(f"SYNC_FLUSH, {body_bytes} B, {codec},")
        if fits and (best[1] is None or cell.values["rate"] > best[1]):
            best = (cell.config, cell.values["rate"])
    return best


def depth1_us(found):
    """A round trip over loopback and one durable 4 KiB write, medians together; or None."""
    points = found.pick(row=ROW)
    trip = points.pick(config="loopback", case="1024 B, depth 1").values("p50_us")
    writes = []
    for sync in ("fdatasync", "dsync"):
        writes += points.pick(config="disk", case=f"4 KiB, depth 1, {sync}").values("p50_us")
    # Whichever way of making it durable is the quicker one here.
    return trip[0] + min(writes) if trip and writes else None
