//! String values still in wire form, and the JSON string rules of the reference.
//!
//! A [`Text`] borrows from the frame. It is always valid UTF-8 and, when it carries escapes, they
//! were checked by the scanner that made it. Escapes written are those of fastjson2: quote,
//! backslash and control characters; everything else stays raw UTF-8.

use std::borrow::Cow;
use std::fmt;

/// A string value in wire form: valid UTF-8, possibly with JSON escapes. Free to copy; nothing is
/// unescaped before it is asked for.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Text<'a> {
    /// A text that stands for itself.
    #[inline]
    pub const fn plain(text: &'a str) -> Self {
        Self {
            raw: text.as_bytes(),
            escaped: false,
        }
    }

    /// `raw` was found to be valid UTF-8 and, when `escaped`, to hold well-formed escapes only.
    #[inline]
    pub(crate) const fn checked(raw: &'a [u8], escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// The text itself, unless it carries escapes.
    #[inline]
    pub fn as_plain(self) -> Option<&'a str> {
        if self.escaped {
            None
        } else {
            std::str::from_utf8(self.raw).ok()
        }
    }

    /// The bytes of the text, unless it carries escapes.
    #[inline]
    pub fn as_plain_bytes(self) -> Option<&'a [u8]> {
        if self.escaped { None } else { Some(self.raw) }
    }

    /// The text; allocates only when it carries escapes.
    pub fn to_cow(self) -> Cow<'a, str> {
        if let Some(plain) = self.as_plain() {
            return Cow::Borrowed(plain);
        }
        let mut bytes = Vec::with_capacity(self.raw.len());
        self.append_to(&mut bytes);
        Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Appends the unescaped bytes. They never outnumber [`Text::wire_len`].
    pub fn append_to(self, out: &mut Vec<u8>) {
        if self.escaped {
            unescape(self.raw, out);
        } else {
            out.extend_from_slice(self.raw);
        }
    }

    /// Bytes in wire form: an upper bound of the unescaped length.
    #[inline]
    pub fn wire_len(self) -> usize {
        self.raw.len()
    }

    /// As it stands in its header, and whether that carries escapes.
    #[inline]
    pub fn wire(self) -> (&'a [u8], bool) {
        (self.raw, self.escaped)
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// As `Integer.parseInt`: optional sign, decimal digits, no spaces, no overflow.
    #[inline]
    pub fn parse_i32(self) -> Option<i32> {
        self.parse_i64()
            .and_then(|number| i32::try_from(number).ok())
    }

    /// As `Long.parseLong`.
    #[inline]
    pub fn parse_i64(self) -> Option<i64> {
        if self.escaped {
            self.to_cow().parse().ok()
        } else {
            parse_i64(self.raw)
        }
    }

    /// As `Boolean.parseBoolean`: "true" in any case, all else is false.
    #[inline]
    pub fn parse_bool(self) -> bool {
        if self.escaped {
            self.to_cow().eq_ignore_ascii_case("true")
        } else {
            self.raw.eq_ignore_ascii_case(b"true")
        }
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        if self.escaped {
            self.to_cow() == other
        } else {
            self.raw == other.as_bytes()
        }
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        if self.escaped || other.escaped {
            self.to_cow() == other.to_cow()
        } else {
            self.raw == other.raw
        }
    }
}

impl Eq for Text<'_> {}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_cow(), f)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_cow())
    }
}

/// Texts are short and mostly ASCII.
#[inline]
pub(super) fn is_utf8(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// Digits that fit an `i64` whatever they are.
const SAFE_DIGITS: usize = 18;

#[inline]
fn parse_i64(raw: &[u8]) -> Option<i64> {
    let (negative, digits) = match raw {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    if digits.len() > SAFE_DIGITS {
        return std::str::from_utf8(raw).ok()?.parse().ok();
    }
    let mut value = 0i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

const WORD_BYTES: usize = 8;
const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// High bit set in the lowest zero byte of `word` (and perhaps in bytes above it).
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW_BITS) & !word & HIGH_BITS
}

/// Index of the first quote or backslash at or after `from`.
#[inline]
pub(super) fn find_quote_or_backslash(bytes: &[u8], from: usize) -> Option<usize> {
    find_either(bytes, from, b'"', b'\\')
}

/// Index of the first of two bytes at or after `from`.
#[inline]
pub fn find_either(bytes: &[u8], from: usize, one: u8, other: u8) -> Option<usize> {
    let is_one = |word| zero_bytes(word ^ (LOW_BITS * u64::from(one)));
    let is_other = |word| zero_bytes(word ^ (LOW_BITS * u64::from(other)));
    find(bytes, from, |word| is_one(word) | is_other(word))
}

/// Index of the first byte at or after `from` that JSON text must escape.
fn find_special(bytes: &[u8], from: usize) -> Option<usize> {
    find(bytes, from, |word| {
        let control = word.wrapping_sub(LOW_BITS * 0x20) & !word & HIGH_BITS;
        control
            | zero_bytes(word ^ (LOW_BITS * b'"' as u64))
            | zero_bytes(word ^ (LOW_BITS * b'\\' as u64))
    })
}

/// Eight bytes at a time. `in_word` marks the first matching byte by its high bit; marks above the
/// first may be wrong, hence the trailing zeros.
#[inline]
fn find(bytes: &[u8], from: usize, in_word: impl Fn(u64) -> u64) -> Option<usize> {
    let mut at = from;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let marks = in_word(u64::from_le_bytes(*chunk));
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += WORD_BYTES;
    }
    let rest = bytes.get(at..)?;
    // What fills the word up is nothing that is looked for, or lies beyond the end.
    let mut word = [0xFF; WORD_BYTES];
    word.get_mut(..rest.len())?.copy_from_slice(rest);
    let marks = in_word(u64::from_le_bytes(word));
    let more = marks.trailing_zeros() as usize / 8;
    (more < rest.len()).then_some(at + more)
}

/// Appends `text` as the inside of a JSON string.
pub(super) fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    while let Some(at) = find_special(text, from) {
        out.extend_from_slice(&text[from..at]);
        escape_byte(text[at], out);
        from = at + 1;
    }
    out.extend_from_slice(&text[from..]);
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0C => b'f',
        b'\r' => b'r',
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Value of each hex digit; 0xFF for every other byte.
const HEX_VALUES: [u8; 256] = {
    let mut values = [0xFF; 256];
    let mut digit = 0;
    while digit < 16 {
        let value = digit as u8;
        values[b"0123456789abcdef"[digit] as usize] = value;
        values[b"0123456789ABCDEF"[digit] as usize] = value;
        digit += 1;
    }
    values
};

/// Value of the four hex digits at `at`.
#[inline]
pub(super) fn hex4(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..)?.first_chunk::<4>()?;
    let value = |at: usize| HEX_VALUES[usize::from(digits[at])];
    let (a, b, c, d) = (value(0), value(1), value(2), value(3));
    let all_digits = (a | b | c | d) < 16;
    all_digits.then_some(u16::from(a << 4 | b) << 8 | u16::from(c << 4 | d))
}

/// Eight bytes at a time, copied while they are looked at: texts with escapes are property lists,
/// where an escape stands behind every few letters.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    out.reserve(raw.len() + WORD_BYTES);
    let mut at = 0;
    while let Some(word) = raw
        .get(at..)
        .and_then(|rest| rest.first_chunk::<WORD_BYTES>())
    {
        let marks = zero_bytes(u64::from_le_bytes(*word) ^ (LOW_BITS * b'\\' as u64));
        let plain = marks.trailing_zeros() as usize / 8;
        let end = out.len() + plain;
        out.extend_from_slice(word);
        out.truncate(end);
        at += plain;
        if marks != 0 {
            at = unescape_one(raw, at, out);
        }
    }
    while at < raw.len() {
        at = unescape_one(raw, at, out);
    }
}

/// Unescapes the sequence at `at` and returns where the text goes on.
fn unescape_one(raw: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    if raw[at] != b'\\' {
        out.push(raw[at]);
        return at + 1;
    }
    let Some(kind) = raw.get(at + 1) else {
        return raw.len();
    };
    if let Some([b'\\', b'u', b'0', b'0', b'0', digit @ b'0'..=b'9']) = raw[at..].first_chunk::<6>()
    {
        out.push(digit - b'0');
        return at + 6;
    }
    let plain = match kind {
        b'b' => 0x08,
        b't' => b'\t',
        b'n' => b'\n',
        b'f' => 0x0C,
        b'r' => b'\r',
        b'u' => return unescape_unit(raw, at, out),
        other => *other,
    };
    out.push(plain);
    at + 2
}

/// `\uXXXX`, or two of them for a character beyond the basic plane. A lone surrogate becomes `?`,
/// as in Java's UTF-8 encoder.
fn unescape_unit(raw: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let unit = hex4(raw, at + 2).unwrap_or(0xDC00);
    if unit < 0x80 {
        out.push(unit as u8);
        return at + 6;
    }
    let mut end = at + 6;
    let mut decoded = char::from_u32(u32::from(unit));
    if (0xD800..0xDC00).contains(&unit)
        && raw.get(end..end + 2) == Some(b"\\u")
        && let Some(low @ 0xDC00..=0xDFFF) = hex4(raw, end + 2)
    {
        decoded = char::decode_utf16([unit, low]).next().and_then(Result::ok);
        end += 6;
    }
    let decoded = decoded.unwrap_or('?');
    out.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
    end.min(raw.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_unescape(raw: &str, expected: &str) {
        assert_eq!(
            Text::checked(raw.as_bytes(), true).to_cow(),
            expected,
            "{raw}"
        );
    }

    #[test]
    fn escapes_are_read() {
        check_unescape(r"a\u0001b\u0002", "a\u{1}b\u{2}");
        check_unescape(r#"\"\\\/\b\t\n\f\r"#, "\"\\/\u{8}\t\n\u{c}\r");
        check_unescape(r"\u00e9\u4e2d", "é中");
        check_unescape(r"\ud83d\ude00!", "😀!");
        check_unescape(r"\u0009\u000a\u000A0123456789\u0000", "\t\n\n0123456789\0");
        for len in 0..20 {
            let (before, after) = ("x".repeat(len), "y".repeat(20 - len));
            let raw = format!(r#"{before}\u0001\"{after}\u00e9"#);
            check_unescape(&raw, &format!("{before}\u{1}\"{after}é"));
        }
        check_unescape(r"\ud83dx", "?x");
        check_unescape(r"\ude00", "?");
        check_unescape(r"\ud83d\u0041", "?A");
        check_unescape(r"\uD83D\uDE00", "😀");
    }

    fn check_escape(text: &str, expected: &str) {
        let mut out = Vec::new();
        escape(text.as_bytes(), &mut out);
        assert_eq!(std::str::from_utf8(&out), Ok(expected));
        assert_eq!(Text::checked(&out, true).to_cow(), text);
    }

    #[test]
    fn escapes_are_written_as_fastjson2_does() {
        check_escape("plain text of some length", "plain text of some length");
        check_escape("a\u{1}b\u{2}", r"a\u0001b\u0002");
        check_escape("\"\\\u{8}\t\n\u{c}\r\u{1f}", r#"\"\\\b\t\n\f\r\u001f"#);
        check_escape("/<>&'\u{7f}\u{2028}é中😀", "/<>&'\u{7f}\u{2028}é中😀");
        check_escape("1234567\"", "1234567\\\"");
    }

    fn check_i64(text: &str, expected: Option<i64>) {
        assert_eq!(Text::plain(text).parse_i64(), expected, "{text}");
    }

    #[test]
    fn numbers() {
        check_i64("0", Some(0));
        check_i64("-12", Some(-12));
        check_i64("+7", Some(7));
        check_i64("9223372036854775807", Some(i64::MAX));
        check_i64("-9223372036854775808", Some(i64::MIN));
        check_i64("9223372036854775808", None);
        check_i64("", None);
        check_i64("-", None);
        check_i64(" 1", None);
        check_i64("1.0", None);
        check_i64("00000000000000000000000001", Some(1));
        assert_eq!(Text::plain("2147483648").parse_i32(), None);
        assert_eq!(Text::checked(br"\u0031", true).parse_i32(), Some(1));
        assert!(Text::plain("True").parse_bool());
        assert!(!Text::plain("1").parse_bool());
    }

    #[test]
    fn searches_find_every_position() {
        for len in 0..40 {
            for at in 0..len {
                let mut bytes = vec![b'x'; len];
                bytes[at] = b'\\';
                assert_eq!(find_quote_or_backslash(&bytes, 0), Some(at));
                assert_eq!(find_special(&bytes, 0), Some(at));
                bytes[at] = 0x1F;
                assert_eq!(find_special(&bytes, 0), Some(at));
                assert_eq!(find_quote_or_backslash(&bytes, 0), None);
                bytes[at] = 0xA2;
                assert_eq!(find_special(&bytes, 0), None);
            }
        }
    }

    #[test]
    fn equality_sees_through_escapes() {
        assert_eq!(Text::checked(br"\u0061b", true), Text::plain("ab"));
        assert_eq!(Text::checked(br"\u0061b", true), "ab");
        assert_ne!(Text::plain("a"), Text::plain("b"));
    }
}
