//! Bytes from a disk or a pull response: records, batches, properties, ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orbitmq::message::encode::{Draft, Placed, encode};
use orbitmq::message::id::OffsetId;
use orbitmq::message::view::RecordView;
use orbitmq::message::{batch, properties};

fuzz_target!(|bytes: &[u8]| {
    for record in RecordView::iter(bytes).flatten() {
        encode_again(&record);
    }
    for message in batch::iter(bytes).flatten() {
        let mut out = Vec::new();
        batch::append(&mut out, message);
        assert_eq!(batch::iter(&out).next(), Some(Ok(message)));
    }
    let mut list = bytes.to_vec();
    properties::remove(&mut list, "KEYS");
    assert_eq!(properties::find(&list, "KEYS"), None);
    if let Some(id) = std::str::from_utf8(bytes).ok().and_then(OffsetId::parse) {
        assert!(OffsetId::parse(id.to_text().as_str()).is_some());
    }
});

fn encode_again(record: &RecordView<'_>) {
    let draft = Draft {
        topic: record.topic(),
        queue_id: record.queue_id(),
        flag: record.flag(),
        sys_flag: record.sys_flag(),
        born_timestamp: record.born_timestamp(),
        born_host: record.born_host(),
        store_host: record.store_host(),
        reconsume_times: record.reconsume_times(),
        prepared_transaction_offset: record.prepared_transaction_offset(),
        body: record.body(),
        properties: record.properties(),
    };
    if draft.check().is_err() {
        return;
    }
    let placed = Placed {
        queue_offset: record.queue_offset(),
        physical_offset: record.physical_offset(),
        store_timestamp: record.store_timestamp(),
    };
    let mut out = Vec::new();
    encode(&draft, placed, &mut out);
    let again = RecordView::parse(&out).unwrap();
    assert!(again.has_valid_body_crc());
    assert_eq!(again.body(), record.body());
    assert_eq!(again.properties(), record.properties());
    assert_eq!(again.store_timestamp(), record.store_timestamp());
}
