//! The grammar of `bench`: arguments to a [`Plan`].

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ceiling::CeilingArgs;
use super::feature::{DelayArgs, PopArgs, QueryArgs, TransactionArgs};
use crate::loadgen::plan::{From, Output, Plan, Ramp, Rate, Stop, Workload};
use crate::loadgen::report::verb::{PlotArgs, ReportArgs};
use crate::loadgen::{BodySize, Style};
use crate::remoting::frame;

const BENCH_HELP: &str = "\
Latency is what an open loop measures: give --rate, and each message counts from the moment it was
due. Without --rate the loop is closed: it shows capacity. Pin broker and generator to cores of
their own, warm up, and use runs that print VOID for nothing.

  orbitmq bench send -t T --rate 20000 --cores 1 --warmup-seconds 60 --seconds 60 --plot send.html
  orbitmq bench send -t T --connections 4 --in-flight 1024 --cores 1     what the broker can take
  orbitmq bench e2e -t T --rate 10000 --members 2 --verify
  orbitmq bench ramp -t T --p99-ms 5 --seconds 10
  orbitmq bench topics -t T --topics 10000 --queues 4 --rate 20000
  orbitmq bench backlog -t T --count 5000000 --drop-caches
  orbitmq bench delay -t T --rate 10000 --delay-ms 5000 --verify
  orbitmq bench delay -t T --count 10000000 --delay-ms 36000000 --no-consume --broker-pid PID
  orbitmq bench transaction -t T --rate 5000 --rollback 10 --verify
  orbitmq bench pop -t T --send --rate 10000 --ack-batch 32
  orbitmq bench query -t T --by key --rate 100

Topics that are not there are made, named, and stay. Ctrl-C ends a run early: it is void, shown and
saved all the same; a second one ends at once.
Exit codes: 0 sound, 1 failed or refused, 2 bad arguments, 3 void.";

/// Topic of whoever names none.
const TOPIC: &str = "orbitmq_bench";

/// `bench`: which load.
#[derive(Clone, Debug, PartialEq, Subcommand)]
#[command(after_help = BENCH_HELP)]
pub enum Bench {
    /// Send messages
    Send(SendArgs),
    /// Send messages in batches
    Batch(SendArgs),
    /// Send messages spread over many topics
    Topics(SendArgs),
    /// Pull a topic from its start
    Pull(ReadArgs),
    /// Consume a topic as a group of push consumers
    Push(ReadArgs),
    /// Send to a group of push consumers: from the moment a message is due to its arrival
    E2e(BothArgs),
    /// Send while pulling
    Mixed(BothArgs),
    /// Send a backlog, then pull it
    Backlog(BothArgs),
    /// Find the highest rate that keeps a bound on the 99th percentile
    Ramp(RampArgs),
    /// Send messages for later: how late they come, from the moment they were to be delivered
    Delay(DelayArgs),
    /// Send messages in transactions, and end these
    Transaction(TransactionArgs),
    /// Pop what is there, or what is sent meanwhile, and acknowledge it
    Pop(PopArgs),
    /// Ask for messages that are there, by key, unique key, id or time
    Query(QueryArgs),
    /// Measure what this host allows: loopback, disk, and the bare pipeline of both
    Ceiling(CeilingArgs),
    /// Turn recorded runs into a page that compares them
    Report(ReportArgs),
    /// Draw columns of a CSV file as an SVG chart
    Plot(PlotArgs),
}

/// What every load has.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct RunArgs {
    /// Name servers, separated by `;`
    #[arg(
        long,
        short = 'n',
        value_name = "LIST",
        default_value = "127.0.0.1:9876"
    )]
    namesrv: String,
    /// Topic
    #[arg(long, short = 't', default_value = TOPIC)]
    topic: String,
    /// Connections to each broker that send, or pull where nothing is sent
    #[arg(long, value_name = "N", default_value = "1")]
    connections: NonZeroU32,
    /// Requests in flight on each connection [default: 64, with --rate 8192]
    #[arg(long, visible_alias = "depth", value_name = "N")]
    in_flight: Option<NonZeroU32>,
    /// Stop after so many messages
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    count: Option<NonZeroU64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "S", default_value = "10")]
    seconds: NonZeroU32,
    /// Seconds of load before measuring starts
    #[arg(long, value_name = "S", default_value = "0")]
    warmup_seconds: u32,
    /// Header codec of requests
    #[arg(long, value_enum, default_value_t = Codec::Json)]
    codec: Codec,
    /// One thread on each of these cores: 1, or 2,3, or 4-7
    #[arg(long, visible_alias = "core", value_name = "LIST", value_parser = core_list)]
    cores: Option<CoreList>,
    /// Threads, wherever they run
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "cores")]
    threads: NonZeroU32,
    /// Never sleep: less delay from waking up, and a whole core per thread
    #[arg(long)]
    spin: bool,
    /// What is drawn by chance depends on this
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Void if 1 of 100 messages of an open loop is written later than this
    #[arg(long, value_name = "MS", default_value = "1")]
    max_lag_ms: f64,
    /// Measure this process as well: processor time, memory, system calls per message
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// With --broker-pid: count writes of the device under this directory
    #[arg(long, value_name = "DIR")]
    broker_data: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where the outcome goes.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct OutputArgs {
    /// Name of this run in reports
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// Write the outcome as JSON; without a file, or with -, to standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<String>,
    /// Write the outcome as CSV; without a file, or with -, to standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    csv: Option<String>,
    /// Draw the outcome into a .svg or .html file
    #[arg(long, value_name = "FILE")]
    plot: Option<String>,
    /// No line per second
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct MessageArgs {
    /// Bytes of a message body: 1024, 128-4096 (evenly) or exp:1024 (mean)
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = BodySize::parse)]
    body_bytes: BodySize,
    /// Messages in one request; more than 1 sends batches [default: 1, `bench batch` 32]
    #[arg(long, value_name = "N")]
    batch: Option<NonZeroU32>,
    /// Queues of a topic that is made, on each broker [default: 8, `bench topics` 4]
    #[arg(long, value_name = "N")]
    queues: Option<NonZeroU32>,
    /// Spread over so many topics, named after --topic [default: 1, `bench topics` 1000]
    #[arg(long, value_name = "N")]
    topics: Option<NonZeroU32>,
    /// Give each message a key of its own
    #[arg(long)]
    keys: bool,
    /// Give messages these tags in turn
    #[arg(long, value_name = "TAG,…", value_delimiter = ',')]
    tags: Vec<String>,
    /// Give each message this property; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::key_value)]
    property: Vec<(String, String)>,
    /// Read everything back: nothing acknowledged is lost, doubled, out of order or changed.
    /// Bodies then carry sender, sequence, time and checksum and need 40 bytes
    #[arg(long)]
    verify: bool,
    /// With --verify: out of order is counted, and fine
    #[arg(long, requires = "verify")]
    allow_reorder: bool,
}

/// When it is sent.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct PaceArgs {
    /// Messages per second in all, each timed from the moment it is due
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// With --rate: due at random as independent senders would, not evenly
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// Send as answers come: capacity, not latency. So it is without --rate
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
}

/// Who consumes.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct GroupArgs {
    /// Consumer group
    #[arg(long, value_name = "GROUP", default_value = TOPIC)]
    group: String,
    /// Members of the group; where there is none, connections that pull
    #[arg(long, value_name = "N", default_value = "1")]
    members: NonZeroU32,
    /// Messages asked for in one pull
    #[arg(long, value_name = "N", default_value = "32")]
    pull_batch: NonZeroU32,
}

/// `bench send`, `batch` and `topics`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct SendArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    message: MessageArgs,
    #[command(flatten)]
    pace: PaceArgs,
}

/// `bench pull` and `push`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct ReadArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    group: GroupArgs,
    /// Where to begin; a group that was here before goes on where it was
    #[arg(long, value_enum, default_value_t = Begin::First)]
    from: Begin,
    /// The same as --pull-batch
    #[arg(long, value_name = "N", conflicts_with = "pull_batch")]
    batch: Option<NonZeroU32>,
}

/// `bench e2e`, `mixed` and `backlog`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct BothArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    message: MessageArgs,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    group: GroupArgs,
    /// `backlog`, as root: have the kernel forget what was written before it is read
    #[arg(long)]
    drop_caches: bool,
}

/// `bench ramp`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct RampArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    message: MessageArgs,
    /// The 99th percentile must stay within this
    #[arg(long, value_name = "MS", default_value = "10")]
    p99_ms: f64,
    /// Messages per second to begin with
    #[arg(long, value_name = "N", default_value = "1000")]
    from_rate: f64,
    /// Messages per second to end with
    #[arg(long, value_name = "N", default_value = "10000000")]
    to_rate: f64,
    /// Due at random as independent senders would, not evenly
    #[arg(long)]
    poisson: bool,
}

/// How request headers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// As most clients do.
    Json,
    /// RocketMQ's binary header.
    Binary,
}

impl std::convert::From<Codec> for frame::Codec {
    fn from(codec: Codec) -> frame::Codec {
        match codec {
            Codec::Json => frame::Codec::Json,
            Codec::Binary => frame::Codec::Binary,
        }
    }
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Begin {
    /// With the oldest message.
    First,
    /// With what comes from now on.
    Last,
}

/// Numbers of cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(Vec<usize>);

fn core_list(text: &str) -> Result<CoreList, String> {
    let wrong = || format!("{text} is no list of cores: give 1, or 2,3, or 4-7");
    let number = |part: &str| part.trim().parse::<usize>().map_err(|_| wrong());
    let mut cores = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => cores.push(number(part)?),
            Some((from, to)) => {
                let (from, to) = (number(from)?, number(to)?);
                if from > to || to - from > 4096 {
                    return Err(wrong());
                }
                cores.extend(from..=to);
            }
        }
    }
    Ok(CoreList(cores))
}

impl Bench {
    /// The plan these arguments describe; `None` for what only draws.
    pub fn plan(self) -> Option<Plan> {
        Some(match self {
            Bench::Send(args) => args.plan(Workload::Send, 1, 8, 1),
            Bench::Batch(args) => args.plan(Workload::Batch, 32, 8, 1),
            Bench::Topics(args) => args.plan(Workload::Topics, 1, 4, 1000),
            Bench::Pull(args) => args.plan(Workload::Pull),
            Bench::Push(args) => args.plan(Workload::Push),
            Bench::E2e(args) => args.plan(Workload::E2e),
            Bench::Mixed(args) => args.plan(Workload::Mixed),
            Bench::Backlog(args) => args.plan(Workload::Backlog),
            Bench::Ramp(args) => args.plan(),
            Bench::Delay(args) => args.plan(),
            Bench::Transaction(args) => args.plan(),
            Bench::Pop(args) => args.plan(),
            Bench::Query(args) => args.plan(),
            Bench::Ceiling(_) | Bench::Report(_) | Bench::Plot(_) => return None,
        })
    }
}

impl SendArgs {
    fn plan(self, workload: Workload, batch: usize, queues: u32, topics: usize) -> Plan {
        let mut plan = self.run.plan(workload);
        (plan.style.batch, plan.queues, plan.topics) = (batch, queues, topics);
        self.message.put(&mut plan);
        plan.rate = self.pace.rate();
        plan
    }
}

impl ReadArgs {
    fn plan(self, workload: Workload) -> Plan {
        let mut plan = self.run.plan(workload);
        let batch = self.batch;
        self.group.put(&mut plan);
        plan.pull_batch = batch.map_or(plan.pull_batch, clamped);
        plan.from = match self.from {
            Begin::First => From::First,
            Begin::Last => From::Last,
        };
        plan
    }
}

impl BothArgs {
    pub(super) fn plan(self, workload: Workload) -> Plan {
        let mut plan = self.run.plan(workload);
        self.message.put(&mut plan);
        self.group.put(&mut plan);
        plan.rate = self.pace.rate();
        plan.drop_caches = self.drop_caches;
        plan
    }
}

impl RampArgs {
    fn plan(self) -> Plan {
        let mut plan = self.run.plan(Workload::Ramp);
        self.message.put(&mut plan);
        plan.rate = Rate::Open {
            per_second: self.from_rate,
            poisson: self.poisson,
        };
        plan.ramp = Ramp {
            from: self.from_rate,
            to: self.to_rate.max(self.from_rate),
            p99_max: nanos(self.p99_ms),
        };
        plan
    }
}

impl PaceArgs {
    pub(super) fn rate(&self) -> Rate {
        match self.rate {
            Some(per_second) => Rate::Open {
                per_second,
                poisson: self.poisson,
            },
            None => Rate::Closed,
        }
    }
}

impl MessageArgs {
    fn put(self, plan: &mut Plan) {
        let style = &mut plan.style;
        style.body = self.body_bytes;
        style.batch = self.batch.map_or(style.batch, |batch| batch.get() as usize);
        style.keys = self.keys;
        style.tags = self.tags;
        style.properties = self.property;
        plan.queues = self.queues.map_or(plan.queues, NonZeroU32::get);
        plan.topics = self
            .topics
            .map_or(plan.topics, |topics| topics.get() as usize);
        plan.verify = self.verify;
        plan.allow_reorder = self.allow_reorder;
    }
}

impl GroupArgs {
    fn put(self, plan: &mut Plan) {
        plan.group = self.group;
        plan.members = self.members.get() as usize;
        plan.pull_batch = clamped(self.pull_batch);
    }
}

impl RunArgs {
    pub(super) fn plan(self, workload: Workload) -> Plan {
        let style = Style {
            codec: self.codec.into(),
            body: BodySize::Fixed(1024),
            batch: 1,
            tags: Vec::new(),
            keys: false,
            properties: Vec::new(),
            seed: self.seed,
        };
        Plan {
            workload,
            name_servers: self
                .namesrv
                .split(';')
                .map(|addr| addr.trim().to_owned())
                .collect(),
            topic: self.topic,
            topics: 1,
            queues: 8,
            connections: self.connections.get() as usize,
            in_flight: self.in_flight.map(|count| count.get() as usize),
            rate: Rate::Closed,
            stop: match self.count {
                Some(count) => Stop::Messages(count.get()),
                None => Stop::Seconds(self.seconds.get()),
            },
            warmup_seconds: self.warmup_seconds,
            style,
            cores: self.cores.map_or(Vec::new(), |cores| cores.0),
            threads: self.threads.get() as usize,
            spin: self.spin,
            group: TOPIC.to_owned(),
            members: 1,
            pull_batch: 32,
            from: From::First,
            verify: false,
            allow_reorder: false,
            lag_max: nanos(self.max_lag_ms),
            broker_pid: self.broker_pid,
            broker_data: self.broker_data,
            drop_caches: false,
            ramp: Ramp {
                from: 1000.0,
                to: 1000.0,
                p99_max: 0,
            },
            output: Output {
                label: self.output.label,
                json: self.output.json,
                csv: self.output.csv,
                plot: self.output.plot,
                quiet: self.output.quiet,
            },
        }
    }
}

fn nanos(ms: f64) -> u64 {
    (ms * 1e6) as u64
}

fn clamped(count: NonZeroU32) -> i32 {
    i32::try_from(count.get()).unwrap_or(i32::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::{check_refused, run};
    use super::super::{Command, Refusal};
    use super::*;

    pub(in crate::cli) fn plan(line: &str) -> Plan {
        match run(line) {
            Ok(Command::Bench(plan)) => *plan,
            Ok(other) => panic!("{line} gave {other:?}"),
            Err(Refusal::Usage(error)) => panic!("{line} gave {error}"),
            Err(Refusal::Config(error)) => panic!("{line} gave {error}"),
        }
    }

    #[test]
    fn loads_have_defaults() {
        let send = plan("orbitmq bench send --topic T --depth 8 --codec binary --json --rate 100");
        assert_eq!(
            (send.style.body, send.style.batch),
            (BodySize::Fixed(1024), 1)
        );
        assert_eq!((send.queues, send.topics, send.in_flight()), (8, 1, 8));
        assert_eq!(
            (send.style.codec, send.stop),
            (frame::Codec::Binary, Stop::Seconds(10))
        );
        assert_eq!(
            send.rate,
            Rate::Open {
                per_second: 100.0,
                poisson: false
            }
        );
        assert_eq!(send.output.json.as_deref(), Some("-"));
        let pull = plan("orbitmq bench pull --count 1000 --batch 16 --core 1");
        assert_eq!((pull.pull_batch, pull.stop), (16, Stop::Messages(1000)));
        assert_eq!(
            (pull.topic.as_str(), pull.cores),
            ("orbitmq_bench", vec![1])
        );
        let topics = plan("orbitmq bench topics --cores 0,2-3");
        assert_eq!(
            (topics.topics, topics.queues, topics.cores),
            (1000, 4, vec![0, 2, 3])
        );
        assert_eq!(plan("orbitmq bench batch").style.batch, 32);
        let e2e = plan("orbitmq bench e2e --members 3 --rate 10 --poisson --tags a,b");
        assert_eq!(
            (e2e.members, e2e.style.tags.len(), e2e.in_flight()),
            (3, 2, 8192)
        );
        let ramp = plan("orbitmq bench ramp --p99-ms 2.5 --from-rate 500");
        assert_eq!((ramp.ramp.p99_max, ramp.ramp.from), (2_500_000, 500.0));
    }

    #[test]
    fn mistakes_are_named() {
        check_refused("orbitmq bench send --in-flight 0", "--in-flight");
        check_refused(
            "orbitmq bench send --count 1 --seconds 2",
            "cannot be used with",
        );
        check_refused(
            "orbitmq bench send --rate 1 --closed",
            "cannot be used with",
        );
        check_refused("orbitmq bench send --poisson", "--rate");
        check_refused("orbitmq bench send --body-bytes 9-1", "above the last");
        check_refused("orbitmq bench send --cores 3-1", "no list of cores");
        check_refused("orbitmq bench send --property x", "KEY=VALUE");
        check_refused("orbitmq bench pull --verify", "--verify");
        check_refused("orbitmq bench report", "FILE.json");
        check_refused("orbitmq bench report a.json", "--html");
        check_refused("orbitmq bench plot a.csv --x a --out b", "--y");
    }
}
