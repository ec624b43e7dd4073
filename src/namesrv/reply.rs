//! Answers on their way out: typed header, body, or the reason why not.

use std::convert::Infallible;

use bytes::Bytes;

use super::kv::KvOutcome;
use super::limits::Refusal;
use crate::base::ConnId;
use crate::machine::Outbox;
use crate::remoting::body::json::BodyError;
use crate::remoting::code::response;
use crate::remoting::command::FrameWriter;
use crate::remoting::frame::Codec;
use crate::remoting::header::HeaderError;
use crate::remoting::header::namesrv::{DataVersionResponse, RegisterBrokerResponse};
use crate::remoting::header::namesrv_admin::{AddWriteResponse, KvValue, WipeResponse};

/// Longer bodies are sent from where they are instead of copied behind their header.
const INLINE_BODY_BYTES_MAX: usize = 4096;

/// Where an answer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Replier {
    pub conn: ConnId,
    pub codec: Codec,
    pub opaque: i32,
    pub oneway: bool,
}

/// The typed header of an answer.
pub(super) enum ResponseHeader {
    Registered(RegisterBrokerResponse<'static>),
    Version(DataVersionResponse),
    Value(KvValue<'static>),
    Wiped(WipeResponse),
    Added(AddWriteResponse),
}

impl ResponseHeader {
    fn encode(&self, writer: &mut FrameWriter<'_>) {
        match self {
            ResponseHeader::Registered(header) => header.encode(writer),
            ResponseHeader::Version(header) => header.encode(writer),
            ResponseHeader::Value(header) => header.encode(writer),
            ResponseHeader::Wiped(header) => header.encode(writer),
            ResponseHeader::Added(header) => header.encode(writer),
        }
    }
}

/// What goes back.
#[derive(Default)]
pub(super) struct Answer {
    pub header: Option<ResponseHeader>,
    pub body: Bytes,
}

impl Answer {
    pub fn body(body: Vec<u8>) -> Self {
        Answer {
            header: None,
            body: Bytes::from(body),
        }
    }

    pub fn header(header: ResponseHeader) -> Self {
        Answer {
            header: Some(header),
            body: Bytes::new(),
        }
    }
}

/// A request that is not done, and why.
pub(super) struct Reject {
    pub code: i32,
    pub remark: String,
}

impl Reject {
    pub fn new(code: i32, remark: impl Into<String>) -> Self {
        let remark = remark.into();
        Reject { code, remark }
    }

    pub fn error(remark: impl Into<String>) -> Self {
        Reject::new(response::SYSTEM_ERROR, remark)
    }
}

impl From<HeaderError> for Reject {
    fn from(error: HeaderError) -> Self {
        Reject::error(error.to_string())
    }
}

impl From<BodyError> for Reject {
    fn from(error: BodyError) -> Self {
        Reject::error(error.to_string())
    }
}

impl From<Refusal> for Reject {
    fn from(refusal: Refusal) -> Self {
        Reject::error(refusal.to_string())
    }
}

/// Answers changes of the key-value table that are durable, or will not be.
pub(super) fn answer_changes(outcomes: Vec<KvOutcome<Replier>>, out: &mut Outbox<Infallible>) {
    for (to, outcome) in outcomes {
        let answer = Answer::default();
        match outcome {
            Ok(()) => reply(to, response::SUCCESS, None, answer, out),
            Err(reason) => reply(to, response::SYSTEM_ERROR, Some(&reason), answer, out),
        }
    }
}

/// Writes an answer, unless nobody waits for it.
pub(super) fn reply(
    to: Replier,
    code: i32,
    remark: Option<&str>,
    answer: Answer,
    out: &mut Outbox<Infallible>,
) {
    if to.oneway {
        return;
    }
    let body = answer.body;
    let inline = body.len() <= INLINE_BODY_BYTES_MAX;
    out.write(to.conn, |bytes| {
        let mut writer = FrameWriter::response(bytes, to.codec, to.opaque, code, remark);
        if let Some(header) = &answer.header {
            header.encode(&mut writer);
        }
        if inline {
            writer.finish_with_body(&body);
        } else {
            writer.finish(body.len());
        }
    });
    if !inline {
        out.share(to.conn, body);
    }
}
