//! One phase of a run: connections are made and dealt to threads, the threads run, what they
//! report becomes one result.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::desk::{Desk, Moments, Shared};
use super::find::{Field, Place};
use super::hand::{End, Hand, Issue, Report, Tools, Until};
use super::haul::Timing;
use super::interrupt::Interrupt;
use super::letter::{Form, Letter};
use super::outcome::{BrokerCost, Second};
use super::pace::{Chance, Later, Pacer};
use super::plan::{Due, LEVELS_MS, Plan, Pop, Rate, Stop, Workload};
use super::proc::{BrokerWatch, MachineTime};
use super::progress::Progress;
use super::tally::{Count, Lap, Times};
use super::turn::SLEEP_NS_MAX;
use super::verify::Ledger;
use crate::shard::clock::Clock;

const SECOND_NS: u64 = 1_000_000_000;
const MS_NS: u64 = 1_000_000;
/// Threads begin together, so long after the last is made.
const START_DELAY_NS: u64 = 20_000_000;
/// So long a group is given to deal its queues before something is sent.
const SETTLE_NS: u64 = SECOND_NS;
const WATCH_STEP: Duration = Duration::from_millis(50);

/// Who reads in a phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consume {
    Nobody,
    /// So many connections to each broker.
    Pull(usize),
    /// A group of so many members.
    Push(usize),
    /// So many connections to each broker that pop.
    Pop(usize, Pop),
}

/// What is done in one phase.
#[derive(Clone, Debug)]
pub struct Phase {
    pub name: &'static str,
    /// Names of what is counted.
    pub parts: Vec<&'static str>,
    pub warmup_seconds: u32,
    pub stop: Stop,
    pub send: Option<Rate>,
    /// Number of the part that sends are counted in.
    pub send_part: usize,
    pub consume: Consume,
    /// `None`: what comes is only checked.
    pub consume_part: Option<usize>,
    pub timing: Timing,
    pub until: Until,
    /// By queue: where consumers begin, and where they end.
    pub begin: Vec<i64>,
    pub end: Vec<i64>,
    /// Consumers begin there whatever the broker remembers.
    pub ignore_stored: bool,
    pub verify: bool,
}

/// What a phase gave.
#[derive(Default)]
pub struct Done {
    pub counts: Vec<Count>,
    pub timelines: Vec<Vec<Second>>,
    pub seconds: Vec<f64>,
    pub lag: Option<Times>,
    pub held: u64,
    pub unsent: u64,
    pub unanswered: u64,
    /// Processor time of all threads, nanoseconds.
    pub cpu: u64,
    /// Of the busiest thread: share of the time it had a core, and had or wanted one.
    pub ran: f64,
    pub wanted: f64,
    pub steal: f64,
    pub cost: Option<BrokerCost>,
    pub ledger: Option<Ledger>,
    pub broken: Option<String>,
    /// Somebody ended it early.
    pub interrupted: bool,
}

/// What all phases of a run share.
pub struct Crew<'a> {
    pub plan: &'a Plan,
    pub field: Field,
    pub clock: Clock,
    pub wall_zero_ms: i64,
    /// Marks this run's messages.
    pub run: u32,
    pub watch: Option<BrokerWatch>,
    /// `subVersion` of the group's subscription: wall clock at the start.
    pub version: i64,
    pub interrupt: &'a Interrupt,
}

impl Crew<'_> {
    /// Brokers that something can be sent to; for queries, that have something.
    pub fn busy(&self) -> Vec<&Place> {
        let queries = matches!(self.plan.workload, Workload::Query(_));
        let fits = |place: &&Place| {
            let mut targets = place.targets.iter();
            targets.any(|target| {
                if queries {
                    target.readable
                } else {
                    target.writable
                }
            })
        };
        self.field.places.iter().filter(fits).collect()
    }

    pub fn producers(&self) -> usize {
        self.plan.connections * self.busy().len()
    }

    /// Runs one phase to its end.
    ///
    /// # Errors
    /// A sentence: it could not begin.
    pub fn run(&mut self, phase: &Phase) -> Result<Done, String> {
        let shared = Arc::new(Shared::default());
        let (sender, reports) = mpsc::channel();
        let roles = self.muster(phase)?;
        let threads = self.threads().min(roles.len()).max(1);
        let moments = self.moments(phase);
        let mut hands = Vec::with_capacity(threads);
        for number in 0..threads {
            let tools = Tools {
                clock: self.clock,
                shared: shared.clone(),
                reports: sender.clone(),
                spin: self.plan.spin,
                issue: self.issue(phase, moments, number, threads),
                until: phase.until,
                desk: self.desk(phase, moments, number)?,
            };
            hands.push(Hand::new(tools)?);
        }
        drop(sender);
        for (at, (link, role)) in roles.into_iter().enumerate() {
            hands[at % threads].add(link.into_wire()?, role)?;
        }
        let senders = hands.iter().filter(|hand| hand.sends()).count();
        shared.senders.store(senders, Release);
        self.interrupt.measuring();
        for (number, hand) in hands.into_iter().enumerate() {
            let core = self.plan.cores.get(number).copied();
            std::thread::spawn(move || {
                pin(core);
                hand.run();
            });
        }
        Ok(self.follow(phase, moments, &reports, &shared, threads))
    }

    fn threads(&self) -> usize {
        self.plan.cores.len().max(self.plan.threads).max(1)
    }

    fn moments(&self, phase: &Phase) -> Moments {
        let start = self.clock.nanos() + START_DELAY_NS;
        let settle = match (phase.consume, phase.send) {
            (Consume::Push(_), Some(_)) => SETTLE_NS,
            _ => 0,
        };
        let measure = start + settle + u64::from(phase.warmup_seconds) * SECOND_NS;
        let end = match phase.stop {
            Stop::Messages(_) => u64::MAX,
            Stop::Seconds(seconds) => measure + u64::from(seconds) * SECOND_NS,
        };
        Moments {
            start,
            measure,
            end,
        }
    }

    /// The part of one thread in what is sent.
    fn issue(&self, phase: &Phase, moments: Moments, number: usize, threads: usize) -> Issue {
        let batch = self.plan.style.batch as u64;
        let producers = self.producers();
        // Connections are dealt in turn, so the first threads may have one more.
        let mine = producers / threads + usize::from(number < producers % threads);
        let from = load_begins(phase, moments);
        let left = match phase.stop {
            Stop::Messages(count) => share(count.div_ceil(batch), number, threads.min(producers)),
            Stop::Seconds(_) => u64::MAX,
        };
        let pacer = match phase.send {
            Some(Rate::Open {
                per_second,
                poisson,
            }) if mine > 0 => {
                let requests = per_second / batch as f64 * mine as f64 / producers as f64;
                let seed = self.plan.style.seed ^ (number as u64) << 32;
                let chance = poisson.then(|| Chance::new(seed));
                Some(Pacer::new(
                    from,
                    requests,
                    number as f64 / threads as f64,
                    chance,
                ))
            }
            _ => None,
        };
        Issue { from, pacer, left }
    }

    fn desk(&self, phase: &Phase, moments: Moments, number: usize) -> Result<Desk, String> {
        let topics = self
            .field
            .topics
            .iter()
            .map(|topic| topic.to_string())
            .collect();
        let ledger = match phase.verify {
            true => Some(Ledger::new(self.run, self.producers(), self.field.queues)?),
            false => None,
        };
        let instance = self.run.wrapping_mul(1024).wrapping_add(number as u32);
        Ok(Desk {
            now: 0,
            wall_zero_ms: self.wall_zero_ms,
            moments,
            counts: phase.parts.iter().map(|_| Count::default()).collect(),
            letter: Letter::new(self.plan.style.clone(), self.form(), topics, instance),
            later: self.later(phase, moments),
            ledger,
            run: self.run,
            stored: 0,
            arrived: 0,
        })
    }

    fn form(&self) -> Form {
        match self.plan.workload {
            Workload::Delay(delay) => match delay.due {
                Due::Level(level) => Form::Level(level),
                Due::After(_) | Due::AtOnce(_) => Form::Timed,
            },
            Workload::Transaction(_) => Form::Half,
            _ => Form::Plain,
        }
    }

    fn later(&self, phase: &Phase, moments: Moments) -> Option<Later> {
        let Workload::Delay(delay) = self.plan.workload else {
            return None;
        };
        Some(match delay.due {
            Due::After(ms) => Later::After(ms * MS_NS),
            Due::Level(level) => Later::After(LEVELS_MS[level - 1] * MS_NS),
            Due::AtOnce(ms) => Later::At(load_begins(phase, moments) + ms * MS_NS),
        })
    }

    /// Shows progress and gathers until all threads have ended.
    fn follow(
        &mut self,
        phase: &Phase,
        mut moments: Moments,
        reports: &mpsc::Receiver<Report>,
        shared: &Shared,
        threads: usize,
    ) -> Done {
        let mut done = Done {
            counts: phase.parts.iter().map(|_| Count::default()).collect(),
            ..Done::default()
        };
        let mut progress = Progress::new(phase, self.plan.output.quiet);
        let mut laps: BTreeMap<i32, Vec<Lap>> = BTreeMap::new();
        let mut machine = None;
        let (mut ended, mut sampled) = (0, 0);
        while ended < threads {
            let report = reports.recv_timeout(WATCH_STEP);
            let now = self.clock.nanos();
            if machine.is_none() && now >= moments.measure {
                machine = Some(MachineTime::read());
                self.watch.iter_mut().for_each(|watch| watch.begin(now));
            }
            if self.interrupt.is_asked() && shared.cut().is_none() {
                let cut = now + SLEEP_NS_MAX;
                moments.end = moments.end.min(cut);
                shared.cut.store(cut, Relaxed);
                done.interrupted = true;
            }
            if now > sampled + SECOND_NS {
                sampled = now;
                self.watch.iter_mut().for_each(BrokerWatch::sample);
            }
            match report {
                Ok(Report::Second { at, laps: new }) => {
                    let none = || vec![Lap::default(); new.len()];
                    let sum = laps.entry(at).or_insert_with(none).iter_mut();
                    sum.zip(&new).for_each(|(sum, lap)| sum.merge(lap));
                    let over: Vec<i32> = laps.keys().copied().filter(|key| *key < at).collect();
                    over.iter().for_each(|at| progress.second(*at, &laps[at]));
                }
                Ok(Report::Ended(end)) => {
                    ended += 1;
                    gather(&mut done, *end);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    done.broken
                        .get_or_insert("a thread of the generator failed".to_owned());
                    break;
                }
            }
        }
        let now = self.clock.nanos();
        let messages = answered(&laps);
        trim(&mut laps, phase.stop);
        laps.iter()
            .for_each(|(at, laps)| progress.second(*at, laps));
        done.steal = machine.map_or(0.0, |before| MachineTime::read().steal_since(&before));
        let watch = self.watch.as_mut();
        done.cost = watch.and_then(|watch| watch.end(now, messages));
        let broken = done.broken.is_some();
        for (part, count) in done.counts.iter().enumerate() {
            let seconds_of = laps.iter().map(|(at, laps)| laps[part].second(*at));
            done.timelines.push(seconds_of.collect());
            done.seconds.push(seconds(count, moments, broken));
        }
        done
    }
}

/// When the first message is due.
fn load_begins(phase: &Phase, moments: Moments) -> u64 {
    moments.measure - u64::from(phase.warmup_seconds) * SECOND_NS
}

fn gather(done: &mut Done, end: End) {
    for (sum, count) in done.counts.iter_mut().zip(&end.counts) {
        sum.merge(count);
    }
    match (&mut done.ledger, end.ledger) {
        (Some(sum), Some(ledger)) => sum.merge(&ledger),
        (sum @ None, ledger) => *sum = ledger,
        _ => {}
    }
    match &mut done.lag {
        Some(sum) => sum.merge(&end.lag),
        None => done.lag = Some(end.lag),
    }
    done.held += end.held;
    done.unsent += end.unsent;
    done.unanswered += end.unanswered;
    done.cpu += end.cpu;
    done.ran = done.ran.max(end.ran);
    done.wanted = done.wanted.max(end.wanted);
    if done.broken.is_none() {
        done.broken = end.broken;
    }
}

/// Messages answered since measuring began.
fn answered(laps: &BTreeMap<i32, Vec<Lap>>) -> u64 {
    let later = laps.range(0..).flat_map(|(_, laps)| laps);
    later.map(|lap| lap.messages).sum()
}

/// Leaves out what came after the end, if it is so little that it would look like a slow second.
fn trim(laps: &mut BTreeMap<i32, Vec<Lap>>, stop: Stop) {
    let Stop::Seconds(seconds) = stop else {
        return;
    };
    let few = answered(laps) / u64::from(seconds) / 10;
    let messages = |laps: &[Lap]| laps.iter().map(|lap| lap.messages).sum::<u64>();
    laps.retain(|at, laps| *at < seconds as i32 || messages(laps) > few);
}

/// How long a part was measured.
fn seconds(count: &Count, moments: Moments, broken: bool) -> f64 {
    let until = if broken || moments.end == u64::MAX {
        count.last.min(moments.end)
    } else {
        moments.end
    };
    until.saturating_sub(moments.measure) as f64 / 1e9
}

/// One of `parts` parts of a number.
fn share(whole: u64, number: usize, parts: usize) -> u64 {
    let (number, parts) = (number as u64, parts.max(1) as u64);
    whole / parts + u64::from(number < whole % parts)
}

/// Puts the calling thread on a core, and has its sleeps end on time.
fn pin(core: Option<usize>) {
    if let Some(id) = core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    // Without it sleeps are a little longer, which the lag shows.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_the_whole() {
        let shares: Vec<u64> = (0..7).map(|number| share(100, number, 7)).collect();
        assert_eq!(shares, [15, 15, 14, 14, 14, 14, 14]);
        assert_eq!(share(5, 0, 0), 5);
    }

    #[test]
    fn stragglers_are_no_second_but_a_stall_is() {
        let lap = |messages| {
            vec![Lap {
                messages,
                ..Lap::default()
            }]
        };
        let check = |last, expected| {
            let mut laps = BTreeMap::from([(-1, lap(9)), (0, lap(1000)), (1, lap(1000))]);
            laps.insert(2, lap(last));
            assert_eq!(answered(&laps), 2000 + last);
            trim(&mut laps, Stop::Seconds(2));
            assert_eq!(laps.len(), expected);
        };
        check(5, 3);
        check(500, 4);
    }

    #[test]
    fn what_is_measured_lasts_from_the_warm_up_to_the_end() {
        let moments = Moments {
            start: 0,
            measure: SECOND_NS,
            end: 3 * SECOND_NS,
        };
        let count = Count {
            last: 2 * SECOND_NS,
            ..Count::default()
        };
        assert_eq!(seconds(&count, moments, false), 2.0);
        assert_eq!(seconds(&count, moments, true), 1.0);
        let counted = Moments {
            end: u64::MAX,
            ..moments
        };
        assert_eq!(seconds(&count, counted, false), 1.0);
    }
}
