//! Sends messages as a producer library frames them: short header names, a unique key, `WAIT`.

use std::sync::Arc;

use super::link::Link;
use super::pipe::Pipe;
use super::tally::{Live, Tally};
use super::{Place, SECOND_NS, Schedule, SendLoad, Stop};
use crate::broker::control::names::AUTO_CREATE_TOPIC;
use crate::client::route::BrokerRoute;
use crate::message::id::UniqueKeys;
use crate::message::{batch, names, properties};
use crate::remoting::code::{request, response};
use crate::remoting::command::FrameWriter;
use crate::remoting::frame::Codec;
use crate::remoting::header::send::SendHeader;
use crate::remoting::text::Text;
use crate::shard::clock::Clock;

const PRODUCER_GROUP: &str = "orbitmq_bench";
/// A message that is not measured has this birthday.
pub const UNTIMED: i64 = 0;
/// Progress is published after so many answers, and each time there is nothing to do.
const PUBLISH_EVERY: u64 = 256;

/// What is sent, over and over, with another key each time.
pub struct Message {
    topic: String,
    queues: i32,
    batch: usize,
    body: Vec<u8>,
    keys: UniqueKeys,
    keys_made: u32,
    properties: Vec<u8>,
    batch_body: Vec<u8>,
}

impl Message {
    pub fn new(load: &SendLoad) -> Message {
        let pid = std::process::id() as u16;
        Message {
            topic: load.target.topic.clone(),
            queues: i32::try_from(load.queues).unwrap_or(i32::MAX),
            batch: load.batch,
            // Text that does not compress to nothing.
            body: (0..load.body_bytes)
                .map(|n| b'a' + (n * n % 26) as u8)
                .collect(),
            keys: UniqueKeys::new([127, 0, 0, 1].into(), pid, 0),
            keys_made: 0,
            properties: Vec::new(),
            batch_body: Vec::new(),
        }
    }

    /// The properties of one more message.
    fn renew_properties(&mut self) {
        self.keys_made = self.keys_made.wrapping_add(1);
        // Time and counter together only have to differ from message to message.
        let key = self.keys.key(self.keys_made >> 16, self.keys_made as u16);
        self.properties.clear();
        properties::append(&mut self.properties, names::UNIQUE_KEY, key.as_str());
        properties::append(&mut self.properties, names::WAIT_STORED, "true");
    }

    /// Appends one request.
    pub fn encode(
        &mut self,
        out: &mut Vec<u8>,
        codec: Codec,
        opaque: i32,
        queue_id: i32,
        born_ms: i64,
    ) {
        let is_batch = self.batch > 1;
        self.batch_body.clear();
        for _ in 0..if is_batch { self.batch } else { 0 } {
            self.renew_properties();
            let sub = batch::SubMessage {
                flag: 0,
                body: &self.body,
                properties: &self.properties,
            };
            batch::append(&mut self.batch_body, sub);
        }
        self.renew_properties();
        let code = if is_batch {
            request::SEND_BATCH_MESSAGE
        } else {
            request::SEND_MESSAGE_V2
        };
        let mut writer = FrameWriter::request(out, codec, opaque, code, false);
        let header = SendHeader {
            producer_group: Text::plain(PRODUCER_GROUP),
            topic: Text::plain(&self.topic),
            default_topic: Text::plain(AUTO_CREATE_TOPIC),
            default_topic_queue_nums: self.queues,
            queue_id,
            sys_flag: 0,
            born_timestamp: born_ms,
            flag: 0,
            properties: Text::plain(std::str::from_utf8(&self.properties).unwrap_or_default()),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: is_batch,
            broker_name: None,
        };
        header.encode_short(&mut writer);
        writer.finish_with_body(if is_batch {
            &self.batch_body
        } else {
            &self.body
        });
    }
}

/// One connection's load.
pub struct Worker {
    pipe: Pipe,
    message: Message,
    clock: Clock,
    live: Arc<Live>,
    tally: Tally,
    queue: i32,
    queues: i32,
    /// Requests still to be sent.
    left: u64,
    /// Nanoseconds from one request to the next; `None` for as fast as answers come.
    interval: Option<f64>,
    /// Requests sent so far.
    sent: u64,
    /// This worker's part of the first interval, so that workers take turns.
    phase: f64,
}

impl Worker {
    pub fn connect(
        load: &SendLoad,
        broker: &BrokerRoute,
        place: Place,
        clock: Clock,
        live: Arc<Live>,
    ) -> Result<Worker, String> {
        let target = &load.target;
        let mut link = Link::connect(&broker.addr, target.codec)?;
        let per_worker = |rate: u64| rate as f64 / place.workers as f64 / load.batch as f64;
        let interval = load.rate.map(|rate| SECOND_NS as f64 / per_worker(rate));
        if interval.is_some() {
            link.never_wait()?;
        }
        let left = match target.stop {
            Stop::Messages(count) => place.part(count.div_ceil(load.batch as u64)),
            Stop::Seconds(_) => u64::MAX,
        };
        let mut message = Message::new(load);
        // Keys of workers differ.
        message.keys = UniqueKeys::new(
            [127, 0, 0, 1].into(),
            std::process::id() as u16,
            place.index as u32,
        );
        let share = place.index as f64 / place.workers as f64;
        Ok(Worker {
            pipe: Pipe::new(link, target.in_flight),
            message,
            clock,
            live,
            tally: Tally::default(),
            queue: place.peer as i32,
            queues: broker.writable,
            left,
            interval,
            sent: 0,
            phase: interval.unwrap_or(0.0) * share,
        })
    }

    /// Sends until the schedule or the count ends it, and waits for the last answers.
    pub fn run(mut self, schedule: Schedule) -> Result<Tally, String> {
        while self.clock.nanos() < schedule.start {
            std::thread::yield_now();
        }
        let zero_wall_ms = self.clock.now().wall_ms - (self.clock.nanos() / 1_000_000) as i64;
        let mut silent_since = self.clock.nanos();
        loop {
            let now = self.clock.nanos();
            self.issue(now, zero_wall_ms, schedule);
            if self.pipe.in_flight() == 0 {
                if self.left == 0 || now >= schedule.end {
                    return Ok(self.tally);
                }
                silent_since = now;
                std::thread::yield_now();
            } else if self.pipe.exchange()? {
                silent_since = self.settle(schedule)?;
            } else if now > silent_since + super::link::ANSWER_TIMEOUT.as_nanos() as u64 {
                return Err("the broker has stopped answering".to_owned());
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Writes the requests that are due and have room.
    fn issue(&mut self, now: u64, zero_wall_ms: i64, schedule: Schedule) {
        let born_ms = zero_wall_ms + (now / 1_000_000) as i64;
        while self.left > 0 && self.pipe.has_room() && now < schedule.end {
            let due = match self.interval {
                None => now,
                Some(interval) => {
                    schedule.start + (self.phase + interval * self.sent as f64) as u64
                }
            };
            if due > now {
                return;
            }
            self.queue = if self.queue + 1 < self.queues {
                self.queue + 1
            } else {
                0
            };
            let (message, queue) = (&mut self.message, self.queue);
            let codec = self.pipe.link.codec;
            self.pipe.ask(due, 0, |out, opaque| {
                message.encode(out, codec, opaque, queue, born_ms);
            });
            self.left -= 1;
            self.sent += 1;
        }
    }

    /// Takes all answers that have come; gives the moment.
    fn settle(&mut self, schedule: Schedule) -> Result<u64, String> {
        let now = self.clock.nanos();
        let batch = self.message.batch as u64;
        let bytes = batch * self.message.body.len() as u64;
        let (mut answers, mut failed, mut stored) = (0, 0, 0u64);
        while let Some(answer) = self.pipe.link.take()? {
            let (opaque, code) = (answer.opaque, answer.code);
            let fine = code == response::SUCCESS;
            if !fine {
                let remark = answer.remark.map(|remark| remark.to_string());
                self.tally.refused(code, remark);
                self.tally.code(code);
                failed += 1;
            }
            let request = self.pipe.answered(opaque)?;
            answers += 1;
            if fine {
                stored += 1;
                if schedule.counts(now) {
                    self.tally.done(now, now - request.due, batch, bytes);
                }
            }
            if answers == PUBLISH_EVERY {
                self.publish(stored, bytes, failed);
                (answers, failed, stored) = (0, 0, 0);
            }
        }
        self.publish(stored, bytes, failed);
        Ok(now)
    }

    fn publish(&mut self, stored: u64, bytes: u64, failed: u64) {
        if stored > 0 {
            *self.tally.codes.entry(response::SUCCESS).or_default() += stored;
        }
        self.live
            .add(stored * self.message.batch as u64, stored * bytes, failed);
    }
}
