//! Records and batches against the bytes that the reference writes (`tests/golden/`), both ways.

use super::batch::{self, SubMessage};
use super::encode::{Draft, Placed, encode};
use super::id::OffsetId;
use super::properties;
use super::view::RecordView;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../tests/golden/", $name, ".hex"))
    };
}

fn unhex(hex: &str) -> Vec<u8> {
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

fn check(reference: &str, topic: &str, born: &str, stored: &str) {
    let reference = unhex(reference);
    let draft = Draft {
        topic,
        queue_id: 3,
        flag: -9,
        sys_flag: 1,
        born_timestamp: 1_700_000_000_000,
        born_host: born.parse().unwrap(),
        store_host: stored.parse().unwrap(),
        reconsume_times: 2,
        prepared_transaction_offset: 11,
        body: b"hello record",
        properties: b"KEYS\x01k\x02TAGS\x01a\x02",
    };
    let placed = Placed {
        queue_offset: 7,
        physical_offset: 1 << 40,
        store_timestamp: 1_700_000_000_001,
    };
    let mut out = Vec::new();
    encode(&draft, placed, &mut out);
    assert_eq!(out, reference);
    let view = RecordView::parse(&reference).unwrap();
    assert!(view.has_valid_body_crc());
    assert_eq!(
        (view.born_host(), view.store_host()),
        (draft.born_host, draft.store_host)
    );
}

#[test]
fn records() {
    let long = "%RETRY%".to_string() + &"g".repeat(130);
    check(
        golden!("record_v1"),
        "TopicTest",
        "10.0.0.1:40000",
        "10.0.0.2:10911",
    );
    check(
        golden!("record_v2"),
        &long,
        "10.0.0.1:40000",
        "10.0.0.2:10911",
    );
    check(
        golden!("record_v6"),
        "TopicTest",
        "[fe80::1]:40000",
        "[2001:db8::2]:10911",
    );
    check(
        golden!("record_mixed"),
        "TopicTest",
        "[fe80::1]:40000",
        "10.0.0.2:10911",
    );
}

/// Ids that the reference made for the store hosts above.
#[test]
fn offset_ids() {
    let check = |host: &str, expected: &str| {
        let id = OffsetId {
            store_host: host.parse().unwrap(),
            physical_offset: 1 << 40,
        };
        assert_eq!(id.to_text().as_str(), expected);
    };
    check("10.0.0.2:10911", "0A00000200002A9F0000010000000000");
    check(
        "[2001:db8::2]:10911",
        "20010DB800000000000000000000000200002A9F0000010000000000",
    );
}

#[test]
fn batches() {
    let reference = unhex(golden!("batch"));
    let read: Vec<SubMessage<'_>> = batch::iter(&reference).map(Result::unwrap).collect();
    assert_eq!(read.len(), 2);
    assert_eq!((read[0].flag, read[0].body), (5, b"one".as_slice()));
    assert_eq!(
        properties::find_str(read[0].properties, "TAGS"),
        Some("tagA")
    );
    assert_eq!(
        properties::find_str(read[1].properties, "WAIT"),
        Some("true")
    );
    let mut out = Vec::new();
    read.into_iter()
        .for_each(|message| batch::append(&mut out, message));
    assert_eq!(out, reference);
}
