//! `bench report` and `bench plot`: recorded runs and tables from files into pages and charts.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::chart::{Chart, Series};
use super::csv::rows;
use super::{html, markdown};
use crate::loadgen::outcome::{FORMAT, Outcome};

/// A run with a second's line for a month has a third of this.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// More lines than this cannot be told apart.
const SERIES_MAX: usize = 28;

/// `bench report`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ReportArgs {
    /// What `bench … --json` wrote: one or several runs in each
    #[arg(value_name = "FILE.json", required = true)]
    pub files: Vec<PathBuf>,
    /// Write one page that needs nothing else
    #[arg(long, value_name = "OUT.html", required_unless_present = "markdown")]
    pub html: Option<PathBuf>,
    /// Write the summary as Markdown
    #[arg(long, value_name = "OUT.md")]
    pub markdown: Option<PathBuf>,
    /// Title of the page
    #[arg(long, value_name = "TEXT", default_value = "OrbitMQ bench")]
    pub title: String,
}

/// `bench plot`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct PlotArgs {
    /// Comma-separated values; the first line names the columns
    #[arg(value_name = "FILE.csv")]
    pub file: PathBuf,
    /// Column of the horizontal axis
    #[arg(long, value_name = "COL")]
    pub x: String,
    /// Columns of the vertical axis, one line each
    #[arg(long, value_name = "COL,…", value_delimiter = ',', required = true)]
    pub y: Vec<String>,
    /// Column whose values each get a line of their own
    #[arg(long, value_name = "COL")]
    pub by: Option<String>,
    /// Logarithmic horizontal axis
    #[arg(long)]
    pub log_x: bool,
    /// Logarithmic vertical axis
    #[arg(long)]
    pub log_y: bool,
    /// Title of the chart
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub title: String,
    /// Words at the horizontal axis, with the unit [default: the column]
    #[arg(long, value_name = "TEXT")]
    pub x_label: Option<String>,
    /// Words at the vertical axis, with the unit [default: the columns]
    #[arg(long, value_name = "TEXT")]
    pub y_label: Option<String>,
    /// File to write
    #[arg(long, value_name = "F.svg")]
    pub out: PathBuf,
}

/// Why nothing, or not everything, was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The arguments ask for what is not there.
    Asked(String),
    /// A file cannot be read, understood or written.
    File(String),
}

/// Writes the page.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn report(args: &ReportArgs) -> Result<(), Failure> {
    let mut outcomes = Vec::new();
    for file in &args.files {
        let text = read(file)?;
        let found = parse(&text).map_err(|why| wrong(file, &why))?;
        outcomes.extend(found);
    }
    if let Some(path) = &args.html {
        write(path, &html(&args.title, &outcomes))?;
    }
    if let Some(path) = &args.markdown {
        write(path, &markdown(&args.title, &outcomes))?;
    }
    Ok(())
}

/// Writes the chart.
///
/// # Errors
/// As [`report`]; a column that is not there is the arguments' fault.
pub fn plot(args: &PlotArgs) -> Result<(), Failure> {
    let text = read(&args.file)?;
    write(&args.out, &chart(args, &text)?.svg())
}

fn wrong(file: &Path, why: &str) -> Failure {
    Failure::File(format!("{}: {why}", file.display()))
}

fn read(file: &Path) -> Result<String, Failure> {
    read_at_most(file, FILE_BYTES_MAX)
}

fn read_at_most(file: &Path, max: u64) -> Result<String, Failure> {
    let mut text = String::new();
    let open = fs::File::open(file).map_err(|error| wrong(file, &error.to_string()))?;
    let read = open.take(max + 1).read_to_string(&mut text);
    read.map_err(|error| wrong(file, &error.to_string()))?;
    match text.len() as u64 > max {
        true => Err(wrong(
            file,
            &format!("larger than the {max} bytes that are read"),
        )),
        false => Ok(text),
    }
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| wrong(file, &error.to_string()))
}

/// All runs of a file, one at least.
fn parse(text: &str) -> Result<Vec<Outcome>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let mut outcomes = Vec::new();
    for outcome in serde_json::Deserializer::from_str(text).into_iter::<Outcome>() {
        let outcome = outcome.map_err(|error| format!("not a run of bench --json: {error}"))?;
        if outcome.format > FORMAT {
            let found = outcome.format;
            return Err(format!(
                "written by a newer orbitmq: format {found}, this one reads {FORMAT}"
            ));
        }
        outcomes.push(outcome);
    }
    match outcomes.is_empty() {
        true => Err("there is no run in it".to_owned()),
        false => Ok(outcomes),
    }
}

/// The lines that `args` picks from a table. Rows with an empty cell have no point.
fn chart(args: &PlotArgs, text: &str) -> Result<Chart, Failure> {
    let table = rows(text.trim_start_matches('\u{feff}')).map_err(|why| wrong(&args.file, &why))?;
    let Some(((_, header), rows)) = table.split_first() else {
        return Err(wrong(&args.file, "empty"));
    };
    let column = |name: &str| {
        let found = header.iter().position(|cell| cell.trim() == name);
        found.ok_or_else(|| {
            let (file, columns) = (args.file.display(), header.join(", "));
            Failure::Asked(format!("{file} has no column {name}; it has {columns}"))
        })
    };
    let x = column(&args.x)?;
    let by = args.by.as_deref().map(column).transpose()?;
    let mut series: Vec<Series> = Vec::new();
    for name in &args.y {
        let y = column(name)?;
        for (line, row) in rows {
            let at = |column: usize| {
                number(row, column).map_err(|why| wrong(&args.file, &format!("line {line}: {why}")))
            };
            let (Some(x), Some(y)) = (at(x)?, at(y)?) else {
                continue;
            };
            let name = series_name(args, name, by.and_then(|by| row.get(by)));
            match series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push((x, y)),
                None => series.push(Series {
                    name,
                    points: vec![(x, y)],
                }),
            }
        }
    }
    if series.len() > SERIES_MAX {
        let lines = series.len();
        return Err(Failure::Asked(format!(
            "{lines} lines in one chart; at most {SERIES_MAX} can be told apart"
        )));
    }
    Ok(Chart {
        title: args.title.clone(),
        x_label: args.x_label.clone().unwrap_or_else(|| args.x.clone()),
        y_label: args.y_label.clone().unwrap_or_else(|| args.y.join(", ")),
        x_log: args.log_x,
        y_log: args.log_y,
        series,
    })
}

fn series_name(args: &PlotArgs, column: &str, by: Option<&String>) -> String {
    let mut name = String::new();
    if let Some(by) = by {
        let _ = write!(name, "{by}");
    }
    if args.y.len() > 1 || by.is_none() {
        let _ = write!(name, "{}{column}", if name.is_empty() { "" } else { ", " });
    }
    name
}

fn number(row: &[String], column: usize) -> Result<Option<f64>, String> {
    match row.get(column).map_or("", |cell| cell.trim()) {
        "" => Ok(None),
        text => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Some(value)),
            _ => Err(format!("{text} is no number")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(result: Result<T, Failure>) -> (bool, String) {
        match result.unwrap_err() {
            Failure::Asked(why) => (true, why),
            Failure::File(why) => (false, why),
        }
    }

    #[test]
    fn runs_become_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let run = |label: &str| {
            let (label, format) = (label.to_owned(), FORMAT);
            serde_json::to_string(&Outcome {
                label,
                format,
                ..Outcome::default()
            })
            .unwrap()
        };
        let lines = format!("{}\n{}\n", run("a"), run("b"));
        fs::write(path("lines.json"), lines).unwrap();
        let one: serde_json::Value = serde_json::from_str(&run("c")).unwrap();
        fs::write(
            path("one.json"),
            serde_json::to_string_pretty(&one).unwrap(),
        )
        .unwrap();
        let mut args = ReportArgs {
            files: vec![path("lines.json"), path("one.json")],
            html: Some(path("o.html")),
            markdown: Some(path("o.md")),
            title: "All".to_owned(),
        };
        report(&args).unwrap();
        assert!(
            fs::read_to_string(path("o.html"))
                .unwrap()
                .contains("3 runs.")
        );
        assert!(fs::read_to_string(path("o.md")).unwrap().contains("## c"));

        args.html = Some(path("nowhere/o.html"));
        let (_, why) = refused(report(&args));
        assert!(why.contains("nowhere/o.html: No such file"), "{why}");
        for (text, expected) in [
            ("", "bad.json: there is no run in it"),
            (
                "{}",
                "bad.json: not a run of bench --json: missing field `format`",
            ),
            ("{\"format\": 1,\n\"workload\": 2", "line 2 column 13"),
            (
                &run("a").replace(":1,", ":9,"),
                "a newer orbitmq: format 9, this one reads 1",
            ),
        ] {
            fs::write(path("bad.json"), text).unwrap();
            args.files = vec![path("lines.json"), path("bad.json")];
            let (asked, why) = refused(report(&args));
            assert!(!asked && why.contains(expected), "{why}");
        }
        args.files = vec![path("none.json")];
        assert!(refused(report(&args)).1.contains("none.json: No such file"));
        let (_, why) = refused(read_at_most(&path("lines.json"), 9));
        assert!(why.contains("lines.json: larger than the 9 bytes"), "{why}");
    }

    fn columns(x: &str, y: &str, by: Option<&str>) -> PlotArgs {
        PlotArgs {
            file: PathBuf::from("t.csv"),
            x: x.to_owned(),
            y: y.split(',').map(str::to_owned).collect(),
            by: by.map(str::to_owned),
            log_x: true,
            log_y: false,
            title: String::new(),
            x_label: None,
            y_label: None,
            out: PathBuf::from("t.svg"),
        }
    }

    #[test]
    fn columns_become_lines() {
        const TABLE: &str = "depth, who,rate,p99\n1,a,10,1.5\n1,b,5,\n2,a,20,2.5\n";
        let check = |x, y, by, expected: &[(&str, &[(f64, f64)])]| {
            let chart = chart(&columns(x, y, by), TABLE).unwrap();
            let found: Vec<(&str, &[(f64, f64)])> = chart
                .series
                .iter()
                .map(|series| (series.name.as_str(), series.points.as_slice()))
                .collect();
            assert_eq!(found, expected);
            assert_eq!(
                (chart.x_label.as_str(), chart.y_label.as_str()),
                (x, y.replace(',', ", ").as_str())
            );
        };
        check("depth", "p99", None, &[("p99", &[(1.0, 1.5), (2.0, 2.5)])]);
        let by_who: [(&str, &[(f64, f64)]); 2] =
            [("a", &[(1.0, 10.0), (2.0, 20.0)]), ("b", &[(1.0, 5.0)])];
        check("depth", "rate", Some("who"), &by_who);
        let both: [(&str, &[(f64, f64)]); 2] = [
            ("a, rate", &[(1.5, 10.0), (2.5, 20.0)]),
            ("a, p99", &[(1.5, 1.5), (2.5, 2.5)]),
        ];
        check("p99", "rate,p99", Some("who"), &both);
    }

    #[test]
    fn tables_that_cannot_be_drawn_are_named() {
        let check = |x, y, by, text: &str, expected: (bool, &str)| {
            let (asked, why) = refused(chart(&columns(x, y, by), text));
            assert_eq!((asked, why.as_str()), expected);
        };
        check("a", "b", None, "", (false, "t.csv: empty"));
        check(
            "a",
            "b",
            None,
            "a\n",
            (true, "t.csv has no column b; it has a"),
        );
        check(
            "a",
            "a",
            Some("c"),
            "a\n",
            (true, "t.csv has no column c; it has a"),
        );
        check(
            "a",
            "a",
            None,
            "a\n\nx\n",
            (false, "t.csv: line 3: x is no number"),
        );
        check(
            "a",
            "a",
            None,
            "a\ninf\n",
            (false, "t.csv: line 2: inf is no number"),
        );
        check(
            "a",
            "a",
            None,
            "\"a\n",
            (false, "t.csv: line 1: a quote is not closed"),
        );
        let many: String = (0..=SERIES_MAX).map(|row| format!("1,{row}\n")).collect();
        let (asked, why) = refused(chart(
            &columns("a", "a", Some("b")),
            &format!("a,b\n{many}"),
        ));
        assert!(
            asked && why.contains("29 lines in one chart; at most 28"),
            "{why}"
        );
    }
}
