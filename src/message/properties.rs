//! Message properties on their stored bytes: `name 0x01 value 0x02`, repeated.
//!
//! As the reference reads them: the last separator may be missing, an item without a name or a
//! value is dropped, of two items with one name the later counts. Source:
//! `MessageDecoder.string2messageProperties`.

use memchr::memchr;

use super::layout::PROPERTIES_BYTES_MAX;

/// Between name and value.
pub const NAME_END: u8 = 1;
/// After each value.
pub const VALUE_END: u8 = 2;

/// Names and values in stored order.
pub fn iter(properties: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    items(properties).map(|item| (item.name, item.value))
}

/// One property.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// Both, and the byte between them.
    pub text: &'a [u8],
}

/// Properties in stored order.
pub fn items(properties: &[u8]) -> impl Iterator<Item = Item<'_>> {
    let mut rest = properties;
    let mut next_text = move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr(VALUE_END, rest).unwrap_or(rest.len());
        let text = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(text)
    };
    std::iter::from_fn(move || {
        loop {
            if let Some(item) = item(next_text()?) {
                return Some(item);
            }
        }
    })
}

fn item(text: &[u8]) -> Option<Item<'_>> {
    let name_len = memchr(NAME_END, text)?;
    let (name, value) = (&text[..name_len], &text[name_len + 1..]);
    (!name.is_empty() && !value.is_empty()).then_some(Item { name, value, text })
}

/// The value of `name`.
pub fn find<'a>(properties: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let named = iter(properties).filter(|(known, _)| *known == name.as_bytes());
    named.last().map(|(_, value)| value)
}

/// The value of `name` as text; `None` also when it is not UTF-8.
pub fn find_str<'a>(properties: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(find(properties, name)?).ok()
}

/// Bytes that [`append`] adds when the list is properly ended.
pub fn item_len(name: &str, value: &str) -> usize {
    name.len() + 1 + value.len() + 1
}

/// Adds an item at the end of a buffer that holds nothing but a property list. Neither text may
/// hold a separator, or the item breaks apart; an empty value would read as absent.
pub fn append(properties: &mut Vec<u8>, name: &str, value: &str) {
    if properties.last().is_some_and(|last| *last != VALUE_END) {
        properties.push(VALUE_END);
    }
    properties.extend_from_slice(name.as_bytes());
    properties.push(NAME_END);
    properties.extend_from_slice(value.as_bytes());
    properties.push(VALUE_END);
}

/// Removes every item called `name`, in place.
pub fn remove(properties: &mut Vec<u8>, name: &str) {
    let mut at = 0;
    while at < properties.len() {
        let rest = &properties[at..];
        let item = rest
            .iter()
            .position(|byte| *byte == VALUE_END)
            .unwrap_or(rest.len());
        let end = at + (item + 1).min(rest.len());
        let named = rest[..item].strip_prefix(name.as_bytes());
        if named.is_some_and(|value| value.first() == Some(&NAME_END)) {
            properties.drain(at..end);
        } else {
            at = end;
        }
    }
}

/// Replaces the value of `name`, or adds it.
pub fn set(properties: &mut Vec<u8>, name: &str, value: &str) {
    remove(properties, name);
    append(properties, name, value);
}

/// Whether a record can hold the list.
pub fn fits(properties: &[u8]) -> bool {
    properties.len() <= PROPERTIES_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_iter(properties: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(k, v)| (k.as_bytes(), v.as_bytes()))
            .collect();
        assert_eq!(
            iter(properties.as_bytes()).collect::<Vec<_>>(),
            expected,
            "{properties:?}"
        );
    }

    #[test]
    fn reading() {
        check_iter("", &[]);
        check_iter("a\u{1}1\u{2}b\u{1}2\u{2}", &[("a", "1"), ("b", "2")]);
        check_iter("a\u{1}1\u{2}b\u{1}2", &[("a", "1"), ("b", "2")]);
        check_iter("a\u{1}\u{2}\u{1}x\u{2}\u{2}b\u{2}c\u{1}3", &[("c", "3")]);
        check_iter("a\u{1}1\u{1}2\u{2}", &[("a", "1\u{1}2")]);
        assert_eq!(find(b"a\x011\x02a\x012\x02", "a"), Some(b"2".as_slice()));
        assert_eq!(find(b"ab\x011\x02", "a"), None);
        assert_eq!(find_str(b"a\x01\xFF\x02", "a"), None);
    }

    fn check_change(before: &str, change: impl Fn(&mut Vec<u8>), expected: &str) {
        let mut properties = before.as_bytes().to_vec();
        change(&mut properties);
        assert_eq!(
            String::from_utf8(properties).unwrap(),
            expected,
            "{before:?}"
        );
    }

    #[test]
    fn changing() {
        check_change("", |p| append(p, "k", "v"), "k\u{1}v\u{2}");
        check_change(
            "a\u{1}1",
            |p| append(p, "k", "v"),
            "a\u{1}1\u{2}k\u{1}v\u{2}",
        );
        check_change(
            "a\u{1}1\u{2}b\u{1}2\u{2}",
            |p| remove(p, "a"),
            "b\u{1}2\u{2}",
        );
        check_change(
            "a\u{1}1\u{2}ab\u{1}2\u{2}a\u{1}3",
            |p| remove(p, "a"),
            "ab\u{1}2\u{2}",
        );
        check_change("a\u{1}1\u{2}", |p| remove(p, "x"), "a\u{1}1\u{2}");
        check_change(
            "a\u{1}1\u{2}b\u{1}2\u{2}",
            |p| set(p, "a", "9"),
            "b\u{1}2\u{2}a\u{1}9\u{2}",
        );
        assert_eq!(item_len("k", "v"), 4);
    }

    #[test]
    fn limit() {
        assert!(fits(&vec![0; PROPERTIES_BYTES_MAX]));
        assert!(!fits(&vec![0; PROPERTIES_BYTES_MAX + 1]));
    }

    proptest::proptest! {
        #[test]
        fn removed_is_gone(mut properties: Vec<u8>, name in "[a-c]") {
            let others = |list: &[u8]| {
                let all: Vec<_> = iter(list).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
                all.into_iter().filter(|(k, _)| k != name.as_bytes()).collect::<Vec<_>>()
            };
            let before = others(&properties);
            remove(&mut properties, &name);
            assert_eq!(find(&properties, &name), None);
            assert_eq!(others(&properties), before);
        }
    }
}
