//! Headers of a send and of its answer, in both codecs.

use std::hint::black_box;

use criterion::Criterion;
use orbitmq::remoting::code::response;
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::frame::{Codec, frame_len, split};
use orbitmq::remoting::header::send::{SendHeader, SendResponse};
use orbitmq::remoting::layout::Layouts;
use orbitmq::remoting::text::Text;

use crate::count::assert_none;

/// As a Java client of version 5 writes it: its order of members, its escapes.
const JAVA_HEADER: &str = concat!(
    r#"{"code":310,"extFields":{"a":"please_rename_unique_group_name","b":"TopicTest","c":"TBW102","#,
    r#""d":"4","e":"3","f":"0","g":"1726000000000","h":"0","i":"UNIQ_KEY\u0001"#,
    r#"7F0000010A2C251A69D7659BF0940000\u0002WAIT\u0001true\u0002TAGS\u0001TagA","j":"0","#,
    r#""k":"false","m":"false","n":"broker-a"},"flag":0,"language":"JAVA","opaque":12345,"#,
    r#""serializeTypeCurrentRPC":"JSON","version":493}"#
);
const BODY: [u8; 128] = [b'x'; 128];

fn json_frame() -> Vec<u8> {
    let header = JAVA_HEADER.len() as u32;
    let mut frame = (4 + header + BODY.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&header.to_be_bytes());
    frame.extend_from_slice(JAVA_HEADER.as_bytes());
    frame.extend_from_slice(&BODY);
    frame
}

/// The same request in the other codec.
fn binary_frame(json: &[u8]) -> Vec<u8> {
    let command = decoded(json);
    let header = SendHeader::decode_short(&command.ext).unwrap();
    let mut frame = Vec::new();
    let mut writer = FrameWriter::request(
        &mut frame,
        Codec::Binary,
        command.opaque,
        command.code,
        false,
    );
    header.encode_short(&mut writer);
    writer.finish_with_body(command.body);
    frame
}

fn decoded(frame: &[u8]) -> Command<'_> {
    let len = frame_len(frame).unwrap().unwrap();
    Command::decode(split(&frame[..len]).unwrap()).unwrap()
}

fn decode(frame: &[u8]) {
    let command = decoded(black_box(frame));
    let header = SendHeader::decode_short(&command.ext).unwrap();
    black_box((header.queue_id, header.topic, command.body));
}

fn encode(codec: Codec, out: &mut Vec<u8>) {
    let mut writer = FrameWriter::response(out, codec, 12345, response::SUCCESS, None);
    let answer = SendResponse {
        msg_id: Text::plain("7F00000100002A9F0000000012345678"),
        queue_id: 3,
        queue_offset: black_box(123_456),
        transaction_id: None,
        batch_uniq_id: None,
        recall_handle: None,
        region: Some(Text::plain("DefaultRegion")),
        trace_on: true,
    };
    answer.encode(&mut writer);
    writer.finish(0);
}

pub fn benches(c: &mut Criterion) {
    let json = json_frame();
    let binary = binary_frame(&json);
    let mut group = c.benchmark_group("header");
    for (name, codec, frame) in [
        ("json", Codec::Json, &json),
        ("binary", Codec::Binary, &binary),
    ] {
        assert_none(&format!("decoding a {name} header"), || decode(frame));
        group.bench_function(format!("decode a send, {name}"), |b| {
            b.iter(|| decode(frame))
        });
        let mut out = Vec::new();
        let mut encode_again = || {
            out.clear();
            encode(codec, &mut out);
        };
        assert_none(&format!("encoding a {name} header"), &mut encode_again);
        group.bench_function(format!("encode an answer, {name}"), |b| {
            b.iter(&mut encode_again)
        });
    }
    let mut layouts = Layouts::default();
    let mut decode_again = || {
        let len = frame_len(black_box(&json)).unwrap().unwrap();
        let command = layouts.decode(split(&json[..len]).unwrap()).unwrap();
        let header = SendHeader::decode_short(&command.ext).unwrap();
        black_box((header.queue_id, header.topic, command.body));
    };
    assert_none("decoding a known layout", &mut decode_again);
    group.bench_function("decode a send, json of a known layout", |b| {
        b.iter(&mut decode_again)
    });
    group.finish();
}
