//! One producer: a connection with requests in flight. A refused request is counted by its code and
//! never repeated. A half, once stored, is ended without an answer, as client libraries do.

use std::sync::Arc;

use super::answer::{Reader, Said, decode};
use super::body::Stamp;
use super::desk::Desk;
use super::find::Target;
use super::letter::{PRODUCER_GROUP, Request};
use super::slots::Slots;
use crate::message::id::OffsetId;
use crate::message::layout::sys_flag;
use crate::remoting::code::request;
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;
use crate::remoting::header::send::SendResponse;
use crate::remoting::header::transaction::EndTransaction;

/// One request in flight.
#[derive(Clone, Copy, Debug)]
struct Sent {
    due: u64,
    sequence: u64,
    queue: u32,
    topic: u32,
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
    ends: Option<Ends>,
    /// Hundredths of a half that are to be rolled back.
    rollback_owed: u32,
}

/// How a producer ends transactions.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub codec: Codec,
    pub rollback_percent: u32,
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
    /// `None`: what is sent is no half, or stays open.
    pub ends: Option<Ends>,
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
            ends: producing.ends,
            rollback_owed: 0,
        }
    }

    pub fn has_room(&self) -> bool {
        self.slots.has_room()
    }

    pub fn ends_transactions(&self) -> bool {
        self.ends.is_some()
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
            topic: target.topic,
            bytes: 0,
        });
        let request = Request {
            topic: target.topic as usize,
            queue_id: target.id,
            opaque,
            stamp: self.stamped.then_some(stamp),
            deliver_ms: desk.wall_ms_at(desk.arrival_due(due)),
        };
        let bytes = desk.letter.write(out, request);
        self.slots.change(opaque, |sent| sent.bytes = bytes as u32);
    }

    /// Takes one frame from the broker.
    ///
    /// # Errors
    /// A sentence: it answers nothing that was asked, or cannot be read.
    #[inline]
    pub fn answer(
        &mut self,
        frame: &[u8],
        out: &mut Vec<u8>,
        desk: &mut Desk,
    ) -> Result<(), String> {
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
                if let Some(ends) = self.ends
                    && !self.end(&decode(frame)?, ends, sent, out, desk)?
                {
                    return Ok(());
                }
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

    /// Ends the transaction of a stored half; true if it is committed.
    fn end(
        &mut self,
        answer: &Command<'_>,
        ends: Ends,
        sent: Sent,
        out: &mut Vec<u8>,
        desk: &Desk,
    ) -> Result<bool, String> {
        let half = SendResponse::decode(&answer.ext).map_err(|error| error.to_string())?;
        let id = half.msg_id.to_cow();
        let place = OffsetId::parse(&id).ok_or(format!("{id} is no id of a stored message"))?;
        self.rollback_owed += ends.rollback_percent;
        let commit = self.rollback_owed < 100;
        if !commit {
            self.rollback_owed -= 100;
        }
        let code = request::END_TRANSACTION;
        let mut writer = FrameWriter::request(out, ends.codec, 0, code, true);
        EndTransaction {
            topic: Some(desk.letter.topic(sent.topic as usize).into()),
            producer_group: PRODUCER_GROUP.into(),
            tran_state_table_offset: half.queue_offset,
            commit_log_offset: place.physical_offset,
            commit_or_rollback: match commit {
                true => sys_flag::TRANSACTION_COMMIT,
                false => sys_flag::TRANSACTION_ROLLBACK,
            },
            from_transaction_check: false,
            msg_id: half.transaction_id.map(|key| key.to_cow()),
            transaction_id: half.transaction_id.map(|key| key.to_cow()),
        }
        .encode(&mut writer);
        writer.finish(0);
        Ok(commit)
    }
}
