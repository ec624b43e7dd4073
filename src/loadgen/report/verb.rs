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
