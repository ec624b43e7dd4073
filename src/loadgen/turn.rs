//! The turns of a thread: what is due is written, what has come is read, and between them it sleeps
//! until one of both.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use rustix::event::epoll::{self, Event, EventFlags};
use rustix::time::Timespec;

use super::hand::{Hand, Role, SECOND_NS, Until, lap_at};
use super::proc::ThreadTime;
use super::wire::PUSH_BYTES;

/// Longer than any broker holds a request by itself.
const SILENCE_NS_MAX: u64 = 20 * SECOND_NS;
/// How long after the end messages are still sent that were due before it, and answers taken.
pub const LATE_NS_MAX: u64 = 5 * SECOND_NS;
/// How long messages that are on their way are waited for after the last send.
const ARRIVAL_NS_MAX: u64 = 3 * SECOND_NS;
/// Shorter sleeps are not worth a timer.
const SLEEP_NS_MIN: u64 = 5_000;
/// So long after it happened every thread knows of what is in `Shared`.
pub const SLEEP_NS_MAX: u64 = SECOND_NS / 10;
const EVENTS: usize = 256;

impl Hand {
    /// Works until the phase is over.
    ///
    /// # Errors
    /// A sentence: a connection broke, or the broker does not do its part.
    pub fn work(&mut self) -> Result<(), String> {
        self.await_start();
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        self.heard = self.clock.nanos();
        self.came = self.heard;
        loop {
            let turn = self.clock.nanos();
            self.mark(turn);
            let wrote = self.ask(turn)?;
            self.push()?;
            self.publish();
            if self.is_over()? {
                self.leave();
                return Ok(());
            }
            let timeout = self.timeout();
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("epoll cannot be used: {error}")),
            }
            let again = std::mem::take(&mut self.ready);
            if events.is_empty() && again.is_empty() && !wrote && self.spin {
                self.idle += self.clock.nanos().saturating_sub(turn);
            }
            for event in &events {
                self.meet(event.data.u64() as usize, event.flags)?;
            }
            for at in again {
                self.hear(at as usize)?;
            }
        }
    }

    /// All threads begin together.
    fn await_start(&self) {
        while self.clock.nanos() < self.desk.moments.start {
            std::thread::yield_now();
        }
    }

    /// Ends seconds that are over, and begins to measure.
    fn mark(&mut self, now: u64) {
        self.desk.now = now;
        if let Some(cut) = self.shared.cut() {
            let moments = &mut self.desk.moments;
            moments.end = moments.end.min(cut);
        }
        let lap = lap_at(now, self.desk.moments.measure);
        if lap > self.lap {
            self.lap_ends();
            self.lap = lap;
        }
        if self.began.is_none() && now >= self.desk.moments.measure {
            self.began = Some((now, ThreadTime::read()));
            self.idle = 0;
        }
    }

    /// Writes what is due and has room, and what consumers ask for by the clock.
    fn ask(&mut self, now: u64) -> Result<bool, String> {
        let mut wrote = false;
        if self.sending {
            wrote = self.ask_sends(now)?;
            let end = self.desk.moments.end;
            let over = match &self.issue.pacer {
                Some(pacer) => pacer.due() >= end,
                None => now >= end,
            };
            let late = end != u64::MAX && now > end.saturating_add(LATE_NS_MAX);
            if (self.issue.left == 0 || over || late) && (late || self.in_flight() == 0) {
                if now.saturating_sub(self.heard) >= LATE_NS_MAX {
                    self.unanswered = self.in_flight() as u64;
                }
                self.sent_all();
            }
        }
        for at in &self.consumers {
            let conn = &mut self.conns[*at as usize];
            match &mut conn.role {
                Role::Producer(_) | Role::Asker(_) => unreachable!("they consume nothing"),
                Role::Puller(puller) => puller.ask(&mut conn.wire.out, &mut self.desk),
                Role::Member(member) => member.tick(&mut conn.wire.out, &mut self.desk),
                Role::Popper(popper) => popper.ask(&mut conn.wire.out, &mut self.desk),
            }
            if conn.wire.unsent() > 0 && !conn.dirty {
                conn.dirty = true;
                self.dirty.push(*at);
            }
        }
        Ok(wrote)
    }

    fn ask_sends(&mut self, now: u64) -> Result<bool, String> {
        let mut wrote = false;
        let open = self.issue.pacer.is_some();
        let born = self.desk.wall_ms();
        self.desk.letter.set_born(born);
        while self.issue.left > 0 {
            let due = self.issue.due(now);
            if due > now || due >= self.desk.moments.end {
                self.holding = false;
                break;
            }
            let Some(at) = self.roomy.front().copied() else {
                self.holding = open;
                break;
            };
            let conn = &mut self.conns[at as usize];
            if !conn.has_room() {
                self.roomy.pop_front();
                conn.roomy = false;
                continue;
            }
            match &mut conn.role {
                Role::Producer(producer) => {
                    producer.ask(due, &mut conn.wire.out, &mut self.desk);
                }
                Role::Asker(asker) => asker.ask(due, &mut conn.wire.out),
                _ => unreachable!("only what issues is roomy"),
            }
            wrote = true;
            self.issue.left -= 1;
            if !conn.dirty {
                conn.dirty = true;
                self.dirty.push(at);
            }
            if conn.wire.unsent() >= PUSH_BYTES {
                conn.wire.push()?;
            }
            if let Some(pacer) = &mut self.issue.pacer {
                pacer.advance();
                self.roomy.rotate_left(1);
                if self.holding {
                    self.held += 1;
                } else if self.desk.moments.counts(due) {
                    self.lag.add(now - due, 1);
                }
            }
        }
        Ok(wrote)
    }

    /// Sends what gathered, one call per connection.
    fn push(&mut self) -> Result<(), String> {
        for at in std::mem::take(&mut self.dirty) {
            let conn = &mut self.conns[at as usize];
            conn.dirty = false;
            conn.wire.push()?;
            self.make_roomy(at as usize);
        }
        Ok(())
    }

    fn make_roomy(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        if !conn.roomy && conn.has_room() {
            conn.roomy = true;
            self.roomy.push_back(at as u32);
        }
    }

    fn meet(&mut self, at: usize, flags: EventFlags) -> Result<(), String> {
        if flags.contains(EventFlags::OUT) && self.conns[at].wire.unsent() > 0 {
            self.conns[at].wire.push()?;
            self.make_roomy(at);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP)
        {
            self.hear(at)?;
        }
        Ok(())
    }

    /// Reads and takes what has come on a connection.
    fn hear(&mut self, at: usize) -> Result<(), String> {
        let conn = &mut self.conns[at];
        if conn.wire.fill()? {
            self.ready.push(at as u32);
        }
        self.desk.now = self.clock.nanos();
        self.heard = self.desk.now;
        while let Some(frame) = conn.wire.frame()? {
            let (bytes, out) = conn.wire.bytes(frame);
            match &mut conn.role {
                Role::Producer(producer) => producer.answer(bytes, out, &mut self.desk),
                Role::Puller(puller) => puller.answer(bytes, out, &mut self.desk),
                Role::Member(member) => member.answer(bytes, out, &mut self.desk),
                Role::Popper(popper) => popper.answer(bytes, out, &mut self.desk),
                Role::Asker(asker) => asker.answer(bytes, &mut self.desk),
            }
            .map_err(|error| format!("{}: {error}", conn.wire.addr()))?;
        }
        if conn.wire.unsent() > 0 && !conn.dirty {
            conn.dirty = true;
            self.dirty.push(at as u32);
        }
        self.make_roomy(at);
        Ok(())
    }

    /// Sends and queries without an answer.
    fn in_flight(&self) -> usize {
        let sends = self.conns.iter().map(|conn| match &conn.role {
            Role::Producer(producer) => producer.in_flight(),
            Role::Asker(asker) => asker.in_flight(),
            _ => 0,
        });
        sends.sum()
    }

    fn is_over(&mut self) -> Result<bool, String> {
        if self.shared.stop.load(Relaxed) {
            return Ok(true);
        }
        let now = self.desk.now;
        let silent = now.saturating_sub(self.heard);
        if self.sending && silent > SILENCE_NS_MAX && self.in_flight() > 0 {
            return Err(format!(
                "no answer came for {} s to {} requests: the broker is stuck or gone; look at its log",
                SILENCE_NS_MAX / SECOND_NS,
                self.in_flight()
            ));
        }
        if self.shared.senders.load(Acquire) > 0 {
            // What is sent now may come so late.
            self.came = self.desk.arrival_due(now);
        }
        if self.sending {
            return Ok(false);
        }
        if self.consumers.is_empty() || self.is_cut(now) {
            return Ok(true);
        }
        let waited = now.saturating_sub(self.came);
        let (stored, arrived) = (&self.shared.stored, &self.shared.arrived);
        Ok(match self.until {
            Until::Time => now >= self.desk.moments.end,
            Until::Arrived(count) if arrived.load(Relaxed) >= count => self.is_settled(),
            Until::Arrived(count) if waited > SILENCE_NS_MAX => {
                let came = arrived.load(Relaxed);
                return Err(format!(
                    "only {came} of {count} messages are there to be pulled"
                ));
            }
            Until::Arrived(_) => false,
            Until::Drained => self.conns.iter().all(|conn| match &conn.role {
                Role::Puller(puller) => puller.is_drained(),
                _ => true,
            }),
            Until::Chased if self.shared.senders.load(Acquire) > 0 => false,
            Until::Chased => {
                let all = arrived.load(Relaxed) >= stored.load(Relaxed);
                (all && self.is_settled()) || waited > ARRIVAL_NS_MAX
            }
        })
    }

    /// What was popped is acknowledged.
    fn is_settled(&self) -> bool {
        self.conns.iter().all(|conn| match &conn.role {
            Role::Popper(popper) => popper.is_settled(),
            _ => true,
        })
    }

    /// The phase was interrupted, and what is on its way had time to come.
    fn is_cut(&self, now: u64) -> bool {
        let patience = match self.until {
            Until::Chased => ARRIVAL_NS_MAX,
            Until::Time | Until::Arrived(_) | Until::Drained => 0,
        };
        let cut = self.shared.cut();
        cut.is_some_and(|cut| now >= cut.saturating_add(patience))
    }

    /// Members say goodbye, and what has no answer is read by the broker.
    fn leave(&mut self) {
        for conn in &mut self.conns {
            match &mut conn.role {
                Role::Member(member) => member.leave(&mut conn.wire.out),
                Role::Producer(producer) if producer.ends_transactions() => {}
                Role::Popper(_) => {}
                Role::Producer(_) | Role::Puller(_) | Role::Asker(_) => continue,
            }
            conn.wire.finish();
        }
    }

    /// How long to sleep if nothing comes; `None` never.
    fn timeout(&self) -> Option<Timespec> {
        let now = self.clock.nanos();
        let mut until =
            self.desk.moments.measure as i64 + (i64::from(self.lap) + 1) * SECOND_NS as i64;
        if self.sending && !self.roomy.is_empty() {
            let due = if self.issue.left > 0 {
                self.issue.due(now)
            } else {
                u64::MAX
            };
            until = until.min(due.min(self.desk.moments.end).min(i64::MAX as u64) as i64);
        }
        let mut nanos = until
            .saturating_sub(now as i64)
            .clamp(0, SLEEP_NS_MAX as i64);
        if nanos < SLEEP_NS_MIN as i64 || self.spin || !self.ready.is_empty() {
            nanos = 0;
        }
        Some(Timespec {
            tv_sec: 0,
            tv_nsec: nanos,
        })
    }
}
