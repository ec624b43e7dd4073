//! Kill -9 under load, again and again, and nothing that was acknowledged is lost.
//!
//! `ORBITMQ_ROUNDS` says how often for each durability; `ORBITMQ_SEED` repeats a run's random
//! numbers (not its timing); `ORBITMQ_KEEP` leaves the directory behind. After each kill and at
//! the end, for every queue: what was acknowledged or consumed is where it was, no message is
//! there twice, offsets have no gap, committed offsets and created topics are there.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use orbitmq::message::batch::{self, SubMessage};
use orbitmq::remoting::code::request as ask;
use orbitmq::remoting::frame::Codec;

use crate::server::{Launch, PATIENCE, Server};
use crate::wire::Client;

const TOPICS: [&str; 2] = ["crash-a", "crash-b"];
const QUEUES: i32 = 4;
const PRODUCERS: u64 = 8;
/// Acknowledged messages before the kill.
const ACKS: std::ops::Range<u64> = 100..1500;
const BATCH: u64 = 5;
const ID_BYTES: usize = 8;
const BODY_BYTES_MAX: u64 = 6000;

type Queue = (usize, i32);

/// Splitmix64: enough to vary sizes and moments.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What clients know.
#[derive(Default)]
struct Known {
    /// By queue: offset to message, as acknowledged or consumed.
    stored: HashMap<Queue, HashMap<u64, u64>>,
    acks: u64,
    consumed: u64,
    /// By queue: the highest commit that was acknowledged, and the highest that was tried.
    committed: HashMap<Queue, (u64, u64)>,
    problems: Vec<String>,
}

impl Known {
    fn store(&mut self, queue: Queue, offset: u64, id: u64, how: &str) {
        let before = self.stored.entry(queue).or_default().insert(offset, id);
        if let Some(before) = before.filter(|before| *before != id) {
            let problem = format!("{queue:?}@{offset}: {how} {id:x}, it was {before:x}");
            self.problems.push(problem);
        }
    }
}

#[derive(Clone, Default)]
struct Shared {
    known: Arc<(Mutex<Known>, Condvar)>,
    next_id: Arc<AtomicU64>,
    /// Set right before the kill: errors are expected from then on.
    killing: Arc<AtomicBool>,
}

fn body(id: u64, bytes: u64) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.resize(ID_BYTES + bytes as usize, id as u8);
    body
}

fn id_of(body: &[u8]) -> u64 {
    let (id, filling) = body
        .split_first_chunk::<ID_BYTES>()
        .expect("a message of ours");
    let id = u64::from_be_bytes(*id);
    assert!(
        filling.iter().all(|byte| *byte == id as u8),
        "a body is torn"
    );
    id
}

/// Sends until the connection breaks; each message once.
fn produce(shared: &Shared, addr: SocketAddr, mut random: Random, codec: Codec) {
    let Ok(mut client) = Client::try_connect(addr) else {
        return;
    };
    client.codec = codec;
    loop {
        let topic = random.below(TOPICS.len() as u64) as usize;
        let queue = random.below(QUEUES as u64) as i32;
        let count = if random.below(8) == 0 { BATCH } else { 1 };
        let first = shared.next_id.fetch_add(count, Ordering::Relaxed);
        let bodies: Vec<_> = (first..first + count)
            .map(|id| body(id, random.below(BODY_BYTES_MAX)))
            .collect();
        let payload = match bodies.as_slice() {
            [one] => one.clone(),
            many => joined(many),
        };
        let sent = client.try_send_with(TOPICS[topic], queue, &payload, "", count > 1);
        let Ok(answer) = sent else { return };
        let mut known = shared.known.0.lock().unwrap();
        if answer.code != 0 {
            if !shared.killing.load(Ordering::Relaxed) {
                known
                    .problems
                    .push(format!("refused: {} {}", answer.code, answer.remark));
            }
            return;
        }
        let offset = answer.number("queueOffset") as u64;
        for at in 0..count {
            known.store((topic, queue), offset + at, first + at, "acknowledged");
        }
        known.acks += count;
        shared.known.1.notify_all();
    }
}

fn joined(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for body in bodies {
        let properties = b"";
        batch::append(
            &mut out,
            SubMessage {
                flag: 0,
                body,
                properties,
            },
        );
    }
    out
}

/// Reads all queues and commits, until the connection breaks.
fn consume(shared: &Shared, addr: SocketAddr) {
    let Ok(mut client) = Client::try_connect(addr) else {
        return;
    };
    let mut positions: HashMap<Queue, u64> = HashMap::new();
    {
        let known = shared.known.0.lock().unwrap();
        positions.extend(
            known
                .committed
                .iter()
                .map(|(queue, (acked, _))| (*queue, *acked)),
        );
    }
    loop {
        for queue in queues() {
            let position = positions.entry(queue).or_default();
            let topic = TOPICS[queue.0];
            let Ok(messages) = client.try_messages(topic, queue.1, *position) else {
                return;
            };
            let Some(last) = messages.last() else {
                continue;
            };
            let next = last.offset + 1;
            {
                let mut known = shared.known.0.lock().unwrap();
                for message in &messages {
                    known.store(queue, message.offset, id_of(&message.body), "consumed");
                }
                known.consumed += messages.len() as u64;
                let commits = known.committed.entry(queue).or_default();
                commits.1 = commits.1.max(next);
            }
            *position = next;
            match client.try_commit(topic, queue.1, next) {
                Ok(answer) if answer.code == 0 => {
                    let mut known = shared.known.0.lock().unwrap();
                    known.committed.entry(queue).or_default().0 = next;
                }
                _ => return,
            }
        }
    }
}

fn queues() -> impl Iterator<Item = Queue> {
    (0..TOPICS.len()).flat_map(|topic| (0..QUEUES).map(move |queue| (topic, queue)))
}

/// What the broker has, checked against what clients know. `from` is where each queue was left.
#[derive(Default)]
struct Audit {
    from: HashMap<Queue, u64>,
    seen: HashSet<u64>,
}

impl Audit {
    fn run(&mut self, client: &mut Client, known: &mut Known, ids_end: u64) {
        for queue in queues() {
            let topic = TOPICS[queue.0];
            let max = client.queue_offset(ask::GET_MAX_OFFSET, topic, queue.1);
            let min = client.queue_offset(ask::GET_MIN_OFFSET, topic, queue.1);
            assert_eq!(min, 0, "nothing expires here");
            let stored = known.stored.entry(queue).or_default();
            let mut at = self.from.get(&queue).copied().unwrap_or_default();
            while at < max {
                let messages = client.messages(topic, queue.1, at);
                assert!(
                    !messages.is_empty(),
                    "{queue:?}: a hole at {at} below {max}"
                );
                for message in messages {
                    assert_eq!(message.offset, at, "{queue:?}: offsets have a gap");
                    let id = id_of(&message.body);
                    assert!(id < ids_end, "{queue:?}@{at}: {id:x} was never sent");
                    assert!(
                        self.seen.insert(id),
                        "{queue:?}@{at}: {id:x} is there twice"
                    );
                    let promised = stored.insert(at, id);
                    if let Some(promised) = promised {
                        assert_eq!(id, promised, "{queue:?}@{at}: another message");
                    }
                    at += 1;
                }
            }
            let lost = stored.keys().filter(|offset| **offset >= max).min();
            assert_eq!(
                lost, None,
                "{queue:?} ends at {max}: an acknowledged message is lost"
            );
            self.from.insert(queue, at);
            let (acked, tried) = known.committed.get(&queue).copied().unwrap_or_default();
            let committed = client.committed(topic, queue.1).unwrap_or_default();
            assert!(
                (acked..=tried).contains(&committed),
                "{queue:?}: committed {committed}, acknowledged {acked}, tried {tried}"
            );
            // What came through counts from now on.
            known.committed.insert(queue, (committed, tried));
        }
        assert!(known.problems.is_empty(), "{:?}", known.problems);
    }
}

fn rounds() -> u64 {
    let rounds = std::env::var("ORBITMQ_ROUNDS");
    rounds.map_or(3, |rounds| {
        rounds.parse().expect("ORBITMQ_ROUNDS is a number")
    })
}

fn seed() -> u64 {
    let seed = std::env::var("ORBITMQ_SEED");
    seed.map_or_else(
        |_| u64::from(std::process::id()),
        |seed| seed.parse().unwrap(),
    )
}

fn load(shared: &Shared, addr: SocketAddr, seed: u64) -> Vec<std::thread::JoinHandle<()>> {
    let producer = |n| {
        let shared = shared.clone();
        let codec = if n % 2 == 0 {
            Codec::Json
        } else {
            Codec::Binary
        };
        std::thread::spawn(move || produce(&shared, addr, Random(seed ^ (n << 32)), codec))
    };
    let mut threads: Vec<_> = (0..PRODUCERS).map(producer).collect();
    let shared = shared.clone();
    threads.push(std::thread::spawn(move || consume(&shared, addr)));
    threads
}

fn wait_for_acks(shared: &Shared, target: u64) {
    let until = Instant::now() + PATIENCE;
    let mut known = shared.known.0.lock().unwrap();
    while known.acks < target {
        assert!(known.problems.is_empty(), "{:?}", known.problems);
        let left = until.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "only {} of {target} messages", known.acks);
        known = shared.known.1.wait_timeout(known, left).unwrap().0;
    }
}

fn launch(data: &Path, flush: &str) -> Launch {
    Launch::standalone(data)
        .set("shards", 2)
        .set("flushDiskType", flush)
        .set("checkpointBytes", 4 << 20)
        .set("checkpointInterval", 300)
}

/// Load, a kill at a random moment, a restart; gives the restarted server and how long it took.
fn round(server: Server, shared: &Shared, random: &mut Random, extra: &str) -> (Server, u128) {
    let launch = server.launch.clone();
    shared.killing.store(false, Ordering::Relaxed);
    let before = shared.known.0.lock().unwrap().acks;
    let threads = load(shared, launch.broker, random.next());
    let target = ACKS.start + random.below(ACKS.end - ACKS.start);
    wait_for_acks(shared, before + target);
    Client::connect(launch.broker).create_topic(extra, 1);
    shared.killing.store(true, Ordering::Relaxed);
    server.kill();
    for thread in threads {
        let ended = thread.join();
        ended.expect("a client ends when its connection breaks");
    }
    let begun = Instant::now();
    let server = launch.start();
    (server, begun.elapsed().as_millis())
}

fn crash(flush: &str) {
    let keep = std::env::var_os("ORBITMQ_KEEP").is_some();
    let dir = tempfile::Builder::new().disable_cleanup(keep).tempdir();
    let dir = dir.unwrap();
    let launch = launch(dir.path(), flush);
    let (seed, rounds) = (seed(), rounds());
    let mut random = Random(seed);
    let shared = Shared::default();
    let mut audit = Audit::default();
    let mut server = launch.start();
    for topic in TOPICS {
        Client::connect(launch.broker).create_topic(topic, QUEUES as u32);
    }
    for at in 1..=rounds {
        let extra = format!("crash-extra-{at}");
        let (next, restart_ms) = round(server, &shared, &mut random, &extra);
        server = next;
        let mut client = Client::connect(launch.broker);
        let topic = client.call(ask::GET_TOPIC_CONFIG, &[("topic", &extra)], b"");
        assert_eq!(
            topic.code, 0,
            "a topic acknowledged before the kill is lost: {topic:?}"
        );
        let mut known = shared.known.0.lock().unwrap();
        let ids_end = shared.next_id.load(Ordering::Relaxed);
        audit.run(&mut client, &mut known, ids_end);
        println!(
            "{flush} seed {seed} round {at}/{rounds}: {} acknowledged, {} consumed, {} stored, \
             restart {restart_ms} ms",
            known.acks,
            known.consumed,
            audit.seen.len()
        );
    }
    // Once more from the first message on, after a clean stop.
    server.stop();
    let server = launch.start();
    let mut whole = Audit::default();
    let mut known = shared.known.0.lock().unwrap();
    let ids_end = shared.next_id.load(Ordering::Relaxed);
    whole.run(&mut Client::connect(launch.broker), &mut known, ids_end);
    assert_eq!(whole.seen, audit.seen, "the whole is the sum of the rounds");
    println!(
        "{flush}: {} messages, none lost, none twice",
        whole.seen.len()
    );
    server.stop();
}

/// Each start writes a checkpoint in its own name, behind which batches of earlier lives follow.
#[test]
fn many_kills_fit_between_two_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::standalone(dir.path()).set("shards", 1);
    for start in 0..4 {
        let server = launch.start();
        let mut client = Client::connect(launch.broker);
        let messages = match start {
            0 => Vec::new(),
            _ => client.messages("kills", 0, 0),
        };
        assert_eq!(messages.len(), start);
        assert_eq!(client.sent("kills", 0, b"once more"), start as i64);
        server.kill();
    }
}

#[test]
fn nothing_acknowledged_is_lost_with_sync_flush() {
    crash("SYNC_FLUSH");
}

#[test]
fn nothing_acknowledged_is_lost_with_async_flush() {
    crash("ASYNC_FLUSH");
}
