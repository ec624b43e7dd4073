//! Forms of values: what a text must look like, and its one canonical spelling.
//!
//! A canonical text always parses into the field's type: sizes are plain bytes, flags are `true`
//! or `false`, lists have no spaces. Units are those of the key; a number never carries one,
//! except sizes, which also take KiB, MiB and GiB.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Longest broker, cluster or region name; the first two are topic names too
/// (`TopicValidator`: 127 characters).
const NAME_BYTES_MAX: usize = 127;
/// Most levels of `messageDelayLevel`.
const DELAY_LEVELS_MAX: usize = 64;

/// The form of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `true` or `false`.
    Flag,
    /// A whole number in the key's unit, both ends included.
    Number {
        min: u64,
        max: u64,
        unit: &'static str,
    },
    /// Bytes, plain or with KiB, MiB or GiB; a multiple of `step`.
    Bytes { min: u64, max: u64, step: u64 },
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A name clients may see in queues and topics.
    Name,
    /// Any text without control characters, not empty.
    Text,
    /// An IP address.
    Ip,
    /// `IP:port`; port 0 lets the system choose.
    Socket,
    /// `host:port` separated by `;`; may be empty.
    Addresses,
    /// A count of cores, or a list of core numbers and ranges.
    Cores,
    /// Delays such as `10s 1m 2h`.
    DelayLevels,
}

impl Shape {
    /// The canonical spelling of `text`, or nothing if it has not this form.
    pub fn canonical(&self, text: &str) -> Option<String> {
        let text = text.trim();
        match *self {
            Shape::Flag => flag(text).map(|flag| flag.to_string()),
            Shape::Number { min, max, .. } => {
                let number = text.parse::<u64>().ok()?;
                (min..=max).contains(&number).then(|| number.to_string())
            }
            Shape::Bytes { min, max, step } => {
                let bytes = bytes(text)?;
                let fits = (min..=max).contains(&bytes) && bytes.is_multiple_of(step);
                fits.then(|| bytes.to_string())
            }
            Shape::OneOf(words) => words.contains(&text).then(|| text.to_owned()),
            Shape::Name => is_name(text).then(|| text.to_owned()),
            Shape::Text => is_plain(text).then(|| text.to_owned()),
            Shape::Ip => text.parse::<IpAddr>().ok().map(|ip| ip.to_string()),
            Shape::Socket => text
                .parse::<SocketAddr>()
                .ok()
                .map(|socket| socket.to_string()),
            Shape::Addresses => text
                .parse::<AddressList>()
                .ok()
                .map(|list| list.to_string()),
            Shape::Cores => is_core_text(text).then(|| text.to_owned()),
            Shape::DelayLevels => delay_levels(text),
        }
    }

    /// The unit of the value, empty where there is none.
    pub fn unit(&self) -> &'static str {
        match self {
            Shape::Number { unit, .. } => unit,
            Shape::Bytes { .. } => "bytes",
            _ => "",
        }
    }
}

impl fmt::Display for Shape {
    /// What is expected, as the end of the sentence "expected …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Shape::Flag => f.write_str("true or false"),
            Shape::Number { min, max, .. } if min == max => write!(f, "{min}"),
            Shape::Number { min, max, unit: "" } => write!(f, "a number from {min} to {max}"),
            Shape::Number { min, max, unit } => write!(f, "a number from {min} to {max} ({unit})"),
            Shape::Bytes { min, max, step } => {
                write!(f, "a size from {} to {}", size(min), size(max))?;
                if step > 1 {
                    write!(f, ", a multiple of {}", size(step))
                } else {
                    Ok(())
                }
            }
            Shape::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Shape::Name => write!(
                f,
                "a name of 1 to {NAME_BYTES_MAX} letters, digits, `_`, `-`, `.`, `%` or `|`"
            ),
            Shape::Text => f.write_str("a text on one line"),
            Shape::Ip => f.write_str("an IP address"),
            Shape::Socket => f.write_str("an IP address and a port such as 127.0.0.1:10911"),
            Shape::Addresses => f.write_str("host:port, several separated by `;`"),
            Shape::Cores => f.write_str("a count (2), a list (0,2) or a range (1-3) of cores"),
            Shape::DelayLevels => write!(
                f,
                "at most {DELAY_LEVELS_MAX} delays such as `10s 1m 2h 1d`, separated by spaces"
            ),
        }
    }
}

/// Bytes in the largest unit that divides them, for people.
pub(super) fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// RocketMQ reads flags with `Boolean.parseBoolean`: any case, but here nothing else is false.
fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn bytes(text: &str) -> Option<u64> {
    for (unit, shift) in [("KiB", 10), ("MiB", 20), ("GiB", 30)] {
        if let Some(number) = text.strip_suffix(unit) {
            return number
                .trim_end()
                .parse::<u64>()
                .ok()?
                .checked_mul(1 << shift);
        }
    }
    text.parse().ok()
}

pub(super) fn is_name(text: &str) -> bool {
    // `__syslo__` is how clients tell the mock broker of a static topic (`MixAll`).
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.%|".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with("__syslo__")
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn delay_levels(text: &str) -> Option<String> {
    let levels: Vec<&str> = text.split_whitespace().collect();
    let valid = |level: &&str| {
        let digits = level.strip_suffix(['s', 'm', 'h', 'd']);
        digits
            .and_then(|digits| digits.parse::<u32>().ok())
            .is_some_and(|number| number > 0)
    };
    let fits = (1..=DELAY_LEVELS_MAX).contains(&levels.len()) && levels.iter().all(valid);
    fits.then(|| levels.join(" "))
}

/// Whether the text has the form of `cores`; which cores exist is the host's matter.
fn is_core_text(text: &str) -> bool {
    match text.parse::<usize>() {
        Ok(count) => count > 0,
        Err(_) => text.parse::<CoreList>().is_ok(),
    }
}

/// Addresses as `host:port`, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressList(pub Vec<String>);

impl FromStr for AddressList {
    type Err = ();

    fn from_str(text: &str) -> Result<AddressList, ()> {
        let mut addresses = Vec::new();
        for address in text
            .split(';')
            .map(str::trim)
            .filter(|address| !address.is_empty())
        {
            let (host, port) = address.rsplit_once(':').ok_or(())?;
            let port: u16 = port.parse().map_err(|_| ())?;
            if port == 0 || host.is_empty() || !is_plain(host) || host.contains(' ') {
                return Err(());
            }
            addresses.push(address.to_owned());
        }
        Ok(AddressList(addresses))
    }
}

impl fmt::Display for AddressList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(";"))
    }
}

/// Core numbers as the system counts them, ascending, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

impl FromStr for CoreList {
    type Err = ();

    /// Reads a list with ranges; a bare number is one core here, never a count.
    fn from_str(text: &str) -> Result<CoreList, ()> {
        /// No machine has more; keeps a mistyped range from filling memory.
        const CORE_MAX: usize = 4096;
        let mut cores = Vec::new();
        for item in text.split(',').map(str::trim) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let first: usize = first.parse().map_err(|_| ())?;
            let last: usize = last.parse().map_err(|_| ())?;
            if first > last || last > CORE_MAX {
                return Err(());
            }
            cores.extend(first..=last);
        }
        cores.sort_unstable();
        cores.dedup();
        Ok(CoreList(cores))
    }
}

impl fmt::Display for CoreList {
    /// One core is a range, for a bare number would be read as a count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [core] = self.0[..] {
            return write!(f, "{core}-{core}");
        }
        let cores: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&cores.join(","))
    }
}

/// When a send is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushDiskType {
    /// After the write completed.
    Async,
    /// After the sync that covers it returned.
    Sync,
}

impl FromStr for FlushDiskType {
    type Err = ();

    fn from_str(text: &str) -> Result<FlushDiskType, ()> {
        match text {
            "ASYNC_FLUSH" => Ok(FlushDiskType::Async),
            "SYNC_FLUSH" => Ok(FlushDiskType::Sync),
            _ => Err(()),
        }
    }
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<LogFormat, ()> {
        match text {
            "human" => Ok(LogFormat::Human),
            "json" => Ok(LogFormat::Json),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: Shape, text: &str, canonical: Option<&str>) {
        assert_eq!(
            shape.canonical(text).as_deref(),
            canonical,
            "{shape:?} {text:?}"
        );
    }

    #[test]
    fn values_have_one_spelling() {
        let size = Shape::Bytes {
            min: 4096,
            max: 1 << 40,
            step: 4096,
        };
        check(size, "64KiB", Some("65536"));
        check(size, "1 GiB", Some("1073741824"));
        check(size, "4096", Some("4096"));
        check(size, "4097", None);
        check(size, "64KB", None);
        check(size, "18446744073709551615GiB", None);
        check(Shape::Flag, "TRUE", Some("true"));
        check(Shape::Flag, "yes", None);
        check(
            Shape::Number {
                min: 1,
                max: 9,
                unit: "ms",
            },
            " 7 ",
            Some("7"),
        );
        check(
            Shape::Number {
                min: 1,
                max: 9,
                unit: "ms",
            },
            "10",
            None,
        );
        check(
            Shape::Number {
                min: 1,
                max: 9,
                unit: "ms",
            },
            "-1",
            None,
        );
        check(Shape::Name, "broker-a", Some("broker-a"));
        check(Shape::Name, "__syslo__x", None);
        check(Shape::Name, "", None);
        check(Shape::Socket, "[::1]:80", Some("[::1]:80"));
        check(Shape::Socket, "localhost:80", None);
        check(Shape::Addresses, "a:1; b:2;", Some("a:1;b:2"));
        check(Shape::Addresses, "a", None);
        check(Shape::Addresses, "a:0", None);
        check(Shape::Cores, "2", Some("2"));
        check(Shape::Cores, "0", None);
        check(Shape::Cores, "0,2-3", Some("0,2-3"));
        check(Shape::Cores, "3-1", None);
        check(Shape::Cores, "0-99999999999", None);
        check(Shape::DelayLevels, "1s  2m 3h 1d", Some("1s 2m 3h 1d"));
        check(Shape::DelayLevels, "1s 0m", None);
        check(Shape::DelayLevels, "1x", None);
        check(Shape::Text, "a\nb", None);
    }
}
