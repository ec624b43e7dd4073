//! Messages that carry what is needed to check them wherever they arrive.

use rocketmq_model::common::message::MessageTrait;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_single::Message;

use crate::{Checked, Options, check, same, text};

const SIZES: [usize; 7] = [1, 100, 1000, 4095, 4096, 5000, 20_000];
pub const TAGS: [&str; 3] = ["A", "B", "C"];
const TEXT: &str = "Grüße, 消息 = 😀";

pub fn make(options: &Options, id: &str, index: usize) -> Checked<Message> {
    make_sized(options, id, index, SIZES[index % SIZES.len()])
}

pub fn make_sized(options: &Options, id: &str, index: usize, size: usize) -> Checked<Message> {
    make_delayed(options, id, index, size, 0)
}

/// With a delay level; 0 is none.
pub fn make_delayed(
    options: &Options,
    id: &str,
    index: usize,
    size: usize,
    level: i32,
) -> Checked<Message> {
    let body = body(options.seed, index, size);
    let mut builder = Message::builder()
        .topic(options.topic.clone())
        .tags(TAGS[index % TAGS.len()])
        .key(format!("key-{id}"));
    if level > 0 {
        builder = builder.delay_level(level);
    }
    let properties = [
        ("id", id.to_owned()),
        ("index", index.to_string()),
        ("crc", crc(&body)),
        ("text", TEXT.to_owned()),
    ];
    for (name, value) in properties {
        builder = builder.raw_property(name, value).map_err(text)?;
    }
    Ok(builder.body_slice(&body).build_unchecked())
}

fn body(seed: u32, index: usize, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B1).wrapping_add(index as u32);
    let mut body = vec![0; size];
    for byte in &mut body {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = b'a' + ((state >> 24) % 26) as u8;
    }
    let mut at = 50;
    while at + 1 < size {
        body[at..at + 2].copy_from_slice("é".as_bytes());
        at += 100;
    }
    body
}

fn crc(body: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(body))
}

pub fn property(message: &MessageExt, name: &str) -> Checked<String> {
    let value = message.properties().get(name).map(ToString::to_string);
    value.ok_or_else(|| format!("no property {name}"))
}

/// Checks everything a message carries and answers its id and index.
pub fn verify(message: &MessageExt) -> Checked<(String, usize)> {
    let id = property(message, "id")?;
    let index: usize = property(message, "index")?.parse().map_err(text)?;
    let body = message.body().unwrap_or_default();
    same(
        property(message, "crc")?,
        crc(&body),
        &format!("crc of {id}"),
    )?;
    same(
        TEXT,
        property(message, "text")?.as_str(),
        &format!("property text of {id}"),
    )?;
    let tag = message.get_tags().map(|tag| tag.to_string());
    same(
        Some(TAGS[index % TAGS.len()]),
        tag.as_deref(),
        &format!("tag of {id}"),
    )?;
    let key = MessageTrait::get_keys(message).map(|key| key.to_string());
    check(key == Some(format!("key-{id}")), || {
        format!("key of {id}: {key:?}")
    })?;
    Ok((id, index))
}
