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
use std::sync::Arc;

/// Messages of one answer (`maxMsgsNumBatch`).
const MESSAGES_MAX: usize = 64;
/// Messages of an answer by unique key (`defaultQueryMaxNum`).
const UNIQUE_MAX: usize = 32;
/// Places looked at for each message wanted: hashes of other keys, and other times.
const PLACES_PER_MESSAGE: usize = 4;

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

/// What is said of a part that could not be read, unless something is found elsewhere: it is not
/// certain that there is nothing.
pub fn gap() -> Row {
    let remark = "[REJECTREQUEST]the key index cannot be read now, try again";
    Row::Refused(Reject::new(response::SYSTEM_BUSY, remark))
}

/// How far one shard has come with a query.
#[derive(Default)]
pub enum Search {
    #[default]
    New,
    LookingUp(WaiterId),
    /// Places still to be read, the last one next, and what was found before.
    Reading(Vec<LogOffset>, Vec<Row>),
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
            match self {
                Search::New => {
                    let question = KeyQuestion {
                        hash: key_hash(&query.topic, &query.key),
                        from_ms: query.from_ms,
                        to_ms: query.to_ms,
                        most: query.most * PLACES_PER_MESSAGE,
                    };
                    if !broker.store.look_up(question, waiter) {
                        return Some(vec![gap()]);
                    }
                    *self = Search::LookingUp(waiter);
                    return None;
                }
                Search::LookingUp(asked) => match broker.store.found(*asked)? {
                    Ok(mut places) => {
                        places.reverse();
                        *self = Search::Reading(places, Vec::new());
                    }
                    Err(_) => {
                        broker.stats.damaged_reads += 1;
                        return Some(vec![gap()]);
                    }
                },
                Search::Reading(places, rows) => {
                    read(broker, query, places, rows, waiter)?;
                    return Some(std::mem::take(rows));
                }
            }
        }
    }
}

/// Reads from the newest place on until enough is found. `None` while the disk is at it.
fn read(
    broker: &mut Broker,
    query: &KeyQuery,
    places: &mut Vec<LogOffset>,
    rows: &mut Vec<Row>,
    waiter: WaiterId,
) -> Option<()> {
    while let Some(at) = places.last().copied()
        && rows.len() < query.most
    {
        match broker.store.record_at(at, waiter) {
            Fetch::Ready(record) => {
                if is_hit(&record, query) {
                    let physical = at.physical(broker.me);
                    rows.push(Row::Message { physical, record });
                }
            }
            Fetch::Wait => return None,
            Fetch::Damaged(_) => {
                broker.stats.damaged_reads += 1;
                rows.push(gap());
            }
            Fetch::Busy => rows.push(gap()),
            Fetch::Missing => {}
        }
        places.pop();
    }
    Some(())
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
