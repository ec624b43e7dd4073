//! The reference's JSON dialect for bodies: fastjson2 as the servers and clients of 5.5.0 use it.
//!
//! Written as fastjson2 writes: integer map keys bare (or quoted, for those who ask for standard
//! JSON), doubles as Java prints them, NaN as null, non-ASCII raw.
//!
//! Read in two steps. Strict JSON of the expected shape, the usual case, is parsed at once. What
//! fails is rewritten ([`relax`]): bare and object keys become strings, `'..'` becomes `".."`,
//! commas before a closing bracket vanish, null members are dropped, of two equal members the last
//! stays. Then it is parsed again. Source: spec pages remoting §13, delta-5.5 §2.

use std::{fmt, io};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::ser::{CharEscape, Formatter, Serializer};

use super::super::text::{escape, hex4};
use super::queue::MessageQueue;

/// Deepest nesting that is read in the dialect; strict JSON has the parser's own limit of 128.
pub const DEPTH_MAX: usize = 64;

/// Why a body cannot be used; becomes the remark of the answer.
#[derive(Debug)]
pub enum BodyError {
    Empty,
    NotUtf8,
    /// No JSON, in any dialect, from this byte on.
    Syntax {
        at: usize,
    },
    TooDeep,
    /// JSON of another shape.
    Shape(serde_json::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the body is empty"),
            Self::NotUtf8 => write!(f, "the body is not UTF-8"),
            Self::Syntax { at } => write!(f, "the body is no JSON at byte {at}"),
            Self::TooDeep => write!(f, "the body nests deeper than {DEPTH_MAX}"),
            Self::Shape(error) => write!(f, "the body has an unexpected shape: {error}"),
        }
    }
}

impl std::error::Error for BodyError {}

/// Writes a body as the reference does by default: integer map keys bare.
pub fn to_vec<T: Serialize>(body: &T) -> Vec<u8> {
    write(body, true)
}

/// Writes a body as standard JSON: integer map keys quoted.
pub fn to_standard_vec<T: Serialize>(body: &T) -> Vec<u8> {
    write(body, false)
}

fn write<T: Serialize>(body: &T, bare_keys: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let dialect = Dialect {
        bare_keys,
        key: Key::Outside,
    };
    let mut serializer = Serializer::with_formatter(&mut out, dialect);
    body.serialize(&mut serializer)
        .expect("our bodies have only keys and values that JSON has");
    out
}

/// Appends a map keyed by queues, `{{..}:value,..}`, which is no JSON but what Java clients read.
pub fn append_queue_map<V: Serialize>(out: &mut Vec<u8>, map: &[(MessageQueue, V)]) {
    out.push(b'{');
    for (at, (queue, value)) in map.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&to_vec(queue));
        out.push(b':');
        out.extend_from_slice(&to_vec(value));
    }
    out.push(b'}');
}

/// Where the writer is with respect to an object key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Outside,
    /// Its string has begun; whether it needs quotes is not known yet.
    Undecided,
    Quoted,
    Bare,
}

struct Dialect {
    bare_keys: bool,
    key: Key,
}

impl Dialect {
    /// Writes the opening quote of a key that turned out to be text.
    fn quote<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key == Key::Undecided {
            self.key = Key::Quoted;
            writer.write_all(b"\"")?;
        }
        Ok(())
    }

    fn integer<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        value: impl fmt::Display,
    ) -> io::Result<()> {
        if self.key == Key::Undecided {
            self.key = Key::Bare;
        }
        write!(writer, "{value}")
    }
}

impl Formatter for Dialect {
    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if self.bare_keys {
            self.key = Key::Undecided;
        }
        if first {
            Ok(())
        } else {
            writer.write_all(b",")
        }
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.key = Key::Outside;
        Ok(())
    }

    fn begin_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key == Key::Undecided {
            Ok(())
        } else {
            writer.write_all(b"\"")
        }
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.quote(writer)?;
        if self.key == Key::Bare {
            Ok(())
        } else {
            writer.write_all(b"\"")
        }
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        self.quote(writer)?;
        writer.write_all(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escaped: CharEscape,
    ) -> io::Result<()> {
        self.quote(writer)?;
        serde_json::ser::CompactFormatter.write_char_escape(writer, escaped)
    }

    fn write_i32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i32) -> io::Result<()> {
        self.integer(writer, value)
    }

    fn write_i64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        self.integer(writer, value)
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(java_double(value).as_bytes())
    }
}

/// `Double.toString` of a finite number.
fn java_double(value: f64) -> String {
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// Reads a body.
pub fn from_slice<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    if body.is_empty() {
        return Err(BodyError::Empty);
    }
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let strict = relax(body)?;
    let mut value: Value = serde_json::from_slice(&strict).map_err(BodyError::Shape)?;
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(BodyError::Shape)
}

/// Depth is bounded by the parser's own limit.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

/// Rewrites the dialect as strict JSON. Keys that were objects become strings that hold their JSON.
pub fn relax(body: &[u8]) -> Result<Vec<u8>, BodyError> {
    std::str::from_utf8(body).map_err(|_| BodyError::NotUtf8)?;
    let mut relaxer = Relaxer {
        bytes: body,
        at: 0,
        in_key: false,
    };
    let mut out = Vec::with_capacity(body.len() + 16);
    relaxer.value(&mut out, 0)?;
    relaxer.skip_space();
    if relaxer.at == body.len() {
        Ok(out)
    } else {
        Err(relaxer.syntax())
    }
}

struct Relaxer<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Inside an object key. Such keys do not nest: each level would double the escapes.
    in_key: bool,
}

impl Relaxer<'_> {
    fn syntax(&self) -> BodyError {
        BodyError::Syntax { at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), BodyError> {
        if depth > DEPTH_MAX {
            return Err(BodyError::TooDeep);
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.members(out, depth, b'{', b'}'),
            Some(b'[') => self.members(out, depth, b'[', b']'),
            Some(quote @ (b'"' | b'\'')) => self.string(out, quote),
            _ => self.word().map(|word| out.extend_from_slice(word)),
        }
    }

    /// The members of an object or the items of an array.
    fn members(
        &mut self,
        out: &mut Vec<u8>,
        depth: usize,
        open: u8,
        close: u8,
    ) -> Result<(), BodyError> {
        self.at += 1;
        out.push(open);
        let mut first = true;
        while !self.take(close) {
            if !first {
                out.push(b',');
            }
            first = false;
            if open == b'{' {
                self.key(out, depth)?;
            }
            self.value(out, depth + 1)?;
            self.skip_space();
            if !self.take(b',') && self.peek() != Some(close) {
                return Err(self.syntax());
            }
        }
        out.push(close);
        Ok(())
    }

    /// A key and its colon.
    fn key(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), BodyError> {
        self.skip_space();
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => self.string(out, quote)?,
            Some(b'{') if !self.in_key => {
                let mut key = Vec::new();
                self.in_key = true;
                self.value(&mut key, depth + 1)?;
                self.in_key = false;
                out.push(b'"');
                escape(&key, out);
                out.push(b'"');
            }
            _ => {
                let word = self.word()?;
                out.push(b'"');
                out.extend_from_slice(word);
                out.push(b'"');
            }
        }
        if !self.take(b':') {
            return Err(self.syntax());
        }
        out.push(b':');
        Ok(())
    }

    /// Copies a string. Raw control characters get escaped, an escaped `'` gets bare, and a lone
    /// surrogate becomes `?`.
    fn string(&mut self, out: &mut Vec<u8>, quote: u8) -> Result<(), BodyError> {
        self.at += 1;
        out.push(b'"');
        loop {
            let byte = self.peek().ok_or(self.syntax())?;
            if byte == quote {
                break;
            }
            if byte == b'\\' {
                self.escape_sequence(out)?;
            } else {
                escape(&[byte], out);
                self.at += 1;
            }
        }
        self.at += 1;
        out.push(b'"');
        Ok(())
    }

    fn escape_sequence(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let kind = self.bytes.get(self.at + 1).ok_or(self.syntax())?;
        let len = match kind {
            b'u' => self.unicode_len(out)?,
            b'\'' => {
                out.push(b'\'');
                self.at += 2;
                return Ok(());
            }
            _ => 2,
        };
        out.extend_from_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
        Ok(())
    }

    /// Length of the escape to copy: 6, 12 for a surrogate pair, 0 after a lone one was replaced.
    fn unicode_len(&mut self, out: &mut Vec<u8>) -> Result<usize, BodyError> {
        let unit = hex4(self.bytes, self.at + 2).ok_or(self.syntax())?;
        let second = self.bytes.get(self.at + 6..self.at + 8) == Some(b"\\u");
        let low = if second {
            hex4(self.bytes, self.at + 8)
        } else {
            None
        };
        match (unit, low) {
            (0xD800..=0xDBFF, Some(0xDC00..=0xDFFF)) => Ok(12),
            (0xD800..=0xDFFF, _) => {
                out.push(b'?');
                self.at += 6;
                Ok(0)
            }
            _ => Ok(6),
        }
    }

    /// A number, a literal or a bare key.
    fn word(&mut self) -> Result<&[u8], BodyError> {
        let start = self.at;
        let in_word = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_' | b'$')
        };
        while self.peek().is_some_and(in_word) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.syntax())
        } else {
            Ok(&self.bytes[start..self.at])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check_relaxed(body: &str, expected: &str) {
        let relaxed = relax(body.as_bytes()).unwrap_or_else(|e| panic!("{body}: {e}"));
        assert_eq!(String::from_utf8(relaxed).unwrap(), expected, "{body}");
    }

    #[test]
    fn dialect_is_rewritten() {
        check_relaxed(r#"{"a":1}"#, r#"{"a":1}"#);
        check_relaxed(
            r#"{0:"x",-1:[1,2,],true:null,}"#,
            r#"{"0":"x","-1":[1,2],"true":null}"#,
        );
        check_relaxed(r#"{'a':'it\'s "x"'}"#, r#"{"a":"it's \"x\""}"#);
        check_relaxed(r#"{{"q":0,t:'x'}:{}}"#, r#"{"{\"q\":0,\"t\":\"x\"}":{}}"#);
        check_relaxed("{ \"a\" : [ 1 , 2 ] }\n", r#"{"a":[1,2]}"#);
        check_relaxed("\"tab\there\"", r#""tab\there""#);
        check_relaxed(
            r#""\u00e9\ud83d\ude00\ud83dx\ude00""#,
            r#""\u00e9\ud83d\ude00?x?""#,
        );
        check_relaxed("\"é中😀\"", "\"é中😀\"");
    }

    fn check_refused(body: &str, at: usize) {
        match relax(body.as_bytes()) {
            Err(BodyError::Syntax { at: found }) => assert_eq!(found, at, "{body}"),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn refused() {
        check_refused("{\"a\":1", 6);
        check_refused("{\"a\" 1}", 5);
        check_refused("{}x", 2);
        check_refused("[1 2]", 3);
        check_refused("\"abc", 4);
        check_refused("\"\\u12\"", 1);
        check_refused("", 0);
        check_refused("[,]", 1);
        check_refused("{{{}:1}:2}", 2);
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(relax(nested(DEPTH_MAX + 1).as_bytes()).is_ok());
        let too_deep = relax(nested(DEPTH_MAX + 2).as_bytes());
        assert!(matches!(too_deep, Err(BodyError::TooDeep)));
        assert!(matches!(relax(b"\"\xFF\""), Err(BodyError::NotUtf8)));
        assert!(matches!(from_slice::<Value>(b""), Err(BodyError::Empty)));
    }

    #[test]
    fn last_of_equal_members_counts_and_null_is_absent() {
        let read: BTreeMap<String, i32> = from_slice(br#"{"a":1,"a":2,"b":null}"#).unwrap();
        assert_eq!(read, BTreeMap::from([("a".to_string(), 2)]));
    }

    #[test]
    fn integer_keys_are_bare_or_quoted() {
        let map = BTreeMap::from([(-1i64, "x"), (0, "y")]);
        assert_eq!(to_vec(&map), br#"{-1:"x",0:"y"}"#);
        assert_eq!(to_standard_vec(&map), br#"{"-1":"x","0":"y"}"#);
        let map = BTreeMap::from([("", 1), ("a\"\u{1}é", 2), ("\n", 3)]);
        let expected = "{\"\":1,\"\\n\":3,\"a\\\"\\u0001é\":2}";
        assert_eq!(String::from_utf8(to_vec(&map)).unwrap(), expected);
        assert_eq!(String::from_utf8(to_standard_vec(&map)).unwrap(), expected);
        let back: BTreeMap<i64, String> = from_slice(br#"{-1:"x",0:"y"}"#).unwrap();
        assert_eq!(back.len(), 2);
    }

    fn check_double(value: f64, expected: &str) {
        assert_eq!(String::from_utf8(to_vec(&value)).unwrap(), expected);
    }

    #[test]
    fn doubles_are_written_as_java_does() {
        check_double(0.0, "0.0");
        check_double(1.5, "1.5");
        check_double(1e20, "1.0E20");
        check_double(123_456_789.0, "1.23456789E8");
        check_double(9_999_999.0, "9999999.0");
        check_double(1e7, "1.0E7");
        check_double(0.001, "0.001");
        check_double(0.0001, "1.0E-4");
        check_double(-2.5, "-2.5");
        check_double(f64::NAN, "null");
        check_double(f64::INFINITY, "null");
    }

    proptest::proptest! {
        #[test]
        fn relaxed_text_is_never_worse(text in "[\\[\\]{}:,'\"\\\\a0u \u{1}é-]{0,40}") {
            let _ = from_slice::<Value>(text.as_bytes());
            if serde_json::from_str::<Value>(&text).is_ok() {
                proptest::prop_assert!(relax(text.as_bytes()).is_ok());
            }
        }
    }
}
