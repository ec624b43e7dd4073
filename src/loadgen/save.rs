//! What becomes of an outcome: a table for people, files for those who asked.

use std::io::Write;

use super::interrupt::Interrupt;
use super::outcome::Outcome;
use super::plan::{Output, Plan};
use super::progress::say;
use super::report;
use super::run::{Verdict, run};

/// Runs a plan to its end or until a signal comes, shows and saves what came of it.
pub fn bench(plan: &Plan) -> Verdict {
    let interrupt = match Interrupt::by_signals() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            say(&format!("orbitmq: {error}"));
            return Verdict::Refused;
        }
    };
    let (outcome, verdict) = run(plan, &interrupt);
    if verdict == Verdict::Refused {
        say(&format!("orbitmq: {}", outcome.broken.unwrap_or_default()));
        return verdict;
    }
    let saved = save(&plan.output, &outcome);
    for reason in &outcome.void {
        say(&format!("VOID {reason}"));
    }
    if let Some(broken) = &outcome.broken {
        say(&format!("orbitmq: {broken}"));
    }
    match saved {
        Ok(()) => verdict,
        Err(error) => {
            say(&format!("orbitmq: {error}"));
            Verdict::Failed
        }
    }
}

fn save(output: &Output, outcome: &Outcome) -> Result<(), String> {
    let piped = [&output.json, &output.csv]
        .iter()
        .any(|file| file.as_deref() == Some("-"));
    let measured = !outcome.parts.is_empty();
    if measured && piped {
        say(report::table(outcome).trim_end());
    } else if measured {
        put("-", &report::table(outcome))?;
    }
    if let Some(file) = &output.json {
        let json = serde_json::to_string_pretty(outcome);
        put(
            file,
            &format!("{}\n", json.map_err(|error| error.to_string())?),
        )?;
    }
    if let Some(file) = &output.csv {
        put(file, &report::csv(outcome))?;
    }
    match &output.plot {
        Some(file) if file.ends_with(".svg") => put(file, &report::svg(outcome)),
        Some(file) => {
            let title = format!("orbitmq bench {} {}", outcome.workload, outcome.label);
            put(
                file,
                &report::html(title.trim_end(), std::slice::from_ref(outcome)),
            )
        }
        None => Ok(()),
    }
}

/// Writes a file, or to standard output.
fn put(file: &str, text: &str) -> Result<(), String> {
    if file == "-" {
        // A reader that has gone, as in `… | head`, is no failure of ours.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        return Ok(());
    }
    std::fs::write(file, text).map_err(|error| format!("{file} cannot be written: {error}"))
}
