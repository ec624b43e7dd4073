//! The pictures of one run, and of latencies of several.

use super::chart::{Line, Look, Panel, sheet};
use super::scale::{Axis, Scale};
use super::units::{nanos_tick, short_tick};
use crate::loadgen::outcome::{Latency, Outcome, Part, Second};

const LATENCY_HEIGHT: f64 = 300.0;
const TIME_HEIGHT: f64 = 170.0;
/// Red of the theme: failures.
const FAILED: usize = 1;
const TIME_LABEL: &str = "seconds since measuring began";
const LATENCY_LABEL: &str = "latency (logarithmic)";

/// Latency by percentile above rate and latency over time, as an SVG file.
pub fn svg(outcome: &Outcome) -> String {
    picture(outcome, true)
}

/// As [`svg`]; within a page that has the theme it is not `alone`.
pub fn picture(outcome: &Outcome, alone: bool) -> String {
    let curve = |(index, part): (usize, &Part)| {
        let latency = part.latency.as_ref()?;
        Some(percentile_line(&part.name, latency, part_look(index)))
    };
    let lines = outcome.parts.iter().enumerate().filter_map(curve).collect();
    let name = name(outcome);
    let mut panels = vec![percentiles(
        &format!("Latency by percentile: {name}"),
        lines,
    )];
    if outcome.parts.iter().any(|part| !part.timeline.is_empty()) {
        panels.push(rates(&outcome.parts));
    }
    let timed = |part: &&Part| part.timeline.iter().any(|second| second.max > 0);
    panels.extend(outcome.parts.iter().filter(timed).map(over_time));
    let drawn: Vec<_> = panels.iter().map(Panel::drawn).collect();
    sheet(&name, &drawn, alone)
}

/// What a run is called in titles.
pub fn name(outcome: &Outcome) -> String {
    match outcome.label.as_str() {
        "" => outcome.workload.clone(),
        label => format!("{} · {label}", outcome.workload),
    }
}

/// Latency over the share of messages that had it or less.
pub fn percentiles(title: &str, lines: Vec<Line>) -> Panel {
    let (xs, ys) = values(&lines);
    Panel {
        title: title.to_owned(),
        x: Axis::across(
            "share of messages that were at least as fast",
            Scale::Nines,
            &xs,
        ),
        y: Axis::up(LATENCY_LABEL, Scale::Log, nanos_tick, &ys),
        lines,
        shade_until: None,
        height: LATENCY_HEIGHT,
    }
}

/// Shares become nines; the maximum stands where one message in all of them does.
pub fn percentile_line(name: &str, latency: &Latency, look: Look) -> Line {
    let few = [
        (0.0, latency.min),
        (0.5, latency.p50),
        (0.9, latency.p90),
        (0.99, latency.p99),
        (0.999, latency.p999),
        (0.9999, latency.p9999),
        (1.0, latency.max),
    ];
    let curve = if latency.curve.is_empty() {
        &few
    } else {
        latency.curve.as_slice()
    };
    let last = (latency.count.max(1) as f64).log10();
    let points = curve
        .iter()
        .filter(|(_, nanos)| *nanos > 0)
        .map(|(share, nanos)| (nines(*share).min(last), *nanos as f64))
        .collect();
    Line {
        name: name.to_owned(),
        points,
        look,
    }
}

fn nines(share: f64) -> f64 {
    -(1.0 - share.clamp(0.0, 1.0)).log10()
}

fn values(lines: &[Line]) -> (Vec<f64>, Vec<f64>) {
    lines.iter().flat_map(|line| &line.points).copied().unzip()
}

/// The colour of failures is theirs.
fn part_look(index: usize) -> Look {
    Look::nth(if index < FAILED { index } else { index + 1 })
}

fn rates(parts: &[Part]) -> Panel {
    let mut lines: Vec<Line> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        lines.push(line(&part.name, part, part_look(index), |second| {
            second.messages
        }));
    }
    for part in parts
        .iter()
        .filter(|part| part.timeline.iter().any(|second| second.failed > 0))
    {
        let (name, look) = (
            format!("{} failed", part.name),
            Look {
                colour: FAILED,
                dash: 2,
            },
        );
        lines.push(line(&name, part, look, |second| second.failed));
    }
    let (xs, ys) = values(&lines);
    timed(
        "Rate over time",
        Axis::up("messages per second", Scale::Linear, short_tick, &ys),
        &xs,
        lines,
    )
}

fn over_time(part: &Part) -> Panel {
    let look = |colour| Look { colour, dash: 0 };
    let lines = vec![
        line("p50", part, look(0), |second| second.p50),
        line("p99", part, look(4), |second| second.p99),
        line("max", part, look(3), |second| second.max),
    ];
    let (xs, ys) = values(&lines);
    let y = Axis::up(LATENCY_LABEL, Scale::Log, nanos_tick, &ys);
    timed(&format!("Latency over time: {}", part.name), y, &xs, lines)
}

fn line(name: &str, part: &Part, look: Look, of: fn(&Second) -> u64) -> Line {
    let point = |second: &Second| (f64::from(second.at), of(second) as f64);
    Line {
        name: name.to_owned(),
        points: part.timeline.iter().map(point).collect(),
        look,
    }
}

/// Warming up is before 0.
fn timed(title: &str, y: Axis, xs: &[f64], lines: Vec<Line>) -> Panel {
    Panel {
        title: title.to_owned(),
        x: Axis::across(TIME_LABEL, Scale::Linear, xs),
        y,
        lines,
        shade_until: xs.iter().any(|at| *at < 0.0).then_some(0.0),
        height: TIME_HEIGHT,
    }
}
