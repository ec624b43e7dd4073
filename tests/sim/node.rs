//! A machine and its outbox, driven as `src/shard/drive.rs` drives them: one event is one turn, and
//! at its end everything the machine wants is carried out.

use std::collections::VecDeque;

use orbitmq::base::disk::Order;
use orbitmq::base::{ConnId, Now, OrderId, ShardId};
use orbitmq::machine::{Dial, Event, Machine, Outbox, Part, RemoteFrames};

/// A connection, for the world.
pub type Wire = u64;

/// One turn's mail from shard to shard.
pub struct Letter<P> {
    pub frames: Option<RemoteFrames>,
    pub peers: Vec<P>,
    pub closes: Vec<ConnId>,
}

/// What a turn asks of the world.
pub struct Turn<P> {
    pub sent: Vec<(Wire, Vec<u8>)>,
    pub letters: Vec<(ShardId, Letter<P>)>,
    pub closes: Vec<Wire>,
    pub dials: Vec<Dial>,
    pub orders: Vec<(OrderId, Order)>,
    /// When a tick must come that is not on its way yet, ms.
    pub tick: Option<u64>,
}

pub struct Node<M: Machine> {
    pub machine: M,
    pub id: ShardId,
    out: Outbox<M::Peer>,
    shards: u16,
    /// Generation of each slot, and who has it.
    slots: Vec<(u32, Option<Wire>)>,
    /// Log writes and syncs under way; as many as production has flush loops.
    pub flushing: usize,
    flushing_max: usize,
    pub armed: Option<u64>,
    pub failed: bool,
}

impl<M: Machine> Node<M> {
    pub fn new(machine: M, id: ShardId, shards: u16, flushing_max: usize) -> Self {
        Node {
            machine,
            id,
            out: Outbox::new(id, shards),
            shards,
            slots: Vec::new(),
            flushing: 0,
            flushing_max,
            armed: None,
            failed: false,
        }
    }

    /// Gives a connection a slot, the lowest free one.
    pub fn open(&mut self, wire: Wire) -> ConnId {
        let free = self.slots.iter().position(|(_, held)| held.is_none());
        let slot = free.unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() - 1
        });
        let (generation, held) = &mut self.slots[slot];
        *generation += 1;
        *held = Some(wire);
        let conn = ConnId {
            shard: self.id,
            slot: slot as u32,
            generation: *generation,
        };
        self.out.open(conn);
        conn
    }

    pub fn forget(&mut self, conn: ConnId) {
        self.slots[conn.slot as usize].1 = None;
        self.out.forget(conn);
    }

    pub fn step(&mut self, now: Now, event: Event<'_, M::Peer>) {
        self.machine.handle(now, event, &mut self.out);
    }

    pub fn accept(&mut self, frames: RemoteFrames) {
        self.out.accept_remote(frames);
    }

    pub fn close_later(&mut self, closes: Vec<ConnId>) {
        self.out.closes.extend(closes);
    }

    /// The end of a turn.
    pub fn settle(&mut self, now: Now) -> Turn<M::Peer> {
        self.machine.settle(now, &mut self.out);
        let sent = self.outputs();
        let (letters, closes) = self.letters();
        let mut orders: Vec<_> = self.out.orders.drain(..).collect();
        let dials = self.out.dials.drain(..).collect();
        // Nobody reads a log here.
        self.out.notes.clear();
        while self.flushing < self.flushing_max {
            let Some(write) = self.machine.poll_write(now) else {
                break;
            };
            self.flushing += 1;
            orders.push(write);
        }
        let deadline = self.machine.deadline().map(|at| at.0);
        let tick = deadline.filter(|at| self.armed.is_none_or(|armed| *at < armed));
        if tick.is_some() {
            self.armed = tick;
        }
        Turn {
            sent,
            letters,
            closes,
            dials,
            orders,
            tick,
        }
    }

    fn outputs(&mut self) -> Vec<(Wire, Vec<u8>)> {
        let mut touched = Vec::new();
        self.out.drain_touched(|slot| touched.push(slot));
        let mut sent = Vec::new();
        for slot in touched {
            let (generation, Some(wire)) = self.slots[slot as usize] else {
                continue;
            };
            let conn = ConnId {
                shard: self.id,
                slot,
                generation,
            };
            let Some(output) = self.out.pending(conn) else {
                continue;
            };
            let (mut inline, mut parts) = (Vec::new(), VecDeque::new());
            output.take(&mut inline, &mut parts);
            let (mut all, mut rest) = (Vec::new(), inline.as_slice());
            for part in parts {
                match part {
                    Part::Inline(len) => {
                        all.extend_from_slice(&rest[..len]);
                        rest = &rest[len..];
                    }
                    Part::Shared(bytes) => all.extend_from_slice(&bytes),
                }
            }
            assert!(rest.is_empty(), "every inline byte belongs to a part");
            if !all.is_empty() {
                sent.push((wire, all));
            }
        }
        sent
    }

    #[expect(clippy::type_complexity, reason = "one caller")]
    fn letters(&mut self) -> (Vec<(ShardId, Letter<M::Peer>)>, Vec<Wire>) {
        let mut drafts: Vec<Letter<M::Peer>> = (0..self.shards)
            .map(|_| Letter {
                frames: None,
                peers: Vec::new(),
                closes: Vec::new(),
            })
            .collect();
        for (to, message) in self.out.peers.drain(..) {
            drafts[usize::from(to.0)].peers.push(message);
        }
        let mut mine = Vec::new();
        for conn in self.out.closes.drain(..) {
            if conn.shard != self.id {
                drafts[usize::from(conn.shard.0)].closes.push(conn);
            } else if let Some((generation, Some(wire))) = self.slots.get(conn.slot as usize)
                && *generation == conn.generation
            {
                mine.push(*wire);
            }
        }
        let mut letters = Vec::new();
        for (to, mut letter) in drafts.into_iter().enumerate() {
            let to = ShardId(to as u16);
            letter.frames = self.out.take_remote(to);
            if letter.frames.is_some() || !letter.peers.is_empty() || !letter.closes.is_empty() {
                letters.push((to, letter));
            }
        }
        (letters, mine)
    }
}
