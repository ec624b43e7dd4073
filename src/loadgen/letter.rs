//! Send requests, written as a producer library frames them: short header names, a unique key,
//! `WAIT`.
//!
//! A request is encoded once per topic, tag and number of digits of the queue id; then its bytes
//! are copied and the queue id, birthday, keys, time and opaque are patched in place. Where those
//! lie is found by encoding twice with different values and looking for the first byte that
//! differs, so the encoder stays the only one who knows the form.

use std::net::{IpAddr, Ipv4Addr};

use super::body::{self, BodySize, Stamp};
use super::pace::Chance;
use crate::broker::control::names::AUTO_CREATE_TOPIC;
use crate::message::id::UniqueKeys;
use crate::message::layout::sys_flag;
use crate::message::{batch, names, properties};
use crate::remoting::code::request;
use crate::remoting::command::FrameWriter;
use crate::remoting::frame::Codec;
use crate::remoting::header::send::SendHeader;
use crate::remoting::text::Text;

pub const PRODUCER_GROUP: &str = "orbitmq_bench";
/// Digits a queue id may have.
const WIDTHS: usize = 5;
pub const QUEUE_ID_MAX: i32 = 99_999;
/// Hex digits of a unique key that change from message to message.
const KEY_DIGITS: usize = 12;
/// Digits of milliseconds since 1970.
const MS_DIGITS: usize = 13;
const OPAQUE_DIGITS: usize = 10;

/// What all messages of a run have in common.
#[derive(Clone, Debug)]
pub struct Style {
    pub codec: Codec,
    pub body: BodySize,
    /// Messages in a request; more than one is a batch.
    pub batch: usize,
    /// Each message has one of these, in turn.
    pub tags: Vec<String>,
    /// Each message has a `KEYS` of its own.
    pub keys: bool,
    pub properties: Vec<(String, String)>,
    pub seed: u64,
}

/// What a broker is to do with the messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Plain,
    /// To deliver them at their time.
    Timed,
    /// The same by a delay level.
    Level(usize),
    /// To keep them to itself until their transaction ends.
    Half,
}

/// What differs from request to request.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Number of the topic.
    pub topic: usize,
    pub queue_id: i32,
    pub opaque: u32,
    /// Of the first message; each further one has the next sequence. `None`: bodies are filler.
    pub stamp: Option<Stamp>,
    /// Of [`Form::Timed`]: milliseconds since 1970.
    pub deliver_ms: i64,
}

/// A request without its body, and where its variable parts lie.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    queue_at: usize,
    queue_digits: usize,
    born_at: usize,
    unique_at: usize,
    keys_at: Option<usize>,
    deliver_at: Option<usize>,
    opaque_at: usize,
}

/// Values for the variable parts, all of one length.
#[derive(Clone, Copy)]
struct Sample {
    queue_id: i32,
    born: i64,
    unique: u64,
    keys: u64,
    deliver: i64,
    opaque: i32,
}

/// Writes the requests of one thread.
pub struct Letter {
    style: Style,
    form: Form,
    topics: Vec<String>,
    keys: UniqueKeys,
    templates: Vec<Option<Template>>,
    /// Properties of a message within a batch, by tag.
    sub_properties: Vec<(Vec<u8>, usize, Option<usize>)>,
    filler: Vec<u8>,
    chance: Chance,
    messages: u64,
    born: [u8; MS_DIGITS],
    body: Vec<u8>,
}

impl Letter {
    /// `instance` makes the keys of this thread differ from those of others.
    pub fn new(style: Style, form: Form, topics: Vec<String>, instance: u32) -> Self {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let tags = style.tags.len().max(1);
        let mut letter = Letter {
            templates: (0..topics.len() * WIDTHS * tags).map(|_| None).collect(),
            topics,
            keys: UniqueKeys::new(ip, std::process::id() as u16, instance),
            sub_properties: Vec::new(),
            filler: body::filler(style.body.largest(), style.seed),
            chance: Chance::new(style.seed ^ u64::from(instance)),
            messages: 0,
            born: [b'0'; MS_DIGITS],
            body: Vec::new(),
            style,
            form,
        };
        letter.sub_properties = (0..tags).map(|tag| letter.sub_template(tag)).collect();
        letter
    }

    /// The birthday of what is written from now on, milliseconds since 1970.
    pub fn set_born(&mut self, wall_ms: i64) {
        digits(wall_ms.max(0) as u64, &mut self.born);
    }

    pub fn topic(&self, number: usize) -> &str {
        &self.topics[number]
    }

    /// Appends one request; gives the bytes of its bodies.
    pub fn write(&mut self, out: &mut Vec<u8>, request: Request) -> usize {
        let (tag, at) = self.template(request.topic, request.queue_id);
        let batched = self.style.batch > 1;
        let mut bytes = 0;
        if batched {
            bytes = self.write_batch(tag, request.stamp);
        } else {
            bytes += self.style.body.draw(&mut self.chance);
        }
        self.messages += 1;
        let (unique, messages) = (self.messages, self.messages);
        let Some(template) = &self.templates[at] else {
            unreachable!("it was made above");
        };
        let start = out.len();
        out.extend_from_slice(&template.bytes);
        let body_at = out.len();
        out.extend_from_slice(if batched {
            &self.body
        } else {
            &self.filler[..bytes]
        });
        let length = (out.len() - start - 4) as u32;
        let frame = &mut out[start..];
        frame[..4].copy_from_slice(&length.to_be_bytes());
        let queue = template.queue_at..template.queue_at + template.queue_digits;
        digits(request.queue_id as u64, &mut frame[queue]);
        frame[template.born_at..template.born_at + MS_DIGITS].copy_from_slice(&self.born);
        hex(
            unique,
            &mut frame[template.unique_at..template.unique_at + KEY_DIGITS],
        );
        if let Some(keys_at) = template.keys_at {
            hex(messages, &mut frame[keys_at..keys_at + KEY_DIGITS]);
        }
        if let Some(at) = template.deliver_at {
            let deliver_ms = request.deliver_ms.max(0) as u64;
            digits(deliver_ms, &mut frame[at..at + MS_DIGITS]);
        }
        let opaque_at = template.opaque_at;
        match self.style.codec {
            Codec::Json => {
                let place = opaque_at..opaque_at + OPAQUE_DIGITS;
                digits(u64::from(request.opaque), &mut frame[place]);
            }
            Codec::Binary => {
                frame[opaque_at..opaque_at + 4].copy_from_slice(&request.opaque.to_be_bytes());
            }
        }
        if let (Some(stamp), false) = (request.stamp, batched) {
            body::put_stamp(&mut out[body_at..], stamp);
        }
        bytes
    }

    /// Fills `self.body` with the messages of a batch; gives the bytes of their bodies.
    fn write_batch(&mut self, tag: usize, stamp: Option<Stamp>) -> usize {
        let mut bytes = 0;
        self.body.clear();
        for number in 0..self.style.batch {
            let len = self.style.body.draw(&mut self.chance);
            bytes += len;
            self.messages += 1;
            let (properties, unique_at, keys_at) = &mut self.sub_properties[tag];
            hex(
                self.messages,
                &mut properties[*unique_at..*unique_at + KEY_DIGITS],
            );
            if let Some(keys_at) = keys_at {
                hex(
                    self.messages,
                    &mut properties[*keys_at..*keys_at + KEY_DIGITS],
                );
            }
            let body = &self.filler[..len];
            let message = batch::SubMessage {
                flag: 0,
                body,
                properties,
            };
            batch::append(&mut self.body, message);
            if let Some(stamp) = stamp {
                let end = self.body.len() - 2 - properties.len();
                let sequence = stamp.sequence + number as u64;
                body::put_stamp(&mut self.body[end - len..end], Stamp { sequence, ..stamp });
            }
        }
        bytes
    }

    /// Tag and place of the template, which is made if it is not there.
    fn template(&mut self, topic: usize, queue_id: i32) -> (usize, usize) {
        let tags = self.style.tags.len().max(1);
        let tag = if tags == 1 {
            0
        } else {
            (self.messages % tags as u64) as usize
        };
        let width = width(queue_id);
        let at = (topic * WIDTHS + width - 1) * tags + tag;
        if self.templates[at].is_none() {
            self.templates[at] = Some(self.build(topic, width, tag));
        }
        (tag, at)
    }

    fn build(&self, topic: usize, width: usize, tag: usize) -> Template {
        let base = Sample {
            queue_id: 10i32.pow(width as u32 - 1),
            born: 1_111_111_111_111,
            unique: 0x1111_1111_1111,
            keys: 0x1111_1111_1111,
            deliver: 1_111_111_111_111,
            // Ten digits, as its other sample.
            opaque: 0x4444_4444,
        };
        let encode = |sample: Sample| self.encode(topic, tag, sample);
        let bytes = encode(base);
        let differs = |sample: Sample| {
            let other = encode(sample);
            assert_eq!(bytes.len(), other.len(), "samples are written equally long");
            bytes.iter().zip(&other).position(|(a, b)| a != b)
        };
        let place = |sample| differs(sample).expect("each sample is in the request");
        Template {
            // A queue id of one digit: 1 and 2; of more: the first digit differs as well.
            queue_at: place(Sample {
                queue_id: 2 * base.queue_id,
                ..base
            }),
            queue_digits: width,
            born_at: place(Sample {
                born: 2_222_222_222_222,
                ..base
            }),
            unique_at: place(Sample {
                unique: 0x2222_2222_2222,
                ..base
            }),
            keys_at: differs(Sample {
                keys: 0x2222_2222_2222,
                ..base
            }),
            deliver_at: differs(Sample {
                deliver: 2_222_222_222_222,
                ..base
            }),
            opaque_at: place(Sample {
                opaque: 0x7777_7777,
                ..base
            }),
            bytes,
        }
    }

    fn encode(&self, topic: usize, tag: usize, sample: Sample) -> Vec<u8> {
        let batch = self.style.batch > 1;
        let code = if batch {
            request::SEND_BATCH_MESSAGE
        } else {
            request::SEND_MESSAGE_V2
        };
        let mut properties = self.properties(tag, sample.unique, sample.keys);
        let mut put = |name, value: &str| properties::append(&mut properties, name, value);
        match self.form {
            Form::Plain => {}
            Form::Timed => put(names::TIMER_DELIVER_MS, &sample.deliver.to_string()),
            Form::Level(level) => put(names::DELAY_TIME_LEVEL, &level.to_string()),
            Form::Half => {
                put(names::TRANSACTION_PREPARED, "true");
                put(names::PRODUCER_GROUP, PRODUCER_GROUP);
            }
        }
        let sys_flag = match self.form {
            Form::Half => sys_flag::TRANSACTION_PREPARED,
            Form::Plain | Form::Timed | Form::Level(_) => 0,
        };
        let mut out = Vec::new();
        let mut writer =
            FrameWriter::request(&mut out, self.style.codec, sample.opaque, code, false);
        let header = SendHeader {
            producer_group: Text::plain(PRODUCER_GROUP),
            topic: Text::plain(&self.topics[topic]),
            default_topic: Text::plain(AUTO_CREATE_TOPIC),
            default_topic_queue_nums: 8,
            queue_id: sample.queue_id,
            sys_flag,
            born_timestamp: sample.born,
            flag: 0,
            properties: Text::plain(std::str::from_utf8(&properties).unwrap_or_default()),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch,
            broker_name: None,
        };
        header.encode_short(&mut writer);
        writer.finish(0);
        out
    }

    fn properties(&self, tag: usize, unique: u64, keys: u64) -> Vec<u8> {
        let mut key = self
            .keys
            .key((unique >> 16) as u32, unique as u16)
            .as_str()
            .to_owned();
        key.truncate(32);
        let mut list = Vec::new();
        if self.style.keys {
            properties::append(&mut list, names::KEYS, &format!("k{keys:012X}"));
        }
        properties::append(&mut list, names::UNIQUE_KEY, &key);
        properties::append(&mut list, names::WAIT_STORED, "true");
        if let Some(tag) = self.style.tags.get(tag) {
            properties::append(&mut list, names::TAGS, tag);
        }
        for (name, value) in &self.style.properties {
            properties::append(&mut list, name, value);
        }
        list
    }

    fn sub_template(&self, tag: usize) -> (Vec<u8>, usize, Option<usize>) {
        let (one, two) = (0x1111_1111_1111, 0x2222_2222_2222);
        let bytes = self.properties(tag, one, one);
        let differs = |other: Vec<u8>| bytes.iter().zip(&other).position(|(a, b)| a != b);
        let unique_at = differs(self.properties(tag, two, one)).expect("each message has a key");
        let keys_at = differs(self.properties(tag, one, two));
        (bytes, unique_at, keys_at)
    }
}

fn width(queue_id: i32) -> usize {
    match queue_id {
        ..10 => 1,
        10..100 => 2,
        100..1000 => 3,
        1000..10_000 => 4,
        _ => WIDTHS,
    }
}

/// Decimal digits, as many as there is room for.
#[inline]
fn digits(mut value: u64, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[inline]
fn hex(mut value: u64, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::loadgen::answer::decode;

    fn style(codec: Codec, batch: usize) -> Style {
        Style {
            codec,
            body: BodySize::Between(50, 300),
            batch,
            tags: vec!["a".to_owned(), "bb".to_owned()],
            keys: true,
            properties: vec![("shop".to_owned(), "é \"7\"".to_owned())],
            seed: 1,
        }
    }

    /// Every request reads back as what was asked for, and no two messages have one key.
    fn check(codec: Codec, batch: usize, form: Form) {
        let topics = vec!["T0".to_owned(), "Topic-1".to_owned()];
        let mut letter = Letter::new(style(codec, batch), form, topics.clone(), 3);
        let mut keys = BTreeSet::new();
        let mut out = Vec::new();
        for (number, queue_id) in [0, 9, 10, 7, 99_999, 1234, 100, 3].into_iter().enumerate() {
            let (topic, opaque) = (number % 2, 1_000_000_000 + number as u32 * 7919);
            let stamp = Stamp {
                run: 1,
                producer: 2,
                queue: 3,
                sequence: 10,
                due: 4,
            };
            letter.set_born(1_700_000_000_000 + number as i64);
            out.clear();
            let request = Request {
                topic,
                queue_id,
                opaque,
                stamp: Some(stamp),
                deliver_ms: 1_800_000_000_000 + number as i64,
            };
            let bytes = letter.write(&mut out, request);
            let command = decode(&out).unwrap();
            assert_eq!(command.opaque, opaque as i32);
            let header = SendHeader::decode_short(&command.ext).unwrap();
            assert!(header.topic == topics[topic].as_str());
            assert_eq!((header.queue_id, header.batch), (queue_id, batch > 1));
            assert_eq!(header.born_timestamp, 1_700_000_000_000 + number as i64);
            let outer = header.properties.to_cow().into_owned();
            let property = |name| properties::find_str(outer.as_bytes(), name);
            let time = (1_800_000_000_000 + number as i64).to_string();
            let timed = (form == Form::Timed).then_some(&*time);
            assert_eq!(property(names::TIMER_DELIVER_MS), timed);
            let level = (form == Form::Level(3)).then_some("3");
            assert_eq!(property(names::DELAY_TIME_LEVEL), level);
            let half = (form == Form::Half).then_some(PRODUCER_GROUP);
            assert_eq!(property(names::PRODUCER_GROUP), half);
            assert_eq!(header.sys_flag, if half.is_some() { 4 } else { 0 });
            let mut list = vec![(command.body, outer.into_bytes())];
            if batch > 1 {
                let messages = batch::iter(command.body).map(Result::unwrap);
                list = messages.map(|m| (m.body, m.properties.to_vec())).collect();
            }
            assert_eq!(list.len(), batch);
            assert_eq!(
                list.iter().map(|(body, _)| body.len()).sum::<usize>(),
                bytes
            );
            for (at, (body, properties)) in list.iter().enumerate() {
                let sequence = 10 + at as u64;
                assert_eq!(body::checked_stamp(body), Some(Stamp { sequence, ..stamp }));
                let find = |name| properties::find_str(properties, name).unwrap().to_owned();
                assert_eq!(find(names::UNIQUE_KEY).len(), 32);
                assert!(keys.insert(find(names::UNIQUE_KEY)));
                assert!(keys.insert(find(names::KEYS)));
                assert_eq!(find("shop"), "é \"7\"");
                assert!(["a", "bb"].contains(&find(names::TAGS).as_str()));
            }
        }
    }

    #[test]
    fn requests_read_back() {
        for codec in [Codec::Json, Codec::Binary] {
            check(codec, 5, Form::Plain);
            for form in [Form::Plain, Form::Timed, Form::Level(3), Form::Half] {
                check(codec, 1, form);
            }
        }
    }
}
