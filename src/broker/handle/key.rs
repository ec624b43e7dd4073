//! QUERY_MESSAGE 12: messages by key or unique key, in a range of store times.
//!
//! Shard 0 asks every shard. Each looks the key up off its thread, reads what may be a hit, and
//! gives the records that are. Unlike the reference, which lets its client sort hash collisions
//! out, only messages that carry the key are given.
//!
//! Source: `QueryMessageProcessor`, `DefaultMessageStore.queryMessage`.

use crate::base::{LogOffset, Now};
use crate::broker::acks::ReplyTo;
use crate::broker::control::effects::Reject;
use crate::broker::handle::{Request, bad_header, refuse_to};
use crate::broker::survey::{self, Question, Row};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::{request, response};
use crate::remoting::header::query::{QueryMessage, QueryMessageResponse, UNIQUE_KEY_QUERY};
use crate::remoting::text::Text;
use crate::store::index::key_hash;
use crate::store::lookup::KeyQuestion;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;
use std::ops::Range;
use std::sync::Arc;

/// Messages of one answer (`maxMsgsNumBatch`).
const MESSAGES_MAX: usize = 64;
/// Messages of an answer by unique key (`defaultQueryMaxNum`).
const UNIQUE_MAX: usize = 32;
/// Places of the first look-up for each message wanted. Those that follow, for messages that are
/// not among the newest with the key, ask for more at a time.
const PLACES_PER_MESSAGE: usize = 4;
const PAGE_GROWTH: usize = 4;
const PAGE_MAX: usize = 16_384;
/// Look-ups of one query in one shard.
const PAGES_MAX: u32 = 16;
/// Messages with the key that one query reads in one shard and that are not what is asked for.
const MISSED_MAX: usize = 1024;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyQuery {
    topic: Arc<str>,
    key: String,
    unique: bool,
    /// Store times, ms, both ends included.
    from_ms: i64,
    to_ms: i64,
    most: usize,
}

impl KeyQuery {
    /// A message by its unique key.
    pub fn one(topic: &Arc<str>, key: String, from_ms: i64, to_ms: i64) -> KeyQuery {
        KeyQuery {
            topic: topic.clone(),
            key,
            unique: true,
            from_ms,
            to_ms,
            most: 1,
        }
    }
}

/// Said of a part that cannot be read now: an answer without it would look like a whole one.
pub fn gap() -> Row {
    let remark = "[REJECTREQUEST]the key index cannot be read now, try again";
    Row::Refused(Reject::new(response::SYSTEM_BUSY, remark))
}

/// Said if nothing is found, of a key that too many other messages have.
fn too_many() -> Row {
    let remark = "too many messages have this key: ask for a shorter time (beginTimestamp, \
                  endTimestamp) or another key";
    Row::Refused(Reject::new(response::SYSTEM_ERROR, remark))
}

/// How far one shard has come with a query.
#[derive(Default)]
pub struct Search {
    stage: Stage,
    found: Vec<Row>,
    /// Look-ups that were made, and the places asked of the last one.
    pages: u32,
    page: usize,
    /// Everything from here on was looked at; `None` at first.
    before: Option<LogOffset>,
    /// Records that were read and are no hits.
    missed: usize,
}

#[derive(Default)]
enum Stage {
    #[default]
    Ask,
    LookingUp(WaiterId),
    /// Places from the newest on. Those before the range are too new, those behind it are not.
    Skipping(Vec<LogOffset>, Range<usize>),
    /// Places still to be read, the last one next.
    Reading(Vec<LogOffset>),
}

pub fn query(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let ext = &request.command.ext;
    let header = QueryMessage::decode(ext).map_err(bad_header)?;
    let forced = ext.find(UNIQUE_KEY_QUERY).is_some_and(Text::parse_bool);
    let unique = forced || header.index_type.as_deref() == Some("U");
    let asked = usize::try_from(header.max_num).unwrap_or(0);
    if header.index_type.as_deref() == Some("T") {
        let remark = "tags are not indexed (indexType=T): ask for a key or a unique key, or \
                      consume the topic with the tag as filter";
        return Err(Reject::new(response::REQUEST_CODE_NOT_SUPPORTED, remark));
    }
    let Some(topic) = broker.snapshot.topics.get(&header.topic) else {
        return Err(nothing());
    };
    let query = KeyQuery {
        topic: topic.name.clone(),
        key: header.key.into_owned(),
        unique,
        from_ms: header.begin_timestamp,
        to_ms: header.end_timestamp,
        most: if forced {
            UNIQUE_MAX
        } else {
            asked.min(MESSAGES_MAX)
        },
    };
    survey::ask(broker, request, Question::Messages(query), out)
}

fn nothing() -> Reject {
    let remark = "can not find message, maybe time range not correct";
    Reject::new(response::QUERY_NOT_FOUND, remark)
}

impl Search {
    /// `None` while a helper or the disk is at it.
    pub fn go_on(
        &mut self,
        broker: &mut Broker,
        query: &KeyQuery,
        waiter: WaiterId,
    ) -> Option<Vec<Row>> {
        loop {
            self.stage = match &mut self.stage {
                Stage::Ask => {
                    if !self.turn_page(broker, query, waiter) {
                        return Some(std::mem::take(&mut self.found));
                    }
                    return None;
                }
                Stage::LookingUp(asked) => match broker.store.found(*asked)? {
                    Ok(places) => self.looked_up(places),
                    Err(_) => {
                        broker.stats.damaged_reads += 1;
                        self.found.push(gap());
                        return Some(std::mem::take(&mut self.found));
                    }
                },
                Stage::Skipping(places, range) => {
                    skip(broker, query, places, range, waiter)?;
                    let mut rest = places.split_off(range.start);
                    rest.reverse();
                    Stage::Reading(rest)
                }
                Stage::Reading(_) => {
                    self.read(broker, query, waiter)?;
                    Stage::Ask
                }
            };
        }
    }

    /// Asks for the places before those that were looked at. False if that is of no use.
    fn turn_page(&mut self, broker: &mut Broker, query: &KeyQuery, waiter: WaiterId) -> bool {
        self.page = match self.pages {
            0 => query.most * PLACES_PER_MESSAGE,
            _ => (self.page * PAGE_GROWTH).min(PAGE_MAX),
        };
        if self.found.len() >= query.most {
            return false;
        }
        let ended = self.pages > 0 && self.before.is_none();
        if self.missed > MISSED_MAX || self.pages >= PAGES_MAX && !ended {
            self.found.push(too_many());
            return false;
        }
        if ended {
            return false;
        }
        let question = KeyQuestion {
            hash: key_hash(&query.topic, &query.key),
            before: self.before.unwrap_or(LogOffset(u64::MAX)),
            from_ms: query.from_ms,
            to_ms: query.to_ms,
            most: self.page,
        };
        if !broker.store.look_up(question, waiter) {
            self.found.push(gap());
            return false;
        }
        self.pages += 1;
        self.stage = Stage::LookingUp(waiter);
        true
    }

    fn looked_up(&mut self, mut places: Vec<LogOffset>) -> Stage {
        let is_whole = places.len() >= self.page;
        self.before = places.last().copied().filter(|_| is_whole);
        // A message may name a key twice.
        places.dedup();
        let all = 0..places.len();
        Stage::Skipping(places, all)
    }

    /// Reads from the newest place on until enough is found. `None` while the disk is at it.
    fn read(&mut self, broker: &mut Broker, query: &KeyQuery, waiter: WaiterId) -> Option<()> {
        let Stage::Reading(places) = &mut self.stage else {
            return Some(());
        };
        while let Some(at) = places.last().copied()
            && self.found.len() < query.most
            && self.missed <= MISSED_MAX
        {
            match broker.store.record_at(at, waiter) {
                Fetch::Ready(record) => {
                    let store_ms = store_ms(&record);
                    if is_hit(&record, query) {
                        let physical = at.physical(broker.me);
                        self.found.push(Row::Message { physical, record });
                    } else if store_ms.is_some_and(|ms| ms < query.from_ms) {
                        // What lies before is older still.
                        self.before = None;
                        return Some(());
                    } else {
                        self.missed += 1;
                    }
                }
                Fetch::Wait => return None,
                Fetch::Damaged(place) => {
                    broker.stats.damaged_reads += 1;
                    let reject = Reject::new(response::SYSTEM_ERROR, place);
                    self.found.push(Row::Refused(reject));
                }
                Fetch::Busy => self.found.push(gap()),
                Fetch::Missing => {}
            }
            places.pop();
        }
        Some(())
    }
}

/// Finds the newest place that is not too new. Store times follow the log, so most places need not
/// be read for that. `None` while the disk is at it.
fn skip(
    broker: &mut Broker,
    query: &KeyQuery,
    places: &[LogOffset],
    range: &mut Range<usize>,
    waiter: WaiterId,
) -> Option<()> {
    while range.start < range.end {
        // Mostly none is, else often all of a page are.
        let at = match (range.start, range.end == places.len()) {
            (0, _) => 0,
            (_, true) => range.end - 1,
            (start, false) => start + range.len() / 2,
        };
        let is_newer = match broker.store.record_at(places[at], waiter) {
            Fetch::Ready(record) => store_ms(&record).is_some_and(|ms| ms > query.to_ms),
            Fetch::Wait => return None,
            Fetch::Damaged(_) | Fetch::Busy | Fetch::Missing => false,
        };
        match is_newer {
            true => range.start = at + 1,
            false => range.end = at,
        }
    }
    Some(())
}

fn store_ms(record: &[u8]) -> Option<i64> {
    let view = RecordView::parse(record).ok()?;
    Some(view.store_timestamp())
}

fn is_hit(record: &[u8], query: &KeyQuery) -> bool {
    let Ok(view) = RecordView::parse(record) else {
        return false;
    };
    let in_time = (query.from_ms..=query.to_ms).contains(&view.store_timestamp());
    if !in_time || *view.topic() != *query.topic {
        return false;
    }
    let key = query.key.as_bytes();
    let find = |name| properties::find(view.properties(), name);
    let is_unique = find(names::UNIQUE_KEY) == Some(key);
    let keys = find(names::KEYS).unwrap_or_default();
    is_unique || (!query.unique && keys.split(|byte| *byte == b' ').any(|other| other == key))
}

/// All shards have answered: the newest messages, in the order of their places.
pub fn answer(
    broker: &Broker,
    to: ReplyTo,
    now: Now,
    query: &KeyQuery,
    rows: Vec<Row>,
    out: &mut Outbox<Peer>,
) {
    let mut found: Vec<_> = rows
        .into_iter()
        .filter_map(|row| match row {
            Row::Message { physical, record } => Some((physical, record)),
            _ => None,
        })
        .collect();
    found.sort_by_key(|(_, record)| {
        RecordView::parse(record).map_or(0, |view| view.store_timestamp())
    });
    found.drain(..found.len().saturating_sub(query.most));
    found.sort_by_key(|(physical, _)| *physical);
    if found.is_empty() {
        return refuse_to(broker, request::QUERY_MESSAGE, to, &nothing(), out);
    }
    let header = QueryMessageResponse {
        index_last_update_timestamp: now.wall_ms,
        index_last_update_phyoffset: broker.log_end().physical(broker.me),
    };
    let bytes: usize = found.iter().map(|(_, record)| record.len()).sum();
    out.write(to.conn, |frame| {
        let mut w = to.success(frame);
        header.encode(&mut w);
        w.finish(bytes);
    });
    for (_, record) in found {
        out.share(to.conn, record);
    }
}
