//! Bytes from a socket: sniffing, frame lengths, splitting, commands of both codecs, and that a
//! decoded command written again decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::frame::{Codec, frame_len, split};
use orbitmq::remoting::sniff::{refusal, sniff};

fuzz_target!(|bytes: &[u8]| {
    if let Some(protocol) = sniff(bytes) {
        refusal(protocol);
    }
    let Ok(Some(len)) = frame_len(bytes) else {
        return;
    };
    let Some(whole) = bytes.get(..len) else {
        return;
    };
    let Ok(command) = split(whole).map(Command::decode) else {
        return;
    };
    if let Ok(command) = command {
        write_again(&command);
    }
});

fn write_again(command: &Command<'_>) {
    let remark = command.remark.map(|remark| remark.to_string());
    let mut out = Vec::new();
    let codec = Codec::Json;
    let mut writer = FrameWriter::response(
        &mut out,
        codec,
        command.opaque,
        command.code,
        remark.as_deref(),
    );
    for (key, value) in command.ext.iter() {
        writer.field_text(&key.to_cow(), value);
    }
    writer.finish_with_body(command.body);
    let again = Command::decode(split(&out).unwrap()).unwrap();
    assert_eq!((again.code, again.opaque), (command.code, command.opaque));
    assert!(again.remark == command.remark);
    assert!(again.ext.iter().eq(command.ext.iter()));
    assert_eq!(again.body, command.body);
}
