//! The one shape of the system: events in, orders out.
//!
//! A [`Machine`] decides (broker shard, name server). A driver acts: `shard` with sockets, disks
//! and clocks, the simulator in `tests/` with virtual ones. Between them stands the [`Outbox`]:
//! memory lent to the machine for frames on their way to connections, and a list of orders.
//!
//! A machine owns no socket, file, clock, lock or future. It runs on one core; a frame for a
//! connection that another shard holds travels in the batch of that shard.

use crate::base::disk::{Done, Order};
use crate::base::{ConnId, DiskError, Mono, Now, OrderId, ShardId};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// One end of a connection, as the machine needs to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    pub conn: ConnId,
    /// The other side; a message's born host.
    pub peer: SocketAddr,
    /// Our side: the address this client reaches us by.
    pub local: SocketAddr,
}

/// A frame up to this long is kept by copying it.
pub const COPY_BYTES_MAX: usize = 4096;

/// A whole frame, length word included, inside the chunk it was received in.
#[derive(Clone, Copy)]
pub struct FrameIn<'a> {
    chunk: &'a Bytes,
    start: usize,
    end: usize,
}

impl<'a> FrameIn<'a> {
    pub fn new(chunk: &'a Bytes, start: usize, end: usize) -> Self {
        assert!(
            start <= end && end <= chunk.len(),
            "a frame lies inside its chunk"
        );
        FrameIn { chunk, start, end }
    }

    pub fn bytes(&self) -> &'a [u8] {
        &self.chunk[self.start..self.end]
    }

    /// Keeps the frame beyond this call: for a request that goes to another shard, or waits. A
    /// small frame is copied, because a share pins its chunk and costs the connection a new one.
    pub fn share(&self) -> Bytes {
        let frame = self.start..self.end;
        match frame.len() {
            ..=COPY_BYTES_MAX => Bytes::copy_from_slice(&self.chunk[frame]),
            _ => self.chunk.slice(frame),
        }
    }
}

/// What happened. `P` is what shards of this machine say to each other.
pub enum Event<'a, P> {
    /// A peer connected, or a dialled connection is up (then `dialed` is its token).
    Opened { link: Link, dialed: Option<u64> },
    /// A dial came to nothing.
    DialFailed { token: u64, reason: String },
    /// A whole remoting frame. Its length was checked; its content was not.
    Frame { link: &'a Link, frame: FrameIn<'a> },
    /// The connection is gone, whoever ended it; nothing can be sent to it any more.
    Closed { conn: ConnId },
    /// From another shard of this machine, in the order it was sent.
    Peer { from: ShardId, message: P },
    /// The answer to an order; every order gets exactly one.
    Disk {
        id: OrderId,
        result: Result<Done, DiskError>,
    },
    /// All machines of the set are made and can hear each other.
    Start,
    /// A deadline passed.
    Tick,
    /// Stop cleanly: make everything durable, then be [`Machine::drained`].
    Stop,
}

/// Decides; knows no socket, file, clock, lock or future.
pub trait Machine {
    /// What shards of this machine send to each other.
    type Peer: Send + 'static;

    fn handle(&mut self, now: Now, event: Event<'_, Self::Peer>, out: &mut Outbox<Self::Peer>);

    /// The end of a turn, after one event or many: what follows from them is written and ordered.
    fn settle(&mut self, now: Now, out: &mut Outbox<Self::Peer>);

    /// The next log write or sync if the disk should get one now. Asked at the end of each turn,
    /// so a group is whatever has gathered meanwhile.
    fn poll_write(&mut self, now: Now) -> Option<(OrderId, Order)>;

    /// When [`Event::Tick`] is wanted next.
    fn deadline(&self) -> Option<Mono>;

    /// Whether connections should be read. False while the log is behind by its limit.
    fn admits(&self) -> bool;

    /// True once this machine can serve everything it is there for; stays true.
    fn ready(&self) -> bool;

    /// True once [`Event::Stop`] is done with.
    fn drained(&self) -> bool;
}

/// A wish to connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dial {
    /// Comes back in `Opened` or `DialFailed`.
    pub token: u64,
    /// `host:port`; the driver resolves it.
    pub addr: String,
}

/// A line for the log, for a person who runs the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    Info(String),
    Warn(String),
}

/// What a machine wants done, gathered during one call and carried out by the driver after it.
pub struct Outbox<P> {
    me: ShardId,
    outputs: Vec<Option<(u32, Output)>>,
    /// Slots with bytes that the driver has not looked at yet.
    touched: Vec<u32>,
    /// Frames for connections that other shards hold, one batch per shard.
    remote: Vec<RemoteFrames>,
    /// Messages to other shards, in order.
    pub peers: Vec<(ShardId, P)>,
    pub dials: Vec<Dial>,
    /// Connections to end once their output is sent.
    pub closes: Vec<ConnId>,
    pub orders: Vec<(OrderId, Order)>,
    /// Rare: their number per minute is the machine's to bound.
    pub notes: Vec<Note>,
}

/// Frames for the connections of one other shard.
#[derive(Default)]
pub struct RemoteFrames {
    bytes: Vec<u8>,
    parts: Vec<(ConnId, Part)>,
}

/// Memory that is kept ready for frames to another shard.
const REMOTE_BYTES_USUAL: usize = 64 * 1024;

impl RemoteFrames {
    fn write(&mut self, conn: ConnId, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        encode(&mut self.bytes);
        let added = self.bytes.len() - before;
        match self.parts.last_mut() {
            Some((last, Part::Inline(len))) if *last == conn => *len += added,
            _ => self.parts.push((conn, Part::Inline(added))),
        }
    }
}

/// Bytes waiting for one connection, in order.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    parts: VecDeque<Part>,
    pending: usize,
}

/// A piece of output: the next `n` bytes of the buffer beside it, or shared memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    Inline(usize),
    Shared(Bytes),
}

impl Output {
    /// Bytes not yet taken by the driver.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Takes everything: the inline bytes and the parts in the order they go out. `bytes` and
    /// `parts` are buffers of the caller, cleared and exchanged so that memory is used again.
    pub fn take(&mut self, bytes: &mut Vec<u8>, parts: &mut VecDeque<Part>) {
        bytes.clear();
        parts.clear();
        std::mem::swap(&mut self.bytes, bytes);
        std::mem::swap(&mut self.parts, parts);
        self.pending = 0;
    }

    fn write(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        encode(&mut self.bytes);
        self.extend_inline(self.bytes.len() - before);
    }

    fn extend_inline(&mut self, added: usize) {
        self.pending += added;
        match self.parts.back_mut() {
            Some(Part::Inline(len)) => *len += added,
            _ => self.parts.push_back(Part::Inline(added)),
        }
    }

    fn share(&mut self, bytes: Bytes) {
        self.pending += bytes.len();
        self.parts.push_back(Part::Shared(bytes));
    }
}

impl<P> Outbox<P> {
    /// For the machine of `me` among `shards`.
    pub fn new(me: ShardId, shards: u16) -> Self {
        Outbox {
            me,
            outputs: Vec::new(),
            touched: Vec::new(),
            remote: (0..shards).map(|_| RemoteFrames::default()).collect(),
            peers: Vec::new(),
            dials: Vec::new(),
            closes: Vec::new(),
            orders: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub fn me(&self) -> ShardId {
        self.me
    }

    /// Writes a frame, or the inline start of one, to a connection held by any shard. If the
    /// connection is gone the bytes are dropped, as the network would.
    pub fn write(&mut self, conn: ConnId, encode: impl FnOnce(&mut Vec<u8>)) {
        if conn.shard != self.me {
            let Some(batch) = self.remote.get_mut(usize::from(conn.shard.0)) else {
                return;
            };
            return batch.write(conn, encode);
        }
        let Some(output) = self.output(conn) else {
            return;
        };
        let idle = output.pending == 0;
        output.write(encode);
        if idle {
            self.touched.push(conn.slot);
        }
    }

    /// Continues the frame begun by [`write`](Self::write) with bytes that are not copied.
    pub fn share(&mut self, conn: ConnId, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        if conn.shard != self.me {
            let Some(batch) = self.remote.get_mut(usize::from(conn.shard.0)) else {
                return;
            };
            batch.parts.push((conn, Part::Shared(bytes)));
            return;
        }
        let Some(output) = self.output(conn) else {
            return;
        };
        let idle = output.pending == 0;
        output.share(bytes);
        if idle {
            self.touched.push(conn.slot);
        }
    }

    fn output(&mut self, conn: ConnId) -> Option<&mut Output> {
        match self.outputs.get_mut(conn.slot as usize)? {
            Some((generation, output)) if *generation == conn.generation => Some(output),
            _ => None,
        }
    }

    /// The driver announces a connection before its `Opened` event.
    pub fn open(&mut self, conn: ConnId) {
        let slot = conn.slot as usize;
        if self.outputs.len() <= slot {
            self.outputs.resize_with(slot + 1, || None);
        }
        self.outputs[slot] = Some((conn.generation, Output::default()));
    }

    /// The driver takes a connection away; later frames for it are dropped.
    pub fn forget(&mut self, conn: ConnId) {
        if self.output(conn).is_some() {
            self.outputs[conn.slot as usize] = None;
        }
    }

    /// What waits for a connection of this shard.
    pub fn pending(&mut self, conn: ConnId) -> Option<&mut Output> {
        self.output(conn)
    }

    /// Gives each slot that got bytes since the last call, once.
    pub fn drain_touched(&mut self, mut each: impl FnMut(u32)) {
        for slot in self.touched.drain(..) {
            each(slot);
        }
    }

    /// The batch for `shard`, if there is one.
    pub fn take_remote(&mut self, shard: ShardId) -> Option<RemoteFrames> {
        let batch = self.remote.get_mut(usize::from(shard.0))?;
        if batch.parts.is_empty() {
            return None;
        }
        // The next turn's will be about as large.
        let next = RemoteFrames {
            bytes: Vec::with_capacity(batch.bytes.len().min(REMOTE_BYTES_USUAL)),
            parts: Vec::new(),
        };
        Some(std::mem::replace(batch, next))
    }

    /// Delivers another shard's batch to connections held here.
    pub fn accept_remote(&mut self, batch: RemoteFrames) {
        let mut rest = batch.bytes.as_slice();
        for (conn, part) in batch.parts {
            assert_eq!(
                conn.shard, self.me,
                "a batch goes to the shard that holds its connections"
            );
            match part {
                Part::Inline(len) => {
                    let (head, tail) = rest.split_at(len);
                    rest = tail;
                    self.write(conn, |out| out.extend_from_slice(head));
                }
                Part::Shared(bytes) => self.share(conn, bytes),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(shard: u16, slot: u32, generation: u32) -> ConnId {
        ConnId {
            shard: ShardId(shard),
            slot,
            generation,
        }
    }

    fn taken(out: &mut Outbox<()>, conn: ConnId) -> Vec<u8> {
        let (mut bytes, mut parts) = (Vec::new(), VecDeque::new());
        out.pending(conn).unwrap().take(&mut bytes, &mut parts);
        let mut inline = bytes.as_slice();
        let mut all = Vec::new();
        for part in parts {
            match part {
                Part::Inline(len) => {
                    all.extend_from_slice(&inline[..len]);
                    inline = &inline[len..];
                }
                Part::Shared(shared) => all.extend_from_slice(&shared),
            }
        }
        all
    }

    #[test]
    fn output_keeps_the_order_of_inline_and_shared() {
        let mut out = Outbox::<()>::new(ShardId(0), 1);
        let c = conn(0, 3, 1);
        out.open(c);
        out.write(c, |b| b.extend_from_slice(b"ab"));
        out.share(c, Bytes::from_static(b"CD"));
        out.write(c, |b| b.extend_from_slice(b"e"));
        out.write(c, |b| b.extend_from_slice(b"f"));
        let mut slots = Vec::new();
        out.drain_touched(|slot| slots.push(slot));
        assert_eq!(slots, [3]);
        assert_eq!(taken(&mut out, c), b"abCDef");
    }

    #[test]
    fn a_late_answer_misses_the_next_tenant() {
        let mut out = Outbox::<()>::new(ShardId(0), 1);
        out.open(conn(0, 0, 1));
        out.forget(conn(0, 0, 1));
        out.open(conn(0, 0, 2));
        out.write(conn(0, 0, 1), |b| b.push(1));
        assert_eq!(out.pending(conn(0, 0, 2)).unwrap().pending(), 0);
    }

    #[test]
    fn frames_for_another_shard_travel_in_its_batch() {
        let mut here = Outbox::<()>::new(ShardId(0), 2);
        let mut there = Outbox::<()>::new(ShardId(1), 2);
        let c = conn(1, 0, 1);
        there.open(c);
        here.write(c, |b| b.extend_from_slice(b"head"));
        here.share(c, Bytes::from_static(b"body"));
        there.accept_remote(here.take_remote(ShardId(1)).unwrap());
        assert!(here.take_remote(ShardId(1)).is_none());
        assert_eq!(taken(&mut there, c), b"headbody");
    }
}
