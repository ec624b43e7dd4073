//! One puller: every queue it has, one request each at a time, in turn.

use std::collections::VecDeque;

use super::answer::decode;
use super::desk::Desk;
use super::haul::{Pulling, Queue};
use super::slots::Slots;

pub struct Puller {
    pulling: Pulling,
    queues: Vec<Queue>,
    /// Queues without a request in flight that are not drained.
    idle: VecDeque<u32>,
    /// About a queue, asked at a moment.
    slots: Slots<(u32, u64)>,
}

impl Puller {
    pub fn new(pulling: Pulling, queues: Vec<Queue>, in_flight: usize) -> Self {
        let open = (0..queues.len()).filter(|at| !queues[*at].is_drained());
        Puller {
            idle: open.map(|at| at as u32).collect(),
            slots: Slots::new(in_flight.min(queues.len())),
            pulling,
            queues,
        }
    }

    pub fn is_drained(&self) -> bool {
        self.idle.is_empty() && self.slots.in_flight() == 0
    }

    /// Asks for what may be asked for.
    pub fn ask(&mut self, out: &mut Vec<u8>, desk: &mut Desk) {
        while self.slots.has_room() {
            let Some(at) = self.idle.pop_front() else {
                return;
            };
            let opaque = self.slots.take((at, desk.now));
            self.pulling.ask(out, opaque, &self.queues[at as usize]);
        }
    }

    /// # Errors
    /// A sentence: the pull was refused, or its answer cannot be read.
    pub fn answer(
        &mut self,
        frame: &[u8],
        out: &mut Vec<u8>,
        desk: &mut Desk,
    ) -> Result<(), String> {
        let command = decode(frame)?;
        if !command.is_response() {
            return Ok(());
        }
        let (at, asked) = self.slots.release(command.opaque)?;
        let queue = &mut self.queues[at as usize];
        self.pulling.take(&command, asked, queue, desk)?;
        if !queue.is_drained() {
            self.idle.push_back(at);
        }
        self.ask(out, desk);
        Ok(())
    }
}
