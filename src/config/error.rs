//! What is wrong with a configuration, and where it stands.

use std::fmt;

use super::{foreign, keys};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said it.
    Default,
    /// A line of the configuration file, counted from 1.
    File { path: String, line: usize },
    /// An environment variable.
    Environment(String),
    /// A flag such as `--listen`.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A configuration that cannot be used. Prints as one line: place, key, what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the wrong text stands.
    pub origin: Origin,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No key has this name.
    Unknown { key: String },
    /// The value has not the form or not the range of its key.
    Value {
        key: String,
        expected: String,
        found: String,
    },
    /// RocketMQ has this, we do not yet, and leaving it out would change what users rely on.
    NotYet {
        key: String,
        found: String,
        missing: &'static str,
    },
    /// Two values do not go together; the text says which and what to do.
    Conflict { key: &'static str, why: String },
    /// The file is not TOML, or a line is not `key=value`.
    Syntax(String),
    /// The file cannot be read.
    Unreadable(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match &self.problem {
            Problem::Unknown { key } => match nearest(key) {
                Some(near) => write!(f, "unknown key {key}; the nearest known key is {near}"),
                None => write!(
                    f,
                    "unknown key {key}; `orbitmq config explain` lists all keys"
                ),
            },
            Problem::Value {
                key,
                expected,
                found,
            } => {
                write!(f, "{key}: expected {expected}, found `{found}`")
            }
            Problem::NotYet {
                key,
                found,
                missing,
            } => {
                write!(
                    f,
                    "{key}={found}: {missing}; remove the key to go on without"
                )
            }
            Problem::Conflict { key, why } => write!(f, "{key}: {why}"),
            Problem::Syntax(why) => f.write_str(why),
            Problem::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The known key with the fewest edits to `name`, if at least half of the name is right.
pub fn nearest(name: &str) -> Option<&'static str> {
    let known = keys::KEYS
        .iter()
        .map(|key| key.name)
        .chain(foreign::MAPPED.iter().copied());
    let (distance, key) = known.map(|key| (edits(name, key), key)).min()?;
    (distance <= key.len() / 2).then_some(key)
}

/// Levenshtein distance of two names, letter case ignored.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<u8> = right
        .bytes()
        .map(|byte| byte.to_ascii_lowercase())
        .collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, byte) in left
        .bytes()
        .map(|byte| byte.to_ascii_lowercase())
        .enumerate()
    {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(byte != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (left, right, distance) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("Listen", "listen", 0),
            ("ab", "ba", 2),
        ] {
            assert_eq!(edits(left, right), distance, "{left} {right}");
        }
    }

    #[test]
    fn the_nearest_key_is_named_only_if_it_is_near() {
        assert_eq!(nearest("flushDiskTyp"), Some("flushDiskType"));
        assert_eq!(nearest("brokername"), Some("brokerName"));
        assert_eq!(nearest("listenport"), Some("listenPort"));
        assert_eq!(nearest("xyz"), None);
    }
}
