//! One member of a group of push consumers on one broker: heartbeats, rebalance by the average
//! allocation, long polls, offsets committed every five seconds.
//!
//! Where a client library has one client with a connection to each broker, this has one of these
//! for each, with one client id; each finds its queues among those of all brokers by the same rule.
//! Not here: the retry topic, as nothing here fails to consume.
//!
//! Sources: `RebalanceImpl`, `AllocateMessageQueueAveragely`, `MQClientInstance`; spec page
//! semantics §5.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::answer::decode;
use super::desk::Desk;
use super::haul::{Pulling, Queue, UNKNOWN};
use super::slots::Slots;
use super::tally::named;
use crate::remoting::body::heartbeat::{
    ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData,
};
use crate::remoting::body::json::{from_slice, to_vec};
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::header::member::{ConsumerGroup, UnregisterClient};
use crate::remoting::header::offset::{OffsetResponse, QueryConsumerOffset, UpdateConsumerOffset};
use crate::remoting::header::pull::FLAG_SUBSCRIPTION;

const SECOND_NS: u64 = 1_000_000_000;
/// As client libraries do: spec page remoting §12.
const HEARTBEAT_NS: u64 = 30 * SECOND_NS;
const REBALANCE_NS: u64 = 20 * SECOND_NS;
const COMMIT_NS: u64 = 5 * SECOND_NS;
/// Held pulls of all queues, and a few requests beside them.
const OTHER_REQUESTS: usize = 16;

/// Where a queue stands among all of the subscription, in the order every member sorts them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank {
    pub topic: Arc<str>,
    pub broker: Arc<str>,
    pub id: i32,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Heartbeat,
    List,
    Offset(u32),
    Pull(u32),
}

/// One queue of this broker.
#[derive(Clone, Debug)]
pub struct Held {
    pub queue: Queue,
    /// Where to begin if the broker knows no position.
    pub begin: i64,
    /// Begin there even if the broker knows one.
    pub ignore_stored: bool,
    pub mine: bool,
    pub committed: i64,
    /// A request about it is in flight.
    pub busy: bool,
}

pub struct Member {
    client_id: String,
    pulling: Pulling,
    broker: Arc<str>,
    /// All queues of the subscription, sorted.
    ranks: Arc<[Rank]>,
    held: Vec<Held>,
    by_rank: BTreeMap<Rank, u32>,
    slots: Slots<(Asked, u64)>,
    heartbeat_due: u64,
    rebalance_due: u64,
    commit_due: u64,
}

impl Member {
    /// `held`: the queues of this broker.
    pub fn new(
        client_id: String,
        pulling: Pulling,
        broker: Arc<str>,
        ranks: Arc<[Rank]>,
        held: Vec<Held>,
    ) -> Self {
        let rank = |held: &Held| Rank {
            topic: held.queue.topic.clone(),
            broker: broker.clone(),
            id: held.queue.id,
        };
        let by_rank = held
            .iter()
            .enumerate()
            .map(|(at, held)| (rank(held), at as u32))
            .collect();
        Member {
            client_id,
            pulling,
            ranks,
            slots: Slots::new(held.len() + OTHER_REQUESTS),
            held,
            by_rank,
            broker,
            // The first was sent when it was made.
            heartbeat_due: HEARTBEAT_NS,
            rebalance_due: 0,
            commit_due: COMMIT_NS,
        }
    }

    /// Does what the clock asks for.
    pub fn tick(&mut self, out: &mut Vec<u8>, desk: &mut Desk) {
        let now = desk.now;
        if now >= self.heartbeat_due && self.slots.has_room() {
            self.heartbeat_due = now + HEARTBEAT_NS;
            let opaque = self.slots.take((Asked::Heartbeat, now));
            self.heartbeat(out, opaque as i32);
        }
        if now >= self.rebalance_due && self.slots.has_room() {
            self.rebalance_due = now + REBALANCE_NS;
            self.ask_members(out, now);
        }
        if now >= self.commit_due {
            self.commit_due = now + COMMIT_NS;
            self.commit(out);
        }
    }

    /// Appends a heartbeat.
    pub fn heartbeat(&self, out: &mut Vec<u8>, opaque: i32) {
        let topics: std::collections::BTreeSet<&str> =
            self.ranks.iter().map(|rank| &*rank.topic).collect();
        let subscription = |topic: &str| SubscriptionData {
            sub_string: "*".to_owned(),
            sub_version: self.pulling.version,
            topic: topic.to_owned(),
            ..SubscriptionData::default()
        };
        let pulls = self.pulling.flags & FLAG_SUBSCRIPTION != 0;
        let kind = if pulls {
            ConsumeType::Actively
        } else {
            ConsumeType::Passively
        };
        let consumer = ConsumerData {
            consume_from_where: Some(ConsumeFromWhere::LastOffset),
            consume_type: Some(kind),
            group_name: self.pulling.group.to_string(),
            message_model: Some(MessageModel::Clustering),
            subscription_data_set: topics.into_iter().map(subscription).collect(),
            ..ConsumerData::default()
        };
        let heartbeat = HeartbeatData {
            client_id: self.client_id.clone(),
            consumer_data_set: vec![consumer],
            ..HeartbeatData::default()
        };
        let code = request::HEART_BEAT;
        FrameWriter::request(out, self.pulling.codec, opaque, code, false)
            .finish_with_body(&to_vec(&heartbeat));
    }

    fn ask_members(&mut self, out: &mut Vec<u8>, now: u64) {
        let opaque = self.slots.take((Asked::List, now)) as i32;
        let code = request::GET_CONSUMER_LIST_BY_GROUP;
        let mut writer = FrameWriter::request(out, self.pulling.codec, opaque, code, false);
        let consumer_group = (&*self.pulling.group).into();
        ConsumerGroup { consumer_group }.encode(&mut writer);
        writer.finish(0);
    }

    /// # Errors
    /// A sentence: a refusal, or an answer that cannot be read.
    pub fn answer(
        &mut self,
        frame: &[u8],
        out: &mut Vec<u8>,
        desk: &mut Desk,
    ) -> Result<(), String> {
        let command = decode(frame)?;
        if !command.is_response() {
            if command.code == request::NOTIFY_CONSUMER_IDS_CHANGED {
                self.rebalance_due = desk.now;
            }
            return Ok(());
        }
        let (asked, at) = self.slots.release(command.opaque)?;
        match asked {
            Asked::Heartbeat => self.check(&command, "a heartbeat"),
            Asked::List => self.rebalance(&command, out, desk),
            Asked::Offset(queue) => self.begin(&command, queue, out, desk),
            Asked::Pull(queue) => {
                let held = &mut self.held[queue as usize];
                held.busy = false;
                if held.mine {
                    self.pulling.take(&command, at, &mut held.queue, desk)?;
                    self.pull(queue, out, desk);
                }
                Ok(())
            }
        }
    }

    fn check(&self, command: &Command<'_>, what: &str) -> Result<(), String> {
        if command.code == response::SUCCESS {
            return Ok(());
        }
        let remark = command
            .remark
            .map_or_else(String::new, |remark| remark.to_string());
        let group = &self.pulling.group;
        Err(format!(
            "{what} of group {group} was refused with {}: {remark}",
            named(command.code)
        ))
    }

    fn rebalance(
        &mut self,
        command: &Command<'_>,
        out: &mut Vec<u8>,
        desk: &mut Desk,
    ) -> Result<(), String> {
        self.check(command, "the list of members")?;
        #[derive(serde::Deserialize)]
        struct Members {
            #[serde(rename = "consumerIdList")]
            ids: Vec<String>,
        }
        let mut members: Members =
            from_slice(command.body).map_err(|error| format!("the list of members: {error}"))?;
        members.ids.sort();
        members.ids.dedup();
        let Some(place) = members.ids.iter().position(|id| *id == self.client_id) else {
            // Not known yet: asked again soon, as client libraries skip the turn.
            self.rebalance_due = desk.now + SECOND_NS;
            return Ok(());
        };
        let mine = average(self.ranks.len(), members.ids.len(), place);
        for (rank, queue) in self.by_rank.clone() {
            let at = self.ranks.binary_search(&rank);
            let wanted = at.is_ok_and(|at| mine.contains(&at));
            let held = &mut self.held[queue as usize];
            if held.mine && !wanted {
                self.commit(out);
                self.held[queue as usize].mine = false;
            } else if wanted && !held.mine {
                held.mine = true;
                self.ask_offset(queue, out, desk);
            }
        }
        Ok(())
    }

    fn ask_offset(&mut self, at: u32, out: &mut Vec<u8>, desk: &mut Desk) {
        if self.held[at as usize].busy || !self.slots.has_room() {
            // A pull of the former turn is still out; the next rebalance asks again.
            self.held[at as usize].mine = false;
            self.rebalance_due = desk.now + SECOND_NS;
            return;
        }
        let opaque = self.slots.take((Asked::Offset(at), desk.now)) as i32;
        let held = &mut self.held[at as usize];
        held.busy = true;
        let code = request::QUERY_CONSUMER_OFFSET;
        let mut writer = FrameWriter::request(out, self.pulling.codec, opaque, code, false);
        QueryConsumerOffset {
            consumer_group: (&*self.pulling.group).into(),
            topic: (&*held.queue.topic).into(),
            queue_id: held.queue.id,
            set_zero_if_not_found: Some(false),
        }
        .encode(&mut writer);
        writer.finish(0);
    }

    fn begin(
        &mut self,
        command: &Command<'_>,
        at: u32,
        out: &mut Vec<u8>,
        desk: &mut Desk,
    ) -> Result<(), String> {
        let held = &mut self.held[at as usize];
        held.busy = false;
        let first = held.committed == UNKNOWN;
        if command.code == response::QUERY_NOT_FOUND || (first && held.ignore_stored) {
            held.queue.offset = held.begin;
        } else {
            self.check(command, "the position")?;
            let header = OffsetResponse::decode(&command.ext).map_err(|error| error.to_string())?;
            self.held[at as usize].queue.offset = header.offset;
        }
        let held = &mut self.held[at as usize];
        held.committed = held.queue.offset;
        held.queue.expected = UNKNOWN;
        self.pull(at, out, desk);
        Ok(())
    }

    fn pull(&mut self, at: u32, out: &mut Vec<u8>, desk: &mut Desk) {
        let opaque = self.slots.take((Asked::Pull(at), desk.now));
        let held = &mut self.held[at as usize];
        held.busy = true;
        self.pulling.ask(out, opaque, &held.queue);
    }

    /// Commits, without an answer, what moved.
    fn commit(&mut self, out: &mut Vec<u8>) {
        for held in self.held.iter_mut().filter(|held| held.mine) {
            if held.queue.offset == held.committed || held.committed == UNKNOWN {
                continue;
            }
            held.committed = held.queue.offset;
            let code = request::UPDATE_CONSUMER_OFFSET;
            let mut writer = FrameWriter::request(out, self.pulling.codec, 0, code, true);
            UpdateConsumerOffset {
                consumer_group: (&*self.pulling.group).into(),
                topic: (&*held.queue.topic).into(),
                queue_id: held.queue.id,
                commit_offset: held.queue.offset,
            }
            .encode(&mut writer);
            writer.finish(0);
        }
    }

    /// Commits, and tells the broker that this member goes.
    pub fn leave(&mut self, out: &mut Vec<u8>) {
        self.commit(out);
        let code = request::UNREGISTER_CLIENT;
        let mut writer = FrameWriter::request(out, self.pulling.codec, 1, code, true);
        UnregisterClient {
            client_id: (&*self.client_id).into(),
            producer_group: None,
            consumer_group: Some((&*self.pulling.group).into()),
        }
        .encode(&mut writer);
        writer.finish(0);
    }

    /// Name of the broker it is connected to.
    pub fn broker(&self) -> &str {
        &self.broker
    }
}

/// The queues of the member at `place` of `members`, as `AllocateMessageQueueAveragely`.
fn average(queues: usize, members: usize, place: usize) -> Range<usize> {
    let rest = queues % members;
    let size = queues / members + usize::from(place < rest);
    let start = if place < rest {
        place * size
    } else {
        place * size + rest
    };
    start.min(queues)..(start + size).min(queues)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(queues: usize, members: usize, expected: &[(usize, usize)]) {
        let parts: Vec<_> = (0..members)
            .map(|place| average(queues, members, place))
            .map(|part| (part.start, part.end))
            .collect();
        assert_eq!(parts, expected);
    }

    #[test]
    fn queues_are_dealt_as_the_reference_deals_them() {
        check(8, 1, &[(0, 8)]);
        check(8, 3, &[(0, 3), (3, 6), (6, 8)]);
        check(4, 4, &[(0, 1), (1, 2), (2, 3), (3, 4)]);
        check(2, 4, &[(0, 1), (1, 2), (2, 2), (2, 2)]);
    }
}
