//! Dead letters: look at them, and send them to their group again.
//!
//! How far a group's dead letters were sent again is kept as the group's own offset in its dead
//! letter queue, so that a second run goes on where the first one ended.

use std::time::Duration;

use super::link::{Link, Trouble};
use super::messages;
use super::sheet::Sheet;
use crate::broker::control::names::{DLQ_PREFIX, retry_topic};
use crate::client::route::BrokerRoute;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::{request, response};

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
    for broker in letters(link, group)? {
        let from = reached(link, &broker, group, &topic)?;
        let answer = messages::pull(link, &broker.addr, &topic, 0, from, count)?;
        messages::show(&mut sheet, &answer, &broker.addr)?;
    }
    Ok(sheet)
}

/// The brokers that have the group's dead letter queue.
fn letters(link: &mut Link, group: &str) -> Result<Vec<BrokerRoute>, Trouble> {
    match link.route(&format!("{DLQ_PREFIX}{group}")) {
        Err(Trouble::Absent(_)) => Ok(Vec::new()),
        other => other,
    }
}

fn reached(
    link: &mut Link,
    broker: &BrokerRoute,
    group: &str,
    topic: &str,
) -> Result<i64, Trouble> {
    let fields = [
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", "0"),
        ("setZeroIfNotFound", "false"),
    ];
    let is_good = |code| code == response::SUCCESS || code == response::QUERY_NOT_FOUND;
    let code = request::QUERY_CONSUMER_OFFSET;
    let answer = link.ask_until(&broker.addr, code, &fields, b"", is_good)?;
    Ok(answer.field("offset").parse().unwrap_or(0))
}

/// Sends dead letters to the group's retry topic, where only this group gets them.
pub fn redrive(link: &mut Link, wish: &Redrive) -> Result<Sheet, Trouble> {
    let group = &*wish.group;
    let topic = format!("{DLQ_PREFIX}{group}");
    let mut sheet = Sheet::new(&["group", "broker", "dead letters", "sent again"])
        .or_absent(format!("{group} has no dead letters"));
    let mut left = wish.most;
    for broker in letters(link, group)? {
        let (mut from, mut seen, mut sent) = (reached(link, &broker, group, &topic)?, 0, 0);
        while left > 0 {
            let most = PIECE.min(u32::try_from(left).unwrap_or(PIECE));
            let answer = messages::pull(link, &broker.addr, &topic, 0, from, most)?;
            let records: Vec<RecordView<'_>> = RecordView::iter(&answer.body)
                .filter_map(Result::ok)
                .collect();
            let Some(last) = records.last() else {
                break;
            };
            from = last.queue_offset() + 1;
            seen += records.len();
            left -= records.len() as u64;
            if wish.dry_run {
                continue;
            }
            for record in &records {
                if let Err(trouble) = again(link, &broker, group, record) {
                    // The next run begins with this one.
                    commit(link, &broker, group, &topic, record.queue_offset())?;
                    return Err(trouble);
                }
                sent += 1;
                if wish.rate > 0 {
                    std::thread::sleep(Duration::from_secs(1) / wish.rate);
                }
            }
            commit(link, &broker, group, &topic, from)?;
        }
        sheet.push(vec![
            group.into(),
            broker.name.into(),
            seen.into(),
            sent.into(),
        ]);
    }
    Ok(sheet)
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

fn commit(
    link: &mut Link,
    broker: &BrokerRoute,
    group: &str,
    topic: &str,
    offset: i64,
) -> Result<(), Trouble> {
    let offset = offset.to_string();
    let fields = [
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", "0"),
        ("commitOffset", &offset),
    ];
    let code = request::UPDATE_CONSUMER_OFFSET;
    link.ask(&broker.addr, code, &fields, b"").map(drop)
}
