//! Several runs as one HTML page that needs nothing else, and as a Markdown table.
//!
//! Void and broken runs are listed and marked, and left out of every comparison. No script.

use std::fmt::Write as _;

use super::bars::bars;
use super::chart::{Drawing, THEME, sheet};
use super::compare::{Runs, broker_us, is_sound, label_words, reasons, summary, verdict};
use super::graphs::{percentiles, picture};
use super::table::table;
use super::units::{escape, plain};
use crate::loadgen::outcome::Outcome;

const STYLE: &str = include_str!("page.css");
const KEYS: &str = "Each bar is the median of the runs of one label, the thin line their range; × \
compares with the shortest bar of the same load.";

/// One page: summary, comparisons, then each run.
pub fn html(title: &str, outcomes: &[Outcome]) -> String {
    let runs = Runs::of(outcomes);
    let title = escape(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{THEME}</style>\n</head>\n\
         <body>\n<h1>{title}</h1>\n"
    );
    let _ = writeln!(out, "<p class=\"dim\">{}</p>", escape(&census(outcomes)));
    out.push_str("<h2>Summary</h2>\n");
    overview(&mut out, &runs);
    comparisons(&mut out, &runs);
    out.push_str("<h2>Each run</h2>\n");
    for (index, outcome) in outcomes.iter().enumerate() {
        run(&mut out, &runs, index, outcome);
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// How many runs there are and how many count.
fn census(outcomes: &[Outcome]) -> String {
    let void = outcomes
        .iter()
        .filter(|outcome| !outcome.void.is_empty())
        .count();
    let broken = outcomes
        .iter()
        .filter(|outcome| outcome.broken.is_some())
        .count();
    let mut words = match outcomes.len() {
        1 => "One run.".to_owned(),
        runs => format!("{runs} runs."),
    };
    if void + broken > 0 {
        let _ = write!(
            words,
            " {void} void and {broken} broken: listed below, and in no comparison."
        );
    }
    words
}

fn overview(out: &mut String, runs: &Runs) {
    let Some(first) = runs.outcomes.first() else {
        out.push_str("<p>There is no run.</p>\n");
        return;
    };
    out.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    let columns = summary(runs, first);
    for (name, _) in &columns {
        let _ = write!(out, "<th>{name}</th>");
    }
    out.push_str("</tr></thead>\n");
    for (label_index, label) in runs.labels.iter().enumerate() {
        let colour = label_index % super::chart::COLOURS;
        let _ = writeln!(
            out,
            "<tbody><tr><th colspan=\"{}\" scope=\"rowgroup\">\
             <svg class=\"chart key\" aria-hidden=\"true\">\
             <rect class=\"f{colour}\" width=\"100%\" height=\"100%\"/></svg>{}</th></tr>",
            columns.len(),
            escape(label_words(label))
        );
        for (index, outcome) in runs.of_label(label) {
            overview_row(out, runs, index, outcome);
        }
        out.push_str("</tbody>\n");
    }
    out.push_str("</table></div>\n");
    let main = "Figures are those of the main operation of each run; latency of a closed loop \
                counts from sending, else from when a message was due.";
    let _ = writeln!(out, "<p class=\"dim\">{main}</p>");
}

fn overview_row(out: &mut String, runs: &Runs, index: usize, outcome: &Outcome) {
    let class = if is_sound(outcome) {
        ""
    } else {
        " class=\"bad\""
    };
    let _ = write!(out, "<tr{class}>");
    let (cells, number) = (summary(runs, outcome), index + 1);
    for (column, (_, cell)) in cells.iter().enumerate() {
        let cell = escape(cell);
        let _ = match column {
            0 => write!(
                out,
                "<td>{number}. <a href=\"#run-{number}\">{cell}</a></td>"
            ),
            _ if cell == "FAILED" => write!(out, "<td class=\"fault\">{cell}</td>"),
            _ => write!(out, "<td>{cell}</td>"),
        };
    }
    out.push_str("</tr>\n");
    if !is_sound(outcome) {
        let (columns, why) = (cells.len(), escape(&reasons(outcome)));
        let _ = writeln!(
            out,
            "<tr class=\"why\"><td colspan=\"{columns}\">{why}</td></tr>"
        );
    }
}

fn comparisons(out: &mut String, runs: &Runs) {
    let rates = runs.groups("msg/s", |outcome| {
        Some(outcome.parts.first()?.messages_per_second)
    });
    let costs = runs.groups("µs", broker_us);
    let kinds = [
        ("Rate", "Messages per second: more is better", rates),
        (
            "Broker CPU",
            "Broker CPU per message, µs: less is better",
            costs,
        ),
    ];
    for (heading, title, groups) in kinds {
        if !groups.is_empty() {
            let _ = writeln!(out, "<h2>{heading}</h2>\n<p class=\"dim\">{KEYS}</p>");
            figure(out, title, &bars(title, &groups));
        }
    }
    let curves = runs.curves();
    if !curves.is_empty() {
        out.push_str("<h2>Latency</h2>\n");
    }
    for (name, lines) in curves {
        figure(
            out,
            &name,
            &percentiles(&format!("Latency by percentile: {name}"), lines).drawn(),
        );
    }
}

fn figure(out: &mut String, title: &str, drawing: &Drawing) {
    let picture = sheet(title, std::slice::from_ref(drawing), false);
    let _ = writeln!(out, "<figure>\n{picture}</figure>");
}

fn run(out: &mut String, runs: &Runs, index: usize, outcome: &Outcome) {
    let mark = match is_sound(outcome) {
        true => String::new(),
        false => format!(" <span class=\"fault\">{}</span>", verdict(outcome)),
    };
    let (number, scene) = (index + 1, escape(&runs.scene_name(outcome)));
    let _ = writeln!(
        out,
        "<details id=\"run-{number}\"><summary>{number}. {}: {scene}{mark}</summary>\n\
         <div>\n<pre>{}</pre>\n<figure>\n{}</figure>\n</div></details>",
        escape(label_words(&outcome.label)),
        escape_lines(&table(outcome)),
        picture(outcome, false)
    );
}

/// [`escape`] that keeps the lines.
fn escape_lines(text: &str) -> String {
    text.lines().map(|line| escape(line) + "\n").collect()
}

/// The summary as a Markdown table for each label.
pub fn markdown(title: &str, outcomes: &[Outcome]) -> String {
    let runs = Runs::of(outcomes);
    let mut out = format!("# {}\n\n{}\n", cell(title), census(outcomes));
    for label in &runs.labels {
        let _ = write!(out, "\n## {}\n\n", cell(label_words(label)));
        for (row, (_, outcome)) in runs.of_label(label).into_iter().enumerate() {
            let mut columns = summary(&runs, outcome);
            if let (false, Some(last)) = (is_sound(outcome), columns.last_mut()) {
                last.1 = reasons(outcome);
            }
            if row == 0 {
                let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
                let _ = writeln!(out, "| {} |", names.join(" | "));
                let _ = writeln!(out, "|---|{}---|", "---:|".repeat(names.len() - 2));
            }
            let cells: Vec<String> = columns.iter().map(|(_, words)| cell(words)).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
    }
    out
}

fn cell(text: &str) -> String {
    let mut out = String::new();
    for c in plain(text).chars() {
        match c {
            '|' | '\\' | '*' | '_' | '`' | '[' | ']' | '#' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            c => out.push(c),
        }
    }
    out
}
