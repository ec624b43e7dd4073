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

const STYLE: &str = "\
:root{color-scheme:light dark}
body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:64rem;color:#24292f;background:#fff;
font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .5rem}h2{font-size:1.3rem;margin:2.5rem 0 .75rem}
p{max-width:44rem;margin:.5rem 0 1rem}.dim{color:#57606a}
a{color:#0060a0;text-decoration-thickness:1px;text-underline-offset:2px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.84rem;line-height:1.35;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.38rem .55rem;text-align:right;border-bottom:1px solid #d8dee4;vertical-align:top}
td{white-space:nowrap}th:first-child,td:first-child,th:last-child,td:last-child{text-align:left;white-space:normal}
td:first-child{min-width:19rem}thead th{font-weight:600;border-bottom:2px solid #8c959f;vertical-align:bottom}
tbody th{font-size:.95rem;padding-top:1.1rem}
.chart.key{display:inline-block;width:.7rem;height:.7rem;border-radius:2px;margin-right:.45rem}
.bad td{color:#57606a;text-decoration:line-through;border-bottom:0;padding-bottom:0}
.bad td:first-child,.bad td:last-child{text-decoration:none}.bad td:last-child,.why td,.fault{color:#b42318;font-weight:600}
.why td{padding-top:.1rem;font-weight:400}
figure{margin:0 0 1.5rem}figure svg{display:block;box-sizing:border-box;border:1px solid #d8dee4;border-radius:6px;width:100%}
details{border:1px solid #d8dee4;border-radius:6px;margin:.6rem 0}
summary{padding:.6rem .9rem;cursor:pointer;font-weight:600}
details>div{padding:0 .9rem .9rem}
pre{overflow-x:auto;font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono',monospace;
background:#f6f8fa;border-radius:6px;padding:.8rem 1rem;margin:0 0 1rem}
@media screen and (prefers-color-scheme:dark){body{color:#e6edf3;background:#0f1216}.dim,.bad td{color:#9da7b3}
a{color:#6cb8f0}th,td,figure svg,details{border-color:#2b323a}thead th{border-bottom-color:#6e7681}
pre{background:#181d23}.bad td:last-child,.why td,.fault{color:#ff8a7a}}
@page{margin:14mm}
@media print{body{max-width:none;padding:0;font-size:10.5pt}table{font-size:7.2pt}td:first-child{min-width:0}th,td{padding:.25rem .3rem}
.why td{white-space:normal}pre{font-size:7pt;white-space:pre-wrap}
figure,tr,h2{break-inside:avoid}h2,summary{break-after:avoid}details{border:0}a{color:inherit}
details::details-content{content-visibility:visible;height:auto}}
";
const KEYS: &str = "Each bar is the median of the runs of one label, the thin line their range; × \
compares with the shortest bar of the same load.";

/// One page: summary, comparisons, then each run.
pub fn html(title: &str, outcomes: &[Outcome]) -> String {
    let runs = Runs::of(outcomes);
    let title = escape(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{THEME}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
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
            "<tbody><tr><th colspan=\"{}\" scope=\"rowgroup\"><svg class=\"chart key\" aria-hidden=\"true\">\
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
    let main = "Figures are those of the main operation of each run; latency of a closed loop counts \
                from sending, else from when a message was due.";
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
        "<details id=\"run-{number}\"><summary>{number}. {}: {scene}{mark}</summary>\n<div>\n<pre>{}</pre>\n<figure>\n{}</figure>\n</div></details>",
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
