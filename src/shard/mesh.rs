//! Letters between the shards of a fleet. Per pair of executors and direction there is one channel;
//! shards on the same executor write to each other through its inbox. Both keep the order of
//! sending, and a letter is always delivered by a task, never from inside the turn that wrote it.
//!
//! A channel that is full makes letters wait in its lane, where they count as congestion: then
//! connections are not read until the lane is empty. So what waits is bounded by what turns
//! already under way can write.

use super::bell::{Bell, Queue};
use crate::base::{ConnId, ShardId};
use crate::machine::RemoteFrames;
use glommio::channels::shared_channel::{
    ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender, new_bounded,
};
use glommio::net::AcceptedTcpStream;
use glommio::{GlommioError, ResourceType};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// Letters in a channel.
const CHANNEL_LETTERS: usize = 256;
/// Letters waiting for a full channel before connections are no longer read.
const LANE_LETTERS_MAX: usize = 256;

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
        accepted: AcceptedTcpStream,
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

/// The ends of the channels that one executor gets, indexed by the other executor.
pub struct Ends<P: Send + 'static> {
    pub senders: Vec<Option<SharedSender<Mail<P>>>>,
    pub receivers: Vec<Option<SharedReceiver<Mail<P>>>>,
}

/// All channels between `executors` executors.
pub fn weave<P: Send + 'static>(executors: usize) -> Vec<Ends<P>> {
    let none = || Ends {
        senders: (0..executors).map(|_| None).collect(),
        receivers: (0..executors).map(|_| None).collect(),
    };
    let mut all: Vec<Ends<P>> = (0..executors).map(|_| none()).collect();
    for from in 0..executors {
        for to in (0..executors).filter(|to| *to != from) {
            let (sender, receiver) = new_bounded(CHANNEL_LETTERS);
            all[from].senders[to] = Some(sender);
            all[to].receivers[from] = Some(receiver);
        }
    }
    all
}

/// Where the shards of one executor post their mail.
pub struct Post<P: Send + 'static> {
    me: usize,
    executors: usize,
    pub inbox: Queue<Mail<P>>,
    lanes: RefCell<Vec<Option<Rc<Lane<P>>>>>,
    congested: Cell<bool>,
}

impl<P: Send + 'static> Post<P> {
    pub fn new(me: usize, executors: usize) -> Self {
        Post {
            me,
            executors,
            inbox: Queue::default(),
            lanes: RefCell::default(),
            congested: Cell::new(false),
        }
    }

    /// Connects with all other executors; they must do the same now.
    pub async fn join(&self, ends: Ends<P>) -> Vec<ConnectedReceiver<Mail<P>>> {
        let mut senders = Vec::new();
        for sender in ends.senders {
            senders.push(sender.map(|end| glommio::spawn_local(end.connect())));
        }
        let mut receivers = Vec::new();
        for receiver in ends.receivers.into_iter().flatten() {
            receivers.push(glommio::spawn_local(receiver.connect()));
        }
        let mut lanes = Vec::new();
        for sender in senders {
            lanes.push(match sender {
                Some(connecting) => Some(Rc::new(Lane::new(connecting.await))),
                None => None,
            });
        }
        *self.lanes.borrow_mut() = lanes;
        let mut connected = Vec::new();
        for connecting in receivers {
            connected.push(connecting.await);
        }
        connected
    }

    pub fn send(&self, mail: Mail<P>) {
        let executor = usize::from(mail.to().0) % self.executors;
        if executor == self.me {
            return self.inbox.push(mail);
        }
        let lanes = self.lanes.borrow();
        let lane = lanes[executor]
            .as_ref()
            .expect("every other executor has a lane");
        lane.send(mail);
        if lane.waiting.get() > LANE_LETTERS_MAX {
            self.congested.set(true);
        }
    }

    pub fn lanes(&self) -> Vec<Rc<Lane<P>>> {
        self.lanes.borrow().iter().flatten().cloned().collect()
    }

    pub fn congested(&self) -> bool {
        self.congested.get()
    }

    /// True if this ended a congestion.
    pub fn relieve(&self) -> bool {
        let waiting = |lane: &Rc<Lane<P>>| lane.waiting.get() > 0;
        if self.lanes.borrow().iter().flatten().any(waiting) {
            return false;
        }
        self.congested.replace(false)
    }
}

/// The way to one other executor.
pub struct Lane<P: Send + 'static> {
    sender: ConnectedSender<Mail<P>>,
    line: RefCell<VecDeque<Mail<P>>>,
    /// Letters in the line, and the one that the pump holds.
    waiting: Cell<usize>,
    bell: Bell,
}

impl<P: Send + 'static> Lane<P> {
    fn new(sender: ConnectedSender<Mail<P>>) -> Self {
        Lane {
            sender,
            line: RefCell::default(),
            waiting: Cell::new(0),
            bell: Bell::default(),
        }
    }

    fn send(&self, mail: Mail<P>) {
        let mut mail = mail;
        if self.waiting.get() == 0 {
            match self.sender.try_send(mail) {
                Err(GlommioError::WouldBlock(ResourceType::Channel(refused))) => mail = refused,
                // Delivered, or the other executor has ended: then nobody needs it.
                _ => return,
            }
        }
        self.line.borrow_mut().push_back(mail);
        self.waiting.set(self.waiting.get() + 1);
        self.bell.ring();
    }

    /// Sends what waits, in order, until nothing does.
    pub async fn pump(&self) {
        self.bell.wait().await;
        loop {
            let next = self.line.borrow_mut().pop_front();
            let Some(mail) = next else { return };
            // An error says that the other executor has ended.
            let _ = self.sender.send(mail).await;
            self.waiting.set(self.waiting.get() - 1);
        }
    }
}
