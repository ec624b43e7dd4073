//! A run as comma-separated values, and the reading of such files for plots.
//!
//! One table, so that any spreadsheet takes it as it is: a header; a line `total` for each part;
//! then a line `second` for each second of each part, warm-up included (`at_s` below 0). Times are
//! microseconds. A cell is empty where nothing was measured.

use std::fmt::Write as _;

use super::table::{failed, megabytes_per_second};
use crate::loadgen::outcome::{Outcome, Part};

const HEADER: &str = "label,workload,part,row,at_s,messages,failed,messages_per_second,\
mb_per_second,mean_us,p50_us,p90_us,p99_us,p999_us,p9999_us,max_us,\
broker_us_per_message,void,broken";

pub fn csv(outcome: &Outcome) -> String {
    let mut out = format!("{HEADER}\n");
    for part in &outcome.parts {
        total(&mut out, outcome, part);
    }
    for part in &outcome.parts {
        for second in &part.timeline {
            let timed = |nanos: u64| {
                if second.messages > 0 {
                    micros(nanos)
                } else {
                    String::new()
                }
            };
            let (p50, p99, max) = (timed(second.p50), timed(second.p99), timed(second.max));
            let (at, messages, failed) = (second.at, second.messages, second.failed);
            begin(&mut out, outcome, part, "second");
            let _ = writeln!(
                out,
                "{at},{messages},{failed},{messages},,,{p50},,{p99},,,{max},,,"
            );
        }
    }
    out
}

fn begin(out: &mut String, outcome: &Outcome, part: &Part, row: &str) {
    let (label, workload) = (quoted(&outcome.label), quoted(&outcome.workload));
    let _ = write!(out, "{label},{workload},{},{row},", quoted(&part.name));
}

fn total(out: &mut String, outcome: &Outcome, part: &Part) {
    begin(out, outcome, part, "total");
    let finite = |value: f64| {
        if value.is_finite() {
            value.to_string()
        } else {
            String::new()
        }
    };
    let latency = part.latency.as_ref().map_or(Default::default(), |l| {
        [l.mean, l.p50, l.p90, l.p99, l.p999, l.p9999, l.max].map(micros)
    });
    let broker = outcome.broker.as_ref().map_or(String::new(), |cost| {
        finite(cost.user_us_per_message + cost.system_us_per_message)
    });
    let _ = writeln!(
        out,
        ",{},{},{},{},{},{broker},{},{}",
        part.messages,
        failed(part),
        finite(part.messages_per_second),
        finite(megabytes_per_second(part)),
        latency.join(","),
        quoted(&outcome.void.join("; ")),
        quoted(outcome.broken.as_deref().unwrap_or_default()),
    );
}

/// Exact: nanoseconds are the third decimal.
fn micros(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1000, nanos % 1000)
}

fn quoted(text: &str) -> String {
    // A spreadsheet would run a cell that begins like a formula.
    let text = match text.starts_with(['=', '+', '-', '@']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// Rows of cells; a quoted cell may hold commas, line ends and doubled quotes. Each row comes with
/// the number of the line it began in. Empty lines are no rows.
///
/// # Errors
/// A quote that is never closed, with its line.
pub fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut rows = Vec::new();
    let (mut row, mut cell) = (Vec::new(), String::new());
    let (mut line, mut began, mut open) = (1, 1, None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\n' {
            line += 1;
        }
        match (c, open) {
            ('"', Some(_)) if chars.next_if_eq(&'"').is_some() => cell.push('"'),
            ('"', Some(_)) => open = None,
            (c, Some(_)) => cell.push(c),
            ('"', None) if cell.is_empty() => open = Some(line),
            (',', None) => row.push(std::mem::take(&mut cell)),
            ('\r', None) => {}
            ('\n', None) => {
                end(&mut rows, began, &mut row, &mut cell);
                began = line;
            }
            (c, None) => cell.push(c),
        }
    }
    if let Some(line) = open {
        return Err(format!("line {line}: a quote is not closed"));
    }
    end(&mut rows, began, &mut row, &mut cell);
    Ok(rows)
}

fn end(
    rows: &mut Vec<(usize, Vec<String>)>,
    began: usize,
    row: &mut Vec<String>,
    cell: &mut String,
) {
    if row.is_empty() && cell.is_empty() {
        return;
    }
    row.push(std::mem::take(cell));
    rows.push((began, std::mem::take(row)));
}
