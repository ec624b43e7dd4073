//! Horizontal bars in groups, for comparing runs.

use std::fmt::Write as _;

use super::chart::{Drawing, WIDTH, text};
use super::units::{escape, fitted};

/// Names end here, bars begin.
const LEFT: f64 = 200.0;
/// Room for the figures behind the longest bar.
const RIGHT: f64 = 260.0;
const ROW: f64 = 24.0;
const NAME_CHARS: usize = 26;

/// One bar: a value and the range of the runs it stands for.
#[derive(Clone, Debug)]
pub struct Bar {
    pub name: String,
    pub value: f64,
    pub range: (f64, f64),
    /// What stands behind it.
    pub words: String,
    pub colour: usize,
}

/// A heading and its bars.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    /// The value of a bar of full length.
    pub full: f64,
    pub bars: Vec<Bar>,
}

pub fn bars(title: &str, groups: &[Group]) -> Drawing {
    let mut body = String::new();
    let mut y = 26.0;
    text(&mut body, (16.0, y), "title", &fitted(title, 110));
    y += 6.0;
    for group in groups {
        y += ROW;
        text(&mut body, (16.0, y), "dim", &fitted(&group.name, 120));
        for bar in &group.bars {
            y += ROW;
            draw(&mut body, y, bar, group.full);
        }
        y += 8.0;
    }
    Drawing {
        height: y + 12.0,
        body,
    }
}

/// Onto the base line `y`.
fn draw(out: &mut String, y: f64, bar: &Bar, full: f64) {
    let place = |value: f64| {
        let share = value / full;
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    };
    let place = |value: f64| Some(place(value)).filter(|x| x.is_finite()).unwrap_or(LEFT);
    let (end, top, colour) = (place(bar.value), y - 13.0, bar.colour);
    text(out, (LEFT - 10.0, y), "end", &fitted(&bar.name, NAME_CHARS));
    let width = (end - LEFT).max(1.0);
    let _ = writeln!(
        out,
        "<rect class=\"f{colour}\" x=\"{LEFT:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
         height=\"17\" rx=\"2\"><title>{}: {}</title></rect>",
        escape(&bar.name),
        escape(&bar.words)
    );
    let (low, high) = (place(bar.range.0), place(bar.range.1));
    if high - low >= 1.0 {
        let (middle, up, down) = (y - 4.5, y - 8.5, y - 0.5);
        let _ = writeln!(
            out,
            "<path class=\"range\" d=\"M{low:.1} {middle:.1}H{high:.1}\
             M{low:.1} {up:.1}V{down:.1}M{high:.1} {up:.1}V{down:.1}\"/>"
        );
    }
    text(out, (end.max(high) + 8.0, y), "", &bar.words);
}
