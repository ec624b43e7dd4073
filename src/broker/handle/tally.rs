//! VIEW_BROKER_STATS_DATA 315: what came into a topic, and what a group got of it, over the last
//! minute, hour and day.
//!
//! Served names: `TOPIC_PUT_NUMS`, `TOPIC_PUT_SIZE` by topic; `GROUP_GET_NUMS`, `GROUP_GET_SIZE` by
//! `topic@group`; `BROKER_PUT_NUMS`, `BROKER_GET_NUMS` by cluster. All others do not exist, as if
//! nothing had ever been counted.
//!
//! Source: `AdminBrokerProcessor.ViewBrokerStatsData`, `BrokerStatsManager`.

use crate::base::Now;
use crate::broker::control::effects::Reject;
use crate::broker::handle::{Request, bad_header};
use crate::broker::survey::{self, Question, Row};
use crate::broker::tallies::{Count, ROWS_MAX, Sum, Tally};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::body::json;
use crate::remoting::body::stats::{BrokerStats, BrokerStatsItem};
use crate::remoting::code::response;
use crate::remoting::header::query::ViewStats;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    tally: Tally,
    sizes: bool,
    /// For the refusal.
    name: String,
    key: String,
}

pub fn view(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = ViewStats::decode(&request.command.ext).map_err(bad_header)?;
    let (name, key) = (&*header.stats_name, &*header.stats_key);
    let of_cluster = key == broker.options.control.cluster;
    let topic_id = |topic: &str| broker.snapshot.topics.get(topic).map(|topic| topic.id);
    let tally = match name {
        "TOPIC_PUT_NUMS" | "TOPIC_PUT_SIZE" => topic_id(key).map(Tally::Put),
        "GROUP_GET_NUMS" | "GROUP_GET_SIZE" => key
            .split_once('@')
            .and_then(|(topic, group)| Some(Tally::Got(topic_id(topic)?, group.to_owned()))),
        "BROKER_PUT_NUMS" if of_cluster => Some(Tally::AllPut),
        "BROKER_GET_NUMS" if of_cluster => Some(Tally::AllGot),
        _ => None,
    };
    let tally = tally.ok_or_else(|| unknown(name, key, ""))?;
    let view = View {
        tally,
        sizes: name.ends_with("_SIZE"),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    survey::ask(broker, request, Question::Tally(view), out)
}

fn unknown(name: &str, key: &str, why: &str) -> Reject {
    let remark = format!("The stats <{name}> <{key}> not exist{why}");
    Reject::new(response::SYSTEM_ERROR, remark)
}

/// What this shard has counted.
pub fn rows(broker: &mut Broker, now: Now, view: &View) -> Vec<Row> {
    broker.count(now);
    match broker.tallies.sums(now.mono, &view.tally) {
        Some(sums) => vec![Row::Tally(Box::new(sums))],
        None if broker.tallies.is_full() => vec![Row::TalliesFull],
        None => Vec::new(),
    }
}

pub fn body(view: &View, rows: &[Row]) -> Result<Vec<u8>, Reject> {
    let counted = rows.iter().filter_map(|row| match row {
        Row::Tally(sums) => Some(&**sums),
        _ => None,
    });
    let counted: Vec<_> = counted.collect();
    if counted.is_empty() {
        let why = match rows.contains(&Row::TalliesFull) {
            true => format!(": {ROWS_MAX} topics and groups are counted, which is the limit"),
            false => String::new(),
        };
        return Err(unknown(&view.name, &view.key, &why));
    }
    let [stats_minute, stats_hour, stats_day] = [0, 1, 2].map(|span| {
        let sums: Vec<Sum> = counted.iter().map(|sums| sums[span]).collect();
        item(view, &sums)
    });
    Ok(json::to_vec(&BrokerStats {
        stats_day,
        stats_hour,
        stats_minute,
    }))
}

/// All shards together.
fn item(view: &View, sums: &[Sum]) -> BrokerStatsItem {
    let value = |count: &Count| {
        if view.sizes {
            count.bytes
        } else {
            count.messages
        }
    };
    let sum: u64 = sums.iter().map(|sum| value(&sum.count)).sum();
    let times: u64 = sums.iter().map(|sum| sum.count.times).sum();
    BrokerStatsItem {
        avgpt: sum as f64 / times.max(1) as f64,
        sum: sum as i64,
        tps: sums.iter().map(|sum| sum.rate(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            tally: Tally::Put(1),
            sizes: false,
            name: "TOPIC_PUT_NUMS".to_owned(),
            key: "t".to_owned(),
        }
    }

    #[test]
    fn why_there_are_none_is_said() {
        let check = |rows: &[Row], remark: &str| {
            let reject = body(&view(), rows).unwrap_err();
            assert_eq!((reject.code, &*reject.remark), (1, remark));
        };
        check(&[], "The stats <TOPIC_PUT_NUMS> <t> not exist");
        check(
            &[Row::TalliesFull],
            "The stats <TOPIC_PUT_NUMS> <t> not exist: 8192 topics and groups are counted, which \
             is the limit",
        );
        let rows = [Row::TalliesFull, Row::Tally(Box::default())];
        assert_eq!(
            body(&view(), &rows),
            Ok(json::to_vec(&BrokerStats::default()))
        );
    }

    #[test]
    fn shards_are_added_up() {
        let sum = |messages, times, ms| Sum {
            count: Count {
                messages,
                bytes: messages * 10,
                times,
            },
            ms,
        };
        let mut view = view();
        let sums = [sum(100, 4, 10_000), sum(20, 2, 20_000)];
        let BrokerStatsItem { avgpt, sum, tps } = item(&view, &sums);
        assert_eq!((avgpt, sum, tps), (20.0, 120, 11.0));
        view.sizes = true;
        assert_eq!(item(&view, &sums).sum, 1200);
        assert_eq!(item(&view, &[Sum::default()]).avgpt, 0.0);
    }
}
