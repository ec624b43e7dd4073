"""`orbitmq bench`, the one generator for all remoting brokers: its command line and its result.

The result's form is `src/loadgen/outcome.rs`; units are in its names, and what was not measured is
absent.
"""

import json
import subprocess

from processes import core_list, die_with_parent
from trouble import Trouble

FORMAT = 1
EXIT_VOID = 3
# Beyond its own seconds: connecting, creating topics, draining.
SPARE_SECONDS = 60
# A run that lasted this share of its time was not cut short.
WHOLE_SHARE = 0.9


def command_line(binary, workload, place, **options):
    """The program, on the cores `place`, and its arguments; None is left out, True is a flag."""
    argv = ["taskset", "-c", core_list(place), str(binary), "bench", workload]
    if options.get("spin"):
        # The kernel finishes disk writes on ordinary threads of whatever core the interrupt came to.
        # A generator that never sleeps would hold them up until the next tick.
        argv = ["chrt", "--idle", "0", *argv]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            argv.append(flag)
        elif value is not None and value is not False:
            argv += [flag, str(value)]
    return argv + ["--json"]


def run(argv, seconds, log):
    """Runs the generator to its end; returns (exit code, outcome or None, its last words)."""
    with open(log, "ab") as errors:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=seconds + SPARE_SECONDS,
                check=False,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except subprocess.TimeoutExpired:
            return 1, None, f"it did not end {SPARE_SECONDS} s after its {seconds:.0f} s"
    return done.returncode, parse(done.stdout), complaint(log.read_text(errors="replace"))


def complaint(text):
    """The line of the generator's words that says what was wrong."""
    lines = text.strip().splitlines()
    told = [line for line in lines if line.startswith(("error:", "orbitmq:", "VOID"))]
    return (told or lines[-1:] or ["no words"])[0]


def parse(text):
    """The outcome in what the generator printed, or None."""
    try:
        outcome = json.loads(text)
    except ValueError:
        return None
    if not isinstance(outcome, dict) or outcome.get("format") != FORMAT:
        if isinstance(outcome, dict) and "format" in outcome:
            raise Trouble(
                f"the generator writes format {outcome['format']}, this program reads {FORMAT}: "
                "use both from the same commit"
            )
        return None
    return outcome


def verdict(outcome, code, words):
    """(what the broker did not manage, why the run is worth nothing); each may be None.

    A broker that refuses requests or does not reach the rate has been measured all the same: that
    is how it behaves at this load. A run that was cut short has not.
    """
    broken = outcome.get("broken")
    if code in (0, EXIT_VOID) and not broken:
        return None, None
    parts = outcome.get("parts") or []
    asked = outcome.get("askedPerSecond")
    refused = any(part.get("failures") for part in parts)
    slow = asked is not None and any(part["messagesPerSecond"] < asked for part in parts)
    whole = bool(parts) and all(part["messages"] for part in parts)
    seconds = float((outcome.get("settings") or {}).get("seconds") or 0)
    whole = whole and parts[0]["seconds"] >= WHOLE_SHARE * seconds
    if broken and whole and (refused or slow):
        return broken, None
    return None, broken or f"exit code {code}: {words}"


def figures(outcome):
    """The figures of an outcome by short name; latencies in µs."""
    found = {}
    parts = outcome.get("parts") or []
    for part in parts:
        # The main part's figures have plain names, the others' are led by theirs.
        lead = "" if part is parts[0] else part["name"] + " "
        found[lead + "rate"] = part["messagesPerSecond"]
        found[lead + "messages"] = part["messages"]
        found[lead + "requests"] = part["requests"]
        found[lead + "refused"] = sum((part.get("failures") or {}).values())
        latency = part.get("latency") or {}
        for key in ("mean", "p50", "p90", "p99", "p999", "max"):
            if latency.get("count"):
                found[f"{lead}{key}_us"] = latency[key] / 1000
    broker = outcome.get("broker")
    if broker:
        found["cpu_us"] = broker["userUsPerMessage"] + broker["systemUsPerMessage"]
        found["cores"] = broker["cores"]
        found["rss"] = broker["rssBytes"]
        found["rss_max"] = broker["rssMaxBytes"]
        found["calls"] = broker.get("callsPerMessage")
        found["device_bytes"] = broker.get("deviceBytesPerMessage")
        found["device_syncs"] = broker.get("deviceSyncsPerMessage")
    own = outcome.get("generator") or {}
    found["generator_us"] = own.get("usPerMessage")
    found["generator_core"] = own.get("coreShare")
    found["steal"] = own.get("steal")
    return {key: value for key, value in found.items() if value is not None}
