use std::time::Duration;

use super::group::{GROUP_BYTES, Group, Place, answer};
use super::inbox::Inbox;
use super::*;
use crate::remoting::command::FrameWriter;
use crate::remoting::frame::Codec;

const SCRATCH_BYTES: u64 = 4 << 20;

fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    FrameWriter::request(&mut out, Codec::Json, 1, 310, false).finish_with_body(body);
    out
}

fn load(depth: usize) -> Load {
    Load {
        frame: frame(&[7; 200]),
        reply: frame(b"stored"),
        depth,
        time: Duration::from_millis(20),
        server_core: None,
        client_core: None,
    }
}

#[test]
fn frames_come_out_of_pieces() {
    let bytes = frame(b"abc").repeat(3);
    let mut inbox = Inbox::new(bytes.len());
    let mut count = 0;
    for piece in bytes.chunks(7) {
        inbox.room()[..piece.len()].copy_from_slice(piece);
        inbox.received(piece.len());
        count += inbox.count().unwrap();
    }
    assert_eq!((count, inbox.room().len()), (3, bytes.len()));
    assert_eq!(inbox.next(|_| false), Ok(false));
}

#[test]
fn frames_that_are_none_end_it() {
    let mut inbox = Inbox::new(16);
    inbox.room()[..4].copy_from_slice(&[0, 0, 0, 1]);
    inbox.received(4);
    assert!(inbox.count().unwrap_err().contains("unreadable"));
    let mut inbox = Inbox::new(16);
    inbox.room()[..4].copy_from_slice(&[0, 0, 0, 99]);
    inbox.received(4);
    assert!(inbox.count().unwrap_err().contains("103 bytes"));
}

#[test]
fn a_group_holds_frames_with_their_sums_until_it_is_full() {
    let (mut buffer, mut group) = ([0; 25], Group::default());
    assert_eq!(group.append(&mut buffer, b"abcd"), Ok(true));
    assert_eq!(buffer[..4], 4u32.to_be_bytes());
    assert_eq!(buffer[4..8], crc32fast::hash(b"abcd").to_be_bytes());
    assert_eq!(&buffer[8..12], b"abcd");
    assert_eq!(group.append(&mut buffer, b"efghij"), Ok(false));
    assert_eq!(group.append(&mut buffer, b"efghi"), Ok(true));
    assert_eq!((group.bytes, group.messages), (25, 2));
    let mut out = Vec::new();
    answer(group, b"yes", &mut out);
    assert_eq!(out, b"yesyes");
    let refused = Group::default().append(&mut buffer, &[0; 100]);
    assert!(refused.unwrap_err().contains("fits in no group"));
}

#[test]
fn groups_go_round_in_the_file() {
    let mut place = Place::new(2 * GROUP_BYTES as u64);
    let taken: Vec<u64> = (0..3).map(|_| place.take(GROUP_BYTES)).collect();
    assert_eq!(taken, [0, GROUP_BYTES as u64, 0]);
}

#[test]
fn loopback_answers() {
    for depth in [1, 100] {
        let traffic = loopback(&load(depth)).unwrap();
        assert!(traffic.messages > 0 && traffic.seconds >= 0.02);
        assert_eq!(traffic.round_trip.is_some(), depth == 1);
    }
}

#[test]
fn pipelines_commit() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = Scratch::make(dir.path(), SCRATCH_BYTES).unwrap();
    for build in [Build::Glommio, Build::Ring] {
        for flush in [Flush::Sync, Flush::Async] {
            for depth in [1, 100] {
                let traffic = pipeline(build, flush, &load(depth), &scratch).unwrap();
                assert!(traffic.messages > 0, "{build:?} {flush:?} {depth}");
            }
        }
    }
    let sent = load(1).frame;
    let mut written = vec![0; 8 + sent.len()];
    let mut file = std::fs::File::open(scratch.path()).unwrap();
    std::io::Read::read_exact(&mut file, &mut written).unwrap();
    assert_eq!(written[..4], (sent.len() as u32).to_be_bytes());
    assert_eq!(written[8..], sent);
}

#[test]
fn the_disk_has_a_curve_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = Scratch::make(dir.path(), SCRATCH_BYTES).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    for sync in [DiskSync::None, DiskSync::Fdatasync, DiskSync::Dsync] {
        let point = DiskPoint {
            block_bytes: 16 * 1024,
            depth: 2,
            sync,
            time: Duration::from_millis(10),
        };
        let done = point.measure(&scratch).unwrap();
        assert!(done.writes > 0 && done.latency.p50 <= done.latency.p99);
    }
    let missing = Scratch::make(&dir.path().join("missing"), SCRATCH_BYTES);
    assert!(missing.err().unwrap().contains("missing"));
}
