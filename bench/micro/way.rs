//! The way of a message through a shard: from its frame to its answer, without network and device.
//!
//! What remains beside this in a running broker is the kernel: receives, sends, writes, syncs.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use orbitmq::base::disk::{Done, Order};
use orbitmq::base::{ConnId, Mono, Now, ShardId};
use orbitmq::broker::control::options::ControlOptions;
use orbitmq::broker::registry::RegistryOptions;
use orbitmq::broker::{Broker, BrokerOptions, Peer};
use orbitmq::machine::{Event, FrameIn, Link, Machine, Outbox, Part};
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::frame::{Codec, frame_len, split};
use orbitmq::remoting::header::send::SendHeader;
use orbitmq::remoting::text::Text;
use orbitmq::shard::dir::FsDir;
use orbitmq::store::{Flush, Sabotage, StoreOptions};

use crate::count::allocations;

const MIB: usize = 1 << 20;
/// Sends that come in one piece, as they do when a client has many in flight.
const TURN_MESSAGES: usize = 256;
const COUNTED_TURNS: usize = 400;
const HOST: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10911));

struct World {
    broker: Broker,
    dir: FsDir,
    out: Outbox<Peer>,
    link: Link,
    began: Instant,
    taken: (Vec<u8>, VecDeque<Part>),
    answers: usize,
    /// Frames that come together, and where each ends.
    turns: Vec<(Vec<u8>, Vec<usize>)>,
    turn: usize,
    /// The frames of the next turn.
    chunk: Bytes,
}

fn options() -> BrokerOptions {
    let store = StoreOptions {
        shard: ShardId(0),
        store_id: 7,
        segment_bytes: 1 << 30,
        flush: Flush::Sync,
        flush_interval_ms: 500,
        batch_bytes_max: MIB,
        writes_in_flight_max: 2,
        pending_bytes_max: 64 * MIB,
        ahead_bytes: 2 * MIB,
        tail_bytes_max: 64 * MIB,
        window_bytes_max: 64 * MIB,
        record_bytes_max: 8 * MIB,
        index_bytes_max: 256 * MIB,
        checkpoint_bytes: u64::MAX,
        checkpoint_interval_ms: u64::MAX / 4,
        retention_ms: u64::MAX / 4,
        disk_percent_max: 101,
        salvage: false,
        sabotage: Sabotage::None,
    };
    let (cluster, broker_name) = ("DefaultCluster".to_owned(), "broker-a".to_owned());
    BrokerOptions {
        store,
        control: ControlOptions {
            cluster: cluster.clone(),
            broker_name: broker_name.clone(),
            shards: 1,
            ..ControlOptions::default()
        },
        registry: RegistryOptions {
            name_servers: Vec::new(),
            cluster,
            broker_name,
            broker_id: 0,
            broker_addr: HOST.to_string(),
            ha_addr: HOST.to_string(),
            period_ms: 30_000,
            permission: 6,
        },
        store_host: HOST,
        region: "DefaultRegion".to_owned(),
        trace_on: true,
        body_bytes_max: 4 * MIB,
        flush_timeout_ms: 5_000,
        delay_levels_ms: vec![1_000],
        timer_max_ms: 0,
        light: false,
        light_queues_max: None,
        lite_subscriptions_max: 100_000,
        recall_enable: true,
        pop_retry_percent: 20,
        pop_retry_percent_priority: 0,
        pop_highest_first: true,
        reject_transactions: false,
        transaction_timeout_ms: 6_000,
        transaction_interval_ms: 30_000,
        transaction_checks_max: 15,
        permission: 6,
        property_filter: true,
        long_polling: true,
        short_polling_ms: 1_000,
        transfer_messages_max: 32,
        transfer_bytes_max: 256 * 1024,
        young_bytes: 1 << 30,
        properties: String::new(),
        instance: 7,
    }
}

fn put_send(out: &mut Vec<u8>, codec: Codec, n: usize, topics: usize, body: &[u8]) {
    let topic = format!("TopicTest-{}", n % topics);
    let properties =
        format!("UNIQ_KEY\u{1}7F0000010A2C251A69D7659B{n:08X}\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA");
    let header = SendHeader {
        producer_group: Text::plain("please_rename_unique_group_name"),
        topic: Text::plain(&topic),
        default_topic: Text::plain("TBW102"),
        default_topic_queue_nums: 4,
        queue_id: (n / topics % 4) as i32,
        sys_flag: 0,
        born_timestamp: 1_726_000_000_000 + n as i64,
        flag: 0,
        properties: Text::plain(&properties),
        reconsume_times: 0,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: Some(Text::plain("broker-a")),
    };
    let mut writer = FrameWriter::request(out, codec, n as i32, 310, false);
    header.encode_short(&mut writer);
    writer.finish_with_body(body);
}

impl World {
    fn new(root: &Path, codec: Codec, topics: usize, body: usize) -> World {
        let dir = FsDir::open(root).unwrap();
        let conn = ConnId {
            shard: ShardId(0),
            slot: 0,
            generation: 1,
        };
        let now = Now {
            mono: Mono(1),
            wall_ms: 1_726_000_000_000,
        };
        let (broker, _) = Broker::open(&dir, Arc::new(options()), ShardId(0), now).unwrap();
        let mut out = Outbox::new(ShardId(0), 1);
        out.open(conn);
        let body = vec![b'x'; body];
        let mut world = World {
            broker,
            dir,
            out,
            link: Link {
                conn,
                peer: HOST,
                local: HOST,
            },
            began: Instant::now(),
            taken: Default::default(),
            answers: 0,
            turns: Vec::new(),
            turn: 0,
            chunk: Bytes::new(),
        };
        let count = (topics * 4).max(TURN_MESSAGES).div_ceil(TURN_MESSAGES);
        for turn in 0..count {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for n in turn * TURN_MESSAGES..(turn + 1) * TURN_MESSAGES {
                // A stride that meets the queues in no order.
                put_send(&mut bytes, codec, n * 7919, topics, &body);
                ends.push(bytes.len());
            }
            world.turns.push((bytes, ends));
        }
        world.handle(Event::Start);
        while !world.broker.ready() {
            world.settle();
        }
        for _ in 0..2 * count {
            world.receive();
            world.turn();
        }
        let wanted = 2 * count * TURN_MESSAGES;
        while world.answers < wanted {
            world.settle();
        }
        world
    }

    fn now(&self) -> Now {
        let ms = self.began.elapsed().as_millis() as u64;
        Now {
            mono: Mono(1 + ms),
            wall_ms: 1_726_000_000_000 + ms as i64,
        }
    }

    fn handle(&mut self, event: Event<'_, Peer>) {
        let now = self.now();
        self.broker.handle(now, event, &mut self.out);
    }

    /// What the kernel does before a turn: the frames lie in the cache, however many there are.
    fn receive(&mut self) {
        let mut memory = Vec::from(std::mem::take(&mut self.chunk));
        memory.clear();
        memory.extend_from_slice(&self.turns[self.turn].0);
        self.chunk = memory.into();
    }

    fn timed_turn(&mut self) -> Duration {
        self.receive();
        let began = Instant::now();
        self.turn();
        began.elapsed()
    }

    /// One piece of the network, until the answers are there.
    fn turn(&mut self) {
        let now = self.now();
        let (_, ends) = &self.turns[self.turn];
        let mut start = 0;
        for end in ends {
            let frame = FrameIn::new(&self.chunk, start, *end);
            let link = &self.link;
            self.broker
                .handle(now, Event::Frame { link, frame }, &mut self.out);
            start = *end;
        }
        self.turn = (self.turn + 1) % self.turns.len();
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let now = self.now();
            self.broker.settle(now, &mut self.out);
            let mut answered = false;
            while let Some((id, order)) = self.broker.poll_write(now) {
                let done = match order {
                    Order::Write { .. } => Done::Written,
                    _ => Done::Synced,
                };
                let result = Ok(done);
                self.broker
                    .handle(now, Event::Disk { id, result }, &mut self.out);
                answered = true;
            }
            let orders: Vec<_> = self.out.orders.drain(..).collect();
            for (id, order) in orders {
                let Order::Work(work) = order else {
                    unreachable!("nothing is read");
                };
                let result = work(&self.dir).map(Done::Work);
                self.broker
                    .handle(now, Event::Disk { id, result }, &mut self.out);
                answered = true;
            }
            let peers: Vec<_> = self.out.peers.drain(..).collect();
            for (from, message) in peers {
                self.broker
                    .handle(now, Event::Peer { from, message }, &mut self.out);
                answered = true;
            }
            self.take_answers();
            if !answered {
                return;
            }
        }
    }

    fn take_answers(&mut self) {
        self.out.drain_touched(|_| ());
        let output = self.out.pending(self.link.conn).unwrap();
        output.take(&mut self.taken.0, &mut self.taken.1);
        let mut rest = &self.taken.0[..];
        while let Some(len) = frame_len(rest).unwrap() {
            if self.answers < TURN_MESSAGES {
                let command = Command::decode(split(&rest[..len]).unwrap()).unwrap();
                assert_eq!(command.code, 0, "{:?}", command.remark);
            }
            self.answers += 1;
            rest = &rest[len..];
        }
    }
}

fn check_allocations(name: &str, topics: usize, world: &mut World) {
    let mut counted = 0;
    for _ in 0..COUNTED_TURNS {
        world.receive();
        counted += allocations(|| world.turn());
    }
    let messages = COUNTED_TURNS * TURN_MESSAGES;
    println!("the way, {name}: {counted} allocations in {messages} messages (batches, chunks)");
    // A queue begins with small chunks: those of many queues are many.
    let most = messages as u64 / if topics == 1 { 50 } else { 2 };
    assert!(counted < most, "only what holds many is allocated");
}

pub fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("way");
    group.throughput(Throughput::Elements(TURN_MESSAGES as u64));
    for (name, codec, topics, body) in [
        ("json, 128 B", Codec::Json, 1, 128),
        ("binary, 128 B", Codec::Binary, 1, 128),
        ("json, 1 KiB", Codec::Json, 1, 1024),
        ("json, 128 B, 10,000 topics", Codec::Json, 10_000, 128),
    ] {
        // Made only if it is wanted.
        let mut made = None;
        group.bench_function(name, |b| {
            let (_root, world) = made.get_or_insert_with(|| {
                let root = tempfile::tempdir().unwrap();
                let mut world = World::new(root.path(), codec, topics, body);
                check_allocations(name, topics, &mut world);
                (root, world)
            });
            b.iter_custom(|turns| (0..turns).map(|_| world.timed_turn()).sum());
        });
    }
    group.finish();
}
