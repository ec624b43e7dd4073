//! One thread of the generator: many connections on one epoll, no wait but that for events and for
//! the next message that is due.
//!
//! A turn: answers are read and counted, requests that are due are written, all of a connection's
//! requests leave in one call. The clock is read once per connection that has news.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::mpsc;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::desk::{Desk, Shared};
use super::member::Member;
use super::pace::Pacer;
use super::pop::Popper;
use super::proc::ThreadTime;
use super::pull::Puller;
use super::query::Asker;
use super::send::Producer;
use super::tally::{Count, Lap, Times};
use super::verify::Ledger;
use super::wire::Wire;
use crate::shard::clock::Clock;

pub const SECOND_NS: u64 = 1_000_000_000;

/// What a connection does.
pub enum Role {
    Producer(Box<Producer>),
    Puller(Box<Puller>),
    Member(Box<Member>),
    Popper(Box<Popper>),
    Asker(Box<Asker>),
}

impl Role {
    /// Whether it does something at each moment of the pace.
    fn issues(&self) -> bool {
        matches!(self, Role::Producer(_) | Role::Asker(_))
    }
}

pub(super) struct Conn {
    pub(super) wire: Wire,
    pub(super) role: Role,
    /// Among those that may send.
    pub(super) roomy: bool,
    /// Among those with output.
    pub(super) dirty: bool,
}

impl Conn {
    /// Whether it can take what is due.
    pub(super) fn has_room(&self) -> bool {
        let has_room = match &self.role {
            Role::Producer(producer) => producer.has_room(),
            Role::Asker(asker) => asker.has_room(),
            _ => false,
        };
        has_room && self.wire.has_room()
    }
}

/// How a thread sends.
pub struct Issue {
    /// Nothing is sent before.
    pub from: u64,
    /// `None`: as fast as answers come.
    pub pacer: Option<Pacer>,
    /// Requests still to be sent.
    pub left: u64,
}

impl Issue {
    /// When the next request is due.
    pub fn due(&self, now: u64) -> u64 {
        self.pacer.as_ref().map_or(now.max(self.from), Pacer::due)
    }
}

/// What ends the consumers of a phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// The end of the phase.
    Time,
    /// So many messages in all threads.
    Arrived(u64),
    /// Each queue's end, as it was at the start.
    Drained,
    /// The senders have ended, and what they sent has come.
    Chased,
}

pub enum Report {
    /// A second is over; its number since measuring began, and what was done by part.
    Second {
        at: i32,
        laps: Vec<Lap>,
    },
    Ended(Box<End>),
}

/// What a thread leaves behind.
pub struct End {
    pub counts: Vec<Count>,
    pub ledger: Option<Ledger>,
    /// How late messages were written that had room.
    pub lag: Times,
    /// Requests that were due while no connection had room.
    pub held: u64,
    /// Requests that were due and never sent.
    pub unsent: u64,
    /// Requests that a broker fell silent over.
    pub unanswered: u64,
    /// Since measuring began, nanoseconds.
    pub cpu: u64,
    /// Share of the time since then that the thread had a core, and that it had or wanted one.
    pub ran: f64,
    pub wanted: f64,
    pub broken: Option<String>,
}

/// One thread's part of a phase, ready to run.
pub struct Hand {
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) spin: bool,
    pub(super) issue: Issue,
    pub(super) until: Until,
    pub(super) desk: Desk,
    pub(super) epoll: OwnedFd,
    pub(super) conns: Vec<Conn>,
    pub(super) roomy: VecDeque<u32>,
    pub(super) dirty: Vec<u32>,
    /// Connections whose last read filled the buffer.
    pub(super) ready: Vec<u32>,
    /// Connections that neither send nor query.
    pub(super) consumers: Vec<u32>,
    /// Something is to be sent, or an answer to it is to come.
    pub(super) sending: bool,
    pub(super) lag: Times,
    pub(super) held: u64,
    pub(super) holding: bool,
    pub(super) unanswered: u64,
    /// When something was answered last, and when messages came last.
    pub(super) heard: u64,
    pub(super) came: u64,
    pub(super) idle: u64,
    /// Clock and times of the thread when measuring began.
    pub(super) began: Option<(u64, ThreadTime)>,
    pub(super) lap: i32,
}

/// What a hand is made of besides its connections.
pub struct Tools {
    pub clock: Clock,
    pub shared: Arc<Shared>,
    pub reports: mpsc::Sender<Report>,
    pub spin: bool,
    pub issue: Issue,
    pub until: Until,
    pub desk: Desk,
}

impl Hand {
    /// # Errors
    /// A sentence: no epoll.
    pub fn new(tools: Tools) -> Result<Self, String> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)
            .map_err(|error| format!("epoll cannot be used: {error}"))?;
        let Tools {
            clock,
            shared,
            reports,
            spin,
            issue,
            until,
            desk,
        } = tools;
        let measure = desk.moments.measure;
        Ok(Hand {
            clock,
            shared,
            reports,
            spin,
            issue,
            until,
            lap: lap_at(desk.moments.start, measure),
            desk,
            epoll,
            conns: Vec::new(),
            roomy: VecDeque::new(),
            dirty: Vec::new(),
            ready: Vec::new(),
            consumers: Vec::new(),
            sending: false,
            lag: Times::fine(),
            held: 0,
            holding: false,
            unanswered: 0,
            heard: 0,
            came: 0,
            idle: 0,
            began: None,
        })
    }

    /// # Errors
    /// A sentence: the connection cannot be watched.
    pub fn add(&mut self, wire: Wire, role: Role) -> Result<(), String> {
        let at = self.conns.len() as u32;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(
            &self.epoll,
            wire.fd(),
            EventData::new_u64(u64::from(at)),
            flags,
        )
        .map_err(|error| format!("the connection to {} fails: {error}", wire.addr()))?;
        let roomy = role.issues();
        if roomy {
            self.roomy.push_back(at);
        } else {
            self.consumers.push(at);
        }
        self.conns.push(Conn {
            wire,
            role,
            roomy,
            dirty: false,
        });
        Ok(())
    }

    /// Whether some of its connections send or query.
    pub fn sends(&self) -> bool {
        self.consumers.len() < self.conns.len()
    }

    /// Runs to the end and reports it.
    pub fn run(mut self) {
        self.sending = self.sends();
        let broken = self.work().err();
        if broken.is_some() {
            self.shared.stop.store(true, Relaxed);
        }
        self.sent_all();
        self.publish();
        self.lap_ends();
        let now = self.clock.nanos();
        let (cpu, ran, wanted) = self.spent(now);
        let unsent = match (&self.issue.pacer, self.desk.moments.end) {
            (Some(pacer), end) if end != u64::MAX && self.sends() => unsent(pacer, end),
            _ => 0,
        };
        let end = End {
            counts: self.desk.counts,
            ledger: self.desk.ledger,
            lag: self.lag,
            held: self.held,
            unsent,
            unanswered: self.unanswered,
            cpu,
            ran,
            wanted,
            broken,
        };
        // Whoever listened has failed already if nobody does.
        let _ = self.reports.send(Report::Ended(Box::new(end)));
    }

    /// Tells the other threads what came about.
    pub fn publish(&mut self) {
        let (stored, arrived) = (&mut self.desk.stored, &mut self.desk.arrived);
        if *stored > 0 {
            self.shared
                .stored
                .fetch_add(std::mem::take(stored), Relaxed);
        }
        if *arrived > 0 {
            self.came = self.came.max(self.desk.now);
            self.shared
                .arrived
                .fetch_add(std::mem::take(arrived), Relaxed);
        }
    }

    /// Nothing of this thread is sent any more.
    pub fn sent_all(&mut self) {
        if std::mem::take(&mut self.sending) {
            self.publish();
            // What it stored is seen by whoever sees that it has ended.
            self.shared.senders.fetch_sub(1, Release);
        }
    }

    pub fn lap_ends(&mut self) {
        let laps = self
            .desk
            .counts
            .iter_mut()
            .map(|count| std::mem::take(&mut count.lap));
        let laps = laps.collect();
        let _ = self.reports.send(Report::Second { at: self.lap, laps });
    }

    /// What the thread spent since measuring began: processor time, its share of the time, and the
    /// share in which it had or wanted a core.
    fn spent(&self, now: u64) -> (u64, f64, f64) {
        let Some((began, before)) = self.began else {
            return (0, 0.0, 0.0);
        };
        let (wall, after) = (now.saturating_sub(began).max(1), ThreadTime::read());
        let ran = after.ran.saturating_sub(before.ran);
        let wanted = match self.spin {
            true => wall.saturating_sub(self.idle),
            false => ran + after.waited.saturating_sub(before.waited),
        };
        (ran, ran as f64 / wall as f64, wanted as f64 / wall as f64)
    }
}

/// The second that a moment lies in; negative before measuring.
pub fn lap_at(now: u64, measure: u64) -> i32 {
    (now as i64 - measure as i64).div_euclid(SECOND_NS as i64) as i32
}

/// Requests of an open loop that are due before the end and were not sent.
fn unsent(pacer: &Pacer, end: u64) -> u64 {
    let mut pacer = pacer.clone();
    let mut count = 0;
    while pacer.due() < end {
        pacer.advance();
        count += 1;
    }
    count
}
