//! Sends in JSON that look like an earlier one: compared instead of scanned, field by field.
//!
//! Of a producer's sends only few fields change: to where, when, which properties. A [`Shape`] is
//! a send that was scanned and decoded, cut at these; all else must be the same, byte by byte, and
//! then means the same. Whatever does not fit goes to the scanner, so the answer is always the
//! scanner's.

use super::code::request;
use super::command::Command;
use super::ext::ExtFields;
use super::frame::{Codec, Frame};
use super::header::send::{SendHeader, long_place, short_place};
use super::json;
use super::language::Language;
use super::layout::{Cuts, Lately, is_quoted};
use super::text::Text;

/// The shapes of the sends seen lately. One for each thread that decodes.
#[derive(Default)]
pub struct Shapes(Lately<Shape>);

impl Shapes {
    /// A send that has a known shape, whole. Its fields are in the header only: the command's `ext`
    /// is empty.
    #[inline]
    pub fn decode<'a>(&mut self, frame: Frame<'a>) -> Option<(Command<'a>, SendHeader<'a>)> {
        match frame.codec {
            Codec::Json => self.0.find(|shape| shape.decode(frame)),
            Codec::Binary => None,
        }
    }

    /// A send that the scanner took and that has no known shape.
    #[inline]
    pub fn learn(&mut self, frame: Frame<'_>) {
        self.0.miss(|| Shape::of(frame));
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

/// A send, cut where others differ.
struct Shape {
    cuts: Cuts<Kind>,
    code: i32,
    language: Language,
    version: i32,
    flag: i32,
    /// The fields that stay the same. The others are empty, or 0.
    same: SendHeader<'static>,
}

impl Shape {
    /// `None` if it is no send, or has parts that need the scanner each time.
    fn of(frame: Frame<'_>) -> Option<Shape> {
        let (command, opaque) = json::decode_and_find_opaque(frame).ok()?;
        let (header, is_long) = match command.code {
            request::SEND_MESSAGE => (SendHeader::decode_long(&command.ext), true),
            request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
                (SendHeader::decode_short(&command.ext), false)
            }
            _ => return None,
        };
        let header = header.ok()?;
        let place = if is_long { long_place } else { short_place };
        if command.remark.is_some() || command.is_response() {
            return None;
        }
        let mut seen = 0u32;
        let mut values = vec![(opaque, Kind::Opaque)];
        for (key, value) in command.ext.spans() {
            let Some(place) = key.text(frame.header).as_plain_bytes().and_then(place) else {
                if is_quoted(frame.header, value) {
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
        let none = Text::plain("");
        Some(Shape {
            cuts: Cuts::of(frame.header, values, |kind| kind == Kind::Opaque)?,
            code: command.code,
            language: command.language,
            version: command.version,
            flag: command.flag,
            same: SendHeader {
                producer_group: none,
                topic: none,
                default_topic: none,
                properties: none,
                queue_id: 0,
                born_timestamp: 0,
                broker_name: None,
                ..header
            },
        })
    }

    #[inline]
    fn decode<'a>(&self, frame: Frame<'a>) -> Option<(Command<'a>, SendHeader<'a>)> {
        let mut opaque = 0;
        let mut header: SendHeader<'a> = self.same;
        self.cuts.walk(frame.header, |scan, kind, _| {
            match kind {
                Kind::Opaque => opaque = scan.digits()?,
                Kind::QueueId => header.queue_id = scan.digits()?,
                Kind::BornTimestamp => header.born_timestamp = scan.long_digits()?,
                Kind::Group => header.producer_group = scan.quoted()?.text(frame.header),
                Kind::Topic => header.topic = scan.quoted()?.text(frame.header),
                Kind::DefaultTopic => header.default_topic = scan.quoted()?.text(frame.header),
                Kind::Properties => header.properties = scan.quoted()?.text(frame.header),
                Kind::BrokerName => header.broker_name = Some(scan.quoted()?.text(frame.header)),
                Kind::Unknown => _ = scan.quoted()?,
            }
            Some(())
        })?;
        if !frame.header.is_ascii() && std::str::from_utf8(frame.header).is_err() {
            return None;
        }
        let command = Command {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque,
            flag: self.flag,
            remark: None,
            ext: ExtFields::default(),
            body: frame.body,
            codec: Codec::Json,
        };
        Some((command, header))
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

    /// What the scanner makes of it.
    fn scanned(header: &[u8]) -> Option<String> {
        let command = Command::decode(frame(header)).ok()?;
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
        }
        assert_eq!(shapes.0.known().len(), 2);
        shapes
    }

    /// Whether a shape takes it; then it says what the scanner says.
    fn is_taken(shapes: &mut Shapes, header: &[u8]) -> bool {
        let taken = shapes.decode(frame(header));
        let taken = taken.map(|(command, send)| told(&command, &send));
        if taken.is_some() {
            assert_eq!(
                taken,
                scanned(header),
                "{}",
                String::from_utf8_lossy(header)
            );
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
        assert!(shapes.decode(binary).is_none());
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
        assert_eq!(shapes.0.known().len(), super::super::layout::KNOWN_MAX);
    }

    proptest! {
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
