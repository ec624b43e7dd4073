//! Body of REGISTER_BROKER 103: the broker's topics, as JSON or compressed.
//!
//! The compressed form is zlib of: DataVersion JSON, topic count, topics as lines of text, filter
//! server JSON and, from version 413 on, mapping count and mapping JSON; every count and length an
//! `int32`. Only old brokers send it knowingly, but Java with `compressedRegister` sends it while
//! the header denies it, so the first byte decides. Source: `RegisterBrokerBody`; spec page
//! namesrv-ha §2.

use std::io::Read;

use flate2::read::ZlibDecoder;
use serde::{Deserialize, Serialize};

use super::json::{self, BodyError};
use super::topic::{QueueMapping, TopicConfig, TopicFilterType, TopicTable};

/// Registrations from this version on carry a [`RegisterBrokerBody`], before it a bare
/// [`TopicTable`] (V3_0_11).
const VERSION_WITH_BODY: i32 = 37;
/// Compressed registrations from this version on carry mappings (V5_0_0).
const VERSION_WITH_MAPPINGS: i32 = 413;
/// More than this after decompression is refused.
pub const INFLATED_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RegisterBrokerBody {
    pub filter_server_list: Vec<String>,
    pub topic_config_serialize_wrapper: TopicTable,
}

impl RegisterBrokerBody {
    /// Reads the body of a broker that states this version in its header.
    pub fn decode(body: &[u8], version: i32) -> Result<Self, BodyError> {
        const ZLIB_FIRST: u8 = 0x78;
        if body.first() == Some(&ZLIB_FIRST) {
            return inflate(body, version);
        }
        if version >= VERSION_WITH_BODY {
            return json::from_slice(body);
        }
        let topics = json::from_slice(body)?;
        Ok(Self {
            filter_server_list: Vec::new(),
            topic_config_serialize_wrapper: topics,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        json::to_vec(self)
    }
}

fn inflate(body: &[u8], version: i32) -> Result<RegisterBrokerBody, BodyError> {
    let mut bytes = Vec::new();
    let mut reader = ZlibDecoder::new(body).take(INFLATED_BYTES_MAX + 1);
    let read = reader.read_to_end(&mut bytes);
    if read.is_err() || bytes.len() as u64 > INFLATED_BYTES_MAX {
        return Err(BodyError::Syntax { at: bytes.len() });
    }
    let mut parts = Parts {
        bytes: &bytes,
        at: 0,
    };
    let mut table = TopicTable {
        data_version: json::from_slice(parts.part()?)?,
        ..Default::default()
    };
    for _ in 0..parts.count()? {
        let topic = parts.topic()?;
        table
            .topic_config_table
            .insert(topic.topic_name.clone(), topic);
    }
    // Obsolete, and the reference goes on when it cannot read it.
    let filter_server_list = json::from_slice(parts.part()?).unwrap_or_default();
    if version >= VERSION_WITH_MAPPINGS {
        for _ in 0..parts.count()? {
            let mapping: QueueMapping = json::from_slice(parts.part()?)?;
            table
                .topic_queue_mapping_info_map
                .insert(mapping.topic.clone(), mapping);
        }
    }
    Ok(RegisterBrokerBody {
        filter_server_list,
        topic_config_serialize_wrapper: table,
    })
}

/// Length-prefixed parts. A count is not trusted with memory: each part it promises must be there.
struct Parts<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Parts<'a> {
    fn count(&mut self) -> Result<usize, BodyError> {
        let broken = BodyError::Syntax { at: self.at };
        let word = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<4>());
        let count = i32::from_be_bytes(*word.ok_or(BodyError::Syntax { at: self.at })?);
        self.at += 4;
        usize::try_from(count).map_err(|_| broken)
    }

    fn part(&mut self) -> Result<&'a [u8], BodyError> {
        let len = self.count()?;
        let part = self.bytes.get(self.at..).and_then(|rest| rest.get(..len));
        let part = part.ok_or(BodyError::Syntax { at: self.at })?;
        self.at += len;
        Ok(part)
    }

    fn topic(&mut self) -> Result<TopicConfig, BodyError> {
        let at = self.at;
        let line = std::str::from_utf8(self.part()?).map_err(|_| BodyError::NotUtf8)?;
        topic_line(line).ok_or(BodyError::Syntax { at })
    }
}

/// `name read write perm filterType {attributes}`; attributes that cannot be read are none.
fn topic_line(line: &str) -> Option<TopicConfig> {
    let mut words = line.splitn(6, ' ');
    let topic = TopicConfig {
        topic_name: words.next()?.to_string(),
        read_queue_nums: words.next()?.parse().ok()?,
        write_queue_nums: words.next()?.parse().ok()?,
        perm: words.next()?.parse().ok()?,
        topic_filter_type: TopicFilterType::from_name(words.next()?)?,
        ..Default::default()
    };
    let attributes = words
        .next()
        .and_then(|text| json::from_slice(text.as_bytes()).ok());
    Some(TopicConfig {
        attributes: attributes.unwrap_or_default(),
        ..topic
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_line(line: &str, expected: Option<(&str, i32, i32, i32, usize)>) {
        let read = topic_line(line);
        let read = read.as_ref().map(|topic| {
            let queues = (topic.read_queue_nums, topic.write_queue_nums);
            (
                topic.topic_name.as_str(),
                queues.0,
                queues.1,
                topic.perm,
                topic.attributes.len(),
            )
        });
        assert_eq!(read, expected, "{line}");
    }

    #[test]
    fn topic_lines() {
        check_line("t 4 8 6 SINGLE_TAG", Some(("t", 4, 8, 6, 0)));
        check_line("t 4 8 6 MULTI_TAG {\"a\":\"b c\"}", Some(("t", 4, 8, 6, 1)));
        check_line("t 4 8 6 SINGLE_TAG nonsense", Some(("t", 4, 8, 6, 0)));
        check_line("t 4 8 6", None);
        check_line("t 4 x 6 SINGLE_TAG", None);
        check_line("t 4 8 6 OTHER", None);
    }

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn broken_compression_is_refused() {
        assert!(RegisterBrokerBody::decode(&[0x78, 0x9C, 1, 2], 513).is_err());
        assert!(RegisterBrokerBody::decode(&zipped(&[0, 0, 0, 9]), 513).is_err());
        assert!(RegisterBrokerBody::decode(&zipped(b"\0\0\0\x02{}\x7F\xFF\xFF\xFF"), 513).is_err());
        assert!(RegisterBrokerBody::decode(&zipped(b"\0\0\0\x02{}\xFF\xFF\xFF\xFF"), 513).is_err());
    }

    #[test]
    fn inflated_size_is_limited() {
        let mut bytes = b"\0\0\0\x02{}".to_vec();
        bytes.resize(INFLATED_BYTES_MAX as usize + 1, 0);
        assert!(RegisterBrokerBody::decode(&zipped(&bytes), 513).is_err());
        assert!(RegisterBrokerBody::decode(&zipped(&bytes[..64]), 513).is_ok());
    }

    #[test]
    fn old_brokers_send_the_table_alone() {
        let body = br#"{"dataVersion":{"counter":2},"topicConfigTable":{"t":{"topicName":"t"}}}"#;
        let read = RegisterBrokerBody::decode(body, 36).unwrap();
        assert_eq!(read.topic_config_serialize_wrapper.data_version.counter, 2);
        assert_eq!(
            read.topic_config_serialize_wrapper.topic_config_table["t"].perm,
            6
        );
        let newer = RegisterBrokerBody::decode(body, 37).unwrap();
        assert!(
            newer
                .topic_config_serialize_wrapper
                .topic_config_table
                .is_empty()
        );
    }
}
