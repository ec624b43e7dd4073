"""The report: one Markdown table per topic, what was lost, void runs, hosts and configurations."""

import datetime
import subprocess

import ceiling
from brokers import CONFIGS
from judge import FAILED, MET, MISSED, NONE, VOID, number, with_range
from rows import ROWS, TABLES
from rows_send import JAVA

HEAD = "| row | figure | target | measured | OrbitMQ | beside | verdict |"
RULE = "|---|---|---|---|---|---|---|"
DISK_SYNCS = ("fdatasync", "dsync")


def markdown_row(*cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def judged(session):
    """The lines of every row, by row."""
    return {row.id: row.judge(session) for row in ROWS}


def tables(lines):
    out = []
    for table in TABLES:
        out += [f"## {table}", "", HEAD, RULE]
        for row in ROWS:
            for line in lines[row.id] if row.table == table else ():
                verdict = f"**{line.verdict}**" if line.verdict == MISSED else line.verdict
                out.append(markdown_row(f"`{row.id}`", line.what, line.target, line.measured,
                                        line.ours, line.theirs, verdict))
        out.append("")
    return out


def losses(lines):
    """Everything in which we are the worse one, and every target that was missed."""
    out = ["## What we lose", ""]
    found = [line for mine in lines.values() for line in mine
             if line.is_loss or line.verdict == MISSED]
    for line in found:
        how = "worse than what stands beside" if line.is_loss else "target missed"
        out.append(f"* {line.what}: {line.measured} (target {line.target}): {how}.")
    return [*out, *([] if found else ["Nothing that was measured."]), ""]


def voids(session):
    out = ["## Runs that do not count", ""]
    found = [cell for cell in session.cells if not cell.is_sound]
    for cell in found:
        why = cell.failed or "; ".join(cell.void)
        rate = f"{number(cell.values['rate'])}/s" if "rate" in cell.values else "no figure"
        out.append(f"* `{cell.row}`, {cell.peer} {cell.config}, {cell.case}, round {cell.round} "
                   f"({rate}): {'failed' if cell.failed else 'VOID'}: {why}")
    return [*out, *([] if found else ["None."]), ""]


def java_configurations(session):
    """Every configuration that was tried, so that nobody has to ask whether one was."""
    cells = session.found()
    out = ["## Java's configurations", "", "Capacity, single 1 KiB messages.", "",
           "| configuration | which is | in flight | messages/s | p99 ms | CPU µs | rounds |",
           "|---|---|---|---|---|---|---|"]
    for mode in ("async", "sync"):
        mine = cells.pick(row=f"send-{mode}", peer=JAVA)
        for name in mine.configs():
            of = mine.pick(config=name)
            for case in of.cases():
                these = of.pick(case=case)
                out.append(markdown_row(name, CONFIGS[name].note, case.partition(" ")[0],
                                        with_range(these.spread("rate")),
                                        with_range(these.spread("p99_us"), scale=1e-3),
                                        with_range(these.spread("cpu_us")), len(these.all)))
    return [*out, ""]


def refusals(session):
    """Sends that a broker refused, which latencies do not show."""
    cells = [cell for cell in session.cells if cell.note or cell.values.get("refused")]
    if not cells:
        return []
    out = ["## Refused, or not reached", "", "Latencies count answered requests only.", "",
           "| row | broker | case | round | refused | answered | |",
           "|---|---|---|---|---|---|---|"]
    for cell in cells:
        out.append(markdown_row(f"`{cell.row}`", f"{cell.peer} {cell.config}", cell.case,
                                cell.round, number(cell.values.get("refused", 0)),
                                number(cell.values.get("messages")), cell.note or ""))
    return [*out, ""]


def ceilings(session):
    points = session.found().pick(row=ceiling.ROW).all
    if not points:
        return []
    out = ["## The host itself", "", "| | point | per second | p50 µs | p99 µs |",
           "|---|---|---|---|---|"]
    for cell in points:
        # Of the disk's many points, those a commit takes.
        if cell.config == "disk" and not cell.case.endswith(DISK_SYNCS):
            continue
        out.append(markdown_row(cell.config, cell.case, number(cell.values.get("rate")),
                                number(cell.values.get("p50_us")),
                                number(cell.values.get("p99_us"))))
    return [*out, ""]


def head(session):
    plan, facts = session.saved["plan"], session.saved["facts"]
    kind = "quick" if plan["is_quick"] else "full"
    out = [
        f"# OrbitMQ beside Java RocketMQ, {datetime.date.today().isoformat()}",
        "",
        f"A {kind} run of `bench/compare`: {plan['rounds']} round(s), {plan['seconds']} s a run "
        f"after {plan['ramp_seconds']} s of ramp, Java warmed for {plan['java_warm_seconds']} s. "
        "Broker and generator have cores of their own; whoever is not measured is frozen. "
        "Bodies are 1 KiB, on 8 queues, unless said. `measured` is the median over the rounds of "
        "the ratio within a round, with the range; absolute figures stand beside. How each row is "
        "repeated: [perf/README.md](../README.md).",
        "",
    ]
    if plan["is_quick"]:
        out += ["**A quick run is a look, not a proof**: the JIT of Java is not fully warm after "
                f"{plan['java_warm_seconds']} s on one core, and one round has no spread.", ""]
    out += ["| host | |", "|---|---|"]
    for key, value in facts.items():
        out.append(markdown_row(key, ", ".join(value) if isinstance(value, list) else value))
    return [*out, ""]


def write(session):
    """The report, its pages and the configurations; returns the lines by row."""
    lines = judged(session)
    folder = session.out / "config"
    folder.mkdir(exist_ok=True)
    for name, text in session.configs.items():
        (folder / f"{name.replace(' ', '')}.conf").write_text(text, encoding="utf-8")
    counts = {verdict: sum(line.verdict == verdict for mine in lines.values() for line in mine)
              for verdict in (MET, MISSED, VOID, FAILED, NONE)}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    text = [*head(session), f"Targets: {summary}.", "", *tables(lines), *losses(lines),
            *voids(session), *refusals(session), *java_configurations(session), *ceilings(session),
            "Raw results: `raw/`; configurations as used: `config/`; all cells: `session.json`."]
    (session.out / "README.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    return lines


def page(session):
    """The HTML page of the raw results, by `orbitmq bench report`; a sentence if it fails."""
    # The ceiling's result has a form of its own.
    files = sorted(path for path in (session.out / "raw").glob("*.json")
                   if not path.stem.endswith("-ceiling"))
    if not files:
        return None
    argv = [session.binary, "bench", "report", *files, "--html", session.out / "report.html"]
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip()[-300:]
