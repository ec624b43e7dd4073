//! Outcomes of all cases: a row as each ends, the output of failures at the end.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

pub enum Outcome {
    Pass,
    Fail(String),
    Skip(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Outcome::Pass => "PASS",
            Outcome::Fail(_) => "FAIL",
            Outcome::Skip(_) => "SKIP",
        })
    }
}

struct Row {
    name: String,
    outcome: Outcome,
}

pub struct Report {
    /// Nothing may be skipped.
    strict: bool,
    rows: Mutex<Vec<Row>>,
}

impl Report {
    pub fn new(strict: bool) -> Self {
        Self {
            strict,
            rows: Mutex::new(Vec::new()),
        }
    }

    pub fn add(&self, phase: &str, case: &str, took: Duration, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Skip(reason) if self.strict => Outcome::Fail(format!("skipped: {reason}")),
            outcome => outcome,
        };
        let name = format!("{phase}/{case}");
        let note = match &outcome {
            Outcome::Skip(reason) => reason.as_str(),
            _ => "",
        };
        println!("{outcome}  {:>6.1} s  {name}  {note}", took.as_secs_f64());
        self.rows
            .lock()
            .expect("no reporting thread panics")
            .push(Row { name, outcome });
    }

    /// Prints what failures left behind; answers whether there are any.
    pub fn print(&self) -> bool {
        let rows = self.rows.lock().expect("no reporting thread panics");
        let mut failed = false;
        for row in rows.iter() {
            if let Outcome::Fail(output) = &row.outcome {
                println!("\n---- {} ----\n{output}", row.name);
                failed = true;
            }
        }
        println!();
        failed
    }

    pub fn summary(&self) -> String {
        let rows = self.rows.lock().expect("no reporting thread panics");
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        for row in rows.iter() {
            match row.outcome {
                Outcome::Pass => passed += 1,
                Outcome::Fail(_) => failed += 1,
                Outcome::Skip(_) => skipped += 1,
            }
        }
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }
}
