//! One header without its frame, so that the engine need not guess lengths: the first byte picks
//! the codec. Whatever decodes is read as every hot header, and as a body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orbitmq::filter::tag::TagFilter;
use orbitmq::remoting::body::heartbeat::HeartbeatData;
use orbitmq::remoting::body::json;
use orbitmq::remoting::body::register::RegisterBrokerBody;
use orbitmq::remoting::body::stats::TopicStats;
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::frame::{Codec, Frame, split};
use orbitmq::remoting::header::namesrv::RegisterBroker;
use orbitmq::remoting::header::pull::PullHeader;
use orbitmq::remoting::header::send::SendHeader;
use orbitmq::remoting::layout::Layouts;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, header)) = bytes.split_first() else {
        return;
    };
    let codec = if first & 1 == 0 {
        Codec::Json
    } else {
        Codec::Binary
    };
    let frame = Frame {
        codec,
        header,
        body: b"",
    };
    let command = Command::decode(frame);
    // Twice: the second time by the layout that the first one left, if it did.
    let mut layouts = Layouts::default();
    for _ in 0..2 {
        let again = layouts.decode(frame);
        assert_eq!(format!("{again:?}"), format!("{command:?}"));
    }
    if let Ok(command) = command {
        typed_headers(&command);
    }
    let _ = json::from_slice::<HeartbeatData>(header);
    let _ = json::from_slice::<TopicStats>(header);
    let _ = RegisterBrokerBody::decode(header, 513);
    if let Ok(text) = std::str::from_utf8(header) {
        let _ = TagFilter::parse(text);
    }
});

fn typed_headers(command: &Command<'_>) {
    let _ = SendHeader::decode_long(&command.ext);
    let _ = PullHeader::decode(&command.ext);
    let _ = RegisterBroker::decode(&command.ext);
    if let Ok(send) = SendHeader::decode_short(&command.ext) {
        let mut out = Vec::new();
        let mut writer = FrameWriter::request(&mut out, Codec::Json, 1, 310, false);
        send.encode_short(&mut writer);
        writer.finish(0);
        let again = Command::decode(split(&out).unwrap()).unwrap();
        assert_eq!(SendHeader::decode_short(&again.ext), Ok(send));
    }
}
