//! JSON headers laid out like an earlier one: compared instead of scanned.
//!
//! A client writes each kind of request with the same members in the same order; only the values of
//! its extension fields and the request's number change. A [`Layout`] is a header that the scanner
//! accepted, cut at those values. A header whose bytes between the values are the same, and whose
//! values are strings and a number again, is well-formed and means the same: what stands between
//! was judged by the scanner. Whatever does not fit goes to the scanner, so the answer is always
//! the scanner's.

use crate::base::lately::Lately;

use super::command::{Command, CommandError};
use super::ext::{ExtFields, Span};
use super::frame::{Codec, Frame};
use super::json::{self, Scan};
use super::language::Language;

/// Longer headers are not remembered; bytes.
pub(super) const HEADER_MAX: usize = 4096;
/// The layouts of the headers seen lately. One for each thread that decodes.
#[derive(Default)]
pub struct Layouts(Lately<Layout>);

impl Layouts {
    /// As [`Command::decode`], for one frame of many.
    #[inline]
    pub fn decode<'a>(&mut self, frame: Frame<'a>) -> Result<Command<'a>, CommandError> {
        if frame.codec == Codec::Binary {
            return Command::decode(frame);
        }
        if let Some(command) = self.0.find(|layout| layout.decode(frame)) {
            return Ok(command);
        }
        let (command, opaque) = json::decode_and_find_opaque(frame)?;
        self.0.miss(|| Layout::of(&command, opaque, frame.header));
        Ok(command)
    }
}

/// A header cut at the values that differ among headers of its layout. `K` says which they are.
pub(super) struct Cuts<K> {
    /// The header it was learned from.
    header: Box<[u8]>,
    values: Vec<Value<K>>,
    /// What follows the last value starts here.
    rest: usize,
    rest_same: Vec<(Span, K)>,
}

/// Those that lie there.
pub(super) fn between<K: Copy>(values: &[(Span, K)], from: usize, to: usize) -> Vec<(Span, K)> {
    let lies = |(span, _): &&(Span, K)| from <= span.range().start && span.range().end <= to;
    values.iter().filter(lies).copied().collect()
}

/// Whether a value found by the scanner is a string.
pub(super) fn is_quoted(header: &[u8], value: Span) -> bool {
    header.get(value.range().start.wrapping_sub(1)) == Some(&b'"')
}

struct Value<K> {
    /// The bytes before it, since the value before.
    from: usize,
    to: usize,
    kind: K,
    /// Values among those bytes that are wanted, too.
    same: Vec<(Span, K)>,
}

/// Where a value of a header is.
pub(super) enum Place<'s, 'a> {
    /// To be read here; and how much further on it lies than in the header learned from.
    Next(&'s mut Scan<'a>, u32),
    /// It is the same as in the header learned from.
    Same(Span),
}

impl<K: Copy> Cuts<K> {
    /// Values where they lie in the header, in any order, and between them strings that stay the
    /// same. `None` if one is not what `is_number` says, bare digits or else a string; or if the
    /// header is too long to be remembered.
    pub(super) fn of(
        header: &[u8],
        mut values: Vec<(Span, K)>,
        same: &[(Span, K)],
        is_number: impl Fn(K) -> bool,
    ) -> Option<Self> {
        if header.len() > HEADER_MAX {
            return None;
        }
        values.sort_by_key(|(value, _)| value.range().start);
        let mut from = 0;
        let mut cut = Vec::with_capacity(values.len());
        for (value, kind) in values {
            let range = value.range();
            let number = header[range.clone()]
                .iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'-'));
            let quoted = is_quoted(header, value);
            // A field may be a bare number or word: `opaque` is one, the others are rare.
            let as_said = match is_number(kind) {
                true => number && !quoted && !range.is_empty(),
                false => quoted,
            };
            if !as_said {
                return None;
            }
            let to = range.start;
            let same = between(same, from, to);
            cut.push(Value {
                from,
                to,
                kind,
                same,
            });
            from = range.end;
        }
        Some(Cuts {
            header: header.into(),
            values: cut,
            rest: from,
            rest_same: between(same, from, header.len()),
        })
    }

    /// The header it was learned from.
    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    /// Compares what stands between the values; `take` takes each value. `None` if `take` says so
    /// or if anything differs. Whether the values are UTF-8 is not looked at.
    #[inline(always)]
    pub(super) fn walk<'a>(
        &self,
        header: &'a [u8],
        mut take: impl FnMut(Place<'_, 'a>, K) -> Option<()>,
    ) -> Option<()> {
        let mut scan = Scan::new(header);
        for value in &self.values {
            let shift = (scan.at as u32).wrapping_sub(value.from as u32);
            if !scan.take_same(&self.header[value.from..value.to]) {
                return None;
            }
            for (span, kind) in &value.same {
                take(Place::Same(span.moved(shift)), *kind)?;
            }
            take(Place::Next(&mut scan, shift), value.kind)?;
        }
        let shift = (scan.at as u32).wrapping_sub(self.rest as u32);
        for (span, kind) in &self.rest_same {
            take(Place::Same(span.moved(shift)), *kind)?;
        }
        let same = scan.take_same(&self.header[self.rest..]) && scan.at == header.len();
        same.then_some(())
    }
}

/// A header of which all fields may change.
struct Layout {
    cuts: Cuts<Kind>,
    code: i32,
    language: Language,
    version: i32,
    flag: i32,
}

#[derive(Clone, Copy)]
enum Kind {
    Opaque,
    /// A string; its key lies among the bytes before it.
    Field {
        key: Span,
    },
}

impl Layout {
    /// `None` if the header has parts that need the scanner each time.
    fn of(command: &Command<'_>, opaque: Span, header: &[u8]) -> Option<Layout> {
        if command.remark.is_some() {
            return None;
        }
        let fields = command.ext.spans();
        let fields = fields.map(|(key, value)| (value, Kind::Field { key }));
        let values = fields.chain([(opaque, Kind::Opaque)]).collect();
        Some(Layout {
            cuts: Cuts::of(header, values, &[], |kind| matches!(kind, Kind::Opaque))?,
            code: command.code,
            language: command.language,
            version: command.version,
            flag: command.flag,
        })
    }

    /// `None` if the header is laid out in another way, or is malformed.
    #[inline]
    fn decode<'a>(&self, frame: Frame<'a>) -> Option<Command<'a>> {
        let mut command = Command {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: 0,
            flag: self.flag,
            remark: None,
            ext: ExtFields::new(frame.header),
            body: frame.body,
            codec: Codec::Json,
        };
        self.cuts.walk(frame.header, |place, kind| {
            let Place::Next(scan, shift) = place else {
                return None;
            };
            match kind {
                Kind::Opaque => command.opaque = scan.digits()?,
                Kind::Field { key } => {
                    let text = scan.quoted()?;
                    if !command.ext.push(key.moved(shift), text) {
                        return None;
                    }
                }
            }
            Some(())
        })?;
        std::str::from_utf8(frame.header).is_ok().then_some(command)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEND: &str = concat!(
        r#"{"code":310,"extFields":{"a":"group","b":"topic","d":"4","g":"1726000000000","#,
        r#""i":"UNIQ_KEY\u00017F00\u0002TAGS\u0001TagA"},"flag":0,"language":"JAVA","#,
        r#""opaque":7,"serializeTypeCurrentRPC":"JSON","version":493}"#
    );
    const PULL: &str = concat!(
        r#"{"opaque":-12,"code":11,"language":"GO","version":317,"flag":0,"remark":null,"#,
        r#""extFields":{"consumerGroup":"g\u00e9","n":null,"maxMsgNums":"32"}} "#
    );

    fn frame(header: &[u8]) -> Frame<'_> {
        Frame {
            codec: Codec::Json,
            header,
            body: b"body",
        }
    }

    fn check(layouts: &mut Layouts, header: &[u8]) {
        let expected = Command::decode(frame(header)).map(|command| format!("{command:?}"));
        let got = layouts
            .decode(frame(header))
            .map(|command| format!("{command:?}"));
        assert_eq!(got, expected, "{}", String::from_utf8_lossy(header));
    }

    fn hits(layouts: &Layouts, header: &str) -> bool {
        let mut known = layouts.0.known().iter();
        known.any(|layout| layout.decode(frame(header.as_bytes())).is_some())
    }

    #[test]
    fn what_a_client_changes_is_read_by_the_layout() {
        let mut layouts = Layouts::default();
        check(&mut layouts, SEND.as_bytes());
        for (old, new) in [
            ("group", ""),
            ("topic", "another topic"),
            ("TagA", r#"\"\n"#),
            ("opaque\":7", "opaque\":-2147483648"),
            ("7F00", "é"),
        ] {
            let header = SEND.replace(old, new);
            assert!(hits(&layouts, &header), "{header}");
            check(&mut layouts, header.as_bytes());
        }
    }

    #[test]
    fn what_is_laid_out_otherwise_is_scanned() {
        let mut layouts = Layouts::default();
        check(&mut layouts, SEND.as_bytes());
        for (old, new) in [
            ("310", "320"),
            ("\"4\"", "4"),
            ("\"4\"", "null"),
            ("JAVA", "GO"),
            ("opaque\":7", "opaque\":7.0"),
            ("opaque\":7", "opaque\":\"7\""),
            ("opaque\":7", "opaque\":2147483648"),
            ("opaque\":7", "opaque\":"),
            ("7F00", "\\u00"),
            ("493}", "493} "),
            ("493}", "493"),
        ] {
            let header = SEND.replace(old, new);
            assert!(!hits(&layouts, &header), "{header}");
            check(&mut layouts, header.as_bytes());
        }
        let mut header = SEND.as_bytes().to_vec();
        header[30] = 0xFF;
        check(&mut layouts, &header);
    }

    #[test]
    fn headers_that_need_the_scanner_are_not_learned() {
        let mut layouts = Layouts::default();
        let long = SEND.replace("group", &"g".repeat(HEADER_MAX));
        for header in [
            r#"{"code":0,"opaque":1,"remark":"text"}"#,
            r#"{"code":0}"#,
            r#"{"opaque":"1"}"#,
            r#"{"opaque":1,"extFields":{"a":1}}"#,
            &long,
        ] {
            layouts.0.learn_next();
            check(&mut layouts, header.as_bytes());
            assert!(layouts.0.known().is_empty(), "{header}");
        }
    }

    #[test]
    fn repeated_members_count_as_the_scanner_counts_them() {
        let mut layouts = Layouts::default();
        let twice =
            r#"{"opaque":1,"extFields":{"a":"1"},"opaque":2,"extFields":{"b":"2","b":"3"}}"#;
        check(&mut layouts, twice.as_bytes());
        check(&mut layouts, twice.replace("\"3\"", "\"55\"").as_bytes());
        check(&mut layouts, twice.replace("\"1\"", "\"11\"").as_bytes());
    }

    #[test]
    fn a_few_are_remembered_and_the_oftener_used_stay() {
        let mut layouts = Layouts::default();
        for code in 0..10 {
            layouts.0.learn_next();
            check(
                &mut layouts,
                SEND.replace("310", &code.to_string()).as_bytes(),
            );
            layouts.0.learn_next();
            check(&mut layouts, PULL.as_bytes());
        }
        assert_eq!(layouts.0.known().len(), crate::base::lately::KNOWN_MAX);
        assert!(hits(&layouts, PULL));
    }

    proptest! {
        #[test]
        fn the_answer_is_the_scanners(
            edits in proptest::collection::vec(
                (any::<bool>(), any::<prop::sample::Index>(), "[\\[\\]{}:,\"\\\\a0u ntré.-]{0,3}"),
                1..20,
            ),
        ) {
            let mut layouts = Layouts::default();
            check(&mut layouts, SEND.as_bytes());
            layouts.0.learn_next();
            check(&mut layouts, PULL.as_bytes());
            for (send, at, text) in edits {
                let mut header = if send { SEND } else { PULL }.as_bytes().to_vec();
                let at = at.index(header.len());
                let end = (at + text.len()).min(header.len());
                header.splice(at..end, text.bytes());
                layouts.0.learn_next();
                check(&mut layouts, &header);
            }
        }
    }
}
