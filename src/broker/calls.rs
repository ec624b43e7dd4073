//! Requests that the broker sends to clients and that are answered: what each answer is for.
//!
//! Shard 0 alone has this table, for it knows who is connected; the shard that holds the client's
//! connection sends the answer on. A call ends once: by its answer, by its time, or with its
//! connection.
//!
//! Source: `Broker2Client.callClient`.

use crate::base::heap::Deadlines;
use crate::base::{ConnId, Map, Mono};
use crate::broker::acks::ReplyTo;
use crate::broker::handle::relay::Statuses;
use crate::broker::handle::reply::Pushed;
use crate::remoting::body::assignment::QueryAssignment;

/// How long a client may take (`Broker2Client.callClient`), ms.
pub const CALL_MS: u64 = 10_000;
/// Calls under way at a time.
pub const CALLS_MAX: usize = 10_000;

/// What an answer is for.
pub enum Wish {
    /// It goes to whoever asked, as it is.
    Relay {
        to: ReplyTo,
        group: String,
        client_id: String,
    },
    /// A member of a group says where it stands; then the next one is asked.
    Status(Box<Statuses>),
    /// A name server says where a topic is; then queues are shared out.
    Route {
        to: ReplyTo,
        ask: Box<QueryAssignment>,
    },
    /// A reply was pushed to whoever waits for it.
    Pushed(Box<Pushed>),
}

/// How a call ended without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    TimeIsUp,
    Closed,
}

struct Call {
    conn: ConnId,
    wish: Wish,
}

/// Numbers of calls begin here: those of registrations, on the same connections, are far below.
const FIRST: i32 = 1 << 30;

pub struct Calls {
    waiting: Map<i32, Call>,
    deadlines: Deadlines<i32>,
    opaque: i32,
}

impl Default for Calls {
    fn default() -> Self {
        Calls {
            waiting: Map::default(),
            deadlines: Deadlines::default(),
            opaque: FIRST,
        }
    }
}

impl Calls {
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= CALLS_MAX
    }

    /// Enters a call that is to end within a time; gives the number that its request must carry.
    pub fn begin(&mut self, now: Mono, within_ms: u64, conn: ConnId, wish: Wish) -> i32 {
        loop {
            self.opaque = self.opaque.checked_add(1).unwrap_or(FIRST);
            if !self.waiting.contains_key(&self.opaque) {
                break;
            }
        }
        self.waiting.insert(self.opaque, Call { conn, wish });
        self.deadlines.push(now.after_ms(within_ms), self.opaque);
        self.opaque
    }

    /// Ends the call that this answer is for, if there is one.
    pub fn answered(&mut self, conn: ConnId, opaque: i32) -> Option<Wish> {
        if self.waiting.get(&opaque)?.conn != conn {
            return None;
        }
        self.waiting.remove(&opaque).map(|call| call.wish)
    }

    /// Ends the calls to a connection that is gone.
    pub fn closed(&mut self, conn: ConnId) -> Vec<Wish> {
        let gone = self.waiting.extract_if(|_, call| call.conn == conn);
        gone.map(|(_, call)| call.wish).collect()
    }

    /// Ends a call whose time is up.
    pub fn expire(&mut self, now: Mono) -> Option<Wish> {
        while let Some(opaque) = self.deadlines.pop_due(now) {
            if let Some(call) = self.waiting.remove(&opaque) {
                return Some(call.wish);
            }
        }
        None
    }

    pub fn deadline(&self) -> Option<Mono> {
        match self.waiting.is_empty() {
            true => None,
            false => self.deadlines.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ShardId;
    use crate::remoting::frame::Codec;

    fn conn(slot: u32) -> ConnId {
        ConnId {
            shard: ShardId(0),
            slot,
            generation: 1,
        }
    }

    fn relay() -> Wish {
        let to = ReplyTo {
            conn: conn(9),
            opaque: 7,
            codec: Codec::Json,
        };
        Wish::Relay {
            to,
            group: "g".to_owned(),
            client_id: "c".to_owned(),
        }
    }

    #[test]
    fn a_call_ends_once() {
        let mut calls = Calls::default();
        let first = calls.begin(Mono(0), CALL_MS, conn(1), relay());
        let second = calls.begin(Mono(5), CALL_MS, conn(1), relay());
        let third = calls.begin(Mono(5), CALL_MS, conn(2), relay());
        assert!(calls.answered(conn(2), first).is_none(), "not asked there");
        assert!(calls.answered(conn(1), first).is_some());
        assert!(calls.answered(conn(1), first).is_none());
        assert_eq!(calls.closed(conn(1)).len(), 1);
        assert!(calls.answered(conn(1), second).is_none());
        assert!(calls.expire(Mono(4 + CALL_MS)).is_none());
        assert!(calls.expire(Mono(5 + CALL_MS)).is_some());
        assert!(calls.answered(conn(2), third).is_none());
        assert_eq!(calls.deadline(), None);
    }
}
