//! Sends that look like an earlier one: compared instead of scanned, field by field.
//!
//! Of a producer's sends only few fields change: to where, when, which properties. A [`Shape`] is
//! a send that was scanned and decoded, cut at these; all else must be the same, byte by byte, and
//! then means the same. Whatever does not fit goes to the scanner, so the answer is always the
//! scanner's.
//!
//! Most of what may change stays the same for long: the group, often the topic. What has not
//! changed in the sends that a shape met is compared with the rest of it, and only if that fails
//! looked at alone.

use crate::base::lately::Lately;

use super::code::request;
use super::command::Command;
use super::ext::{ExtFields, Span};
use super::frame::{Codec, Frame};
use super::header::send::{SendHeader, long_place, short_place};
use super::language::Language;
use super::layout::{Place, is_quoted};
use super::text::{Text, is_utf8};
use super::{binary, json, layout};

/// The shapes of the sends seen lately. One for each thread that decodes.
#[derive(Default)]
pub struct Shapes(Lately<Shape>);

impl Shapes {
    /// A send that has a known shape, its fields in `header`. Else that is anything.
    #[inline]
    pub fn decode<'a>(&mut self, frame: Frame<'a>, header: &mut SendHeader<'a>) -> Option<Known> {
        self.0.find_mut(|shape| shape.decode(frame, header))
    }

    /// A send that the scanner took and that has no known shape.
    #[inline]
    pub fn learn(&mut self, frame: Frame<'_>) {
        self.0.miss(|| Shape::of(frame));
    }
}

/// A send of a known shape, without its fields.
#[derive(Clone, Copy)]
pub struct Known {
    code: i32,
    language: Language,
    version: i32,
    opaque: i32,
    flag: i32,
}

impl Known {
    /// The whole of it but for the fields: the command's `ext` is empty.
    #[inline]
    pub fn command<'a>(&self, frame: Frame<'a>) -> Command<'a> {
        Command {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flag: self.flag,
            remark: None,
            ext: ExtFields::default(),
            body: frame.body,
            codec: frame.codec,
        }
    }
}

/// What changes from send to send, and every text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Opaque,
    Group,
    Topic,
    DefaultTopic,
    QueueId,
    BornTimestamp,
    Properties,
    BrokerName,
    /// A text that means nothing here, such as a signature.
    Unknown,
}

impl Kind {
    /// By the letter's place, as in [`SendHeader`]. `None` for what must stay the same.
    fn of(place: usize) -> Option<Kind> {
        match place {
            0 => Some(Kind::Group),
            1 => Some(Kind::Topic),
            2 => Some(Kind::DefaultTopic),
            4 => Some(Kind::QueueId),
            6 => Some(Kind::BornTimestamp),
            8 => Some(Kind::Properties),
            13 => Some(Kind::BrokerName),
            _ => None,
        }
    }
}

/// So many sends are looked at before what did not change in them is taken for what stays.
const SEEN: u32 = 32;
/// A bit for each value says whether it has changed.
const VALUES_MAX: usize = 64;

/// A send, cut where others differ.
struct Shape {
    /// The values that may change of the header it was learned from, by their place.
    values: Vec<(Span, Kind)>,
    /// Cut at all of these.
    loose: Cut,
    /// Cut at those that did change.
    tight: Option<Cut>,
    changed: u64,
    seen: u32,
    known: Known,
    /// The fields that stay the same. Of the others texts are empty, numbers those of the sample.
    same: SendHeader<'static>,
}

enum Cut {
    Json(layout::Cuts<Kind>),
    Binary(binary::Cuts<Kind>),
}

impl Shape {
    /// `None` if it is no send, or has parts that need the scanner each time.
    fn of(frame: Frame<'_>) -> Option<Shape> {
        let (command, opaque) = match frame.codec {
            Codec::Json => json::decode_and_find_opaque(frame).map(|(c, at)| (c, Some(at))),
            Codec::Binary => Command::decode(frame).map(|command| (command, None)),
        }
        .ok()?;
        let (header, is_long) = match command.code {
            request::SEND_MESSAGE => (SendHeader::decode_long(&command.ext), true),
            request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
                (SendHeader::decode_short(&command.ext), false)
            }
            _ => return None,
        };
        let header = header.ok()?;
        if command.remark.is_some() || command.is_response() {
            return None;
        }
        let mut values = changing(&command, if is_long { long_place } else { short_place })?;
        values.extend(opaque.map(|at| (at, Kind::Opaque)));
        values.sort_by_key(|(value, _)| value.range().start);
        if values.len() > VALUES_MAX {
            return None;
        }
        let none = Text::plain("");
        Some(Shape {
            loose: Cut::of(frame.codec, frame.header, &values, u64::MAX)?,
            values,
            tight: None,
            changed: 0,
            seen: 0,
            known: Known {
                code: command.code,
                language: command.language,
                version: command.version,
                opaque: 0,
                flag: command.flag,
            },
            same: SendHeader {
                producer_group: none,
                topic: none,
                default_topic: none,
                properties: none,
                broker_name: None,
                ..header
            },
        })
    }

    #[inline]
    fn decode<'a>(&mut self, frame: Frame<'a>, header: &mut SendHeader<'a>) -> Option<Known> {
        *header = self.same;
        if let Some(tight) = &self.tight
            && let Some(opaque) = tight.read(frame, header, |_| ())
        {
            let known = self.known;
            return Some(Known { opaque, ..known });
        }
        self.decode_loose(frame, header)
    }

    /// A send in which something may have changed that had not before.
    #[inline(never)]
    fn decode_loose<'a>(&mut self, frame: Frame<'a>, header: &mut SendHeader<'a>) -> Option<Known> {
        *header = self.same;
        let (mut changed, mut bit) = (self.changed, 1);
        let learned = self.loose.header();
        let mut samples = self.values.iter();
        let opaque = self.loose.read(frame, header, |value| {
            let sample = samples.next().map(|(span, _)| &learned[span.range()]);
            changed |= if sample == Some(value) { 0 } else { bit };
            bit <<= 1;
        })?;
        self.seen = self.seen.saturating_add(1);
        if self.seen == SEEN || (self.seen > SEEN && changed != self.changed) {
            self.tight = Cut::of(frame.codec, learned, &self.values, changed);
        }
        self.changed = changed;
        let known = self.known;
        Some(Known { opaque, ..known })
    }
}

impl Cut {
    /// Cuts a header at those of its values, by their place, whose bit is set; and always where its
    /// number is.
    fn of(codec: Codec, header: &[u8], values: &[(Span, Kind)], changed: u64) -> Option<Cut> {
        let bits = (0..).map(|place| changed >> place & 1 == 1);
        let marked = values.iter().copied().zip(bits);
        let (differ, same): (Vec<_>, Vec<_>) =
            marked.partition(|((_, kind), changed)| *changed || *kind == Kind::Opaque);
        let differ = differ.into_iter().map(|(value, _)| value);
        // The sample's number is in the header that stays the same.
        let is_text = |kind| !matches!(kind, Kind::QueueId | Kind::BornTimestamp);
        let same = same.into_iter().map(|(value, _)| value);
        let same: Vec<_> = same.filter(|(_, kind)| is_text(*kind)).collect();
        Some(match codec {
            Codec::Json => {
                let is_number = |kind| kind == Kind::Opaque;
                Cut::Json(layout::Cuts::of(
                    header,
                    differ.collect(),
                    &same,
                    is_number,
                )?)
            }
            Codec::Binary => Cut::Binary(binary::Cuts::of(header, differ, &same)?),
        })
    }

    fn header(&self) -> &[u8] {
        match self {
            Cut::Json(cuts) => cuts.header(),
            Cut::Binary(cuts) => cuts.header(),
        }
    }

    /// Reads what may change into a header that has the rest; `each` sees every value. Gives
    /// `opaque`.
    #[inline(always)]
    fn read<'a>(
        &self,
        frame: Frame<'a>,
        header: &mut SendHeader<'a>,
        each: impl FnMut(&'a [u8]),
    ) -> Option<i32> {
        match (self, frame.codec) {
            (Cut::Json(cuts), Codec::Json) => read_json(cuts, frame.header, header, each),
            (Cut::Binary(cuts), Codec::Binary) => read_binary(cuts, frame.header, header, each),
            _ => None,
        }
    }
}

/// The values that may change. `None` if a field is there twice.
fn changing(command: &Command<'_>, place: fn(&[u8]) -> Option<usize>) -> Option<Vec<(Span, Kind)>> {
    let header = command.ext.header();
    let mut seen = 0u32;
    let mut values = Vec::new();
    for (key, value) in command.ext.spans() {
        let Some(place) = key.text(header).as_plain_bytes().and_then(place) else {
            if command.codec == Codec::Binary || is_quoted(header, value) {
                values.push((value, Kind::Unknown));
            }
            continue;
        };
        if seen & 1 << place != 0 {
            return None;
        }
        seen |= 1 << place;
        values.extend(Kind::of(place).map(|kind| (value, kind)));
    }
    Some(values)
}

#[inline(always)]
fn read_json<'a>(
    cuts: &layout::Cuts<Kind>,
    bytes: &'a [u8],
    header: &mut SendHeader<'a>,
    mut each: impl FnMut(&'a [u8]),
) -> Option<i32> {
    let mut opaque = 0;
    cuts.walk(bytes, |place, kind| {
        let scan = match place {
            Place::Next(scan, _) => scan,
            Place::Same(span) => {
                header.set_text(kind, span.text(bytes));
                return Some(());
            }
        };
        let from = scan.at;
        match kind {
            Kind::Opaque => opaque = scan.digits()?,
            Kind::QueueId => header.queue_id = scan.digits()?,
            Kind::BornTimestamp => header.born_timestamp = scan.long_digits()?,
            _ => {
                let text = scan.quoted()?;
                if !is_utf8(&bytes[text.range()]) {
                    return None;
                }
                header.set_text(kind, text.text(bytes));
            }
        }
        each(&bytes[from..scan.at]);
        Some(())
    })?;
    Some(opaque)
}

#[inline(always)]
fn read_binary<'a>(
    cuts: &binary::Cuts<Kind>,
    bytes: &'a [u8],
    header: &mut SendHeader<'a>,
    mut each: impl FnMut(&'a [u8]),
) -> Option<i32> {
    cuts.walk(bytes, |value, kind| {
        each(value.wire().0);
        match kind {
            Kind::QueueId => header.queue_id = value.parse_i32()?,
            Kind::BornTimestamp => header.born_timestamp = value.parse_i64()?,
            _ => header.set_text(kind, value),
        }
        Some(())
    })
}

impl<'a> SendHeader<'a> {
    #[inline]
    fn set_text(&mut self, kind: Kind, text: Text<'a>) {
        match kind {
            Kind::Group => self.producer_group = text,
            Kind::Topic => self.topic = text,
            Kind::DefaultTopic => self.default_topic = text,
            Kind::Properties => self.properties = text,
            Kind::BrokerName => self.broker_name = Some(text),
            Kind::Unknown => {}
            Kind::Opaque | Kind::QueueId | Kind::BornTimestamp => unreachable!("a number"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHORT: &str = concat!(
        r#"{"code":310,"extFields":{"a":"group","b":"topic","c":"TBW102","d":"4","e":"3","f":"0","#,
        r#""g":"1726000000000","h":"0","i":"UNIQ_KEY\u00017F00\u0002TAGS\u0001TagA","j":"0","#,
        r#""k":"false","m":"false","n":"broker-a","x":"1"},"flag":0,"language":"JAVA","opaque":7,"#,
        r#""serializeTypeCurrentRPC":"JSON","version":493}"#
    );
    const LONG: &str = concat!(
        r#"{"opaque":-12,"code":10,"language":"CPP","version":317,"flag":2,"extFields":{"#,
        r#""producerGroup":"g","topic":"t","defaultTopic":"TBW102","defaultTopicQueueNums":"8","#,
        r#""queueId":"0","sysFlag":"1","bornTimestamp":"-5","flag":"7","reconsumeTimes":null,"#,
        r#""properties":"","unitMode":"true","maxReconsumeTimes":"16"}} "#
    );

    fn frame(header: &[u8]) -> Frame<'_> {
        Frame {
            codec: Codec::Json,
            header,
            body: b"body",
        }
    }

    /// The same fields in the other form.
    fn binary(json: &str) -> Vec<u8> {
        let command = Command::decode(frame(json.as_bytes())).unwrap();
        let mut fields = Vec::new();
        for (key, value) in command.ext.iter() {
            binary::put_text_field(&mut fields, &key.to_cow(), value);
        }
        let mut header = Vec::new();
        header.extend_from_slice(&(command.code as i16).to_be_bytes());
        header.push(0);
        header.extend_from_slice(&(command.version as i16).to_be_bytes());
        header.extend_from_slice(&command.opaque.to_be_bytes());
        header.extend_from_slice(&command.flag.to_be_bytes());
        header.extend_from_slice(&0i32.to_be_bytes());
        header.extend_from_slice(&(fields.len() as i32).to_be_bytes());
        header.extend_from_slice(&fields);
        header
    }

    fn binary_frame(header: &[u8]) -> Frame<'_> {
        Frame {
            codec: Codec::Binary,
            ..frame(header)
        }
    }

    /// What the scanner makes of it.
    fn scanned(frame: Frame<'_>) -> Option<String> {
        let command = Command::decode(frame).ok()?;
        let send = match command.code {
            request::SEND_MESSAGE => SendHeader::decode_long(&command.ext),
            _ => SendHeader::decode_short(&command.ext),
        };
        Some(told(&command, &send.ok()?))
    }

    fn told(command: &Command<'_>, send: &SendHeader<'_>) -> String {
        let mut command = command.clone();
        command.ext = ExtFields::default();
        format!("{command:?} {send:?}")
    }

    fn shapes() -> Shapes {
        let mut shapes = Shapes::default();
        for header in [SHORT, LONG] {
            shapes.0.learn_next();
            shapes.learn(frame(header.as_bytes()));
            shapes.0.learn_next();
            shapes.learn(binary_frame(&binary(header)));
        }
        assert_eq!(shapes.0.known().len(), 4);
        for header in [SHORT, LONG].repeat(SEEN as usize) {
            assert!(is_taken(&mut shapes, header.as_bytes()));
            assert!(is_frame_taken(&mut shapes, binary_frame(&binary(header))));
        }
        assert!(shapes.0.known().iter().all(|shape| shape.tight.is_some()));
        shapes
    }

    #[test]
    fn what_has_changed_once_is_looked_at_from_then_on() {
        let mut shapes = shapes();
        let changed = |shapes: &Shapes| {
            let known = shapes.0.known().iter();
            let json = known.filter(|shape| matches!(shape.loose, Cut::Json(_)));
            json.map(|shape| shape.changed.count_ones()).max()
        };
        assert_eq!(changed(&shapes), Some(0));
        for (n, (old, new)) in [
            ("\"e\":\"3", "\"e\":\"12"),
            ("topic", "another"),
            ("7F00", "7F000001"),
            ("broker-a", "b"),
        ]
        .into_iter()
        .enumerate()
        {
            let header = SHORT.replace(old, new);
            assert!(is_taken(&mut shapes, header.as_bytes()), "{header}");
            assert_eq!(changed(&shapes), Some(n as u32 + 1));
            assert!(is_taken(&mut shapes, SHORT.as_bytes()));
            let numbered = header.replace("opaque\":7", "opaque\":-8");
            assert!(is_taken(&mut shapes, numbered.as_bytes()));
            assert_eq!(changed(&shapes), Some(n as u32 + 1), "now it is known");
        }
    }

    /// Whether a shape takes it; then it says what the scanner says.
    fn is_taken(shapes: &mut Shapes, header: &[u8]) -> bool {
        is_frame_taken(shapes, frame(header))
    }

    fn is_frame_taken(shapes: &mut Shapes, frame: Frame<'_>) -> bool {
        let mut send = SendHeader::EMPTY;
        let taken = shapes.decode(frame, &mut send);
        let taken = taken.map(|known| told(&known.command(frame), &send));
        if taken.is_some() {
            let text = String::from_utf8_lossy(frame.header);
            assert_eq!(taken, scanned(frame), "{text}");
        }
        taken.is_some()
    }

    #[test]
    fn what_a_producer_changes_is_read() {
        let mut shapes = shapes();
        for (old, new) in [
            ("group", ""),
            ("topic", r"another \u0074opic"),
            ("TBW102", "é"),
            ("\"e\":\"3", "\"e\":\"-1"),
            ("1726000000000", "0"),
            ("1726000000000", "-999999999999999999"),
            ("TagA", r#"\"\n"#),
            ("opaque\":7", "opaque\":-2147483648"),
            ("broker-a", "b"),
            ("\"x\":\"1", "\"x\":\"\\u0001é"),
        ] {
            let header = SHORT.replace(old, new);
            assert!(is_taken(&mut shapes, header.as_bytes()), "{header}");
        }
        let header = LONG.replace("-12", "12").replace("\"t\"", "\"tt\"");
        assert!(is_taken(&mut shapes, header.as_bytes()), "{header}");
    }

    #[test]
    fn so_it_is_in_binary_headers() {
        let mut shapes = shapes();
        let taken = |shapes: &mut Shapes, old: &str, new: &str| {
            let json = SHORT.replace(old, new);
            assert_ne!(json, SHORT);
            is_frame_taken(shapes, binary_frame(&binary(&json)))
        };
        for (old, new) in [
            ("topic", "another"),
            ("TBW102", "é"),
            ("\"e\":\"3", "\"e\":\"-1"),
            ("1726000000000", "-9223372036854775808"),
            ("TagA", r#"\"\n"#),
            ("opaque\":7", "opaque\":-2147483648"),
            ("broker-a", "b"),
            ("\"x\":\"1", "\"x\":\"another"),
        ] {
            assert!(taken(&mut shapes, old, new), "{new}");
        }
        for (old, new) in [
            ("310", "320"),
            ("\"f\":\"0", "\"f\":\"1"),
            ("493", "494"),
            ("flag\":0", "flag\":2"),
            ("topic", ""),
            ("\"e\":\"3", "\"e\":\"x"),
            ("\"x\":\"1", "\"y\":\"1"),
            (",\"x\":\"1\"", ""),
        ] {
            assert!(!taken(&mut shapes, old, new), "{new}");
        }
        let whole = binary(SHORT);
        assert!(
            (0..whole.len()).all(|len| !is_frame_taken(&mut shapes, binary_frame(&whole[..len])))
        );
        let mut bytes = whole.clone();
        let at = bytes.windows(5).position(|five| five == b"topic").unwrap();
        bytes[at] = 0xFF;
        assert!(!is_frame_taken(&mut shapes, binary_frame(&bytes)));
    }

    #[test]
    fn what_differs_otherwise_is_left_to_the_scanner() {
        let mut shapes = shapes();
        for (old, new) in [
            ("310", "320"),
            ("\"d\":\"4", "\"d\":\"5"),
            ("\"f\":\"0", "\"f\":\"1"),
            ("\"k\":\"false", "\"k\":\"true"),
            ("\"m\":\"false", "\"m\":\"true"),
            ("\"x\":\"1\"", "\"x\":1"),
            ("\"x\":\"1", "\"y\":\"1"),
            ("JAVA", "GO"),
            ("flag\":0", "flag\":2"),
            ("\"e\":\"3\"", "\"e\":\"\""),
            ("\"e\":\"3\"", "\"e\":\"2147483648\""),
            ("\"e\":\"3\"", "\"e\":\"+3\""),
            ("\"e\":\"3\"", "\"e\":3"),
            ("1726000000000", "1234567890123456789"),
            ("1726000000000", "17x"),
            ("opaque\":7", "opaque\":7.0"),
            ("7F00", "\\u00"),
            ("493}", "493} "),
            ("493}", "493"),
        ] {
            let header = SHORT.replace(old, new);
            assert_ne!(header, SHORT, "{old}");
            assert!(!is_taken(&mut shapes, header.as_bytes()), "{header}");
        }
        let mut header = SHORT.as_bytes().to_vec();
        header[30] = 0xFF;
        assert!(!is_taken(&mut shapes, &header));
        let whole = frame(SHORT.as_bytes());
        let binary = Frame {
            codec: Codec::Binary,
            ..whole
        };
        assert!(
            shapes
                .decode(binary, &mut SendHeader::EMPTY.clone())
                .is_none()
        );
    }

    #[test]
    fn only_sends_are_learned() {
        for header in [
            SHORT.replace("310", "11"),
            SHORT.replace("flag\":0", "flag\":1"),
            SHORT.replace("\"x\":\"1", "\"a\":\"twice"),
            SHORT.replace("\"e\":\"3\"", "\"e\":3"),
            SHORT.replace("\"e\":\"3\",", ""),
            SHORT.replace("opaque\":7", "opaque\":\"7\""),
            SHORT.replace("\"opaque\":7,", ""),
            SHORT.replace("version\":493", "remark\":\"why\""),
            SHORT.replace("topic", &"t".repeat(4096)),
        ] {
            let mut shapes = Shapes::default();
            shapes.learn(frame(header.as_bytes()));
            assert!(shapes.0.known().is_empty(), "{header}");
        }
    }

    #[test]
    fn a_few_are_remembered() {
        let mut shapes = Shapes::default();
        for flag in 0..10 {
            shapes.0.learn_next();
            let header = SHORT.replace("\"f\":\"0", &format!("\"f\":\"{flag}"));
            shapes.learn(frame(header.as_bytes()));
            assert!(is_taken(&mut shapes, header.as_bytes()));
        }
        assert_eq!(shapes.0.known().len(), crate::base::lately::KNOWN_MAX);
    }

    proptest! {
        #[test]
        fn the_answer_is_the_decoders(
            edits in proptest::collection::vec(
                (any::<bool>(), any::<prop::sample::Index>(), any::<u8>(), 0usize..3),
                1..20,
            ),
        ) {
            let mut shapes = shapes();
            for (short, at, byte, more) in edits {
                let mut header = binary(if short { SHORT } else { LONG });
                let at = at.index(header.len());
                header.splice(at..at + 1, std::iter::repeat_n(byte, more));
                is_frame_taken(&mut shapes, binary_frame(&header));
            }
        }

        #[test]
        fn the_answer_is_the_scanners(
            edits in proptest::collection::vec(
                (any::<bool>(), any::<prop::sample::Index>(), "[\\[\\]{}:,\"\\\\a0u ntré.-]{0,3}"),
                1..20,
            ),
        ) {
            let mut shapes = shapes();
            for (short, at, text) in edits {
                let mut header = if short { SHORT } else { LONG }.as_bytes().to_vec();
                let at = at.index(header.len());
                let end = (at + text.len()).min(header.len());
                header.splice(at..end, text.bytes());
                is_taken(&mut shapes, &header);
            }
        }
    }
}
