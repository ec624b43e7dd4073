//! Letters between the shards of a fleet. Per pair of executors and direction there is one
//! single-producer queue; shards on the same executor write to each other through its inbox. Both
//! keep the order of sending, and a letter is never delivered from inside the turn that wrote it.
//!
//! A queue that is full makes letters wait in its line, where they count as congestion: then
//! connections are not read until the line is empty. So what waits is bounded by what turns
//! already under way can write.

use super::bell::Bell;
use crate::base::{ConnId, ShardId};
use crate::machine::RemoteFrames;
use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Letters in a queue. Each carries at most what one turn received, 256 KiB and a frame: together
/// with the line 32 MiB on the way from one executor to another.
const QUEUE_LETTERS: usize = 64;
/// Letters waiting for a full queue before connections are no longer read.
const LINE_LETTERS_MAX: usize = 64;

/// What one shard had for another at the end of a turn.
pub struct Letter<P> {
    pub from: ShardId,
    pub to: ShardId,
    pub frames: Option<RemoteFrames>,
    pub peers: Vec<P>,
    pub closes: Vec<ConnId>,
}

pub enum Mail<P> {
    Letter(Letter<P>),
    /// A connection that this shard is to hold.
    Socket {
        to: ShardId,
        stream: TcpStream,
    },
}

impl<P> Mail<P> {
    pub fn to(&self) -> ShardId {
        match self {
            Mail::Letter(letter) => letter.to,
            Mail::Socket { to, .. } => *to,
        }
    }
}

/// The ends of the queues that one executor gets, indexed by the other executor.
pub struct Ends<P> {
    lanes: Vec<Option<Lane<P>>>,
    arrivals: Vec<Option<Arrivals<P>>>,
}

/// All queues between executors; `bells` has one for each.
pub fn weave<P>(bells: &[Arc<Bell>]) -> Vec<Ends<P>> {
    let none = || Ends {
        lanes: bells.iter().map(|_| None).collect(),
        arrivals: bells.iter().map(|_| None).collect(),
    };
    let mut all: Vec<Ends<P>> = bells.iter().map(|_| none()).collect();
    for from in 0..bells.len() {
        for to in (0..bells.len()).filter(|to| *to != from) {
            let (producer, consumer) = RingBuffer::new(QUEUE_LETTERS);
            let held_up = Arc::new(AtomicBool::new(false));
            all[from].lanes[to] = Some(Lane {
                producer,
                line: VecDeque::new(),
                held_up: held_up.clone(),
                bell: bells[to].clone(),
            });
            all[to].arrivals[from] = Some(Arrivals {
                consumer,
                held_up,
                bell: bells[from].clone(),
            });
        }
    }
    all
}

/// The way to one other executor.
struct Lane<P> {
    producer: Producer<Mail<P>>,
    line: VecDeque<Mail<P>>,
    /// The line is not empty: whoever empties the queue rings back.
    held_up: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

/// The way from one other executor.
struct Arrivals<P> {
    consumer: Consumer<Mail<P>>,
    held_up: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

/// Where the shards of one executor post and get their mail.
pub struct Post<P> {
    me: usize,
    inbox: VecDeque<Mail<P>>,
    ends: Ends<P>,
    congested: bool,
}

impl<P> Post<P> {
    pub fn new(me: usize, ends: Ends<P>) -> Self {
        Post {
            me,
            inbox: VecDeque::new(),
            ends,
            congested: false,
        }
    }

    pub fn executors(&self) -> usize {
        self.ends.lanes.len()
    }

    pub fn send(&mut self, mail: Mail<P>) {
        let executor = usize::from(mail.to().0) % self.executors();
        if executor == self.me {
            return self.inbox.push_back(mail);
        }
        let lane = self.ends.lanes[executor]
            .as_mut()
            .expect("every other executor has a lane");
        lane.line.push_back(mail);
        lane.push();
        self.congested |= lane.line.len() > LINE_LETTERS_MAX;
    }

    pub fn congested(&self) -> bool {
        self.congested
    }

    /// Sends on what waits in lines. True if this ended a congestion.
    pub fn relieve(&mut self) -> bool {
        let mut waiting = false;
        for lane in self.ends.lanes.iter_mut().flatten() {
            if !lane.line.is_empty() {
                lane.push();
                waiting |= !lane.line.is_empty();
            }
        }
        !waiting && std::mem::take(&mut self.congested)
    }

    /// Whether anything waits to be delivered here.
    pub fn has_mail(&self) -> bool {
        let arrived = |from: &Arrivals<P>| !from.consumer.is_empty();
        !self.inbox.is_empty() || self.ends.arrivals.iter().flatten().any(arrived)
    }

    /// Takes up to one queue's worth of mail from each side.
    pub fn collect(&mut self, into: &mut Vec<Mail<P>>) {
        into.extend(self.inbox.drain(..));
        for from in self.ends.arrivals.iter_mut().flatten() {
            let mut taken = 0;
            while taken < QUEUE_LETTERS
                && let Ok(mail) = from.consumer.pop()
            {
                into.push(mail);
                taken += 1;
            }
            if taken > 0 {
                fence(Ordering::SeqCst);
                if from.held_up.load(Ordering::Relaxed) {
                    from.bell.ring();
                }
            }
        }
    }
}

impl<P> Lane<P> {
    fn push(&mut self) {
        let before = self.line.len();
        while let Some(mail) = self.line.pop_front() {
            if let Err(rtrb::PushError::Full(mail)) = self.producer.push(mail) {
                self.line.push_front(mail);
                break;
            }
        }
        let held_up = !self.line.is_empty();
        if self.held_up.load(Ordering::Relaxed) != held_up {
            self.held_up.store(held_up, Ordering::Relaxed);
        }
        if self.line.len() < before {
            self.bell.ring();
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// Whether the line could go on now: asked by an executor that is about to sleep.
    fn may_move(&self) -> bool {
        !self.line.is_empty() && self.producer.slots() > 0
    }
}

impl<P> Post<P> {
    /// Whether there is anything to do before sleeping.
    pub fn is_restless(&self) -> bool {
        self.has_mail() || self.ends.lanes.iter().flatten().any(Lane::may_move)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(peer: u32) -> Mail<u32> {
        Mail::Letter(Letter {
            from: ShardId(0),
            to: ShardId(1),
            frames: None,
            peers: vec![peer],
            closes: Vec::new(),
        })
    }

    #[test]
    fn a_full_queue_keeps_the_order_and_says_so() {
        let bells: Vec<_> = (0..2).map(|_| Arc::new(Bell::new().unwrap())).collect();
        let mut ends = weave::<u32>(&bells).into_iter();
        let mut here = Post::new(0, ends.next().unwrap());
        let mut there = Post::new(1, ends.next().unwrap());
        let count = (QUEUE_LETTERS + LINE_LETTERS_MAX) as u32 + 1;
        for peer in 0..count {
            assert!(!here.congested());
            here.send(letter(peer));
        }
        assert!(here.congested() && !here.relieve() && !here.is_restless());
        let mut got = Vec::new();
        while there.has_mail() {
            there.collect(&mut got);
            assert!(here.is_restless() || got.len() as u32 == count);
            here.relieve();
        }
        assert!(!here.congested());
        let peers = got.into_iter().map(|mail| match mail {
            Mail::Letter(letter) => letter.peers[0],
            Mail::Socket { .. } => panic!("nobody sent a socket"),
        });
        assert!(peers.eq(0..count));
    }
}
