//! One consumer that pops: asks for messages of all queues, gets some for a time, acknowledges them
//! when it has counted them.
//!
//! Not here: the retry topic asked for by itself, as a pop brings what is in it, and leases made
//! longer.
//!
//! Sources: `MQClientAPIImpl.processPopResponse`, `ExtraInfoUtil`; spec page semantics §8.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::decode;
use super::body;
use super::desk::Desk;
use super::haul::{Timing, arrive, bring};
use super::plan::Pop;
use super::slots::Slots;
use super::tally::named;
use crate::broker::control::names::pop_retry_topics;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::body::json::to_vec;
use crate::remoting::body::pop::{BatchAck, BatchAcks};
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;
use crate::remoting::header::pop::{AckMessage, PopMessage, PopResponse};

/// Milliseconds a broker may hold a pop, as client libraries ask.
const POLL_MS: i64 = 15_000;

/// What all pops of a load have in common.
#[derive(Clone, Debug)]
pub struct Popping {
    pub codec: Codec,
    pub group: Arc<str>,
    pub topics: Arc<[Arc<str>]>,
    /// Numbers of queues among all of the run, by topic and id.
    pub queues: Arc<BTreeMap<(u32, i32), u32>>,
    /// Its name, as leases have it.
    pub broker: Arc<str>,
    /// Messages asked for in one pop.
    pub batch: i32,
    pub terms: Pop,
    pub timing: Timing,
    pub part: usize,
    /// Where acknowledgements are counted.
    pub ack_part: usize,
    /// Pops in flight.
    pub in_flight: usize,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    /// About a topic.
    Pop(u32),
    /// So many messages.
    Ack(u64),
}

/// A message in this consumer's hands: its `POP_CK`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lease {
    /// First offset of what the pop brought from the queue.
    start: i64,
    pop_ms: i64,
    invisible_ms: i64,
    revive_queue: i32,
    /// 0 the topic itself, 1 and 2 the forms of its retry topic.
    retry: u8,
    queue: i32,
    offset: i64,
}

impl Lease {
    fn parse(handle: &str) -> Option<Lease> {
        let parts: Vec<&str> = handle.split(' ').collect();
        let [
            start,
            popped,
            invisible,
            revive,
            retry,
            _broker,
            queue,
            offset,
        ] = parts[..]
        else {
            return None;
        };
        Some(Lease {
            start: start.parse().ok()?,
            pop_ms: popped.parse().ok()?,
            invisible_ms: invisible.parse().ok()?,
            revive_queue: revive.parse().ok()?,
            retry: retry.parse().ok()?,
            queue: queue.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }

    fn handle(&self, broker: &str) -> String {
        let Lease { start, pop_ms, .. } = self;
        let (invisible_ms, revive, retry) = (self.invisible_ms, self.revive_queue, self.retry);
        let (queue, offset) = (self.queue, self.offset);
        format!("{start} {pop_ms} {invisible_ms} {revive} {retry} {broker} {queue} {offset}")
    }

    /// Whether one entry of a batch can end both.
    fn is_beside(&self, other: &Lease) -> bool {
        let same = |lease: &Lease| Lease {
            offset: 0,
            ..*lease
        };
        same(self) == same(other)
    }
}

pub struct Popper {
    popping: Popping,
    slots: Slots<(Asked, u64)>,
    /// Requests it has room for.
    room: usize,
    pops: usize,
    /// Topic of the next pop.
    next: u32,
    /// The last answer said that more is there.
    behind: bool,
    leases: Vec<Lease>,
}

impl Popper {
    pub fn new(popping: Popping) -> Self {
        // What each pop brings can be acknowledged one by one while the next is in flight.
        let room = 2 * popping.in_flight * (1 + popping.batch as usize);
        Popper {
            slots: Slots::new(room),
            room,
            pops: 0,
            next: 0,
            behind: true,
            leases: Vec::new(),
            popping,
        }
    }

    /// Nothing it acknowledged is without an answer.
    pub fn is_settled(&self) -> bool {
        self.slots.in_flight() == self.pops
    }

    /// Pops as often as may be.
    pub fn ask(&mut self, out: &mut Vec<u8>, desk: &mut Desk) {
        let most = 1 + self.popping.batch as usize;
        while self.pops < self.popping.in_flight
            && self.slots.in_flight() + (self.pops + 1) * most <= self.room
        {
            let topic = self.next;
            self.next = (self.next + 1) % self.popping.topics.len() as u32;
            self.pops += 1;
            let opaque = self.slots.take((Asked::Pop(topic), desk.now)) as i32;
            let (popping, code) = (&self.popping, request::POP_MESSAGE);
            let mut writer = FrameWriter::request(out, popping.codec, opaque, code, false);
            PopMessage {
                consumer_group: (&*popping.group).into(),
                topic: (&*popping.topics[topic as usize]).into(),
                queue_id: -1,
                max_msg_nums: popping.batch,
                invisible_time: popping.terms.invisible_ms,
                poll_time: POLL_MS,
                born_time: desk.wall_ms(),
                init_mode: 0,
                expression_type: Some("TAG".into()),
                expression: Some("*".into()),
                order: false,
                attempt_id: None,
            }
            .encode(&mut writer);
            writer.finish(0);
        }
    }

    /// # Errors
    /// A sentence: a pop was refused, or an answer cannot be read.
    pub fn answer(
        &mut self,
        frame: &[u8],
        out: &mut Vec<u8>,
        desk: &mut Desk,
    ) -> Result<(), String> {
        let command = decode(frame)?;
        if !command.is_response() {
            return Ok(());
        }
        let (asked, at) = self.slots.release(command.opaque)?;
        match asked {
            Asked::Ack(messages) => {
                let count = &mut desk.counts[self.popping.ack_part];
                if command.code != response::SUCCESS {
                    count.refused(command.code, command.remark.map(|text| text.to_string()));
                    return Ok(());
                }
                let counts = desk.moments.counts(at);
                count.done(desk.moments, desk.now, counts, messages, 0);
                count.took(counts, desk.now.saturating_sub(at), messages);
            }
            Asked::Pop(topic) => {
                self.pops -= 1;
                if command.code == response::SUCCESS {
                    self.take(&command, topic, at, out, desk)?;
                    self.ask(out, desk);
                } else {
                    // Asked again in the next turn.
                    self.check(&command, topic)?;
                    self.behind = false;
                }
            }
        }
        Ok(())
    }

    /// Nothing may be there; all else would come again.
    fn check(&self, answer: &Command<'_>, topic: u32) -> Result<(), String> {
        let quiet = [
            response::PULL_NOT_FOUND,
            response::PULL_RETRY_IMMEDIATELY,
            response::POLLING_FULL,
            response::POLLING_TIMEOUT,
        ];
        if quiet.contains(&answer.code) {
            return Ok(());
        }
        let remark = answer.remark.map_or_else(String::new, |r| r.to_string());
        Err(format!(
            "a pop of {} was refused with {}: {remark}",
            self.popping.topics[topic as usize],
            named(answer.code)
        ))
    }

    /// Counts what came, and acknowledges it.
    fn take(
        &mut self,
        answer: &Command<'_>,
        topic: u32,
        asked: u64,
        out: &mut Vec<u8>,
        desk: &mut Desk,
    ) -> Result<(), String> {
        let header = PopResponse::decode(&answer.ext).map_err(|error| error.to_string())?;
        let starts = starts(header.start_offset_info.as_deref().unwrap_or_default());
        let (mut messages, mut bytes) = (0, 0);
        self.leases.clear();
        for record in RecordView::iter(answer.body) {
            let record = record.map_err(|error| format!("a pop brought no record: {error}"))?;
            let lease = match properties::find_str(record.properties(), names::POP_CK) {
                Some(handle) => Lease::parse(handle),
                None => starts.get(&record.queue_id()).map(|start| Lease {
                    start: *start,
                    pop_ms: header.pop_time,
                    invisible_ms: header.invisible_time,
                    revive_queue: header.revive_qid,
                    retry: 0,
                    queue: record.queue_id(),
                    offset: record.queue_offset(),
                }),
            };
            let lease = lease.ok_or("a pop brought a message without a handle")?;
            messages += 1;
            bytes += record.body().len() as u64;
            if let Some(ledger) = &mut desk.ledger {
                // Where a message lies that comes again says nothing about where it was.
                let first = self.popping.queues.get(&(topic, lease.queue)).copied();
                let queue = match lease.retry {
                    0 => first,
                    _ => body::stamp(record.body()).map(|stamp| stamp.queue),
                };
                ledger.receive(queue.unwrap_or(u32::MAX), record.body());
            }
            if self.popping.timing == Timing::Stamp {
                arrive(record.body(), self.popping.part, desk);
            }
            self.leases.push(lease);
        }
        if self.popping.timing == Timing::Pull {
            let waited = self.behind.then(|| desk.now.saturating_sub(asked));
            bring(messages, bytes, waited, self.popping.part, desk);
        }
        self.behind = header.rest_num > 0;
        self.acknowledge(topic, out, desk.now);
        Ok(())
    }

    fn acknowledge(&mut self, topic: u32, out: &mut Vec<u8>, now: u64) {
        let popping = &self.popping;
        let (group, codec) = (&*popping.group, popping.codec);
        let topic = &*popping.topics[topic as usize];
        let [current, earlier] = pop_retry_topics(topic, group);
        if popping.terms.ack_batch == 0 {
            return;
        }
        for leases in self.leases.chunks(popping.terms.ack_batch) {
            let asked = (Asked::Ack(leases.len() as u64), now);
            let opaque = self.slots.take(asked) as i32;
            if popping.terms.ack_batch > 1 {
                let code = request::BATCH_ACK_MESSAGE;
                let body = to_vec(&batch(leases, topic, popping));
                FrameWriter::request(out, codec, opaque, code, false).finish_with_body(&body);
                continue;
            }
            let lease = leases[0];
            let code = request::ACK_MESSAGE;
            let mut writer = FrameWriter::request(out, codec, opaque, code, false);
            AckMessage {
                consumer_group: group.into(),
                topic: match lease.retry {
                    0 => topic,
                    1 => &earlier,
                    _ => &current,
                }
                .into(),
                queue_id: lease.queue,
                extra_info: lease.handle(&popping.broker).into(),
                offset: lease.offset,
                lite_topic: None,
            }
            .encode(&mut writer);
            writer.finish(0);
        }
    }
}

/// `startOffsetInfo` of messages that come from the topic itself: by queue. As
/// `0 queue offset;0 queue offset`.
fn starts(text: &str) -> BTreeMap<i32, i64> {
    let one = |part: &str| {
        let (queue, start) = part.strip_prefix("0 ")?.split_once(' ')?;
        Some((queue.parse().ok()?, start.parse().ok()?))
    };
    text.split(';').filter_map(one).collect()
}

fn batch(leases: &[Lease], topic: &str, popping: &Popping) -> BatchAcks {
    let acks = leases.chunk_by(Lease::is_beside).map(|leases| {
        let lease = leases[0];
        let offsets = leases.iter().map(|lease| lease.offset - lease.start);
        BatchAck {
            bits: BatchAck::bits_of(offsets),
            group: popping.group.to_string(),
            invisible_time: lease.invisible_ms,
            pop_time: lease.pop_ms,
            queue_id: lease.queue,
            retry: lease.retry.to_string(),
            revive_queue_id: lease.revive_queue,
            start_offset: lease.start,
            topic: topic.to_owned(),
        }
    });
    BatchAcks {
        acks: acks.collect(),
        broker_name: popping.broker.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDLE: &str = "5 1700000000000 60000 3 0 broker-a 2 7";

    fn lease(queue: i32, start: i64, offset: i64) -> Lease {
        Lease {
            start,
            pop_ms: 1_700_000_000_000,
            invisible_ms: 60_000,
            revive_queue: 3,
            retry: 0,
            queue,
            offset,
        }
    }

    #[test]
    fn handles_read_back() {
        let lease = lease(2, 5, 7);
        assert_eq!(lease.handle("broker-a"), HANDLE);
        assert_eq!(Lease::parse(HANDLE), Some(lease));
        for wrong in ["", "1 2 3", "a b c d e f g h"] {
            assert_eq!(Lease::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn starts_are_by_queue() {
        let found = starts("0 3 17;0 0 4;1 2 9");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(0, 4), (3, 17)]);
        assert!(starts("").is_empty());
    }

    #[test]
    fn a_batch_has_one_entry_for_what_one_pop_brought_of_a_queue() {
        let leases = [lease(0, 4, 4), lease(0, 4, 6), lease(1, 9, 9)];
        let popping = Popping {
            codec: Codec::Json,
            group: "g".into(),
            topics: Arc::from([]),
            queues: Arc::default(),
            broker: "broker-a".into(),
            batch: 32,
            terms: Pop {
                invisible_ms: 60_000,
                ack_batch: 32,
                sends: false,
            },
            timing: Timing::Pull,
            part: 0,
            ack_part: 1,
            in_flight: 1,
        };
        let made = batch(&leases, "T", &popping);
        let offsets: Vec<_> = made.acks.iter().map(|ack| ack.offsets(64)).collect();
        assert_eq!(offsets, [Some(vec![4, 6]), Some(vec![9])]);
        let ack = &made.acks[1];
        let names = (ack.topic.as_str(), ack.group.as_str(), ack.retry.as_str());
        assert_eq!(names, ("T", "g", "0"));
        assert_eq!((ack.queue_id, ack.revive_queue_id), (1, 3));
    }
}
