//! Start and stop of the whole process.
//!
//! Start: check the host, bind, make all machines (they recover, each on its own thread), listen,
//! join the mesh, serve, call `ready`. A failure anywhere before that undoes the rest and is one
//! sentence. Stop: close the doors, tell every machine, wait until all have drained or the time is
//! up, close connections, join threads. The calling thread only directs.

use super::bell::Bell;
use super::checks::{self, Lock};
use super::clock::Clock;
use super::mesh::weave;
use super::net::Door;
use super::pace::{self, Pace, heartbeat_loop, pace_loop};
use super::team::{Around, Part, Team};
use super::{Cores, Fleet, Options, Stats};
use crate::base::ShardId;
use crate::base::id::SHARDS_MAX;
use crate::machine::Machine;
use futures_lite::io::AsyncReadExt;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Threads per executor for work on files and for name look-ups.
const HELPERS: usize = 2;

const SERVE: u8 = 0;
const STOP: u8 = 1;
const END: u8 = 2;

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
    let mut lock = checks::prepare(data_dir, (executors * options.io_memory_bytes) as u64)?;
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
    let places = place(&options.cores, executors);
    let mut crew = Crew {
        members: Vec::new(),
        inbox,
        clock: Clock::start(),
        lock,
    };
    let mut namesrv = namesrv.map(|set| split(set, 1)).into_iter().flatten();
    let mut brokers = brokers
        .map(|set| split(set, executors))
        .into_iter()
        .flatten();
    for (executor, place) in places.into_iter().enumerate() {
        let (go, start) = channel();
        let (wake, woken) = UnixStream::pair().map_err(|e| format!("no socket pair: {e}"))?;
        let phase = Arc::new(AtomicU8::new(SERVE));
        let seat = Seat {
            executor,
            options: options.clone(),
            clock: crew.clock,
            data_dir: data_dir.to_owned(),
            brokers: brokers.next(),
            namesrv: namesrv.next(),
            phase: phase.clone(),
            woken,
            start,
            reporter: Reporter(reports.clone()),
        };
        let thread = builder(&options, place, executor)
            .spawn(move || live(seat))
            .map_err(|e| format!("executor {executor} does not start: {e}"))?;
        crew.members.push(Member {
            phase,
            wake,
            go: Some(go),
            thread,
        });
    }
    crew.direct(doors, Stopper { reports }, options.drain, ready)
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
fn split<M: Machine>(set: Fleet<M>, executors: usize) -> Vec<Part<M>> {
    let shards = set.dirs.len() as u16;
    let mut dirs: Vec<Vec<(ShardId, PathBuf)>> = vec![Vec::new(); executors];
    for (shard, path) in set.dirs.into_iter().enumerate() {
        dirs[shard % executors].push((ShardId(shard as u16), path));
    }
    let dealt = dirs.into_iter().zip(weave(executors)).enumerate();
    let part = |(executor, (dirs, ends))| Part {
        make: set.make.clone(),
        dirs,
        shards,
        executor,
        executors,
        ends,
    };
    dealt.map(part).collect()
}

/// Where each executor runs, and where its helper threads do.
fn place(cores: &Cores, executors: usize) -> Vec<(Placement, PoolPlacement)> {
    let usable: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .iter()
        .map(|core| core.id)
        .collect();
    let floating = (Placement::Unbound, PoolPlacement::Unbound(HELPERS));
    let Cores::Pinned(cores) = cores else {
        return vec![floating; executors];
    };
    let taken = &cores[..executors.min(cores.len())];
    if taken.len() < executors || !taken.iter().all(|core| usable.contains(core)) {
        tracing::warn!(
            ?cores,
            ?usable,
            "not all cores may be used: executors are not pinned"
        );
        return vec![floating; executors];
    }
    let beside = glommio::CpuSet::online()
        .map(|set| set.filter(|at| usable.contains(&at.cpu) && !taken.contains(&at.cpu)))
        .ok()
        .filter(|set| !set.is_empty());
    let helpers = match beside {
        Some(set) => PoolPlacement::Fenced(HELPERS, set),
        None => PoolPlacement::Unbound(HELPERS),
    };
    taken
        .iter()
        .map(|core| (Placement::Fixed(*core), helpers.clone()))
        .collect()
}

fn builder(
    options: &Options,
    (placement, helpers): (Placement, PoolPlacement),
    executor: usize,
) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{executor}"))
        .preempt_timer(pace::NEVER)
        .spin_before_park(options.spin)
        .io_memory(options.io_memory_bytes)
        .blocking_thread_pool_placement(helpers)
}

/// SIGTERM and SIGINT become `Report::Stop`. They are blocked here and so in every thread started
/// later; one thread takes them.
fn watch_signals(reports: Sender<Report>) -> Result<(), String> {
    let fail = || {
        format!(
            "signals cannot be watched: {}",
            std::io::Error::last_os_error()
        )
    };
    // SAFETY: a zeroed sigset_t is a valid argument to be filled; all pointers live across the
    // calls, which keep none of them.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        if libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
            return Err(fail());
        }
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC)
    };
    if fd < 0 {
        return Err(fail());
    }
    // SAFETY: the descriptor was just made and nobody else knows it.
    let mut signals = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let watch = move || {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        while signals.read_exact(&mut info).is_ok() && reports.send(Report::Stop).is_ok() {}
    };
    let spawned = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch);
    spawned
        .map(|_| ())
        .map_err(|e| format!("signals cannot be watched: {e}"))
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
    wake: UnixStream,
    /// Dropped instead of used if the start fails.
    go: Option<Sender<Doors>>,
    thread: ExecutorJoinHandle<Result<Stats, String>>,
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
            // An executor that is gone needs no waking.
            let _ = (&member.wake).write_all(&[phase]);
        }
    }

    fn join(self) -> Result<Stats, String> {
        let mut all = Stats::default();
        let mut failed = None;
        for member in self.members {
            match member.thread.join() {
                Ok(Ok(stats)) => all.add(&stats),
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(e) => failed = failed.or(Some(format!("an executor failed: {e}"))),
            }
        }
        failed.map_or(Ok(all), Err)
    }
}

/// What an executor thread is given.
struct Seat<B: Machine, N: Machine> {
    executor: usize,
    options: Options,
    clock: Clock,
    data_dir: PathBuf,
    brokers: Option<Part<B>>,
    namesrv: Option<Part<N>>,
    phase: Arc<AtomicU8>,
    woken: UnixStream,
    start: Receiver<Doors>,
    reporter: Reporter,
}

/// Says so when its thread ends, however that happens.
struct Reporter(Sender<Report>);

impl Reporter {
    fn report(&self, report: Report) {
        // Nobody listens any more once `run` has returned.
        let _ = self.0.send(report);
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.report(Report::Ended);
    }
}

/// The life of an executor.
async fn live<B, N>(seat: Seat<B, N>) -> Result<Stats, String>
where
    B: Machine + 'static,
    N: Machine + 'static,
{
    let Seat {
        executor,
        clock,
        phase,
        woken,
        start,
        reporter,
        ..
    } = seat;
    let around = Around {
        pace: Rc::new(Pace::new(clock, seat.options.round)),
        options: Rc::new(seat.options),
        clock,
        drain: Rc::default(),
    };
    let pacer = glommio::spawn_local(pace_loop(around.pace.clone()));
    let heart = glommio::spawn_local(heartbeat_loop(around.pace.clone()));
    let made = async {
        checks::polling_trap(&seat.data_dir, executor).await?;
        let brokers = seat.brokers.map(|part| Team::make(part, &around));
        let namesrv = seat.namesrv.map(|part| Team::make(part, &around));
        Ok((brokers.transpose()?, namesrv.transpose()?))
    };
    let (brokers, namesrv) = match made.await {
        Ok(teams) => teams,
        Err(error) => {
            reporter.report(Report::Made(Err(error)));
            return Ok(Stats::default());
        }
    };
    reporter.report(Report::Made(Ok(())));
    // Blocking is right: until all machines are made, nothing else happens on this thread.
    let Ok(doors) = start.recv() else {
        return Ok(Stats::default());
    };
    let teams = Rc::new((brokers, namesrv));
    if let Some(team) = &teams.0 {
        team.start().await;
        team.accept(doors.brokers);
    }
    if let Some(team) = &teams.1 {
        team.start().await;
        team.accept(doors.namesrv);
    }
    let reporter = Rc::new(reporter);
    glommio::spawn_local(watch_ready(teams.clone(), reporter.clone())).detach();
    let watching = Cell::new(None);
    obey(&phase, woken, || {
        teams.0.iter().for_each(|team| team.stop());
        teams.1.iter().for_each(|team| team.stop());
        let watch = watch_drain(teams.clone(), around.drain.clone(), reporter.clone());
        watching.set(Some(glommio::spawn_local(watch)));
    })
    .await;
    drop(watching);
    let mut stats = Stats::default();
    if let Some(team) = &teams.0 {
        stats.add(&team.end().await);
    }
    if let Some(team) = &teams.1 {
        stats.add(&team.end().await);
    }
    drop((pacer, heart));
    Ok(stats)
}

/// Returns when the end is ordered; calls `stop` once when a stop is.
async fn obey(phase: &AtomicU8, woken: UnixStream, stop: impl FnOnce()) {
    // SAFETY: the descriptor is a stream socket that nobody else owns: it was just given up.
    let mut woken = unsafe { glommio::net::UnixStream::from_raw_fd(woken.into_raw_fd()) };
    let mut stop = Some(stop);
    let mut byte = [0];
    // The end of the stream means that the directing thread is gone.
    while let Ok(1) = woken.read(&mut byte).await {
        match phase.load(Ordering::Acquire) {
            STOP => {
                if let Some(stop) = stop.take() {
                    stop();
                }
            }
            END => return,
            _ => {}
        }
    }
}

/// How often machines are asked at the start whether they can serve.
const READY_POLL: Duration = Duration::from_millis(1);

/// Reports once all machines here can serve.
async fn watch_ready<B, N>(teams: Rc<Teams<B, N>>, reporter: Rc<Reporter>)
where
    B: Machine + 'static,
    N: Machine + 'static,
{
    let ready = || {
        teams.0.as_ref().is_none_or(|team| team.ready())
            && teams.1.as_ref().is_none_or(|team| team.ready())
    };
    while !ready() {
        glommio::timer::sleep(READY_POLL).await;
    }
    reporter.report(Report::Serving);
}

type Teams<B, N> = (Option<Rc<Team<B>>>, Option<Rc<Team<N>>>);

async fn watch_drain<B, N>(teams: Rc<Teams<B, N>>, drain: Rc<Bell>, reporter: Rc<Reporter>)
where
    B: Machine + 'static,
    N: Machine + 'static,
{
    let drained = || {
        teams.0.as_ref().is_none_or(|team| team.drained())
            && teams.1.as_ref().is_none_or(|team| team.drained())
    };
    while !drained() {
        drain.wait().await;
    }
    reporter.report(Report::Drained);
}
