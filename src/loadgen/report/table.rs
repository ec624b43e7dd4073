//! A run as a table for a terminal: plain text, at most [`COLUMNS`] wide.

use std::fmt::Write as _;

use super::units::{NONE, bytes, count, fitted, nanos, number, percent, plain, utc};
use crate::loadgen::outcome::{BrokerCost, GeneratorCost, Outcome, Part, Verified};

const COLUMNS: usize = 100;
const NAME_CHARS: usize = 20;
/// Name column of the lines that are no table.
const HEAD: usize = 11;

pub fn table(outcome: &Outcome) -> String {
    let mut out = String::new();
    heading(&mut out, outcome);
    warnings(&mut out, outcome);
    rates(&mut out, &outcome.parts);
    latencies(&mut out, &outcome.parts);
    failures(&mut out, &outcome.parts);
    if let Some(broker) = &outcome.broker {
        paragraph(&mut out, "broker", &broker_words(broker));
    }
    paragraph(&mut out, "generator", &generator_words(&outcome.generator));
    if let Some(verified) = &outcome.verified {
        paragraph(&mut out, "verified", &verified_words(verified));
    }
    steps(&mut out, outcome);
    out
}

/// How the load was made, for people: `CLOSED LOOP` or the rate that was asked for.
pub fn load_words(outcome: &Outcome) -> String {
    match (outcome.closed_loop, outcome.asked_per_second) {
        (true, _) => "closed loop".to_owned(),
        (false, Some(rate)) => format!("{}/s", number(rate)),
        (false, None) => "open loop".to_owned(),
    }
}

fn heading(out: &mut String, outcome: &Outcome) {
    let what = match outcome.label.as_str() {
        "" => outcome.workload.clone(),
        label => format!("{}: {label}", outcome.workload),
    };
    let when = utc(outcome.started_ms);
    let what = fitted(&plain(&what), COLUMNS - when.len() - 2);
    let _ = writeln!(out, "{what}  {when}");
    let load = if outcome.closed_loop {
        "CLOSED LOOP: the next request waits for an answer; latency counts from sending".to_owned()
    } else {
        let asked = outcome.asked_per_second.map_or(String::new(), |rate| {
            format!(", {} messages/s asked", number(rate))
        });
        format!("open loop{asked}; latency counts from when a message was due")
    };
    paragraph(out, "load", &load);
    let settings = outcome.settings.iter();
    let settings: Vec<String> = settings
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    if !settings.is_empty() {
        paragraph(out, "settings", &settings.join(", "));
    }
}

/// Nobody may read the figures without having read these.
fn warnings(out: &mut String, outcome: &Outcome) {
    if outcome.void.is_empty() && outcome.broken.is_none() {
        return;
    }
    out.push('\n');
    for reason in &outcome.void {
        paragraph(out, "VOID:", reason);
    }
    if let Some(reason) = &outcome.broken {
        paragraph(out, "BROKEN:", reason);
    }
}

fn rates(out: &mut String, parts: &[Part]) {
    let mut rows = vec![row(
        "",
        &["messages", "requests", "seconds", "msg/s", "MB/s", "failed"],
    )];
    for part in parts {
        let mut cells = vec![name(&part.name), whole(part.messages), whole(part.requests)];
        cells.extend([
            number(part.seconds),
            number(part.messages_per_second),
            number(megabytes_per_second(part)),
            whole(failed(part)),
        ]);
        rows.push(cells);
    }
    grid(out, &rows);
}

/// Of bodies; not a number for a part that took no time.
pub fn megabytes_per_second(part: &Part) -> f64 {
    part.bytes as f64 / 1e6 / part.seconds
}

/// Refused requests of all codes.
pub fn failed(part: &Part) -> u64 {
    part.failures
        .values()
        .fold(0, |sum, count| sum.saturating_add(*count))
}

fn latencies(out: &mut String, parts: &[Part]) {
    let mut rows = vec![row(
        "latency",
        &["mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"],
    )];
    for part in parts {
        let Some(l) = &part.latency else { continue };
        let mut cells = vec![name(&part.name)];
        let values = [l.mean, l.p50, l.p90, l.p99, l.p999, l.p9999, l.max];
        cells.extend(values.map(|value| nanos(value as f64)));
        rows.push(cells);
    }
    if rows.len() > 1 {
        grid(out, &rows);
    }
}

fn failures(out: &mut String, parts: &[Part]) {
    let mut rows = vec![row("failures", &["code", "requests"])];
    for part in parts {
        for (code, times) in &part.failures {
            rows.push(vec![
                name(&part.name),
                fitted(&plain(code), 50),
                whole(*times),
            ]);
        }
    }
    if rows.len() > 1 {
        grid(out, &rows);
    }
    out.push('\n');
}

pub fn broker_words(cost: &BrokerCost) -> String {
    let (user, system) = (cost.user_us_per_message, cost.system_us_per_message);
    let mut words = format!(
        "{} µs of CPU per message (user {}, system {}), {} cores, memory {} (at most {})",
        number(user + system),
        number(user),
        number(system),
        number(cost.cores),
        bytes(cost.rss_bytes as f64),
        bytes(cost.rss_max_bytes as f64),
    );
    let more = [
        ("I/O calls", cost.calls_per_message),
        ("device bytes", cost.device_bytes_per_message),
        ("device writes", cost.device_writes_per_message),
        ("device syncs", cost.device_syncs_per_message),
    ];
    let more: Vec<String> = more
        .into_iter()
        .filter_map(|(what, value)| Some(format!("{what} {}", number(value?))))
        .collect();
    if !more.is_empty() {
        let _ = write!(words, "; per message: {}", more.join(", "));
    }
    words
}

pub fn generator_words(cost: &GeneratorCost) -> String {
    let lag = cost.lag_p99.map_or(String::new(), |lag| {
        format!(", 99 % sent at most {} late", nanos(lag as f64))
    });
    format!(
        "{} µs of CPU per message, busiest thread {} of its core{lag}, steal {}",
        number(cost.us_per_message),
        percent(cost.core_share),
        percent(cost.steal),
    )
}

/// Nothing that was acknowledged is missing, doubled, out of order or changed.
pub fn is_proved(verified: &Verified) -> bool {
    verified.lost == 0
        && verified.duplicated == 0
        && (verified.reordered == 0 || verified.reorder_allowed)
        && verified.corrupt == 0
}

pub fn verified_words(verified: &Verified) -> String {
    let verdict = if is_proved(verified) {
        "sound"
    } else {
        "FAILED"
    };
    format!(
        "{verdict}: acknowledged {}, received {}, lost {}, duplicated {}, reordered {}, \
         corrupt {}, received without an acknowledgement {}",
        count(verified.acknowledged),
        count(verified.received),
        count(verified.lost),
        count(verified.duplicated),
        count(verified.reordered),
        count(verified.corrupt),
        count(verified.unacknowledged),
    )
}

fn steps(out: &mut String, outcome: &Outcome) {
    if outcome.steps.is_empty() {
        return;
    }
    let mut rows = vec![row("ramp", &["asked/s", "msg/s", "p50", "p99", "p99.9"])];
    for step in &outcome.steps {
        let verdict = if step.held { "held" } else { "not held" };
        let mut cells = vec![verdict.to_owned()];
        cells.extend([step.asked_per_second, step.messages_per_second].map(number));
        cells.extend([step.p50, step.p99, step.p999].map(|value| nanos(value as f64)));
        rows.push(cells);
    }
    grid(out, &rows);
}

fn name(words: &str) -> String {
    match words {
        "" => NONE.to_owned(),
        words => fitted(&plain(words), NAME_CHARS),
    }
}

/// Exact as long as a column holds it.
fn whole(value: u64) -> String {
    match value {
        0..10_000_000_000 => count(value),
        _ => number(value as f64),
    }
}

fn row(name: &str, cells: &[&str]) -> Vec<String> {
    [name]
        .iter()
        .chain(cells)
        .map(|cell| (*cell).to_owned())
        .collect()
}

/// An empty line and aligned columns, names to the left and figures to the right.
fn grid(out: &mut String, rows: &[Vec<String>]) {
    out.push('\n');
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(widest).collect();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(out, "{cell:<0$}", (*width).max(HEAD - 1)),
                _ => write!(out, "  {cell:>0$}", (*width).max(8)),
            };
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
}

/// A name and words beside it, wrapped.
fn paragraph(out: &mut String, name: &str, words: &str) {
    let _ = write!(out, "{name:<HEAD$}");
    let mut column = HEAD;
    for (index, word) in plain(words).split_whitespace().enumerate() {
        let word = fitted(word, COLUMNS - HEAD);
        let width = word.chars().count();
        if index > 0 && column + 1 + width > COLUMNS {
            let _ = write!(out, "\n{:HEAD$}", "");
            column = HEAD;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(&word);
        column += width;
    }
    out.push('\n');
}
