//! Command headers in JSON, both directions: a hand-written scanner over one object.
//!
//! Accepted, because real peers send it: any key order, unknown members of any value, `null`,
//! numbers and booleans as field values (their text counts), integers as strings, white space and
//! newlines around everything (the C++ client ends with one), raw control characters in strings.
//! Refused: text after the object, nesting deeper than [`DEPTH_MAX`], malformed escapes, bytes that
//! are not UTF-8, integers outside `int32`.
//!
//! Source: `RemotingSerializable`, `RemotingCommand`; spec pages remoting §2, delta-5.5 §2.

use super::command::{Command, CommandError};
use super::ext::{ExtFields, Span};
use super::frame::{Codec, Frame};
use super::language::Language;
use super::text::{Text, find_quote_or_backslash, hex4};

/// Values of unknown members may nest this deep.
pub const DEPTH_MAX: usize = 32;
/// Digits that fit an `i64` whatever they are.
const DIGITS_MAX: usize = 18;

pub(super) fn decode(frame: Frame<'_>) -> Result<Command<'_>, CommandError> {
    decode_and_find_opaque(frame).map(|(command, _)| command)
}

/// Also says where the value of `opaque` lies; an empty span if there is none.
pub(super) fn decode_and_find_opaque(
    frame: Frame<'_>,
) -> Result<(Command<'_>, Span), CommandError> {
    std::str::from_utf8(frame.header).map_err(|_| CommandError::NotUtf8)?;
    let mut command = Command {
        code: 0,
        language: Language::Java,
        version: 0,
        opaque: 0,
        flag: 0,
        remark: None,
        ext: ExtFields::new(frame.header),
        body: frame.body,
        codec: Codec::Json,
    };
    let mut opaque = Span::default();
    let mut scan = Scan::new(frame.header);
    scan.object(|scan, key| {
        let from = scan.at;
        let is_opaque = scan.member(key, &mut command)?;
        if is_opaque {
            opaque = Span::new(from, scan.at - from, false);
        }
        Ok(())
    })?;
    scan.skip_space();
    if scan.at == scan.bytes.len() {
        Ok((command, opaque))
    } else {
        Err(scan.error("the end"))
    }
}

pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn error(&self, expected: &'static str) -> CommandError {
        CommandError::Json {
            at: self.at,
            expected,
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes `byte` and the space before it, if it comes next.
    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        if self.peek() == Some(byte) {
            self.at += 1;
            return true;
        }
        self.take_after_space(byte)
    }

    /// Peers on the hot path write no space.
    #[cold]
    fn take_after_space(&mut self, byte: u8) -> bool {
        self.skip_space();
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    /// Takes these bytes, if they come next.
    #[inline]
    pub(super) fn take_same(&mut self, bytes: &[u8]) -> bool {
        let next = self.bytes.get(self.at..self.at + bytes.len());
        self.at += bytes.len();
        next.is_some_and(|next| same(next, bytes))
    }

    /// Takes an `int32` in digits, with a minus or without.
    #[inline]
    pub(super) fn digits(&mut self) -> Option<i32> {
        i32::try_from(self.long_digits()?).ok()
    }

    /// Takes a number in digits, with a minus or without: at most [`DIGITS_MAX`] of them.
    #[inline]
    pub(super) fn long_digits(&mut self) -> Option<i64> {
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let start = self.at;
        let mut value = 0i64;
        while let Some(eight) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk)
            && let Some(number) = eight_digits(*eight)
        {
            value = value.wrapping_mul(100_000_000).wrapping_add(number);
            self.at += eight.len();
        }
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        let fits = (1..=DIGITS_MAX).contains(&(self.at - start));
        fits.then_some(if negative { -value } else { value })
    }

    /// Takes a string up to its closing quote, which stays; the opening one was taken.
    #[inline]
    pub(super) fn quoted(&mut self) -> Option<Span> {
        let text = self.inside_string().ok()?;
        self.at -= 1;
        Some(text)
    }

    /// Calls `member` with each key; it must consume the value.
    #[inline]
    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Span) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        if !self.take(b'{') {
            return Err(self.error("an object"));
        }
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.error("a colon"));
            }
            member(self, key)?;
            if !self.take(b',') {
                break;
            }
        }
        if self.take(b'}') {
            Ok(())
        } else {
            Err(self.error("a comma or a brace"))
        }
    }

    /// True if it was `opaque`.
    fn member(&mut self, key: Span, command: &mut Command<'a>) -> Result<bool, CommandError> {
        let key = key.text(self.bytes);
        let unescaped;
        let name = match key.as_plain_bytes() {
            Some(plain) => plain,
            None => {
                unescaped = key.to_cow();
                unescaped.as_bytes()
            }
        };
        match name {
            b"code" => command.code = self.int32()?,
            b"flag" => command.flag = self.int32()?,
            b"opaque" => {
                command.opaque = self.int32()?;
                return Ok(true);
            }
            b"version" => command.version = self.int32()?,
            b"language" => command.language = self.language()?,
            b"remark" => command.remark = self.scalar()?.map(|span| span.text(self.bytes)),
            b"extFields" => self.ext_fields(&mut command.ext)?,
            _ => self.skip_value()?,
        }
        Ok(false)
    }

    fn ext_fields(&mut self, ext: &mut ExtFields<'a>) -> Result<(), CommandError> {
        ext.clear();
        self.skip_space();
        if self.peek() == Some(b'n') {
            return self.skip_value();
        }
        self.object(|scan, key| {
            if let Some(value) = scan.scalar()? {
                ext.push(key, value)
                    .then_some(())
                    .ok_or(CommandError::TooManyFields)?;
            }
            Ok(())
        })
    }

    /// Skips space, then takes a string with its quotes; the span is the inside.
    #[inline]
    fn string(&mut self) -> Result<Span, CommandError> {
        if !self.take(b'"') {
            return Err(self.error("a string"));
        }
        self.inside_string()
    }

    /// Takes the rest of a string whose opening quote was taken, with the closing quote.
    #[inline]
    pub(super) fn inside_string(&mut self) -> Result<Span, CommandError> {
        let start = self.at;
        let mut at = start;
        let mut escaped = false;
        loop {
            let found = find_quote_or_backslash(self.bytes, at);
            at = found.ok_or(CommandError::Json {
                at: start,
                expected: "a closing quote",
            })?;
            if self.bytes[at] == b'"' {
                self.at = at + 1;
                return Ok(Span::new(start, at - start, escaped));
            }
            escaped = true;
            at += self.escape_len(at)?;
        }
    }

    /// Length of the escape sequence at this byte, checked to be well-formed.
    #[inline]
    fn escape_len(&self, at: usize) -> Result<usize, CommandError> {
        // What ends a property or its name.
        if let Some([_, b'u', b'0', b'0', b'0', b'0'..=b'9']) = self.bytes[at..].first_chunk() {
            return Ok(6);
        }
        match self.bytes.get(at + 1) {
            Some(b'u') if hex4(self.bytes, at + 2).is_some() => Ok(6),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            _ => Err(CommandError::Json {
                at,
                expected: "a valid escape",
            }),
        }
    }

    /// A string, a number or a boolean as text; `None` for null and for nested values.
    #[inline]
    fn scalar(&mut self) -> Result<Option<Span>, CommandError> {
        if self.peek() == Some(b'"') {
            return self.string().map(Some);
        }
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.string().map(Some),
            Some(b'{' | b'[') => self.skip_value().map(|()| None),
            _ => {
                let word = self.bare_word()?;
                Ok((word.text(self.bytes) != "null").then_some(word))
            }
        }
    }

    /// A number, `true`, `false` or `null`.
    fn bare_word(&mut self) -> Result<Span, CommandError> {
        let start = self.at;
        while let Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') = self.peek() {
            self.at += 1;
        }
        let word = &self.bytes[start..self.at];
        let number = matches!(word, [b'0'..=b'9', ..] | [b'-' | b'+', b'0'..=b'9', ..]);
        if number || matches!(word, b"true" | b"false" | b"null") {
            return Ok(Span::new(start, self.at - start, false));
        }
        self.at = start;
        Err(self.error("a value"))
    }

    /// An `int32`; null counts as 0, a whole number may be written as a string or with `.0`.
    fn int32(&mut self) -> Result<i32, CommandError> {
        let start = self.at;
        let not_int32 = CommandError::Json {
            at: start,
            expected: "an int32",
        };
        let Some(span) = self.scalar()? else {
            return Ok(0);
        };
        let text = span.text(self.bytes);
        let whole = || {
            let (whole, fraction) = text.as_plain()?.split_once('.')?;
            let zeros = fraction.bytes().all(|digit| digit == b'0');
            if zeros {
                Text::plain(whole).parse_i32()
            } else {
                None
            }
        };
        text.parse_i32().or_else(whole).ok_or(not_int32)
    }

    /// The enum's name, or its ordinal.
    fn language(&mut self) -> Result<Language, CommandError> {
        let Some(span) = self.scalar()? else {
            return Ok(Language::Other);
        };
        let text = span.text(self.bytes);
        match text.parse_i32() {
            Some(code) => Ok(Language::from_code(u8::try_from(code).unwrap_or(u8::MAX))),
            None => Ok(Language::from_name(text.to_cow().as_bytes())),
        }
    }

    /// Skips a value of any kind, without recursion.
    fn skip_value(&mut self) -> Result<(), CommandError> {
        let mut closers = [0u8; DEPTH_MAX];
        let mut depth = 0;
        loop {
            self.skip_space();
            let opened = match self.peek() {
                Some(b'{') => Some(b'}'),
                Some(b'[') => Some(b']'),
                Some(b'"') => self.string().map(|_| None)?,
                _ => self.bare_word().map(|_| None)?,
            };
            if let Some(closer) = opened {
                *closers.get_mut(depth).ok_or(CommandError::TooDeep)? = closer;
                depth += 1;
                self.at += 1;
                if !self.take(closer) {
                    self.skip_key(closer)?;
                    continue;
                }
                depth -= 1;
            }
            while depth > 0 && self.take(closers[depth - 1]) {
                depth -= 1;
            }
            if depth == 0 {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.error("a comma or a closing bracket"));
            }
            self.skip_key(closers[depth - 1])?;
        }
    }

    /// Inside an object: the key and colon before the next value.
    fn skip_key(&mut self, closer: u8) -> Result<(), CommandError> {
        if closer == b'}' {
            self.string()?;
            if !self.take(b':') {
                return Err(self.error("a colon"));
            }
        }
        Ok(())
    }
}

/// The number that eight digits are: neighbours are put together, then pairs, then fours.
#[inline]
fn eight_digits(digits: [u8; 8]) -> Option<i64> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    let word = u64::from_le_bytes(digits);
    let values = word ^ ZEROS;
    let above_nine = values.wrapping_add(0x7676_7676_7676_7676) | values;
    if above_nine & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let twos = values.wrapping_mul(10).wrapping_add(values >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = twos.wrapping_mul(100).wrapping_add(twos >> 16) & 0x0000_FFFF_0000_FFFF;
    let eight = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xFFFF_FFFF;
    Some(eight as i64)
}

/// Whether two texts of one length are the same. What stands between two values is short: a few
/// comparisons here, where a call that compares any length costs as much again.
#[inline]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    if let (Some(a_first), Some(b_first)) = (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        return a_first == b_first
            && a.last_chunk::<8>() == b.last_chunk::<8>()
            && (a.len() <= 16 || a == b);
    }
    if let (Some(a_first), Some(b_first)) = (a.first_chunk::<4>(), b.first_chunk::<4>()) {
        return a_first == b_first && a.last_chunk::<4>() == b.last_chunk::<4>();
    }
    a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_eight_at_a_time() {
        let read = |text: &str| {
            let mut scan = Scan::new(text.as_bytes());
            (scan.long_digits(), scan.at)
        };
        for number in [
            0,
            7,
            99_999_999,
            100_000_000,
            1_726_000_000_000,
            123_456_789_012_345_678,
        ] {
            for number in [number, -number] {
                let text = number.to_string();
                assert_eq!(read(&text), (Some(number), text.len()));
                let more = format!("{text}\",\"x\":\"12345678");
                assert_eq!(read(&more), (Some(number), text.len()));
            }
        }
        assert_eq!(read("1234567890123456789").0, None, "too many");
        assert_eq!(
            (read("").0, read("-").0, read("x1234567").0),
            (None, None, None)
        );
        // Whatever byte comes between, the number ends there.
        for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_digit()) {
            for place in 1..16 {
                let mut text = *b"1234567812345678";
                text[place] = byte;
                let expected = "1234567812345678"[..place].parse().ok();
                let mut scan = Scan::new(&text);
                assert_eq!(
                    (scan.long_digits(), scan.at),
                    (expected, place),
                    "{byte} at {place}"
                );
            }
        }
    }

    fn decoded(header: &[u8]) -> Result<Command<'_>, CommandError> {
        decode(Frame {
            codec: Codec::Json,
            header,
            body: b"",
        })
    }

    fn check(header: &str, expected: &str) {
        let command = decoded(header.as_bytes()).unwrap_or_else(|e| panic!("{header}: {e}"));
        let fields: Vec<_> = command
            .ext
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let got = format!(
            "{} {} v{} #{} f{} {:?} [{}]",
            command.code,
            command.language.name(),
            command.version,
            command.opaque,
            command.flag,
            command.remark,
            fields.join(" ")
        );
        assert_eq!(got, expected, "{header}");
    }

    #[test]
    fn accepted() {
        check("{}", "0 JAVA v0 #0 f0 None []");
        check(
            r#"{"code":310,"extFields":{"a":"g","b":"t"},"language":"GO","opaque":-3,"version":3}"#,
            "310 GO v3 #-3 f0 None [a=g b=t]",
        );
        check(
            " { \"code\" : 1 ,\"opaque\":2\r\n}\n",
            "1 JAVA v0 #2 f0 None []",
        );
        check(
            r#"{"code":"105","flag":1.0,"opaque":null}"#,
            "105 JAVA v0 #0 f1 None []",
        );
        check(
            r#"{"extFields":null,"remark":null}"#,
            "0 JAVA v0 #0 f0 None []",
        );
        check(
            r#"{"remark":"","extFields":{}}"#,
            r#"0 JAVA v0 #0 f0 Some("") []"#,
        );
        check(
            r#"{"extFields":{"d":4,"m":true,"x":1.50,"n":null,"o":{"p":[1]},"s":"é\u0001"}}"#,
            "0 JAVA v0 #0 f0 None [d=4 m=true x=1.50 s=é\u{1}]",
        );
        check(
            r#"{"x":{"a":[{},[],"]",{"b":[1,{"c":null}]}],"d":"}"},"y":[],"code":7}"#,
            "7 JAVA v0 #0 f0 None []",
        );
        check(r#"{"language":9,"code":1}"#, "1 GO v0 #0 f0 None []");
        check(r#"{"language":{"a":1}}"#, "0 OTHER v0 #0 f0 None []");
        check(r#"{"\u0063ode":5,"code":6}"#, "6 JAVA v0 #0 f0 None []");
        check(
            r#"{"extFields":{"a":"1"},"extFields":{"b":"2"}}"#,
            "0 JAVA v0 #0 f0 None [b=2]",
        );
    }

    fn check_refused(header: &[u8], expected: &str) {
        let error = decoded(header).map(|_| ()).expect_err("must be refused");
        assert_eq!(
            error.to_string(),
            expected,
            "{}",
            String::from_utf8_lossy(header)
        );
    }

    #[test]
    fn refused() {
        check_refused(b"", "header byte 0: expected an object");
        check_refused(b"[]", "header byte 0: expected an object");
        check_refused(b"{\"code\":1", "header byte 9: expected a comma or a brace");
        check_refused(b"{\"code\" 1}", "header byte 8: expected a colon");
        check_refused(b"{\"code\":1}x", "header byte 10: expected the end");
        check_refused(b"{\"code\":2147483648}", "header byte 8: expected an int32");
        check_refused(b"{\"code\":1.5}", "header byte 8: expected an int32");
        check_refused(b"{\"code\":tru}", "header byte 8: expected a value");
        check_refused(b"{\"code\":", "header byte 8: expected a value");
        check_refused(
            b"{\"x\":[1}",
            "header byte 7: expected a comma or a closing bracket",
        );
        check_refused(b"{\"x\":{1}}", "header byte 6: expected a string");
        check_refused(b"{\"x\":\"\\q\"}", "header byte 6: expected a valid escape");
        check_refused(
            b"{\"x\":\"\\u00g0\"}",
            "header byte 6: expected a valid escape",
        );
        check_refused(b"{\"x\":\"abc", "header byte 6: expected a closing quote");
        check_refused(b"{\"x\":\"\xFF\"}", "the header is not UTF-8");
        check_refused(b"{\"extFields\":3}", "header byte 13: expected an object");
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| {
            format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes()
        };
        assert!(decoded(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(
            decoded(&nested(DEPTH_MAX + 1)).err(),
            Some(CommandError::TooDeep)
        );
    }

    #[test]
    fn fields_are_limited() {
        let header = |count: usize| {
            let fields: Vec<_> = (0..count).map(|n| format!("\"k{n}\":{n}")).collect();
            format!("{{\"extFields\":{{{}}}}}", fields.join(",")).into_bytes()
        };
        let most = header(crate::remoting::ext::EXT_FIELDS_MAX);
        assert_eq!(decoded(&most).unwrap().ext.find("k255").unwrap(), "255");
        let over = header(crate::remoting::ext::EXT_FIELDS_MAX + 1);
        assert_eq!(decoded(&over).err(), Some(CommandError::TooManyFields));
    }
}
