//! Body of BATCH_ACK_MESSAGE 200151. Source: `BatchAckMessageRequestBody`, `BatchAck`,
//! `BitSetSerializerDeserializer`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BatchAcks {
    pub acks: Vec<BatchAck>,
    pub broker_name: String,
}

/// Messages of one queue that one pop handed out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAck {
    /// Base64 of a bit set, little-endian: bit n is the message `start_offset` + n.
    #[serde(rename = "b", alias = "bitSet")]
    pub bits: String,
    #[serde(rename = "c", alias = "consumerGroup")]
    pub group: String,
    /// Milliseconds, as `pop_time`.
    #[serde(rename = "it", alias = "invisibleTime")]
    pub invisible_time: i64,
    #[serde(rename = "pt", alias = "popTime")]
    pub pop_time: i64,
    #[serde(rename = "q", alias = "queueId")]
    pub queue_id: i32,
    /// `0` the topic itself, `1` and `2` the two forms of its retry topic.
    #[serde(rename = "r", alias = "retry")]
    pub retry: String,
    #[serde(rename = "rq", alias = "reviveQueueId")]
    pub revive_queue_id: i32,
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    #[serde(rename = "t", alias = "topic")]
    pub topic: String,
}

impl BatchAck {
    /// The text of [`bits`](Self::bits) for messages by their distance from the first offset.
    pub fn bits_of(distances: impl Iterator<Item = i64>) -> String {
        let mut bytes = Vec::new();
        for bit in distances.filter_map(|distance| usize::try_from(distance).ok()) {
            if bytes.len() <= bit / 8 {
                bytes.resize(bit / 8 + 1, 0);
            }
            bytes[bit / 8] |= 1u8 << (bit % 8);
        }
        STANDARD.encode(bytes)
    }

    /// `None` if the bits are no base64 or more than `most`, or the first offset is negative.
    pub fn offsets(&self, most: usize) -> Option<Vec<u64>> {
        let start = u64::try_from(self.start_offset).ok()?;
        let bytes = STANDARD.decode(self.bits.as_bytes()).ok()?;
        let count: usize = bytes.iter().map(|byte| byte.count_ones() as usize).sum();
        if count > most {
            return None;
        }
        let bits = bytes.iter().enumerate().flat_map(|(at, byte)| {
            (0..8)
                .filter(move |bit| byte >> bit & 1 == 1)
                .map(move |bit| at as u64 * 8 + bit)
        });
        Some(bits.map(|bit| start + bit).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_offsets() {
        let ack = |bits: &str, start_offset| BatchAck {
            bits: bits.to_owned(),
            start_offset,
            ..BatchAck::default()
        };
        // Java: bits 0, 1, 9 set; `toByteArray` gives 3, 2.
        assert_eq!(ack("AwI=", 100).offsets(3), Some(vec![100, 101, 109]));
        assert_eq!(ack("AwI=", 100).offsets(2), None);
        assert_eq!(BatchAck::bits_of([0, 9, 1].into_iter()), "AwI=");
        assert_eq!(ack("", 100).offsets(0), Some(vec![]));
        assert_eq!(ack("AwI=", -1).offsets(3), None);
        assert_eq!(ack("?", 0).offsets(3), None);
    }

    #[test]
    fn both_spellings_are_read() {
        let short =
            r#"{"acks":[{"b":"AQ==","c":"g","it":3,"pt":2,"q":1,"r":"0","rq":0,"so":5,"t":"t"}]}"#;
        let long = r#"{"acks":[{"bitSet":"AQ==","consumerGroup":"g","invisibleTime":3,"popTime":2,
            "queueId":1,"retry":"0","reviveQueueId":0,"startOffset":5,"topic":"t"}]}"#;
        let read = |text: &str| serde_json::from_str::<BatchAcks>(text).unwrap();
        assert_eq!(read(short), read(long));
        assert_eq!(read(short).acks[0].offsets(1), Some(vec![5]));
    }
}
