//! Values of a SQL92 expression and how two of them compare.
//!
//! Properties are strings; a number or boolean beside one has it converted, and what cannot be
//! converted is an error: the message does not match. Source: `ComparisonExpression.__compare`,
//! with string conversion on, as `SelectorParser` sets it.

use std::cmp::Ordering;

/// What a part of an expression comes to.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'a str),
}

/// Where the reference throws: the message is skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed;

impl Value<'_> {
    /// A number written in an expression; `None` if it is beyond 64 bits.
    pub fn integer(digits: &str) -> Option<Value<'static>> {
        let long: i64 = digits.parse().ok()?;
        Some(i32::try_from(long).map_or(Value::Long(long), Value::Int))
    }

    pub fn is_number(self) -> bool {
        matches!(self, Value::Int(_) | Value::Long(_) | Value::Double(_))
    }

    pub fn is_null(self) -> bool {
        matches!(self, Value::Null)
    }

    /// The number with the other sign; null for anything else.
    pub fn negated(self) -> Self {
        match self {
            Value::Int(number) => Value::Int(number.wrapping_neg()),
            Value::Long(number) => Value::Long(number.wrapping_neg()),
            Value::Double(number) => Value::Double(-number),
            Value::Null | Value::Bool(_) | Value::Text(_) => Value::Null,
        }
    }

    /// `=`: null if only the left side is null.
    pub fn equals(self, other: Value<'_>) -> Result<Option<bool>, Failed> {
        match (self, other) {
            (Value::Null, Value::Null) => Ok(Some(true)),
            (Value::Null, _) => Ok(None),
            (_, Value::Null) => Ok(Some(false)),
            (Value::Text(left), Value::Text(right)) => Ok(Some(left == right)),
            _ => compare(self, other).map(|order| Some(order.is_eq())),
        }
    }

    /// For `<`, `<=`, `>`, `>=`: `None` if one is null. Two strings are compared as numbers.
    pub fn order(self, other: Value<'_>) -> Result<Option<Ordering>, Failed> {
        match (self, other) {
            (Value::Null, _) | (_, Value::Null) => Ok(None),
            (Value::Text(left), Value::Text(right)) => {
                let (left, right) = (double(left)?, double(right)?);
                Ok(Some(compare_doubles(left, right)))
            }
            _ => compare(self, other).map(Some),
        }
    }
}

/// Neither is null, and not both are strings. What has no order counts as less.
fn compare(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Failed> {
    use Value::{Bool, Double, Int, Long, Text};
    Ok(match (left, right) {
        (Bool(left), Bool(right)) => left.cmp(&right),
        // The reference casts the wrong side and throws.
        (Bool(_), Text(_)) => return Err(Failed),
        (Text(left), Bool(right)) => left.eq_ignore_ascii_case("true").cmp(&right),
        (Int(left), Text(right)) => left.cmp(&int(right)?),
        (Text(left), Int(right)) => int(left)?.cmp(&right),
        (Long(left), Text(right)) => left.cmp(&long(right)?),
        (Text(left), Long(right)) => long(left)?.cmp(&right),
        (Double(left), Text(right)) => compare_doubles(left, double(right)?),
        (Text(left), Double(right)) => compare_doubles(double(left)?, right),
        _ => match (whole(left), whole(right)) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => match (real(left), real(right)) {
                (Some(left), Some(right)) => compare_doubles(left, right),
                _ => Ordering::Less,
            },
        },
    })
}

fn whole(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Int(number) => Some(i64::from(number)),
        Value::Long(number) => Some(number),
        _ => None,
    }
}

fn real(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Double(number) => Some(number),
        _ => whole(value).map(|number| number as f64),
    }
}

/// `Double.compareTo`: minus zero is less than zero, "not a number" more than everything.
fn compare_doubles(left: f64, right: f64) -> Ordering {
    match left.partial_cmp(&right) {
        Some(Ordering::Equal) => right.is_sign_negative().cmp(&left.is_sign_negative()),
        Some(order) => order,
        None => left.is_nan().cmp(&right.is_nan()),
    }
}

/// `Integer.valueOf`.
fn int(text: &str) -> Result<i32, Failed> {
    text.parse().map_err(|_| Failed)
}

/// `Long.valueOf`.
fn long(text: &str) -> Result<i64, Failed> {
    text.parse().map_err(|_| Failed)
}

/// `Double.valueOf`, but for hexadecimal digits.
pub fn double(text: &str) -> Result<f64, Failed> {
    let trimmed = text.trim_matches(|c| c <= ' ');
    let (negative, digits) = match trimmed.as_bytes() {
        [b'-', ..] => (true, &trimmed[1..]),
        [b'+', ..] => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let number = match digits {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        _ => {
            let plain = digits.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(digits);
            // Rust also reads words and signs here.
            if !plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
                return Err(Failed);
            }
            plain.parse().map_err(|_| Failed)?
        }
    };
    Ok(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_as_java_reads_them() {
        for (text, expected) in [
            ("1", Some(1.0)),
            (" 1.5 ", Some(1.5)),
            ("-.5", Some(-0.5)),
            ("5.", Some(5.0)),
            ("+2e3", Some(2000.0)),
            ("7d", Some(7.0)),
            ("7F", Some(7.0)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("1e999", Some(f64::INFINITY)),
            ("inf", None),
            ("nan", None),
            ("", None),
            (".", None),
            ("+-1", None),
            ("1 2", None),
            ("1dd", None),
            ("0x10", None),
        ] {
            assert_eq!(double(text).ok(), expected, "{text}");
        }
        assert!(double("NaN").unwrap().is_nan());
    }

    #[test]
    fn doubles_have_a_total_order() {
        let ordered = [
            f64::NEG_INFINITY,
            -1.0,
            -0.0,
            0.0,
            1.0,
            f64::INFINITY,
            f64::NAN,
        ];
        for (at, left) in ordered.iter().enumerate() {
            for (other, right) in ordered.iter().enumerate() {
                assert_eq!(
                    compare_doubles(*left, *right),
                    at.cmp(&other),
                    "{left} {right}"
                );
            }
        }
    }

    #[test]
    fn different_kinds() {
        use Value::{Bool, Double, Int, Long, Null, Text};
        for (left, right, expected) in [
            (Text("5"), Int(5), Ok(Some(true))),
            (Int(5), Text("+5"), Ok(Some(true))),
            (Text("5.0"), Int(5), Err(Failed)),
            (Text("5.0"), Double(5.0), Ok(Some(true))),
            (Text("9999999999"), Int(5), Err(Failed)),
            (Text("9999999999"), Long(9_999_999_999), Ok(Some(true))),
            (Int(1), Double(1.0), Ok(Some(true))),
            (Long(1), Int(1), Ok(Some(true))),
            (Text("TRUE"), Bool(true), Ok(Some(true))),
            (Text("yes"), Bool(false), Ok(Some(true))),
            (Bool(true), Text("true"), Err(Failed)),
            (Bool(true), Int(1), Ok(Some(false))),
            (Int(1), Bool(true), Ok(Some(false))),
            (Text("a"), Text("a"), Ok(Some(true))),
            (Null, Text("a"), Ok(None)),
            (Text("a"), Null, Ok(Some(false))),
            (Null, Null, Ok(Some(true))),
        ] {
            assert_eq!(left.equals(right), expected, "{left:?} = {right:?}");
        }
        assert_eq!(Text("10").order(Text("9")), Ok(Some(Ordering::Greater)));
        assert_eq!(Text("a").order(Text("9")), Err(Failed));
        assert_eq!(Null.order(Text("x")), Ok(None));
        assert_eq!(Bool(true).order(Int(0)), Ok(Some(Ordering::Less)));
    }
}
