//! One producer: a connection with requests in flight. A refused request is counted by its code and
//! never repeated.

use std::sync::Arc;

use super::answer::{Reader, Said, decode};
use super::body::Stamp;
use super::desk::Desk;
use super::find::Target;
use super::letter::Request;
use super::slots::Slots;

/// One request in flight.
#[derive(Clone, Copy, Debug)]
struct Sent {
    due: u64,
    sequence: u64,
    queue: u32,
    /// Of the bodies.
    bytes: u32,
}

pub struct Producer {
    part: usize,
    number: u32,
    slots: Slots<Sent>,
    reader: Reader,
    targets: Arc<[Target]>,
    next: usize,
    /// Messages in a request.
    batch: u64,
    stamped: bool,
    /// By queue; empty if nobody checks.
    sequences: Vec<u64>,
}

/// What all producers of a load have in common.
#[derive(Clone, Copy, Debug)]
pub struct Producing {
    pub part: usize,
    pub in_flight: usize,
    pub batch: usize,
    pub stamped: bool,
    /// Queues to number messages for; 0 if nobody checks.
    pub queues: usize,
}

impl Producer {
    /// `number` tells producers apart; `targets` are the queues of its broker.
    pub fn new(producing: Producing, number: u32, targets: Arc<[Target]>) -> Self {
        assert!(!targets.is_empty(), "a broker without queues is no target");
        Producer {
            part: producing.part,
            number,
            slots: Slots::new(producing.in_flight),
            reader: Reader::default(),
            // Producers begin at different queues.
            next: number as usize % targets.len(),
            targets,
            batch: producing.batch as u64,
            stamped: producing.stamped,
            sequences: vec![0; producing.queues],
        }
    }

    pub fn has_room(&self) -> bool {
        self.slots.has_room()
    }

    pub fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    /// Appends one request that was due at this moment.
    pub fn ask(&mut self, due: u64, out: &mut Vec<u8>, desk: &mut Desk) {
        let target = self.targets[self.next];
        self.next += 1;
        if self.next == self.targets.len() {
            self.next = 0;
        }
        let queue = target.index;
        let mut sequence = 0;
        if let Some(next) = self.sequences.get_mut(queue as usize) {
            sequence = *next;
            *next += self.batch;
        }
        let (run, producer) = (desk.run, self.number);
        let stamp = Stamp {
            run,
            producer,
            queue,
            sequence,
            due,
        };
        let opaque = self.slots.take(Sent {
            due,
            sequence,
            queue,
            bytes: 0,
        });
        let request = Request {
            topic: target.topic as usize,
            queue_id: target.id,
            opaque,
            stamp: self.stamped.then_some(stamp),
        };
        let bytes = desk.letter.write(out, request);
        self.slots.change(opaque, |sent| sent.bytes = bytes as u32);
    }

    /// Takes one frame from the broker.
    ///
    /// # Errors
    /// A sentence: it answers nothing that was asked, or cannot be read.
    #[inline]
    pub fn answer(&mut self, frame: &[u8], desk: &mut Desk) -> Result<(), String> {
        match self.reader.read(frame)? {
            Said::Done { opaque } => {
                let sent = self.slots.release(opaque)?;
                let counts = desk.moments.counts(sent.due);
                let count = &mut desk.counts[self.part];
                count.done(
                    desk.moments,
                    desk.now,
                    counts,
                    self.batch,
                    u64::from(sent.bytes),
                );
                count.took(counts, desk.now.saturating_sub(sent.due), self.batch);
                desk.stored += self.batch;
                if let Some(ledger) = desk.ledger.as_mut().filter(|_| !self.sequences.is_empty()) {
                    for sequence in sent.sequence..sent.sequence + self.batch {
                        ledger.acknowledge(self.number, sent.queue, sequence)?;
                    }
                }
            }
            Said::Refused { opaque, code } => {
                self.slots.release(opaque)?;
                let count = &mut desk.counts[self.part];
                let remark = match count.remark {
                    Some(_) => None,
                    None => decode(frame)?.remark.map(|remark| remark.to_string()),
                };
                count.refused(code, remark);
            }
            Said::Asked { .. } => {}
        }
        Ok(())
    }
}
