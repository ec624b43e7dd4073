//! Pops on their way: what consumers asked, who waits, and which shard wants to hear of new
//! messages.
//!
//! A pop may be for queues of several shards. The shard its client is connected to is its *home*;
//! from there it visits the shards that own such queues, one after the other, until one has
//! messages and answers. A shard that has none notes the home's interest in the same moment, so
//! that nothing that comes later is missed. A pop that found nothing waits at home until a shard
//! says that there may be something, or its time is over.
//!
//! Source: `PopLongPollingService`, `spec/semantics.md` §8.

use crate::base::heap::Deadlines;
use crate::base::{ConnId, Map, Mono, ShardId};
use crate::broker::acks::ReplyTo;
use crate::broker::topics::Topic;
use crate::filter::Filter;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Pops of one group, topic and shard that wait (`popPollingSize`).
pub const LINE_MAX: usize = 1024;
/// And all of them together (`maxPopPollingSize`).
pub const WAITING_MAX: usize = 100_000;

/// What a consumer asked.
pub struct Ask {
    pub to: ReplyTo,
    pub topic: Arc<Topic>,
    pub group: Arc<str>,
    /// Negative: any.
    pub queue_id: i32,
    pub filter: Filter,
    pub order: bool,
    /// Who asks again with the same gets the same; empty if nobody does.
    pub attempt: String,
    pub until: Mono,
    pub what: What,
}

pub enum What {
    /// Messages: at most so many, for so long.
    Pop {
        most: usize,
        invisible_ms: i64,
        /// A group without an offset begins with the oldest message, not with the newest.
        from_oldest: bool,
    },
    /// Messages that stay where they are: at most so many.
    Peek { most: usize },
    /// Only to be told that there is something.
    Notice,
}

/// In which order a pop goes through the queues; decided anew each time it sets out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Course {
    /// How far the first queue is from the end of the row.
    pub shift: i32,
    /// Retry topics come before the topic itself.
    pub retry_first: bool,
    /// Which of the two forms of a retry topic.
    pub retry_form: usize,
    /// Never a queue before one that comes earlier: the visit stops at each run of queues that one
    /// shard owns, and this is the number of the run it is at.
    pub strict: Option<usize>,
}

/// A pop on its way through the shards.
pub struct Visit {
    pub ask: Arc<Ask>,
    pub home: ShardId,
    pub ticket: u64,
    pub course: Course,
    /// Where it goes next; the last one first.
    pub left: Vec<ShardId>,
}

struct Waiting {
    ask: Arc<Ask>,
    /// At home, not on its way.
    parked: bool,
    /// Something came while it was on its way.
    woken: bool,
    /// Its end is in the heap.
    timed: bool,
}

/// Topic and group.
pub type Line = (Arc<str>, Arc<str>);

/// A group that wants to hear of new messages, and where its pops wait.
struct Interest {
    line: Line,
    home: ShardId,
}

#[derive(Default)]
pub struct Pops {
    waiting: Map<u64, Waiting>,
    lines: Map<Line, VecDeque<u64>>,
    /// Those in `waiting`, by connection.
    conns: BTreeSet<(ConnId, u64)>,
    due: Deadlines<u64>,
    tickets: u64,
    /// By the name of the topic that a message comes to.
    interests: Map<String, Vec<Interest>>,
    /// Who is to look at this shard's queues.
    wakes: VecDeque<(Line, i32)>,
}

/// What to do with a pop that found nothing.
pub enum Empty {
    /// Its connection is closed or it was answered.
    Gone,
    /// Something came meanwhile.
    Again(Arc<Ask>),
    /// It waits.
    Parked,
    /// Its time is over, or no more can wait.
    Over { ask: Arc<Ask>, is_full: bool },
}

/// Who is to look after a group's messages that may be there.
pub enum Wake {
    /// This pop.
    Look(u64, Arc<Ask>),
    /// Those that wait are on their way round the shards already, and will come by once more.
    UnderWay,
    /// Nobody waits here.
    Nobody,
}

impl Pops {
    /// Takes in a pop that a client of this shard asked.
    pub fn enter(&mut self, ask: Arc<Ask>) -> u64 {
        self.tickets += 1;
        let line = line_of(&ask);
        self.lines.entry(line).or_default().push_back(self.tickets);
        self.conns.insert((ask.to.conn, self.tickets));
        let waiting = Waiting {
            ask,
            parked: false,
            woken: false,
            timed: false,
        };
        self.waiting.insert(self.tickets, waiting);
        self.tickets
    }

    /// A pop was answered.
    pub fn leave(&mut self, ticket: u64) -> Option<Arc<Ask>> {
        let waiting = self.waiting.remove(&ticket)?;
        self.conns.remove(&(waiting.ask.to.conn, ticket));
        let line = line_of(&waiting.ask);
        if let Some(tickets) = self.lines.get_mut(&line) {
            tickets.retain(|known| *known != ticket);
            if tickets.is_empty() {
                self.lines.remove(&line);
            }
        }
        Some(waiting.ask)
    }

    /// A pop has been everywhere and found nothing.
    pub fn empty(&mut self, now: Mono, ticket: u64) -> Empty {
        let (all, lines) = (self.waiting.len(), &self.lines);
        let Some(waiting) = self.waiting.get_mut(&ticket) else {
            return Empty::Gone;
        };
        if std::mem::take(&mut waiting.woken) {
            return Empty::Again(waiting.ask.clone());
        }
        let line = lines.get(&line_of(&waiting.ask)).map_or(0, VecDeque::len);
        let is_full = line > LINE_MAX || all > WAITING_MAX;
        if waiting.ask.until <= now || is_full {
            let is_full = is_full && waiting.ask.until > now;
            let ask = self.leave(ticket).expect("just found");
            return Empty::Over { ask, is_full };
        }
        waiting.parked = true;
        if !std::mem::replace(&mut waiting.timed, true) {
            self.due.push(waiting.ask.until, ticket);
            let waiting = &self.waiting;
            self.due
                .prune(waiting.len(), |ticket| waiting.contains_key(ticket));
        }
        Empty::Parked
    }

    /// There may be something in a queue for a group.
    pub fn wake(&mut self, line: &Line, queue_id: i32) -> Wake {
        let Some(tickets) = self.lines.get(line) else {
            return Wake::Nobody;
        };
        let mut on_their_way = Vec::new();
        for ticket in tickets {
            let waiting = self.waiting.get_mut(ticket).expect("lines hold who waits");
            if queue_id >= 0 && waiting.ask.queue_id >= 0 && waiting.ask.queue_id != queue_id {
                continue;
            }
            if waiting.parked {
                waiting.parked = false;
                return Wake::Look(*ticket, waiting.ask.clone());
            }
            on_their_way.push(*ticket);
        }
        for ticket in on_their_way {
            self.waiting.get_mut(&ticket).expect("just seen").woken = true;
        }
        Wake::UnderWay
    }

    /// A pop whose time is over.
    pub fn expire(&mut self, now: Mono) -> Option<Arc<Ask>> {
        while let Some(ticket) = self.due.pop_due(now) {
            let waiting = self.waiting.get(&ticket);
            if waiting.is_some_and(|waiting| waiting.parked && waiting.ask.until <= now) {
                return self.leave(ticket);
            }
        }
        None
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.due.next()
    }

    /// A connection is gone: its pops take nothing any more.
    pub fn closed(&mut self, conn: ConnId) {
        let gone = self.conns.range((conn, 0)..=(conn, u64::MAX));
        let gone: Vec<u64> = gone.map(|(_, ticket)| *ticket).collect();
        for ticket in gone {
            self.leave(ticket);
        }
    }

    /// Whose pops wait here.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.keys()
    }

    /// How many wait here for this queue, or for any.
    pub fn waiting_for(&self, line: &Line, queue_id: i32) -> usize {
        let tickets = self.lines.get(line).into_iter().flatten();
        let asks = tickets.filter_map(|ticket| self.waiting.get(ticket));
        asks.filter(|waiting| waiting.parked && waiting.ask.queue_id == queue_id)
            .count()
    }

    /// A home wants to hear of messages in these topics.
    pub fn note_interest(&mut self, ask: &Ask, home: ShardId, topics: [&str; 3]) {
        for topic in topics {
            let line = line_of(ask);
            let known = match self.interests.get_mut(topic) {
                Some(known) => known,
                None => self.interests.entry(topic.to_owned()).or_default(),
            };
            if !known
                .iter()
                .any(|interest| interest.home == home && interest.line == line)
            {
                known.push(Interest { line, home });
            }
        }
    }

    /// Nobody waits there any more.
    pub fn forget_interest(&mut self, line: &Line, home: ShardId) {
        self.interests.retain(|_, known| {
            known.retain(|interest| interest.home != home || interest.line != *line);
            !known.is_empty()
        });
    }

    /// There may be something in this shard for a group whose pops wait here too.
    pub fn wake_soon(&mut self, line: Line, queue_id: i32) {
        self.wakes.push_back((line, queue_id));
    }

    pub fn next_wake(&mut self) -> Option<(Line, i32)> {
        self.wakes.pop_front()
    }

    pub fn has_interests(&self) -> bool {
        !self.interests.is_empty()
    }

    /// Who wants to hear of a message in a topic; of a message for one group, if it is named.
    pub fn interested(&self, topic: &str, group: Option<&str>) -> Vec<(ShardId, Line)> {
        let known = self.interests.get(topic).into_iter().flatten();
        known
            .filter(|interest| group.is_none_or(|group| *interest.line.1 == *group))
            .map(|interest| (interest.home, interest.line.clone()))
            .collect()
    }
}

pub fn line_of(ask: &Ask) -> Line {
    (ask.topic.name.clone(), ask.group.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::topics::config_with;
    use crate::remoting::frame::Codec;

    fn ask(slot: u32) -> Arc<Ask> {
        let conn = ConnId {
            shard: ShardId(0),
            slot,
            generation: 1,
        };
        let topic = Topic {
            name: "t".into(),
            id: 1,
            config: config_with(1, 6),
            owners: vec![ShardId(0)],
        };
        Arc::new(Ask {
            to: ReplyTo {
                conn,
                opaque: 1,
                codec: Codec::Json,
            },
            topic: Arc::new(topic),
            group: "g".into(),
            queue_id: -1,
            filter: Filter::ALL,
            order: false,
            attempt: String::new(),
            until: Mono(1_000),
            what: What::Notice,
        })
    }

    #[test]
    fn a_connection_takes_its_own_pops_with_it() {
        let mut pops = Pops::default();
        let tickets = [1, 2, 1, 3].map(|slot| pops.enter(ask(slot)));
        assert!(pops.leave(tickets[2]).is_some(), "answered");
        for ticket in tickets {
            pops.empty(Mono(0), ticket);
        }
        let line = line_of(&ask(1));
        assert_eq!(pops.waiting_for(&line, -1), 3);
        pops.closed(ask(1).to.conn);
        assert_eq!(pops.waiting_for(&line, -1), 2);
        assert!(matches!(pops.empty(Mono(0), tickets[0]), Empty::Gone));
        assert_eq!(
            pops.conns.len(),
            2,
            "what was answered or closed is not looked at again"
        );
        pops.closed(ask(2).to.conn);
        pops.closed(ask(3).to.conn);
        assert!(pops.conns.is_empty() && pops.waiting.is_empty() && pops.lines.is_empty());
    }
}
