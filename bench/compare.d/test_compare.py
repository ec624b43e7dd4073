"""Tests of what judges, parses and prints: `python3 -B -m unittest discover -s bench/compare.d`.

Nothing is started here; they take a fraction of a second.
"""

import contextlib
import io
import json
import os
import pathlib
import struct
import tempfile
import unittest

import ceiling
import command
import fetch
import generator
import host
import rows
import rows_send
import stock
import tables
import wire
from brokers import CONFIGS
from judge import (
    FAILED, MET, MISSED, NONE, VOID, Cell, Cells, Spread, at_least, at_most, compare, missing,
    number, ratios, with_range,
)
from session import Plan, Session, sweep
from trouble import Trouble, Unusable


def cell(row="send-sync", peer="OrbitMQ", config="sync", case="c", round_=1, **values):
    return Cell(row, peer, config, case, round_, beside="sync-stock", values=values)


def session_of(cells, is_quick=False):
    """Enough of a session for rows to judge."""
    session = Session.__new__(Session)
    session.cells, session.configs, session.done = list(cells), {}, {}
    session.plan = Plan.quick() if is_quick else Plan.full()
    session.saved = {"facts": {"kernel": "Linux", "java": ["17"]}, "plan": vars(session.plan)}
    return session


def outcome(**parts):
    """A generator's result with what every run has."""
    part = {
        "name": "send", "messages": 10, "requests": 10, "bytes": 0, "seconds": 1.0,
        "messagesPerSecond": 10.0, "failures": {"SYSTEM_BUSY 2": 3},
        "latency": {"count": 10, "mean": 1000, "min": 1, "p50": 2000, "p90": 3000, "p99": 4000,
                    "p999": 5000, "p9999": 6000, "max": 7000, "curve": []},
        "timeline": [],
    }
    return {"format": 1, "parts": [part], "generator": {"steal": 0.0}, "void": [], **parts}


class Judging(unittest.TestCase):
    def check(self, spread, judge, bound, verdict):
        self.assertEqual(judge(spread and Spread.of(spread), bound), verdict)

    def test_a_median_on_the_bound_meets_it(self):
        self.check([19, 20, 30], at_least, 20, MET)
        self.check([19, 19.9, 30], at_least, 20, MISSED)
        self.check([0.1, 0.2, 0.3], at_most, 0.2, MET)
        self.check([0.1, 0.21, 0.3], at_most, 0.2, MISSED)
        self.check(None, at_least, 20, NONE)

    def test_ratios_are_taken_within_a_round(self):
        # The machine was half as fast in the second round, for both.
        ours = Cells([cell(round_=1, rate=200), cell(round_=2, rate=100)])
        theirs = Cells([cell(round_=1, rate=10), cell(round_=2, rate=5)])
        self.assertEqual(ratios(ours, theirs, "rate"), Spread(20, 20, 20, 2))

    def test_rounds_that_do_not_match_give_the_ratio_of_medians(self):
        ours, theirs = Cells([cell(round_=1, rate=200)]), Cells([cell(round_=2, rate=10)])
        self.assertEqual(ratios(ours, theirs, "rate"), Spread(20, 20, 20, 1))

    def test_nothing_is_divided_by_nothing(self):
        for theirs in ([], [cell(rate=0)], [cell(p50_us=3)]):
            self.assertIsNone(ratios(Cells([cell(rate=1)]), Cells(theirs), "rate"))

    def test_a_void_or_failed_cell_does_not_count(self):
        void, failed = cell(rate=1), cell(rate=2)
        void.void, failed.failed = ["steal 4 %"], "no route"
        cells = Cells([void, failed, cell(rate=3)])
        self.assertEqual(cells.pick(row="send-sync").values("rate"), [3])
        self.assertEqual(missing(Cells([void]), "send-sync", "w", "t").verdict, VOID)
        self.assertEqual(missing(Cells([failed]), "send-sync", "w", "t").verdict, FAILED)
        self.assertEqual(missing(Cells([]), "send-sync", "w", "t").verdict, NONE)

    def test_the_best_case_is_that_of_the_highest_median(self):
        cells = Cells([cell(case="a", rate=1), cell(case="a", rate=9), cell(case="b", rate=6)])
        self.assertEqual(cells.best_case().cases(), ["b"])
        self.assertEqual(Cells([]).best_case().all, [])

    def test_a_loss_is_seen_whichever_way_is_better(self):
        def loss(ours, theirs, **bound):
            sides = Cells([cell(rate=ours)]), Cells([cell(rate=theirs)])
            return compare("w", "t", *sides, "rate", unit="/s", **bound).is_loss

        self.assertTrue(loss(1, 2, least=20))
        self.assertFalse(loss(2, 1, least=20))
        self.assertTrue(loss(2, 1, most=0.1))
        self.assertFalse(loss(1, 2, most=0.1))


class Rows(unittest.TestCase):
    def verdicts(self, row, cells, is_quick=False):
        return [line.verdict for line in rows.BY_ID[row].judge(session_of(cells, is_quick))]

    def test_every_row_says_that_it_was_not_measured(self):
        for row in rows.ROWS[1:]:
            for verdict in self.verdicts(row.id, []):
                self.assertEqual(verdict, NONE, row.id)

    def test_capacity_is_judged_beside_the_best_that_loses_nothing(self):
        def java(config, rate):
            made = cell(peer="Java RocketMQ", config=config, rate=rate)
            made.beside = config
            return made

        def ours(beside, rate):
            made = cell(rate=rate)
            made.beside = beside
            return made

        cells = [java("sync-stock", 10), ours("sync-stock", 210), java("sync-nommap", 12),
                 ours("sync-nommap", 216)]
        lines = rows_send.judge_capacity(session_of(cells), "sync")
        self.assertEqual([line.verdict for line in lines], ["shown", MISSED])
        pool = cell("send-async", "Java RocketMQ", "async-tuned-pool", rate=99)
        tuned = cell("send-async", "Java RocketMQ", "async-tuned", rate=9)
        self.assertEqual(session_of([pool, tuned]).best("async"), "async-tuned")
        self.assertEqual(session_of([]).best("async"), "async-tuned")

    def test_latency_has_two_lines_a_rate(self):
        cells = []
        for share in (10, 30, 50, 70):
            cells += [cell("latency-sync", case=f"{share} %", p99_us=1, p999_us=5),
                      cell("latency-sync", "Java RocketMQ", case=f"{share} %", p99_us=5,
                           p999_us=40, refused=2)]
        self.assertEqual(self.verdicts("latency-sync", cells), [MET, MISSED] * 4)
        lines = rows.BY_ID["latency-sync"].judge(session_of(cells))
        self.assertIn("2 refused", lines[0].theirs)
        cells.append(cell("latency-sync", case=rows_send.SPUN_CASE, p99_us=9, p999_us=9))
        self.assertEqual(self.verdicts("latency-sync", cells), [MET, MISSED] * 4 + ["shown"] * 2)

    def test_depth_one_is_judged_on_a_core_that_spins(self):
        cells = [cell("depth1-async", "Java RocketMQ", case="depth 1", p50_us=10),
                 cell("depth1-async", case="depth 1", p50_us=12),
                 cell("depth1-async", case=f"depth 1, {rows_send.SPUN}", p50_us=5)]
        self.assertEqual(self.verdicts("depth1-async", cells), [MET, "shown"])

    def test_batches_have_three_opponents(self):
        cells = [cell("batch", "OrbitMQ", rate=1000, cpu_us=1),
                 cell("batch", "Java RocketMQ", rate=100, cpu_us=9),
                 cell("batch", "Kafka", rate=1001, cpu_us=2)]
        self.assertEqual(self.verdicts("batch", cells), [MET, MISSED, MET])

    def test_costs_come_from_other_rows(self):
        cells = [cell("latency-sync", case=rows_send.GATHERED["sync"], cpu_us=5, p50_us=2, p99_us=2),
                 cell("latency-sync", "Java RocketMQ", case="50 %", cpu_us=50, p50_us=1, p99_us=3),
                 cell("depth1-sync", case="depth 1", device_bytes=8193),
                 cell("send-sync", rate=1, stored_bytes=1000, device_bytes=1150,
                      rss_max=256 << 20)]
        self.assertEqual(self.verdicts("cpu", cells), [MET, "shown", "shown", NONE])
        self.assertEqual(self.verdicts("device-bytes", cells), [MISSED, MET])
        self.assertEqual(self.verdicts("rss", cells), [MET, NONE])

    def test_a_rate_that_was_not_reached_is_missed(self):
        cells = [cell("connections", case="1 connections", cpu_us=2, rate=20_000),
                 cell("connections", case="100 connections", cpu_us=2, rate=20_000),
                 cell("connections", case="5,000 connections", cpu_us=2, rate=18_000)]
        self.assertEqual(self.verdicts("connections", cells), [MET, MISSED])

    def test_the_host_bounds_depth_one_and_the_pipeline(self):
        report = {
            "loopback": [{"bodyBytes": 1024, "depth": 1, "messagesPerSecond": 9, "p50": 30_000}],
            "disk": [{"blockBytes": 4096, "depth": 1, "sync": sync, "writesPerSecond": 9,
                      "p50": p50, "p99": 9} for sync, p50 in (("fdatasync", 90_000),
                                                              ("dsync", 70_000))],
            "pipeline": [{"build": build, "flush": "SYNC_FLUSH", "bodyBytes": body, "depth": 9,
                          "messagesPerSecond": rate, "p50": None}
                         for build, rate in (("glommio", 100), ("ring", 200))
                         for body in (128, 1024)],
        }
        points = ceiling.cells(report) + ceiling.cells({"pipeline": report["pipeline"]}, "binary")
        self.assertEqual(ceiling.depth1_us(Cells(points)), 100)
        cells = [*points, cell("depth1-sync", case="depth 1", p50_us=130),
                 cell("pipeline", case="1024 B, json", rate=139),
                 cell("pipeline", case="128 B, json", rate=120),
                 cell("pipeline", case="1024 B, binary", rate=140),
                 cell("pipeline", case="128 B, binary", rate=119)]
        self.assertEqual(self.verdicts("depth1-sync", cells), [MET])
        self.assertEqual(self.verdicts("pipeline", cells), [MISSED, MET, MET, MISSED])

    def test_rows_bring_what_they_need(self):
        ids = [row.id for row in rows.chosen(["cpu"], False)]
        self.assertEqual(ids, ["latency-async", "latency-sync", "cpu"])
        self.assertIn("ceiling", [row.id for row in rows.chosen(["depth1-sync"], True)])

    def test_the_plans_keep_their_promises(self):
        for plan, minutes in ((Plan.quick(), 6), (Plan.full(), 85)):
            seconds = sum(row.seconds(plan) for row in rows.chosen(None, plan.is_quick))
            self.assertLessEqual(seconds / 60, minutes)

    def test_every_configuration_that_is_named_is_there(self):
        for mode in ("async", "sync"):
            for name in (*rows_send.SCOUTED[mode], *rows_send.SHOWN[mode]):
                self.assertEqual(CONFIGS[name].mode, mode)


class Reading(unittest.TestCase):
    def test_an_outcome_gives_figures(self):
        found = generator.figures(outcome(broker={
            "userUsPerMessage": 2.0, "systemUsPerMessage": 1.0, "cores": 0.5, "rssBytes": 1,
            "rssMaxBytes": 2, "deviceBytesPerMessage": None}))
        self.assertEqual((found["rate"], found["p50_us"], found["refused"]), (10.0, 2.0, 3))
        self.assertEqual((found["cpu_us"], found["rss_max"]), (3.0, 2))
        self.assertNotIn("device_bytes", found)

    def test_a_second_part_keeps_its_name(self):
        made = outcome()
        made["parts"].append({**made["parts"][0], "name": "end to end"})
        self.assertIn("end to end p50_us", generator.figures(made))

    def test_output_that_is_no_outcome_is_none(self):
        for text in ("", "{", "[]", "3", "{}"):
            self.assertIsNone(generator.parse(text))
        with self.assertRaises(Trouble):
            generator.parse(json.dumps(outcome(format=2)))

    def test_a_broker_that_refuses_was_measured_one_that_died_was_not(self):
        def check(code, expected, **parts):
            made = outcome(**{"settings": {"seconds": "1"}, **parts})
            self.assertEqual(generator.verdict(made, code, "words"), expected)

        check(0, (None, None))
        check(3, (None, None))
        check(1, ("3 of 10 refused", None), broken="3 of 10 refused")
        check(1, (None, "exit code 1: words"))
        check(2, (None, "no route"), broken="no route", parts=[])
        check(1, (None, "closed"), broken="closed", settings={"seconds": "9"})

    def test_the_line_that_says_what_was_wrong_is_found(self):
        for text, line in (("", "no words"), ("a\nb\n", "b"), ("a\nerror: x\nb", "error: x")):
            self.assertEqual(generator.complaint(text), line)

    def test_flags_are_spelled_from_names(self):
        line = generator.command_line("o", "send", [1, 3], in_flight=5, rate=None, verify=True)
        self.assertEqual(line, ["taskset", "-c", "1,3", "o", "bench", "send", "--in-flight", "5",
                                "--verify", "--json"])

    def test_lines_of_stock_clients(self):
        def check(pattern, text, rate, mean_ms):
            found = pattern.search(text)
            self.assertEqual((found["rate"], found["mean_ms"]), (rate, mean_ms))

        check(stock.SEND_LINE, "Current Time: 2026-01-01 | Send TPS: 15234 | Max RT(ms): 87 | "
              "Average RT(ms):   4.196 | Send Failed: 0 | Response Failed: 0", "15234", "4.196")
        check(stock.CONSUME_LINE, "Current Time: x | Consume TPS: 99 | AVG(B2C) RT(ms):   5.250 | "
              "AVG(S2C) RT(ms):   4.000 | MAX(B2C) RT(ms): 9", "99", "5.250")
        check(stock.KAFKA_LINE, "840001 records sent, 168000.2 records/sec (164.06 MB/sec), "
              "180.3 ms avg latency, 300.0 ms max latency.", "168000.2", "180.3")

    def test_frames_go_there_and_back(self):
        header, body = wire.decode(wire.encode(105, {"topic": "t"}, b"abc")[4:])
        self.assertEqual((header["code"], header["extFields"], body), (105, {"topic": "t"}, b"abc"))
        request = wire.encode(1, {})
        self.assertEqual(struct.unpack(">I", request[:4])[0] + 4, len(request))

    def test_maven_s_first_error_is_the_cause(self):
        text = "[INFO] x\n\x1b[0m[ERROR] Failed: y\n[ERROR] \n[ERROR] Re-run Maven\n"
        self.assertEqual(fetch.first_error(text), "[ERROR] Failed: y")
        self.assertEqual(fetch.first_error(""), "it said nothing")

    def test_cores_are_lists_and_ranges(self):
        self.assertEqual(host.parse_cores("0,2-3", [0, 1, 2, 3]), [0, 2, 3])
        for wrong in ("", "a", "0-", "7", "1--2"):
            with self.assertRaises(Unusable):
                host.parse_cores(wrong, [0, 1])


class Printing(unittest.TestCase):
    def test_numbers_have_as_many_digits_as_they_mean(self):
        for value, text in ((None, "–"), (0.0, "0.00"), (0.01234, "0.0123"), (3.14159, "3.14"),
                            (31.4159, "31.4"), (314.159, "314"), (3141.59, "3,142"),
                            (314159.2, "314,000"), (314159, "314,159"), (2, "2")):
            self.assertEqual(number(value), text)
        self.assertEqual(with_range(Spread(2.0, 1.0, 3.0, 3), "×"), "2.00 (1.00–3.00) ×")
        self.assertEqual(with_range(Spread(2.0, 2.0, 2.0, 1), "%", 100), "200 %")

    def test_the_report_shows_what_was_lost_and_what_was_void(self):
        void = cell(case="v", rate=1)
        void.void = ["its own core was saturated"]
        cells = [void, cell("batch", "OrbitMQ", rate=1, cpu_us=1),
                 cell("batch", "Kafka", rate=2, cpu_us=3),
                 cell(peer="Java RocketMQ", config="sync-nommap", case="64 in flight", rate=9.0)]
        session = session_of(cells)
        with tempfile.TemporaryDirectory() as folder:
            session.out = pathlib.Path(folder)
            tables.write(session)
            text = (session.out / "README.md").read_text(encoding="utf-8")
        self.assertIn("| sync-nommap | writes with the file channel", text)
        self.assertIn("VOID: its own core was saturated", text)
        self.assertIn("Kafka's page cache: rate: 0.5 × (target > 1 ×): worse", text)
        self.assertIn("Targets: 1 met", text)

    def test_only_folders_of_dead_runs_are_swept(self):
        with tempfile.TemporaryDirectory() as folder:
            data = pathlib.Path(folder)
            kept = {f"compare-{os.getpid()}-a", "compare-notes-b", "compare-1", "mine"}
            # Numbers of processes end far below this one.
            for name in (*kept, "compare-999999999-c"):
                (data / name).mkdir()
            sweep(data)
            self.assertEqual({path.name for path in data.iterdir()}, kept)

    def test_every_kind_of_cell_can_be_said(self):
        with tempfile.TemporaryDirectory() as folder, quiet(contextlib.redirect_stdout):
            session = session_of([])
            session.out, session.started = pathlib.Path(folder), 0
            for values in ({}, {"rate": 1.0, "p50_us": 2.0, "cpu_us": 3.0}, {"cores": 0.01},
                           {"bytes_per_second": 1e9}):
                session.add(cell(**values))
            saved = json.loads((session.out / "session.json").read_text(encoding="utf-8"))
        self.assertEqual(len(saved["cells"]), 4)

    def test_bad_arguments_are_refused(self):
        for line in (["--only", "nothing"], ["--rounds", "0"], ["--seconds", "x"]):
            with self.assertRaises(SystemExit) as ended, quiet():
                command.parse(line)
            self.assertEqual(ended.exception.code, 2)


def quiet(redirect=contextlib.redirect_stderr):
    """Keeps words off the output of the tests."""
    return redirect(io.StringIO())


if __name__ == "__main__":
    unittest.main()
