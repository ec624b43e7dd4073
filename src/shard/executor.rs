//! One thread, one core, one ring: the loop that everything on an executor runs in.
//!
//! A *round*: what the ring and the helpers have done, mail, ticks; then connections are read until
//! the time of a round is up. Whoever was touched by that settles, which sends answers and starts
//! writes. The thread sleeps in the ring, and nowhere else.
//!
//! glommio is not used here: at depth 1 its executor needs 13 `io_uring_enter` where this loop
//! needs three, and in version 0.9 it can sleep although tasks are runnable.

use super::bell::Bell;
use super::boot::{END, Reporter, STOP};
use super::clock::Clock;
use super::helpers::Helpers;
use super::net::Door;
use super::ring::Ring;
use super::team::Team;
use super::token::{Kind, Place, pack, unpack};
use super::{Options, Stats};
use crate::base::{Mono, Now};
use crate::machine::Machine;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How often limits of connections are looked at, unless they are shorter.
const SWEEP: Duration = Duration::from_secs(1);
/// How long closing connections may take at the end.
const CLOSING_MS: u64 = 1_000;

/// What all machines of an executor share.
pub struct Engine {
    pub ring: Ring,
    pub clock: Clock,
    pub options: Options,
    pub helpers: Helpers,
    bell: Arc<Bell>,
    /// Machines that something happened to since they settled, by fleet.
    touched: [Vec<bool>; 2],
    round_start_ns: u64,
}

impl Engine {
    /// For the thread that calls, and no other.
    pub fn new(
        clock: Clock,
        options: Options,
        helpers: Helpers,
        bell: Arc<Bell>,
    ) -> Result<Engine, String> {
        let ring = Ring::new().map_err(|e| {
            format!("io_uring does not start ({e}): check the limits of this process")
        })?;
        Ok(Engine {
            ring,
            clock,
            options,
            helpers,
            bell,
            touched: [Vec::new(), Vec::new()],
            round_start_ns: 0,
        })
    }

    /// The machine at `place` is to settle.
    pub fn touch(&mut self, place: Place) {
        let touched = &mut self.touched[usize::from(place.fleet)];
        let at = usize::from(place.machine);
        if touched.len() <= at {
            touched.resize(at + 1, false);
        }
        touched[at] = true;
    }

    pub fn take_touched(&mut self, fleet: u8, at: usize) -> bool {
        let touched = self.touched[usize::from(fleet)].get_mut(at);
        touched.is_some_and(std::mem::take)
    }

    /// On the clock's own scale.
    pub fn round_start_ns(&self) -> u64 {
        self.round_start_ns
    }

    /// Whether the ring should be looked at before more connections are read.
    pub fn round_is_over(&self) -> bool {
        let lasted = self.clock.nanos() - self.round_start_ns;
        u128::from(lasted) > self.options.round.as_nanos()
    }

    fn watch_bell(&mut self) {
        let token = pack(
            Kind::Bell,
            Place {
                fleet: 0,
                machine: 0,
            },
            0,
        );
        self.ring.watch(self.bell.descriptor(), libc::POLLIN, token);
    }
}

pub struct Executor<B: Machine, N: Machine> {
    pub engine: Engine,
    pub brokers: Option<Team<B>>,
    pub namesrv: Option<Team<N>>,
    next_sweep: Mono,
}

/// The same call for both teams.
macro_rules! teams {
    ($self:ident, $team:ident, $engine:ident => $call:expr) => {{
        let $engine = &mut $self.engine;
        if let Some($team) = &mut $self.brokers {
            $call;
        }
        if let Some($team) = &mut $self.namesrv {
            $call;
        }
    }};
}

impl<B: Machine, N: Machine> Executor<B, N> {
    pub fn new(engine: Engine, brokers: Option<Team<B>>, namesrv: Option<Team<N>>) -> Self {
        Executor {
            engine,
            brokers,
            namesrv,
            next_sweep: Mono(0),
        }
    }

    /// Serves until the end is ordered.
    ///
    /// # Errors
    /// A sentence: a door does not open, or the ring is broken.
    pub fn run(
        mut self,
        brokers: Vec<Door>,
        namesrv: Vec<Door>,
        phase: &AtomicU8,
        reporter: &Reporter,
    ) -> Result<Stats, String> {
        let now = self.engine.clock.now();
        if let Some(team) = &mut self.brokers {
            team.start(now, brokers, &mut self.engine)?;
        }
        if let Some(team) = &mut self.namesrv {
            team.start(now, namesrv, &mut self.engine)?;
        }
        self.engine.watch_bell();
        let (mut serving, mut stopping, mut drained) = (false, false, false);
        loop {
            self.round()?;
            if !serving && self.all(Team::is_ready, Team::is_ready) {
                serving = true;
                reporter.serving();
            }
            let ordered = phase.load(Ordering::Acquire);
            if ordered == END {
                return self.end();
            }
            if ordered == STOP && !stopping {
                stopping = true;
                let now = self.engine.clock.now();
                teams!(self, team, engine => team.stop(now, engine));
            }
            if stopping && !drained && self.all(Team::drained, Team::drained) {
                drained = true;
                reporter.drained();
            }
            self.sleep_if_idle(phase, ordered)?;
        }
    }

    fn all(&self, brokers: fn(&Team<B>) -> bool, namesrv: fn(&Team<N>) -> bool) -> bool {
        self.brokers.as_ref().is_none_or(brokers) && self.namesrv.as_ref().is_none_or(namesrv)
    }

    fn round(&mut self) -> Result<(), String> {
        self.engine.ring.turn().map_err(broken)?;
        self.engine.round_start_ns = self.engine.clock.nanos();
        let now = self.engine.clock.now();
        self.take_completions(now);
        self.take_found(now);
        teams!(self, team, engine => team.deliver(now, engine));
        teams!(self, team, engine => team.tick(now, engine));
        if now.mono >= self.next_sweep {
            let options = &self.engine.options;
            let every = SWEEP.min(options.idle / 2).min(options.half_frame / 2);
            self.next_sweep = now.mono.after_ms(every.as_millis() as u64);
            teams!(self, team, engine => team.sweep(now, engine));
        }
        teams!(self, team, engine => team.settle(now, engine));
        while self.has_input() {
            // The disk works while connections are read.
            self.engine.ring.hand_over_urgent().map_err(broken)?;
            teams!(self, team, engine => team.read(engine));
            if self.engine.round_is_over() {
                break;
            }
        }
        Ok(())
    }

    fn has_input(&self) -> bool {
        self.brokers.as_ref().is_some_and(Team::has_input)
            || self.namesrv.as_ref().is_some_and(Team::has_input)
    }

    fn take_completions(&mut self, now: Now) {
        while let Some((token, done)) = self.engine.ring.next() {
            let named = unpack(token);
            let (kind, place, _) = named;
            match (kind, place.fleet) {
                (Kind::Bell, _) => {
                    self.engine.bell.silence();
                    self.engine.watch_bell();
                }
                (_, 0) => {
                    let team = self.brokers.as_mut().expect("its machine asked");
                    team.handle(named, done, now, &mut self.engine);
                }
                _ => {
                    let team = self.namesrv.as_mut().expect("its machine asked");
                    team.handle(named, done, now, &mut self.engine);
                }
            }
        }
    }

    /// True if there was anything.
    fn take_found(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(found) = self.engine.helpers.next() {
            any = true;
            if found.place.fleet == 0 {
                let team = self.brokers.as_mut().expect("its machine asked");
                team.handle_found(found, now, &mut self.engine);
            } else {
                let team = self.namesrv.as_mut().expect("its machine asked");
                team.handle_found(found, now, &mut self.engine);
            }
        }
        any
    }

    /// Waits for the next thing to do, unless there is something.
    fn sleep_if_idle(&mut self, phase: &AtomicU8, ordered: u8) -> Result<(), String> {
        if self.is_restless() {
            return Ok(());
        }
        if self.spin() {
            return Ok(());
        }
        self.engine.bell.lie_down();
        // What came before that is seen here, what comes after it rings.
        let missed = self.is_restless()
            || phase.load(Ordering::Acquire) != ordered
            || self.take_found(self.engine.clock.now());
        if !missed {
            let time = self.until_deadline();
            self.engine.ring.wait(time).map_err(broken)?;
        }
        self.engine.bell.rise();
        Ok(())
    }

    fn is_restless(&self) -> bool {
        self.brokers.as_ref().is_some_and(Team::is_restless)
            || self.namesrv.as_ref().is_some_and(Team::is_restless)
    }

    /// Looks at the ring for a while instead of sleeping. True if something came.
    fn spin(&mut self) -> bool {
        if self.engine.options.spin.is_zero() {
            return false;
        }
        let start = self.engine.clock.nanos();
        let end = start + self.engine.options.spin.as_nanos() as u64;
        while self.engine.clock.nanos() < end {
            if self.engine.ring.turn().is_err()
                || self.engine.ring.has_completions()
                || self.is_restless()
            {
                return true;
            }
            // Syncs and the ends of writes are carried out by kernel threads of this core.
            std::thread::yield_now();
        }
        false
    }

    fn until_deadline(&self) -> Duration {
        let brokers = self.brokers.as_ref().and_then(Team::deadline);
        let namesrv = self.namesrv.as_ref().and_then(Team::deadline);
        let next = [brokers, namesrv, Some(self.next_sweep)];
        let next = next.into_iter().flatten().min();
        let now = self.engine.clock.now().mono;
        let time = Duration::from_millis(next.map_or(0, |due| due.since_ms(now)));
        let brokers = self.brokers.as_ref().and_then(Team::rests_until_ns);
        let namesrv = self.namesrv.as_ref().and_then(Team::rests_until_ns);
        let Some(rested_ns) = brokers.into_iter().chain(namesrv).min() else {
            return time;
        };
        let rest_ns = rested_ns.saturating_sub(self.engine.clock.nanos());
        time.min(Duration::from_nanos(rest_ns))
    }

    /// Closes what is open and waits for the ring to let go of it.
    fn end(mut self) -> Result<Stats, String> {
        let now = self.engine.clock.now();
        let until = now.mono.after_ms(CLOSING_MS);
        teams!(self, team, engine => team.end(now, engine));
        while !self.all(|team| !team.is_busy(), |team| !team.is_busy()) {
            let left = until.since_ms(self.engine.clock.now().mono);
            if left == 0 {
                break;
            }
            let time = Duration::from_millis(left.min(10));
            self.engine.ring.wait(time).map_err(broken)?;
            let now = self.engine.clock.now();
            self.take_completions(now);
            self.take_found(now);
            teams!(self, team, engine => team.settle(now, engine));
        }
        let mut stats = Stats::default();
        teams!(self, team, _engine => stats.add(&team.stats()));
        Ok(stats)
    }
}

fn broken(error: std::io::Error) -> String {
    format!("io_uring failed: {error}")
}
