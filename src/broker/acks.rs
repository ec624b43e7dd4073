//! Answers that wait for the log, in log order.

use crate::base::{ConnId, LogOffset, Mono, Now, ShardId};
use crate::broker::control::effects::Reject;
use crate::broker::light;
use crate::broker::publish::Publish;
use crate::broker::puts::Stored;
use crate::broker::survey::{self, Row};
use crate::broker::{Broker, BrokerOptions, Peer};
use crate::machine::Outbox;
use crate::message::id::OffsetId;
use crate::remoting::code::response;
use crate::remoting::command::FrameWriter;
use crate::remoting::frame::Codec;
use crate::remoting::stencil::{NUMBERS, Number, Stencil};
use bytes::Bytes;

/// Where an answer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    pub conn: ConnId,
    pub opaque: i32,
    pub codec: Codec,
}

impl ReplyTo {
    pub fn success(self, bytes: &mut Vec<u8>) -> FrameWriter<'_> {
        FrameWriter::response(bytes, self.codec, self.opaque, response::SUCCESS, None)
    }
}

/// What is to be done once the log is confirmed up to some offset.
pub enum Ack {
    Send(SendAck),
    /// A message that another shard, or this one, asked to be stored.
    Put {
        from: ShardId,
        ticket: u64,
        stored: Stored,
    },
    /// A message for light queues, stored for another shard.
    LightCopy {
        from: ShardId,
        ticket: u64,
        offsets: light::Offsets,
    },
    /// A consumer offset is safe; with a value it was a query.
    Offset {
        to: ReplyTo,
        value: Option<i64>,
    },
    /// What a shard did for a question is safe.
    Rows {
        from: ShardId,
        ticket: u64,
        rows: Vec<Row>,
    },
    /// An answer that is written already.
    Ready(Box<Ready>),
    /// A change of control state is safe.
    Publish(Publish),
}

/// A frame that waits for the log: its beginning, and messages behind it.
pub struct Ready {
    pub to: ReplyTo,
    pub head: Vec<u8>,
    pub slices: Vec<Bytes>,
}

/// A stored message, or several of one request, whose sender waits.
pub struct SendAck {
    pub to: ReplyTo,
    pub queue_id: i32,
    /// Queue offset of the first.
    pub offset: u64,
    pub at: LogOffset,
    pub more: Option<Box<More>>,
    pub due: Mono,
}

/// What few answers to a send have.
pub enum More {
    /// The other messages of a batch.
    Batch(Vec<LogOffset>),
    /// With what a message for a time is taken back.
    Recall(String),
    /// The unique key of a half: its transaction's id.
    Half(String),
}

impl Ready {
    pub fn send(self, out: &mut Outbox<Peer>) {
        out.write(self.to.conn, |bytes| bytes.extend_from_slice(&self.head));
        for slice in self.slices {
            out.share(self.to.conn, slice);
        }
    }
}

impl Ack {
    /// When waiting longer is to be answered.
    pub fn deadline(&self) -> Option<Mono> {
        match self {
            Ack::Send(send) => Some(send.due),
            _ => None,
        }
    }
}

impl Broker {
    /// Carries out what the log confirms by now; after a failure of the disk, refuses it.
    pub(super) fn answer_confirmed(&mut self, now: Now, out: &mut Outbox<Peer>) {
        let confirmed = self.store.confirmed();
        while let Some(ack) = self.acks.pop(confirmed) {
            self.confirm(now, ack, out);
        }
        let durable = self.store.log().durable();
        while let Some(ack) = self.firm_acks.pop(durable) {
            self.confirm(now, ack, out);
        }
        if self.store.log().failed().is_some() {
            self.refuse_waiting(now, out);
        }
    }

    fn confirm(&mut self, now: Now, ack: Ack, out: &mut Outbox<Peer>) {
        match ack {
            Ack::Send(send) => self.answer_send(&send, response::SUCCESS, None, out),
            Ack::Put {
                from,
                ticket,
                stored,
            } => {
                self.tell_put(now, from, ticket, Ok(stored), out);
            }
            Ack::LightCopy {
                from,
                ticket,
                offsets,
            } => {
                let result = Ok(offsets);
                out.peers.push((from, Peer::LightCopied { ticket, result }));
            }
            Ack::Offset { to, value } => answer_offset(to, value, out),
            Ack::Rows { from, ticket, rows } => survey::give(self, from, ticket, rows, out),
            Ack::Ready(ready) => ready.send(out),
            Ack::Publish(publish) => self.publish(now, publish, out),
        }
    }

    /// Nothing more will be confirmed: says so to everybody who waits.
    fn refuse_waiting(&mut self, now: Now, out: &mut Outbox<Peer>) {
        while let Some(ack) = self.acks.pop_any().or_else(|| self.firm_acks.pop_any()) {
            let Err(refused) = self.store.check_append() else {
                return;
            };
            let reject = self.refuse(refused);
            match ack {
                Ack::Send(SendAck { to, .. }) | Ack::Offset { to, .. } => {
                    super::handle::reject_to(to, &reject, out);
                }
                Ack::Put { from, ticket, .. } => {
                    let doubtful = true;
                    let reject = Reject { doubtful, ..reject };
                    self.tell_put(now, from, ticket, Err(reject), out);
                }
                Ack::LightCopy { from, ticket, .. } => {
                    let result = Err(reject);
                    out.peers.push((from, Peer::LightCopied { ticket, result }));
                }
                Ack::Rows { from, ticket, .. } => {
                    survey::give(self, from, ticket, vec![Row::Refused(reject)], out);
                }
                Ack::Ready(ready) => super::handle::reject_to(ready.to, &reject, out),
                Ack::Publish(publish) => self.publish_failed(&publish, &reject, out),
            }
        }
    }

    /// Sends that wait beyond `syncFlushTimeout` are answered `FLUSH_DISK_TIMEOUT`: stored, but it
    /// is not known to be safe.
    pub(super) fn expire_acks(&mut self, now: Now, out: &mut Outbox<Peer>) {
        while self
            .acks
            .front()
            .and_then(Ack::deadline)
            .is_some_and(|due| due <= now.mono)
        {
            let Some(Ack::Send(send)) = self.acks.pop_any() else {
                return;
            };
            let ms = self.options.flush_timeout_ms;
            let remark = format!("the message was not safely on disk within {ms} ms");
            self.answer_send(&send, response::FLUSH_DISK_TIMEOUT, Some(&remark), out);
        }
    }

    fn answer_send(
        &mut self,
        send: &SendAck,
        code: i32,
        remark: Option<&str>,
        out: &mut Outbox<Peer>,
    ) {
        self.answer_send_from(self.me, send, code, remark, out);
    }

    /// Answers a send whose message lies in the log of `shard`.
    pub(super) fn answer_send_from(
        &mut self,
        shard: ShardId,
        send: &SendAck,
        code: i32,
        remark: Option<&str>,
        out: &mut Outbox<Peer>,
    ) {
        let to = send.to;
        let plain = code == response::SUCCESS && remark.is_none() && send.more.is_none();
        if plain && let Some(answer) = self.send_answers.of(to.codec) {
            let numbers = answer_numbers(shard, send);
            return out.write(to.conn, |bytes| answer.fill(numbers, bytes));
        }
        out.write(to.conn, |bytes| {
            put_send_answer(&self.options, shard, send, (code, remark), bytes);
        });
    }
}

/// Answers to sends that are stored, as most are: one for each codec, unless it is too long.
pub struct SendAnswers {
    json: Option<Stencil>,
    binary: Option<Stencil>,
}

impl SendAnswers {
    pub fn new(options: &BrokerOptions) -> Self {
        let answer = |codec| {
            let send = sample(codec);
            let mut bytes = Vec::new();
            let success = (response::SUCCESS, None);
            put_send_answer(options, ShardId(0), &send, success, &mut bytes);
            Stencil::of(&bytes, answer_numbers(ShardId(0), &send))
        };
        SendAnswers {
            json: answer(Codec::Json),
            binary: answer(Codec::Binary),
        }
    }

    fn of(&mut self, codec: Codec) -> Option<&mut Stencil> {
        match codec {
            Codec::Json => self.json.as_mut(),
            Codec::Binary => self.binary.as_mut(),
        }
    }
}

/// A send whose numbers are to be found in the answer.
fn sample(codec: Codec) -> SendAck {
    SendAck {
        to: ReplyTo {
            conn: ConnId {
                shard: ShardId(0),
                slot: 0,
                generation: 0,
            },
            opaque: 1_111_111_111,
            codec,
        },
        queue_id: 1_222_222_222,
        offset: 1_333_333_333,
        at: LogOffset(0x0044_4444_4444_4444),
        more: None,
        due: Mono::default(),
    }
}

/// What differs among answers otherwise alike.
#[inline]
fn answer_numbers(shard: ShardId, send: &SendAck) -> [Number; NUMBERS] {
    [
        Number::Hex(send.at.physical(shard) as u64),
        Number::Decimal(send.queue_id.into()),
        Number::Decimal(send.offset as i64),
        Number::Opaque(send.to.opaque),
    ]
}

/// Appends the answer to a send whose message lies in the log of `shard`.
fn put_send_answer(
    options: &BrokerOptions,
    shard: ShardId,
    send: &SendAck,
    (code, remark): (i32, Option<&str>),
    bytes: &mut Vec<u8>,
) {
    let mut w = FrameWriter::response(bytes, send.to.codec, send.to.opaque, code, remark);
    w.field_str("MSG_REGION", &options.region);
    w.field_bool("TRACE_ON", options.trace_on);
    let id = |at: LogOffset| {
        let physical_offset = at.physical(shard);
        OffsetId {
            store_host: options.store_host,
            physical_offset,
        }
        .to_text()
    };
    if let Some(More::Batch(others)) = send.more.as_deref() {
        let first = id(send.at);
        let mut ids = String::with_capacity((others.len() + 1) * (first.as_str().len() + 1));
        ids.push_str(first.as_str());
        for at in others {
            ids.push(',');
            ids.push_str(id(*at).as_str());
        }
        w.field_str("msgId", &ids);
    } else {
        w.field_str("msgId", id(send.at).as_str());
    }
    match send.more.as_deref() {
        Some(More::Recall(handle)) => w.field_str("recallHandle", handle),
        Some(More::Half(key)) => w.field_str("transactionId", key),
        Some(More::Batch(_)) | None => {}
    }
    w.field_i64("queueId", i64::from(send.queue_id));
    w.field_i64("queueOffset", send.offset as i64);
    w.finish(0);
}

fn answer_offset(to: ReplyTo, value: Option<i64>, out: &mut Outbox<Peer>) {
    let offset = |w: &mut FrameWriter<'_>| value.iter().for_each(|at| w.field_i64("offset", *at));
    super::handle::tell(to, out, offset);
}
