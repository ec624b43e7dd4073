//! The shards of one broker without a network and without time of their own: what they order is
//! done at once, what they tell each other comes in an order made by chance.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use orbitmq::base::disk::{Dir, Done, Order};
use orbitmq::base::{ConnId, Mono, Now, OrderId, ShardId};
use orbitmq::broker::{Broker, BrokerOptions, Peer};
use orbitmq::machine::{Event, FrameIn, Link, Machine};
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::frame::{Codec, frame_len, split};
use orbitmq::store::Sabotage;

use crate::disk::{Disk, error};
use crate::node::{Letter, Node};
use crate::options::{self, BROKER, WALL_MS};
use crate::rng::Rng;

/// Turns after which something goes round for ever.
const TURNS_MAX: u32 = 100_000;

pub struct Set {
    options: Arc<BrokerOptions>,
    disks: Vec<Disk>,
    nodes: Vec<Node<Broker>>,
    links: Vec<Link>,
    now_ms: u64,
    rng: Rng,
    mail: BTreeMap<(usize, usize), VecDeque<Letter<Peer>>>,
    orders: VecDeque<(usize, OrderId, Order)>,
    opaque: i32,
    /// Frames that came, by the number of the request.
    answers: BTreeMap<i32, Vec<u8>>,
    /// The next order of this kind fails.
    pub fails: Option<fn(&Order) -> bool>,
    /// Orders that are carried out before the process dies.
    fuse: Option<u32>,
}

impl Set {
    /// Of a cold one most messages come from the disk.
    pub fn new(shards: u16, seed: u64, cold: bool) -> Set {
        Set::with(shards, seed, cold, |_| {})
    }

    /// One whose options are not all made by chance.
    pub fn with(shards: u16, seed: u64, cold: bool, edit: impl FnOnce(&mut BrokerOptions)) -> Set {
        let mut rng = Rng::new(seed);
        let mut plan = options::plan(&mut rng, Sabotage::None).broker;
        plan.control.shards = shards;
        plan.store.tail_bytes_max = if cold { 8 << 10 } else { 512 << 10 };
        plan.registry.name_servers.clear();
        edit(&mut plan);
        let disks = (0..shards).map(|_| Disk::new(rng.fork())).collect();
        let mut set = Set {
            options: Arc::new(plan),
            disks,
            nodes: Vec::new(),
            links: Vec::new(),
            now_ms: 0,
            rng,
            mail: BTreeMap::new(),
            orders: VecDeque::new(),
            opaque: 0,
            answers: BTreeMap::new(),
            fails: None,
            fuse: None,
        };
        set.start();
        set
    }

    pub fn now(&self) -> Now {
        Now {
            mono: Mono(self.now_ms),
            wall_ms: WALL_MS + self.now_ms as i64,
        }
    }

    /// The process dies and is started again; what was written is there.
    pub fn restart(&mut self) {
        self.mail.clear();
        self.orders.clear();
        self.start();
    }

    /// Time goes by, and the process dies after some orders of that time, if there are so many.
    /// Gives whether it did.
    pub fn pass_and_crash(&mut self, ms: u64, orders: u32) -> bool {
        self.fuse = Some(orders);
        self.pass_ms(ms);
        let died = self.fuse.take() == Some(0);
        if died {
            self.restart();
        }
        died
    }

    /// The segments of a shard's log that are on its disk.
    pub fn segments(&self, shard: usize) -> usize {
        self.disks[shard].list("log").expect("a folder").len()
    }

    /// How many segments a shard has removed since its start.
    pub fn removed(&self, shard: usize) -> u64 {
        let store = self.nodes[shard].machine.store();
        store.retention().reclaimed.segments
    }

    /// The disk of a shard has so many bytes in all.
    pub fn resize_disk(&mut self, shard: usize, bytes: u64) {
        self.disks[shard].size.set(bytes);
    }

    /// Every file of a shard's indexes is damaged.
    pub fn rot_indexes(&mut self, shard: usize) {
        let disk = &self.disks[shard];
        for file in disk.list("index").expect("a folder") {
            let path = format!("index/{}", file.name);
            disk.write(&path, 0, &[0xFF; 64]).expect("it is there");
        }
    }

    pub fn shards(&self) -> usize {
        self.disks.len()
    }

    fn start(&mut self) {
        let (now, shards) = (self.now(), self.disks.len() as u16);
        self.nodes.clear();
        self.links.clear();
        for (n, disk) in self.disks.iter().enumerate() {
            let shard = ShardId(n as u16);
            let (broker, _) = Broker::open(disk as &dyn Dir, self.options.clone(), shard, now)
                .expect("nothing is torn here");
            let mut node = Node::new(broker, shard, shards, 2);
            let conn = node.open(n as u64);
            node.step(now, Event::Start);
            self.links.push(link(conn));
            self.nodes.push(node);
        }
        self.run();
    }

    /// Time goes by, deadline for deadline.
    pub fn pass_ms(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        loop {
            self.run();
            let next = self.nodes.iter().filter_map(|node| node.machine.deadline());
            match next.map(|at| at.0).min() {
                Some(at) if at <= until => self.now_ms = self.now_ms.max(at),
                _ => break,
            }
        }
        self.now_ms = until;
        self.run();
    }

    /// Until nobody has anything to do now.
    fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            let now = self.now();
            for shard in 0..self.nodes.len() {
                self.settle(shard);
            }
            if self.fuse == Some(0) {
                return;
            }
            if let Some((shard, id, order)) = self.orders.pop_front() {
                self.fuse = self.fuse.map(|left| left - 1);
                let result = match self.fails.take_if(|fails| fails(&order)) {
                    Some(_) => Err(error("log", "working", "input/output error", false)),
                    None => Ok(carry_out(&self.disks[shard], &mut self.nodes[shard], order)),
                };
                self.nodes[shard].step(now, Event::Disk { id, result });
                continue;
            }
            let lanes: Vec<_> = self.mail.keys().copied().collect();
            if !lanes.is_empty() {
                let lane = *self.rng.pick(&lanes);
                self.read_mail(lane);
                continue;
            }
            let due =
                |node: &Node<Broker>| node.machine.deadline().is_some_and(|at| at <= now.mono);
            let Some(node) = self.nodes.iter_mut().find(|node| due(node)) else {
                return;
            };
            node.step(now, Event::Tick);
        }
        panic!("the shards do not come to rest");
    }

    fn read_mail(&mut self, lane: (usize, usize)) {
        let now = self.now();
        let letters = self.mail.get_mut(&lane).expect("one of the lanes");
        let letter = letters.pop_front().expect("lanes hold letters");
        if letters.is_empty() {
            self.mail.remove(&lane);
        }
        let node = &mut self.nodes[lane.1];
        if let Some(frames) = letter.frames {
            node.accept(frames);
        }
        for message in letter.peers {
            let from = ShardId(lane.0 as u16);
            node.step(now, Event::Peer { from, message });
        }
    }

    fn settle(&mut self, shard: usize) {
        let now = self.now();
        let turn = self.nodes[shard].settle(now);
        for (to, letter) in turn.letters {
            let lane = (shard, usize::from(to.0));
            self.mail.entry(lane).or_default().push_back(letter);
        }
        let orders = turn.orders.into_iter();
        self.orders
            .extend(orders.map(|(id, order)| (shard, id, order)));
        for (_, mut bytes) in turn.sent {
            while let Ok(Some(len)) = frame_len(&bytes) {
                let frame: Vec<u8> = bytes.drain(..len).collect();
                let command = Command::decode(split(&frame).expect("a frame")).expect("a command");
                assert!(command.is_response(), "code {}", command.code);
                let again = self.answers.insert(command.opaque, frame.clone());
                assert!(again.is_none(), "one answer for each request");
            }
        }
    }

    /// Sends a request by the connection of a shard; fields as `key=value&key=value`. Gives its
    /// number.
    pub fn send(&mut self, shard: usize, code: i32, fields: &str, body: &[u8]) -> i32 {
        self.opaque += 1;
        let mut frame = Vec::new();
        let mut w = FrameWriter::request(&mut frame, Codec::Json, self.opaque, code, false);
        for (key, value) in fields.split('&').filter_map(|field| field.split_once('=')) {
            w.field_str(key, value);
        }
        w.finish_with_body(body);
        let (now, chunk) = (self.now(), Bytes::from(frame));
        let frame = FrameIn::new(&chunk, 0, chunk.len());
        let link = &self.links[shard];
        self.nodes[shard].step(now, Event::Frame { link, frame });
        self.run();
        self.opaque
    }

    pub fn answer(&mut self, number: i32) -> Option<Vec<u8>> {
        self.answers.remove(&number)
    }

    pub fn ask(&mut self, shard: usize, code: i32, fields: &str, body: &[u8]) -> Vec<u8> {
        let number = self.send(shard, code, fields, body);
        self.answer(number).expect("an answer at once")
    }

    /// The same of a request that must succeed.
    pub fn succeed(&mut self, shard: usize, code: i32, fields: &str, body: &[u8]) -> Vec<u8> {
        let frame = self.ask(shard, code, fields, body);
        let command = decoded(&frame);
        assert_eq!(command.code, 0, "{code} {fields}: {:?}", command.remark);
        frame
    }
}

pub fn decoded(frame: &[u8]) -> Command<'_> {
    Command::decode(split(frame).expect("a frame")).expect("a command")
}

fn link(conn: ConnId) -> Link {
    Link {
        conn,
        peer: SocketAddr::from(([127, 0, 0, 1], 20_000 + conn.shard.0)),
        local: BROKER.parse().expect("an address"),
    }
}

fn carry_out(disk: &Disk, node: &mut Node<Broker>, order: Order) -> Done {
    let done = match order {
        Order::Write { file, at, data, .. } => {
            node.flushing -= 1;
            disk.write_durably(&file, at, &data).map(|()| Done::Written)
        }
        Order::Sync { file } => {
            node.flushing -= 1;
            disk.sync(&file).map(|()| Done::Synced)
        }
        Order::Read { file, at, len } => disk.read(&file, at, len).map(|b| Done::Read(b.into())),
        Order::Work(work) => work(disk).map(Done::Work),
    };
    done.expect("this disk does not fail")
}
