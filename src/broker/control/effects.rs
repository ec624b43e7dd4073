//! What a call of [`super::Control`] asks its owner to do.

use std::sync::Arc;

use crate::base::ConnId;
use crate::broker::topics::Topic;
use crate::machine::Note;
use crate::remoting::code::response;
use crate::remoting::header::HeaderError;

/// Gathered during one or several calls, carried out by the broker of shard 0 after them:
///
/// 1. append `records` in order to the log of shard 0, and take [`super::Control::snapshot`];
/// 2. once they are durable, and so are all records before them, give every shard that snapshot;
/// 3. once every shard holds it, send the `answers` whose version it reaches.
///
/// An answer whose version is published already goes out at once. Everything else needs no waiting.
#[derive(Default, Debug)]
pub struct Effects {
    /// Payloads as [`crate::broker::record`] lays them out.
    pub records: Vec<Vec<u8>>,
    pub answers: Vec<Answer>,
    /// Whole one-way requests to clients.
    pub notices: Vec<(ConnId, Vec<u8>)>,
    /// Connections that expired: end them.
    pub closes: Vec<ConnId>,
    /// For the log.
    pub notes: Vec<Note>,
    /// Created or changed: register with the name servers at once, when durable.
    pub changed_topics: Vec<Arc<str>>,
    /// Gone: drop their queues and consumer offsets, when durable.
    pub deleted_topics: Vec<Arc<Topic>>,
    /// Gone, with true if their consumer offsets go too, when durable.
    pub deleted_groups: Vec<(Arc<str>, bool)>,
}

/// A whole response frame for `conn`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub conn: ConnId,
    pub frame: Vec<u8>,
    /// To be sent once every shard holds a snapshot of at least this version.
    pub version: u64,
}

/// Why a request is refused; becomes the response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reject {
    pub code: i32,
    pub remark: String,
    /// It may have been done all the same: a restart will tell.
    pub doubtful: bool,
}

/// A remark may quote what a peer sent; beyond this many bytes it is cut.
const REMARK_BYTES_MAX: usize = 4096;

impl Reject {
    pub fn new(code: i32, remark: impl Into<String>) -> Self {
        let mut remark = remark.into();
        if remark.len() > REMARK_BYTES_MAX {
            let fits = (0..=REMARK_BYTES_MAX)
                .rev()
                .find(|at| remark.is_char_boundary(*at));
            remark.truncate(fits.unwrap_or(0));
        }
        let doubtful = false;
        Reject {
            code,
            remark,
            doubtful,
        }
    }
}

impl From<HeaderError> for Reject {
    fn from(error: HeaderError) -> Self {
        Reject::new(response::INVALID_PARAMETER, error.to_string())
    }
}
