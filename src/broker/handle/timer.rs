//! Messages for a time; RECALL_MESSAGE 370, which takes one back; GET_TIMER_CHECK_POINT 60 and
//! GET_TIMER_METRICS 61, how far they are and how many wait.
//!
//! Sources: `HookUtils.transformTimerMessage`, `TimerMessageStore`, `RecallMessageProcessor`,
//! `RecallMessageHandle`, `AdminBrokerProcessor.getTimerCheckPoint`, `TimerMetrics`;
//! `spec/semantics.md` §6.

use crate::base::{Now, QueueOffset};
use crate::broker::acks::{Ack, More, SendAck};
use crate::broker::carry::LEVEL;
use crate::broker::control::effects::Reject;
use crate::broker::control::names::RETRY_PREFIX;
use crate::broker::delay::{TIMER_WAITER, due_message};
use crate::broker::handle::{Parked, Request, bad_header};
use crate::broker::pending::OTHERS;
use crate::broker::puts::{OwnedMessage, Purpose};
use crate::broker::survey::{self, Question, Row};
use crate::broker::timers::{self, HOUR_MS, Timer};
use crate::broker::topics::perm;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::message::encode::Draft;
use crate::message::view::RecordView;
use crate::message::{layout, names, properties};
use crate::remoting::body::json;
use crate::remoting::body::stats::{TimerMetrics, TimingCount};
use crate::remoting::body::topic::DataVersion;
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
use std::collections::BTreeMap;

/// What `CARRIED` and a time take.
const CARRIED_BYTES: usize = 40;
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
    properties::remove(&mut stored, names::CARRIED);
    properties::set(&mut stored, names::TIMER_OUT_MS, &due_ms.to_string());
    properties::set(&mut stored, names::REAL_TOPIC, draft.topic);
    properties::set(&mut stored, names::REAL_QUEUE_ID, &queue_id.to_string());
    let pending = Draft {
        topic: TIMER_TOPIC,
        queue_id: hour as i32,
        properties: &stored,
        ..*draft
    };
    // Room for what it gets if it is needed longer than its segment is kept.
    let roomy = stored.len() + CARRIED_BYTES <= layout::PROPERTIES_BYTES_MAX;
    if !roomy {
        let most = layout::PROPERTIES_BYTES_MAX - CARRIED_BYTES;
        let remark = format!("the properties of a message for a time take {most} bytes at most");
        return Err(Reject::new(response::MESSAGE_ILLEGAL, remark));
    }
    pending
        .check()
        .map_err(|error| Reject::new(response::MESSAGE_ILLEGAL, error.to_string()))?;
    let room = broker.store.check_message();
    room.map_err(|refused| broker.refuse(refused))?;
    let slot = timer_queue(broker, now, hour)?;
    let dispatch = Dispatch::of(TIMER_TOPIC, &stored);
    let appended = broker.store.append(now, slot, &pending, &dispatch);
    broker.timers.add(Timer {
        due_ms,
        slot,
        offset: appended.offset.0,
    });
    broker.timers.pending.store(now.wall_ms, draft.topic);
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

pub fn timer_queue(broker: &mut Broker, now: Now, hour: i64) -> Result<QueueSlot, Reject> {
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
    let key = properties::find_str(draft.properties, names::UNIQUE_KEY)?;
    let name = &broker.options.control.broker_name;
    recall_handle(draft.topic, name, due_ms, key)
}

/// The same from what it says (`RecallMessageHandle.HandleV1`); retries have none.
pub fn recall_handle(topic: &str, broker: &str, due_ms: i64, key: &str) -> Option<String> {
    if topic.starts_with(RETRY_PREFIX) {
        return None;
    }
    let text = format!("v1 {topic} {broker} {due_ms} {key}");
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

/// What a shard says about the messages for a time that it holds.
pub fn read_here(broker: &Broker, now: Now) -> Vec<Row> {
    let timers = &broker.timers;
    vec![Row::Timers {
        read_ms: timers.read_ms(now),
        stored: timers.pending.stored(),
        version: timers.pending.version(),
    }]
}

pub fn pending_here(broker: &Broker, now: Now) -> Vec<Row> {
    let mut rows = read_here(broker, now);
    let counts = broker.timers.pending.counts();
    rows.extend(counts.map(|(topic, count)| Row::Pending(topic.clone(), count)));
    rows
}

/// Of all shards: the first time that is not delivered, how many messages were stored for a time,
/// and the version of the counts.
fn together(rows: &[Row]) -> (i64, u64, DataVersion) {
    let (mut first_ms, mut all, mut data_version) = (i64::MAX, 0, DataVersion::default());
    for row in rows {
        if let Row::Timers {
            read_ms,
            stored,
            version: (changes, changed_ms),
        } = row
        {
            first_ms = first_ms.min(*read_ms);
            all += stored;
            data_version.counter += *changes as i64;
            data_version.timestamp = data_version.timestamp.max(*changed_ms);
        }
    }
    (first_ms, all, data_version)
}

/// GET_TIMER_CHECK_POINT 60: times and places as a replica of the reference would go on from
/// (`TimerCheckpoint.encode`): time read up to, place in the timer log, messages taken up, the same
/// of the master; state version, time and number of the last change. There is no timer log here.
pub fn checkpoint(rows: &[Row]) -> Vec<u8> {
    let (read_ms, stored, version) = together(rows);
    let stored = stored as i64;
    let DataVersion {
        counter,
        state_version,
        timestamp,
    } = version;
    let fields = [
        read_ms,
        0,
        stored,
        stored,
        state_version,
        timestamp,
        counter,
    ];
    fields.map(i64::to_be_bytes).concat()
}

/// GET_TIMER_METRICS 61: how many messages wait for their time, by topic. A topic that was deleted
/// is not listed (`TimerMetrics.removeTimingCount`).
pub fn metrics(broker: &Broker, rows: &[Row]) -> Vec<u8> {
    let (_, _, data_version) = together(rows);
    let mut timing_count: BTreeMap<String, TimingCount> = BTreeMap::new();
    for row in rows {
        let Row::Pending(topic, count) = row else {
            continue;
        };
        if **topic == *OTHERS || broker.snapshot.topics.contains(topic) {
            let sum = timing_count.entry(topic.to_string()).or_default();
            sum.count += count.waits as i64;
            sum.time_stamp = sum.time_stamp.max(count.changed_ms);
        }
    }
    json::to_vec(&TimerMetrics {
        data_version,
        timing_count,
    })
}

impl Broker {
    /// After recovery and the first snapshot: the queues of pending messages.
    pub(in crate::broker) fn start_timers(&mut self, now: Now) {
        let queues = self.store.queues().iter();
        let queues = queues.filter(|(_, queue)| *queue.topic == *TIMER_TOPIC);
        let queues: Vec<_> = queues
            .map(|(slot, queue)| (i64::from(queue.queue_id), slot))
            .collect();
        let log_end = self.log_end();
        self.timers.start(now, queues.into_iter(), log_end);
        self.log_timers(now);
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
        let (min, _) = self.store.visible_range(wanted.slot);
        if from < min {
            self.timers.clip(min.0);
            return true;
        }
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
    let (min, visible) = broker.store.visible_range(timer.slot);
    if timer.offset < min.0 {
        // It was stored again, and is delivered from there.
        return broker.timers.delivered(now, timer, None, true);
    }
    if timer.offset >= visible.0 {
        // Not confirmed yet.
        return broker.timers.delivered(now, timer, None, false);
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
    let Some((message, is_timed, recalled)) = message(broker, now, &record) else {
        broker.stats.undeliverable += 1;
        return broker.timers.delivered(now, timer, None, true);
    };
    let counted = broker.timers.pending.counted(&message.topic, entry.at);
    let counted = counted.filter(|_| is_timed);
    match recalled {
        true => broker.timers.delivered(now, timer, counted, true),
        false => {
            let purpose = Purpose::Timed { timer, counted };
            let queues_if_new = u32::from(!is_timed);
            broker.request_put(now, message, queues_if_new, purpose, out);
        }
    }
}

fn stalled(broker: &mut Broker, now: Now, timer: Timer, waiter: u64, why: &Fetch<()>) {
    match why {
        Fetch::Wait => drop(broker.parked.insert(waiter, Parked::Timer(timer))),
        Fetch::Busy => broker.timers.delivered(now, timer, None, false),
        _ => {
            broker.stats.undeliverable += 1;
            broker.timers.delivered(now, timer, None, true);
        }
    }
}

/// What is to be delivered, whether it is a message for a time, and whether it was recalled; `None`
/// if it is not what it should be.
fn message(broker: &Broker, now: Now, record: &[u8]) -> Option<(OwnedMessage, bool, bool)> {
    let view = RecordView::parse(record).ok()?;
    let mut message = due_message(&view)?;
    let carried = properties::find_str(view.properties(), names::CARRIED);
    properties::remove(&mut message.properties, names::CARRIED);
    if carried == Some(LEVEL) {
        properties::remove(&mut message.properties, names::TIMER_OUT_MS);
        return Some((message, false, false));
    }
    let key = properties::find_str(&message.properties, names::UNIQUE_KEY).unwrap_or_default();
    let recalled = broker.timers.is_recalled(key_hash(&message.topic, key));
    let stored_ms = view.store_timestamp().to_string();
    let (kept, stored_ms) = (&mut message.properties, carried.unwrap_or(&stored_ms));
    properties::set(kept, names::TIMER_ENQUEUE_MS, stored_ms);
    properties::set(kept, names::TIMER_DEQUEUE_MS, &now.wall_ms.to_string());
    Some((message, true, recalled))
}

/// The disk did not give a message whose time has come: it may the next time.
pub fn unread(broker: &mut Broker, now: Now, timer: Timer) {
    broker.stats.damaged_reads += 1;
    broker.timers.unread(now, timer);
}
