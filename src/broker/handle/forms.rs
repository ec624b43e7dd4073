//! Property lists that look like an earlier one: compared instead of taken apart, name by name.
//!
//! Of a producer's messages few properties change, and those that do mean nothing to the broker or
//! only to its indexes. A [`Form`] is a list that the long way took, cut at these values: all else
//! must be the same, byte by byte, and then the same becomes of it. Whatever does not fit goes the
//! long way, so the result is always the long way's.

use crate::base::lately::Lately;
use crate::broker::handle::traits::Traits;
use crate::message::names;
use crate::message::properties::{NAME_END, VALUE_END};
use crate::remoting::text::{Text, find_either};
use crate::store::dispatch::Dispatch;

/// Longer lists are not remembered; bytes.
const GIVEN_MAX: usize = 1024;

/// The forms of the lists seen lately.
#[derive(Default)]
pub(super) struct Forms(Lately<Form>);

struct Form {
    /// Whether the ends of names and values are written as escapes.
    escaped: bool,
    values: Vec<Value>,
    /// What follows the last value: as it is given, and what is stored for it.
    given_rest: Box<[u8]>,
    stored_rest: Box<[u8]>,
    /// Without what the indexes want.
    traits: Traits,
}

/// A value that differs among lists of a form.
struct Value {
    /// What is before it, since the value before: as it is given, and what is stored for it.
    given: Box<[u8]>,
    stored: Box<[u8]>,
    name: Box<[u8]>,
}

impl Forms {
    /// The properties as they are to be stored, if they have a known form; else `stored` is
    /// anything.
    #[inline]
    pub fn take(&mut self, topic: &str, given: Text<'_>, stored: &mut Vec<u8>) -> Option<Traits> {
        let (given, escaped) = given.wire();
        self.0.find(|form| {
            let same = form.escaped == escaped;
            same.then(|| form.take(topic, given, stored)).flatten()
        })
    }

    /// A list that has no known form, and what became of it. `is_free` says of a name and a value
    /// whether another value would be stored as well and mean the same.
    pub fn learn(
        &mut self,
        given: Text<'_>,
        stored: &[u8],
        traits: &Traits,
        is_free: impl Fn(&[u8], &[u8]) -> bool,
    ) {
        self.0.miss(|| Form::of(given, stored, traits, is_free));
    }
}

impl Form {
    #[inline]
    fn take(&self, topic: &str, given: &[u8], stored: &mut Vec<u8>) -> Option<Traits> {
        stored.clear();
        let stop = if self.escaped { b'\\' } else { VALUE_END };
        let mut dispatch = Dispatch::default();
        let mut rest = given;
        for value in &self.values {
            rest = rest.strip_prefix(&value.given[..])?;
            let len = find_either(rest, 0, stop, VALUE_END).unwrap_or(rest.len());
            let (text, after) = rest.split_at(len);
            if text.is_empty() {
                return None;
            }
            stored.extend_from_slice(&value.stored);
            stored.extend_from_slice(text);
            dispatch.property(topic, &value.name, text);
            rest = after;
        }
        if rest != &self.given_rest[..] {
            return None;
        }
        stored.extend_from_slice(&self.stored_rest);
        Some(self.traits.with(dispatch))
    }

    /// `None` if it is cut in a way that only the long way understands.
    fn of(
        given: Text<'_>,
        stored: &[u8],
        traits: &Traits,
        is_free: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Option<Form> {
        let (given, escaped) = given.wire();
        let given = std::str::from_utf8(given).ok()?;
        if given.len() > GIVEN_MAX {
            return None;
        }
        let (name_end, value_end) = match escaped {
            true => ("\\u0001", "\\u0002"),
            false => ("\u{1}", "\u{2}"),
        };
        let mut values = Vec::new();
        let (mut at, mut given_from) = (0, 0);
        let (mut stored_at, mut stored_from) = (0, 0);
        for item in given.split(value_end) {
            let (name, value) = item.split_once(name_end).unwrap_or_default();
            if escaped && (name.contains('\\') || value.contains('\\')) {
                return None;
            }
            let (name, value) = (name.as_bytes(), value.as_bytes());
            let as_stored = [name, &[NAME_END], value, &[VALUE_END]].concat();
            let kept = stored[stored_at..].starts_with(&as_stored);
            if kept && is_free(name, value) {
                let ends = stored_at + as_stored.len() - 1;
                let begins = ends - value.len();
                let given_begins = at + name.len() + name_end.len();
                values.push(Value {
                    given: given.as_bytes()[given_from..given_begins].into(),
                    stored: stored[stored_from..begins].into(),
                    name: name.into(),
                });
                (given_from, stored_from) = (at + item.len(), ends);
            }
            stored_at += if kept { as_stored.len() } else { 0 };
            at += item.len() + value_end.len();
        }
        let changes = values
            .iter()
            .any(|v| v.name[..] == *names::UNIQUE_KEY.as_bytes());
        changes.then(|| Form {
            escaped,
            values,
            given_rest: given.as_bytes()[given_from..].into(),
            stored_rest: stored[stored_from..].into(),
            traits: traits.with(Dispatch::default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::handle::traits::Fate;
    use crate::message::properties;
    use proptest::prelude::*;

    const STAMP: &[u8] = b"MSG_REGION\x01here\x02TRACE_ON\x01true\x02";
    const SEND: &str = "UNIQ_KEY\u{1}7F00\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}KEYS\u{1}k1 k2";

    fn is_free(name: &[u8], value: &[u8]) -> bool {
        Traits::default().note(name, value, true) == Fate::Stored
    }

    fn long_way(plain: &str) -> (Vec<u8>, Traits) {
        let mut stored = Vec::new();
        let traits = Traits::of("topic", plain.as_bytes(), true, &mut stored);
        stored.extend_from_slice(STAMP);
        (stored, traits)
    }

    fn learn(forms: &mut Forms, given: Text<'_>, plain: &str) {
        let (stored, traits) = long_way(plain);
        if traits.has_key && traits.is_plain() {
            forms.0.learn_next();
            forms.learn(given, &stored, &traits, is_free);
        }
    }

    fn wire(plain: &str) -> String {
        let text = plain.replace('\\', r"\\").replace('"', r#"\""#);
        text.replace('\u{1}', r"\u0001").replace('\u{2}', r"\u0002")
    }

    /// Whether a form takes it, in both ways of writing; then the result is the long way's.
    fn is_taken(forms: &mut Forms, plain: &str) -> bool {
        let expected = format!("{:?}", long_way(plain));
        let wire = wire(plain);
        let escaped = wire.contains('\\');
        let [in_json, as_is] =
            [Text::checked(wire.as_bytes(), escaped), Text::plain(plain)].map(|given| {
                let mut stored = b"of the one before".to_vec();
                let traits = forms.take("topic", given, &mut stored);
                let taken = traits.map(|traits| format!("{:?}", (stored, traits)));
                assert!(
                    taken.as_ref().is_none_or(|taken| *taken == expected),
                    "{plain:?}"
                );
                taken.is_some()
            });
        in_json || as_is
    }

    fn forms(samples: &[&str]) -> Forms {
        let mut forms = Forms::default();
        for plain in samples {
            let wire = wire(plain);
            let escaped = wire.contains('\\');
            learn(&mut forms, Text::checked(wire.as_bytes(), escaped), plain);
            learn(&mut forms, Text::plain(plain), plain);
        }
        forms
    }

    #[test]
    fn what_means_nothing_may_change() {
        let mut forms = forms(&[SEND]);
        assert_eq!(forms.0.known().len(), 2);
        for (old, new) in [
            ("7F00", "7F01"),
            ("7F00", "longer \u{e9}"),
            ("TagA", "B\u{1}"),
            ("k1 k2", "k"),
            ("k1 k2", ""),
        ] {
            let changed = SEND.replace(old, new);
            assert_eq!(
                is_taken(&mut forms, &changed),
                !new.is_empty(),
                "{changed:?}"
            );
        }
    }

    #[test]
    fn what_means_something_goes_the_long_way() {
        let mut forms = forms(&[SEND]);
        for (old, new) in [
            ("true", "false"),
            ("WAIT\u{1}true", "DELAY\u{1}3"),
            ("TAGS", "TRAN_MSG"),
            ("k1 k2", "k\u{2}"),
            ("k1 k2", "k\u{2}DELAY\u{1}1"),
            ("UNIQ_KEY\u{1}7F00\u{2}", ""),
            ("TagA", ""),
        ] {
            assert!(!is_taken(&mut forms, &SEND.replace(old, new)), "{new:?}");
        }
    }

    #[test]
    fn what_only_the_long_way_understands_is_not_learned() {
        for plain in [
            "",
            "TAGS\u{1}a",
            "UNIQ_KEY\u{1}k\u{2}DELAY\u{1}1",
            "UNIQ_KEY\u{1}k\u{2}__LITE_TOPIC\u{1}a",
        ] {
            assert!(forms(&[plain]).0.known().is_empty(), "{plain:?}");
        }
        let quoted = "UNIQ_KEY\u{1}k\u{2}a\u{1}\"";
        assert_eq!(
            forms(&[quoted]).0.known().len(),
            1,
            "as it is, without escapes"
        );
        let long = format!("UNIQ_KEY\u{1}{}", "k".repeat(GIVEN_MAX));
        assert!(forms(&[&long]).0.known().is_empty());
    }

    /// Lists in which names, values and ends come in every order.
    fn any_list() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "UNIQ_KEY",
            "WAIT",
            "TAGS",
            "KEYS",
            "DELAY",
            "user",
            "POP_CK",
            "MSG_REGION",
            "",
        ]);
        let value = prop::sample::select(vec![
            "true",
            "false",
            "0",
            "here",
            "a",
            "a\\u0001b",
            "\"",
            "\u{e9}",
            "a\u{1}b",
            "",
        ]);
        let item = (name, value).prop_map(|(name, value)| format!("{name}\u{1}{value}"));
        (prop::collection::vec(item, 0..6), any::<bool>()).prop_map(|(items, ended)| {
            let end = if ended { "\u{2}" } else { "" };
            items.join("\u{2}") + end
        })
    }

    proptest! {
        #[test]
        fn the_result_is_always_the_long_ways(
            samples in prop::collection::vec(any_list(), 1..4),
            others in prop::collection::vec(any_list(), 1..4),
        ) {
            let samples: Vec<String> = samples
                .into_iter()
                .map(|list| format!("UNIQ_KEY\u{1}k\u{2}{list}"))
                .collect();
            let known: Vec<&str> = samples.iter().map(String::as_str).collect();
            let mut forms = forms(&known);
            for list in samples.iter().chain(&others) {
                is_taken(&mut forms, list);
                is_taken(&mut forms, &list.replace("UNIQ_KEY\u{1}k", "UNIQ_KEY\u{1}other"));
            }
        }
    }

    #[test]
    fn stored_lists_are_read_back() {
        let mut forms = forms(&[SEND]);
        let mut stored = Vec::new();
        forms
            .take("topic", Text::plain(SEND), &mut stored)
            .expect("it is known");
        assert_eq!(properties::find_str(&stored, "TAGS"), Some("TagA"));
        assert_eq!(properties::find_str(&stored, "WAIT"), None);
    }
}
