//! Attributes of topics and groups: which exist, what values they take, and how a request changes
//! them.
//!
//! A request carries changes, not values: `+key` sets, `-key` removes. Refusals are the reference's
//! texts, answered with code 1. Source: `AttributeUtil`, `AttributeParser`, `TopicAttributes`,
//! `SubscriptionGroupAttributes`; spec pages semantics §1, delta-5.5 §3.

use std::collections::{BTreeMap, BTreeSet};

/// Attributes by name.
pub type Attributes = BTreeMap<String, String>;

/// Longest value; the reference has no limit, its longest meaningful value is a topic name.
pub const VALUE_BYTES_MAX: usize = 1024;

/// One attribute a topic or group may have.
pub struct Attribute {
    name: &'static str,
    /// Whether it can be set, changed or removed once the topic exists.
    changeable: bool,
    values: Values,
}

enum Values {
    OneOf(&'static [&'static str]),
    /// There is no compaction: to take the word for it would lose what the topic is to keep.
    Cleanup,
    Range(i64, i64),
    Bool,
    Text,
}

const fn attribute(name: &'static str, changeable: bool, values: Values) -> Attribute {
    Attribute {
        name,
        changeable,
        values,
    }
}

/// Attributes of topics.
pub const OF_TOPICS: [Attribute; 6] = [
    attribute("queue.type", false, Values::OneOf(&["BatchCQ", "SimpleCQ"])),
    attribute("cleanup.policy", false, Values::Cleanup),
    attribute(
        MESSAGE_TYPE,
        true,
        Values::OneOf(&[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "PRIORITY",
            "LITE",
            "MIXED",
        ]),
    ),
    attribute("reserve.time", true, Values::Range(-1, i64::MAX)),
    attribute("lite.topic.expiration", true, Values::Range(-1, 43_200)),
    attribute(DEDUP_WINDOW, true, Values::Range(1_000, 3_600_000)),
];

/// Ours: a unique key is stored once within so many milliseconds.
pub const DEDUP_WINDOW: &str = "dedup.window";

/// The attribute that says which kind of messages a topic is for.
pub const MESSAGE_TYPE: &str = "message.type";

/// In so many of a hundred pops a group takes the most urgent message first.
pub const PRIORITY_FACTOR: &str = "priority.factor";

/// Attributes of subscription groups.
pub const OF_GROUPS: [Attribute; 8] = [
    attribute(PRIORITY_FACTOR, true, Values::Range(0, 100)),
    attribute("lite.bind.topic", true, Values::Text),
    attribute(
        "lite.sub.model",
        true,
        Values::OneOf(&["Shared", "Exclusive"]),
    ),
    attribute("lite.sub.reset.offset.exclusive", true, Values::Bool),
    attribute("lite.sub.reset.offset.unsubscribe", true, Values::Bool),
    attribute("lite.sub.client.quota", true, Values::Range(-1, i64::MAX)),
    attribute(
        "lite.sub.client.max.event.cnt",
        true,
        Values::Range(10, i64::MAX),
    ),
    attribute("lite.sub.wildcard", true, Values::Text),
];

/// Reads the text form of changes, `+key1=value1,-key2`.
pub fn parse_changes(text: &str) -> Result<Attributes, String> {
    let mut changes = Attributes::new();
    if text.is_empty() {
        return Ok(changes);
    }
    for change in text.split(',') {
        let (key, value) = match change.split_once('=') {
            Some((key, _)) if !key.contains('+') => {
                return Err(format!("add/alter attribute format is wrong: {key}"));
            }
            Some((_, "")) => return Err(format!("the attribute has no value: {change}")),
            // What follows a second `=` is dropped, as by the reference.
            Some((key, value)) => (key, value.split('=').next().unwrap_or(value)),
            None if !change.contains('-') => {
                return Err(format!("delete attribute format is wrong: {change}"));
            }
            None => (change, ""),
        };
        if changes.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("key duplication: {key}"));
        }
    }
    Ok(changes)
}

/// Applies `changes` to the attributes of an existing topic or group (`current`), or of one that
/// is being created (`None`). All or nothing.
pub fn alter(
    known: &[Attribute],
    current: Option<&Attributes>,
    changes: &Attributes,
) -> Result<Attributes, String> {
    let mut result = current.cloned().unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (change, value) in changes {
        let mut letters = change.chars();
        let sign = letters.next();
        let key = letters.as_str();
        if key.is_empty() || key.contains(['+', '-']) {
            return Err("kv string format wrong.".to_owned());
        }
        if !seen.insert(key) {
            return Err(format!("alter duplication key. key: {key}"));
        }
        let removes = match (sign, current) {
            (Some('+'), _) => false,
            (_, None) => {
                return Err(format!(
                    "only add attribute is supported while creating topic. key: {key}"
                ));
            }
            (Some('-'), Some(current)) if !current.contains_key(key) => {
                return Err(format!("attempt to delete a nonexistent key: {key}"));
            }
            (Some('-'), Some(_)) => true,
            _ => return Err(format!("wrong format key: {key}")),
        };
        let attribute = known.iter().find(|attribute| attribute.name == key);
        let attribute = attribute.ok_or_else(|| format!("unsupported key: {key}"))?;
        if current.is_some() && !attribute.changeable {
            return Err(format!(
                "attempt to update an unchangeable attribute. key: {key}"
            ));
        }
        if removes {
            result.remove(key);
        } else {
            attribute.values.check(value)?;
            result.insert(key.to_owned(), value.clone());
        }
    }
    Ok(result)
}

impl Values {
    fn check(&self, value: &str) -> Result<(), String> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!(
                "the attribute value has {} bytes, the limit is {VALUE_BYTES_MAX}",
                value.len()
            ));
        }
        match self {
            Values::Cleanup if value == "COMPACTION" => Err(
                "cleanup.policy=COMPACTION is not supported: nothing here keeps the newest message \
                 of each key. Create the topic without it"
                    .to_owned(),
            ),
            Values::Cleanup => Values::OneOf(&["DELETE"]).check(value),
            Values::OneOf(values) if !values.contains(&value) => {
                Err(format!("value is not in set: [{}]", values.join(", ")))
            }
            Values::Range(min, max) => match value.parse::<i64>() {
                Err(_) => Err(format!("For input string: \"{value}\"")),
                Ok(number) if number < *min || number > *max => {
                    Err(format!("value is not in range({min}, {max})"))
                }
                Ok(_) => Ok(()),
            },
            Values::Bool
                if !value.eq_ignore_ascii_case("true") && !value.eq_ignore_ascii_case("false") =>
            {
                Err("boolean attribute format is wrong.".to_owned())
            }
            Values::OneOf(_) | Values::Bool | Values::Text => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `current` as `k=v,k=v` (or "new"), changes in request form; gives the same form back.
    fn check(known: &[Attribute], current: &str, changes: &str, expected: Result<&str, &str>) {
        let before = (current != "new").then(|| {
            let pairs = current.split(',').filter_map(|pair| pair.split_once('='));
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        });
        let result = parse_changes(changes)
            .and_then(|changes| alter(known, before.as_ref(), &changes))
            .map(|after: Attributes| {
                let pairs: Vec<_> = after
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                pairs.join(",")
            });
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(result, expected, "{current} {changes}");
    }

    #[test]
    fn topics() {
        let check = |current, changes, expected| check(&OF_TOPICS, current, changes, expected);
        check("new", "", Ok(""));
        check("new", "+message.type=FIFO", Ok("message.type=FIFO"));
        check(
            "new",
            "+queue.type=BatchCQ,+reserve.time=-1",
            Ok("queue.type=BatchCQ,reserve.time=-1"),
        );
        check(
            "new",
            "-message.type",
            Err("only add attribute is supported while creating topic. key: message.type"),
        );
        check(
            "new",
            "+message.type=fifo",
            Err(
                "value is not in set: [UNSPECIFIED, NORMAL, FIFO, DELAY, TRANSACTION, \
                 PRIORITY, LITE, MIXED]",
            ),
        );
        check("new", "+cleanup.policy=DELETE", Ok("cleanup.policy=DELETE"));
        check(
            "new",
            "+cleanup.policy=COMPACTION",
            Err(
                "cleanup.policy=COMPACTION is not supported: nothing here keeps the newest message \
                 of each key. Create the topic without it",
            ),
        );
        check(
            "new",
            "+cleanup.policy=compaction",
            Err("value is not in set: [DELETE]"),
        );
        check("new", "+x=1", Err("unsupported key: x"));
        check(
            "new",
            "+lite.topic.expiration=43201",
            Err("value is not in range(-1, 43200)"),
        );
        check("new", "+reserve.time=a", Err("For input string: \"a\""));
    }

    #[test]
    fn existing_topics() {
        let check = |current, changes, expected| check(&OF_TOPICS, current, changes, expected);
        check("message.type=FIFO", "", Ok("message.type=FIFO"));
        check(
            "message.type=FIFO",
            "+message.type=DELAY",
            Ok("message.type=DELAY"),
        );
        check("message.type=FIFO", "-message.type", Ok(""));
        check(
            "",
            "-message.type",
            Err("attempt to delete a nonexistent key: message.type"),
        );
        check(
            "",
            "+queue.type=SimpleCQ",
            Err("attempt to update an unchangeable attribute. key: queue.type"),
        );
        check(
            "queue.type=SimpleCQ",
            "-queue.type",
            Err("attempt to update an unchangeable attribute. key: queue.type"),
        );
        check(
            "",
            "message.type=FIFO",
            Err("add/alter attribute format is wrong: message.type"),
        );
        check(
            "",
            "message.type",
            Err("delete attribute format is wrong: message.type"),
        );
        check(
            "",
            "+message.type=",
            Err("the attribute has no value: +message.type="),
        );
        check("", "+message.type=FIFO=x", Ok("message.type=FIFO"));
        check("", "+a+b=1", Err("kv string format wrong."));
        check(
            "",
            "+message.type=FIFO,+message.type=DELAY",
            Err("key duplication: +message.type"),
        );
        check(
            "message.type=FIFO",
            "+message.type=DELAY,-message.type",
            Err("alter duplication key. key: message.type"),
        );
    }

    #[test]
    fn groups() {
        let check = |current, changes, expected| check(&OF_GROUPS, current, changes, expected);
        check(
            "new",
            "+lite.bind.topic=p,+lite.sub.model=Exclusive",
            Ok("lite.bind.topic=p,lite.sub.model=Exclusive"),
        );
        check(
            "new",
            "+lite.sub.reset.offset.exclusive=TRUE",
            Ok("lite.sub.reset.offset.exclusive=TRUE"),
        );
        check(
            "new",
            "+lite.sub.reset.offset.exclusive=1",
            Err("boolean attribute format is wrong."),
        );
        check(
            "new",
            "+priority.factor=101",
            Err("value is not in range(0, 100)"),
        );
        let long = format!("+lite.bind.topic={}", "x".repeat(1025));
        check(
            "new",
            &long,
            Err("the attribute value has 1025 bytes, the limit is 1024"),
        );
    }
}
