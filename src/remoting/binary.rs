//! Command headers in the ROCKETMQ binary form: decoding. Encoding is in [`super::writer`].
//!
//! ```text
//! 2 code   1 language   2 version   4 opaque   4 flag
//! 4 n, n remark (0 = none)
//! 4 m, m fields: { 2 k, k key, 4 v, v value } ...
//! ```
//!
//! All big-endian and signed. A field with an empty key or value reads as absent, as in the
//! reference. Codes beyond `int16` arrive truncated and are mapped back in requests.
//! Source: `RocketMQSerializable`; spec page remoting §3.

use super::code;
use super::command::{Command, CommandError, FLAG_RESPONSE};
use super::ext::{ExtFields, Span};
use super::frame::{Codec, Frame};
use super::json::same;
use super::language::Language;
use super::layout::{HEADER_MAX, between};
use super::text::{Text, is_utf8};
use std::ops::Range;

const VALUE_LENGTH_BYTES: usize = 4;

pub(super) fn decode(frame: Frame<'_>) -> Result<Command<'_>, CommandError> {
    let mut cursor = Cursor {
        bytes: frame.header,
        at: 0,
        ascii: false,
    };
    let code = i32::from(i16::from_be_bytes(cursor.array()?));
    let [language] = cursor.array()?;
    let version = i32::from(i16::from_be_bytes(cursor.array()?));
    let opaque = i32::from_be_bytes(cursor.array()?);
    let flag = i32::from_be_bytes(cursor.array()?);
    let remark = cursor.long_string()?;
    let ext = cursor.fields()?;
    Ok(Command {
        code: if flag & FLAG_RESPONSE == 0 {
            code::request::widen(code)
        } else {
            code
        },
        language: Language::from_code(language),
        version,
        opaque,
        flag,
        remark: remark.map(|span| span.text(frame.header)),
        ext,
        body: frame.body,
        codec: Codec::Binary,
    })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Everything that follows was found to be ASCII, lengths included: one look over all fields
    /// instead of one at each string.
    ascii: bool,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CommandError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let chunk = rest
            .first_chunk::<N>()
            .ok_or(CommandError::Truncated { at: self.at })?;
        self.at += N;
        Ok(*chunk)
    }

    /// A string after an `int32` length.
    #[inline]
    fn long_string(&mut self) -> Result<Option<Span>, CommandError> {
        let len = i32::from_be_bytes(self.array()?);
        self.string(i64::from(len))
    }

    /// A string after an `int16` length.
    #[inline]
    fn short_string(&mut self) -> Result<Option<Span>, CommandError> {
        let len = i16::from_be_bytes(self.array()?);
        self.string(i64::from(len))
    }

    #[inline]
    fn string(&mut self, len: i64) -> Result<Option<Span>, CommandError> {
        let truncated = CommandError::Truncated { at: self.at };
        let len = usize::try_from(len).map_err(|_| truncated)?;
        let bytes = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.get(..len))
            .ok_or(truncated)?;
        if len == 0 {
            return Ok(None);
        }
        if !self.ascii {
            std::str::from_utf8(bytes).map_err(|_| CommandError::NotUtf8)?;
        }
        let span = Span::new(self.at, len, false);
        self.at += len;
        Ok(Some(span))
    }

    /// The field list. Its stated length must end the header exactly.
    fn fields(&mut self) -> Result<ExtFields<'a>, CommandError> {
        let mut ext = ExtFields::new(self.bytes);
        let stated = i32::from_be_bytes(self.array()?);
        let left = self.bytes.len() - self.at;
        if usize::try_from(stated) != Ok(left) {
            return Err(CommandError::Truncated { at: self.at });
        }
        self.ascii = self.bytes[self.at..].is_ascii();
        while self.at < self.bytes.len() {
            let key = self.short_string()?;
            let value = self.long_string()?;
            if let (Some(key), Some(value)) = (key, value) {
                ext.push(key, value)
                    .then_some(())
                    .ok_or(CommandError::TooManyFields)?;
            }
        }
        Ok(ext)
    }
}

/// Where `opaque` lies; what is before it and what is between it and the length of the fields says
/// what kind of command this is.
pub(super) const OPAQUE_AT: usize = 5;
const FLAG_AT: usize = 9;
const REMARK_BYTES_AT: usize = 13;
const FIELDS_BYTES_AT: usize = 17;
const FIELDS_AT: usize = 21;

/// A header cut at values that differ among headers otherwise alike. `K` says which they are.
pub(super) struct Cuts<K> {
    /// The header it was learned from.
    header: Box<[u8]>,
    values: Vec<Value<K>>,
    /// What follows the last value starts here.
    rest: usize,
    rest_same: Vec<(Span, K)>,
}

struct Value<K> {
    /// What is the same before its length.
    from: usize,
    to: usize,
    kind: K,
    /// Values in there that are wanted, too.
    same: Vec<(Span, K)>,
}

impl<K: Copy> Cuts<K> {
    /// Values of a header that decodes, has no remark, and of which no more than `HEADER_MAX` bytes
    /// are worth remembering; and values that stay the same.
    pub(super) fn of(
        header: &[u8],
        values: impl Iterator<Item = (Span, K)>,
        same: &[(Span, K)],
    ) -> Option<Self> {
        if header.len() > HEADER_MAX {
            return None;
        }
        let mut from = FIELDS_AT;
        let mut cuts = Vec::new();
        for (value, kind) in values {
            let range = value.range();
            let to = range.start - VALUE_LENGTH_BYTES;
            let same = between(same, from, to);
            cuts.push(Value {
                from,
                to,
                kind,
                same,
            });
            from = range.end;
        }
        Some(Cuts {
            header: header.into(),
            values: cuts,
            rest: from,
            rest_same: between(same, from, header.len()),
        })
    }

    /// The header it was learned from.
    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    /// Compares what is around the values; `take` takes each value, which is not empty. Gives
    /// `opaque`; `None` if `take` says so or if anything differs.
    #[inline(always)]
    pub(super) fn walk<'a>(
        &self,
        header: &'a [u8],
        mut take: impl FnMut(Text<'a>, K) -> Option<()>,
    ) -> Option<i32> {
        let (head, fields) = header.split_at_checked(FIELDS_AT)?;
        let stated = i32::from_be_bytes(*head[FIELDS_BYTES_AT..].first_chunk()?);
        let same = head[..OPAQUE_AT] == self.header[..OPAQUE_AT]
            && head[FLAG_AT..FIELDS_BYTES_AT] == self.header[FLAG_AT..FIELDS_BYTES_AT]
            && usize::try_from(stated) == Ok(fields.len());
        if !same {
            return None;
        }
        let mut rest = fields;
        for cut in &self.values {
            take_same(rest, cut.from, &cut.same, &mut take)?;
            rest = after_same(rest, &self.header[cut.from..cut.to])?;
            let (len, tail) = rest.split_first_chunk::<VALUE_LENGTH_BYTES>()?;
            let len = usize::try_from(i32::from_be_bytes(*len)).ok()?;
            let (value, tail) = tail.split_at_checked(len)?;
            if value.is_empty() || !is_utf8(value) {
                return None;
            }
            take(Text::checked(value, false), cut.kind)?;
            rest = tail;
        }
        take_same(rest, self.rest, &self.rest_same, &mut take)?;
        let opaque = i32::from_be_bytes(*head[OPAQUE_AT..].first_chunk()?);
        after_same(rest, &self.header[self.rest..])?
            .is_empty()
            .then_some(opaque)
    }
}

/// Takes values that lie so far into `rest` as they did behind `from`, if `rest` begins the same.
#[inline]
fn take_same<'a, K: Copy>(
    rest: &'a [u8],
    from: usize,
    same: &[(Span, K)],
    take: &mut impl FnMut(Text<'a>, K) -> Option<()>,
) -> Option<()> {
    for (span, kind) in same {
        let Range { start, end } = span.range();
        let value = rest.get(start - from..end - from)?;
        take(Text::checked(value, false), *kind)?;
    }
    Some(())
}

/// What follows a known beginning.
#[inline]
fn after_same<'a>(bytes: &'a [u8], known: &[u8]) -> Option<&'a [u8]> {
    let (beginning, rest) = bytes.split_at_checked(known.len())?;
    same(beginning, known).then_some(rest)
}

/// Appends one field.
#[inline]
pub(super) fn put_field(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.extend_from_slice(&(key.len() as i16).to_be_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
    out.extend_from_slice(value);
}

/// Whether a field's whole value lies here, in a header without remark.
pub(super) fn is_value(header: &[u8], value: Range<usize>) -> bool {
    let stated = |at: usize| {
        let bytes = header.get(at..)?.first_chunk()?;
        usize::try_from(i32::from_be_bytes(*bytes)).ok()
    };
    let length_at = value.start.checked_sub(VALUE_LENGTH_BYTES);
    stated(REMARK_BYTES_AT) == Some(0)
        && length_at.is_some_and(|at| at > FIELDS_AT && stated(at) == Some(value.len()))
}

/// States the lengths in such a header after a value, now here, became longer or shorter.
pub(super) fn restate(header: &mut [u8], value: Range<usize>) {
    let fields_bytes = (header.len() - FIELDS_AT) as i32;
    header[FIELDS_BYTES_AT..FIELDS_AT].copy_from_slice(&fields_bytes.to_be_bytes());
    let length_at = value.start - VALUE_LENGTH_BYTES;
    header[length_at..value.start].copy_from_slice(&(value.len() as i32).to_be_bytes());
}

/// Appends one field whose value may carry JSON escapes.
pub(super) fn put_text_field(out: &mut Vec<u8>, key: &str, value: Text<'_>) {
    put_field(out, key, b"");
    let start = out.len();
    value.append_to(out);
    let len = (out.len() - start) as i32;
    out[start - 4..start].copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(code: i16, flag: i32, remark: &str, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&code.to_be_bytes());
        out.push(9);
        out.extend_from_slice(&317i16.to_be_bytes());
        out.extend_from_slice(&5i32.to_be_bytes());
        out.extend_from_slice(&flag.to_be_bytes());
        out.extend_from_slice(&(remark.len() as i32).to_be_bytes());
        out.extend_from_slice(remark.as_bytes());
        let mut ext = Vec::new();
        fields
            .iter()
            .for_each(|(key, value)| put_field(&mut ext, key, value.as_bytes()));
        out.extend_from_slice(&(ext.len() as i32).to_be_bytes());
        out.extend_from_slice(&ext);
        out
    }

    fn decoded(header: &[u8]) -> Result<Command<'_>, CommandError> {
        decode(Frame {
            codec: Codec::Binary,
            header,
            body: b"",
        })
    }

    #[test]
    fn whole_header() {
        let bytes = header(
            310,
            0,
            "why",
            &[("a", "1"), ("", "x"), ("b", ""), ("a", "é")],
        );
        let command = decoded(&bytes).unwrap();
        assert_eq!(
            (command.code, command.opaque, command.version),
            (310, 5, 317)
        );
        assert_eq!(command.language, Language::Go);
        assert_eq!(command.remark, Some(Text::plain("why")));
        assert_eq!(command.ext.len(), 2);
        assert_eq!(command.ext.find("a").unwrap(), "é");
        assert!(command.ext.find("b").is_none());
    }

    #[test]
    fn wide_codes_come_back_in_requests_only() {
        assert_eq!(decoded(&header(3442, 0, "", &[])).unwrap().code, 200_050);
        assert_eq!(decoded(&header(3543, 2, "", &[])).unwrap().code, 200_151);
        assert_eq!(decoded(&header(3442, 1, "", &[])).unwrap().code, 3442);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = header(10, 0, "r", &[("key", "value")]);
        for len in 0..bytes.len() {
            assert!(decoded(&bytes[..len]).is_err(), "{len}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(decoded(&longer).is_err());
    }

    #[test]
    fn negative_lengths_and_bad_text_are_refused() {
        let mut bytes = header(10, 0, "", &[]);
        bytes[13..17].copy_from_slice(&(-1i32).to_be_bytes());
        assert_eq!(
            decoded(&bytes).err(),
            Some(CommandError::Truncated { at: 17 })
        );
        let mut bytes = header(10, 0, "r", &[]);
        bytes[17] = 0xFF;
        assert_eq!(decoded(&bytes).err(), Some(CommandError::NotUtf8));
    }
}
