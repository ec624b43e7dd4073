//! The line of each second, on standard error.

use std::io::Write;

use super::crew::Phase;
use super::tally::Lap;

pub struct Progress {
    parts: Vec<&'static str>,
    phase: &'static str,
    quiet: bool,
    /// The last second that was shown.
    shown: Option<i32>,
}

impl Progress {
    pub fn new(phase: &Phase, quiet: bool) -> Self {
        Progress {
            parts: phase.parts.clone(),
            phase: phase.name,
            quiet,
            shown: None,
        }
    }

    /// Shows a second that is over, if it was not shown before.
    pub fn second(&mut self, at: i32, laps: &[Lap]) {
        if self.quiet || self.shown.is_some_and(|shown| shown >= at) {
            return;
        }
        self.shown = Some(at);
        let warm = if at < 0 { "  warm-up" } else { "" };
        for (part, lap) in self.parts.iter().zip(laps) {
            let second = lap.second(at);
            say(&format!(
                "{:<8} {:>4} s  {part:<10} {:>9} msg/s {:>8.1} MB/s  p50 {:>9}  p99 {:>9}  \
                 failed {}{warm}",
                self.phase,
                at + 1,
                lap.messages,
                lap.bytes as f64 / 1e6,
                time(second.p50),
                time(second.p99),
                lap.failed,
            ));
        }
    }
}

/// Prints a line. A reader that has gone is no failure of ours.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// As `1.25 ms`.
pub fn time(nanos: u64) -> String {
    let nanos = nanos as f64;
    match nanos {
        ..1e3 => format!("{nanos:.0} ns"),
        ..1e6 => format!("{:.1} us", nanos / 1e3),
        ..1e9 => format!("{:.2} ms", nanos / 1e6),
        _ => format!("{:.2} s", nanos / 1e9),
    }
}
