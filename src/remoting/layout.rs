//! JSON headers laid out like an earlier one: compared instead of scanned.
//!
//! A client writes each kind of request with the same members in the same order; only the values of
//! its extension fields and the request's number change. A [`Layout`] is a header that the scanner
//! accepted, cut at those values. A header whose bytes between the values are the same, and whose
//! values are strings and a number again, is well-formed and means the same: what stands between
//! was judged by the scanner. Whatever does not fit goes to the scanner, so the answer is always
//! the scanner's.

use super::command::{Command, CommandError};
use super::ext::{ExtFields, Span};
use super::frame::{Codec, Frame};
use super::json::{self, Scan};
use super::language::Language;

/// Kinds of requests that are remembered: what one connection sends often, and a little more.
const KNOWN_MAX: usize = 4;
/// Longer headers are not remembered; bytes.
const HEADER_MAX: usize = 4096;
/// Of the headers that fit nothing known, one in so many is learned, so that headers which never
/// repeat cost little.
const LEARN_EVERY: u32 = 16;

/// The layouts of the headers seen lately. One for each thread that decodes.
#[derive(Default)]
pub struct Layouts {
    /// The more often used one is nearer to the front.
    known: Vec<Layout>,
    misses: u32,
}

impl Layouts {
    /// As [`Command::decode`], for one frame of many.
    #[inline]
    pub fn decode<'a>(&mut self, frame: Frame<'a>) -> Result<Command<'a>, CommandError> {
        if frame.codec == Codec::Binary {
            return Command::decode(frame);
        }
        for at in 0..self.known.len() {
            if let Some(command) = self.known[at].decode(frame) {
                if at > 0 {
                    self.known.swap(at - 1, at);
                }
                return Ok(command);
            }
        }
        let (command, opaque) = json::decode_and_find_opaque(frame)?;
        if self.misses.is_multiple_of(LEARN_EVERY)
            && let Some(layout) = Layout::of(&command, opaque, frame.header)
        {
            self.known.truncate(KNOWN_MAX - 1);
            self.known.push(layout);
        }
        self.misses = self.misses.wrapping_add(1);
        Ok(command)
    }
}

/// A header cut at its values.
struct Layout {
    /// The header it was learned from.
    header: Box<[u8]>,
    values: Vec<Value>,
    /// What follows the last value starts here.
    rest: usize,
    code: i32,
    language: Language,
    version: i32,
    flag: i32,
}

/// A place where headers of one layout differ.
struct Value {
    /// The bytes before it, since the value before.
    from: usize,
    to: usize,
    kind: Kind,
}

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
        let number = &header[opaque.range()];
        let plain = number.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-'));
        if !plain || number.is_empty() || command.remark.is_some() || header.len() > HEADER_MAX {
            return None;
        }
        let mut cuts: Vec<_> = command
            .ext
            .spans()
            .map(|(key, value)| (value, Kind::Field { key }))
            .collect();
        let place = cuts.partition_point(|(value, _)| value.range().start < opaque.range().start);
        cuts.insert(place, (opaque, Kind::Opaque));
        let mut from = 0;
        let mut values = Vec::with_capacity(cuts.len());
        for (value, kind) in cuts {
            let range = value.range();
            // A field may be a bare number or word: `opaque` is one, the others are rare.
            let quoted = header.get(range.start.wrapping_sub(1)) == Some(&b'"');
            if quoted == matches!(kind, Kind::Opaque) {
                return None;
            }
            values.push(Value {
                from,
                to: range.start,
                kind,
            });
            from = range.end;
        }
        Some(Layout {
            header: header.into(),
            values,
            rest: from,
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
        let mut scan = Scan::new(frame.header);
        for value in &self.values {
            let shift = (scan.at as u32).wrapping_sub(value.from as u32);
            if !scan.take_same(&self.header[value.from..value.to]) {
                return None;
            }
            match value.kind {
                Kind::Opaque => command.opaque = scan.digits()?,
                Kind::Field { key } => {
                    let text = scan.inside_string().ok()?;
                    // The closing quote is the first of the bytes that must be the same.
                    scan.at -= 1;
                    if !command.ext.push(key.moved(shift), text) {
                        return None;
                    }
                }
            }
        }
        let same = scan.take_same(&self.header[self.rest..]) && scan.at == frame.header.len();
        (same && std::str::from_utf8(frame.header).is_ok()).then_some(command)
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
        let mut known = layouts.known.iter();
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
            layouts.misses = 0;
            check(&mut layouts, header.as_bytes());
            assert!(layouts.known.is_empty(), "{header}");
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
            layouts.misses = 0;
            check(
                &mut layouts,
                SEND.replace("310", &code.to_string()).as_bytes(),
            );
            layouts.misses = 0;
            check(&mut layouts, PULL.as_bytes());
        }
        assert_eq!(layouts.known.len(), KNOWN_MAX);
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
            layouts.misses = 0;
            check(&mut layouts, PULL.as_bytes());
            for (send, at, text) in edits {
                let mut header = if send { SEND } else { PULL }.as_bytes().to_vec();
                let at = at.index(header.len());
                let end = (at + text.len()).min(header.len());
                header.splice(at..end, text.bytes());
                layouts.misses = 0;
                check(&mut layouts, &header);
            }
        }
    }
}
