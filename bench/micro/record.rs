//! What a message becomes: its record with checksums, and what the indexes want to know of it.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use orbitmq::base::crc::Joins;
use orbitmq::filter::tag::{TagFilter, java_hash};
use orbitmq::message::encode::{Draft, Placed, encode_summed};
use orbitmq::store::dispatch::Dispatch;

use crate::count::assert_none;

const TOPIC: &str = "TopicTest";
const PROPERTIES: &[u8] =
    b"UNIQ_KEY\x017F0000010A2C251A69D7659BF0940000\x02WAIT\x01true\x02TAGS\x01TagA";

fn append(body: &[u8], out: &mut Vec<u8>, joins: &mut Joins) {
    let host = ([127, 0, 0, 1], 10911).into();
    let draft = Draft {
        topic: TOPIC,
        queue_id: 3,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1_726_000_000_000,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties: PROPERTIES,
    };
    let placed = Placed {
        queue_offset: 123_456,
        physical_offset: 1 << 30,
        store_timestamp: 1_726_000_000_001,
    };
    out.clear();
    black_box(encode_summed(black_box(&draft), placed, out, joins));
}

fn dispatch() {
    black_box(Dispatch::of(TOPIC, black_box(PROPERTIES)));
}

pub fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("record");
    for bytes in [128, 1024] {
        let body = vec![b'x'; bytes];
        let (mut out, mut joins) = (Vec::new(), Joins::default());
        assert_none("encoding a record", || append(&body, &mut out, &mut joins));
        group.throughput(Throughput::Bytes(bytes as u64));
        let name = format!("encode with checksums, {bytes} B");
        group.bench_function(name, |b| b.iter(|| append(&body, &mut out, &mut joins)));
    }
    group.finish();
    assert_none("finding tag and keys", dispatch);
    c.bench_function("tag and keys of a message", |b| b.iter(dispatch));
    let filter = TagFilter::parse("TagA || TagB || TagC").unwrap();
    let hashes = ["TagA", "TagD", "TagC", "other"].map(|tag| i64::from(java_hash(tag)));
    let matches = || {
        let wanted = |hash: &&i64| filter.matches(**black_box(hash));
        black_box(hashes.iter().filter(wanted).count());
    };
    assert_none("filtering by tag", matches);
    c.bench_function("tag filter, 4 messages", |b| b.iter(matches));
}
