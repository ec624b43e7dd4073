//! Dead letters: look at them, and send them to their group again.
//!
//! How far a group's dead letters were sent again is kept as the group's own offset in each of its
//! dead letter queues, so that a second run goes on where the first one ended.

use std::collections::BTreeMap;
use std::time::Duration;

use super::link::{Answer, Link, Trouble};
use super::sheet::Sheet;
use super::{groups, messages};
use crate::broker::control::names::{DLQ_PREFIX, retry_topic};
use crate::client::route::BrokerRoute;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::request;

/// Messages asked for at a time.
const PIECE: u32 = 32;

/// What to send again.
#[derive(Clone, Debug, clap::Args)]
pub struct Redrive {
    group: String,
    /// At most so many
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    most: u64,
    /// Messages a second; 0: as fast as it goes
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
}

/// Dead letters that were not sent again yet.
pub fn list(link: &mut Link, group: &str, count: u32) -> Result<Sheet, Trouble> {
    let topic = format!("{DLQ_PREFIX}{group}");
    let mut sheet = messages::sheet().or_absent(format!("{group} has no dead letters"));
    let mut left = count;
    for letters in letters(link, group, &topic)? {
        if left > 0 {
            let from = letters.reached(link)?;
            let answer = letters.pull(link, from, left)?;
            left -= RecordView::iter(&answer.body).count() as u32;
            messages::show(&mut sheet, &answer, &letters.broker.addr)?;
        }
    }
    Ok(sheet)
}

/// One dead letter queue of a group.
struct Letters<'a> {
    broker: BrokerRoute,
    group: &'a str,
    topic: &'a str,
    queue: i32,
}

/// All of them: every queue of every broker.
fn letters<'a>(
    link: &mut Link,
    group: &'a str,
    topic: &'a str,
) -> Result<Vec<Letters<'a>>, Trouble> {
    let brokers = match link.route(topic) {
        Err(Trouble::Absent(_)) => Vec::new(),
        other => other?,
    };
    let queues = brokers.into_iter().flat_map(|broker| {
        (0..broker.readable).map(move |queue| Letters {
            broker: broker.clone(),
            group,
            topic,
            queue,
        })
    });
    Ok(queues.collect())
}

/// Sends dead letters to the group's retry topic, where only this group gets them.
pub fn redrive(link: &mut Link, wish: &Redrive) -> Result<Sheet, Trouble> {
    let group = &*wish.group;
    let topic = format!("{DLQ_PREFIX}{group}");
    let mut sheet = Sheet::new(&["group", "broker", "dead letters", "sent again"])
        .or_absent(format!("{group} has no dead letters"));
    let mut left = wish.most;
    let mut done: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for letters in letters(link, group, &topic)? {
        let (seen, sent) = letters.redrive(link, wish, &mut left)?;
        let sum = done.entry(letters.broker.name).or_default();
        *sum = (sum.0 + seen, sum.1 + sent);
    }
    for (broker, (seen, sent)) in done {
        sheet.push(vec![group.into(), broker.into(), seen.into(), sent.into()]);
    }
    Ok(sheet)
}

impl Letters<'_> {
    fn pull(&self, link: &mut Link, from: i64, most: u32) -> Result<Answer, Trouble> {
        messages::pull(link, &self.broker.addr, self.topic, self.queue, from, most)
    }

    /// How far the group's dead letters were sent again.
    fn reached(&self, link: &mut Link) -> Result<i64, Trouble> {
        let reached = groups::reached(link, &self.broker.addr, self.place(), true)?;
        Ok(reached.unwrap_or(0))
    }

    fn commit(&self, link: &mut Link, offset: i64) -> Result<(), Trouble> {
        groups::commit(link, &self.broker.addr, self.place(), offset)
    }

    fn place(&self) -> (&str, &str, i32) {
        (self.group, self.topic, self.queue)
    }

    /// Gives how many there were, and how many were sent again.
    fn redrive(
        &self,
        link: &mut Link,
        wish: &Redrive,
        left: &mut u64,
    ) -> Result<(usize, usize), Trouble> {
        let (mut from, mut seen, mut sent) = (self.reached(link)?, 0, 0);
        while *left > 0 {
            let most = PIECE.min(u32::try_from(*left).unwrap_or(PIECE));
            let answer = self.pull(link, from, most)?;
            let records: Vec<RecordView<'_>> = RecordView::iter(&answer.body)
                .filter_map(Result::ok)
                .collect();
            let Some(last) = records.last() else {
                break;
            };
            from = last.queue_offset() + 1;
            seen += records.len();
            *left -= records.len() as u64;
            if wish.dry_run {
                continue;
            }
            for record in &records {
                if let Err(trouble) = again(link, &self.broker, self.group, record) {
                    // The next run begins with this one.
                    self.commit(link, record.queue_offset())?;
                    return Err(trouble);
                }
                sent += 1;
                if wish.rate > 0 {
                    std::thread::sleep(Duration::from_secs(1) / wish.rate);
                }
            }
            self.commit(link, from)?;
        }
        Ok((seen, sent))
    }
}

fn again(
    link: &mut Link,
    broker: &BrokerRoute,
    group: &str,
    record: &RecordView<'_>,
) -> Result<(), Trouble> {
    let mut kept = record.properties().to_vec();
    let origin = [names::DLQ_ORIGIN_TOPIC, names::RETRY_TOPIC];
    let origin = origin
        .iter()
        .find_map(|name| properties::find_str(record.properties(), name));
    if let Some(origin) = origin.map(str::to_owned) {
        properties::set(&mut kept, names::RETRY_TOPIC, &origin);
    }
    let strange = |_| Trouble::Strange {
        addr: broker.addr.clone(),
        why: "a dead letter's properties are no text".to_owned(),
    };
    let kept = String::from_utf8(kept).map_err(strange)?;
    let (retry, flag) = (retry_topic(group), record.flag().to_string());
    let (born, sys_flag) = (
        record.born_timestamp().to_string(),
        (record.sys_flag() & COMPRESSION).to_string(),
    );
    let fields = [
        ("producerGroup", "TOOLS_PRODUCER"),
        ("topic", &*retry),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "1"),
        ("queueId", "0"),
        ("sysFlag", &sys_flag),
        ("bornTimestamp", &born),
        ("flag", &flag),
        ("properties", &kept),
        ("reconsumeTimes", "0"),
        ("unitMode", "false"),
        ("batch", "false"),
    ];
    let code = request::SEND_MESSAGE;
    link.ask(&broker.addr, code, &fields, record.body())
        .map(drop)
}

/// Bits of a system flag that say how the body is compressed (`MessageSysFlag`).
const COMPRESSION: i32 = 0x1 | 0x700;
