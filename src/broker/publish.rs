//! How a change of control state becomes true for everybody: first durable in shard 0's log, then
//! held by every shard, then answered.
//!
//! Always holds: snapshots are given out in the order of their versions, and none that contains a
//! change whose record is not confirmed.

use crate::base::{ConnId, Now, ShardId};
use crate::broker::acks::Ack;
use crate::broker::control::effects::{Answer, Effects, Reject};
use crate::broker::handle::{self, Raw};
use crate::broker::puts::Put;
use crate::broker::snapshot::Snapshot;
use crate::broker::{Broker, Gone, Peer, record};
use crate::machine::{Link, Outbox};
use crate::remoting::frame::FRAME_BYTES_MAX;
use crate::store::record::Kind;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// Requests that wait for a topic of theirs to exist; more are refused.
const WAITING_MAX: usize = 65_536;

/// A snapshot on its way.
pub struct Publish {
    snapshot: Arc<Snapshot>,
    gone: Arc<Gone>,
    changed_topics: Vec<Arc<str>>,
    /// Whether a record stands for it; false for membership.
    durable: bool,
}

/// Something that goes on once a version is in use everywhere.
enum Next {
    Answer { conn: ConnId, frame: Vec<u8> },
    Request { link: Link, frame: Bytes },
    Put(Box<Put>),
}

pub struct Publication {
    effects: Effects,
    /// The version each shard uses.
    seen: Vec<u64>,
    waiting: VecDeque<(u64, Next)>,
    /// Publications in the log that are not confirmed yet.
    unconfirmed: usize,
    /// Set by the start: the first snapshot goes out even if nothing changed.
    begun: bool,
    /// The version of the newest publication, confirmed or not.
    newest: u64,
}

impl Publication {
    pub fn new(shards: u16) -> Self {
        Publication {
            effects: Effects::default(),
            seen: vec![0; usize::from(shards)],
            waiting: VecDeque::new(),
            unconfirmed: 0,
            begun: false,
            newest: 0,
        }
    }

    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// Where control state puts what it wants done.
    pub fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    /// The newest version that every shard uses.
    pub fn published(&self) -> u64 {
        self.seen.iter().min().copied().unwrap_or(0)
    }

    fn wait(&mut self, version: u64, next: Next) {
        let at = self.waiting.partition_point(|(other, _)| *other <= version);
        self.waiting.insert(at, (version, next));
    }

    /// Lets a request run once `version` is published. False if too many wait.
    pub fn request_later(&mut self, version: u64, link: Link, frame: Bytes) -> bool {
        let room = self.waiting.len() < WAITING_MAX;
        if room {
            self.wait(version, Next::Request { link, frame });
        }
        room
    }

    pub fn put_later(&mut self, version: u64, put: Put) -> bool {
        let room = self.waiting.len() < WAITING_MAX;
        if room {
            self.wait(version, Next::Put(Box::new(put)));
        }
        room
    }
}

impl Broker {
    /// Enters what control state changed in the log, or publishes it at once if nothing of it is
    /// durable.
    pub(super) fn publish_changes(&mut self, now: Now, out: &mut Outbox<Peer>) {
        let Some(lead) = &mut self.lead else { return };
        if !lead.publication.begun {
            return;
        }
        let effects = std::mem::take(lead.publication.effects());
        effects.notices.into_iter().for_each(|(conn, frame)| {
            out.write(conn, |bytes| bytes.extend_from_slice(&frame));
        });
        out.closes.extend(effects.closes);
        out.notes.extend(effects.notes);
        for Answer {
            conn,
            frame,
            version,
        } in effects.answers
        {
            lead.publication.wait(version, Next::Answer { conn, frame });
        }
        let snapshot = lead.control.snapshot();
        let first = lead.publication.newest == 0;
        if !first && snapshot.version == lead.publication.newest {
            return self.release(now, out);
        }
        lead.publication.newest = snapshot.version;
        if self.store.log().failed().is_some() {
            let publish = self.publish_members(&snapshot);
            return self.give_out(now, publish, out);
        }
        let mut durable = false;
        for payload in &effects.records {
            let version = u16::from(record::VERSION);
            let entered = self
                .store
                .append_system(now, Kind::Control, version, payload);
            durable |= entered.is_ok();
        }
        let gone = effects
            .deleted_groups
            .into_iter()
            .filter(|(_, offsets)| *offsets);
        let groups = gone.map(|(group, _)| group).collect();
        let gone = Arc::new(Gone {
            topics: effects.deleted_topics,
            groups,
        });
        let changed_topics = effects.changed_topics;
        let publish = Publish {
            snapshot,
            gone,
            changed_topics,
            durable,
        };
        let lead = self.lead.as_mut().expect("checked above");
        if durable || lead.publication.unconfirmed > 0 {
            lead.publication.unconfirmed += 1;
            self.acks
                .push(self.store.log().end(), Ack::Publish(publish));
        } else {
            self.give_out(now, publish, out);
        }
    }

    /// What can still be published without a disk. Members come and go, but topics and groups stay
    /// as they were published last: other shards would store messages for what a restart does not
    /// know.
    fn publish_members(&self, newest: &Snapshot) -> Publish {
        let snapshot = Arc::new(Snapshot {
            topics: self.snapshot.topics.clone(),
            topics_stamp: self.snapshot.topics_stamp,
            groups: self.snapshot.groups.clone(),
            forbidden: self.snapshot.forbidden.clone(),
            ..newest.clone()
        });
        Publish {
            snapshot,
            gone: Arc::default(),
            changed_topics: Vec::new(),
            durable: false,
        }
    }

    /// The log confirms a change.
    pub(super) fn publish(&mut self, now: Now, publish: Publish, out: &mut Outbox<Peer>) {
        let lead = self.lead.as_mut().expect("only shard 0 publishes");
        lead.publication.unconfirmed -= 1;
        self.give_out(now, publish, out);
    }

    fn give_out(&mut self, now: Now, publish: Publish, out: &mut Outbox<Peer>) {
        let Publish {
            snapshot,
            gone,
            changed_topics,
            ..
        } = publish;
        let first = self.snapshot.version == 0;
        let version = snapshot.version;
        let shards = self.options.control.shards;
        for shard in (1..shards).map(ShardId) {
            let message = Peer::Snapshot {
                snapshot: snapshot.clone(),
                gone: gone.clone(),
            };
            out.peers.push((shard, message));
        }
        self.adopt(now, snapshot, &gone, out);
        if first {
            self.begin(now);
        }
        if let Some(lead) = &mut self.lead
            && !changed_topics.is_empty()
        {
            lead.registry
                .topics_changed(now, &lead.control, &changed_topics, out);
        }
        self.snapshot_seen(now, ShardId(0), version, out);
    }

    pub(super) fn snapshot_seen(
        &mut self,
        now: Now,
        shard: ShardId,
        version: u64,
        out: &mut Outbox<Peer>,
    ) {
        let Some(lead) = &mut self.lead else { return };
        let seen = &mut lead.publication.seen[usize::from(shard.0)];
        *seen = (*seen).max(version);
        self.release(now, out);
    }

    /// Goes on with what waited for versions that are in use everywhere now.
    fn release(&mut self, now: Now, out: &mut Outbox<Peer>) {
        loop {
            let Some(lead) = &mut self.lead else { return };
            let published = lead.publication.published();
            let due = lead
                .publication
                .waiting
                .front()
                .is_some_and(|(v, _)| *v <= published);
            let Some((_, next)) = lead.publication.waiting.pop_front_if(|_| due) else {
                return;
            };
            match next {
                Next::Answer { conn, frame } => {
                    assert!(
                        frame.len() <= FRAME_BYTES_MAX,
                        "answers are checked when encoded"
                    );
                    out.write(conn, |bytes| bytes.extend_from_slice(&frame));
                }
                Next::Request { link, frame } => {
                    handle::frame(self, now, &link, Raw::Shared(&frame), out);
                }
                Next::Put(put) => self.put(now, *put, out),
            }
        }
    }

    /// The disk failed before a change was durable: those who wait for it are told, and control
    /// state stays as it was published last.
    pub(super) fn publish_failed(
        &mut self,
        publish: &Publish,
        reject: &Reject,
        out: &mut Outbox<Peer>,
    ) {
        assert!(publish.durable || self.store.log().failed().is_some());
        let Some(lead) = &mut self.lead else { return };
        lead.publication.unconfirmed -= 1;
        let waiting = std::mem::take(&mut lead.publication.waiting);
        for (_, next) in waiting {
            match next {
                // The answer was made for success; its connection learns of the failure by closing.
                Next::Answer { conn, .. } => out.closes.push(conn),
                Next::Request { link, frame } => {
                    handle::reject_frame(&link, &frame, reject, out);
                }
                Next::Put(put) => {
                    let result = Err(reject.clone());
                    out.peers.push((
                        put.from,
                        Peer::PutDone {
                            ticket: put.ticket,
                            result,
                        },
                    ));
                }
            }
        }
    }
}
