//! One run: a broker of some shards, a name server, clients, a network and disks, all in virtual
//! time and all from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use orbitmq::base::disk::{DiskError, Done, Order, Until};
use orbitmq::base::{ConnId, Mono, Now, OrderId, ShardId};
use orbitmq::broker::{Broker, BrokerOptions, Peer};
use orbitmq::machine::{Event, FrameIn, Link, Machine};
use orbitmq::namesrv::{NameServer, NameServerOptions};
use orbitmq::remoting::frame::frame_len;
use orbitmq::store::Flush;

use crate::asker::{ASKERS, Answerer, Asker, QUESTIONS};
use crate::clerk::Clerk;
use crate::client::{Client, Counts, Ctx, Role, Traffic};
use crate::disk::{Disk, SyncTicket, error};
use crate::lite::{Liter, is_parent};
use crate::locker::Locker;
use crate::model::{Model, Sent};
use crate::mover::{MOVERS, Mover};
use crate::node::{Letter, Node, Turn, Wire};
use crate::options;
use crate::popper::Popper;
use crate::ranker::{Ranker, is_urgent};
use crate::rng::Rng;
use crate::sifter::{self, Sieve};
use crate::splitter::{SPLITTERS, Splitter};

/// Longest a sync takes, µs: part of what a power cut may take under `ASYNC_FLUSH`.
pub const SYNC_US_MAX: u64 = 40_000;
/// Ticks of one shard in one millisecond beyond which it spins.
const TICKS_MAX: u32 = 200;

/// Kinds of faults, counted over all seeds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    ProcessKill,
    PowerCut,
    CleanStop,
    TornWrite,
    LostSectors,
    OutOfOrder,
    FailedWrite,
    FailedSync,
    FailedRead,
    DiskFull,
    CrashInWork,
    CrashInRecovery,
    Disconnect,
    FailedDial,
    ColdRead,
    RollOver,
    Expiry,
    /// Recovery puts back what the page cache had.
    PutBack,
}

pub const FAULTS: [Fault; 18] = [
    Fault::ProcessKill,
    Fault::PowerCut,
    Fault::CleanStop,
    Fault::TornWrite,
    Fault::LostSectors,
    Fault::OutOfOrder,
    Fault::FailedWrite,
    Fault::FailedSync,
    Fault::FailedRead,
    Fault::DiskFull,
    Fault::CrashInWork,
    Fault::CrashInRecovery,
    Fault::Disconnect,
    Fault::FailedDial,
    Fault::ColdRead,
    Fault::RollOver,
    Fault::Expiry,
    Fault::PutBack,
];

/// What the environment does to the broker.
#[derive(Clone, Copy, Debug)]
enum Act {
    Kill,
    PowerCut,
    Stop,
    FailWrite,
    FailSync,
    FailRead,
    Full(bool),
    CrashInWork,
    Disconnect,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Client(usize),
    Broker(ConnId),
    Names(ConnId),
}

struct Conn {
    ends: [End; 2],
    /// Bytes under way to each end, and when the last of them arrives.
    queues: [VecDeque<Vec<u8>>; 2],
    arrives: [u64; 2],
    /// Received but not yet a whole frame; by end.
    partial: [Vec<u8>; 2],
}

enum Ev {
    Wake(usize),
    Deliver(Wire, usize),
    Close(Wire),
    TickBroker(u64, usize, u64),
    TickNames,
    WriteDone(u64, usize, u64),
    SyncDone(u64, usize, OrderId, Option<SyncTicket>),
    ReadDone(u64, usize, OrderId, String, u64, usize, bool),
    WorkRun(u64, usize, OrderId, orbitmq::base::disk::Work),
    WorkDone(u64, usize, OrderId, Result<Vec<u8>, DiskError>),
    NamesDisk(OrderId, Order),
    Mail(u64, usize, usize, Letter<Peer>),
    Dialled(u64, u64),
    Act(Act),
    Restart,
    Finish,
}

struct Queued {
    at: u64,
    seq: u64,
    ev: Ev,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// A write that the device has and has not answered.
struct InFlight {
    shard: usize,
    id: OrderId,
    file: String,
    at: u64,
    data: Bytes,
    until: Until,
    /// The broker was told that this is written whatever becomes of it.
    fails: bool,
}

/// How fast things are in this run, µs.
struct Pace {
    net: (u64, u64),
    write: (u64, u64),
    sync: (u64, u64),
}

pub struct World {
    now: u64,
    seq: u64,
    events: BinaryHeap<Reverse<Queued>>,
    rng: Rng,
    pace: Pace,
    options: Arc<BrokerOptions>,
    shards: u16,
    /// Counts starts of the broker; events of an earlier life mean nothing.
    life: u64,
    brokers: Vec<Node<Broker>>,
    names: Node<NameServer>,
    names_disk: Disk,
    disks: Vec<Rc<Disk>>,
    in_flight: BTreeMap<u64, InFlight>,
    conns: BTreeMap<Wire, Conn>,
    wires: u64,
    mail: BTreeMap<(usize, usize), u64>,
    clients: Vec<Client>,
    traffic: Traffic,
    /// Crashes that follow each other closely, still to come.
    blows: u32,
    model: Model,
    opaque: i32,
    uids: u64,
    failed: Vec<Option<u64>>,
    /// Segments that the brokers of this life have removed.
    reclaimed: Vec<u64>,
    /// While nothing is served: when syncs ended.
    synced_until: Option<u64>,
    /// A fault that may fail a log was put in.
    excuse: bool,
    read_faults: u64,
    fail_next: [bool; 3],
    lossy: bool,
    stopping: bool,
    up: bool,
    ending: bool,
    finale: u32,
    /// Messages that had been read when the end was last looked for, and how often.
    read: (u64, u32),
    ticks: (u64, u32),
    names_armed: u64,
    /// Deliveries that wait until a shard admits again.
    paused: BTreeMap<usize, Vec<(Wire, usize)>>,
    pub counts: Counts,
    pub faults: BTreeMap<Fault, u64>,
    pub hash: u64,
    pub steps: u64,
    pub trace: bool,
}

macro_rules! trace {
    ($world:expr, $($text:tt)*) => {
        if $world.trace {
            println!("{:>10.3} {}", $world.now as f64 / 1000.0, format_args!($($text)*));
        }
    };
}

impl Pace {
    fn of(rng: &mut Rng, slow: bool) -> Pace {
        Pace {
            net: *rng.pick(&[
                (100, 20_000),
                (50, 2_000),
                (50, 2_000),
                (50, 2_000),
                (50, 2_000),
            ]),
            write: if slow { (500, 30_000) } else { (100, 3_000) },
            sync: if slow { (500, 30_000) } else { (200, 6_000) },
        }
    }
}

/// Clients that come after the plain ones, many of them in some seeds only.
fn cast(traffic: &Traffic, rng: &mut Rng, clients: &mut Vec<Client>) {
    for n in 0..traffic.sifters {
        clients.push(Client::consumer(&format!("sql{n}"), false, rng).sifting(rng));
    }
    clients.push(Client::consumer("audit", false, rng));
    clients.push(Client::new(Role::Auditor, rng));
    if traffic.seeks {
        clients.push(Client::new(Role::Seeker, rng));
    }
    if traffic.counts {
        clients.push(Client::new(Role::Clerk(Clerk::default()), rng));
    }
    for _ in 0..traffic.poppers {
        let popper = Popper::new("pop".to_owned());
        clients.push(Client::new(Role::Popper(popper), rng));
    }
    if traffic.poppers > 0 && traffic.sifters > 0 {
        let mut popper = Popper::new("popsql".to_owned());
        popper.sieve = Some(Sieve::new(rng));
        clients.push(Client::new(Role::Popper(popper), rng));
    }
    for n in 0..if traffic.lites { 2 } else { 0 } {
        let liter = Liter::new(format!("lite-{n}"));
        clients.push(Client::new(Role::Liter(liter), rng));
    }
    for n in 0..traffic.lockers {
        let locker = Locker::new(format!("lock-{n}"));
        clients.push(Client::new(Role::Locker(locker), rng));
    }
    cast_features(traffic, rng, clients);
}

fn cast_features(traffic: &Traffic, rng: &mut Rng, clients: &mut Vec<Client>) {
    for n in 0..if traffic.moves { MOVERS } else { 0 } {
        let mover = Mover::new(n, n == 0 || rng.percent(50));
        clients.push(Client::new(Role::Mover(mover), rng));
    }
    if traffic.questions {
        let askers = (0..ASKERS).map(|n| Role::Asker(Asker::new(n)));
        let roles = askers.chain([Role::Answerer(Answerer::default())]);
        clients.extend(roles.map(|role| Client::new(role, rng)));
    }
    if traffic.ranks {
        clients.push(Client::new(Role::Ranker(Ranker::default()), rng));
    }
    if traffic.wishes > 0 {
        let roles = (0..SPLITTERS).map(|n| Role::Splitter(Splitter::new(n)));
        clients.extend(roles.map(|role| Client::new(role, rng)));
    }
}

impl World {
    pub fn new(plan: options::Plan, mut rng: Rng, trace: bool) -> World {
        let options::Plan {
            broker,
            traffic,
            shards,
            violent,
        } = plan;
        let slow = violent || rng.percent(25);
        let pace = Pace::of(&mut rng, slow);
        let disks = (0..shards)
            .map(|_| Rc::new(Disk::new(rng.fork())))
            .collect();
        let names_disk = Disk::new(rng.fork());
        let now = Now {
            mono: Mono(0),
            wall_ms: options::WALL_MS,
        };
        let names = NameServer::new(NameServerOptions::default(), &names_disk, now)
            .expect("an empty disk is a good beginning");
        let mut world = World {
            now: 0,
            seq: 0,
            events: BinaryHeap::new(),
            rng,
            pace,
            options: Arc::new(broker),
            shards,
            life: 0,
            brokers: Vec::new(),
            names: Node::new(names, ShardId(0), 1, 1),
            names_disk,
            disks,
            in_flight: BTreeMap::new(),
            conns: BTreeMap::new(),
            wires: 0,
            mail: BTreeMap::new(),
            clients: Vec::new(),
            traffic,
            blows: if violent { 12 } else { 0 },
            model: Model::default(),
            opaque: 0,
            uids: 0,
            failed: vec![None; usize::from(shards)],
            reclaimed: vec![0; usize::from(shards)],
            synced_until: None,
            excuse: false,
            read_faults: 0,
            fail_next: [false; 3],
            lossy: false,
            stopping: false,
            up: false,
            ending: false,
            finale: 0,
            read: (0, 0),
            ticks: (0, 0),
            names_armed: 0,
            paused: BTreeMap::new(),
            counts: Counts::default(),
            faults: BTreeMap::new(),
            hash: 0,
            steps: 0,
            trace,
        };
        let kept_ms = world.options.store.retention_ms;
        world.model.kept_us = (kept_ms < 1 << 32).then(|| kept_ms * 1000);
        trace!(world, "{:?}, {}", world.options.store, world.shards);
        world.populate();
        world
    }

    fn populate(&mut self) {
        let rng = &mut self.rng;
        let mut clients = vec![Client::new(Role::Admin { made: 0 }, rng)];
        for _ in 0..rng.range(1, 4) {
            clients.push(Client::new(Role::Producer { retry: Vec::new() }, rng));
        }
        for n in 0..rng.range(1, 3) {
            clients.push(Client::consumer(&format!("g{n}"), false, rng));
        }
        cast(&self.traffic, rng, &mut clients);
        let last = rng.range(1_500_000, 4_000_000);
        self.plan_faults(last);
        for client in clients {
            self.clients.push(client);
            let at = self.rng.below(20_000);
            self.schedule(at, Ev::Wake(self.clients.len() - 1));
        }
        self.schedule(0, Ev::Restart);
        self.schedule(last, Ev::Finish);
    }

    fn plan_faults(&mut self, last: u64) {
        let rng = &mut self.rng;
        let mut acts = Vec::new();
        for _ in 0..rng.range(1, 4) {
            acts.push(*rng.pick(&[
                Act::Kill,
                Act::PowerCut,
                Act::PowerCut,
                Act::Stop,
                Act::CrashInWork,
            ]));
        }
        for (percent, act) in [
            (12, Act::FailWrite),
            (12, Act::FailSync),
            (15, Act::FailRead),
            (14, Act::Full(true)),
            (50, Act::Disconnect),
            (30, Act::Disconnect),
        ] {
            if rng.percent(percent) {
                acts.push(act);
            }
        }
        let plan: Vec<_> = acts
            .into_iter()
            .map(|act| (rng.range(20_000, last), act))
            .collect();
        for (at, act) in plan {
            self.schedule(at, Ev::Act(act));
        }
    }

    fn now(&self) -> Now {
        let ms = self.now / 1000;
        Now {
            mono: Mono(ms),
            wall_ms: options::WALL_MS + ms as i64,
        }
    }

    fn schedule(&mut self, at: u64, ev: Ev) {
        self.seq += 1;
        let queued = Queued {
            at: at.max(self.now),
            seq: self.seq,
            ev,
        };
        self.events.push(Reverse(queued));
    }

    fn after(&mut self, (low, high): (u64, u64), ev: Ev) {
        // Mostly quick, sometimes as slow as it gets.
        let high = if self.rng.percent(90) {
            low + (high - low) / 5
        } else {
            high
        };
        let at = self.now + self.rng.range(low, high + 1);
        self.schedule(at, ev);
    }

    fn note(&mut self, what: u64) {
        self.hash =
            (self.hash.rotate_left(5) ^ what ^ self.now).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    fn hit(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Runs to the end; the error says what was wrong.
    pub fn run(&mut self) -> Result<(), String> {
        while let Some(Reverse(queued)) = self.events.pop() {
            self.now = queued.at;
            self.steps += 1;
            if self.steps > 400_000 {
                return Err("the run does not come to an end".into());
            }
            if self.finale == FINALE_DONE {
                return Ok(());
            }
            self.handle(queued.ev)?;
        }
        Err("nothing is left to happen".into())
    }

    fn handle(&mut self, ev: Ev) -> Result<(), String> {
        match ev {
            Ev::Wake(client) => self.wake(client),
            Ev::Deliver(wire, end) => self.deliver(wire, end),
            Ev::Close(wire) => self.close(wire),
            Ev::TickBroker(life, shard, at) if life == self.life => self.tick(shard, at),
            Ev::TickNames => {
                self.names.step(self.now(), Event::Tick);
                self.settle_names()
            }
            Ev::WriteDone(life, shard, number) if life == self.life => self.written(shard, number),
            Ev::SyncDone(life, shard, id, ticket) if life == self.life => {
                self.synced(shard, id, ticket)
            }
            Ev::ReadDone(life, shard, id, file, at, len, fails) if life == self.life => {
                let result = match fails {
                    true => Err(error(&file, "reading", "input/output error", false)),
                    false => self.disks[shard]
                        .read(&file, at, len)
                        .map(|b| Done::Read(b.into())),
                };
                self.disk_event(shard, id, result)
            }
            Ev::WorkRun(life, shard, id, work) if life == self.life => {
                let result = work(&*self.disks[shard]);
                if self.disks[shard].put_out() {
                    self.hit(Fault::CrashInWork);
                    let cut = self.rng.percent(60);
                    return self.crash(cut);
                }
                self.after((50, 2_000), Ev::WorkDone(life, shard, id, result));
                Ok(())
            }
            Ev::WorkDone(life, shard, id, result) if life == self.life => {
                self.disk_event(shard, id, result.map(Done::Work))
            }
            Ev::NamesDisk(id, order) => {
                let Order::Work(work) = order else {
                    return Err("a name server orders work only".into());
                };
                let result = work(&self.names_disk).map(Done::Work);
                self.names.step(self.now(), Event::Disk { id, result });
                self.settle_names()
            }
            Ev::Mail(life, from, to, letter) if life == self.life => self.mail(from, to, letter),
            Ev::Dialled(life, token) if life == self.life => self.dialled(token),
            Ev::Act(act) => self.act(act),
            Ev::Restart => self.restart(),
            Ev::Finish => self.finish(),
            _ => Ok(()),
        }
    }

    // --- the broker ---

    fn tick(&mut self, shard: usize, at: u64) -> Result<(), String> {
        let now = self.now();
        let node = &mut self.brokers[shard];
        if node.armed != Some(at) {
            return Ok(());
        }
        node.armed = None;
        if node.machine.deadline().is_some_and(|at| at <= now.mono) {
            let ms = self.now / 1000;
            self.ticks = if self.ticks.0 == ms {
                (ms, self.ticks.1 + 1)
            } else {
                (ms, 0)
            };
            if self.ticks.1 > TICKS_MAX {
                return Err(format!("shard {shard} spins on its deadline"));
            }
            trace!(self, "shard {shard}: tick");
            let node = &mut self.brokers[shard];
            node.step(now, Event::Tick);
        }
        self.settle(shard)
    }

    fn settle(&mut self, shard: usize) -> Result<(), String> {
        let now = self.now();
        let turn = self.brokers[shard].settle(now);
        let reclaimed = self.brokers[shard].machine.store().retention().reclaimed;
        if reclaimed.segments > self.reclaimed[shard] {
            self.hit(Fault::Expiry);
        }
        self.reclaimed[shard] = reclaimed.segments;
        let node = &mut self.brokers[shard];
        let error = node.machine.store().log().failed().cloned();
        if let Some(error) = error.filter(|_| !node.failed) {
            node.failed = true;
            self.failed[shard] = Some(self.now);
            trace!(self, "shard {shard}: the log failed: {error}");
            if !self.excuse {
                return Err(format!("the log failed for no reason: {error}"));
            }
        }
        if self.brokers[shard].machine.admits() {
            for (wire, end) in self.paused.remove(&shard).unwrap_or_default() {
                self.schedule(self.now, Ev::Deliver(wire, end));
            }
        }
        let Turn {
            sent,
            letters,
            closes,
            dials,
            orders,
            tick,
        } = turn;
        self.transmit(sent, closes);
        for (to, letter) in letters {
            let due = self.now + self.rng.range(1, 300);
            let lane = (shard, usize::from(to.0));
            let at = self.mail.get(&lane).copied().unwrap_or(0).max(due);
            self.mail.insert(lane, at);
            self.schedule(at, Ev::Mail(self.life, lane.0, lane.1, letter));
        }
        for dial in dials {
            self.after((100, 5_000), Ev::Dialled(self.life, dial.token));
        }
        for (id, order) in orders {
            self.order(shard, id, order)?;
        }
        if let Some(at) = tick {
            self.schedule(
                at.saturating_mul(1000),
                Ev::TickBroker(self.life, shard, at),
            );
        }
        Ok(())
    }

    /// Bytes and ends of connections on their way.
    fn transmit(&mut self, sent: Vec<(Wire, Vec<u8>)>, closes: Vec<Wire>) {
        for (wire, bytes) in sent {
            self.note(crc32fast::hash(&bytes).into());
            let Some(conn) = self.conns.get(&wire) else {
                continue;
            };
            let to = usize::from(matches!(conn.ends[1], End::Names(_)));
            self.push(wire, to, bytes);
        }
        for wire in closes {
            let delay = self.rng.range(100, 3_000);
            let at = self
                .conns
                .get(&wire)
                .map_or(0, |conn| conn.arrives[0])
                .max(self.now)
                + delay;
            self.schedule(at, Ev::Close(wire));
        }
    }

    /// Puts bytes on their way to an end.
    fn push(&mut self, wire: Wire, end: usize, bytes: Vec<u8>) {
        let (low, high) = self.pace.net;
        let high = if self.rng.percent(90) {
            low + (high - low) / 5
        } else {
            high
        };
        let due = self.now + self.rng.range(low, high + 1);
        let Some(conn) = self.conns.get_mut(&wire) else {
            return;
        };
        conn.queues[end].push_back(bytes);
        conn.arrives[end] = conn.arrives[end].max(due);
        let at = conn.arrives[end];
        self.schedule(at, Ev::Deliver(wire, end));
    }

    fn order(&mut self, shard: usize, id: OrderId, order: Order) -> Result<(), String> {
        let life = self.life;
        trace!(self, "shard {shard}: order {} {order:?}", id.0);
        match order {
            Order::Write {
                file,
                at,
                data,
                until,
            } => self.order_write((shard, id), (file.to_string(), at), data, until)?,
            Order::Sync { file } => {
                let ticket = self.disks[shard]
                    .begin_sync(&file)
                    .map_err(|e| e.to_string())?;
                let ticket = (!std::mem::take(&mut self.fail_next[1])).then_some(ticket);
                let pace = self.pace.sync;
                self.after(pace, Ev::SyncDone(life, shard, id, ticket));
            }
            Order::Read { file, at, len } => {
                self.hit(Fault::ColdRead);
                let fails = std::mem::take(&mut self.fail_next[2]);
                if fails {
                    self.read_faults += 1;
                    self.hit(Fault::FailedRead);
                }
                let pace = self.pace_write();
                let read = Ev::ReadDone(life, shard, id, file.to_string(), at, len, fails);
                self.after(pace, read);
            }
            Order::Work(work) => self.after((200, 20_000), Ev::WorkRun(life, shard, id, work)),
        }
        Ok(())
    }

    fn order_write(
        &mut self,
        (shard, id): (usize, OrderId),
        (file, at): (String, u64),
        data: Bytes,
        until: Until,
    ) -> Result<(), String> {
        let life = self.life;
        let clash = self.in_flight.values().any(|other| {
            other.shard == shard
                && *other.file == *file
                && other.at < at + data.len() as u64
                && at < other.at + other.data.len() as u64
        });
        if clash {
            return Err(format!(
                "two writes in flight share a block of {file} at {at}"
            ));
        }
        if at == 0 && !file.ends_with("/00000000000000000000") {
            self.hit(Fault::RollOver);
        }
        let mut fails = std::mem::take(&mut self.fail_next[0]);
        let durable = until == Until::Durable;
        if durable && std::mem::take(&mut self.fail_next[1]) {
            self.hit(Fault::FailedSync);
            fails = true;
        }
        self.wires += 1;
        let number = self.wires;
        self.in_flight.insert(
            number,
            InFlight {
                shard,
                id,
                file,
                at,
                data,
                until,
                fails,
            },
        );
        let sync = if durable { self.pace.sync } else { (0, 0) };
        let write = self.pace_write();
        let pace = (write.0 + sync.0, write.1 + sync.1);
        self.after(pace, Ev::WriteDone(life, shard, number));
        Ok(())
    }

    fn pace_write(&self) -> (u64, u64) {
        self.pace.write
    }

    fn written(&mut self, shard: usize, number: u64) -> Result<(), String> {
        let write = self
            .in_flight
            .remove(&number)
            .expect("a write is answered once");
        let earlier = self
            .in_flight
            .iter()
            .any(|(n, w)| *n < number && w.shard == shard);
        if earlier {
            self.hit(Fault::OutOfOrder);
        }
        let disk = self.disks[shard].clone();
        let result = if write.fails {
            self.excuse = true;
            self.hit(Fault::FailedWrite);
            disk.tear(&write.file, write.at, &write.data, 50);
            Err(error(&write.file, "writing", "input/output error", false))
        } else if write.until == Until::Durable {
            disk.write_durably(&write.file, write.at, &write.data)
                .map(|()| Done::Written)
        } else {
            disk.write(&write.file, write.at, &write.data)
                .map(|()| Done::Written)
        };
        self.brokers[shard].flushing -= 1;
        self.disk_event(shard, write.id, result)
    }

    fn synced(
        &mut self,
        shard: usize,
        id: OrderId,
        ticket: Option<SyncTicket>,
    ) -> Result<(), String> {
        let result = match ticket {
            Some(ticket) => {
                self.disks[shard].end_sync(ticket);
                Ok(Done::Synced)
            }
            None => {
                self.excuse = true;
                self.hit(Fault::FailedSync);
                Err(error("log", "syncing", "input/output error", false))
            }
        };
        self.brokers[shard].flushing -= 1;
        self.disk_event(shard, id, result)
    }

    fn disk_event(
        &mut self,
        shard: usize,
        id: OrderId,
        result: Result<Done, DiskError>,
    ) -> Result<(), String> {
        self.note(id.0 ^ (shard as u64) << 32);
        trace!(
            self,
            "shard {shard}: order {} {}",
            id.0,
            if result.is_ok() { "done" } else { "failed" }
        );
        let now = self.now();
        self.brokers[shard].step(now, Event::Disk { id, result });
        self.settle(shard)
    }

    fn mail(&mut self, from: usize, to: usize, letter: Letter<Peer>) -> Result<(), String> {
        let now = self.now();
        let node = &mut self.brokers[to];
        if let Some(frames) = letter.frames {
            node.accept(frames);
        }
        for message in letter.peers {
            let from = ShardId(from as u16);
            node.step(now, Event::Peer { from, message });
        }
        node.close_later(letter.closes);
        self.settle(to)
    }

    // --- connections ---

    fn link(&self, conn: ConnId, wire: Wire) -> Link {
        let port = 20_000 + (wire % 20_000) as u16;
        let peer = SocketAddr::from(([127, 0, 0, 1], port));
        Link {
            conn,
            peer,
            local: options::BROKER.parse().expect("an address"),
        }
    }

    fn connect(&mut self, client: usize) -> Result<(), String> {
        let shard = self.rng.below(u64::from(self.shards)) as usize;
        self.wires += 1;
        let wire = self.wires;
        let id = self.brokers[shard].open(wire);
        self.insert(wire, [End::Client(client), End::Broker(id)]);
        self.clients[client].wire = Some(wire);
        trace!(self, "client {client} connects to shard {shard}");
        let link = self.link(id, wire);
        let now = self.now();
        self.brokers[shard].step(now, Event::Opened { link, dialed: None });
        self.settle(shard)
    }

    fn insert(&mut self, wire: Wire, ends: [End; 2]) {
        let conn = Conn {
            ends,
            queues: Default::default(),
            arrives: [self.now; 2],
            partial: Default::default(),
        };
        self.conns.insert(wire, conn);
    }

    fn dialled(&mut self, token: u64) -> Result<(), String> {
        let now = self.now();
        if self.rng.percent(10) {
            self.hit(Fault::FailedDial);
            let reason = "connection refused".to_owned();
            self.brokers[0].step(now, Event::DialFailed { token, reason });
            return self.settle(0);
        }
        // Two connections in one: each end has its own slot.
        self.wires += 1;
        let wire = self.wires;
        let (near, far) = (self.brokers[0].open(wire), self.names.open(wire));
        self.insert(wire, [End::Broker(near), End::Names(far)]);
        let (near, far) = (self.link(near, wire), self.link(far, wire));
        self.names.step(
            now,
            Event::Opened {
                link: far,
                dialed: None,
            },
        );
        self.settle_names()?;
        self.brokers[0].step(
            now,
            Event::Opened {
                link: near,
                dialed: Some(token),
            },
        );
        self.settle(0)
    }

    fn settle_names(&mut self) -> Result<(), String> {
        let turn: Turn<Infallible> = self.names.settle(self.now());
        for (wire, bytes) in turn.sent {
            self.push(wire, 0, bytes);
        }
        for wire in turn.closes {
            self.schedule(self.now + 1_000, Ev::Close(wire));
        }
        for (id, order) in turn.orders {
            self.after((200, 5_000), Ev::NamesDisk(id, order));
        }
        self.names.armed = None;
        let next = self.names.machine.deadline().map_or(u64::MAX, |at| at.0);
        if next != self.names_armed && next != u64::MAX {
            self.names_armed = next;
            self.schedule(next * 1000, Ev::TickNames);
        }
        Ok(())
    }

    fn deliver(&mut self, wire: Wire, end: usize) -> Result<(), String> {
        let Some(to) = self.conns.get(&wire).map(|conn| conn.ends[end]) else {
            return Ok(());
        };
        if let End::Broker(id) = to
            && !self.brokers[usize::from(id.shard.0)].machine.admits()
        {
            self.paused
                .entry(usize::from(id.shard.0))
                .or_default()
                .push((wire, end));
            return Ok(());
        }
        let conn = self.conns.get_mut(&wire);
        let Some(bytes) = conn.and_then(|conn| conn.queues[end].pop_front()) else {
            return Ok(());
        };
        self.note(crc32fast::hash(&bytes).into());
        if let End::Client(client) = to {
            return self.client(client, Some(bytes));
        }
        if let Some(conn) = self.conns.get_mut(&wire) {
            conn.partial[end].extend_from_slice(&bytes);
        }
        loop {
            let Some(conn) = self.conns.get_mut(&wire) else {
                return Ok(());
            };
            let len = frame_len(&conn.partial[end]).map_err(|error| error.to_string())?;
            let Some(len) = len.filter(|len| *len <= conn.partial[end].len()) else {
                return Ok(());
            };
            let chunk: Bytes = conn.partial[end].drain(..len).collect::<Vec<u8>>().into();
            let frame = FrameIn::new(&chunk, 0, len);
            match to {
                End::Broker(id) => {
                    let link = self.link(id, wire);
                    let shard = usize::from(id.shard.0);
                    let now = self.now();
                    self.brokers[shard].step(now, Event::Frame { link: &link, frame });
                    self.settle(shard)?;
                }
                End::Names(id) => {
                    let link = self.link(id, wire);
                    self.names
                        .step(self.now(), Event::Frame { link: &link, frame });
                    self.settle_names()?;
                }
                End::Client(_) => unreachable!("clients cut frames themselves"),
            }
        }
    }

    fn close(&mut self, wire: Wire) -> Result<(), String> {
        let Some(conn) = self.conns.remove(&wire) else {
            return Ok(());
        };
        self.note(wire);
        for end in conn.ends {
            match end {
                End::Client(client) => self.clients[client].disconnected(&mut self.model),
                End::Broker(id) => {
                    let shard = usize::from(id.shard.0);
                    self.brokers[shard].forget(id);
                    let now = self.now();
                    self.brokers[shard].step(now, Event::Closed { conn: id });
                    self.settle(shard)?;
                }
                End::Names(id) => {
                    self.names.forget(id);
                    self.names.step(self.now(), Event::Closed { conn: id });
                    self.settle_names()?;
                }
            }
        }
        Ok(())
    }

    // --- clients ---

    fn wake(&mut self, client: usize) -> Result<(), String> {
        if !self.up || self.stopping {
            let at = self.now + self.rng.range(5_000, 40_000);
            self.schedule(at, Ev::Wake(client));
            return Ok(());
        }
        if self.clients[client].wire.is_none() {
            self.connect(client)?;
        }
        self.client(client, None)
    }

    /// Lets a client act, or take what has come.
    fn client(&mut self, client: usize, bytes: Option<Vec<u8>>) -> Result<(), String> {
        let mut frames = Vec::new();
        let mut ctx = Ctx {
            now: self.now,
            rng: &mut self.rng,
            model: &mut self.model,
            frames: &mut frames,
            opaque: &mut self.opaque,
            uids: &mut self.uids,
            failed: &self.failed,
            excused: self.excuse,
            read_faults: &mut self.read_faults,
            lossy: self.lossy,
            life: self.life,
            config: &self.traffic,
            counts: &mut self.counts,
        };
        let actor = &mut self.clients[client];
        let quiet = self.ending && !actor.is_fresh() && bytes.is_none();
        let again = match &bytes {
            _ if quiet => Ok(Some(u64::MAX)),
            Some(bytes) => actor.receive(&mut ctx, bytes).map(|()| None),
            None => actor.wake(&mut ctx).map(Some),
        };
        let again = again.map_err(|error| format!("client {client}: {error}"))?;
        let wire = actor.wire;
        if let Some(wire) = wire {
            for frame in frames {
                trace!(self, "client {client} sends {}", options::describe(&frame));
                self.push(wire, 1, frame);
            }
        }
        if let Some(bytes) = bytes {
            trace!(self, "client {client} gets {}", options::describe(&bytes));
        }
        if let Some(again) = again.filter(|again| *again != u64::MAX) {
            self.schedule(self.now + again, Ev::Wake(client));
        }
        Ok(())
    }

    // --- faults ---

    fn act(&mut self, act: Act) -> Result<(), String> {
        if matches!(act, Act::Full(false)) {
            // Whatever else goes on, somebody makes room.
            self.disks.iter().for_each(|disk| disk.set_full(false));
            return Ok(());
        }
        if self.ending || !self.up {
            return Ok(());
        }
        trace!(self, "fault {act:?}");
        self.note(0xFA);
        match act {
            Act::Kill => return self.crash(false),
            Act::PowerCut => return self.crash(true),
            Act::Stop => return self.stop(),
            Act::FailWrite => self.fail_next[0] = true,
            Act::FailSync => self.fail_next[1] = true,
            Act::FailRead => self.fail_next[2] = true,
            Act::Full(full) => {
                self.disks.iter().for_each(|disk| disk.set_full(full));
                if full {
                    self.excuse = true;
                    self.schedule(self.now + 400_000, Ev::Act(Act::Full(false)));
                }
            }
            Act::CrashInWork => {
                let shard = self.rng.below(u64::from(self.shards)) as usize;
                let operations = self.rng.below(8) as u32;
                self.disks[shard].light_fuse(operations);
            }
            Act::Disconnect => {
                let wires: Vec<Wire> = self.conns.keys().copied().collect();
                if !wires.is_empty() {
                    self.hit(Fault::Disconnect);
                    let wire = *self.rng.pick(&wires);
                    return self.close(wire);
                }
            }
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), String> {
        if self.stopping {
            return Ok(());
        }
        self.stopping = true;
        for shard in 0..self.brokers.len() {
            let now = self.now();
            self.brokers[shard].step(now, Event::Stop);
            self.settle(shard)?;
        }
        // Looked at again and again; production looks after every turn.
        self.schedule(self.now + 1_000, Ev::Restart);
        Ok(())
    }

    /// The process ends here; with a power cut the disks forget as well.
    fn crash(&mut self, power: bool) -> Result<(), String> {
        self.hit(if power {
            Fault::PowerCut
        } else {
            Fault::ProcessKill
        });
        trace!(self, "{}", if power { "power cut" } else { "process kill" });
        self.hang_up()?;
        let keep = *self.rng.pick(&[0, 50, 100]);
        for write in std::mem::take(&mut self.in_flight).into_values() {
            self.hit(Fault::TornWrite);
            self.disks[write.shard].tear(&write.file, write.at, &write.data, keep);
        }
        if power {
            self.power_cut();
        }
        self.gone();
        Ok(())
    }

    fn power_cut(&mut self) {
        let lost = |world: &World| {
            world
                .disks
                .iter()
                .map(|disk| disk.lost_sectors.get())
                .sum::<u64>()
        };
        let before = lost(self);
        self.disks.iter().for_each(|disk| disk.power_cut());
        if lost(self) > before {
            self.hit(Fault::LostSectors);
        }
        if self.options.store.flush == Flush::Async {
            self.lossy = true;
            let bound = self.options.store.flush_interval_ms * 1000 + 2 * SYNC_US_MAX + 20_000;
            let synced = self.synced_until.unwrap_or(self.syncing_until());
            self.model.forget_since(synced.saturating_sub(bound));
            self.clients.iter_mut().for_each(Client::forget);
        }
    }

    /// All connections end; what was on its way to clients may still arrive.
    fn hang_up(&mut self) -> Result<(), String> {
        let arrives = self.rng.percent(50);
        for wire in self.conns.keys().copied().collect::<Vec<_>>() {
            let conn = self.conns.remove(&wire).expect("listed above");
            match conn.ends {
                [End::Client(client), _] => {
                    for bytes in conn.queues.into_iter().next().into_iter().flatten() {
                        if arrives {
                            self.client(client, Some(bytes))?;
                        }
                    }
                    self.clients[client].disconnected(&mut self.model);
                }
                [_, End::Names(id)] => {
                    self.names.forget(id);
                    self.names.step(self.now(), Event::Closed { conn: id });
                    self.settle_names()?;
                }
                _ => unreachable!("connections have these ends"),
            }
        }
        Ok(())
    }

    /// The process is gone: only the disks stay.
    /// Syncs go on until now; a disk that failed has synced nothing since.
    fn syncing_until(&self) -> u64 {
        let failed = self.failed.iter().flatten().copied().min();
        failed.unwrap_or(self.now)
    }

    fn gone(&mut self) {
        // Nothing is synced before something is served again, however often that fails.
        let until = self.syncing_until();
        self.synced_until.get_or_insert(until);
        self.brokers.clear();
        self.mail.clear();
        self.paused.clear();
        self.life += 1;
        self.up = false;
        self.stopping = false;
        self.fail_next = [false; 3];
        self.failed.iter_mut().for_each(|failed| *failed = None);
        self.excuse = false;
        for disk in &self.disks {
            disk.put_out();
            if disk.full_hits.replace(0) > 0 {
                *self.faults.entry(Fault::DiskFull).or_default() += 1;
            }
            disk.set_full(false);
        }
        let at = self.now + self.rng.range(2_000, 40_000);
        self.schedule(at, Ev::Restart);
    }

    fn restart(&mut self) -> Result<(), String> {
        if self.stopping {
            let drained = self.brokers.iter().all(|node| node.machine.drained());
            if !drained {
                self.schedule(self.now + 1_000, Ev::Restart);
                return Ok(());
            }
            trace!(self, "stopped");
            self.hit(Fault::CleanStop);
            self.hang_up()?;
            // A log that failed ends with writes under way.
            for write in std::mem::take(&mut self.in_flight).into_values() {
                self.disks[write.shard].tear(&write.file, write.at, &write.data, 50);
            }
            self.gone();
            return Ok(());
        }
        if self.up {
            return Ok(());
        }
        let plug = self.life > 0 && !self.ending && self.rng.percent(12);
        if plug {
            let shard = self.rng.below(u64::from(self.shards)) as usize;
            let operations = self.rng.below(30) as u32;
            self.disks[shard].light_fuse(operations);
        }
        let mut brokers = Vec::new();
        for shard in 0..self.shards {
            let disk = self.disks[usize::from(shard)].clone();
            let opened = Broker::open(&*disk, self.options.clone(), ShardId(shard), self.now());
            if disk.put_out() {
                trace!(self, "shard {shard}: the plug is pulled while it recovers");
                self.hit(Fault::CrashInRecovery);
                drop(opened);
                if self.rng.percent(70) {
                    self.power_cut_unserved();
                }
                self.gone();
                return Ok(());
            }
            let (machine, report) =
                opened.map_err(|error| format!("shard {shard} does not start: {error}"))?;
            trace!(self, "shard {shard}: {report:?}");
            self.note(report.end.0 ^ report.messages);
            if report.put_back > 0 {
                self.hit(Fault::PutBack);
            }
            let flushing = self.options.store.writes_in_flight_max + 1;
            brokers.push(Node::new(machine, ShardId(shard), self.shards, flushing));
        }
        self.brokers = brokers;
        self.up = true;
        self.synced_until = None;
        if self.blows > 0 && !self.ending {
            self.blows -= 1;
            let act = *self.rng.pick(&[Act::Kill, Act::Kill, Act::PowerCut]);
            let at = self.now + self.rng.range(5_000, 150_000);
            self.schedule(at, Ev::Act(act));
        }
        for shard in 0..self.brokers.len() {
            let now = self.now();
            self.brokers[shard].step(now, Event::Start);
            self.settle(shard)?;
        }
        Ok(())
    }

    /// A power cut before anything was served again takes what was not durable before either; the
    /// model was told when the first one came, but a kill was harmless until now.
    fn power_cut_unserved(&mut self) {
        self.power_cut();
    }

    // --- the end ---

    /// Quiet now: everything acknowledged must be there for a consumer that comes new.
    fn finish(&mut self) -> Result<(), String> {
        match self.finale {
            0 => {
                self.ending = true;
                self.finale = 1;
                self.schedule(self.now + 1_500_000, Ev::Finish);
            }
            1 => {
                if !self.up || self.stopping {
                    self.schedule(self.now + 50_000, Ev::Finish);
                    return Ok(());
                }
                let failed = self.failed.iter().any(Option::is_some);
                self.finale = 2;
                match self.rng.below(if failed { 1 } else { 3 }) {
                    0 => self.crash(self.options.store.flush == Flush::Sync)?,
                    1 => self.stop()?,
                    _ => {}
                }
                self.schedule(self.now + 100_000, Ev::Finish);
            }
            2 => {
                if !self.up || self.stopping {
                    self.schedule(self.now + 50_000, Ev::Finish);
                    return Ok(());
                }
                self.finale = 3;
                for client in 0..self.clients.len() {
                    match &mut self.clients[client].role {
                        Role::Popper(popper) => popper.drains = true,
                        Role::Liter(liter) => liter.drains = true,
                        Role::Mover(mover) => mover.drains = true,
                        Role::Asker(asker) => asker.drains = true,
                        Role::Answerer(answerer) => answerer.drains = true,
                        Role::Ranker(ranker) => ranker.drains = true,
                        _ => continue,
                    }
                    self.schedule(self.now, Ev::Wake(client));
                }
                let mut rng = self.rng.fork();
                if self.traffic.sifters > 0 {
                    let fresh = Client::consumer("fresh-sql", true, &mut rng).sifting(&mut rng);
                    self.clients.push(fresh);
                    self.schedule(self.now, Ev::Wake(self.clients.len() - 1));
                }
                self.clients.push(Client::consumer("fresh", true, &mut rng));
                let fresh = self.clients.len() - 1;
                self.schedule(self.now, Ev::Wake(fresh));
                self.schedule(self.now + 1_500_000, Ev::Finish);
            }
            rounds => {
                let missing = self.missing();
                let mut fresh = self.clients.iter().filter(|client| client.is_fresh());
                if missing.is_none() && fresh.all(|fresh| fresh.is_through(&self.model)) {
                    trace!(self, "done");
                    self.note(self.model.known_count() as u64);
                    self.finale = FINALE_DONE;
                } else if rounds > 40 && !self.reads_on() {
                    let missing = missing.unwrap_or_else(|| "not all queues were read".into());
                    return Err(format!("at the end: {missing}"));
                } else {
                    self.finale += 1;
                    self.schedule(self.now + 200_000, Ev::Finish);
                }
            }
        }
        Ok(())
    }

    /// Whether the last rounds have brought somebody something, within reason.
    fn reads_on(&mut self) -> bool {
        let ranked = self.model.ranks.seen_count();
        let seen = self.model.popped.len() + self.model.lites.seen.len() + ranked;
        let read = self.counts.pulled + seen as u64;
        let (before, rounds) = self.read;
        let goes_on = read > before && rounds < 1_000;
        self.read = (read, rounds + 1);
        goes_on
    }

    fn missing(&self) -> Option<String> {
        let live = |topic: &str| {
            self.model
                .topics
                .get(topic)
                .is_some_and(|t| t.generation == 1)
                && self.model.generation(topic).is_some()
        };
        let gone = |sent: &Sent| {
            let at = sent.acked.unwrap_or(self.now);
            self.model.may_be_gone(at, self.now)
        };
        let sent = self.model.sent.iter().filter(|(_, sent)| !gone(sent));
        let sent: Vec<_> = sent.collect();
        for (uid, sent) in sent.iter().copied() {
            let there = self.model.delivered.contains_key(uid);
            if sent.acked.is_some() && live(&sent.topic) && !there {
                return Some(format!(
                    "u{uid} of {} was acknowledged and never came",
                    sent.topic
                ));
            }
        }
        for (uid, sent) in sent.iter().copied() {
            let due = sent.acked.is_some() && live(&sent.topic);
            let seen = |name: &&String| {
                let place = ((*name).clone(), *uid);
                !live(name) || self.model.in_lights.contains_key(&place)
            };
            if due && let Some(name) = sent.lights.iter().find(|name| !seen(name)) {
                return Some(format!("u{uid} was acknowledged and never came to {name}"));
            }
        }
        let failed = self.failed.iter().any(Option::is_some);
        let goes_on = self.clients.iter().find_map(|client| match &client.role {
            Role::Mover(mover) => mover.missing(),
            Role::Asker(asker) if live(QUESTIONS) && !failed => asker.missing(),
            _ => None,
        });
        if goes_on.is_some() {
            return goes_on;
        }
        let pops = self.traffic.poppers > 0 && !failed;
        for (uid, sent) in sent.iter().copied().filter(|_| pops) {
            let popped = self.model.popped.has_seen("pop", *uid);
            if sent.acked.is_some() && live(&sent.topic) && !popped {
                return Some(format!("u{uid} of {} was never popped", sent.topic));
            }
        }
        for (uid, sent) in sent.iter().copied().filter(|_| !failed) {
            let due = sent.acked.is_some() && is_parent(&sent.topic) && live(&sent.topic);
            if due && !self.model.lites.seen.contains(uid) {
                return Some(format!("u{uid} never came to a client of its lite topic"));
            }
        }
        for (uid, sent) in self.model.sent.iter().filter(|_| !failed) {
            let due = sent.acked.is_some() && is_urgent(&sent.topic) && live(&sent.topic);
            if due && !self.model.ranks.has_seen(*uid) {
                return Some(format!("u{uid} never came to the client of urgent ones"));
            }
        }
        let lost = sifter::missing(&self.clients, &self.model, failed, live);
        if lost.is_some() {
            return lost;
        }
        self.not_come_back(live)
    }

    /// A message that was sent back and never came again.
    fn not_come_back(&self, live: impl Fn(&str) -> bool) -> Option<String> {
        for (group, uid, at) in &self.model.returned {
            if self.model.may_be_gone(*at, self.now) {
                continue;
            }
            let key = (group.clone(), *uid);
            let known = live(&format!("%RETRY%{group}"));
            if known && !self.model.came_back.contains_key(&key) {
                return Some(format!(
                    "u{uid} was sent back by {group} and never came again"
                ));
            }
        }
        None
    }
}

const FINALE_DONE: u32 = 1000;
