//! SEND_MESSAGE 10 (long names), SEND_MESSAGE_V2 310 and SEND_BATCH_MESSAGE 320 (single letters),
//! their response, and CONSUMER_SEND_MSG_BACK 36.
//!
//! Both send forms are one struct. Whether the body is a batch is said by [`SendHeader::batch`],
//! not by the code. Sources: `SendMessageRequestHeader`, `SendMessageRequestHeaderV2`,
//! `SendMessageResponseHeader`, `ConsumerSendMsgBackRequestHeader`; spec page remoting §7.

use super::{HeaderError, int32, int64, missing};
use crate::remoting::command::FrameWriter;
use crate::remoting::ext::ExtFields;
use crate::remoting::text::Text;

/// Request of 10, 310, 320 and, for replies, 324 and 325. Texts are still in wire form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendHeader<'a> {
    pub producer_group: Text<'a>,
    pub topic: Text<'a>,
    /// Template for a topic that does not exist yet.
    pub default_topic: Text<'a>,
    pub default_topic_queue_nums: i32,
    /// Negative: the broker picks a queue.
    pub queue_id: i32,
    pub sys_flag: i32,
    /// Milliseconds.
    pub born_timestamp: i64,
    /// The user's own flag.
    pub flag: i32,
    /// `name 0x01 value 0x02` list; empty when there is none.
    pub properties: Text<'a>,
    pub reconsume_times: i32,
    pub unit_mode: bool,
    pub max_reconsume_times: Option<i32>,
    pub batch: bool,
    pub broker_name: Option<Text<'a>>,
}

const FIELDS: usize = 14;
const LONG: [&str; FIELDS] = [
    "producerGroup",
    "topic",
    "defaultTopic",
    "defaultTopicQueueNums",
    "queueId",
    "sysFlag",
    "bornTimestamp",
    "flag",
    "properties",
    "reconsumeTimes",
    "unitMode",
    "maxReconsumeTimes",
    "batch",
    "bname",
];
const SHORT: [&str; FIELDS] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n",
];
/// The first eight fields must be there.
const REQUIRED: u32 = 0xFF;

/// Which of the letters `a` to `n` a field of the single-letter form is.
#[inline]
pub(in crate::remoting) fn short_place(key: &[u8]) -> Option<usize> {
    match key {
        [letter @ b'a'..=b'n'] => Some(usize::from(letter - b'a')),
        _ => None,
    }
}

/// The same of the form with long names.
pub(in crate::remoting) fn long_place(key: &[u8]) -> Option<usize> {
    LONG.iter().position(|known| known.as_bytes() == key)
}

impl<'a> SendHeader<'a> {
    /// What a header without any field would be.
    pub const EMPTY: Self = Self {
        producer_group: Text::plain(""),
        topic: Text::plain(""),
        default_topic: Text::plain(""),
        default_topic_queue_nums: 0,
        queue_id: 0,
        sys_flag: 0,
        born_timestamp: 0,
        flag: 0,
        properties: Text::plain(""),
        reconsume_times: 0,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    };

    /// Reads the single-letter form: 310, 320, 325.
    pub fn decode_short(ext: &ExtFields<'a>) -> Result<Self, HeaderError> {
        Self::decode_by(ext, &SHORT, short_place)
    }

    /// Reads the form with long names: 10, 324.
    pub fn decode_long(ext: &ExtFields<'a>) -> Result<Self, HeaderError> {
        Self::decode_by(ext, &LONG, long_place)
    }

    #[inline]
    fn decode_by(
        ext: &ExtFields<'a>,
        keys: &[&'static str; FIELDS],
        index: impl Fn(&[u8]) -> Option<usize>,
    ) -> Result<Self, HeaderError> {
        let mut header = Self::EMPTY;
        let mut seen = 0u32;
        for (key, value) in ext.iter() {
            let Some(at) = key.as_plain_bytes().and_then(&index) else {
                continue;
            };
            header.set(at, keys[at], value)?;
            seen |= 1 << at;
        }
        let absent = REQUIRED & !seen;
        if absent == 0 {
            Ok(header)
        } else {
            Err(missing(keys[absent.trailing_zeros() as usize]))
        }
    }

    /// Sets the field at this place of the letters `a` to `n`.
    #[inline]
    fn set(&mut self, at: usize, key: &'static str, value: Text<'a>) -> Result<(), HeaderError> {
        match at {
            0 => self.producer_group = value,
            1 => self.topic = value,
            2 => self.default_topic = value,
            3 => self.default_topic_queue_nums = int32(key, value)?,
            4 => self.queue_id = int32(key, value)?,
            5 => self.sys_flag = int32(key, value)?,
            6 => self.born_timestamp = int64(key, value)?,
            7 => self.flag = int32(key, value)?,
            8 => self.properties = value,
            9 if !value.is_empty() => self.reconsume_times = int32(key, value)?,
            10 => self.unit_mode = value.parse_bool(),
            11 if !value.is_empty() => self.max_reconsume_times = Some(int32(key, value)?),
            12 => self.batch = value.parse_bool(),
            13 => self.broker_name = Some(value),
            _ => {}
        }
        Ok(())
    }

    pub fn encode_short(&self, writer: &mut FrameWriter<'_>) {
        self.encode_by(writer, &SHORT);
    }

    pub fn encode_long(&self, writer: &mut FrameWriter<'_>) {
        self.encode_by(writer, &LONG);
    }

    fn encode_by(&self, writer: &mut FrameWriter<'_>, keys: &[&str; FIELDS]) {
        writer.field_text(keys[0], self.producer_group);
        writer.field_text(keys[1], self.topic);
        writer.field_text(keys[2], self.default_topic);
        writer.field_i64(keys[3], i64::from(self.default_topic_queue_nums));
        writer.field_i64(keys[4], i64::from(self.queue_id));
        writer.field_i64(keys[5], i64::from(self.sys_flag));
        writer.field_i64(keys[6], self.born_timestamp);
        writer.field_i64(keys[7], i64::from(self.flag));
        if !self.properties.is_empty() {
            writer.field_text(keys[8], self.properties);
        }
        writer.field_i64(keys[9], i64::from(self.reconsume_times));
        writer.field_bool(keys[10], self.unit_mode);
        if let Some(max) = self.max_reconsume_times {
            writer.field_i64(keys[11], i64::from(max));
        }
        writer.field_bool(keys[12], self.batch);
        if let Some(name) = self.broker_name {
            writer.field_text(keys[13], name);
        }
    }
}

/// PUSH_REPLY_MESSAGE_TO_CLIENT 326. Source: `ReplyMessageRequestHeader`.
pub struct PushReply<'a> {
    /// As the reply was sent, but for the properties.
    pub send: SendHeader<'a>,
    pub properties: &'a [u8],
    /// `ip:port`.
    pub born_host: String,
    pub store_host: String,
    /// Milliseconds.
    pub store_timestamp: i64,
}

impl PushReply<'_> {
    pub fn encode(&self, writer: &mut FrameWriter<'_>) {
        let send = &self.send;
        writer.field_text("producerGroup", send.producer_group);
        writer.field_text("topic", send.topic);
        writer.field_text("defaultTopic", send.default_topic);
        writer.field_i64(
            "defaultTopicQueueNums",
            i64::from(send.default_topic_queue_nums),
        );
        writer.field_i64("queueId", i64::from(send.queue_id));
        writer.field_i64("sysFlag", i64::from(send.sys_flag));
        writer.field_i64("bornTimestamp", send.born_timestamp);
        writer.field_i64("flag", i64::from(send.flag));
        writer.field_bytes("properties", self.properties);
        writer.field_i64("reconsumeTimes", i64::from(send.reconsume_times));
        writer.field_bool("unitMode", send.unit_mode);
        writer.field_str("bornHost", &self.born_host);
        writer.field_str("storeHost", &self.store_host);
        writer.field_i64("storeTimestamp", self.store_timestamp);
    }
}

/// Response of every send. Java reads the extension fields without a null check, so this is written
/// for each code that means "stored" (0, 10, 11, 12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendResponse<'a> {
    /// The offset message id; for a batch a comma list.
    pub msg_id: Text<'a>,
    pub queue_id: i32,
    /// Of the first message of a batch.
    pub queue_offset: i64,
    pub transaction_id: Option<Text<'a>>,
    pub batch_uniq_id: Option<Text<'a>>,
    /// Only for messages with a timer.
    pub recall_handle: Option<Text<'a>>,
    pub region: Option<Text<'a>>,
    pub trace_on: bool,
}

impl<'a> SendResponse<'a> {
    pub fn decode(ext: &ExtFields<'a>) -> Result<Self, HeaderError> {
        let required = |key| ext.find(key).ok_or(missing(key));
        Ok(Self {
            msg_id: required("msgId")?,
            queue_id: int32("queueId", required("queueId")?)?,
            queue_offset: int64("queueOffset", required("queueOffset")?)?,
            transaction_id: ext.find("transactionId"),
            batch_uniq_id: ext.find("batchUniqId"),
            recall_handle: ext.find("recallHandle"),
            region: ext.find("MSG_REGION"),
            trace_on: ext.find("TRACE_ON").is_some_and(Text::parse_bool),
        })
    }

    #[inline]
    pub fn encode(&self, writer: &mut FrameWriter<'_>) {
        writer.field_text("msgId", self.msg_id);
        writer.field_i64("queueId", i64::from(self.queue_id));
        writer.field_i64("queueOffset", self.queue_offset);
        let optional = [
            ("transactionId", self.transaction_id),
            ("batchUniqId", self.batch_uniq_id),
            ("recallHandle", self.recall_handle),
            ("MSG_REGION", self.region),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                writer.field_text(key, value);
            }
        }
        writer.field_bool("TRACE_ON", self.trace_on);
    }
}

header! {
    /// CONSUMER_SEND_MSG_BACK 36.
    struct SendBackHeader<'a> {
        /// Physical offset of the message.
        offset: i64 "offset",
        group: text "group",
        delay_level: i32 "delayLevel",
        origin_msg_id: opt_text "originMsgId",
        origin_topic: opt_text "originTopic",
        unit_mode: bool "unitMode" or false,
        max_reconsume_times: opt_i32 "maxReconsumeTimes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::command::Command;
    use crate::remoting::frame::{Codec, split};
    use crate::remoting::header::Reason;

    fn example() -> SendHeader<'static> {
        SendHeader {
            producer_group: Text::plain("g"),
            topic: Text::plain("t"),
            default_topic: Text::plain("TBW102"),
            default_topic_queue_nums: 4,
            queue_id: -1,
            sys_flag: 1,
            born_timestamp: 1_700_000_000_000,
            flag: 7,
            properties: Text::plain("TAGS\u{1}a\u{2}"),
            reconsume_times: 2,
            unit_mode: true,
            max_reconsume_times: Some(16),
            batch: true,
            broker_name: Some(Text::plain("broker-a")),
        }
    }

    fn check_both_ways(header: SendHeader<'_>, codec: Codec) {
        for short in [true, false] {
            let mut out = Vec::new();
            let mut writer = FrameWriter::request(&mut out, codec, 1, 310, false);
            if short {
                header.encode_short(&mut writer)
            } else {
                header.encode_long(&mut writer)
            }
            writer.finish(0);
            let command = Command::decode(split(&out).unwrap()).unwrap();
            let read = if short {
                SendHeader::decode_short(&command.ext)
            } else {
                SendHeader::decode_long(&command.ext)
            };
            assert_eq!(read, Ok(header));
        }
    }

    #[test]
    fn forms_and_codecs() {
        let bare = SendHeader {
            properties: Text::plain(""),
            max_reconsume_times: None,
            broker_name: None,
            batch: false,
            ..example()
        };
        for codec in [Codec::Json, Codec::Binary] {
            check_both_ways(example(), codec);
            check_both_ways(bare, codec);
        }
    }

    fn check_refused(fields: &str, field: &'static str, reason: Reason) {
        let header = format!("{{\"extFields\":{{{fields}}}}}");
        let frame = crate::remoting::frame::Frame {
            codec: Codec::Json,
            header: header.as_bytes(),
            body: b"",
        };
        let command = Command::decode(frame).unwrap();
        let read = SendHeader::decode_short(&command.ext);
        assert_eq!(read, Err(HeaderError { field, reason }), "{fields}");
    }

    #[test]
    fn refused() {
        check_refused("", "a", Reason::Missing);
        check_refused(r#""a":"g","c":"t","aa":"x","z":"y""#, "b", Reason::Missing);
        check_refused(r#""d":"x""#, "d", Reason::NotInt32);
        check_refused(r#""g":"1.5""#, "g", Reason::NotInt64);
        check_refused(
            r#""a":"","b":"","c":"","d":1,"e":2,"f":3,"g":4"#,
            "h",
            Reason::Missing,
        );
    }
}
