//! A machine and what surrounds it on its executor: turns, connections, limits.
//!
//! Nothing here waits. The loops that call in here are in `team` (disk, mail, deadlines) and
//! `conn` (sockets).

use super::Stats;
use super::bell::{Bell, Queue, Waiters};
use super::conn::{Conn, Phase, Sending, close_on_exec, serve, with_socket, write_loop};
use super::disk::Disk;
use super::mesh::{Letter, Mail, Post};
use super::team::Around;
use crate::base::{ConnId, Mono, Now, Order, OrderId, ShardId};
use crate::machine::{Dial, Event, FrameIn, Link, Machine, Outbox};
use crate::remoting::frame::FrameError;
use bytes::{Bytes, BytesMut};
use glommio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

/// Receive buffers kept for the next receive; more are needed only while turns overlap.
const SPARE_BUFFERS: usize = 4;
/// Connections that a machine may dial when clients have taken all of theirs.
const DIALED_MAX: usize = 64;
/// How long a peer may take to end a connection that we have finished.
const LINGER_MS: u64 = 2_000;
/// How long a peer may take to read the last output before that.
const FINISH_MS: u64 = 10_000;

pub struct Shard<M: Machine> {
    pub id: ShardId,
    pub around: Around,
    pub disk: Disk,
    pub stats: RefCell<Stats>,
    pub flushers: Waiters,
    pub orders: Queue<(OrderId, Order)>,
    pub dials: Queue<Dial>,
    pub deadline_moved: Bell,
    /// Rung when the last connection is gone.
    pub emptied: Bell,
    core: RefCell<Core<M>>,
    conns: RefCell<Conns>,
    post: Rc<Post<M::Peer>>,
    shards: u16,
    scratch: RefCell<Scratch<M::Peer>>,
    buffers: RefCell<Vec<BytesMut>>,
    /// What the deadline loop sleeps until.
    armed: Cell<Option<Mono>>,
    admits: Cell<bool>,
    paused: RefCell<Vec<Rc<Conn>>>,
    drained: Cell<bool>,
    trouble: RefCell<Trouble>,
}

struct Core<M: Machine> {
    machine: M,
    out: Outbox<M::Peer>,
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

/// What a shard is made of.
pub struct Setting<P: Send + 'static> {
    pub id: ShardId,
    pub shards: u16,
    pub around: Around,
    pub disk: Disk,
    pub post: Rc<Post<P>>,
}

impl<M: Machine + 'static> Shard<M> {
    pub fn new(machine: M, setting: Setting<M::Peer>) -> Self {
        let letter = |to| Letter {
            from: setting.id,
            to: ShardId(to),
            frames: None,
            peers: Vec::new(),
            closes: Vec::new(),
        };
        Shard {
            id: setting.id,
            around: setting.around,
            disk: setting.disk,
            stats: RefCell::default(),
            flushers: Waiters::default(),
            orders: Queue::default(),
            dials: Queue::default(),
            deadline_moved: Bell::default(),
            emptied: Bell::default(),
            core: RefCell::new(Core {
                machine,
                out: Outbox::new(setting.id, setting.shards),
            }),
            conns: RefCell::default(),
            post: setting.post,
            shards: setting.shards,
            scratch: RefCell::new(Scratch {
                touched: Vec::new(),
                sending: Sending::default(),
                letters: (0..setting.shards).map(letter).collect(),
            }),
            buffers: RefCell::default(),
            armed: Cell::new(None),
            admits: Cell::new(true),
            paused: RefCell::default(),
            drained: Cell::new(false),
            trouble: RefCell::default(),
        }
    }

    /// Starts to serve a connection, or closes it if there are too many.
    pub fn open(self: &Rc<Self>, stream: TcpStream, dialed: Option<u64>) -> Result<(), String> {
        let (peer, local) = prepare_socket(&stream).map_err(|e| e.to_string())?;
        // Clients must not take the places of connections that the machine itself needs.
        let extra = dialed.map_or(0, |_| DIALED_MAX);
        let limit = self.around.options.connections_max + extra;
        let Some(id) = self.conns.borrow_mut().reserve(self.id, limit) else {
            self.stats.borrow_mut().over_connections += 1;
            self.note_trouble(|| format!("{peer} was refused: {limit} connections are open"));
            return Err(format!("the limit of {limit} connections is reached"));
        };
        let now = self.now();
        let link = Link {
            conn: id,
            peer,
            local,
        };
        let conn = Rc::new(Conn::new(link, stream, now));
        self.conns.borrow_mut().fill(conn.clone());
        self.stats.borrow_mut().opened += 1;
        self.core.borrow_mut().out.open(id);
        self.step(now, Event::Opened { link, dialed });
        self.settle(now);
        glommio::spawn_local(serve(self.clone(), conn)).detach();
        Ok(())
    }

    /// Starts the task that sends what the socket would not take at once.
    fn start_writer(self: &Rc<Self>, conn: &Rc<Conn>) {
        glommio::spawn_local(write_loop(self.clone(), conn.clone())).detach();
    }
}

impl<M: Machine + 'static> Shard<M> {
    pub fn now(&self) -> Now {
        self.around.clock.now()
    }

    /// One event. The turn ends with [`settle`](Self::settle).
    pub fn step(&self, now: Now, event: Event<'_, M::Peer>) {
        let core = &mut *self.core.borrow_mut();
        core.machine.handle(now, event, &mut core.out);
    }
}

impl<M: Machine + 'static> Shard<M> {
    /// A frame's step. A machine that ends the connection over it could not read its header.
    pub fn step_frame(&self, now: Now, link: &Link, frame: FrameIn<'_>) {
        self.step(now, Event::Frame { link, frame });
        let mut stats = self.stats.borrow_mut();
        stats.frames += 1;
        if self.core.borrow().out.closes.last() == Some(&link.conn) {
            stats.broken += 1;
            self.note_trouble(|| format!("{} sent an unreadable header", link.peer));
        }
    }

    /// The end of a turn: sends what was written, starts what was ordered.
    pub fn settle(self: &Rc<Self>, now: Now) {
        self.stats.borrow_mut().turns += 1;
        let stuck = self.carry_out(now);
        for conn in stuck {
            self.start_writer(&conn);
        }
        self.flushers.wake_one();
        self.around.pace.worked();
    }

    /// Gives the connections that need a writer now.
    fn carry_out(&self, now: Now) -> Vec<Rc<Conn>> {
        let core = &mut *self.core.borrow_mut();
        let scratch = &mut *self.scratch.borrow_mut();
        let stuck = self.send_outputs(now, &mut core.out, scratch);
        self.post_letters(now, &mut core.out, scratch);
        for order in core.out.orders.drain(..) {
            self.orders.push(order);
        }
        for dial in core.out.dials.drain(..) {
            self.dials.push(dial);
        }
        let admits = core.machine.admits();
        if !self.admits.replace(admits) && admits {
            self.resume();
        }
        if let Some(deadline) = core.machine.deadline()
            && self.armed.get().is_none_or(|armed| deadline < armed)
        {
            self.armed.set(Some(deadline));
            self.deadline_moved.ring();
        }
        if !self.drained.get() && core.machine.drained() {
            self.drained.set(true);
            self.around.drain.ring();
        }
        stuck
    }

    fn send_outputs(
        &self,
        now: Now,
        out: &mut Outbox<M::Peer>,
        scratch: &mut Scratch<M::Peer>,
    ) -> Vec<Rc<Conn>> {
        let mut stuck = Vec::new();
        let mut sent = 0;
        let conns = self.conns.borrow();
        out.drain_touched(|slot| scratch.touched.push(slot));
        for slot in scratch.touched.drain(..) {
            let Some(conn) = conns.at(slot) else { continue };
            let Some(output) = out.pending(conn.link.conn) else {
                continue;
            };
            sent += conn.send(output, &mut scratch.sending, now);
            if conn.wants_writer() {
                stuck.push(conn.clone());
            }
            let over = conn.backlog() > self.around.options.output_close_bytes;
            if over && conn.phase() != Phase::Dead {
                self.stats.borrow_mut().slow += 1;
                self.note_trouble(|| format!("{} reads too slowly", conn.link.peer));
                conn.hang_up();
            }
        }
        self.stats.borrow_mut().bytes_out += sent as u64;
        stuck
    }

    fn post_letters(&self, now: Now, out: &mut Outbox<M::Peer>, scratch: &mut Scratch<M::Peer>) {
        for (to, message) in out.peers.drain(..) {
            scratch.letters[usize::from(to.0)].peers.push(message);
        }
        for conn in out.closes.drain(..) {
            match scratch.letters.get_mut(usize::from(conn.shard.0)) {
                Some(letter) if conn.shard != self.id => letter.closes.push(conn),
                _ => self.finish(conn, now),
            }
        }
        for to in (0..self.shards).map(ShardId) {
            let draft = &mut scratch.letters[usize::from(to.0)];
            let frames = out.take_remote(to);
            if frames.is_none() && draft.peers.is_empty() && draft.closes.is_empty() {
                continue;
            }
            self.post.send(Mail::Letter(Letter {
                from: self.id,
                to,
                frames,
                peers: std::mem::take(&mut draft.peers),
                closes: std::mem::take(&mut draft.closes),
            }));
        }
    }

    fn finish(&self, conn: ConnId, now: Now) {
        if let Some(conn) = self.conns.borrow().find(conn) {
            conn.finish(now);
        }
    }

    /// A letter from another shard: one turn.
    pub fn deliver(self: &Rc<Self>, letter: Letter<M::Peer>) {
        let now = self.now();
        if let Some(frames) = letter.frames {
            self.core.borrow_mut().out.accept_remote(frames);
        }
        for message in letter.peers {
            self.step(
                now,
                Event::Peer {
                    from: letter.from,
                    message,
                },
            );
        }
        self.core.borrow_mut().out.closes.extend(letter.closes);
        self.settle(now);
    }

    /// Waits until the connection may be read: the machine admits, letters flow, and the peer
    /// takes what was sent to it. A connection that ends may always be read.
    pub async fn may_read(&self, conn: &Rc<Conn>) {
        while conn.phase() == Phase::Open {
            if !self.admits.get() || self.post.congested() {
                if !conn.paused.replace(true) {
                    self.paused.borrow_mut().push(conn.clone());
                }
            } else if conn.backlog() <= self.around.options.output_pause_bytes {
                return;
            }
            conn.reader.wait().await;
        }
    }

    /// Lets paused connections look again.
    pub fn resume(&self) {
        for conn in self.paused.borrow_mut().drain(..) {
            conn.paused.set(false);
            conn.reader.ring();
        }
    }

    /// Answers a peer of another protocol and closes.
    pub fn refuse(self: &Rc<Self>, conn: &Conn, answer: &[u8]) {
        self.stats.borrow_mut().foreign += 1;
        self.note_trouble(|| format!("{} does not speak RocketMQ remoting", conn.link.peer));
        if answer.is_empty() {
            return conn.hang_up();
        }
        let mut core = self.core.borrow_mut();
        core.out
            .write(conn.link.conn, |out| out.extend_from_slice(answer));
        core.out.closes.push(conn.link.conn);
        drop(core);
        self.settle(self.now());
    }

    pub fn broken(&self, conn: &Conn, error: &FrameError) {
        self.stats.borrow_mut().broken += 1;
        self.note_trouble(|| format!("{} sent a broken frame: {error}", conn.link.peer));
        conn.hang_up();
    }

    /// The last act of a connection's reader.
    pub fn closed(self: &Rc<Self>, conn: &Conn) {
        let id = conn.link.conn;
        let now = self.now();
        self.conns.borrow_mut().release(id);
        if conn.paused.get() {
            self.paused
                .borrow_mut()
                .retain(|paused| paused.link.conn != id);
        }
        if self.connections() == 0 {
            self.emptied.ring();
        }
        self.stats.borrow_mut().closed += 1;
        self.core.borrow_mut().out.forget(id);
        self.step(now, Event::Closed { conn: id });
        self.settle(now);
    }

    /// Ends connections that have outstayed a limit. Called about once a second.
    pub fn sweep(&self) {
        let now = self.now();
        let over = |ms: u64, limit: std::time::Duration| u128::from(ms) > limit.as_millis();
        for conn in self.conns.borrow().all() {
            let mut stats = self.stats.borrow_mut();
            let limit_ms = if conn.backlog() > 0 {
                FINISH_MS
            } else {
                LINGER_MS
            };
            if conn.finishing_ms(now) > limit_ms {
                conn.hang_up();
            } else if conn.phase() == Phase::Open
                && over(conn.partial_ms(now), self.around.options.half_frame)
            {
                stats.cut += 1;
                self.note_trouble(|| format!("{} sent half a frame", conn.link.peer));
                conn.hang_up();
            } else if conn.phase() == Phase::Open
                && over(conn.idle_ms(now), self.around.options.idle)
            {
                stats.idle += 1;
                conn.hang_up();
            }
        }
    }

    pub fn hang_up_all(&self) {
        for conn in self.conns.borrow().all() {
            conn.hang_up();
        }
    }

    pub fn connections(&self) -> usize {
        self.conns.borrow().open
    }

    pub fn ready(&self) -> bool {
        self.core.borrow().machine.ready()
    }

    pub fn drained(&self) -> bool {
        self.drained.get()
    }

    /// The next write, as soon as the machine has one.
    pub async fn next_write(&self) -> (OrderId, Order) {
        let write = poll_fn(|cx| {
            let write = self.core.borrow_mut().machine.poll_write(self.now());
            match write {
                Some(write) => Poll::Ready(write),
                None => {
                    self.flushers.line_up(cx);
                    Poll::Pending
                }
            }
        })
        .await;
        // There may be another one for another free slot.
        self.flushers.wake_one();
        write
    }

    /// Carries out an order and tells the machine.
    pub async fn perform(self: &Rc<Self>, id: OrderId, order: Order) {
        let result = self.disk.perform(order).await;
        if let Err(error) = &result {
            self.stats.borrow_mut().disk_errors += 1;
            tracing::error!(shard = self.id.0, %error, "a disk order failed");
        }
        let now = self.now();
        self.step(now, Event::Disk { id, result });
        self.settle(now);
    }

    /// When the machine wants its next tick; the deadline loop sleeps until then.
    pub fn arm(&self) -> Option<Mono> {
        let deadline = self.core.borrow().machine.deadline();
        self.armed.set(deadline);
        deadline
    }

    fn note_trouble(&self, example: impl FnOnce() -> String) {
        let mut trouble = self.trouble.borrow_mut();
        trouble.count += 1;
        if trouble.count == 1 {
            trouble.example = example();
        }
    }

    /// One line for all refused and broken peers since the last one.
    pub fn log_trouble(&self) {
        let Trouble { count, example } = std::mem::take(&mut *self.trouble.borrow_mut());
        if count > 0 {
            tracing::warn!(
                shard = self.id.0,
                count,
                example,
                "connections were refused or ended"
            );
        }
    }

    pub fn lend_buffer(&self) -> BytesMut {
        let spare = self.buffers.borrow_mut().pop();
        spare.unwrap_or_else(|| BytesMut::zeroed(self.around.options.receive_bytes))
    }

    pub fn return_buffer(&self, buffer: BytesMut) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < SPARE_BUFFERS && buffer.len() == self.around.options.receive_bytes {
            buffers.push(buffer);
        }
    }

    /// Takes a chunk's memory back unless a frame in it was shared.
    pub fn give_back(&self, chunk: Bytes) {
        if let Ok(buffer) = chunk.try_into_mut() {
            self.return_buffer(buffer);
        }
    }
}

/// Sets the options an accepted socket lacks; gives the peer's and our address. IPv4 in IPv6
/// clothes is undressed, for a message's host fields take four bytes.
fn prepare_socket(stream: &TcpStream) -> std::io::Result<(SocketAddr, SocketAddr)> {
    with_socket(stream, |socket| socket.set_tcp_nodelay(true))?;
    close_on_exec(stream)?;
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
    conn: Option<Rc<Conn>>,
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

    fn fill(&mut self, conn: Rc<Conn>) {
        let slot = conn.link.conn.slot as usize;
        self.slots[slot].conn = Some(conn);
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

    fn at(&self, slot: u32) -> Option<&Rc<Conn>> {
        self.slots.get(slot as usize)?.conn.as_ref()
    }

    fn find(&self, id: ConnId) -> Option<&Rc<Conn>> {
        self.at(id.slot).filter(|conn| conn.link.conn == id)
    }

    fn all(&self) -> impl Iterator<Item = &Rc<Conn>> {
        self.slots.iter().filter_map(|slot| slot.conn.as_ref())
    }
}
