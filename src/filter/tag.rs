//! Tag expressions: `*`, or tags joined by `||`.
//!
//! A queue index entry holds only the hash of a message's tag, so the broker lets some messages too
//! many through and the client compares the text. Sources: `FilterAPI.buildSubscriptionData`,
//! `ExpressionMessageFilter`, `String.hashCode`; spec page semantics §4.

use std::fmt;

use smallvec::SmallVec;

/// More tags in one expression are refused.
pub const TAGS_MAX: usize = 1024;
/// Expression that wants everything.
pub const ALL: &str = "*";

/// `String.hashCode`: over UTF-16 units, wrapping.
#[inline]
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0, java_hash_next)
}

/// The same of text in UTF-8; 0 for what is none.
#[inline]
pub fn java_hash_utf8(text: &[u8]) -> i32 {
    if text.is_ascii() {
        // A byte is a unit.
        return text.iter().copied().map(u16::from).fold(0, java_hash_next);
    }
    std::str::from_utf8(text).map_or(0, java_hash)
}

fn java_hash_next(hash: i32, unit: u16) -> i32 {
    hash.wrapping_mul(31).wrapping_add(i32::from(unit))
}

/// A parsed tag expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TagFilter {
    All,
    /// Hashes of the wanted tags, ascending, each once.
    Codes(SmallVec<[i32; 4]>),
}

/// An expression without any tag, or with too many; becomes `SUBSCRIPTION_PARSE_FAILED`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TagError {
    NoTag,
    TooManyTags,
}

impl fmt::Display for TagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTag => write!(f, "the tag expression names no tag"),
            Self::TooManyTags => write!(f, "the tag expression names more than {TAGS_MAX} tags"),
        }
    }
}

impl std::error::Error for TagError {}

impl TagFilter {
    /// Parses an expression. Blanks around tags do not count, nor do empty tags; but an expression
    /// of separators alone is an error, as in the reference.
    pub fn parse(expression: &str) -> Result<Self, TagError> {
        if expression.is_empty() || expression == ALL {
            return Ok(Self::All);
        }
        if expression.split("||").all(str::is_empty) {
            return Err(TagError::NoTag);
        }
        let mut codes = SmallVec::new();
        for tag in tags(expression) {
            if codes.len() == TAGS_MAX {
                return Err(TagError::TooManyTags);
            }
            codes.push(java_hash(tag));
        }
        codes.sort_unstable();
        codes.dedup();
        Ok(Self::Codes(codes))
    }

    /// Whether an index entry with this tag hash may be wanted. The entry's 64 bits count by their
    /// low half, as `Long.intValue`.
    #[inline]
    pub fn matches(&self, tag_hash: i64) -> bool {
        match self {
            Self::All => true,
            Self::Codes(codes) => codes.binary_search(&(tag_hash as i32)).is_ok(),
        }
    }
}

/// The tags of an expression, trimmed as `String.trim` does.
pub fn tags(expression: &str) -> impl Iterator<Item = &str> {
    let trimmed = expression
        .split("||")
        .map(|tag| tag.trim_matches(|unit| unit <= ' '));
    trimmed.filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_hash(text: &str, expected: i32) {
        assert_eq!(java_hash(text), expected, "{text}");
        assert_eq!(java_hash_utf8(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn hashes() {
        check_hash("", 0);
        check_hash("a", 97);
        check_hash("TagA", 2598919);
        check_hash("polygenelubricants", i32::MIN);
        check_hash("中文", 646394);
        check_hash("😀", 1772899);
    }

    fn check(expression: &str, tags: &[&str]) {
        let mut codes: Vec<_> = tags.iter().map(|tag| java_hash(tag)).collect();
        codes.sort_unstable();
        let expected = TagFilter::Codes(SmallVec::from_vec(codes));
        assert_eq!(TagFilter::parse(expression), Ok(expected), "{expression}");
    }

    #[test]
    fn expressions() {
        check("a", &["a"]);
        check("a || b", &["a", "b"]);
        check("b||a||b", &["a", "b"]);
        check("||a||", &["a"]);
        check(" ", &[]);
        check("a|b", &["a|b"]);
        check("a|| *", &["a", "*"]);
        assert_eq!(TagFilter::parse(""), Ok(TagFilter::All));
        assert_eq!(TagFilter::parse("*"), Ok(TagFilter::All));
        assert_eq!(TagFilter::parse("||"), Err(TagError::NoTag));
        assert_eq!(TagFilter::parse("||||"), Err(TagError::NoTag));
    }

    #[test]
    fn tags_are_limited() {
        let joined = |count: usize| {
            (0..count)
                .map(|n| n.to_string())
                .collect::<Vec<_>>()
                .join("||")
        };
        assert!(TagFilter::parse(&joined(TAGS_MAX)).is_ok());
        assert_eq!(
            TagFilter::parse(&joined(TAGS_MAX + 1)),
            Err(TagError::TooManyTags)
        );
    }

    #[test]
    fn matching() {
        let filter = TagFilter::parse("a||TagA").unwrap();
        assert!(filter.matches(97));
        assert!(filter.matches(97 | 1 << 40));
        assert!(filter.matches(i64::from(java_hash("TagA"))));
        assert!(!filter.matches(0));
        assert!(TagFilter::All.matches(0));
        assert!(!TagFilter::parse(" ").unwrap().matches(0));
        let lowest = TagFilter::parse("polygenelubricants").unwrap();
        assert!(lowest.matches(i64::from(i32::MIN)));
    }
}
