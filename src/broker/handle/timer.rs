//! Messages for a time, and RECALL_MESSAGE 370, which takes one back.
//!
//! Sources: `HookUtils.transformTimerMessage`, `TimerMessageStore`, `RecallMessageProcessor`,
//! `RecallMessageHandle`; `spec/semantics.md` §6.

use crate::base::{Now, QueueOffset};
use crate::broker::acks::{Ack, More, SendAck};
use crate::broker::control::effects::Reject;
use crate::broker::control::names::RETRY_PREFIX;
use crate::broker::delay::{TIMER_WAITER, due_message};
use crate::broker::handle::{Parked, Request, bad_header};
use crate::broker::puts::{OwnedMessage, Purpose};
use crate::broker::survey::{self, Question, Row};
use crate::broker::timers::{self, HOUR_MS, Timer};
use crate::broker::topics::perm;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::message::encode::Draft;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::response;
use crate::remoting::header::timer::RecallMessage;
use crate::store::consumequeue::QueueSlot;
use crate::store::dispatch::{Dispatch, TIMER_TOPIC};
use crate::store::index::key_hash;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;
use crate::store::record::Kind;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

/// Steps of a scan in one turn.
const SCANS_PER_TURN: usize = 16;

/// When a message with these properties is to be delivered, wall ms; `None` if that is now.
fn due_ms(broker: &Broker, now: Now, stored: &[u8]) -> Result<Option<i64>, Reject> {
    let max_ms = broker.options.timer_max_ms;
    let illegal = || {
        let limit = match max_ms {
            0 => "64 bits of milliseconds".to_owned(),
            ms => format!("the max delay {ms}ms (timerMaxDelaySec)"),
        };
        let remark =
            format!("timer message illegal, the delay time should not be bigger than {limit}");
        Reject::new(response::MESSAGE_ILLEGAL, remark)
    };
    let number = |name| {
        let text = properties::find_str(stored, name)?;
        Some(text.parse::<i64>().map_err(|_| illegal()))
    };
    let due_ms = if let Some(seconds) = number(names::TIMER_DELAY_SEC) {
        let wait_ms = seconds?.checked_mul(1000).ok_or_else(illegal)?;
        now.wall_ms.checked_add(wait_ms).ok_or_else(illegal)?
    } else if let Some(wait_ms) = number(names::TIMER_DELAY_MS) {
        now.wall_ms.checked_add(wait_ms?).ok_or_else(illegal)?
    } else {
        number(names::TIMER_DELIVER_MS).unwrap_or_else(|| Err(illegal()))?
    };
    if due_ms <= now.wall_ms {
        return Ok(None);
    }
    // Queues are numbered by the hour.
    let fits = i32::try_from(due_ms.div_euclid(HOUR_MS)).is_ok();
    if !fits || (max_ms > 0 && due_ms - now.wall_ms > max_ms) {
        return Err(illegal());
    }
    Ok(Some(due_ms))
}

/// Stores a message until its time has come; false if that is now.
pub fn store(
    broker: &mut Broker,
    request: &Request<'_>,
    draft: &Draft<'_>,
    queue_id: i32,
) -> Result<bool, Reject> {
    let now = request.now;
    if properties::find(draft.properties, names::TIMER_DEL_UNIQKEY).is_some() {
        let remark = "a message is taken back by RECALL_MESSAGE, not by another message";
        return Err(Reject::new(response::MESSAGE_ILLEGAL, remark));
    }
    let Some(due_ms) = due_ms(broker, now, draft.properties)? else {
        return Ok(false);
    };
    let hour = due_ms.div_euclid(HOUR_MS);
    let mut stored = draft.properties.to_vec();
    properties::set(&mut stored, names::TIMER_OUT_MS, &due_ms.to_string());
    properties::set(&mut stored, names::REAL_TOPIC, draft.topic);
    properties::set(&mut stored, names::REAL_QUEUE_ID, &queue_id.to_string());
    let pending = Draft {
        topic: TIMER_TOPIC,
        queue_id: hour as i32,
        properties: &stored,
        ..*draft
    };
    pending
        .check()
        .map_err(|error| Reject::new(response::MESSAGE_ILLEGAL, error.to_string()))?;
    let slot = timer_queue(broker, now, hour)?;
    let dispatch = Dispatch::of(TIMER_TOPIC, &stored);
    let appended = broker.store.append(now, slot, &pending, &dispatch);
    broker.timers.add(Timer {
        due_ms,
        slot,
        offset: appended.offset.0,
    });
    broker.stats.put(1, draft.body.len());
    if !request.command.is_oneway() {
        let handle = handle(broker, draft, due_ms);
        let ack = SendAck {
            to: request.reply_to(),
            queue_id,
            offset: appended.offset.0,
            at: appended.at,
            more: handle.map(|handle| Box::new(More::Recall(handle))),
            due: now.mono.after_ms(broker.options.flush_timeout_ms),
        };
        broker.acks.push(appended.end, Ack::Send(ack));
    }
    Ok(true)
}

fn timer_queue(broker: &mut Broker, now: Now, hour: i64) -> Result<QueueSlot, Reject> {
    let Some(topic) = broker.snapshot.topics.get(TIMER_TOPIC).cloned() else {
        let remark = format!("the topic {TIMER_TOPIC} is not there yet, try again");
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    };
    let slot = broker
        .store
        .open_queue(now, &topic.name, topic.id, hour as i32)
        .and_then(|slot| broker.store.check_append().map(|()| slot))
        .map_err(|refused| broker.refuse(refused))?;
    broker.timers.opened(hour, slot);
    Ok(slot)
}

/// What its producer takes the message back with.
fn handle(broker: &Broker, draft: &Draft<'_>, due_ms: i64) -> Option<String> {
    if draft.topic.starts_with(RETRY_PREFIX) {
        return None;
    }
    let key = properties::find_str(draft.properties, names::UNIQUE_KEY)?;
    let (topic, name) = (draft.topic, &broker.options.control.broker_name);
    let text = format!("v1 {topic} {name} {due_ms} {key}");
    Some(URL_SAFE.encode(text))
}

/// A message that is not to be delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recall {
    hash: u64,
    due_ms: i64,
    pub key: String,
}

pub fn recall(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = RecallMessage::decode(&request.command.ext).map_err(bad_header)?;
    let options = &broker.options;
    let refused = |code, remark: &str| Err(Reject::new(code, format!("recall failed, {remark}")));
    if !options.recall_enable {
        return refused(response::NO_PERMISSION, "operation is forbidden");
    }
    if options.permission & perm::WRITE == 0 {
        return refused(
            response::SERVICE_NOT_AVAILABLE,
            "broker service not available",
        );
    }
    if broker.snapshot.topics.get(&header.topic).is_none() {
        let remark = format!("the topic[{}] not exist", header.topic);
        return refused(response::TOPIC_NOT_EXIST, &remark);
    }
    let decoded = URL_SAFE.decode(header.recall_handle.as_bytes()).ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.unwrap_or_default();
    let parts: Vec<&str> = text.split(' ').collect();
    let ["v1", topic, name, time, key, ..] = parts[..] else {
        let remark = "recall handle is invalid";
        return Err(Reject::new(response::ILLEGAL_OPERATION, remark));
    };
    if topic != header.topic {
        return refused(response::ILLEGAL_OPERATION, "topic not match");
    }
    if name != options.control.broker_name {
        return refused(response::ILLEGAL_OPERATION, "broker service not available");
    }
    let due_ms = time
        .parse::<i64>()
        .ok()
        .filter(|due| *due > request.now.wall_ms);
    let most_ms = options.timer_max_ms;
    let fits = |due: &i64| most_ms == 0 || *due - request.now.wall_ms <= most_ms;
    let Some(due_ms) = due_ms.filter(fits) else {
        return refused(response::ILLEGAL_OPERATION, "timestamp invalid");
    };
    let recall = Recall {
        hash: key_hash(topic, key),
        due_ms,
        key: key.to_owned(),
    };
    survey::ask(broker, request, Question::Recall(recall), out)
}

/// A shard takes a message back, if it has it.
pub fn recall_here(broker: &mut Broker, now: Now, recall: &Recall) -> Vec<Row> {
    if let Err(refused) = broker.store.check_append() {
        return vec![Row::Refused(broker.refuse(refused))];
    }
    // Where nothing waits for that hour, there is nothing to take back.
    if broker
        .timers
        .queue(recall.due_ms.div_euclid(HOUR_MS))
        .is_none()
    {
        return Vec::new();
    }
    if !broker.timers.recall(recall.hash, recall.due_ms) {
        let most = timers::RECALLED_MAX;
        let remark = format!("recall failed, this shard keeps {most} recalled messages at most");
        return vec![Row::Refused(Reject::new(response::SYSTEM_BUSY, remark))];
    }
    broker.log_timers(now);
    Vec::new()
}

impl Broker {
    /// After recovery and the first snapshot: the queues of pending messages.
    pub(in crate::broker) fn start_timers(&mut self, now: Now) {
        let queues = self.store.queues().iter();
        let queues = queues.filter(|(_, queue)| *queue.topic == *TIMER_TOPIC);
        let queues: Vec<_> = queues
            .map(|(slot, queue)| (i64::from(queue.queue_id), slot))
            .collect();
        self.timers.start(now, queues.into_iter());
    }

    /// Delivers what is due, and looks for what will be.
    pub(in crate::broker) fn deliver_timers(&mut self, now: Now, out: &mut Outbox<Peer>) {
        let store = &self.store;
        self.timers.begin_scan(now, |slot| {
            let (min, _) = store.visible_range(slot);
            min.0..store.queue_end(slot).0
        });
        for _ in 0..SCANS_PER_TURN {
            if !self.scan_timers(now) {
                break;
            }
        }
        while let Some(timer) = self.timers.pop_due(now) {
            run(self, now, timer, out);
        }
        self.log_timers(now);
        for slot in self.timers.take_done() {
            self.drop_queue(now, slot);
        }
    }

    /// One step of a scan; false if there is none to be made now.
    fn scan_timers(&mut self, now: Now) -> bool {
        let Some(wanted) = self.timers.wanted(now.mono) else {
            return false;
        };
        let from = QueueOffset(wanted.from);
        let waiter = WaiterId(TIMER_WAITER);
        match self
            .store
            .tag_hashes(wanted.slot, from, wanted.most, waiter)
        {
            Fetch::Ready(hashes) => {
                let times: Vec<u32> = hashes.into_iter().map(|hash| hash as u32).collect();
                self.timers.scanned(wanted, &times);
                true
            }
            Fetch::Wait => {
                self.timers.set_reading(true);
                false
            }
            Fetch::Busy => {
                self.timers.rest(now.mono);
                false
            }
            Fetch::Missing | Fetch::Damaged(_) => {
                self.stats.damaged_reads += 1;
                self.timers.skip();
                true
            }
        }
    }

    fn log_timers(&mut self, now: Now) {
        if let Some(payload) = self.timers.take_unlogged(now) {
            // Without it some are delivered once more after a crash.
            let version = timers::VERSION;
            let _ = self
                .store
                .append_system(now, Kind::Timer, version, &payload);
        }
    }
}

/// Delivers one message, or waits for its bytes.
pub fn run(broker: &mut Broker, now: Now, timer: Timer, out: &mut Outbox<Peer>) {
    let (_, visible) = broker.store.visible_range(timer.slot);
    if timer.offset >= visible.0 {
        // Not confirmed yet.
        return broker.timers.delivered(now, timer, false);
    }
    let waiter = broker.next_waiter();
    let offset = QueueOffset(timer.offset);
    let entry = match broker.store.entry(timer.slot, offset, WaiterId(waiter)) {
        Fetch::Ready(entry) => entry,
        other => return stalled(broker, now, timer, waiter, &other.map(|_| ())),
    };
    let record = match broker.store.record(&entry, WaiterId(waiter)) {
        Fetch::Ready(record) => record,
        other => return stalled(broker, now, timer, waiter, &other.map(|_| ())),
    };
    match message(broker, now, &record) {
        Some(message) => broker.request_put(now, message, 0, Purpose::Timed { timer }, out),
        None => broker.timers.delivered(now, timer, true),
    }
}

fn stalled(broker: &mut Broker, now: Now, timer: Timer, waiter: u64, why: &Fetch<()>) {
    match why {
        Fetch::Wait => drop(broker.parked.insert(waiter, Parked::Timer(timer))),
        Fetch::Busy => broker.timers.delivered(now, timer, false),
        _ => {
            broker.stats.undeliverable += 1;
            broker.timers.delivered(now, timer, true);
        }
    }
}

/// `None` if it was recalled, or is not what it should be.
fn message(broker: &mut Broker, now: Now, record: &[u8]) -> Option<OwnedMessage> {
    let view = RecordView::parse(record).ok();
    let Some(mut message) = view.as_ref().and_then(due_message) else {
        broker.stats.undeliverable += 1;
        return None;
    };
    let key = properties::find_str(&message.properties, names::UNIQUE_KEY).unwrap_or_default();
    if broker.timers.is_recalled(key_hash(&message.topic, key)) {
        return None;
    }
    let stored_ms = view.map_or(0, |view| view.store_timestamp());
    let kept = &mut message.properties;
    properties::set(kept, names::TIMER_ENQUEUE_MS, &stored_ms.to_string());
    properties::set(kept, names::TIMER_DEQUEUE_MS, &now.wall_ms.to_string());
    Some(message)
}

/// The disk did not give a message whose time has come: it may the next time.
pub fn unread(broker: &mut Broker, now: Now, timer: Timer) {
    broker.stats.damaged_reads += 1;
    broker.timers.unread(now, timer);
}
