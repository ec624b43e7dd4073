//! Values that peers write in more than one way.

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// An integer as a number, as `6.0` or as a string.
pub(super) fn int64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    int64_of(&value).ok_or_else(|| de::Error::custom("expected a 64-bit integer"))
}

/// A list of such integers, each within `int32`.
pub(super) fn int32_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
    let values = Vec::<Value>::deserialize(deserializer)?;
    let numbers = values.iter().map(|value| int64_of(value)?.try_into().ok());
    let numbers: Option<Vec<i32>> = numbers.collect();
    numbers.ok_or_else(|| de::Error::custom("expected 32-bit integers"))
}

fn int64_of(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The integer that a double with no fraction stands for, within the range it states exactly.
fn whole(value: f64) -> Option<i64> {
    const EXACT: f64 = (1i64 << 53) as f64;
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}

/// Declares an enum that is written by its Java name and read by name, in any letter case, or by
/// ordinal. An unknown value reads as `None`, as in fastjson2.
macro_rules! java_enum {
    ($(#[$meta:meta])* enum $name:ident {
        $($(#[$note:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
        pub enum $name {
            $($(#[$note])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            const ALL: &[(Self, &str)] = &[$((Self::$variant, $text),)+];

            pub fn name(self) -> &'static str {
                Self::ALL[self as usize].1
            }

            pub fn from_name(name: &str) -> Option<Self> {
                let known = Self::ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
                known.map(|(value, _)| *value)
            }

            /// For `deserialize_with`.
            pub(super) fn optional<'de, D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Option<Self>, D::Error> {
                use serde::Deserialize;
                let value = serde_json::Value::deserialize(deserializer)?;
                let ordinal = value.as_u64().and_then(|at| usize::try_from(at).ok());
                let by_ordinal = ordinal.and_then(|at| Self::ALL.get(at)).map(|(value, _)| *value);
                Ok(by_ordinal.or_else(|| Self::from_name(value.as_str()?)))
            }
        }
    };
}
pub(super) use java_enum;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Option<i64>) {
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(int64_of(&value), expected, "{json}");
    }

    #[test]
    fn integers() {
        check("6", Some(6));
        check("-6.0", Some(-6));
        check("\"6\"", Some(6));
        check("\"1700000000000000000\"", Some(1_700_000_000_000_000_000));
        check("6.5", None);
        check("18446744073709551615", None);
        check("1e300", None);
        check("\"x\"", None);
        check("true", None);
    }
}
