//! Line and bar charts as SVG: no script, no font of its own, legible on light and dark grounds and
//! on paper, told apart by dashes where colours repeat.
//!
//! A value without a place on its axis (not a number, 0 on a logarithm) is left out and breaks its
//! line. All text is escaped here.

use std::fmt::Write as _;

use super::scale::{Axis, Scale};
use super::units::{escape, fitted, number, short_tick};

/// Of every chart; heights follow the content.
pub const WIDTH: f64 = 860.0;
/// Colours that the theme has.
pub const COLOURS: usize = 7;
/// Ways of breaking a line that it has.
pub const DASHES: usize = 4;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 28.0;
const ROW: f64 = 20.0;
/// Points are marked one by one up to so many in a line.
const MARKED_MAX: usize = 24;
const NAME_CHARS: usize = 60;

/// Every class of a chart.
pub const THEME: &str = include_str!("chart.css");

/// One line.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub name: String,
    /// In the order in which the line connects them.
    pub points: Vec<(f64, f64)>,
}

/// A chart of lines over any two quantities.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    pub title: String,
    /// With the unit; so is the other.
    pub x_label: String,
    pub y_label: String,
    pub x_log: bool,
    pub y_log: bool,
    pub series: Vec<Series>,
}

impl Chart {
    /// A whole SVG file.
    pub fn svg(&self) -> String {
        let scale = |log| if log { Scale::Log } else { Scale::Linear };
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (xs, ys): (Vec<f64>, Vec<f64>) = points().copied().unzip();
        let line = |(index, series): (usize, &Series)| Line {
            name: series.name.clone(),
            points: series.points.clone(),
            look: Look::nth(index),
        };
        let panel = Panel {
            title: self.title.clone(),
            x: Axis::across(&self.x_label, scale(self.x_log), &xs),
            y: Axis::up(&self.y_label, scale(self.y_log), short_tick, &ys),
            lines: self.series.iter().enumerate().map(line).collect(),
            shade_until: None,
            height: 320.0,
        };
        sheet(&self.title, &[panel.drawn()], true)
    }
}

/// Colour and dashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub colour: usize,
    pub dash: usize,
}

impl Look {
    pub fn nth(index: usize) -> Look {
        Look {
            colour: index % COLOURS,
            dash: index / COLOURS % DASHES,
        }
    }
}

/// A line of a panel. Lines of the same name share one entry in the legend.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub look: Look,
}

/// One pair of axes and what is drawn in it.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    /// The ground is darker up to here.
    pub shade_until: Option<f64>,
    /// Of the plot alone.
    pub height: f64,
}

/// Part of a picture: its height, and what is in it, from 0 down.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    pub height: f64,
    pub body: String,
}

/// Drawings one below the other; a picture that stands `alone` brings its theme.
pub fn sheet(title: &str, drawings: &[Drawing], alone: bool) -> String {
    let height: f64 = drawings.iter().map(|drawing| drawing.height).sum();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" role=\"img\" width=\"{WIDTH}\" \
         height=\"{height:.0}\" viewBox=\"0 0 {WIDTH} {height:.0}\">\n<title>{}</title>\n",
        escape(title)
    );
    if alone {
        let _ = writeln!(out, "<style>{THEME}</style>");
    }
    out.push_str("<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n");
    let mut top = 0.0;
    for drawing in drawings {
        let _ = writeln!(
            out,
            "<g transform=\"translate(0 {top:.0})\">\n{}</g>",
            drawing.body
        );
        top += drawing.height;
    }
    out.push_str("</svg>\n");
    out
}

/// A text at a place; `class` picks size, colour and anchor.
pub fn text(out: &mut String, (x, y): (f64, f64), class: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{words}</text>"
    );
}

/// About how wide a text is. System fonts differ: rather too much than too little.
pub fn text_width(words: &str) -> f64 {
    words
        .chars()
        .map(|c| if c.is_ascii() { 6.9 } else { 12.0 })
        .sum()
}

/// Where a plot lies.
#[derive(Clone, Copy)]
struct Area {
    top: f64,
    height: f64,
}

impl Area {
    fn x(place: f64) -> f64 {
        LEFT + place * (WIDTH - LEFT - RIGHT)
    }

    fn y(self, place: f64) -> f64 {
        self.top + (1.0 - place) * self.height
    }
}

impl Panel {
    pub fn drawn(&self) -> Drawing {
        let mut body = String::new();
        text(&mut body, (16.0, 26.0), "title", &fitted(&self.title, 110));
        let below_legend = self.legend(&mut body, 26.0 + ROW);
        let y_label = below_legend + 2.0;
        text(
            &mut body,
            (16.0, y_label),
            "dim",
            &fitted(&self.y.label, 110),
        );
        let area = Area {
            top: y_label + 18.0,
            height: self.height,
        };
        self.frame(&mut body, area);
        for line in &self.lines {
            self.line(&mut body, area, line);
        }
        Drawing {
            height: area.top + area.height + 54.0,
            body,
        }
    }

    /// Gives the base line below it.
    fn legend(&self, out: &mut String, top: f64) -> f64 {
        let mut names: Vec<(&str, Look)> = Vec::new();
        for line in self.lines.iter().filter(|line| !line.name.is_empty()) {
            if !names.contains(&(&line.name, line.look)) {
                names.push((&line.name, line.look));
            }
        }
        let (mut x, mut y) = (16.0, top);
        for (name, Look { colour, dash }) in &names {
            let name = fitted(name, NAME_CHARS);
            let width = 34.0 + text_width(&name) + 18.0;
            if x > 16.0 && x + width > WIDTH {
                (x, y) = (16.0, y + ROW);
            }
            let (right, middle) = (x + 26.0, y - 4.0);
            let _ = writeln!(
                out,
                "<path class=\"line s{colour} d{dash}\" d=\"M{x:.1} {middle:.1}H{right:.1}\"/>"
            );
            text(out, (x + 33.0, y), "", &name);
            x += width;
        }
        if names.is_empty() { top } else { y + ROW + 2.0 }
    }

    fn frame(&self, out: &mut String, area: Area) {
        let (left, right) = (Area::x(0.0), Area::x(1.0));
        let (top, bottom) = (area.y(1.0), area.y(0.0));
        if let Some(place) = self.shade_until.and_then(|until| self.x.place(until)) {
            let (width, height) = (Area::x(place) - left, bottom - top);
            let _ = writeln!(
                out,
                "<rect class=\"shade\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
                 height=\"{height:.1}\"/>"
            );
        }
        for (at, words) in &self.y.ticks {
            let y = area.y(self.y.place(*at).unwrap_or(0.0));
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>"
            );
            text(out, (left - 8.0, y + 4.0), "dim end", words);
        }
        let mut free = f64::NEG_INFINITY;
        for (at, words) in &self.x.ticks {
            let x = Area::x(self.x.place(*at).unwrap_or(0.0));
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>"
            );
            let half = text_width(words) / 2.0;
            if x - half >= free {
                text(out, (x, bottom + 19.0), "dim mid", words);
                free = x + half + 4.0;
            }
        }
        let _ = writeln!(
            out,
            "<path class=\"axis\" d=\"M{left:.1} {bottom:.1}H{right:.1}\"/>"
        );
        let middle = f64::midpoint(left, right);
        text(
            out,
            (middle, bottom + 38.0),
            "dim mid",
            &fitted(&self.x.label, 110),
        );
    }

    fn line(&self, out: &mut String, area: Area, line: &Line) {
        let Look { colour, dash } = line.look;
        let place =
            |(x, y): &(f64, f64)| Some((Area::x(self.x.place(*x)?), area.y(self.y.place(*y)?)));
        let (mut path, mut marks) = (String::new(), String::new());
        let mut joined = false;
        for point in &line.points {
            let Some((x, y)) = place(point) else {
                joined = false;
                continue;
            };
            // A line of no length shows as a dot if nothing follows it.
            let _ = match joined {
                true => write!(path, "L{x:.1} {y:.1}"),
                false => write!(path, "M{x:.1} {y:.1}h0"),
            };
            joined = true;
            let (across, up) = (number(point.0), number(point.1));
            let _ = writeln!(
                marks,
                "<circle class=\"f{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\">\
                 <title>{} {across}: {up}</title></circle>",
                escape(&line.name)
            );
        }
        if !path.is_empty() {
            let _ = writeln!(out, "<path class=\"line s{colour} d{dash}\" d=\"{path}\"/>");
        }
        if line.points.len() <= MARKED_MAX {
            out.push_str(&marks);
        }
    }
}
