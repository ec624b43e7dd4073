//! Encoded routes for the next asker: a thousand clients that start together ask the same.
//!
//! Holds bodies of one revision of the tables only; any change drops all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;

/// What makes two askers of one topic see different bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Form {
    /// Quoted integer keys.
    pub standard: bool,
    /// The address by which a local broker is shown.
    pub shown: Option<IpAddr>,
}

/// Bodies of one revision.
pub struct RouteCache {
    revision: u64,
    bytes: usize,
    bytes_max: usize,
    bodies: BTreeMap<Form, BTreeMap<String, Bytes>>,
}

impl RouteCache {
    pub fn new(bytes_max: usize) -> Self {
        RouteCache {
            revision: 0,
            bytes: 0,
            bytes_max,
            bodies: BTreeMap::new(),
        }
    }

    /// The body for `topic`, made by `encode` unless it is known. `None` is not kept: topics that
    /// do not exist are endless.
    pub fn body(
        &mut self,
        revision: u64,
        form: Form,
        topic: &str,
        encode: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Bytes> {
        if self.revision != revision {
            self.revision = revision;
            self.clear();
        }
        let known = self.bodies.get(&form).and_then(|topics| topics.get(topic));
        if let Some(body) = known {
            return Some(body.clone());
        }
        let body = Bytes::from(encode()?);
        let bytes = topic.len() + body.len();
        if self.bytes + bytes > self.bytes_max {
            self.clear();
        }
        if bytes <= self.bytes_max {
            self.bytes += bytes;
            let topics = self.bodies.entry(form).or_default();
            topics.insert(topic.to_owned(), body.clone());
        }
        Some(body)
    }

    pub fn clear(&mut self) {
        self.bytes = 0;
        self.bodies.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Form = Form {
        standard: false,
        shown: None,
    };

    fn check(cache: &mut RouteCache, revision: u64, topic: &str, new: &str, expected: &str) {
        let encode = || Some(new.as_bytes().to_vec());
        let body = cache.body(revision, OLD, topic, encode).unwrap();
        assert_eq!(body, expected);
        assert!(cache.bytes <= cache.bytes_max);
    }

    #[test]
    fn bodies_live_for_one_revision_and_within_the_limit() {
        let mut cache = RouteCache::new(10);
        check(&mut cache, 1, "t", "one", "one");
        check(&mut cache, 1, "t", "two", "one");
        check(&mut cache, 1, "u", "abc", "abc");
        check(&mut cache, 1, "v", "12345", "12345");
        check(&mut cache, 1, "t", "two", "two");
        check(&mut cache, 1, "w", "0123456789", "0123456789");
        check(&mut cache, 1, "w", "again", "again");
        check(&mut cache, 2, "w", "next", "next");
        cache.clear();
        check(&mut cache, 2, "w", "last", "last");
        assert_eq!(cache.body(2, OLD, "none", || None), None);
    }

    #[test]
    fn forms_are_kept_apart() {
        let mut cache = RouteCache::new(100);
        let standard = Form {
            standard: true,
            ..OLD
        };
        check(&mut cache, 0, "t", "old", "old");
        let body = cache.body(0, standard, "t", || Some(b"new".to_vec()));
        assert_eq!(body.unwrap(), "new");
        check(&mut cache, 0, "t", "x", "old");
    }
}
