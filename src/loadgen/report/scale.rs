//! Where values lie along an axis, and which of them are named.
//!
//! Always: an axis has a length above zero and at most [`TICKS_MAX`] ticks, all within it, whatever
//! the values were.

use super::units;

pub const TICKS_MAX: usize = 14;
/// About so many intervals on a linear axis.
const INTERVALS: f64 = 5.0;
/// Values beyond are drawn at the edge: sums and differences stay finite.
const LARGEST: f64 = 1e300;
const SMALLEST: f64 = 1e-300;
/// Ticks at measured points keep so much of the axis between them.
const TICK_GAP: f64 = 0.055;
/// Up to such a ratio of its ends a logarithmic axis has ticks at 1, 2 and 5.
const DENSE: f64 = 300.0;
/// 50 % in nines.
const HALF: f64 = std::f64::consts::LOG10_2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// Values of 0 and below have no place.
    Log,
    /// The value is the number of nines of a share: 1 for 90 %, 2 for 99 %.
    Nines,
}

/// An axis that fits its values.
#[derive(Clone, Debug)]
pub struct Axis {
    pub label: String,
    /// Value and what stands at it.
    pub ticks: Vec<(f64, String)>,
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    /// The horizontal axis: no longer than its values.
    pub fn across(label: &str, scale: Scale, values: &[f64]) -> Axis {
        let seen = sound(scale, values);
        let (low, high) = match (scale, ends(&seen)) {
            (Scale::Nines, ends) => (0.0, ends.map_or(2.0, |(_, high)| high.clamp(2.0, 7.0))),
            (Scale::Linear, None) => (0.0, 1.0),
            (Scale::Log, None) => (1.0, 10.0),
            (Scale::Linear, Some((low, high))) if low == high => {
                let around = (low.abs() * 0.1).max(0.5);
                (low - around, high + around)
            }
            (Scale::Log, Some((low, high))) if high / low < 1.001 => (low / 2.0, high * 2.0),
            (_, Some(ends)) => ends,
        };
        let mut axis = Axis::new(label, scale, low, high);
        let at: Vec<f64> = match scale {
            Scale::Nines => {
                let nines = (1..=7).map(f64::from);
                [0.0, HALF].into_iter().chain(nines).collect()
            }
            Scale::Linear => multiples(low, high, step(low, high)),
            Scale::Log => log_ticks(&axis, &seen),
        };
        axis.name(
            at,
            if scale == Scale::Nines {
                units::nines_tick
            } else {
                units::exact_tick
            },
        );
        axis
    }

    /// The vertical axis: from tick to tick, and from 0 where that leaves enough room.
    pub fn up(label: &str, scale: Scale, text: fn(f64) -> String, values: &[f64]) -> Axis {
        let seen = sound(scale, values);
        let (low, high) = match (scale, ends(&seen)) {
            (Scale::Log, None) => (1.0, 10.0),
            (_, None) => (0.0, 1.0),
            (Scale::Log, Some((low, high))) => {
                let (low, high) = match high / low > DENSE {
                    true => (decade_down(low), decade_down(high * (10.0 - 1e-9))),
                    false => (round_down(low), round_up(high)),
                };
                if low < high {
                    (low, high)
                } else {
                    (low, low * 10.0)
                }
            }
            (_, Some((low, high))) => {
                let low = if low >= 0.0 && low <= high * 0.6 || low == high {
                    low.min(0.0)
                } else {
                    low
                };
                let high = if low == high { 1.0 } else { high.max(low) };
                let step = step(low, high);
                ((low / step).floor() * step, (high / step).ceil() * step)
            }
        };
        let mut axis = Axis::new(label, scale, low, high);
        let at = match scale {
            Scale::Log => log_ticks(&axis, &[]),
            _ => multiples(low, high, step(low, high)),
        };
        axis.name(at, text);
        axis
    }

    fn new(label: &str, scale: Scale, low: f64, high: f64) -> Axis {
        // Rounding at the ends of what a float can hold may have left nothing between them.
        let high = if low < high {
            high
        } else {
            low + low.abs().max(1.0)
        };
        let (label, ticks) = (label.to_owned(), Vec::new());
        Axis {
            label,
            ticks,
            scale,
            low,
            high,
        }
    }

    fn name(&mut self, at: Vec<f64>, text: fn(f64) -> String) {
        let within = |at: &f64| *at >= self.low && *at <= self.high;
        self.ticks = at
            .into_iter()
            .filter(within)
            .take(TICKS_MAX)
            .map(|at| (at, text(at)))
            .collect();
    }

    /// How far along the axis, 0 to 1; nothing for what has no place on it.
    pub fn place(&self, value: f64) -> Option<f64> {
        let warp = |value: f64| match self.scale {
            Scale::Log if value <= 0.0 => f64::NAN,
            Scale::Log => value.log10(),
            Scale::Linear | Scale::Nines => value,
        };
        if !value.is_finite() {
            return None;
        }
        let (low, high) = (warp(self.low), warp(self.high));
        let place = (warp(value) - low) / (high - low);
        place.is_finite().then(|| place.clamp(0.0, 1.0))
    }
}

/// The values that have a place, growing.
fn sound(scale: Scale, values: &[f64]) -> Vec<f64> {
    let mut seen: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite() && (scale != Scale::Log || *value > 0.0))
        .map(|value| match scale {
            Scale::Log => value.clamp(SMALLEST, LARGEST),
            _ => value.clamp(-LARGEST, LARGEST),
        })
        .collect();
    seen.sort_by(f64::total_cmp);
    seen.dedup();
    seen
}

fn ends(seen: &[f64]) -> Option<(f64, f64)> {
    Some((*seen.first()?, *seen.last()?))
}

/// 1, 2 or 5 times a power of ten.
fn step(low: f64, high: f64) -> f64 {
    round_up(((high - low) / INTERVALS).max(SMALLEST))
}

fn decade_down(value: f64) -> f64 {
    10f64.powf(value.log10().floor())
}

fn round_up(value: f64) -> f64 {
    let decade = decade_down(value);
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|digit| digit * decade)
        // A value that is a tick but for its last bit is a tick.
        .find(|tick| *tick >= value * (1.0 - 1e-9))
        .unwrap_or(10.0 * decade)
}

fn round_down(value: f64) -> f64 {
    let decade = decade_down(value);
    [5.0, 2.0]
        .into_iter()
        .map(|digit| digit * decade)
        .find(|tick| *tick <= value * (1.0 + 1e-9))
        .unwrap_or(decade)
}

fn multiples(low: f64, high: f64, step: f64) -> Vec<f64> {
    let slack = step * 1e-9;
    let first = ((low - slack) / step).ceil();
    (0..TICKS_MAX)
        .map(|index| (first + index as f64) * step)
        .take_while(|at| *at <= high + slack)
        // Rounding may step over an end by its last bit.
        .map(|at| at.clamp(low, high))
        .collect()
}

/// The measured points themselves if they are few: people look for what was run.
fn log_ticks(axis: &Axis, seen: &[f64]) -> Vec<f64> {
    if (1..=12).contains(&seen.len()) {
        let mut ticks: Vec<f64> = Vec::new();
        let mut last = -1.0;
        for value in seen {
            let place = axis.place(*value).unwrap_or(0.0);
            if place - last >= TICK_GAP {
                ticks.push(*value);
                last = place;
            }
        }
        return ticks;
    }
    let first = axis.low.log10().floor() as i32;
    let last = axis.high.log10().ceil() as i32;
    let digits: &[f64] = match axis.high / axis.low > DENSE * 10.0 {
        true => &[1.0],
        false => &[1.0, 2.0, 5.0],
    };
    let stride = ((last - first) as usize).div_ceil(TICKS_MAX - 2).max(1);
    let powers: Vec<i32> = (first..=last).step_by(stride).collect();
    let mut ticks: Vec<f64> = powers
        .into_iter()
        .flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)))
        .filter(|at| *at >= axis.low * (1.0 - 1e-9) && *at <= axis.high * (1.0 + 1e-9))
        .map(|at| at.clamp(axis.low, axis.high))
        .collect();
    // Wide strides may end before the axis does.
    if ticks.last().is_none_or(|last| *last < axis.high) {
        ticks.truncate(TICKS_MAX - 2);
        ticks.push(axis.high);
    }
    if ticks[0] > axis.low {
        ticks.insert(0, axis.low);
    }
    ticks
}
