//! What a user asked for, and which requests of it contradict each other.

use std::fmt;
use std::path::PathBuf;

use super::body::STAMP_BYTES;
use super::letter::{QUEUE_ID_MAX, Style};
use super::slots::IN_FLIGHT_MAX;

/// Connections of one run.
pub const CONNECTIONS_MAX: usize = 50_000;
/// Messages of one pop.
pub const POP_MAX: i32 = 32;
/// Topics of one run.
pub const TOPICS_MAX: usize = 100_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    Send,
    Batch,
    /// Sends spread over many topics.
    Topics,
    /// From the start of the topic, as a pull consumer.
    Pull,
    /// As a group of push consumers.
    Push,
    /// Sends and a group of push consumers: from when a message was due to its arrival.
    E2e,
    /// Sends while pulling.
    Mixed,
    /// Sends, then pulls what was sent.
    Backlog,
    /// Sends at growing rates.
    Ramp,
    /// Sends messages for later: from when each was to be delivered to its arrival.
    Delay(Delay),
    /// Sends halves and ends them.
    Transaction(Transaction),
    /// Consumers that pop and acknowledge.
    Pop(Pop),
    /// Asks for messages that are there.
    Query(Query),
}

/// When messages are to be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// So many milliseconds after each was to be sent.
    After(u64),
    /// The same, said by a delay level.
    Level(usize),
    /// All together, so many milliseconds after the load began.
    AtOnce(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delay {
    pub due: Due,
    /// Otherwise messages are only sent.
    pub consume: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Of a hundred halves so many are rolled back, the others committed; `None`: all stay open.
    pub rollback_percent: Option<u32>,
    pub consume: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pop {
    /// Milliseconds until an unacknowledged message comes again.
    pub invisible_ms: i64,
    /// Messages that one request acknowledges at most; 0: none is.
    pub ack_batch: usize,
    /// Beside producers; otherwise what is there.
    pub sends: bool,
}

/// By what a message is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Key,
    UniqueKey,
    Id,
    /// Where its queue stood when it was stored.
    Time,
}

impl By {
    pub fn name(self) -> &'static str {
        match self {
            By::Key => "key",
            By::UniqueKey => "unique-key",
            By::Id => "id",
            By::Time => "time",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query {
    pub by: By,
    /// Messages of each broker that are asked for.
    pub samples: usize,
}

/// The delays of a broker as shipped, milliseconds, by level from 1 on.
pub const LEVELS_MS: [u64; 18] = [
    1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 180_000, 240_000, 300_000, 360_000, 420_000,
    480_000, 540_000, 600_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000,
];

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Workload::Send => "send",
            Workload::Batch => "batch",
            Workload::Topics => "topics",
            Workload::Pull => "pull",
            Workload::Push => "push",
            Workload::E2e => "e2e",
            Workload::Mixed => "mixed",
            Workload::Backlog => "backlog",
            Workload::Ramp => "ramp",
            Workload::Delay(_) => "delay",
            Workload::Transaction(_) => "transaction",
            Workload::Pop(_) => "pop",
            Workload::Query(_) => "query",
        }
    }

    pub fn sends(self) -> bool {
        match self {
            Workload::Pull | Workload::Push | Workload::Query(_) => false,
            Workload::Pop(pop) => pop.sends,
            _ => true,
        }
    }

    /// Whether what is sent is received in the same phase, and timed from its stamp.
    pub fn times_arrival(self) -> bool {
        match self {
            Workload::E2e => true,
            Workload::Delay(delay) => delay.consume,
            Workload::Transaction(transaction) => transaction.consume,
            Workload::Pop(pop) => pop.sends,
            _ => false,
        }
    }

    /// Whether what is sent can be compared with what comes.
    fn proves(self) -> bool {
        match self {
            Workload::Delay(_) | Workload::Transaction(_) | Workload::Pop(_) => {
                self.times_arrival()
            }
            _ => self.sends(),
        }
    }

    /// Whether brokers owe messages of these loads no order.
    pub fn reorders(self) -> bool {
        matches!(
            self,
            Workload::Delay(_) | Workload::Transaction(_) | Workload::Pop(_)
        )
    }
}

/// When a load ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// After so many messages.
    Messages(u64),
    Seconds(u32),
}

/// When messages are sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rate {
    /// The next request waits for an answer.
    Closed,
    /// Each message has a moment when it is due.
    Open { per_second: f64, poisson: bool },
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Closed => write!(f, "closed: capacity, not latency"),
            Rate::Open {
                per_second,
                poisson,
            } => {
                let how = if *poisson { "poisson" } else { "uniform" };
                write!(f, "open: {per_second}/s, {how}")
            }
        }
    }
}

/// Rates that `ramp` tries.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ramp {
    pub from: f64,
    pub to: f64,
    /// A rate holds if the 99th percentile stays within this, nanoseconds.
    pub p99_max: u64,
}

/// Where a consumer without a stored position begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    First,
    Last,
}

/// What becomes of the outcome.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub label: String,
    /// A file, or `-`: standard output.
    pub json: Option<String>,
    pub csv: Option<String>,
    /// A file that ends in `.svg` or `.html`.
    pub plot: Option<String>,
    /// No line per second.
    pub quiet: bool,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub workload: Workload,
    /// `host:port`, the first that answers counts.
    pub name_servers: Vec<String>,
    /// Of several topics, the start of their names.
    pub topic: String,
    pub topics: usize,
    /// Of a topic that has to be created, on each broker.
    pub queues: u32,
    /// To each broker: producers, or pullers where nothing is sent.
    pub connections: usize,
    /// Requests on each connection; by default as the rate asks for.
    pub in_flight: Option<usize>,
    pub rate: Rate,
    pub stop: Stop,
    pub warmup_seconds: u32,
    pub style: Style,
    /// Cores for one thread each; none: threads go where they like.
    pub cores: Vec<usize>,
    pub threads: usize,
    /// Never sleep: less delay from waking up, a whole core taken.
    pub spin: bool,
    pub group: String,
    /// Members of the consumer group; in `mixed` and `backlog` connections that pull.
    pub members: usize,
    /// Messages asked for in one pull.
    pub pull_batch: i32,
    pub from: From,
    pub verify: bool,
    pub allow_reorder: bool,
    /// Later than this at the 99th percentile, an open loop is void; nanoseconds.
    pub lag_max: u64,
    pub broker_pid: Option<u32>,
    pub broker_data: Option<PathBuf>,
    pub drop_caches: bool,
    pub ramp: Ramp,
    pub output: Output,
}

/// In flight on each connection where nothing is said.
const CLOSED_IN_FLIGHT: usize = 64;
/// So that a broker that stops for a moment does not stop an open loop.
const OPEN_IN_FLIGHT: usize = 8192;

impl Plan {
    pub fn in_flight(&self) -> usize {
        self.in_flight.unwrap_or(match self.rate {
            Rate::Closed => CLOSED_IN_FLIGHT,
            Rate::Open { .. } => OPEN_IN_FLIGHT,
        })
    }

    /// Whether bodies carry who sent them and when.
    pub fn stamped(&self) -> bool {
        self.verify || self.workload.times_arrival()
    }

    pub fn topic_names(&self) -> Vec<String> {
        match self.topics {
            0 | 1 => vec![self.topic.clone()],
            many => (0..many).map(|n| format!("{}-{n}", self.topic)).collect(),
        }
    }

    /// # Errors
    /// A sentence that says which arguments do not go together, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let fail = |text: &str| Err(text.to_owned());
        if self.stamped() && self.style.body.smallest() < STAMP_BYTES {
            return Err(format!(
                "bodies carry sender, sequence, time and checksum here, which take {STAMP_BYTES} \
                 bytes: make the smallest body at least that long"
            ));
        }
        if self.verify && !self.workload.proves() {
            return fail(
                "--verify compares what was sent with what comes: this load does not do both",
            );
        }
        self.check_features()?;
        if self.verify && self.workload == Workload::Ramp {
            return fail(
                "--verify and ramp do not go together: verify a send at the rate it finds",
            );
        }
        if self.connections > CONNECTIONS_MAX || self.members > CONNECTIONS_MAX {
            return Err(format!(
                "at most {CONNECTIONS_MAX} connections are possible"
            ));
        }
        if self.in_flight() > IN_FLIGHT_MAX {
            return Err(format!(
                "at most {IN_FLIGHT_MAX} requests can be in flight on a connection"
            ));
        }
        if self.topics > TOPICS_MAX || self.queues > QUEUE_ID_MAX as u32 {
            return Err(format!(
                "at most {TOPICS_MAX} topics of {QUEUE_ID_MAX} queues are possible"
            ));
        }
        if self.drop_caches && self.workload != Workload::Backlog {
            return fail("--drop-caches belongs to backlog, which reads what it wrote");
        }
        if self.broker_data.is_some() && self.broker_pid.is_none() {
            return fail("--broker-data adds to --broker-pid: give both");
        }
        let plot = self.output.plot.as_deref();
        if plot.is_some_and(|file| !file.ends_with(".svg") && !file.ends_with(".html")) {
            return fail("--plot writes .svg or .html: name such a file");
        }
        if let Rate::Open { per_second, .. } = self.rate
            && !(per_second > 0.0 && per_second <= 1e8)
        {
            return fail("--rate is messages per second, above 0 and up to 100000000");
        }
        let open = matches!(self.rate, Rate::Open { .. });
        if open
            && matches!(
                self.workload,
                Workload::Pull | Workload::Push | Workload::Backlog
            )
        {
            return fail("--rate is for loads that send; this one goes as fast as it can");
        }
        Ok(())
    }

    /// What delays, transactions and pops ask for.
    fn check_features(&self) -> Result<(), String> {
        let fail = |text: &str| Err(text.to_owned());
        let alone = matches!(self.workload, Workload::Delay(_) | Workload::Transaction(_));
        if alone && self.style.batch > 1 {
            return fail("brokers take timers and transactions one by one: leave out --batch");
        }
        if let Workload::Transaction(transaction) = self.workload {
            let percent = transaction.rollback_percent;
            if percent.is_some_and(|percent| percent > 100) {
                return fail("--rollback is so many of a hundred: 0 to 100");
            }
            if transaction.consume && percent.is_none_or(|percent| percent == 100) {
                return fail("nothing will come of it: add --no-consume");
            }
        }
        if let Workload::Pop(pop) = self.workload {
            if self.pull_batch > POP_MAX {
                return Err(format!("a pop brings at most {POP_MAX} messages"));
            }
            if !pop.sends && self.rate != Rate::Closed {
                return fail("--rate is for pops beside producers: add --send");
            }
        }
        Ok(())
    }
}
