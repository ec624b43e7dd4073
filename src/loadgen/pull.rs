//! Pulls every queue of the topic from its start, one request per queue at a time, and follows its
//! end. Checks that the queue offsets that come are those that follow.

use std::collections::VecDeque;
use std::sync::Arc;

use super::link::Link;
use super::pipe::Pipe;
use super::tally::{Live, Tally};
use super::{Place, PullLoad, Schedule, Stop};
use crate::client::route::BrokerRoute;
use crate::message::view::RecordView;
use crate::remoting::body::heartbeat::{
    ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel,
};
use crate::remoting::body::json::to_vec;
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;
use crate::remoting::header::pull::{FLAG_SUBSCRIPTION, FLAG_SUSPEND, PullHeader, PullResponse};
use crate::remoting::text::Text;
use crate::shard::clock::Clock;

/// How long a broker may hold a request at the end of a queue.
const SUSPEND_MS: i64 = 1000;
/// Before anything was pulled, any offset may come first.
const UNKNOWN: i64 = -1;

struct Queue {
    id: i32,
    /// To be pulled next.
    offset: i64,
    /// Offset of the message that must come next, or [`UNKNOWN`].
    expected: i64,
}

/// What one answer brought.
#[derive(Default)]
struct Haul {
    first: i64,
    last: i64,
    messages: u64,
    bytes: u64,
    gaps: u64,
}

pub struct Worker {
    pipe: Pipe,
    topic: String,
    group: String,
    batch: i32,
    clock: Clock,
    live: Arc<Live>,
    tally: Tally,
    queues: Vec<Queue>,
    /// Queues without a request in flight.
    idle: VecDeque<usize>,
    /// Messages still to be pulled.
    left: u64,
}

impl Worker {
    pub fn connect(
        load: &PullLoad,
        broker: &BrokerRoute,
        place: Place,
        clock: Clock,
        live: Arc<Live>,
    ) -> Result<Worker, String> {
        let target = &load.target;
        let mut link = Link::connect(&broker.addr, target.codec)?;
        introduce(&mut link, &load.group)?;
        let mine = (0..broker.readable)
            .skip(place.peer)
            .step_by(target.connections);
        let queues: Vec<Queue> = mine
            .map(|id| Queue {
                id,
                offset: 0,
                expected: UNKNOWN,
            })
            .collect();
        let left = match target.stop {
            Stop::Messages(count) => place.part(count),
            Stop::Seconds(_) => u64::MAX,
        };
        Ok(Worker {
            pipe: Pipe::new(link, target.in_flight),
            topic: target.topic.clone(),
            group: load.group.clone(),
            batch: i32::try_from(load.batch).unwrap_or(i32::MAX),
            clock,
            live,
            tally: Tally::default(),
            idle: (0..queues.len()).collect(),
            queues,
            left,
        })
    }

    /// Pulls until the schedule or the count ends it, and waits for the last answers.
    pub fn run(mut self, schedule: Schedule) -> Result<Tally, String> {
        while self.clock.nanos() < schedule.start {
            std::thread::yield_now();
        }
        loop {
            let now = self.clock.nanos();
            let more = self.left > 0 && now < schedule.end;
            while more && self.pipe.has_room() {
                let Some(queue) = self.idle.pop_front() else {
                    break;
                };
                self.ask(now, queue);
            }
            // When enough has come, requests that a broker holds are not waited for.
            if self.pipe.in_flight() == 0 || self.left == 0 {
                return Ok(self.tally);
            }
            self.pipe.exchange()?;
            self.settle(schedule)?;
        }
    }

    fn ask(&mut self, now: u64, queue: usize) {
        let (topic, group, batch) = (&self.topic, &self.group, self.batch);
        let (id, offset) = (self.queues[queue].id, self.queues[queue].offset);
        let codec = self.pipe.link.codec;
        self.pipe.ask(now, queue, |out, opaque| {
            encode(out, codec, opaque, topic, group, id, offset, batch);
        });
    }

    fn settle(&mut self, schedule: Schedule) -> Result<(), String> {
        let now = self.clock.nanos();
        while let Some(answer) = self.pipe.link.take()? {
            let (opaque, code) = (answer.opaque, answer.code);
            let remark = answer.remark.map(|remark| remark.to_string());
            let outcome = haul(&answer);
            let request = self.pipe.answered(opaque)?;
            self.tally.code(code);
            let queue = &mut self.queues[request.tag];
            self.idle.push_back(request.tag);
            let Some((haul, next)) = outcome? else {
                // Asked again it would be refused again, and a count would never be reached.
                let (name, remark) = (response::name(code), remark.unwrap_or_default());
                let name = name.unwrap_or("an unknown code");
                return Err(format!("a pull was refused with {name} {code}: {remark}"));
            };
            queue.offset = next;
            if haul.messages == 0 {
                // Held until its time was over, or told to go on elsewhere.
                if code == response::PULL_OFFSET_MOVED {
                    queue.expected = UNKNOWN;
                }
                continue;
            }
            let follows = queue.expected == UNKNOWN || queue.expected == haul.first;
            self.tally.gaps += haul.gaps + u64::from(!follows);
            queue.expected = haul.last + 1;
            self.live.add(haul.messages, haul.bytes, 0);
            self.left = self.left.saturating_sub(haul.messages);
            if schedule.counts(now) {
                self.tally
                    .done(now, now - request.due, haul.messages, haul.bytes);
            }
        }
        Ok(())
    }
}

/// One heartbeat: brokers create the group of a consumer that they hear of.
fn introduce(link: &mut Link, group: &str) -> Result<(), String> {
    let consumer = ConsumerData {
        consume_from_where: Some(ConsumeFromWhere::FirstOffset),
        consume_type: Some(ConsumeType::Actively),
        group_name: group.to_owned(),
        message_model: Some(MessageModel::Clustering),
        ..ConsumerData::default()
    };
    let heartbeat = HeartbeatData {
        client_id: format!("orbitmq_bench@{}", std::process::id()),
        consumer_data_set: vec![consumer],
        ..HeartbeatData::default()
    };
    let code = request::HEART_BEAT;
    FrameWriter::request(&mut link.out, link.codec, 0, code, false)
        .finish_with_body(&to_vec(&heartbeat));
    let answer = link.call()?;
    if answer.code == response::SUCCESS {
        return Ok(());
    }
    let remark = answer
        .remark
        .map_or_else(String::new, |remark| remark.to_string());
    Err(format!(
        "the heartbeat of group {group} was refused: code {}: {remark}",
        answer.code
    ))
}

/// What an answer holds and where to go on; `None` if it is a refusal.
fn haul(answer: &Command<'_>) -> Result<Option<(Haul, i64)>, String> {
    let expected = [
        response::SUCCESS,
        response::PULL_NOT_FOUND,
        response::PULL_RETRY_IMMEDIATELY,
        response::PULL_OFFSET_MOVED,
    ];
    if !expected.contains(&answer.code) {
        return Ok(None);
    }
    let header = PullResponse::decode(&answer.ext).map_err(|error| error.to_string())?;
    let mut haul = Haul::default();
    for record in RecordView::iter(answer.body) {
        let record = record.map_err(|error| format!("a pulled message is broken: {error}"))?;
        let offset = record.queue_offset();
        if haul.messages == 0 {
            haul.first = offset;
        } else if offset != haul.last + 1 {
            haul.gaps += 1;
        }
        haul.last = offset;
        haul.messages += 1;
        haul.bytes += record.body().len() as u64;
    }
    Ok(Some((haul, header.next_begin_offset)))
}

#[expect(clippy::too_many_arguments, reason = "the fields of one request")]
fn encode(
    out: &mut Vec<u8>,
    codec: Codec,
    opaque: i32,
    topic: &str,
    group: &str,
    queue_id: i32,
    queue_offset: i64,
    max_msg_nums: i32,
) {
    let mut writer = FrameWriter::request(out, codec, opaque, request::PULL_MESSAGE, false);
    let header = PullHeader {
        consumer_group: Text::plain(group),
        topic: Text::plain(topic),
        queue_id,
        queue_offset,
        max_msg_nums,
        sys_flag: FLAG_SUSPEND | FLAG_SUBSCRIPTION,
        commit_offset: 0,
        suspend_timeout_ms: SUSPEND_MS,
        subscription: Some(Text::plain("*")),
        sub_version: 0,
        expression_type: Some(Text::plain("TAG")),
        max_msg_bytes: None,
        request_source: None,
        proxy_forward_client_id: None,
        lite_topic: None,
    };
    header.encode(&mut writer);
    writer.finish(0);
}
