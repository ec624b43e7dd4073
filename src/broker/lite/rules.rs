//! What topics and groups must be so that they go together, and what a group says about its
//! clients.
//!
//! Source: `LiteMetadataUtil`, `SubscriptionGroupAttributes`, `TopicAttributes`; spec page
//! delta-5.5 §3.

use crate::broker::control::attributes;
use crate::broker::topics::Topic;
use crate::remoting::body::group::GroupConfig;

/// Events of a client from which on others are better (`maxClientEventCount`).
const EVENTS_MAX: usize = 100;

/// What a group's configuration says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// A lite topic has one client of the group, the last that came (`lite.sub.model`).
    pub exclusive: bool,
    /// Its clients take every lite topic of the parent (`lite.sub.wildcard`).
    pub all: bool,
    /// A client with so many events gets no more while others have fewer
    /// (`lite.sub.client.max.event.cnt`).
    pub events_max: usize,
    /// The group begins at 0 again in what a client lost to another
    /// (`lite.sub.reset.offset.exclusive`), or does not want any more
    /// (`lite.sub.reset.offset.unsubscribe`).
    pub resets_excluded: bool,
    pub resets_removed: bool,
}

impl Rules {
    pub fn of(group: &GroupConfig) -> Rules {
        let value = |name: &str| group.attributes.get(name).map(String::as_str);
        let is_true = |name| value(name).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let events_max = value("lite.sub.client.max.event.cnt");
        Rules {
            exclusive: value("lite.sub.model") == Some("Exclusive"),
            all: value("lite.sub.wildcard").is_some(),
            events_max: events_max
                .and_then(|text| text.parse().ok())
                .unwrap_or(EVENTS_MAX),
            resets_excluded: is_true("lite.sub.reset.offset.exclusive"),
            resets_removed: is_true("lite.sub.reset.offset.unsubscribe"),
        }
    }
}

/// The topic whose lite topics a group consumes; only such groups consume any.
pub fn bound_to(group: &GroupConfig) -> Option<&str> {
    group.attributes.get("lite.bind.topic").map(String::as_str)
}

/// Whether a topic is there to have lite topics.
pub fn is_parent(topic: &Topic) -> bool {
    let kind = topic.config.attributes.get(attributes::MESSAGE_TYPE);
    kind.is_some_and(|kind| kind == "LITE")
}

/// For how many minutes after its last message a lite topic is kept; -1 for ever.
pub fn expiration_minutes(topic: &Topic) -> i64 {
    let text = topic.config.attributes.get("lite.topic.expiration");
    let minutes = text.and_then(|text| text.parse().ok());
    minutes.filter(|_| is_parent(topic)).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ShardId;
    use crate::broker::topics::config_with;

    fn group(attributes: &[(&str, &str)]) -> GroupConfig {
        let attributes = attributes.iter();
        let attributes = attributes.map(|(key, value)| (key.to_string(), value.to_string()));
        GroupConfig {
            attributes: attributes.collect(),
            ..GroupConfig::default()
        }
    }

    #[test]
    fn groups() {
        let plain = Rules {
            exclusive: false,
            all: false,
            events_max: 100,
            resets_excluded: false,
            resets_removed: false,
        };
        assert_eq!(Rules::of(&group(&[])), plain);
        assert_eq!(bound_to(&group(&[])), None);
        let full = group(&[
            ("lite.bind.topic", "p"),
            ("lite.sub.model", "Exclusive"),
            ("lite.sub.wildcard", "no matter what"),
            ("lite.sub.client.max.event.cnt", "10"),
            ("lite.sub.reset.offset.exclusive", "TRUE"),
            ("lite.sub.reset.offset.unsubscribe", "true"),
        ]);
        let rules = Rules {
            exclusive: true,
            all: true,
            events_max: 10,
            resets_excluded: true,
            resets_removed: true,
        };
        assert_eq!(Rules::of(&full), rules);
        assert_eq!(bound_to(&full), Some("p"));
    }

    #[test]
    fn parents() {
        let topic = |attributes: &[(&str, &str)]| {
            let mut config = config_with(1, 6);
            config.attributes = group(attributes).attributes;
            Topic {
                name: "p".into(),
                id: 1,
                config,
                owners: vec![ShardId(0)],
            }
        };
        let days = ("lite.topic.expiration", "2880");
        let check = |attributes: &[_], expected| {
            let topic = topic(attributes);
            assert_eq!((is_parent(&topic), expiration_minutes(&topic)), expected);
        };
        check(&[], (false, -1));
        check(&[days], (false, -1));
        check(&[("message.type", "NORMAL"), days], (false, -1));
        check(&[("message.type", "LITE")], (true, -1));
        check(&[("message.type", "LITE"), days], (true, 2880));
    }
}
