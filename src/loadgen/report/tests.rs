//! Runs of every shape, whole and odd, into every form.

use std::collections::BTreeMap;

use super::chart::{Chart, Series, WIDTH};
use super::csv::rows;
use super::scale::{Axis, Scale, TICKS_MAX};
use super::{csv, html, markdown, svg, table, units};
use crate::loadgen::outcome::{
    BrokerCost, FORMAT, GeneratorCost, Latency, Outcome, Part, Second, Step, Verified,
};

const NASTY: &str = "<script>&\"'|\u{1b}[2J\n</svg>";

fn words(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}

/// Latencies around `p50` nanoseconds.
fn latency(p50: u64) -> Latency {
    let curve = (0..=30).map(|step| {
        let nines = f64::from(step) / 6.0;
        (
            1.0 - 10f64.powf(-nines),
            (p50 as f64 * (0.7 + nines * nines)) as u64,
        )
    });
    Latency {
        count: 300_000,
        mean: p50 + p50 / 10,
        min: p50 * 7 / 10,
        p50,
        p90: p50 * 17 / 10,
        p99: p50 * 5,
        p999: p50 * 10,
        p9999: p50 * 17,
        max: p50 * 26,
        curve: curve.chain([(1.0, p50 * 26)]).collect(),
    }
}

fn part(name: &str, rate: u64, p50: u64) -> Part {
    let second = |at: i32| {
        let wave = (at.unsigned_abs() * 7 % 5) as u64;
        Second {
            at,
            messages: rate - rate / 20 * wave,
            failed: u64::from(at == 12) * 40,
            p50: p50 + p50 / 20 * wave,
            p99: p50 * (5 + wave),
            max: p50 * (12 + wave * 9),
        }
    };
    Part {
        name: name.to_owned(),
        messages: rate * 30,
        requests: rate * 30,
        bytes: rate * 30 * 1024,
        seconds: 30.0,
        messages_per_second: rate as f64,
        failures: BTreeMap::from([("SYSTEM_BUSY 2".to_owned(), 40)]),
        latency: Some(latency(p50)),
        timeline: (-5..30).map(second).collect(),
    }
}

/// A run in which everything was measured.
fn full(label: &str, rate: u64, p50: u64) -> Outcome {
    Outcome {
        format: FORMAT,
        workload: "send".to_owned(),
        label: label.to_owned(),
        started_ms: 1_795_280_303_000,
        settings: words(&[("bodyBytes", "1024"), ("connections", "4"), ("topic", "T")]),
        closed_loop: false,
        asked_per_second: Some(10_000.0),
        parts: vec![part("send", rate, p50)],
        broker: Some(BrokerCost {
            user_us_per_message: 3.25,
            system_us_per_message: 4.5,
            cores: 0.81,
            rss_bytes: 61 << 20,
            rss_max_bytes: 70 << 20,
            calls_per_message: Some(0.31),
            device_bytes_per_message: Some(1180.0),
            device_writes_per_message: Some(0.02),
            device_syncs_per_message: None,
        }),
        generator: GeneratorCost {
            us_per_message: 2.1,
            core_share: 0.41,
            lag_p99: Some(35_000),
            steal: 0.002,
        },
        verified: Some(Verified {
            acknowledged: 300_000,
            received: 300_000,
            ..Verified::default()
        }),
        ..Outcome::default()
    }
}

fn void(label: &str) -> Outcome {
    Outcome {
        void: vec!["the generator used 98 % of its core".to_owned()],
        broken: Some("127.0.0.1:10911: connection reset".to_owned()),
        ..full(label, 9_000, 400_000)
    }
}

fn odd() -> Vec<Outcome> {
    let nasty = Outcome {
        label: NASTY.to_owned(),
        workload: NASTY.to_owned(),
        settings: words(&[(NASTY, NASTY)]),
        parts: vec![part(NASTY, 100, 1), part("", 100, u64::MAX / 64)],
        void: vec![NASTY.to_owned()],
        broken: Some(NASTY.repeat(50)),
        ..Outcome::default()
    };
    let mut extreme = full("extreme", 20, 20);
    extreme.started_ms = i64::MIN;
    extreme.asked_per_second = Some(f64::INFINITY);
    let main = &mut extreme.parts[0];
    (main.seconds, main.messages_per_second, main.messages) = (0.0, f64::NAN, u64::MAX);
    main.failures = BTreeMap::from([("a".to_owned(), u64::MAX), ("b".to_owned(), u64::MAX)]);
    main.latency = Some(Latency {
        max: u64::MAX,
        curve: vec![(f64::NAN, 7), (9.0, 0)],
        ..latency(9)
    });
    main.timeline = vec![Second {
        at: i32::MIN,
        max: u64::MAX,
        ..Second::default()
    }];
    let mut one = full("one", 20, 20);
    one.parts[0].timeline.truncate(1);
    one.parts[0].latency = Some(Latency {
        count: 1,
        curve: vec![(1.0, 5)],
        ..Latency::default()
    });
    let steps = vec![
        Step {
            held: true,
            ..Step::default()
        },
        Step::default(),
    ];
    let bare = Outcome {
        parts: vec![Part::default()],
        steps,
        ..Outcome::default()
    };
    vec![nasty, extreme, one, bare, Outcome::default(), void("v")]
}

/// No control characters, and every tag that opens closes.
fn check_markup(text: &str) {
    assert!(!text.contains("<script"), "{text}");
    assert!(!text.contains(['\u{1b}', '\0']));
    assert!(!text.contains("NaN") && !text.contains("inf\""), "{text}");
    for tag in [
        "svg", "g", "text", "title", "style", "details", "table", "tr", "td", "pre",
    ] {
        let opened =
            text.matches(&format!("<{tag}>")).count() + text.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, text.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

/// Every number after `name` lies within 0 and `max`.
fn check_within(svg: &str, name: &str, max: f64) {
    for found in svg.split(&format!(" {name}=\"")).skip(1) {
        let number: f64 = found.split('"').next().unwrap().parse().unwrap_or(0.0);
        assert!((0.0..=max).contains(&number), "{name}={number} of {max}");
    }
}

fn check_picture(svg: &str) {
    check_markup(svg);
    let height = svg
        .split("viewBox=\"0 0 860 ")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let height: f64 = height.parse().unwrap();
    for (name, max) in [("x", WIDTH), ("cx", WIDTH), ("y", height), ("cy", height)] {
        check_within(svg, name, max);
    }
    for path in svg.split(" d=\"").skip(1) {
        let path = path.split('"').next().unwrap();
        for number in path.split(|c: char| c.is_ascii_alphabetic() || c == ' ') {
            let number: f64 = if number.is_empty() {
                0.0
            } else {
                number.parse().unwrap()
            };
            assert!((0.0..=height.max(WIDTH)).contains(&number), "{path}");
        }
    }
}

#[test]
fn whole_and_odd_runs_have_every_form() {
    for outcome in odd().iter().chain([&full("a", 10_000, 90_000)]) {
        check_picture(&svg(outcome));
        let text = table(outcome);
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
        let cells = rows(&csv(outcome)).unwrap();
        assert!(cells.iter().all(|(_, row)| row.len() == 19), "{cells:?}");
    }
    check_markup(&html(NASTY, &odd()));
    check_markup(&html("none", &[]));
    let text = markdown(NASTY, &odd());
    assert!(!text.contains("<script") && !text.contains('\u{1b}'));
}

#[test]
fn a_table_says_it_all() {
    let mut outcome = full("ours", 10_000, 90_000);
    outcome.steps = vec![Step {
        asked_per_second: 12_000.0,
        p99: 1_500_000,
        ..Step::default()
    }];
    let text = table(&outcome);
    for expected in [
        "send: ours  2026-11-21 16:58:23 UTC",
        "10,000 messages/s asked",
        "bodyBytes 1024, connections 4, topic T",
        "300,000   300,000      30.0    10,000      10.2        40",
        "90.0 µs",
        "2.34 ms",
        "SYSTEM_BUSY 2        40",
        "7.75 µs of CPU per message (user 3.25, system 4.50)",
        "70.0 MiB",
        "device bytes 1,180",
        "99 % sent at most 35.0 µs\n           late, steal 0.2 %",
        "sound: acknowledged 300,000",
        "not held      12,000",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(!text.contains("VOID") && !text.contains("BROKEN") && !text.contains("syncs"));

    outcome = void("v");
    outcome.closed_loop = true;
    let text = table(&outcome);
    assert!(
        text.contains("\nVOID:      the generator used 98 % of its core\n"),
        "{text}"
    );
    assert!(text.contains("\nBROKEN:    127.0.0.1:10911: connection reset\n"));
    assert!(text.contains("CLOSED LOOP"));
}

#[test]
fn values_are_one_table() {
    let mut outcome = full("a,\"b\"", 10_000, 90_000);
    outcome.parts[0].timeline.truncate(1);
    outcome.parts[0].timeline[0].messages = 0;
    let text = csv(&outcome);
    let cells = rows(&text).unwrap();
    let column = |name: &str| cells[0].1.iter().position(|cell| cell == name).unwrap();
    let at = |row: usize, name: &str| cells[row].1[column(name)].as_str();
    assert_eq!(
        (cells.len(), at(1, "row"), at(2, "row")),
        (3, "total", "second")
    );
    assert_eq!((at(1, "label"), at(1, "p50_us")), ("a,\"b\"", "90.000"));
    assert_eq!(
        (at(1, "messages"), at(1, "failed"), at(1, "at_s")),
        ("300000", "40", "")
    );
    assert_eq!(
        (at(1, "mb_per_second"), at(1, "broker_us_per_message")),
        ("10.24", "7.75")
    );
    assert_eq!(
        (at(2, "at_s"), at(2, "messages"), at(2, "max_us")),
        ("-5", "0", "")
    );
}

#[test]
fn cells_are_read_as_written() {
    let check = |text: &str, expected: &[(usize, &[&str])]| {
        let found = rows(text).unwrap();
        let found: Vec<(usize, Vec<&str>)> = found
            .iter()
            .map(|(line, row)| (*line, row.iter().map(String::as_str).collect()))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(line, row)| (*line, row.to_vec()))
            .collect();
        assert_eq!(found, expected, "{text:?}");
    };
    check("", &[]);
    check("a,b\r\n\n1,\n", &[(1, &["a", "b"]), (3, &["1", ""])]);
    check(
        "\"a\nb\",\"c\"\"d\"\ne",
        &[(1, &["a\nb", "c\"d"]), (3, &["e"])],
    );
    assert_eq!(
        rows("a\nb,\"c\n"),
        Err("line 2: a quote is not closed".to_owned())
    );
}

fn check_axis(axis: &Axis, values: &[f64], covers: bool) {
    assert!((1..=TICKS_MAX).contains(&axis.ticks.len()), "{axis:?}");
    let place = |at: f64| axis.place(at).unwrap_or_else(|| panic!("{at} on {axis:?}"));
    let places: Vec<f64> = axis.ticks.iter().map(|(at, _)| place(*at)).collect();
    assert!(places.is_sorted(), "{axis:?}");
    if covers {
        assert!(
            places[0] < 1e-6 && places[places.len() - 1] > 1.0 - 1e-6,
            "{axis:?}"
        );
    }
    for value in values {
        assert!(
            axis.place(*value)
                .is_none_or(|place| (0.0..=1.0).contains(&place))
        );
    }
}

#[test]
fn axes_fit_any_values() {
    let cases: [&[f64]; 14] = [
        &[],
        &[f64::NAN, f64::INFINITY],
        &[0.0],
        &[5.0],
        &[-5.0],
        &[1.0, 2.0, 3.0],
        &[0.0, 123_456.0],
        &[-7.0, 12.0],
        &[1e-9, 1e9],
        &[1e-320, 2e-320],
        &[1e16, 1e16 + 2.0],
        &[f64::MIN, f64::MAX],
        &[f64::MIN_POSITIVE, f64::MAX],
        &[999.0, 1001.0],
    ];
    for values in cases {
        for scale in [Scale::Linear, Scale::Log] {
            check_axis(
                &Axis::up("", scale, units::nanos_tick, values),
                values,
                true,
            );
            check_axis(&Axis::across("", scale, values), values, false);
        }
        check_axis(&Axis::across("", Scale::Nines, values), values, false);
    }
    let names =
        |axis: Axis| -> Vec<String> { axis.ticks.into_iter().map(|(_, text)| text).collect() };
    let rates = Axis::up("", Scale::Linear, units::short_tick, &[8_000.0, 23_000.0]);
    assert_eq!(names(rates), ["0", "5 k", "10 k", "15 k", "20 k", "25 k"]);
    let times = Axis::up("", Scale::Log, units::nanos_tick, &[30_000.0, 4e8]);
    assert_eq!(names(times)[..2], ["10 µs", "100 µs"]);
    let shares = Axis::across("", Scale::Nines, &[4.0]);
    assert_eq!(
        names(shares),
        ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    );
    let depths = Axis::across("", Scale::Log, &[1.0, 8.0, 64.0, 512.0]);
    assert_eq!(names(depths), ["1", "8", "64", "512"]);
}

#[test]
fn charts_take_any_points() {
    let all = [
        &[][..],
        &[(1.0, 1.0)],
        &[
            (f64::NAN, 1.0),
            (0.0, -1.0),
            (2.0, f64::INFINITY),
            (3.0, 1e300),
        ],
    ];
    for points in all {
        for (x_log, y_log) in [(false, false), (true, true)] {
            let series = Series {
                name: NASTY.to_owned(),
                points: points.to_vec(),
            };
            let chart = Chart {
                title: NASTY.to_owned(),
                x_label: NASTY.to_owned(),
                y_label: NASTY.to_owned(),
                x_log,
                y_log,
                series: vec![series; 20],
            };
            check_picture(&chart.svg());
        }
    }
}

#[test]
fn a_page_compares_what_is_comparable() {
    let mut outcomes = vec![
        full("ours", 60_000, 90_000),
        full("ours", 62_000, 80_000),
        full("java", 20_000, 900_000),
        void("java"),
        full("java", 21_000, 950_000),
    ];
    outcomes.extend([full("ours", 5, 5), full("java", 10, 7)]);
    for outcome in &mut outcomes[5..] {
        outcome
            .settings
            .insert("bodyBytes".to_owned(), "128".to_owned());
    }
    let page = html("A & B", &outcomes);
    for expected in [
        "<title>A &amp; B</title>",
        "7 runs. 1 void and 1 broken",
        "send, 10,000/s, bodyBytes 1024",
        "61,000 msg/s (2 runs) · 2.98 ×",
        "20,500 msg/s (2 runs)<",
        "5.00 msg/s<",
        "10.0 msg/s · 2.00 ×",
        "<a href=\"#run-4\">",
        "VOID: the generator used 98 % of its core",
        "<span class=\"fault\">BROKEN</span>",
    ] {
        assert!(page.contains(expected), "{expected} in\n{page}");
    }
    assert!(!page.contains("http") || !page.replace("http://www.w3.org", "").contains("http"));
    let text = markdown("A | B", &outcomes);
    assert!(text.starts_with("# A \\| B\n"), "{text}");
    assert!(
        text.contains("| send, 10,000/s, bodyBytes 128 | 10.0 |"),
        "{text}"
    );
    assert_eq!(text.matches("BROKEN").count(), 1);
}

#[test]
fn numbers_read_well() {
    let nanos = [
        0.0,
        850.0,
        999.6,
        1234.0,
        102_400.0,
        1.5e9,
        9e12,
        9e18,
        f64::NAN,
    ]
    .map(units::nanos);
    let expected = [
        "0 ns", "850 ns", "1.00 µs", "1.23 µs", "102 µs", "1.50 s", "9,000 s", "9.00e9 s", "–",
    ];
    assert_eq!(nanos, expected);
    let numbers = [0.0, 0.0125, 0.5, 12.34, 999.4, 41_152.2, -3.0, 1e300].map(units::number);
    assert_eq!(
        numbers[..7],
        ["0", "0.0125", "0.50", "12.3", "999", "41,152", "-3.00"]
    );
    assert_eq!(units::bytes(1536.0), "1.50 KiB");
    assert_eq!(
        [2e4, 1.5e6, 0.25, -5.0].map(units::short_tick),
        ["20 k", "1.5 M", "0.25", "-5"]
    );
    assert_eq!(
        [0.0, 1.0, 3.0].map(units::nines_tick),
        ["0 %", "90 %", "99.9 %"]
    );
    assert_eq!(units::utc(0), "1970-01-01 00:00:00 UTC");
    assert_eq!(units::utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
    assert_eq!(units::utc(-1), "1969-12-31 23:59:59 UTC");
    assert_eq!(units::fitted("abcd", 3), "ab…");
}
