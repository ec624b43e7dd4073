//! Numbers, times and words as people read them.
//!
//! Every function takes any value: what cannot be shown is a dash, never a panic.

/// Stands for what was not measured or is no number.
pub const NONE: &str = "–";

const MILLION: f64 = 1e6;

/// With thousands apart: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of any size in at most 13 characters: `41,152`, `12.3`, `0.0125`, `1.84e19`.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let size = value.abs();
    match size {
        s if s >= 1e10 => format!("{sign}{s:.2e}"),
        s if s >= 999.5 => format!("{sign}{}", count(s.round() as u64)),
        0.0 => "0".to_owned(),
        s if s < 0.1 => format!("{sign}{s:.4}"),
        s => format!("{sign}{}", three_digits(s)),
    }
}

/// 0 to 999 with three digits in all.
fn three_digits(value: f64) -> String {
    if value >= 99.95 {
        format!("{value:.0}")
    } else if value >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The largest unit of which there is one.
fn unit<'a>(size: f64, units: &[(f64, &'a str)]) -> (f64, &'a str) {
    let mut fits = units.iter().rev();
    let found = fits.find(|(unit, _)| size >= unit * 0.9995);
    found.or(units.first()).copied().unwrap_or((1.0, ""))
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let (unit, name) = unit(value, units);
    format!("{} {name}", number(value / unit))
}

const TIMES: [(f64, &str); 4] = [(1.0, "ns"), (1e3, "µs"), (MILLION, "ms"), (1e9, "s")];

/// A time given in nanoseconds: `102 µs`, `1.50 s`.
pub fn nanos(value: f64) -> String {
    if value > 0.0 && value < 999.5 {
        return format!("{value:.0} ns");
    }
    if value >= 1e13 {
        return format!("{:.2e} s", value / 1e9);
    }
    scaled(value, &TIMES)
}

/// As [`nanos`], for ticks: `5 ms`, not `5.00 ms`.
pub fn nanos_tick(value: f64) -> String {
    tick(value, &TIMES)
}

/// A number for ticks: `20 k`, `1.5 M`.
pub fn short_tick(value: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1.0, ""), (1e3, "k"), (MILLION, "M"), (1e9, "G")];
    tick(value, &UNITS)
}

/// Below a million as it is: `1,024`; above as [`short_tick`].
pub fn exact_tick(value: f64) -> String {
    match value.fract() == 0.0 && (1e3..MILLION).contains(&value) {
        true => count(value as u64),
        false => short_tick(value),
    }
}

fn tick(value: f64, units: &[(f64, &str)]) -> String {
    let (unit, name) = unit(value.abs(), units);
    let shown = value / unit;
    let digits = match shown.abs() {
        s if s >= 1e6 || (s > 0.0 && s < 1e-4) => format!("{shown:e}"),
        s if s >= 1.0 || s == 0.0 => trimmed(format!("{shown:.2}")),
        _ => trimmed(format!("{shown:.5}")),
    };
    format!("{digits} {name}").trim_end().to_owned()
}

fn trimmed(digits: String) -> String {
    if !digits.contains('.') {
        return digits;
    }
    digits
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}

/// Memory and disk, in powers of two: `1.50 MiB`.
pub fn bytes(value: f64) -> String {
    const KIB: f64 = 1024.0;
    const UNITS: [(f64, &str); 4] = [
        (1.0, "B"),
        (KIB, "KiB"),
        (KIB * KIB, "MiB"),
        (KIB * KIB * KIB, "GiB"),
    ];
    scaled(value, &UNITS)
}

/// A share of 0 to 1: `41.0 %`.
pub fn percent(share: f64) -> String {
    if share.is_finite() {
        format!("{:.1} %", share * 100.0)
    } else {
        NONE.to_owned()
    }
}

/// A share by its nines: 2 is `99 %`, 3.5 is `99.97 %`.
pub fn nines_tick(nines: f64) -> String {
    let percent = (1.0 - 10f64.powf(-nines)) * 100.0;
    let digits = (nines.ceil().clamp(2.0, 8.0) - 2.0) as usize;
    format!("{percent:.digits$} %")
}

/// Milliseconds since 1970 as `2026-11-21 16:58:23 UTC`.
pub fn utc(ms: i64) -> String {
    let text = crate::base::time::utc(ms);
    let whole = text
        .split_once('.')
        .map_or(text.as_str(), |(whole, _)| whole);
    format!("{whole} UTC")
}

/// Without what would break a line or command a terminal.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// For text and attributes of HTML and SVG.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no way to write these.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// At most `max` characters; what is cut is an ellipsis.
pub fn fitted(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(max.saturating_sub(1)).collect();
    format!("{kept}…")
}
