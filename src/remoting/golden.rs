//! Frames against the bytes that the reference writes (`tests/golden/`), both ways.

use super::code::{request, response};
use super::command::{Command, FrameWriter};
use super::frame::{Codec, split};
use super::header::pull::{PullHeader, PullResponse};
use super::header::send::{SendHeader, SendResponse};
use super::text::Text;

/// Bytes of a `.hex` file.
pub(super) fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
    digits
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

macro_rules! frames {
    ($name:literal) => {
        [
            (
                Codec::Json,
                unhex(include_str!(concat!(
                    "../../tests/golden/",
                    $name,
                    "_json.hex"
                ))),
            ),
            (
                Codec::Binary,
                unhex(include_str!(concat!(
                    "../../tests/golden/",
                    $name,
                    "_rocketmq.hex"
                ))),
            ),
        ]
    };
}

/// What both frames say, fields in any order.
fn assert_same(reference: &[u8], ours: &[u8]) {
    let reference = Command::decode(split(reference).unwrap()).unwrap();
    let ours = Command::decode(split(ours).unwrap()).unwrap();
    let fields = |command: &Command<'_>| {
        let mut fields: Vec<_> = command
            .ext
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        fields.sort();
        fields
    };
    assert_eq!(fields(&ours), fields(&reference));
    let rest = |command: &Command<'_>| {
        let remark = command.remark.map(|remark| remark.to_string());
        (
            command.code,
            command.opaque,
            command.flag,
            command.version,
            command.language,
            remark,
        )
    };
    assert_eq!(rest(&ours), rest(&reference));
    assert_eq!(ours.body, reference.body);
}

fn send_header() -> SendHeader<'static> {
    SendHeader {
        producer_group: Text::plain("PG"),
        topic: Text::plain("TopicTest"),
        default_topic: Text::plain("TBW102"),
        default_topic_queue_nums: 4,
        queue_id: 2,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        flag: -1,
        properties: Text::plain(
            "KEYS\u{1}k1 k2\u{2}TAGS\u{1}tagA\u{2}UNIQ_KEY\u{1}7F000001000018B4AAC2123456780000\
             \u{2}é\u{1}中😀\"\\\u{2}",
        ),
        reconsume_times: 0,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: Some(Text::plain("broker-a")),
    }
}

#[test]
fn sends() {
    for (codec, reference) in frames!("send_short") {
        let command = Command::decode(split(&reference).unwrap()).unwrap();
        assert_eq!(
            (command.code, command.codec),
            (request::SEND_MESSAGE_V2, codec)
        );
        assert_eq!(command.body, b"hello");
        assert_eq!(SendHeader::decode_short(&command.ext), Ok(send_header()));
        let mut out = Vec::new();
        let mut writer = FrameWriter::request(&mut out, codec, 1234, 310, false);
        send_header().encode_short(&mut writer);
        writer.finish_with_body(b"hello");
        assert_same(&reference, &out);
        assert_eq!(out.len(), reference.len());
    }
    for (codec, reference) in frames!("send_long") {
        let command = Command::decode(split(&reference).unwrap()).unwrap();
        assert_eq!(
            (command.code, command.codec),
            (request::SEND_MESSAGE, codec)
        );
        assert_eq!(SendHeader::decode_long(&command.ext), Ok(send_header()));
        let mut out = Vec::new();
        let mut writer = FrameWriter::request(&mut out, codec, 1234, 10, false);
        send_header().encode_long(&mut writer);
        writer.finish_with_body(b"hello");
        assert_same(&reference, &out);
        assert_eq!(out.len(), reference.len());
    }
}

#[test]
fn pulls() {
    for (codec, reference) in frames!("pull") {
        let command = Command::decode(split(&reference).unwrap()).unwrap();
        let header = PullHeader::decode(&command.ext).unwrap();
        assert_eq!(
            (header.queue_offset, header.max_msg_bytes),
            (42, Some(262_144))
        );
        assert_eq!(header.subscription.unwrap(), "a || b");
        let mut out = Vec::new();
        let mut writer = FrameWriter::request(&mut out, codec, 1234, 11, false);
        header.encode(&mut writer);
        writer.finish(0);
        assert_same(&reference, &out);
    }
}

#[test]
fn responses() {
    for (_, reference) in frames!("send_response") {
        let command = Command::decode(split(&reference).unwrap()).unwrap();
        assert!(command.is_response());
        let header = SendResponse::decode(&command.ext).unwrap();
        assert_eq!((header.queue_id, header.queue_offset), (2, 77));
        assert_eq!(header.msg_id, "7F00000100002A9F0000000000001234");
    }
    for (codec, reference) in frames!("pull_response") {
        let command = Command::decode(split(&reference).unwrap()).unwrap();
        let header = PullResponse::decode(&command.ext).unwrap();
        assert_eq!((header.next_begin_offset, header.max_offset), (43, 100));
        let mut out = Vec::new();
        let mut writer =
            FrameWriter::response(&mut out, codec, 1234, response::SUCCESS, Some("FOUND"));
        header.encode(&mut writer);
        writer.finish_with_body(&[1, 2, 3]);
        assert_same(&reference, &out);
        assert_eq!(out.len(), reference.len());
    }
}

#[test]
fn frames_without_fields_are_equal_to_the_byte() {
    for (codec, reference) in frames!("refused") {
        let remark = "no \"topic\"\n中 \u{7}";
        let mut out = Vec::new();
        FrameWriter::response(
            &mut out,
            codec,
            1234,
            response::TOPIC_NOT_EXIST,
            Some(remark),
        )
        .finish(0);
        assert_eq!(out, reference);
    }
    for (codec, reference) in frames!("pop_request") {
        let mut out = Vec::new();
        FrameWriter::request(&mut out, codec, 1234, request::POP_MESSAGE, false).finish(0);
        assert_eq!(out, reference);
        let command = Command::decode(split(&out).unwrap()).unwrap();
        assert_eq!(command.code, request::POP_MESSAGE);
    }
}
