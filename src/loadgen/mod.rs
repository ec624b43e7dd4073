//! Puts load on a cluster, ours or Java RocketMQ, and measures what it does.
//!
//! One thread and one connection per worker, all on the core the user names; requests are
//! pipelined up to a depth. Without a rate the load is *closed*: the next request waits for an
//! answer, and latency counts from the moment of sending. With a rate it is *open*: each message
//! has a moment when it is due, latency counts from there, and a worker that is late shows as
//! latency, not as fewer messages.
//!
//! Not here: what a client library adds (heartbeats, retries, rebalancing). A refused request is
//! counted by its code and never repeated.

pub mod ceiling;
mod find;
mod link;
mod pipe;
mod pull;
mod report;
mod send;
mod tally;

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::client::route::BrokerRoute;
use crate::remoting::frame::Codec;
use crate::shard::clock::Clock;
use report::Setting;
use tally::{Live, Tally};

/// Workers begin together, so long after the last is made.
const START_DELAY_NS: u64 = 20_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// What every load needs.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`, the first that answers counts.
    pub name_servers: Vec<String>,
    pub topic: String,
    /// To each broker.
    pub connections: usize,
    /// Requests on each connection.
    pub in_flight: usize,
    pub stop: Stop,
    pub warmup_seconds: u32,
    pub codec: Codec,
    pub core: Option<usize>,
    /// Report as JSON.
    pub json: bool,
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// After so many messages.
    Messages(u64),
    Seconds(u32),
}

#[derive(Clone, Debug)]
pub struct SendLoad {
    pub target: Target,
    pub body_bytes: usize,
    /// Messages in a request; more than one is a batch.
    pub batch: usize,
    /// Queues of the topic if it has to be created.
    pub queues: u32,
    /// Messages per second in all.
    pub rate: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct PullLoad {
    pub target: Target,
    pub group: String,
    /// Messages asked for in a request.
    pub batch: usize,
}

#[derive(Clone, Debug)]
pub enum Load {
    Send(SendLoad),
    Pull(PullLoad),
}

/// Moments of a run, nanoseconds of its clock.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    start: u64,
    /// Answers from here on count.
    measure: u64,
    /// Nothing new is asked from here on.
    end: u64,
}

impl Schedule {
    fn counts(&self, now: u64) -> bool {
        (self.measure..=self.end).contains(&now)
    }
}

/// Runs the load and prints the report.
///
/// # Errors
/// A sentence: nobody to talk to, no route, a connection that broke, or requests that were refused.
pub fn run(load: &Load) -> Result<(), String> {
    let target = match load {
        Load::Send(send) => &send.target,
        Load::Pull(pull) => &pull.target,
    };
    pin(target.core)?;
    let brokers = match load {
        Load::Send(send) => find::writable(send)?,
        Load::Pull(pull) => find::readable(&pull.target)?,
    };
    let clock = Clock::start();
    let workers = brokers.len() * target.connections;
    let live = Arc::new(Live::default());
    let (sender, results) = mpsc::channel();
    let mut jobs: Vec<Job> = Vec::new();
    for index in 0..workers {
        let broker = &brokers[index % brokers.len()];
        let place = Place {
            index,
            workers,
            peer: index / brokers.len(),
        };
        let live = live.clone();
        match load {
            Load::Send(send) => {
                let worker = send::Worker::connect(send, broker, place, clock, live)?;
                jobs.push(Box::new(move |schedule| worker.run(schedule)));
            }
            Load::Pull(pull) => {
                let worker = pull::Worker::connect(pull, broker, place, clock, live)?;
                jobs.push(Box::new(move |schedule| worker.run(schedule)));
            }
        }
    }
    let schedule = schedule(target, clock.nanos());
    for job in jobs {
        let sender = sender.clone();
        // The receiver outlives the workers unless the run has failed already.
        std::thread::spawn(move || drop(sender.send(job(schedule))));
    }
    drop(sender);
    let tally = watch(&results, &live, clock, schedule)?;
    let setting = setting(load, &brokers);
    let text = if target.json {
        setting.json(&tally)
    } else {
        setting.table(&tally)
    };
    // A reader that has gone, as in `… | head`, is no failure of ours.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    tally.verdict()
}

/// Which of all workers one is.
#[derive(Clone, Copy, Debug)]
struct Place {
    index: usize,
    workers: usize,
    /// Its number among the connections to its broker.
    peer: usize,
}

impl Place {
    /// This worker's part of a number that all share.
    fn part(&self, whole: u64) -> u64 {
        let (index, workers) = (self.index as u64, self.workers as u64);
        whole / workers + u64::from(index < whole % workers)
    }
}

/// What one worker thread does.
type Job = Box<dyn FnOnce(Schedule) -> Result<Tally, String> + Send>;

fn pin(core: Option<usize>) -> Result<(), String> {
    let Some(id) = core else {
        return Ok(());
    };
    // Threads started later inherit it.
    let usable = core_affinity::get_core_ids().unwrap_or_default();
    let core = usable.into_iter().find(|core| core.id == id);
    match core.is_some_and(core_affinity::set_for_current) {
        true => Ok(()),
        false => Err(format!(
            "core {id} cannot be used: it is not there or not allowed"
        )),
    }
}

fn schedule(target: &Target, now: u64) -> Schedule {
    let start = now + START_DELAY_NS;
    let measure = start + u64::from(target.warmup_seconds) * SECOND_NS;
    let end = match target.stop {
        Stop::Messages(_) => u64::MAX,
        Stop::Seconds(seconds) => measure + u64::from(seconds) * SECOND_NS,
    };
    Schedule {
        start,
        measure,
        end,
    }
}

/// One line a second until all workers are done; their tallies in one.
fn watch(
    results: &mpsc::Receiver<Result<Tally, String>>,
    live: &Live,
    clock: Clock,
    schedule: Schedule,
) -> Result<Tally, String> {
    let mut whole = Tally::default();
    let mut before = live.read();
    let mut next = schedule.start + SECOND_NS;
    loop {
        let now = clock.nanos();
        match results.recv_timeout(Duration::from_nanos(next.saturating_sub(now))) {
            Ok(result) => whole.merge(&result?),
            Err(RecvTimeoutError::Disconnected) => return Ok(whole),
            Err(RecvTimeoutError::Timeout) => {
                let read = live.read();
                let mut line = String::new();
                let second = (next - schedule.start) / SECOND_NS;
                let warm = if next <= schedule.measure {
                    "  warm-up"
                } else {
                    ""
                };
                let (messages, bytes) = (read.0 - before.0, (read.1 - before.1) as f64 / 1e6);
                let _ = write!(
                    line,
                    "{second:>4} s  {messages:>10} msg/s  {bytes:>8.1} MB/s"
                );
                let _ = writeln!(line, "  failed {}{warm}", read.2);
                let _ = std::io::stderr().write_all(line.as_bytes());
                before = read;
                next += SECOND_NS;
            }
        }
    }
}

fn setting<'a>(load: &'a Load, brokers: &[BrokerRoute]) -> Setting<'a> {
    let (target, kind, body_bytes, batch, rate) = match load {
        Load::Send(s) => (&s.target, "send", Some(s.body_bytes), s.batch, s.rate),
        Load::Pull(p) => (&p.target, "pull", None, p.batch, None),
    };
    Setting {
        kind,
        target,
        body_bytes,
        batch,
        rate,
        brokers: brokers.len(),
    }
}

#[cfg(test)]
mod tests;
