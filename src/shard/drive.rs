//! A machine and what surrounds it on its executor: turns, connections, limits.
//!
//! Nothing here waits; `executor` calls in when there is something to do.

use super::conn::{Chunk, Conn, Input, Phase, Received, Sending};
use super::disk::Disk;
use super::executor::Engine;
use super::helpers::What;
use super::mesh::{Letter, Mail, Post};
use super::ring;
use super::token::{Kind, Place, pack};
use super::{Options, Stats};
use crate::base::disk::Done;
use crate::base::{ConnId, DiskError, Mono, Now, OrderId, ShardId};
use crate::machine::{Dial, Event, FrameIn, Link, Machine, Note, Outbox};
use crate::remoting::frame::{FrameError, frame_len};
use crate::remoting::sniff::{Protocol, refusal, sniff};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};

/// Receive buffers kept for the next receive; more are needed only while chunks are shared.
const SPARE_BUFFERS: usize = 4;
/// Connections that a machine may dial when clients have taken all of theirs.
const DIALED_MAX: usize = 64;
/// How long a peer may take to end a connection that we have finished.
const LINGER_MS: u64 = 2_000;
/// How long a peer may take to read the last output before that.
const FINISH_MS: u64 = 10_000;
/// Frames between two looks at the clock.
const FRAMES_PER_LOOK: u64 = 32;
/// A connection rests only after less was received: more is worth reading while the disk works.
const REST_BYTES: usize = 16 * 1024;
/// A connection that rests is looked at after so many log writes and syncs, answered or not.
const REST_ORDERS: u64 = 2;
/// A frame longer than this that is not whole gets memory of its own. A shorter one is copied with
/// each piece that comes, and a peer may send it byte by byte.
const LARGE_BYTES: usize = 64 * 1024;
/// Received bytes after which a turn ends even if more connections are ready.
const TURN_BYTES: usize = 256 * 1024;

/// A connection that is left alone for a while after it was read.
struct Rest {
    slot: u32,
    /// Until so many log orders have ended, or none is under way,
    orders: u64,
    /// and until this time.
    until_ns: u64,
}

pub struct Shard<M: Machine> {
    pub id: ShardId,
    place: Place,
    shards: u16,
    machine: M,
    out: Outbox<M::Peer>,
    pub disk: Disk,
    pub stats: Stats,
    conns: Conns,
    /// Connections to be read, in turn.
    ready: VecDeque<u32>,
    /// Connections that rest. One that was answered meanwhile is still in the list.
    resting: VecDeque<Rest>,
    /// Connections that are not read until the machine admits and mail flows.
    paused: Vec<u32>,
    /// Connections that have ended.
    dead: Vec<u32>,
    scratch: Scratch<M::Peer>,
    buffers: Vec<BytesMut>,
    receive_bytes: usize,
    admits: bool,
    trouble: Trouble,
}

/// Memory of `settle`, kept between turns.
struct Scratch<P> {
    touched: Vec<u32>,
    sending: Sending,
    letters: Vec<Letter<P>>,
}

/// What went wrong with peers since the last line in the log.
#[derive(Default)]
struct Trouble {
    count: u64,
    example: String,
}

impl Trouble {
    fn note(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.count == 1 {
            self.example = example();
        }
    }
}

impl<M: Machine> Shard<M> {
    /// Shard `id` of `shards`.
    pub fn new(
        machine: M,
        (id, shards): (ShardId, u16),
        place: Place,
        disk: Disk,
        receive_bytes: usize,
    ) -> Self {
        let letter = |to| Letter {
            from: id,
            to: ShardId(to),
            frames: None,
            peers: Vec::new(),
            closes: Vec::new(),
        };
        Shard {
            id,
            place,
            shards,
            machine,
            out: Outbox::new(id, shards),
            disk,
            stats: Stats::default(),
            conns: Conns::default(),
            ready: VecDeque::new(),
            resting: VecDeque::new(),
            paused: Vec::new(),
            dead: Vec::new(),
            scratch: Scratch {
                touched: Vec::new(),
                sending: Sending::default(),
                letters: (0..shards).map(letter).collect(),
            },
            buffers: Vec::new(),
            receive_bytes,
            admits: true,
            trouble: Trouble::default(),
        }
    }

    /// One event. The turn ends with [`settle`](Self::settle).
    pub fn step(&mut self, now: Now, event: Event<'_, M::Peer>) {
        self.machine.handle(now, event, &mut self.out);
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.machine.deadline()
    }

    pub fn is_ready(&self) -> bool {
        self.machine.ready()
    }

    pub fn drained(&self) -> bool {
        self.machine.drained()
    }

    pub fn connections(&self) -> usize {
        self.conns.open
    }

    /// Whether connections wait to be read.
    pub fn has_input(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// The end of a turn.
impl<M: Machine> Shard<M> {
    /// Sends what was written, starts what was ordered, takes away who has ended.
    pub fn settle(&mut self, now: Now, engine: &mut Engine, post: &mut Post<M::Peer>) {
        self.stats.turns += 1;
        loop {
            self.machine.settle(now, &mut self.out);
            self.send_outputs(now, engine);
            self.post_letters(now, post);
            self.start_orders(now, engine);
            self.log_notes();
            self.end_rests(engine);
            let admits = self.machine.admits();
            if !std::mem::replace(&mut self.admits, admits) && admits {
                self.resume();
            }
            if self.dead.is_empty() {
                return;
            }
            self.bury(now);
        }
    }

    fn send_outputs(&mut self, now: Now, engine: &mut Engine) {
        let Scratch {
            touched, sending, ..
        } = &mut self.scratch;
        self.out.drain_touched(|slot| touched.push(slot));
        for slot in touched.drain(..) {
            let Some(conn) = self.conns.at(slot) else {
                continue;
            };
            let Some(output) = self.out.pending(conn.link.conn) else {
                continue;
            };
            let mut broken = false;
            match conn.send(output, sending, now) {
                Ok(sent) => self.stats.bytes_out += sent as u64,
                Err(_) => broken = true,
            }
            if conn.backlog() > engine.options.output_close_bytes {
                broken = true;
                self.stats.slow += 1;
                let peer = conn.link.peer;
                self.trouble.note(|| format!("{peer} reads too slowly"));
            }
            if broken {
                if conn.hang_up() {
                    self.dead.push(slot);
                }
                continue;
            }
            if conn.backlog() > 0 && !conn.output_watched {
                conn.output_watched = true;
                let token = pack(Kind::Output, self.place, slot);
                engine.ring.watch(conn.descriptor(), libc::POLLOUT, token);
            }
            if conn.input == Input::Resting && engine.options.read_interval.is_zero() {
                watch(conn, self.place, engine);
            }
        }
    }

    /// When the next rest ends that does not end with the disk's orders.
    pub fn rests_until_ns(&self) -> Option<u64> {
        let next = self.resting.front()?.until_ns;
        (next > 0).then_some(next)
    }

    /// Connections that have rested long enough, or whose rest is of no use: the disk is idle.
    fn end_rests(&mut self, engine: &mut Engine) {
        let ended = match self.disk.log_orders() {
            0 => u64::MAX,
            _ => self.disk.log_orders_ended(),
        };
        let now_ns = engine.round_start_ns();
        while let Some(rest) = self
            .resting
            .pop_front_if(|rest| rest.orders <= ended && rest.until_ns <= now_ns)
        {
            let conn = self.conns.at(rest.slot);
            if let Some(conn) = conn.filter(|conn| conn.input == Input::Resting) {
                watch(conn, self.place, engine);
            }
        }
    }

    fn post_letters(&mut self, now: Now, post: &mut Post<M::Peer>) {
        for (to, message) in self.out.peers.drain(..) {
            self.scratch.letters[usize::from(to.0)].peers.push(message);
        }
        for conn in std::mem::take(&mut self.out.closes) {
            if conn.shard != self.id {
                self.scratch.letters[usize::from(conn.shard.0)]
                    .closes
                    .push(conn);
            } else if let Some(conn) = self.conns.find(conn)
                && conn.finish(now)
            {
                let slot = conn.link.conn.slot;
                self.wake(slot);
            }
        }
        for to in (0..self.shards).map(ShardId) {
            let draft = &mut self.scratch.letters[usize::from(to.0)];
            let frames = self.out.take_remote(to);
            if frames.is_none() && draft.peers.is_empty() && draft.closes.is_empty() {
                continue;
            }
            post.send(Mail::Letter(Letter {
                from: self.id,
                to,
                frames,
                peers: std::mem::take(&mut draft.peers),
                closes: std::mem::take(&mut draft.closes),
            }));
        }
    }

    fn start_orders(&mut self, now: Now, engine: &mut Engine) {
        for (id, order) in self.out.orders.drain(..) {
            self.disk.order(id, order, engine);
        }
        while self.disk.log_orders() < engine.options.writes_in_flight
            && let Some((id, order)) = self.machine.poll_write(now)
        {
            self.disk.log_order(id, order, engine);
        }
        for dial in std::mem::take(&mut self.out.dials) {
            self.dial(dial, now, engine);
        }
    }

    fn dial(&mut self, dial: Dial, now: Now, engine: &mut Engine) {
        let token = dial.token;
        let timeout = engine.options.dial_timeout;
        if let Err(reason) = engine.helpers.dial(self.place, dial, timeout) {
            self.step(now, Event::DialFailed { token, reason });
        }
    }

    /// Takes away connections that have ended and that the ring no longer watches; of the others
    /// the ring will tell.
    fn bury(&mut self, now: Now) {
        for slot in std::mem::take(&mut self.dead) {
            let Some(conn) = self.conns.at(slot) else {
                continue;
            };
            if conn.is_watched() {
                continue;
            }
            let id = conn.link.conn;
            let input = conn.input;
            self.conns.release(id);
            match input {
                Input::Ready => self.ready.retain(|ready| *ready != slot),
                Input::Paused => self.paused.retain(|paused| *paused != slot),
                Input::Watched | Input::Resting | Input::Throttled => {}
            }
            self.stats.closed += 1;
            self.out.forget(id);
            self.step(now, Event::Closed { conn: id });
        }
    }
}

/// Connections.
impl<M: Machine> Shard<M> {
    /// Starts to serve a connection, or closes it if there are too many.
    pub fn open(
        &mut self,
        now: Now,
        stream: TcpStream,
        dialed: Option<u64>,
        options: &Options,
    ) -> Result<(), String> {
        let (peer, local) = prepare_socket(&stream).map_err(|e| e.to_string())?;
        // Clients must not take the places of connections that the machine itself needs.
        let extra = dialed.map_or(0, |_| DIALED_MAX);
        let limit = options.connections_max + extra;
        let Some(id) = self.conns.reserve(self.id, limit) else {
            self.stats.over_connections += 1;
            self.trouble
                .note(|| format!("{peer} was refused: {limit} connections are open"));
            return Err(format!("the limit of {limit} connections is reached"));
        };
        let link = Link {
            conn: id,
            peer,
            local,
        };
        self.conns.fill(Conn::new(link, stream, now));
        self.ready.push_back(id.slot);
        self.stats.opened += 1;
        self.out.open(id);
        self.step(now, Event::Opened { link, dialed });
        Ok(())
    }

    /// Puts a connection among those to be read, unless the ring will do so.
    fn wake(&mut self, slot: u32) {
        let Some(conn) = self.conns.at(slot) else {
            return;
        };
        match conn.input {
            Input::Watched | Input::Ready => return,
            Input::Paused => self.paused.retain(|paused| *paused != slot),
            Input::Resting | Input::Throttled => {}
        }
        conn.input = Input::Ready;
        self.ready.push_back(slot);
    }

    /// Lets paused connections look again.
    pub fn resume(&mut self) {
        for slot in std::mem::take(&mut self.paused) {
            if let Some(conn) = self.conns.at(slot) {
                conn.input = Input::Ready;
                self.ready.push_back(slot);
            }
        }
    }

    fn hang_up(&mut self, slot: u32) {
        if let Some(conn) = self.conns.at(slot)
            && conn.hang_up()
        {
            self.dead.push(slot);
        }
    }

    pub fn hang_up_all(&mut self) {
        for slot in 0..self.conns.slots.len() as u32 {
            self.hang_up(slot);
        }
    }

    /// The ring no longer watches for input.
    pub fn handle_input(&mut self, slot: u32) {
        let conn = self.conns.at(slot).expect("a watched connection stays");
        assert_eq!(conn.input, Input::Watched);
        conn.input = Input::Ready;
        match conn.phase() {
            Phase::Dead => self.dead.push(slot),
            _ => self.ready.push_back(slot),
        }
    }

    /// The ring no longer watches for room.
    pub fn handle_room(&mut self, now: Now, slot: u32, engine: &mut Engine) {
        let conn = self.conns.at(slot).expect("a watched connection stays");
        conn.output_watched = false;
        if conn.phase() == Phase::Dead {
            return self.dead.push(slot);
        }
        match conn.send_on(now) {
            Ok(sent) => self.stats.bytes_out += sent as u64,
            Err(_) => return self.hang_up(slot),
        }
        if conn.backlog() > 0 {
            conn.output_watched = true;
            let token = pack(Kind::Output, self.place, slot);
            engine.ring.watch(conn.descriptor(), libc::POLLOUT, token);
        }
        if conn.input == Input::Throttled && conn.backlog() <= engine.options.output_pause_bytes {
            self.wake(slot);
        }
    }

    /// Reads connections until about [`TURN_BYTES`] came in or the time is up. The turn ends with
    /// [`settle`](Self::settle).
    pub fn read_some(&mut self, engine: &mut Engine, congested: bool) {
        let mut bytes = 0;
        let mut now = engine.clock.now();
        while bytes < TURN_BYTES
            && let Some(slot) = self.ready.pop_front()
        {
            bytes += self.read_one(slot, now, engine, congested);
            if engine.round_is_over() {
                return;
            }
            now = engine.clock.now();
        }
    }

    /// One receive, or the rest of one. Gives its bytes.
    fn read_one(&mut self, slot: u32, now: Now, engine: &mut Engine, congested: bool) -> usize {
        let stopped = congested || !self.admits;
        let Some(conn) = self.conns.at(slot) else {
            return 0;
        };
        if conn.phase() == Phase::Open {
            if stopped {
                conn.input = Input::Paused;
                self.paused.push(slot);
                return 0;
            }
            if conn.backlog() > engine.options.output_pause_bytes {
                conn.input = Input::Throttled;
                return 0;
            }
        }
        let (received, count) = match conn.unread.take() {
            Some(chunk) => (Received::Chunk(chunk), 0),
            None => {
                let spare = self.buffers.pop();
                let new = || BytesMut::zeroed(self.receive_bytes);
                let mut buffer = Some(spare.unwrap_or_else(new));
                let received = conn.receive(now, &mut buffer);
                self.buffers.extend(buffer);
                received
            }
        };
        self.stats.bytes_in += count as u64;
        match received {
            Received::Chunk(chunk) => {
                let link = conn.link;
                let dropped = conn.phase() != Phase::Open;
                self.ready.push_back(slot);
                if dropped {
                    self.give_back(chunk.bytes);
                } else {
                    let drained = chunk.filled < chunk.bytes.len();
                    self.hand_over(link, chunk, now, engine);
                    if drained {
                        self.leave(slot, count, engine);
                    }
                }
            }
            Received::More => self.ready.push_back(slot),
            Received::Empty => watch(conn, self.place, engine),
            Received::End => {
                // Not in the list of the ready any more.
                conn.input = Input::Throttled;
                self.hang_up(slot);
            }
        }
        count
    }

    /// A receive that did not fill its buffer has emptied the socket: to ask it again would be in
    /// vain, the ring tells when more comes. And if that was little, and its answer waits for the
    /// disk, then more could not be written before that either: the connection rests, which saves
    /// waking up for each request.
    fn leave(&mut self, slot: u32, count: usize, engine: &mut Engine) {
        let taken = |conn: &&mut Conn| {
            conn.phase() == Phase::Open && conn.input == Input::Ready && conn.unread.is_none()
        };
        let Some(conn) = self.conns.at(slot).filter(taken) else {
            return;
        };
        if self.ready.pop_back_if(|last| *last == slot).is_none() {
            return;
        }
        let interval_ns = engine.options.read_interval.as_nanos() as u64;
        if count >= REST_BYTES && interval_ns == 0 {
            return watch(conn, self.place, engine);
        }
        conn.input = Input::Resting;
        let (orders, until_ns) = match interval_ns {
            0 => (self.disk.log_orders_ended() + REST_ORDERS, 0),
            // All rests end at once, so that one wake-up takes up what all have sent.
            _ => (0, (engine.round_start_ns() / interval_ns + 1) * interval_ns),
        };
        self.resting.push_back(Rest {
            slot,
            orders,
            until_ns,
        });
    }

    /// Hands whole frames to the machine and keeps the rest, or all that follows if the round is
    /// over.
    fn hand_over(&mut self, link: Link, mut chunk: Chunk, now: Now, engine: &mut Engine) {
        let slot = link.conn.slot;
        let Some(conn) = self.conns.at(slot) else {
            return;
        };
        if !conn.known {
            match sniff(&chunk.bytes[chunk.used..chunk.filled]) {
                Some(Protocol::Remoting) => conn.known = true,
                Some(other) => return self.refuse(slot, &refusal(other)),
                None => {
                    let large = LARGE_BYTES.min(self.receive_bytes);
                    return conn.keep(now, &chunk.bytes[..chunk.filled], None, false, large);
                }
            }
        }
        let start = chunk.used;
        let mut handed = 0;
        let outcome = loop {
            let len = match frame_len(&chunk.bytes[chunk.used..chunk.filled]) {
                Ok(Some(len)) if len <= chunk.filled - chunk.used => len,
                Ok(len) => break Ok(len),
                Err(error) => break Err(error),
            };
            let frame = FrameIn::new(&chunk.bytes, chunk.used, chunk.used + len);
            self.step_frame(now, &link, frame);
            chunk.used += len;
            handed += 1;
            if handed % FRAMES_PER_LOOK == 0 && engine.round_is_over() {
                if let Some(conn) = self.conns.at(slot) {
                    conn.unread = Some(chunk);
                    self.read_next(slot);
                }
                return;
            }
        };
        let Some(conn) = self.conns.at(slot) else {
            return;
        };
        match outcome {
            Ok(len) => {
                let rest = &chunk.bytes[chunk.used..chunk.filled];
                let large = LARGE_BYTES.min(self.receive_bytes);
                conn.keep(now, rest, len, chunk.used > start, large);
            }
            Err(error) => self.broken(slot, &error),
        }
        self.give_back(chunk.bytes);
    }

    /// The connection that was just put last is read first: so of those that are read no more than
    /// one has a receive that is handed over in part, and its memory.
    fn read_next(&mut self, slot: u32) {
        let last = self.ready.pop_back();
        assert_eq!(last, Some(slot), "it was put last when it was read");
        self.ready.push_front(slot);
    }

    /// A frame's step. A machine that ends the connection over it could not read its header.
    fn step_frame(&mut self, now: Now, link: &Link, frame: FrameIn<'_>) {
        self.step(now, Event::Frame { link, frame });
        self.stats.frames += 1;
        if self.out.closes.last() == Some(&link.conn) {
            self.stats.broken += 1;
            self.trouble
                .note(|| format!("{} sent an unreadable header", link.peer));
        }
    }

    /// Takes a chunk's memory back unless a frame in it was shared.
    fn give_back(&mut self, chunk: Bytes) {
        if self.buffers.len() < SPARE_BUFFERS
            && let Ok(buffer) = chunk.try_into_mut()
            && buffer.len() == self.receive_bytes
        {
            self.buffers.push(buffer);
        }
    }

    /// Answers a peer of another protocol and closes.
    fn refuse(&mut self, slot: u32, answer: &[u8]) {
        let Some(conn) = self.conns.at(slot) else {
            return;
        };
        let link = conn.link;
        self.stats.foreign += 1;
        self.trouble
            .note(|| format!("{} does not speak RocketMQ remoting", link.peer));
        if answer.is_empty() {
            return self.hang_up(slot);
        }
        self.out
            .write(link.conn, |out| out.extend_from_slice(answer));
        self.out.closes.push(link.conn);
    }

    fn broken(&mut self, slot: u32, error: &FrameError) {
        let Some(conn) = self.conns.at(slot) else {
            return;
        };
        let peer = conn.link.peer;
        self.stats.broken += 1;
        self.trouble
            .note(|| format!("{peer} sent a broken frame: {error}"));
        self.hang_up(slot);
    }

    /// Ends connections that have outstayed a limit. Called about once a second.
    pub fn sweep(&mut self, now: Now, options: &Options) {
        let over = |ms: u64, limit: std::time::Duration| u128::from(ms) > limit.as_millis();
        for slot in 0..self.conns.slots.len() as u32 {
            let Some(conn) = self.conns.at(slot) else {
                continue;
            };
            let peer = conn.link.peer;
            let limit_ms = if conn.backlog() > 0 {
                FINISH_MS
            } else {
                LINGER_MS
            };
            if conn.finishing_ms(now) <= limit_ms {
                if conn.phase() != Phase::Open {
                    continue;
                }
                if over(conn.partial_ms(now), options.half_frame) {
                    self.stats.cut += 1;
                    self.trouble.note(|| format!("{peer} sent half a frame"));
                } else if over(conn.idle_ms(now), options.idle) {
                    self.stats.idle += 1;
                } else {
                    continue;
                }
            }
            self.hang_up(slot);
        }
        self.log_trouble();
    }

    /// What the machine has to say to people.
    fn log_notes(&mut self) {
        for note in self.out.notes.drain(..) {
            match note {
                Note::Info(text) => tracing::info!("{text}"),
                Note::Warn(text) => tracing::warn!("{text}"),
            }
        }
    }

    /// One line for all refused and broken peers since the last one.
    fn log_trouble(&mut self) {
        let Trouble { count, example } = std::mem::take(&mut self.trouble);
        if count > 0 {
            tracing::warn!(
                shard = self.id.0,
                count,
                example,
                "connections were refused or ended"
            );
        }
    }
}

/// What comes back.
impl<M: Machine> Shard<M> {
    /// A letter from another shard.
    pub fn deliver(&mut self, now: Now, letter: Letter<M::Peer>) {
        if let Some(frames) = letter.frames {
            self.out.accept_remote(frames);
        }
        for message in letter.peers {
            let from = letter.from;
            self.step(now, Event::Peer { from, message });
        }
        self.out.closes.extend(letter.closes);
    }

    pub fn handle_disk(&mut self, now: Now, slot: u32, done: ring::Done, engine: &mut Engine) {
        if let Some((id, result)) = self.disk.handle_done(slot, done, engine) {
            self.answer_order(now, id, result);
        }
        while let Some((id, error)) = self.disk.refused.pop() {
            self.answer_order(now, id, Err(error));
        }
    }

    pub fn handle_found(&mut self, now: Now, what: What, engine: &mut Engine) {
        match what {
            What::Work { id, result, moved } => {
                self.disk.work_ended(&moved, engine);
                self.answer_order(now, id, result.map(Done::Work));
            }
            What::Dialed { token, result } => {
                let opened =
                    result.and_then(|stream| self.open(now, stream, Some(token), &engine.options));
                if let Err(reason) = opened {
                    self.step(now, Event::DialFailed { token, reason });
                }
            }
        }
    }

    fn answer_order(&mut self, now: Now, id: OrderId, result: Result<Done, DiskError>) {
        if let Err(error) = &result {
            self.stats.disk_errors += 1;
            tracing::error!(shard = self.id.0, %error, "a disk order failed");
        }
        self.step(now, Event::Disk { id, result });
    }
}

/// Has the ring tell when there is something to read.
fn watch(conn: &mut Conn, place: Place, engine: &mut Engine) {
    conn.input = Input::Watched;
    let token = pack(Kind::Input, place, conn.link.conn.slot);
    engine.ring.watch(conn.descriptor(), libc::POLLIN, token);
}

/// Sets the options an accepted socket lacks; gives the peer's and our address. IPv4 in IPv6
/// clothes is undressed, for a message's host fields take four bytes.
fn prepare_socket(stream: &TcpStream) -> std::io::Result<(SocketAddr, SocketAddr)> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    Ok((plain(stream.peer_addr()?), plain(stream.local_addr()?)))
}

/// The connections of a shard by slot.
#[derive(Default)]
struct Conns {
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    conn: Option<Box<Conn>>,
}

impl Conns {
    /// An id for a new connection; `None` if there are `max` already.
    fn reserve(&mut self, shard: ShardId, max: usize) -> Option<ConnId> {
        if self.open >= max {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("slots are fewer than connections_max")
        });
        self.open += 1;
        let tenant = &mut self.slots[slot as usize];
        tenant.generation = tenant.generation.wrapping_add(1);
        Some(ConnId {
            shard,
            slot,
            generation: tenant.generation,
        })
    }

    fn fill(&mut self, conn: Conn) {
        let slot = conn.link.conn.slot as usize;
        self.slots[slot].conn = Some(Box::new(conn));
    }

    fn release(&mut self, id: ConnId) {
        let gone = self.slots[id.slot as usize].conn.take();
        assert!(
            gone.is_some_and(|conn| conn.link.conn == id),
            "a connection closes once"
        );
        self.free.push(id.slot);
        self.open -= 1;
    }

    fn at(&mut self, slot: u32) -> Option<&mut Conn> {
        self.slots.get_mut(slot as usize)?.conn.as_deref_mut()
    }

    fn find(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.at(id.slot).filter(|conn| conn.link.conn == id)
    }
}
