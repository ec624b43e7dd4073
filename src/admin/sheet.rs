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
    /// What is to be known besides.
    notes: Vec<String>,
}

impl Sheet {
    pub fn new(columns: &'static [&'static str]) -> Sheet {
        Sheet {
            columns,
            rows: Vec::new(),
            nothing: "nothing".to_owned(),
            absent: false,
            upright: false,
            notes: Vec::new(),
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

    pub fn note(&mut self, words: String) {
        self.notes.push(words);
    }

    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub fn is_absent(&self) -> bool {
        self.absent && self.rows.is_empty()
    }

    /// One object a row, as a list.
    pub fn json(&self) -> String {
        let rows = self.rows.iter().map(|row| object(self.columns, row));
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

fn object(columns: &[&str], row: &[Value]) -> Value {
    let fields = columns.iter().zip(row);
    let fields = fields.map(|(name, value)| (name.replace(' ', "_"), value.clone()));
    Value::Object(fields.collect::<Map<String, Value>>())
}

/// Rows that are printed as they come: a table whose columns grow, or one object a line.
pub struct Lines {
    columns: &'static [&'static str],
    json: bool,
    widths: Vec<usize>,
}

impl Lines {
    pub fn new(columns: &'static [&'static str], json: bool) -> Lines {
        Lines {
            columns,
            json,
            widths: Vec::new(),
        }
    }

    /// What to print for a row; before the first one stands what the columns are.
    pub fn line(&mut self, row: &[Value]) -> String {
        if self.json {
            return format!("{}\n", object(self.columns, row));
        }
        let cells: Vec<String> = row.iter().map(shown).collect();
        let mut out = String::new();
        if self.widths.is_empty() {
            let widest = |(name, cell): (&&str, &String)| name.len().max(cell.chars().count());
            self.widths = self.columns.iter().zip(&cells).map(widest).collect();
            let head: Vec<String> = self.columns.iter().map(|name| (*name).to_owned()).collect();
            out = self.padded(&head);
        }
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = cell.chars().count().max(*width);
        }
        out + &self.padded(&cells)
    }

    fn padded(&self, cells: &[String]) -> String {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&self.widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        format!("{}\n", text.trim_end())
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

/// False if the reader has gone, which is no failure of ours.
pub fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
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

    #[test]
    fn lines_come_one_by_one() {
        let mut lines = Lines::new(&["name", "end"], false);
        assert_eq!(
            lines.line(&["abcdef".into(), 7.into()]),
            "name    end\nabcdef  7\n"
        );
        assert_eq!(lines.line(&["abcdefgh".into(), 8.into()]), "abcdefgh  8\n");
        assert_eq!(lines.line(&["a".into(), Value::Null]), "a         -\n");
        let mut lines = Lines::new(&["the name"], true);
        assert_eq!(lines.line(&["a\nb".into()]), "{\"the_name\":\"a\\nb\"}\n");
    }
}
