//! Messages of a topic, looked at or consumed: `admin read` and `admin consume`.
//!
//! Each queue is a [`Lane`]; the next message of all is the one that was stored first. What a group
//! consumes is printed first and committed then, so that what ends in between shows a message once
//! more and hides none.

use std::collections::VecDeque;

use serde_json::Value;

use super::groups::{self, Start};
use super::link::{Answer, Link, Trouble};
use super::messages::{self, COLUMNS, Pull, TOOLS_GROUP, is_pulled};
use super::sheet::{Lines, print};
use super::{Done, tail};
use crate::message::view::RecordView;
use crate::remoting::code::{request, response};

/// Messages asked of a queue at a time; brokers give no more.
const PIECE: u32 = 32;
/// What is shown unless more is wanted.
const READ_COUNT: u32 = 8;
const CONSUME_COUNT: u32 = 32;
/// Members that are named.
const NAMED_MAX: usize = 3;
/// Times that a broker may name another offset to go on at, in a row.
const MOVES_MAX: usize = 16;

/// What to look at.
#[derive(Clone, Debug, clap::Args)]
pub struct Read {
    topic: String,
    /// Only this queue
    #[arg(long)]
    queue: Option<i32>,
    /// `oldest`, `newest`, milliseconds since 1970, or `offset:N` with --queue [default: oldest;
    /// newest with --follow]
    #[arg(long)]
    from: Option<String>,
    /// The same as `--from offset:N`
    #[arg(long, conflicts_with = "from")]
    offset: Option<u64>,
    /// At most so many [default: 8; with --follow all]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Only this broker's queues, by its name
    #[arg(long)]
    broker: Option<String>,
    /// Go on with what comes, until Ctrl-C
    #[arg(long)]
    follow: bool,
}

/// What to take.
#[derive(Clone, Debug, clap::Args)]
pub struct Consume {
    group: String,
    topic: String,
    /// At most so many [default: 32; with --follow all]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Only this queue
    #[arg(long)]
    queue: Option<i32>,
    /// Where the group begins in a queue that it has no place in, as for `read`; without it as a
    /// consumer would: at the newest message, or the first one of a young queue
    #[arg(long)]
    from: Option<String>,
    /// Go on with what comes, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Even if members of the group are connected, whose place this moves
    #[arg(long)]
    beside_members: bool,
}

/// A message that was pulled.
pub struct Taken {
    pub stored_ms: i64,
    pub offset: i64,
    pub row: Vec<Value>,
}

/// One queue on its way.
pub struct Lane {
    pub addr: String,
    pub queue: i32,
    /// What to pull next.
    pub next: i64,
    /// Behind what was printed, and as the group's place says.
    pub done: i64,
    committed: Option<i64>,
    waiting: VecDeque<Taken>,
    /// Answers in a row that only said where to go on.
    moves: usize,
}

/// The way through a topic.
pub struct Reader<'a> {
    pub topic: &'a str,
    /// Whose place moves.
    group: Option<&'a str>,
    pub lanes: Vec<Lane>,
}

pub fn read(link: &mut Link, wish: &Read, json: bool) -> Result<Done, Trouble> {
    let text = wish.offset.map(|offset| format!("offset:{offset}"));
    let text = text.as_deref().or(wish.from.as_deref());
    let start = match (text, wish.follow) {
        (Some(text), _) => Start::parse("--from", text, wish.queue)?,
        (None, true) => Start::Newest,
        (None, false) => Start::Oldest,
    };
    let mut reader = Reader::new(link, &wish.topic, None, wish.queue, wish.broker.as_deref())?;
    for lane in &mut reader.lanes {
        lane.next = start.in_queue(link, &lane.addr, &wish.topic, lane.queue)?;
        lane.done = lane.next;
    }
    if wish.follow {
        return tail::follow(link, reader, wish.count, json);
    }
    let words = match wish.queue {
        Some(queue) => format!("{} has nothing in queue {queue} from there on", wish.topic),
        None => format!("{} has nothing from there on", wish.topic),
    };
    let mut sheet = messages::sheet().or_absent(words);
    for (_, taken) in reader.page(link, wish.count.unwrap_or(READ_COUNT))? {
        sheet.push(taken.row);
    }
    Ok(Done::Sheet(sheet))
}

pub fn consume(link: &mut Link, wish: &Consume, json: bool) -> Result<Done, Trouble> {
    let (group, topic) = (&*wish.group, &*wish.topic);
    let given = wish.from.as_deref();
    let given = given.map(|text| Start::parse("--from", text, wish.queue));
    let given = given.transpose()?;
    let mut reader = Reader::new(link, topic, Some(group), wish.queue, None)?;
    refuse_beside_members(link, &reader, wish)?;
    for lane in &mut reader.lanes {
        let place = (group, topic, lane.queue);
        lane.committed = groups::reached(link, &lane.addr, place, true)?;
        let as_consumer = match (lane.committed, given) {
            (Some(offset), _) => Some(offset),
            (None, Some(_)) => None,
            (None, None) => groups::reached(link, &lane.addr, place, false)?,
        };
        lane.next = match as_consumer {
            Some(offset) => offset,
            None => {
                let start = given.unwrap_or(Start::Newest);
                start.in_queue(link, &lane.addr, topic, lane.queue)?
            }
        };
        lane.done = lane.next;
    }
    if wish.follow {
        return tail::follow(link, reader, wish.count, json);
    }
    let words = format!("the group {group} has consumed everything of {topic}");
    let mut sheet = messages::sheet().or_absent(words);
    let page = reader.page(link, wish.count.unwrap_or(CONSUME_COUNT))?;
    let mut done = Vec::new();
    for (lane, taken) in page {
        done.push((lane, taken.offset + 1));
        sheet.push(taken.row);
    }
    if !sheet.is_absent() {
        let text = if json { sheet.json() } else { sheet.text() };
        if !print(&text) {
            // Nobody has seen them.
            return Ok(Done::Printed);
        }
    }
    for (lane, offset) in done {
        reader.lanes[lane].done = offset;
    }
    reader.commit(link)?;
    Ok(match sheet.is_absent() {
        true => Done::Sheet(sheet),
        false => Done::Printed,
    })
}

/// Members go on from where they are, and say so: two would move one place.
fn refuse_beside_members(
    link: &mut Link,
    reader: &Reader<'_>,
    wish: &Consume,
) -> Result<(), Trouble> {
    let mut addrs: Vec<String> = reader.lanes.iter().map(|lane| lane.addr.clone()).collect();
    addrs.dedup();
    let mut members: Vec<String> = Vec::new();
    for addr in addrs {
        let known = groups::connected(link, &addr, &wish.group)?;
        let ids = known.into_iter().flat_map(|known| known.connection_set);
        members.extend(ids.map(|member| member.client_id));
    }
    members.sort();
    members.dedup();
    if members.is_empty() {
        return Ok(());
    }
    let more = match members.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    members.truncate(NAMED_MAX);
    let said = format!(
        "members of the group {} are connected: {}{more}",
        wish.group,
        members.join(", ")
    );
    if !wish.beside_members {
        return Err(Trouble::Wrong(format!(
            "{said}; the group's offsets would be moved under them. Stop them, look without \
             committing (orbitmq admin read {}), or add --beside-members",
            wish.topic
        )));
    }
    eprintln!("orbitmq: {said}; they may get the same messages, and move the offsets back");
    Ok(())
}

impl<'a> Reader<'a> {
    fn new(
        link: &mut Link,
        topic: &'a str,
        group: Option<&'a str>,
        queue: Option<i32>,
        broker: Option<&str>,
    ) -> Result<Reader<'a>, Trouble> {
        let mut lanes = Vec::new();
        for one in link.route(topic)? {
            if broker.is_some_and(|name| *name != one.name) {
                continue;
            }
            let queues = (0..one.readable).filter(|known| queue.is_none_or(|only| only == *known));
            lanes.extend(queues.map(|queue| Lane {
                addr: one.addr.clone(),
                queue,
                next: 0,
                done: 0,
                committed: None,
                waiting: VecDeque::new(),
                moves: 0,
            }));
        }
        if lanes.is_empty() {
            let queue = queue.map_or("no queue".to_owned(), |queue| format!("no queue {queue}"));
            let broker = broker.map_or(String::new(), |name| format!(" on the broker {name}"));
            let words = format!(
                "{topic} has {queue}{broker} that may be read: see `orbitmq admin topic {topic}`"
            );
            return Err(Trouble::Absent(words));
        }
        Ok(Reader {
            topic,
            group,
            lanes,
        })
    }

    /// The next messages of all lanes, in the order they were stored, each with its lane; fewer
    /// than wanted if there are no more.
    pub fn page(&mut self, link: &mut Link, count: u32) -> Result<Vec<(usize, Taken)>, Trouble> {
        let mut dry = vec![false; self.lanes.len()];
        let mut page = Vec::new();
        while page.len() < count as usize {
            for (at, is_dry) in dry.iter_mut().enumerate() {
                if self.lanes[at].waiting.is_empty() && !*is_dry {
                    let most = (count - page.len() as u32).min(PIECE);
                    self.fill(link, at, most)?;
                    *is_dry = self.lanes[at].waiting.is_empty();
                }
            }
            let waiting = self.lanes.iter().enumerate();
            let first = waiting
                .filter_map(|(at, lane)| Some((lane.waiting.front()?.stored_ms, at)))
                .min();
            let Some((_, at)) = first else {
                break;
            };
            let taken = self.lanes[at].waiting.pop_front();
            page.push((at, taken.expect("it has one")));
        }
        Ok(page)
    }

    fn fill(&mut self, link: &mut Link, at: usize, most: u32) -> Result<(), Trouble> {
        let code = request::PULL_MESSAGE;
        loop {
            let asked = self.wish(at, most, 0).fields();
            let fields: Vec<(&str, &str)> =
                asked.iter().map(|(key, value)| (*key, &**value)).collect();
            let addr = self.lanes[at].addr.clone();
            let answer = link.ask_until(&addr, code, &fields, b"", is_pulled)?;
            if !self.lanes[at].take(&answer)? {
                return Ok(());
            }
        }
    }

    /// The next pull of a lane.
    pub fn wish(&self, at: usize, count: u32, hold_ms: u32) -> Pull<'_> {
        let lane = &self.lanes[at];
        Pull {
            // By its own name the group is made if it is new, and told of a reset.
            group: self.group.unwrap_or(TOOLS_GROUP),
            topic: self.topic,
            queue: lane.queue,
            offset: lane.next,
            count,
            hold_ms,
        }
    }

    /// The group's place is behind what was printed.
    pub fn commit(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let Some(group) = self.group else {
            return Ok(());
        };
        for lane in &mut self.lanes {
            if lane.committed != Some(lane.done) {
                let place = (group, self.topic, lane.queue);
                groups::commit(link, &lane.addr, place, lane.done)?;
                lane.committed = Some(lane.done);
            }
        }
        Ok(())
    }
}

impl Lane {
    /// Takes up what a pull was answered with. True if there was nothing, but the broker says
    /// where to go on.
    pub fn take(&mut self, answer: &Answer) -> Result<bool, Trouble> {
        let before = self.next;
        for record in RecordView::iter(&answer.body) {
            let record = record.map_err(|error| messages::strange(&self.addr, &error))?;
            self.next = record.queue_offset() + 1;
            self.waiting.push_back(Taken {
                stored_ms: record.store_timestamp(),
                offset: record.queue_offset(),
                row: messages::row(&record),
            });
        }
        let next = answer.number("nextBeginOffset");
        // What a reset names may be where the group is already.
        let moved = answer.code == response::PULL_OFFSET_MOVED;
        let moved = moved || next.as_ref().is_ok_and(|next| *next != before);
        if self.next != before || !moved {
            self.moves = 0;
            return Ok(false);
        }
        self.moves += 1;
        let next = next?;
        if next < 0 || self.moves > MOVES_MAX {
            let why = format!("queue {} goes on at {next}, over and over", self.queue);
            return Err(messages::strange(&self.addr, &why));
        }
        (self.next, self.done) = (next, next);
        Ok(true)
    }

    pub fn take_waiting(&mut self) -> Option<Taken> {
        self.waiting.pop_front()
    }
}

/// Lines for messages that come.
pub fn lines(json: bool) -> Lines {
    Lines::new(&COLUMNS, json)
}
