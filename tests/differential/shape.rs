//! An answer as a flat table of leaves, so that two answers can be compared leaf by leaf.
//!
//! `code`, `remark`, `ext.NAME`, and of a body: `body.a.b[0].c` of JSON, `body[0].queueId` of
//! records, `body.KEY` of property lines, `body` of anything else. Times, ids and addresses are
//! masked by their form, wherever they stand; zero and minus one are not times and stay.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use orbitmq::message::id::OffsetId;
use orbitmq::message::properties;
use orbitmq::message::view::RecordView;
use orbitmq::remoting::body::json;
use orbitmq::remoting::code::{request, response};
use serde_json::Value;

use crate::wire::{Answer, Outcome};

pub type Leaves = BTreeMap<String, String>;

/// Leaves by their last name: positions in the log and versions, which no client compares. Of the
/// last two, zero is not a place.
const NUMBERS: [&str; 4] = ["physicalOffset", "physicOffset", "counter", "stateVersion"];
const PLACES: [&str; 2] = ["indexLastUpdatePhyoffset", "preparedTransactionOffset"];
/// Members by which the items of a list are known.
const NAMES: [&str; 6] = [
    "topic",
    "topicName",
    "groupName",
    "brokerName",
    "queueId",
    "clientId",
];
/// What the reference says where nothing is said.
const NO_REMARK: &str = "not set any response code";
/// Answered with records on success.
const RECORDS: [i32; 7] = [
    request::PULL_MESSAGE,
    request::LITE_PULL_MESSAGE,
    request::QUERY_MESSAGE,
    request::VIEW_MESSAGE_BY_ID,
    request::POP_MESSAGE,
    request::POP_LITE_MESSAGE,
    request::PEEK_MESSAGE,
];
/// Ids of hosts with addresses of either version.
const ID_DIGITS: [usize; 2] = [32, 56];
const TIME_DIGITS: usize = 13;
/// What can be a time in ms: 2020 to 2060.
const TIMES: std::ops::Range<u64> = 1_577_836_800_000..2_840_140_800_000;

/// How an answer is to be read.
pub struct Form<'a> {
    pub code: i32,
    pub masks: &'a [&'a str],
    pub broker: &'a str,
    pub namesrv: &'a str,
}

/// The leaves as they came.
pub fn raw(outcome: &Outcome, form: &Form<'_>) -> Leaves {
    let mut leaves = flat(outcome, form, &str::to_owned);
    let id = leaves.get("ext.msgId").and_then(|id| OffsetId::parse(id));
    if let Some(id) = id {
        leaves.insert(
            "ext.msgId.offset".to_owned(),
            id.physical_offset.to_string(),
        );
    }
    leaves
}

/// The leaves to compare.
pub fn masked(outcome: &Outcome, form: &Form<'_>) -> Leaves {
    let leaves = flat(outcome, form, &|text| masked_text(text, form));
    let mask = |(path, value): (String, String)| {
        let last = path.rsplit('.').next().unwrap_or(&path);
        let number = value.parse::<u64>().ok();
        let named = |mask: &&str| match *mask {
            "*" => path.starts_with("body"),
            mask => mask == path || mask == last,
        };
        let masked = if form.masks.iter().any(named) {
            "<masked>".to_owned()
        } else if number.is_some() && NUMBERS.contains(&last)
            || number.is_some_and(|number| number > 0) && PLACES.contains(&last)
        {
            "<number>".to_owned()
        } else if last == "recallHandle" {
            handle(&value, form)
        } else {
            value
        };
        (path, masked)
    };
    leaves.into_iter().map(mask).collect()
}

fn flat(outcome: &Outcome, form: &Form<'_>, text: &dyn Fn(&str) -> String) -> Leaves {
    let mut leaves = Leaves::new();
    let answer = match outcome {
        Outcome::Answer(answer) => answer,
        Outcome::Closed => return Leaves::from([("code".to_owned(), "closed".to_owned())]),
        Outcome::Silent => return Leaves::from([("code".to_owned(), "silent".to_owned())]),
    };
    leaves.insert("code".to_owned(), answer.code.to_string());
    leaves.insert("version".to_owned(), answer.version.to_string());
    leaves.insert("flag".to_owned(), answer.flag.to_string());
    if let Some(remark) = answer
        .remark
        .as_deref()
        .filter(|remark| !matches!(*remark, "" | NO_REMARK))
    {
        leaves.insert("remark".to_owned(), text(remark));
    }
    for (key, value) in &answer.fields {
        leaves.insert(format!("ext.{key}"), text(value));
    }
    if !answer.body.is_empty() {
        body(answer, form, text, &mut leaves);
    }
    leaves
}

fn body(answer: &Answer, form: &Form<'_>, text: &dyn Fn(&str) -> String, leaves: &mut Leaves) {
    if RECORDS.contains(&form.code) && answer.code == response::SUCCESS {
        return records(&answer.body, text, leaves);
    }
    if let Ok(value) = json::from_slice::<Value>(&answer.body)
        && (value.is_object() || value.is_array())
    {
        return json_leaves("body", &value, text, leaves);
    }
    let Ok(plain) = std::str::from_utf8(&answer.body) else {
        let shown = format!("{} bytes", answer.body.len());
        leaves.insert("body".to_owned(), shown);
        return;
    };
    if plain.lines().all(|line| line.contains('=')) {
        for (key, value) in plain.lines().filter_map(|line| line.split_once('=')) {
            leaves.insert(format!("body.{key}"), text(value));
        }
    } else {
        leaves.insert("body".to_owned(), text(plain));
    }
}

/// Order inside an array has no meaning in any body of the protocol: arrays are sorted, those of
/// plain values are compared as sets.
fn json_leaves(path: &str, value: &Value, text: &dyn Fn(&str) -> String, leaves: &mut Leaves) {
    match value {
        Value::Object(members) if members.is_empty() => {
            leaves.insert(path.to_owned(), "{}".to_owned());
        }
        Value::Object(members) => {
            for (key, member) in members {
                json_leaves(&format!("{path}.{}", text(key)), member, text, leaves);
            }
        }
        Value::Array(items) if items.is_empty() => {
            leaves.insert(path.to_owned(), "[]".to_owned());
        }
        // A list of maps with one member each is a map.
        Value::Array(items) if items.iter().all(|item| one_member(item).is_some()) => {
            for (key, member) in items.iter().filter_map(one_member) {
                json_leaves(&format!("{path}[].{}", text(key)), member, text, leaves);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            let table = |item: &Value| {
                let mut leaves = Leaves::new();
                json_leaves("", item, text, &mut leaves);
                leaves
            };
            let mut tables: Vec<Leaves> = items.iter().map(table).collect();
            let known_by = |table: &Leaves| -> Vec<String> {
                let named = |(path, _): &(&String, &String)| {
                    NAMES.contains(&path.rsplit('.').next().unwrap_or(path))
                };
                table
                    .iter()
                    .filter(named)
                    .map(|(_, value)| value.clone())
                    .collect()
            };
            tables.sort_by_cached_key(|table| (known_by(table), table.clone()));
            for (at, table) in tables.into_iter().enumerate() {
                let place = |(below, value)| (format!("{path}[{at}]{below}"), value);
                leaves.extend(table.into_iter().map(place));
            }
        }
        Value::Array(items) => {
            for item in items {
                let shown = item
                    .as_str()
                    .map_or_else(|| item.to_string(), str::to_owned);
                leaves.insert(format!("{path}[{}]", text(&shown)), "there".to_owned());
            }
        }
        Value::String(string) => {
            leaves.insert(path.to_owned(), text(string));
        }
        plain => {
            leaves.insert(path.to_owned(), text(&plain.to_string()));
        }
    }
}

fn one_member(value: &Value) -> Option<(&String, &Value)> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    members.iter().next()
}

fn records(bytes: &[u8], text: &dyn Fn(&str) -> String, leaves: &mut Leaves) {
    for (at, record) in RecordView::iter(bytes).enumerate() {
        let Ok(record) = record else {
            leaves.insert(format!("body[{at}]"), "no record".to_owned());
            return;
        };
        let mut leaf = |name: &str, value: String| {
            leaves.insert(format!("body[{at}].{name}"), text(&value));
        };
        leaf("topic", record.topic().to_owned());
        leaf("queueId", record.queue_id().to_string());
        leaf("flag", record.flag().to_string());
        leaf("queueOffset", record.queue_offset().to_string());
        leaf("physicalOffset", record.physical_offset().to_string());
        leaf("sysFlag", record.sys_flag().to_string());
        leaf("bornTimestamp", record.born_timestamp().to_string());
        leaf("bornHost", record.born_host().to_string());
        leaf("storeTimestamp", record.store_timestamp().to_string());
        leaf("storeHost", record.store_host().to_string());
        leaf("reconsumeTimes", record.reconsume_times().to_string());
        let prepared = record.prepared_transaction_offset();
        leaf("preparedTransactionOffset", prepared.to_string());
        leaf("body", String::from_utf8_lossy(record.body()).into_owned());
        leaf("bodyCrc", record.has_valid_body_crc().to_string());
        for (key, value) in properties::iter(record.properties()) {
            let key = String::from_utf8_lossy(key);
            leaf(
                &format!("property.{key}"),
                String::from_utf8_lossy(value).into_owned(),
            );
        }
    }
}

/// A handle holds a topic, a broker, a time and an id.
fn handle(value: &str, form: &Form<'_>) -> String {
    let bytes = URL_SAFE_NO_PAD.decode(value.trim_end_matches('='));
    let inside = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    inside.map_or_else(|| value.to_owned(), |inside| masked_text(&inside, form))
}

fn masked_text(text: &str, form: &Form<'_>) -> String {
    let text = text
        .replace(form.broker, "<broker>")
        .replace(form.namesrv, "<namesrv>");
    let text = without_ports(&text);
    let mut out = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let hex = rest
            .bytes()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
            .count();
        let run = &rest[..hex];
        let is_time = hex == TIME_DIGITS && run.parse().is_ok_and(|time| TIMES.contains(&time));
        match (hex, is_time) {
            (digits, _) if ID_DIGITS.contains(&digits) => out.push_str("<id>"),
            (_, true) => out.push_str("<time>"),
            _ => out.push_str(run),
        }
        rest = &rest[hex..];
        let other = rest.chars().next().map_or(0, char::len_utf8);
        out.push_str(&rest[..other]);
        rest = &rest[other..];
    }
    out
}

/// Ports that the kernel gave to clients; those of the script's own addresses are below.
fn without_ports(text: &str) -> String {
    const HOST: &str = "127.0.0.1:";
    let mut parts = text.split(HOST);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        match part[..digits].parse::<u16>() {
            Ok(1024..) => out.push_str("<client>"),
            _ => out.push_str(&format!("{HOST}{}", &part[..digits])),
        }
        out.push_str(&part[digits..]);
    }
    out
}
