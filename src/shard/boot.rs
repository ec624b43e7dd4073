//! Start and stop of the whole process.
//!
//! Start: check the host, bind, make all machines (they recover, each on its own thread), listen,
//! join the mesh, serve, call `ready`. A failure anywhere before that undoes the rest and is one
//! sentence. Stop: close the doors, tell every machine, wait until all have drained or the time is
//! up, close connections, join threads. The calling thread only directs.

use super::bell::Bell;
use super::checks::{self, Lock};
use super::clock::Clock;
use super::executor::{Engine, Executor};
use super::helpers::Helpers;
use super::mesh::weave;
use super::net::Door;
use super::signals;
use super::team::{Part, Team};
use super::{Cores, Fleet, Options, Stats};
use crate::base::ShardId;
use crate::base::id::SHARDS_MAX;
use crate::machine::Machine;
use core_affinity::CoreId;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// What executors are told to do.
pub const SERVE: u8 = 0;
pub const STOP: u8 = 1;
pub const END: u8 = 2;

/// What `ready` is told.
pub struct Running {
    /// Addresses of the broker, then of the name server, as bound.
    pub brokers: Vec<SocketAddr>,
    pub namesrv: Vec<SocketAddr>,
    pub stopper: Stopper,
}

/// Stops the process as a signal would.
#[derive(Clone)]
pub struct Stopper {
    reports: Sender<Report>,
}

impl Stopper {
    /// The first call drains, the second ends at once.
    pub fn stop(&self) {
        // Nobody listens any more once `run` has returned.
        let _ = self.reports.send(Report::Stop);
    }
}

enum Report {
    Made(Result<(), String>),
    Serving,
    Drained,
    Stop,
    /// An executor thread is gone.
    Ended,
}

/// Runs the machines until they are stopped; gives what was counted. `begin` is called once the
/// host is checked, the data directory taken and every address bound: before that nothing is
/// created that an error would leave behind. `ready` is called once, when everything serves. An
/// error says why nothing was started, or why it did not end well.
pub fn run<B, N>(
    options: Options,
    data_dir: &Path,
    brokers: Option<Fleet<B>>,
    namesrv: Option<Fleet<N>>,
    begin: impl FnOnce() -> Result<(), String>,
    ready: impl FnOnce(Running),
) -> Result<Stats, String>
where
    B: Machine + 'static,
    N: Machine + 'static,
{
    let shards = brokers.as_ref().map_or(1, |set| set.dirs.len());
    assert!(
        (1..=usize::from(SHARDS_MAX)).contains(&shards),
        "a broker has 1 to 256 shards"
    );
    let executors = options.cores.count().min(shards);
    let mut lock = checks::prepare(data_dir)?;
    let doors = Doors {
        brokers: bind(&brokers)?,
        namesrv: bind(&namesrv)?,
    };
    begin()?;
    lock.keep();
    let (reports, inbox) = channel();
    if options.signals {
        watch_signals(reports.clone())?;
    }
    let mut crew = Crew {
        members: Vec::new(),
        inbox,
        clock: Clock::start(),
        lock,
    };
    let bells = bells(executors)?;
    let mut namesrv = namesrv
        .map(|set| split(set, &bells[..1]))
        .into_iter()
        .flatten();
    let mut brokers = brokers.map(|set| split(set, &bells)).into_iter().flatten();
    let (places, spare) = place(&options.cores, executors);
    for ((executor, core), bell) in places.into_iter().enumerate().zip(bells) {
        let (go, start) = channel();
        let phase = Arc::new(AtomicU8::new(SERVE));
        let seat = Seat {
            core,
            helpers: Helpers::start(&format!("shard-{executor}"), bell.clone(), &spare)?,
            bell: bell.clone(),
            options: options.clone(),
            clock: crew.clock,
            brokers: brokers.next(),
            namesrv: namesrv.next(),
            phase: phase.clone(),
            start,
            reporter: Reporter(reports.clone()),
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{executor}"))
            .spawn(move || live(seat))
            .map_err(|e| format!("executor {executor} does not start: {e}"))?;
        crew.members.push(Member {
            phase,
            bell,
            go: Some(go),
            thread,
        });
    }
    crew.direct(doors, Stopper { reports }, options.drain, ready)
}

fn bells(executors: usize) -> Result<Vec<Arc<Bell>>, String> {
    let bells = (0..executors).map(|_| Bell::new().map(Arc::new));
    bells
        .collect::<Result<_, _>>()
        .map_err(|e| format!("no eventfd: {e}"))
}

struct Doors {
    brokers: Vec<Door>,
    namesrv: Vec<Door>,
}

fn bind<M: Machine>(set: &Option<Fleet<M>>) -> Result<Vec<Door>, String> {
    let Some(set) = set else {
        return Ok(Vec::new());
    };
    let doors = set.listen.iter().map(|addr| Door::bind(*addr));
    doors
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{}: {e}", set.name))
}

/// Deals the machines of a fleet out to executors.
fn split<M: Machine>(set: Fleet<M>, bells: &[Arc<Bell>]) -> Vec<Part<M>> {
    let executors = bells.len();
    let shards = set.dirs.len() as u16;
    let mut dirs: Vec<Vec<(ShardId, PathBuf)>> = vec![Vec::new(); executors];
    for (shard, path) in set.dirs.into_iter().enumerate() {
        dirs[shard % executors].push((ShardId(shard as u16), path));
    }
    let dealt = dirs.into_iter().zip(weave(bells)).enumerate();
    let part = |(executor, (dirs, ends))| Part {
        make: set.make.clone(),
        dirs,
        shards,
        executor,
        ends,
    };
    dealt.map(part).collect()
}

/// The core of each executor, if they are pinned, and those left for helper threads.
fn place(cores: &Cores, executors: usize) -> (Vec<Option<usize>>, Vec<usize>) {
    let floating = (vec![None; executors], Vec::new());
    let Cores::Pinned(cores) = cores else {
        return floating;
    };
    let usable = core_affinity::get_core_ids().unwrap_or_default();
    let usable: Vec<usize> = usable.iter().map(|core| core.id).collect();
    let taken = &cores[..executors.min(cores.len())];
    if taken.len() < executors || !taken.iter().all(|core| usable.contains(core)) {
        tracing::warn!(
            ?cores,
            ?usable,
            "not all cores may be used: executors are not pinned"
        );
        return floating;
    }
    let spare = usable.iter().copied();
    let spare = spare.filter(|core| !taken.contains(core)).collect();
    (taken.iter().copied().map(Some).collect(), spare)
}

fn watch_signals(reports: Sender<Report>) -> Result<(), String> {
    signals::watch(move || reports.send(Report::Stop).is_ok())
}

/// The executors, seen from the directing thread.
struct Crew {
    members: Vec<Member>,
    inbox: Receiver<Report>,
    clock: Clock,
    lock: Lock,
}

enum Drain {
    Done,
    /// The time was up.
    Late,
    /// A second stop.
    Stopped,
    /// An executor thread is gone.
    Ended,
}

/// Why a start came to nothing.
enum NoStart {
    Because(String),
    /// An executor thread is gone; its result says more.
    Ended,
    /// Somebody wants us to end, now.
    Stopped,
}

impl From<String> for NoStart {
    fn from(reason: String) -> Self {
        NoStart::Because(reason)
    }
}

struct Member {
    phase: Arc<AtomicU8>,
    bell: Arc<Bell>,
    /// Dropped instead of used if the start fails.
    go: Option<Sender<Doors>>,
    thread: JoinHandle<Result<Stats, String>>,
}

impl Crew {
    fn direct(
        mut self,
        doors: Doors,
        stopper: Stopper,
        drain: Duration,
        ready: impl FnOnce(Running),
    ) -> Result<Stats, String> {
        match self.start(doors, stopper, ready) {
            Ok(()) => {}
            // Recovery can be left at any time, as a crash would.
            Err(NoStart::Stopped) => return Err(self.abandon("stopped before it was ready")),
            Err(no_start) => {
                self.members.iter_mut().for_each(|member| member.go = None);
                self.tell(END);
                let ended = self.join();
                return Err(match (no_start, ended) {
                    (NoStart::Because(reason), _) | (_, Err(reason)) => reason,
                    _ => "an executor ended early".to_owned(),
                });
            }
        }
        let orderly = self.wait_for_stop();
        self.tell(STOP);
        match self.wait_until_drained(drain) {
            Drain::Done if orderly => {
                self.tell(END);
                self.join()
            }
            Drain::Done | Drain::Ended => Err(self.abandon("an executor ended early")),
            Drain::Late => {
                self.tell(END);
                let late = format!("not everything was done {drain:?} after the stop");
                Err(self.abandon(&late))
            }
            Drain::Stopped => Err(self.abandon("ended at once by a second stop")),
        }
    }

    /// Leaves threads behind that may still write. The lock stays until the process ends, so that
    /// nobody else writes beside them.
    fn abandon(self, reason: &str) -> String {
        std::mem::forget(self.lock);
        reason.to_owned()
    }

    fn start(
        &mut self,
        doors: Doors,
        stopper: Stopper,
        ready: impl FnOnce(Running),
    ) -> Result<(), NoStart> {
        for _ in 0..self.members.len() {
            self.await_start(|report| match report {
                Report::Made(result) => Some(result),
                _ => None,
            })?;
        }
        let addresses = |doors: &[Door]| doors.iter().map(|door| door.addr).collect();
        let running = Running {
            brokers: addresses(&doors.brokers),
            namesrv: addresses(&doors.namesrv),
            stopper,
        };
        for door in doors.brokers.iter().chain(&doors.namesrv) {
            door.listen()?;
        }
        let mut doors = Some(doors);
        for member in &mut self.members {
            let empty = Doors {
                brokers: Vec::new(),
                namesrv: Vec::new(),
            };
            let go = member.go.take().expect("an executor starts once");
            // A lost executor has reported its end, which the next loop reads.
            let _ = go.send(doors.take().unwrap_or(empty));
        }
        for _ in 0..self.members.len() {
            self.await_start(|report| match report {
                Report::Serving => Some(Ok(())),
                _ => None,
            })?;
        }
        ready(running);
        Ok(())
    }

    /// Waits for the report that `wanted` picks.
    fn await_start(
        &self,
        wanted: impl Fn(Report) -> Option<Result<(), String>>,
    ) -> Result<(), NoStart> {
        loop {
            match self
                .inbox
                .recv()
                .expect("the stopper keeps the channel open")
            {
                Report::Ended => return Err(NoStart::Ended),
                Report::Stop => return Err(NoStart::Stopped),
                report => {
                    if let Some(result) = wanted(report) {
                        return Ok(result?);
                    }
                }
            }
        }
    }

    /// True if somebody asked; false if an executor is gone.
    fn wait_for_stop(&self) -> bool {
        loop {
            match self.inbox.recv() {
                Ok(Report::Stop) => return true,
                Ok(Report::Ended) | Err(_) => return false,
                Ok(_) => {}
            }
        }
    }

    fn wait_until_drained(&self, drain: Duration) -> Drain {
        let until = self.clock.now().mono.after_ms(drain.as_millis() as u64);
        let mut busy = self.members.len();
        while busy > 0 {
            let left_ms = until.since_ms(self.clock.now().mono);
            match self.inbox.recv_timeout(Duration::from_millis(left_ms)) {
                Ok(Report::Drained) => busy -= 1,
                Ok(Report::Stop) => return Drain::Stopped,
                Ok(Report::Ended) | Err(RecvTimeoutError::Disconnected) => return Drain::Ended,
                Ok(Report::Made(_) | Report::Serving) => {}
                Err(RecvTimeoutError::Timeout) => return Drain::Late,
            }
        }
        Drain::Done
    }

    fn tell(&self, phase: u8) {
        for member in &self.members {
            member.phase.store(phase, Ordering::Release);
            member.bell.ring();
        }
    }

    fn join(self) -> Result<Stats, String> {
        let mut all = Stats::default();
        let mut failed = None;
        for member in self.members {
            match member.thread.join() {
                Ok(Ok(stats)) => all.add(&stats),
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(_) => failed = failed.or(Some("an executor panicked".to_owned())),
            }
        }
        failed.map_or(Ok(all), Err)
    }
}

/// What an executor thread is given.
struct Seat<B: Machine, N: Machine> {
    core: Option<usize>,
    helpers: Helpers,
    bell: Arc<Bell>,
    options: Options,
    clock: Clock,
    brokers: Option<Part<B>>,
    namesrv: Option<Part<N>>,
    phase: Arc<AtomicU8>,
    start: Receiver<Doors>,
    reporter: Reporter,
}

/// What the directing thread hears of an executor; says so, too, when its thread ends, however that
/// happens.
pub struct Reporter(Sender<Report>);

impl Reporter {
    fn report(&self, report: Report) {
        // Nobody listens any more once `run` has returned.
        let _ = self.0.send(report);
    }

    pub fn serving(&self) {
        self.report(Report::Serving);
    }

    pub fn drained(&self) {
        self.report(Report::Drained);
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.report(Report::Ended);
    }
}

/// The life of an executor.
fn live<B: Machine, N: Machine>(seat: Seat<B, N>) -> Result<Stats, String> {
    if let Some(id) = seat.core
        && !core_affinity::set_for_current(CoreId { id })
    {
        tracing::warn!(
            core = id,
            "the core may not be used: this executor is not pinned"
        );
    }
    let (clock, options) = (seat.clock, seat.options);
    let reporter = seat.reporter;
    let make = || {
        let brokers = seat
            .brokers
            .map(|part| Team::make(part, 0, clock, &options));
        let namesrv = seat
            .namesrv
            .map(|part| Team::make(part, 1, clock, &options));
        let (brokers, namesrv) = (brokers.transpose()?, namesrv.transpose()?);
        let engine = Engine::new(clock, options, seat.helpers, seat.bell)?;
        Ok(Executor::new(engine, brokers, namesrv))
    };
    let executor = match make() {
        Ok(executor) => executor,
        Err(error) => {
            reporter.report(Report::Made(Err(error)));
            return Ok(Stats::default());
        }
    };
    reporter.report(Report::Made(Ok(())));
    let Ok(doors) = seat.start.recv() else {
        return Ok(Stats::default());
    };
    executor.run(doors.brokers, doors.namesrv, &seat.phase, &reporter)
}
