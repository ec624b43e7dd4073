//! An answer as rows under columns: a table for people, objects for scripts.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Map, Value};

#[derive(Debug)]
pub struct Sheet {
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
    /// What is said instead of an empty table.
    nothing: String,
    /// That there is nothing is a failure.
    absent: bool,
    /// Each value on a line of its own.
    upright: bool,
}

impl Sheet {
    pub fn new(columns: &'static [&'static str]) -> Sheet {
        Sheet {
            columns,
            rows: Vec::new(),
            nothing: "nothing".to_owned(),
            absent: false,
            upright: false,
        }
    }

    /// For few rows of long texts.
    pub fn upright(mut self) -> Sheet {
        self.upright = true;
        self
    }

    /// What to say if there are no rows; then the exit code says so too.
    pub fn or_absent(mut self, words: String) -> Sheet {
        (self.nothing, self.absent) = (words, true);
        self
    }

    pub fn push(&mut self, row: Vec<Value>) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    pub fn is_absent(&self) -> bool {
        self.absent && self.rows.is_empty()
    }

    /// One object a row, as a list.
    pub fn json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let fields = self.columns.iter().zip(row);
            let fields = fields.map(|(name, value)| (name.replace(' ', "_"), value.clone()));
            Value::Object(fields.collect::<Map<String, Value>>())
        });
        let rows = Value::Array(rows.collect());
        format!("{rows:#}\n")
    }

    pub fn text(&self) -> String {
        if self.rows.is_empty() {
            return format!("{}\n", self.nothing);
        }
        if self.upright {
            return self.standing();
        }
        let head: Vec<String> = self.columns.iter().map(|name| (*name).to_owned()).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(shown).collect());
        let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
        let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max();
        let widths: Vec<usize> = (0..self.columns.len()).filter_map(width).collect();
        let mut out = String::new();
        for (n, line) in lines.iter().enumerate() {
            let mut text = String::new();
            for (at, cell) in line.iter().enumerate() {
                let gap = if at > 0 { "  " } else { "" };
                let right = n > 0 && self.rows[n - 1][at].is_number();
                let width = widths[at];
                let _ = match right {
                    true => write!(text, "{gap}{cell:>width$}"),
                    false => write!(text, "{gap}{cell:<width$}"),
                };
            }
            let _ = writeln!(out, "{}", text.trim_end());
        }
        out
    }

    fn standing(&self) -> String {
        let width = self.columns.iter().map(|name| name.len()).max();
        let width = width.unwrap_or(0);
        let mut out = String::new();
        for row in &self.rows {
            for (name, value) in self.columns.iter().zip(row) {
                let _ = writeln!(out, "{name:<width$}  {}", shown(value));
            }
        }
        out
    }
}

/// Control characters would move the cursor of whoever looks.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars()
        .map(|c| if c.is_control() { '.' } else { c })
        .collect()
}

/// A reader that has gone is no failure of ours.
pub fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// `2026-11-21 23:15:04.123`, UTC; `-` for 0.
pub fn time(ms: i64) -> Value {
    if ms <= 0 {
        return Value::Null;
    }
    Value::String(crate::base::time::utc(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_under_their_columns() {
        let mut sheet = Sheet::new(&["name", "end offset"]);
        assert_eq!(sheet.text(), "nothing\n");
        sheet.push(vec!["a\u{1b}b".into(), 7.into()]);
        sheet.push(vec!["long name".into(), Value::Null]);
        let expected = "name       end offset\na.b                 7\nlong name  -\n";
        assert_eq!(sheet.text(), expected);
        let json: Value = serde_json::from_str(&sheet.json()).unwrap();
        assert_eq!(json[0]["end_offset"], 7);
        assert_eq!(json[1]["end_offset"], Value::Null);
    }
}
