//! Bodies that brokers send: topics with their version (103, 217, 322), in JSON of any age and in
//! the zlib form of old brokers.
//!
//! Everything a name server has no use for (attributes, filter servers, queue details) is skipped.
//! Sources: `RegisterBrokerBody`, `TopicConfig`, `DataVersion`; spec page namesrv-ha §2.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::ZlibDecoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::routes::{Queues, TopicShare};
use crate::base::cursor::Cursor;

/// The first version whose body is a `RegisterBrokerBody` (V3_0_11).
const VERSION_REGISTER_BODY: i32 = 37;
/// The first version whose compressed body ends with queue mappings (V5_0_0).
const VERSION_MAPPINGS: i32 = 413;

/// The first byte of a zlib stream, which no JSON starts with. Java brokers with
/// `compressedRegister` compress the body and do not say so in the header.
const ZLIB_START: u8 = 0x78;

/// Which state of a broker's topics: equal versions, equal topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    pub counter: i64,
    /// Epoch of the elected master; the later one wins an id.
    pub state_version: i64,
    pub timestamp: i64,
}

/// How a static topic's queues lie in one broker (`TopicQueueMappingInfo`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueMapping {
    pub topic: Option<String>,
    pub scope: Option<String>,
    pub total_queues: i32,
    pub bname: Option<String>,
    pub epoch: i64,
    pub dirty: bool,
    /// Logical to physical queue id.
    pub curr_id_map: BTreeMap<i32, i32>,
}

/// A broker's topics and their version.
#[derive(Debug, Default)]
pub struct TopicReport {
    pub version: DataVersion,
    pub topics: BTreeMap<String, TopicShare>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RegisterBody {
    topic_config_serialize_wrapper: Option<TopicTable>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TopicTable {
    data_version: Option<DataVersion>,
    topic_config_table: Option<BTreeMap<String, TopicConfig>>,
    topic_queue_mapping_info_map: Option<BTreeMap<String, QueueMapping>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TopicConfig {
    topic_name: Option<String>,
    read_queue_nums: i32,
    write_queue_nums: i32,
    perm: i32,
    topic_sys_flag: i32,
}

impl Default for TopicConfig {
    /// What the reference assumes where a member is left out.
    fn default() -> Self {
        TopicConfig {
            topic_name: None,
            read_queue_nums: 16,
            write_queue_nums: 16,
            perm: 6,
            topic_sys_flag: 0,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RouteBody {
    queue_datas: Option<Vec<QueueData>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct QueueData {
    broker_name: Option<String>,
    read_queue_nums: i32,
    write_queue_nums: i32,
    perm: i32,
    topic_sys_flag: i32,
}

/// Reads the body of a registration by `broker`, a peer of `version`. The error is a sentence.
pub fn decode_topics(
    body: &[u8],
    broker: &str,
    version: i32,
    compressed: bool,
    inflated_bytes_max: usize,
) -> Result<TopicReport, String> {
    if body.is_empty() {
        return Ok(TopicReport::default());
    }
    let table = if version < VERSION_REGISTER_BODY {
        parse::<TopicTable>(body)?
    } else if compressed || body.first() == Some(&ZLIB_START) {
        inflate(body, version, inflated_bytes_max)?
    } else {
        let body = parse::<RegisterBody>(body)?;
        body.topic_config_serialize_wrapper.unwrap_or_default()
    };
    Ok(report(table, broker))
}

fn report(table: TopicTable, broker: &str) -> TopicReport {
    let mut mappings = table.topic_queue_mapping_info_map.unwrap_or_default();
    let configs = table.topic_config_table.unwrap_or_default();
    let topics = configs.into_iter().map(|(key, config)| {
        let queues = Queues {
            read: config.read_queue_nums,
            write: config.write_queue_nums,
            perm: config.perm,
            sys_flag: config.topic_sys_flag,
        };
        let topic = config.topic_name.unwrap_or(key);
        let mapping = mappings.remove(&topic);
        let mapping = mapping.filter(|mapping| mapping.bname.as_deref() == Some(broker));
        (topic, TopicShare { queues, mapping })
    });
    TopicReport {
        topics: topics.collect(),
        version: table.data_version.unwrap_or_default(),
    }
}

/// The queues in the body of request 217 (a `TopicRouteData`).
pub fn decode_queues(body: &[u8]) -> Result<Vec<(String, Queues)>, String> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let datas = parse::<RouteBody>(body)?.queue_datas.unwrap_or_default();
    let queues = datas.into_iter().map(|data| {
        let queues = Queues {
            read: data.read_queue_nums,
            write: data.write_queue_nums,
            perm: data.perm,
            sys_flag: data.topic_sys_flag,
        };
        (data.broker_name.unwrap_or_default(), queues)
    });
    Ok(queues.collect())
}

/// The body of request 322; none differs from every version.
pub fn decode_version(body: &[u8]) -> Result<Option<DataVersion>, String> {
    if body.is_empty() {
        return Ok(None);
    }
    parse::<Option<DataVersion>>(body)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let quoted = quote_integer_keys(body);
    serde_json::from_slice(&quoted).map_err(|error| format!("the body is unreadable: {error}"))
}

/// The reference writes maps with integer keys without quotes, `{0:1}`; JSON wants them.
fn quote_integer_keys(body: &[u8]) -> Cow<'_, [u8]> {
    let bare = |at: usize| matches!(body.get(at), Some(b'0'..=b'9' | b'-'));
    let mut out: Vec<u8> = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(body, at),
            b'{' | b',' if bare(at) => {
                let digits = body[at + 1..].iter().take_while(|b| b.is_ascii_digit());
                let end = at + 1 + digits.count();
                if body.get(end) == Some(&b':') {
                    out.extend_from_slice(&body[copied..at]);
                    out.push(b'"');
                    out.extend_from_slice(&body[at..end]);
                    out.push(b'"');
                    copied = end;
                }
                at = end;
            }
            _ => {}
        }
    }
    if copied == 0 {
        return Cow::Borrowed(body);
    }
    out.extend_from_slice(&body[copied..]);
    Cow::Owned(out)
}

/// Where a string that starts at `at`, after its quote, is over.
fn string_end(body: &[u8], mut at: usize) -> usize {
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    body.len()
}

/// ```text
/// int32 length + DataVersion JSON
/// int32 count, then each topic: int32 length + `name read write perm filterType attributes`
/// int32 length + filter server JSON
/// int32 count, then each mapping: int32 length + TopicQueueMappingInfo JSON   (from V5_0_0)
/// ```
fn inflate(body: &[u8], version: i32, bytes_max: usize) -> Result<TopicTable, String> {
    let mut bytes = Vec::new();
    let read = ZlibDecoder::new(body)
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| format!("the body does not inflate: {error}"))?;
    if bytes.len() > bytes_max {
        return Err(format!("the body inflates to more than {bytes_max} bytes"));
    }
    let short = || "the inflated body ends early".to_owned();
    let mut cursor = Cursor::new(&bytes);
    let mut table = TopicTable {
        data_version: parse(part(&mut cursor).ok_or_else(short)?)?,
        ..TopicTable::default()
    };
    let mut topics = BTreeMap::new();
    for _ in 0..cursor.i32().ok_or_else(short)? {
        let text = part(&mut cursor).ok_or_else(short)?;
        let (name, config) = topic_line(text)?;
        topics.insert(name, config);
    }
    table.topic_config_table = Some(topics);
    part(&mut cursor).ok_or_else(short)?;
    if version >= VERSION_MAPPINGS {
        let mut mappings = BTreeMap::new();
        for _ in 0..cursor.i32().ok_or_else(short)? {
            let mapping: QueueMapping = parse(part(&mut cursor).ok_or_else(short)?)?;
            mappings.insert(mapping.topic.clone().unwrap_or_default(), mapping);
        }
        table.topic_queue_mapping_info_map = Some(mappings);
    }
    Ok(table)
}

fn part<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let length = usize::try_from(cursor.i32()?).ok()?;
    cursor.bytes(length)
}

fn topic_line(text: &[u8]) -> Result<(String, TopicConfig), String> {
    let bad = || format!("no topic: {}", String::from_utf8_lossy(text));
    let line = std::str::from_utf8(text).map_err(|_| bad())?;
    let mut words = line.split(' ');
    let name = words.next().ok_or_else(bad)?.to_owned();
    let mut number = || words.next()?.parse::<i32>().ok();
    let config = TopicConfig {
        topic_name: Some(name.clone()),
        read_queue_nums: number().ok_or_else(bad)?,
        write_queue_nums: number().ok_or_else(bad)?,
        perm: number().ok_or_else(bad)?,
        topic_sys_flag: 0,
    };
    words.next().ok_or_else(bad)?;
    Ok((name, config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::ZlibEncoder};
    use std::io::Write;

    fn check_quoted(body: &str, expected: &str) {
        let quoted = quote_integer_keys(body.as_bytes());
        assert_eq!(std::str::from_utf8(&quoted), Ok(expected));
    }

    #[test]
    fn bare_integer_keys_get_quotes() {
        check_quoted(r#"{"a":{0:1,1:-2}}"#, r#"{"a":{"0":1,"1":-2}}"#);
        check_quoted(r#"{-1:[1,2,{3:"4,5:6"}]}"#, r#"{"-1":[1,2,{"3":"4,5:6"}]}"#);
        check_quoted(
            r#"{"{0:":"\",1:","b":[0,1]}"#,
            r#"{"{0:":"\",1:","b":[0,1]}"#,
        );
        check_quoted("{0", "{0");
        check_quoted("\"\\", "\"\\");
        check_quoted("", "");
    }

    fn shown(report: Result<TopicReport, String>) -> String {
        let report = match report {
            Ok(report) => report,
            Err(error) => return error,
        };
        let version = report.version;
        let mut text = format!("{}/{}", version.counter, version.state_version);
        for (topic, share) in report.topics {
            let q = share.queues;
            text += &format!(" {topic}:{}r{}w{}p{}f", q.read, q.write, q.perm, q.sys_flag);
            if let Some(mapping) = share.mapping {
                text += &format!("{:?}", mapping.curr_id_map);
            }
        }
        text
    }

    fn check_json(version: i32, body: &str, expected: &str) {
        let report = decode_topics(body.as_bytes(), "b", version, false, 1000);
        assert_eq!(shown(report), expected, "{body}");
    }

    #[test]
    fn json_of_any_age() {
        check_json(513, "", "0/0");
        check_json(513, "{}", "0/0");
        check_json(
            513,
            r#"{"topicConfigSerializeWrapper":null,"filterServerList":[]}"#,
            "0/0",
        );
        check_json(
            36,
            r#"{"dataVersion":{"counter":2},"topicConfigTable":{"t":{"topicName":"t"}}}"#,
            "2/0 t:16r16w6p0f",
        );
        check_json(
            513,
            r#"{"topicConfigSerializeWrapper":{"dataVersion":{"counter":3,"stateVersion":4},
            "topicConfigTable":{"t":{"perm":4,"readQueueNums":1,"writeQueueNums":2,
            "topicSysFlag":3,"attributes":{"a":"b"},"topicFilterType":"MULTI_TAG"}},
            "topicQueueMappingInfoMap":{"t":{"bname":"b","currIdMap":{0:1},"topic":"t"}},
            "topicQueueMappingDetailMap":{"t":{"hostedQueues":{0:[{"bname":"b"}]}}}}}"#,
            "3/4 t:1r2w4p3f{0: 1}",
        );
        check_json(
            513,
            r#"{"x"#,
            "the body is unreadable: EOF while parsing a string at line 1 column 3",
        );
    }

    fn zipped(topics: &[&str], mappings: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |text: &str| {
            bytes.extend_from_slice(&(text.len() as i32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        put(r#"{"counter":9}"#);
        bytes.extend_from_slice(&(topics.len() as i32).to_be_bytes());
        for text in topics.iter().copied().chain(["[]"]) {
            bytes.extend_from_slice(&(text.len() as i32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&(mappings.len() as i32).to_be_bytes());
        for text in mappings {
            bytes.extend_from_slice(&(text.len() as i32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        let mut zip = ZlibEncoder::new(Vec::new(), Compression::default());
        zip.write_all(&bytes).unwrap();
        zip.finish().unwrap()
    }

    fn check_zipped(body: &[u8], version: i32, expected: &str) {
        let report = decode_topics(body, "b", version, true, 500);
        assert_eq!(shown(report), expected);
    }

    #[test]
    fn zlib_bodies() {
        let topics = ["t 1 2 6 SINGLE_TAG {\"a\":\"b\"}", "u 3 4 5 MULTI_TAG "];
        let mapping = r#"{"bname":"b","currIdMap":{0:5},"topic":"u"}"#;
        let expected = "9/0 t:1r2w6p0f u:3r4w5p0f{0: 5}";
        check_zipped(&zipped(&topics, &[mapping]), 513, expected);
        check_zipped(
            &zipped(&topics, &[mapping]),
            400,
            "9/0 t:1r2w6p0f u:3r4w5p0f",
        );
        check_zipped(&zipped(&["t 1"], &[]), 513, "no topic: t 1");
        check_zipped(
            b"{}",
            513,
            "the body does not inflate: corrupt deflate stream",
        );
        let long = "x".repeat(501);
        let over = zipped(&[&long], &[]);
        check_zipped(&over, 513, "the body inflates to more than 500 bytes");
        let mut cut = ZlibEncoder::new(Vec::new(), Compression::default());
        cut.write_all(&[0, 0, 0, 9, b'{']).unwrap();
        check_zipped(&cut.finish().unwrap(), 513, "the inflated body ends early");
    }

    #[test]
    fn other_bodies() {
        assert_eq!(decode_version(b""), Ok(None));
        assert_eq!(decode_version(b"null"), Ok(None));
        let version = decode_version(br#"{"counter":1,"timestamp":2}"#).unwrap();
        assert_eq!(version.map(|v| (v.counter, v.timestamp)), Some((1, 2)));
        assert_eq!(decode_queues(b""), Ok(Vec::new()));
        let queues = decode_queues(br#"{"queueDatas":[{"brokerName":"b","perm":6}]}"#).unwrap();
        assert_eq!((&*queues[0].0, queues[0].1.perm), ("b", 6));
        assert!(decode_queues(b"[").is_err());
    }
}
