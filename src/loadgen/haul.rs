//! What a pull brings, for pullers and for members of a group alike: the request, and the records
//! of its answer counted, timed, checked.

use std::sync::Arc;

use super::body::stamp;
use super::desk::Desk;
use super::tally::named;
use crate::message::view::RecordView;
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;
use crate::remoting::header::pull::{PullHeader, PullResponse};
use crate::remoting::text::Text;

/// Before anything was pulled, any offset may come first.
pub const UNKNOWN: i64 = -1;

/// What the time of a message is counted from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timing {
    /// The pull that brought it, if the queue was known to have it then.
    Pull,
    /// The moment its stamp says it was due.
    Stamp,
}

/// One queue on its way through.
#[derive(Clone, Debug)]
pub struct Queue {
    pub topic: Arc<str>,
    pub id: i32,
    /// Its number among all queues of the run.
    pub index: u32,
    /// To be pulled next.
    pub offset: i64,
    /// Offset of the message that must come next, or [`UNKNOWN`].
    pub expected: i64,
    /// Pulled no further than this.
    pub until: i64,
    /// The last answer said that more is there.
    pub behind: bool,
}

impl Queue {
    pub fn is_drained(&self) -> bool {
        self.offset >= self.until
    }
}

/// How pulls of one consumer are made and counted.
#[derive(Clone, Debug)]
pub struct Pulling {
    pub codec: Codec,
    pub group: Arc<str>,
    pub batch: i32,
    /// `FLAG_*` bits.
    pub flags: i32,
    /// Milliseconds a broker may hold a pull.
    pub suspend_ms: i64,
    /// `subVersion` of the subscription.
    pub version: i64,
    pub timing: Timing,
    /// `None`: the messages are checked, not counted.
    pub part: Option<usize>,
}

impl Pulling {
    pub fn ask(&self, out: &mut Vec<u8>, opaque: u32, queue: &Queue) {
        let code = request::PULL_MESSAGE;
        let mut writer = FrameWriter::request(out, self.codec, opaque as i32, code, false);
        PullHeader {
            consumer_group: Text::plain(&self.group),
            topic: Text::plain(&queue.topic),
            queue_id: queue.id,
            queue_offset: queue.offset,
            max_msg_nums: self.batch,
            sys_flag: self.flags,
            commit_offset: 0,
            suspend_timeout_ms: self.suspend_ms,
            subscription: Some(Text::plain("*")),
            sub_version: self.version,
            expression_type: Some(Text::plain("TAG")),
            max_msg_bytes: None,
            request_source: None,
            proxy_forward_client_id: None,
            lite_topic: None,
        }
        .encode(&mut writer);
        writer.finish(0);
    }

    /// Takes the answer to a pull of this queue that was asked at this moment.
    ///
    /// # Errors
    /// A sentence: a refusal, which would come again, or an answer that cannot be read.
    pub fn take(
        &self,
        answer: &Command<'_>,
        asked: u64,
        queue: &mut Queue,
        desk: &mut Desk,
    ) -> Result<(), String> {
        let code = answer.code;
        let moved = code == response::PULL_OFFSET_MOVED;
        let quiet = [response::PULL_NOT_FOUND, response::PULL_RETRY_IMMEDIATELY].contains(&code);
        if code != response::SUCCESS && !moved && !quiet {
            let remark = answer
                .remark
                .map_or_else(String::new, |remark| remark.to_string());
            return Err(format!(
                "a pull of {} queue {} was refused with {}: {remark}",
                queue.topic,
                queue.id,
                named(code)
            ));
        }
        let header = PullResponse::decode(&answer.ext).map_err(|error| error.to_string())?;
        if code == response::SUCCESS {
            self.records(answer.body, asked, queue, desk)?;
        }
        if moved {
            queue.expected = UNKNOWN;
        }
        queue.offset = header.next_begin_offset;
        queue.behind = header.max_offset > header.next_begin_offset;
        Ok(())
    }

    fn records(
        &self,
        body: &[u8],
        asked: u64,
        queue: &mut Queue,
        desk: &mut Desk,
    ) -> Result<(), String> {
        let (mut messages, mut bytes, mut gaps) = (0, 0, 0);
        for record in RecordView::iter(body) {
            let record = record.map_err(|error| {
                format!(
                    "{} queue {} brought no record: {error}",
                    queue.topic, queue.id
                )
            })?;
            let offset = record.queue_offset();
            gaps += u64::from(queue.expected != UNKNOWN && queue.expected != offset);
            queue.expected = offset + 1;
            if offset >= queue.until {
                break;
            }
            messages += 1;
            bytes += record.body().len() as u64;
            if let Some(ledger) = &mut desk.ledger {
                ledger.receive(queue.index, record.body());
            }
            if let (Some(part), Timing::Stamp) = (self.part, self.timing) {
                arrive(record.body(), part, desk);
            }
        }
        if let (Some(part), Timing::Pull) = (self.part, self.timing) {
            let waited = queue.behind.then(|| desk.now.saturating_sub(asked));
            bring(messages, bytes, waited, part, desk);
        }
        if let Some(part) = self.part {
            desk.counts[part].gaps += gaps;
        }
        Ok(())
    }
}

/// Counts a message that came, and times it by its stamp. Where it was to come later, it counts as
/// if that delay had not been.
pub fn arrive(body: &[u8], part: usize, desk: &mut Desk) {
    let Some(stamp) = stamp(body).filter(|stamp| stamp.run == desk.run) else {
        return;
    };
    desk.arrived += 1;
    let (moments, counts) = (desk.moments, desk.moments.counts(stamp.due));
    let took = desk.now.saturating_sub(desk.arrival_due(stamp.due));
    let count = &mut desk.counts[part];
    count.done(moments, stamp.due + took, counts, 1, body.len() as u64);
    count.took(counts, took, 1);
}

/// Counts what one request brought; `waited` unless it may have waited for something to come.
pub fn bring(messages: u64, bytes: u64, waited: Option<u64>, part: usize, desk: &mut Desk) {
    let (now, moments) = (desk.now, desk.moments);
    let counts = moments.counts(now);
    let count = &mut desk.counts[part];
    count.done(moments, now, counts, messages, bytes);
    if let Some(waited) = waited {
        count.took(counts, waited, 1);
    }
    desk.arrived += messages;
}
