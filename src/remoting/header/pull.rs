//! PULL_MESSAGE 11 and LITE_PULL_MESSAGE 361: one header for both, and the response.
//!
//! Sources: `PullMessageRequestHeader`, `PullMessageResponseHeader`, `PullSysFlag`; spec pages
//! request-codes §1, semantics §3.

use super::{HeaderError, int32, int64, missing};
use crate::remoting::command::FrameWriter;
use crate::remoting::ext::ExtFields;
use crate::remoting::text::Text;

/// Bit of [`PullHeader::sys_flag`]: `commit_offset` is to be stored.
pub const FLAG_COMMIT_OFFSET: i32 = 1;
/// The request may be held until a message comes.
pub const FLAG_SUSPEND: i32 = 2;
/// `subscription` counts, not the heartbeat's.
pub const FLAG_SUBSCRIPTION: i32 = 4;
/// Filtering happens in the client.
pub const FLAG_CLASS_FILTER: i32 = 8;
/// The puller is a lite pull consumer.
pub const FLAG_LITE_PULL: i32 = 16;

/// Request of 11 and 361. Texts are still in wire form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PullHeader<'a> {
    pub consumer_group: Text<'a>,
    pub topic: Text<'a>,
    pub queue_id: i32,
    pub queue_offset: i64,
    pub max_msg_nums: i32,
    /// `FLAG_*` bits.
    pub sys_flag: i32,
    pub commit_offset: i64,
    /// Milliseconds the request may be held.
    pub suspend_timeout_ms: i64,
    pub subscription: Option<Text<'a>>,
    /// Version of the subscription; milliseconds or nanoseconds, by client.
    pub sub_version: i64,
    /// `TAG` when missing.
    pub expression_type: Option<Text<'a>>,
    pub max_msg_bytes: Option<i32>,
    pub request_source: Option<i32>,
    pub proxy_forward_client_id: Option<Text<'a>>,
    pub lite_topic: Option<Text<'a>>,
}

const REQUIRED: [&str; 9] = [
    "consumerGroup",
    "topic",
    "queueId",
    "queueOffset",
    "maxMsgNums",
    "sysFlag",
    "commitOffset",
    "suspendTimeoutMillis",
    "subVersion",
];

impl<'a> PullHeader<'a> {
    const EMPTY: Self = Self {
        consumer_group: Text::plain(""),
        topic: Text::plain(""),
        queue_id: 0,
        queue_offset: 0,
        max_msg_nums: 0,
        sys_flag: 0,
        commit_offset: 0,
        suspend_timeout_ms: 0,
        subscription: None,
        sub_version: 0,
        expression_type: None,
        max_msg_bytes: None,
        request_source: None,
        proxy_forward_client_id: None,
        lite_topic: None,
    };

    pub fn decode(ext: &ExtFields<'a>) -> Result<Self, HeaderError> {
        let mut header = Self::EMPTY;
        let mut seen = 0u32;
        for (key, value) in ext.iter() {
            let Some(key) = key.as_plain_bytes() else {
                continue;
            };
            match REQUIRED.iter().position(|known| known.as_bytes() == key) {
                Some(at) => {
                    header.set_required(at, value)?;
                    seen |= 1 << at;
                }
                None => header.set_optional(key, value)?,
            }
        }
        let first_absent = (!seen).trailing_zeros() as usize;
        REQUIRED
            .get(first_absent)
            .map_or(Ok(header), |field| Err(missing(field)))
    }

    #[inline]
    fn set_required(&mut self, at: usize, value: Text<'a>) -> Result<(), HeaderError> {
        let key = REQUIRED[at];
        match at {
            0 => self.consumer_group = value,
            1 => self.topic = value,
            2 => self.queue_id = int32(key, value)?,
            3 => self.queue_offset = int64(key, value)?,
            4 => self.max_msg_nums = int32(key, value)?,
            5 => self.sys_flag = int32(key, value)?,
            6 => self.commit_offset = int64(key, value)?,
            7 => self.suspend_timeout_ms = int64(key, value)?,
            _ => self.sub_version = int64(key, value)?,
        }
        Ok(())
    }

    #[inline]
    fn set_optional(&mut self, key: &[u8], value: Text<'a>) -> Result<(), HeaderError> {
        match key {
            b"subscription" => self.subscription = Some(value),
            b"expressionType" => self.expression_type = Some(value),
            b"maxMsgBytes" if !value.is_empty() => {
                self.max_msg_bytes = Some(int32("maxMsgBytes", value)?);
            }
            b"requestSource" if !value.is_empty() => {
                self.request_source = Some(int32("requestSource", value)?);
            }
            b"proxyFrowardClientId" => self.proxy_forward_client_id = Some(value),
            b"liteTopic" => self.lite_topic = Some(value),
            _ => {}
        }
        Ok(())
    }

    pub fn encode(&self, writer: &mut FrameWriter<'_>) {
        writer.field_text(REQUIRED[0], self.consumer_group);
        writer.field_text(REQUIRED[1], self.topic);
        writer.field_i64(REQUIRED[2], i64::from(self.queue_id));
        writer.field_i64(REQUIRED[3], self.queue_offset);
        writer.field_i64(REQUIRED[4], i64::from(self.max_msg_nums));
        writer.field_i64(REQUIRED[5], i64::from(self.sys_flag));
        writer.field_i64(REQUIRED[6], self.commit_offset);
        writer.field_i64(REQUIRED[7], self.suspend_timeout_ms);
        writer.field_i64(REQUIRED[8], self.sub_version);
        let texts = [
            ("subscription", self.subscription),
            ("expressionType", self.expression_type),
            ("proxyFrowardClientId", self.proxy_forward_client_id),
            ("liteTopic", self.lite_topic),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                writer.field_text(key, value);
            }
        }
        for (key, value) in [
            ("maxMsgBytes", self.max_msg_bytes),
            ("requestSource", self.request_source),
        ] {
            if let Some(value) = value {
                writer.field_i64(key, i64::from(value));
            }
        }
    }
}

super::header! {
    /// Response of 11 and 361. Clients read the first four for every pull code, so all four are
    /// always written.
    struct PullResponse {
        suggest_which_broker_id: i64 "suggestWhichBrokerId",
        next_begin_offset: i64 "nextBeginOffset",
        min_offset: i64 "minOffset",
        max_offset: i64 "maxOffset",
        offset_delta: opt_i64 "offsetDelta",
        topic_sys_flag: opt_i32 "topicSysFlag",
        group_sys_flag: opt_i32 "groupSysFlag",
        forbidden_type: opt_i32 "forbiddenType",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::command::Command;
    use crate::remoting::frame::{Codec, split};
    use crate::remoting::header::Reason;

    fn example() -> PullHeader<'static> {
        PullHeader {
            consumer_group: Text::plain("g"),
            topic: Text::plain("%RETRY%g"),
            queue_id: 3,
            queue_offset: 1 << 40,
            max_msg_nums: 32,
            sys_flag: FLAG_COMMIT_OFFSET | FLAG_SUSPEND,
            commit_offset: -1,
            suspend_timeout_ms: 15_000,
            subscription: Some(Text::plain("a || b")),
            sub_version: 1_700_000_000_000,
            expression_type: Some(Text::plain("TAG")),
            max_msg_bytes: Some(262_144),
            request_source: Some(-1),
            proxy_forward_client_id: Some(Text::plain("p")),
            lite_topic: Some(Text::plain("l")),
        }
    }

    #[test]
    fn both_codecs() {
        let bare = PullHeader {
            subscription: None,
            expression_type: None,
            max_msg_bytes: None,
            request_source: None,
            proxy_forward_client_id: None,
            lite_topic: None,
            ..example()
        };
        for (codec, header) in [
            (Codec::Json, example()),
            (Codec::Binary, example()),
            (Codec::Json, bare),
        ] {
            let mut out = Vec::new();
            let mut writer = FrameWriter::request(&mut out, codec, 1, 11, false);
            header.encode(&mut writer);
            writer.finish(0);
            let command = Command::decode(split(&out).unwrap()).unwrap();
            assert_eq!(PullHeader::decode(&command.ext), Ok(header));
        }
    }

    #[test]
    fn every_required_field_is_missed() {
        for absent in REQUIRED {
            let mut out = Vec::new();
            let mut writer = FrameWriter::request(&mut out, Codec::Json, 1, 11, false);
            for key in REQUIRED.iter().filter(|key| **key != absent) {
                writer.field_i64(key, 1);
            }
            writer.finish(0);
            let command = Command::decode(split(&out).unwrap()).unwrap();
            let expected = Err(HeaderError {
                field: absent,
                reason: Reason::Missing,
            });
            assert_eq!(PullHeader::decode(&command.ext), expected);
        }
    }
}
