//! The text of `orbitmq config explain`, written from the table.

use std::fmt::Write;

use super::error::{ConfigError, Origin, Problem};
use super::foreign::{self, Foreign};
use super::keys::{self, KEYS, Key, Start};
use super::value::size;

/// Explains one key, or lists all.
///
/// # Errors
/// The key is neither ours nor one of RocketMQ's.
pub fn explain(name: Option<&str>) -> Result<String, ConfigError> {
    let Some(name) = name else {
        return Ok(list());
    };
    if let Some(key) = KEYS.iter().find(|key| key.name.eq_ignore_ascii_case(name)) {
        return Ok(detail(key));
    }
    match foreign::find(name) {
        Some(Foreign::Host) => Ok(format!(
            "{name}: RocketMQ's name for the host of `listen`\n"
        )),
        Some(Foreign::Port) => Ok(format!(
            "{name}: RocketMQ's name for the port of `listen`\n"
        )),
        Some(Foreign::Renamed(key)) => {
            let detail = keys::find(key).map(detail).unwrap_or_default();
            Ok(format!("{name}: an older name of {key}\n\n{detail}"))
        }
        Some(Foreign::NotNeeded(reason)) => Ok(format!(
            "{name}: a key of RocketMQ, not needed because {reason}\n"
        )),
        Some(Foreign::NotYet { harmless, missing }) => Ok(format!(
            "{name}: a key of RocketMQ; {missing}. Accepted without effect: {}\n",
            harmless.join(", ")
        )),
        None => {
            let problem = Problem::Unknown {
                key: name.to_owned(),
            };
            Err(ConfigError {
                origin: Origin::Flag("config explain"),
                problem,
            })
        }
    }
}

/// The default, in the largest unit that fits.
fn start(key: &Key) -> String {
    match (key.start, key.shape.unit()) {
        (Start::Derived(text), _) | (Start::Fixed(text), "") => text.to_owned(),
        (Start::Fixed(text), "bytes") => text.parse().map_or(text.to_owned(), size),
        (Start::Fixed(text), unit) => format!("{text} {unit}"),
    }
}

fn list() -> String {
    let mut text = String::new();
    let mut part = "";
    for key in KEYS {
        if key.part != part {
            part = key.part;
            let _ = writeln!(text, "{}{part}:", if text.is_empty() { "" } else { "\n" });
        }
        let _ = writeln!(text, "  {:36} {}", key.name, start(key));
    }
    text.push_str("\n`orbitmq config explain KEY` says what a key does and what it may be.\n");
    text
}

fn detail(key: &Key) -> String {
    let mut text = format!("{}\n  {}\n", key.name, key.effect);
    let _ = writeln!(text, "  default  {}", start(key));
    let _ = writeln!(text, "  value    {}", key.shape);
    if !key.shape.unit().is_empty() {
        let _ = writeln!(text, "  unit     {}", key.shape.unit());
    }
    let _ = writeln!(text, "  used by  {}", key.part);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_listed_and_explained() {
        let list = list();
        for key in KEYS {
            assert!(list.contains(key.name), "{}", key.name);
            let text = explain(Some(key.name)).unwrap();
            assert!(text.contains(key.effect), "{text}");
        }
    }

    #[test]
    fn names_of_rocketmq_are_explained_too() {
        for (name, part) in [
            ("listenPort", "port of `listen`"),
            ("sendMessageThreadPoolNums", "not needed because"),
            ("brokerRole", "ASYNC_MASTER"),
            (
                "mapedFileSizeCommitLog",
                "an older name of mappedFileSizeCommitLog",
            ),
        ] {
            let text = explain(Some(name)).unwrap();
            assert!(text.contains(part), "{text}");
        }
        let error = explain(Some("flushDisk")).unwrap_err().to_string();
        assert!(
            error.contains("nearest known key is flushDiskType"),
            "{error}"
        );
    }
}
