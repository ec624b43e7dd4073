//! Light queues: queues that hold a message which belongs to another queue (RocketMQ's LMQ).
//!
//! A message goes to the queue of its topic, and beside it a system record says which light queues
//! of this shard hold it too, so it lies in the log once. Light queues of other shards get a copy:
//! a system record that carries the message itself, which is in no other queue here. A light queue
//! is a queue of the index as any other.
//!
//! | record | payload, big-endian |
//! |---|---|
//! | `Light` | log offset of the message u64, size u32, tag hash i32, checksum u32, places |
//! | `LightCopy` | tag hash i32, places, message (`message::layout`) |
//! | places | count u16, then slot u32 and queue offset u64 of each |
//!
//! A message and its `Light` record lie in one batch: a crash keeps both or none.

use crate::base::cursor::Cursor;
use crate::base::{LogOffset, Now};
use crate::message::encode::{Draft, Placed, encode, encoded_len};
use crate::store::consumequeue::QueueSlot;
use crate::store::dispatch::Dispatch;
use crate::store::entries::Entry;
use crate::store::record::{Kind, SYSTEM_HEADER_BYTES, put_system_header};
use crate::store::{Appended, Store};

/// Layout version of the payloads above.
pub const VERSION: u16 = 1;

const LIGHT_BYTES: usize = 8 + 4 + 4 + 4;
const COPY_BYTES: usize = 4;
const PLACE_BYTES: usize = 12;

/// What light queues add to the bytes of a message, at most.
pub fn overhead(queues: usize) -> usize {
    SYSTEM_HEADER_BYTES + LIGHT_BYTES + places_len(queues)
}

fn places_len(queues: usize) -> usize {
    2 + queues * PLACE_BYTES
}

/// A light queue and the offset that a message has in it.
pub type Place = (QueueSlot, u64);

/// What a record says: the message, and the light queues that hold it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LightRecord<'a> {
    pub entry: Entry,
    pub places: Vec<Place>,
    /// The message if this is a copy.
    pub copy: Option<&'a [u8]>,
}

impl<'a> LightRecord<'a> {
    /// The payload of a record of this kind; `at` is the log offset of the whole record.
    pub fn decode(kind: Kind, payload: &'a [u8], at: LogOffset) -> Option<LightRecord<'a>> {
        match kind {
            Kind::Light => LightRecord::decode_light(payload),
            Kind::LightCopy => LightRecord::decode_copy(payload, at),
            _ => None,
        }
    }

    fn decode_light(payload: &'a [u8]) -> Option<LightRecord<'a>> {
        let mut c = Cursor::new(payload);
        let (at, size) = (LogOffset(c.u64()?), c.u32()?);
        let (tag_hash, crc) = (c.i32()?, c.u32()?);
        let entry = Entry {
            at,
            size,
            tag_hash,
            crc,
        };
        Some(LightRecord {
            entry,
            places: read_places(&mut c)?,
            copy: None,
        })
    }

    fn decode_copy(payload: &'a [u8], at: LogOffset) -> Option<LightRecord<'a>> {
        let mut c = Cursor::new(payload);
        let tag_hash = c.i32()?;
        let places = read_places(&mut c)?;
        let before = COPY_BYTES + places_len(places.len());
        let message = payload.get(before..).filter(|bytes| !bytes.is_empty())?;
        let entry = Entry {
            at: LogOffset(at.0 + (SYSTEM_HEADER_BYTES + before) as u64),
            size: u32::try_from(message.len()).ok()?,
            tag_hash,
            crc: crc32fast::hash(message),
        };
        let copy = Some(message);
        Some(LightRecord {
            entry,
            places,
            copy,
        })
    }
}

fn read_places(c: &mut Cursor<'_>) -> Option<Vec<Place>> {
    let count = c.u16()?;
    (0..count)
        .map(|_| Some((QueueSlot(c.u32()?), c.u64()?)))
        .collect()
}

fn put_places(places: &[Place], out: &mut Vec<u8>) {
    let count = u16::try_from(places.len()).expect("names fill the properties of one message");
    out.extend_from_slice(&count.to_be_bytes());
    for (slot, offset) in places {
        out.extend_from_slice(&slot.0.to_be_bytes());
        out.extend_from_slice(&offset.to_be_bytes());
    }
}

fn put_light(entry: &Entry, places: &[Place], store_ms: i64, out: &mut Vec<u8>) {
    let payload = LIGHT_BYTES + places_len(places.len());
    put_system_header(out, Kind::Light, VERSION, store_ms, payload);
    out.extend_from_slice(&entry.at.0.to_be_bytes());
    out.extend_from_slice(&entry.size.to_be_bytes());
    out.extend_from_slice(&entry.tag_hash.to_be_bytes());
    out.extend_from_slice(&entry.crc.to_be_bytes());
    put_places(places, out);
}

impl Store {
    /// Appends a message to an open queue and to light queues of this shard. The caller has
    /// [checked](Self::check_append) and kept message and [`overhead`] within
    /// [`reserve_limit`](Self::reserve_limit).
    pub fn append_light(
        &mut self,
        now: Now,
        slot: QueueSlot,
        draft: &Draft<'_>,
        dispatch: &Dispatch,
        lights: &[QueueSlot],
    ) -> Appended {
        self.log
            .reserve(encoded_len(draft) + overhead(lights.len()));
        let (appended, entry) = self.append_reserved(now, slot, draft, dispatch);
        let places = self.light_places(lights);
        let record = self.log.put(appended.store_ms, |_, out| {
            put_light(&entry, &places, appended.store_ms, out);
        });
        self.enter_lights(&places, entry, record.end, appended.store_ms);
        Appended {
            end: record.end,
            ..appended
        }
    }

    /// Appends a message to light queues of this shard only: its own queue is elsewhere.
    pub fn append_light_copy(
        &mut self,
        now: Now,
        draft: &Draft<'_>,
        dispatch: &Dispatch,
        lights: &[QueueSlot],
    ) -> Appended {
        let before = SYSTEM_HEADER_BYTES + COPY_BYTES + places_len(lights.len());
        let size = encoded_len(draft);
        self.log.reserve(before + size);
        let (store_ms, shard) = (self.log.store_ms(now), self.options.shard);
        let places = self.light_places(lights);
        let (mut at, mut crc) = (LogOffset(0), 0);
        let record = self.log.put(store_ms, |record_at, out| {
            at = LogOffset(record_at.0 + before as u64);
            let payload = before - SYSTEM_HEADER_BYTES + size;
            put_system_header(out, Kind::LightCopy, VERSION, store_ms, payload);
            out.extend_from_slice(&dispatch.tag_hash.to_be_bytes());
            put_places(&places, out);
            let from = out.len();
            let placed = Placed {
                queue_offset: places.first().map_or(0, |(_, offset)| *offset as i64),
                physical_offset: at.physical(shard),
                store_timestamp: store_ms,
            };
            encode(draft, placed, out);
            crc = crc32fast::hash(&out[from..]);
        });
        let entry = Entry {
            at,
            size: size as u32,
            tag_hash: dispatch.tag_hash,
            crc,
        };
        self.enter_lights(&places, entry, record.end, store_ms);
        Appended {
            at,
            end: record.end,
            offset: crate::base::QueueOffset(places.first().map_or(0, |(_, offset)| *offset)),
            store_ms,
        }
    }

    /// The next offset of each.
    fn light_places(&self, lights: &[QueueSlot]) -> Vec<Place> {
        let next = |slot: &QueueSlot| (*slot, self.index.next(*slot).0);
        lights.iter().map(next).collect()
    }

    fn enter_lights(&mut self, places: &[Place], entry: Entry, end: LogOffset, store_ms: i64) {
        for (slot, offset) in places {
            let entered = self.index.append(*slot, entry, store_ms);
            assert_eq!(entered.0, *offset, "a light queue is named once");
            self.hidden.push(end, *slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::MemDir;
    use crate::base::{Mono, QueueOffset, ShardId};
    use crate::filter::Filter;
    use crate::message::view::RecordView;
    use crate::store::read::WaiterId;
    use crate::store::reader::{Fetch, Limits};
    use crate::store::record::{Record, walk};
    use crate::store::{Flush, Sabotage, StoreOptions};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn layouts() {
        let entry = Entry {
            at: LogOffset(0x0102),
            size: 3,
            tag_hash: -1,
            crc: 4,
        };
        let places = vec![(QueueSlot(5), 6), (QueueSlot(7), 8)];
        let mut bytes = Vec::new();
        put_light(&entry, &places, 9, &mut bytes);
        assert_eq!(bytes.len(), overhead(2));
        let Some(Ok((_, Record::System { kind, payload, .. }))) = walk(&bytes).next() else {
            panic!("no system record");
        };
        assert_eq!(kind, Kind::Light);
        let seen: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = "0000000000000102 00000003 ffffffff 00000004 0002 \
                        00000005 0000000000000006 00000007 0000000000000008";
        assert_eq!(seen, expected.replace(' ', ""));
        let record = LightRecord {
            entry,
            places,
            copy: None,
        };
        assert_eq!(LightRecord::decode_light(payload), Some(record));
        let short = &payload[..payload.len() - 1];
        assert_eq!(LightRecord::decode_light(short), None);
    }

    #[test]
    fn a_copy_is_found_inside_its_record() {
        let mut payload = vec![0, 0, 0, 97, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(LightRecord::decode_copy(&payload, LogOffset(100)), None);
        payload.extend_from_slice(b"message");
        let record = LightRecord::decode_copy(&payload, LogOffset(100)).unwrap();
        assert_eq!((record.entry.at, record.entry.size), (LogOffset(138), 7));
        assert_eq!(record.entry.crc, crc32fast::hash(b"message"));
        assert_eq!(record.places, [(QueueSlot(2), 5)]);
        assert_eq!(record.copy, Some(&b"message"[..]));
        assert_eq!(LightRecord::decode_copy(&payload[..9], LogOffset(0)), None);
    }

    #[derive(Clone, Debug)]
    enum Op {
        /// Into the queue of the topic, and light queues by the bits.
        Send(u8),
        Copy(u8),
        Drop(u8),
        Checkpoint,
        /// Closed, and opened from what is on the disk.
        Reopen,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..8u8).prop_map(Op::Send),
            3 => (1..8u8).prop_map(Op::Copy),
            1 => (0..3u8).prop_map(Op::Drop),
            1 => Just(Op::Checkpoint),
            1 => Just(Op::Reopen),
        ]
    }

    fn draft(body: &[u8]) -> Draft<'_> {
        let host = "127.0.0.1:1".parse().expect("an address");
        Draft {
            topic: "t",
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties: b"",
        }
    }

    fn open(dir: &MemDir) -> Store {
        let options = StoreOptions {
            shard: ShardId(0),
            store_id: 7,
            segment_bytes: 16 * 1024,
            flush: Flush::Sync,
            flush_interval_ms: 100,
            batch_bytes_max: 8 * 1024,
            writes_in_flight_max: 1,
            pending_bytes_max: 64 * 1024,
            ahead_bytes: 4096,
            tail_bytes_max: 1024,
            window_bytes_max: 1 << 20,
            record_bytes_max: 4096,
            index_bytes_max: 16 * 1024,
            checkpoint_bytes: 1 << 20,
            checkpoint_interval_ms: 1 << 20,
            retention_ms: i64::MAX as u64,
            disk_percent_max: 101,
            salvage: false,
            sabotage: Sabotage::None,
        };
        let opened = Store::open(dir, options, &mut |_| Ok(()));
        opened.expect("what was closed opens").0
    }

    /// Carries out all there is to do.
    fn settle(store: &mut Store, dir: &MemDir, now: Now) {
        while let Some((id, order)) = store.poll_write(now).or_else(|| store.poll_order(now)) {
            store.handle_done(now, id, dir.carry_out(order));
        }
        while store.poll_visible().is_some() {}
    }

    /// Numbers of the messages in a queue, from its start.
    fn read(store: &mut Store, dir: &MemDir, now: Now, slot: QueueSlot) -> Vec<u64> {
        let (mut numbers, limits) = (
            Vec::new(),
            Limits {
                messages: 100,
                bytes: 1 << 20,
            },
        );
        let end = store.visible_range(slot).1.0;
        while (numbers.len() as u64) < end {
            let from = QueueOffset(numbers.len() as u64);
            match store.read(slot, from, limits, &Filter::ALL, WaiterId(1)) {
                Fetch::Ready(found) => {
                    for slice in found.slices {
                        let view = RecordView::parse(&slice).expect("a whole record");
                        assert!(view.has_valid_body_crc());
                        let body = view.body().try_into().expect("eight bytes");
                        numbers.push(u64::from_be_bytes(body));
                    }
                }
                Fetch::Wait => settle(store, dir, now),
                other => panic!("{from:?} of {slot:?}: {other:?}"),
            }
        }
        numbers
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn light_queues_hold_what_named_them(ops in prop::collection::vec(op(), 1..40)) {
            let (dir, now) = (MemDir::default(), Now { mono: Mono(1), wall_ms: 5 });
            let mut store = open(&dir);
            let mut model: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for (number, op) in (0u64..).zip(ops) {
                let body = number.to_be_bytes();
                let named = |bits: u8| (0..3u8).filter(move |n| bits & (1 << n) != 0);
                let draft = draft(&body);
                match op {
                    Op::Send(bits) | Op::Copy(bits) => {
                        let names = named(bits).map(|n| format!("%LMQ%{n}"));
                        let names: Vec<String> = names.collect();
                        let lights = names.iter().map(|name| store.open_queue(now, name, 9, 0));
                        let lights: Result<Vec<_>, _> = lights.collect();
                        let (lights, dispatch) = (lights.unwrap(), Dispatch::default());
                        for name in names {
                            model.entry(name).or_default().push(number);
                        }
                        if let Op::Copy(_) = op {
                            store.append_light_copy(now, &draft, &dispatch, &lights);
                        } else {
                            let slot = store.open_queue(now, "t", 1, 0).unwrap();
                            store.append_light(now, slot, &draft, &dispatch, &lights);
                            model.entry("t".to_owned()).or_default().push(number);
                        }
                    }
                    Op::Drop(n) => {
                        let name = format!("%LMQ%{n}");
                        if let Some(slot) = store.queues().find(&name, 0) {
                            store.drop_queue(now, slot).unwrap();
                            model.remove(&name);
                        }
                    }
                    Op::Checkpoint => {
                        settle(&mut store, &dir, now);
                        store.begin_checkpoint(now, Vec::new());
                    }
                    Op::Reopen => {
                        store.want_durable(store.log().end());
                        settle(&mut store, &dir, now);
                        store = open(&dir);
                    }
                }
                settle(&mut store, &dir, now);
                for (name, numbers) in &model {
                    let slot = store.queues().find(name, 0).expect("an open queue");
                    prop_assert_eq!(&read(&mut store, &dir, now, slot), numbers, "{}", name);
                }
            }
        }
    }
}
