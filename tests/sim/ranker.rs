//! A client of priority messages: it sends some and pops some, one after the other, so that it
//! knows what is more urgent than what it gets, also after the broker died in between.

use std::collections::{BTreeMap, BTreeSet};

use orbitmq::message::properties;
use orbitmq::message::view::RecordView;
use orbitmq::remoting::command::{Command, FrameWriter};

use crate::client::{Asked, Client, Ctx, Role, number, remark_of, uid_of};
use crate::model::{Check, Model};
use crate::popper::Starts;

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

/// The topic of priority messages, and its queues: one for each priority.
pub const URGENT: &str = "u0";
pub const QUEUES: i32 = 4;
const GROUP: &str = "urgent";

const SUCCESS: i32 = 0;
const POLLING_FULL: i32 = 209;
const POLLING_TIMEOUT: i32 = 210;
/// How long a pop may go on after its client has gone, µs: it reads from the disk.
const QUIET_US: u64 = 300_000;

pub fn is_urgent(topic: &str) -> bool {
    topic == URGENT
}

/// What is known of priority messages.
#[derive(Default)]
pub struct Ranks {
    /// Stored for certain and never handed out, the most urgent first: by priority below the
    /// highest, and offset.
    waiting: BTreeMap<(i32, i64), u64>,
    /// Messages that came.
    seen: BTreeSet<u64>,
    /// Acknowledged in time when they came for the first time, and when.
    done: BTreeMap<u64, u64>,
    /// Priorities of messages.
    wanted: BTreeMap<u64, i32>,
    quiet_until: u64,
}

impl Ranks {
    /// A power cut under `ASYNC_FLUSH`.
    pub fn forget_since(&mut self, firm: u64) {
        self.waiting.clear();
        self.done.retain(|_, at| *at <= firm);
    }

    /// What came to somebody.
    pub fn has_seen(&self, uid: u64) -> bool {
        self.seen.contains(&uid)
    }

    pub fn seen_count(&self) -> usize {
        self.seen.len()
    }

    /// What makes a message an urgent one.
    pub fn properties(&self, uid: u64) -> String {
        let wanted = self.wanted.get(&uid);
        let text = wanted.map(|wanted| format!("_SYS_MSG_PRIORITY_\u{1}{wanted}\u{2}"));
        text.unwrap_or_default()
    }

    /// A message is stored.
    pub fn stored(&mut self, (queue, offset): (i32, i64), uid: u64) -> Check {
        let wanted = self.wanted.get(&uid).copied().unwrap_or(queue);
        ensure!(
            wanted.min(QUEUES - 1) == queue,
            "u{uid} of priority {wanted} is in queue {queue}"
        );
        if !self.seen.contains(&uid) {
            self.waiting.insert((QUEUES - queue, offset), uid);
        }
        Ok(())
    }
}

#[derive(Default)]
pub struct Ranker {
    pub drains: bool,
}

pub enum AskedRank {
    /// When.
    Pop(u64),
    /// Until when that is in time; `None` if a crash may have made two of it.
    Ack(u64, Option<i64>),
}

impl Client {
    pub fn rank(&mut self, ctx: &mut Ctx<'_>) {
        let Role::Ranker(ranker) = &self.role else {
            return;
        };
        let drains = ranker.drains;
        let quiet = ctx.now < ctx.model.ranks.quiet_until;
        if self.waiting_answers() > 0 || quiet || ctx.model.generation(URGENT).is_none() {
            return;
        }
        if !drains
            && ctx.rng.percent(65)
            && let Some(uid) = ctx.question(URGENT)
        {
            let priority = ctx.rng.below(QUEUES as u64 + 2) as i32;
            ctx.model.ranks.wanted.insert(uid, priority);
            return self.send_one(ctx, URGENT, uid);
        }
        let most = ctx.rng.range(1, 6) as i64;
        let short = drains || ctx.rng.percent(30);
        let invisible_ms = if short { 400 } else { 1_500 };
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("consumerGroup", GROUP);
            w.field_str("topic", URGENT);
            w.field_i64("queueId", -1);
            w.field_i64("maxMsgNums", most);
            w.field_i64("invisibleTime", invisible_ms);
            w.field_i64("pollTime", 0);
            w.field_i64("bornTime", 0);
            w.field_i64("initMode", 0);
        };
        let asked = Asked::Rank(AskedRank::Pop(ctx.now));
        self.ask(ctx, 200_050, Some(asked), fields, b"");
    }

    /// There is no answer: what was waiting may have been handed out.
    pub fn rank_failed(&mut self, asked: &AskedRank, model: &mut Model) {
        if let AskedRank::Pop(at) = asked {
            model.ranks.waiting.clear();
            model.ranks.quiet_until = at + QUIET_US;
        }
    }

    pub fn rank_answered(
        &mut self,
        ctx: &mut Ctx<'_>,
        asked: AskedRank,
        command: &Command<'_>,
    ) -> Check {
        match asked {
            AskedRank::Pop(_) => self.ranks_popped(ctx, command),
            AskedRank::Ack(uid, until_ms) => {
                let (code, remark) = (command.code, remark_of(command));
                ensure!(
                    code == SUCCESS || ctx.lossy,
                    "u{uid} not acknowledged, code {code}: {remark}"
                );
                let in_time = until_ms.is_some_and(|until_ms| ctx.wall_ms() < until_ms);
                if code == SUCCESS && in_time {
                    ctx.model.ranks.done.insert(uid, ctx.now);
                }
                Ok(())
            }
        }
    }

    fn ranks_popped(&mut self, ctx: &mut Ctx<'_>, command: &Command<'_>) -> Check {
        let failed = ctx.failed.iter().any(Option::is_some);
        let nothing = match command.code {
            SUCCESS => false,
            POLLING_FULL | POLLING_TIMEOUT => true,
            code => return Err(format!("code {code}: {}", remark_of(command))),
        };
        if nothing {
            let left = ctx.model.ranks.waiting.values().next();
            return match left.filter(|_| !failed) {
                Some(uid) => Err(format!("u{uid} waits, but nothing came")),
                None => Ok(()),
            };
        }
        let starts = Starts::read(command)?;
        let pop_ms = number(command, "popTime")?;
        let invisible_ms = number(command, "invisibleTime")?;
        let mut taken = Vec::new();
        let mut last = None;
        for record in RecordView::iter(command.body) {
            let record = record.map_err(|error| error.to_string())?;
            let handle = match properties::find_str(record.properties(), "POP_CK") {
                Some(handle) => Err(handle.to_owned()),
                None => Ok(starts.handle(&record, pop_ms, invisible_ms)?),
            };
            taken.push(take(
                ctx,
                &record,
                handle,
                pop_ms + invisible_ms,
                &mut last,
            )?);
        }
        let last = last.ok_or("popped, but nothing is there")?;
        let left = ctx.model.ranks.waiting.range(..last).next();
        if let Some((rank, uid)) = left.filter(|_| !failed) {
            return Err(format!("u{uid} at {rank:?} still waits, but {last:?} came"));
        }
        ctx.counts.pulled += taken.len() as u64;
        let drains = matches!(&self.role, Role::Ranker(ranker) if ranker.drains);
        for taken in taken {
            if drains || ctx.rng.percent(70) {
                let fields = |w: &mut FrameWriter<'_>| {
                    w.field_str("consumerGroup", GROUP);
                    w.field_str("topic", &taken.topic);
                    w.field_i64("queueId", i64::from(taken.queue));
                    w.field_i64("offset", taken.offset);
                    w.field_str("extraInfo", &taken.handle);
                };
                let asked = AskedRank::Ack(taken.uid, taken.until_ms);
                self.ask(ctx, 200_051, Some(Asked::Rank(asked)), fields, b"");
            }
        }
        Ok(())
    }
}

/// A message in the client's hands.
struct Taken {
    uid: u64,
    topic: String,
    queue: i32,
    offset: i64,
    handle: String,
    /// As [`AskedRank::Ack`].
    until_ms: Option<i64>,
}

/// Checks that a message may come now, behind `last`. The handle is `Err` of one that was handed
/// out before and lapsed.
fn take(
    ctx: &mut Ctx<'_>,
    record: &RecordView<'_>,
    handle: Result<String, String>,
    until_ms: i64,
    last: &mut Option<(i32, i64)>,
) -> Result<Taken, String> {
    let uid = uid_of(record).ok_or("a message without a key")?;
    let (queue, offset) = (record.queue_id(), record.queue_offset());
    let is_first = handle.is_ok() && !ctx.model.ranks.seen.contains(&uid);
    ensure!(
        !ctx.model.ranks.done.contains_key(&uid),
        "u{uid} came again, although it was acknowledged"
    );
    let (topic, handle) = match handle {
        Err(handle) => {
            // Behind everything that comes for the first time.
            *last = Some((i32::MAX, 0));
            (format!("%RETRY%{GROUP}_{URGENT}"), handle)
        }
        Ok(handle) => {
            let place = (URGENT.to_owned(), queue);
            ctx.model.seen(&place, record, ctx.now)?;
            let rank = (QUEUES - queue, offset);
            ensure!(
                *last < Some(rank),
                "u{uid} at {rank:?} came behind {last:?}"
            );
            *last = Some(rank);
            (URGENT.to_owned(), handle)
        }
    };
    let ranks = &mut ctx.model.ranks;
    ranks.waiting.retain(|_, waiting| *waiting != uid);
    ranks.seen.insert(uid);
    Ok(Taken {
        uid,
        topic,
        queue,
        offset,
        handle,
        until_ms: is_first.then_some(until_ms),
    })
}
