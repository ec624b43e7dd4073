//! When to look at sockets and disks again.
//!
//! glommio's own preemption timer cannot be used: if it fires before the first task of a round has
//! run, glommio 0.9 sleeps although tasks are runnable, until some other event happens to come
//! (mended after 0.9 by glommio/glommio pull request 53). A busy host or a CPU quota is enough for
//! that. So that timer is set so long that it never fires, and tasks that could go on forever ask
//! here: once a round has lasted for its budget, they wait until the reactor had its turn.
//!
//! Other events of glommio's latency ring (a letter from another executor, at a bad moment) can
//! cause the same sleep. For them there is a heartbeat, quick while there is work.

use super::bell::Bell;
use super::clock::Clock;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What glommio's preemption timer is set to.
pub const NEVER: Duration = Duration::from_secs(3600);
/// Tasks of one round follow each other faster than this; the reactor takes longer.
const ROUND_GAP_NS: u64 = 2_000;
/// Long enough to be in the future when the reactor looks.
const REACTOR_TURN: Duration = Duration::from_micros(1);
const HEARTBEAT_BUSY: Duration = Duration::from_millis(2);
const HEARTBEAT_IDLE: Duration = Duration::from_millis(128);

pub struct Pace {
    clock: Clock,
    budget_ns: u64,
    round_start_ns: Cell<u64>,
    last_work_ns: Cell<u64>,
    rounds: Cell<u64>,
    deferred: RefCell<Vec<Waker>>,
    bell: Bell,
}

impl Pace {
    pub fn new(clock: Clock, budget: Duration) -> Self {
        Pace {
            clock,
            budget_ns: budget.as_nanos() as u64,
            round_start_ns: Cell::new(0),
            last_work_ns: Cell::new(0),
            rounds: Cell::new(0),
            deferred: RefCell::default(),
            bell: Bell::default(),
        }
    }

    /// Whether this round has lasted long enough. Called between pieces of work.
    pub fn spent(&self) -> bool {
        let now = self.clock.nanos();
        if now - self.last_work_ns.replace(now) > ROUND_GAP_NS {
            self.start_round(now);
        }
        now - self.round_start_ns.get() > self.budget_ns
    }

    /// The end of a piece of work.
    pub fn worked(&self) {
        self.last_work_ns.set(self.clock.nanos());
    }

    fn start_round(&self, now: u64) {
        self.round_start_ns.set(now);
        self.rounds.set(self.rounds.get() + 1);
    }

    /// Ready while the round lasts; else wakes the task after the reactor's turn.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.spent() {
            return Poll::Ready(());
        }
        self.deferred.borrow_mut().push(cx.waker().clone());
        self.bell.ring();
        Poll::Pending
    }

    /// Waits for the reactor's turn if the round has lasted long enough.
    pub async fn breathe(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

/// Lets the reactor have its turn, then starts the next round.
pub async fn pace_loop(pace: Rc<Pace>) {
    loop {
        pace.bell.wait().await;
        // A timer is what the reactor, and only the reactor, completes.
        glommio::timer::sleep(REACTOR_TURN).await;
        let now = pace.clock.nanos();
        pace.start_round(now);
        pace.last_work_ns.set(now);
        let deferred = std::mem::take(&mut *pace.deferred.borrow_mut());
        deferred.into_iter().for_each(Waker::wake);
    }
}

/// Bounds the sleep described above.
pub async fn heartbeat_loop(pace: Rc<Pace>) {
    let mut every = HEARTBEAT_BUSY;
    let mut seen = 0;
    loop {
        glommio::timer::sleep(every).await;
        let busy = pace.rounds.get() != seen;
        seen = pace.rounds.get();
        every = if busy {
            HEARTBEAT_BUSY
        } else {
            HEARTBEAT_IDLE.min(every * 2)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_ends_when_its_budget_is_spent() {
        let endless = Pace::new(Clock::start(), Duration::from_secs(1000));
        assert!(!endless.spent());
        let none = Pace::new(Clock::start(), Duration::ZERO);
        while !none.spent() {}
    }
}
