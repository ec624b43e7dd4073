//! GET_BROKER_CONSUME_STATS 317: how far every group has come in every topic it consumes.
//!
//! Two questions to the shards: first which groups have offsets on which topics, then how the
//! queues of those topics stand. The reference leaves pullOffset 0 here; it is told as in 208, so
//! that what is under way can be seen.
//!
//! Source: `AdminBrokerProcessor.fetchAllConsumeStatsInBroker`.

use crate::base::Now;
use crate::broker::acks::ReplyTo;
use crate::broker::control::effects::Reject;
use crate::broker::handle::{Request, bad_header, reject_to};
use crate::broker::survey::{self, Asker, Question, Row, is_consumed};
use crate::broker::tallies::Tally;
use crate::broker::topics;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::body::stats::{AllConsumeStats, ConsumeStats};
use crate::remoting::code::response;
use crate::remoting::header::query::AllConsumeStatsHeader;
use crate::store::read::WaiterId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Queues in one answer, each as often as groups consume it.
const QUEUES_MAX: usize = 50_000;

/// A group and a topic it has offsets on.
pub type Pair = (Arc<str>, Arc<str>);

/// How far a shard has come with an answer about many queues. Whoever began with the first queue
/// after each read would never end, once the read windows cannot hold the places of all of them.
#[derive(Default)]
pub struct Walk {
    /// The pair or topic, and the queue, to go on with.
    pub pair: usize,
    pub queue: usize,
    pub rows: Vec<Row>,
}

pub fn all(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = AllConsumeStatsHeader::decode(&request.command.ext).map_err(bad_header)?;
    survey::ask(broker, request, Question::Consumers(header.is_order), out)
}

/// Which groups have offsets on which topics of this shard.
pub fn pairs_here(broker: &Broker) -> Vec<Row> {
    if broker.offsets.exceeds(QUEUES_MAX) {
        return vec![Row::Refused(too_many(QUEUES_MAX + 1))];
    }
    let mut pairs: BTreeSet<Pair> = BTreeSet::new();
    for (group, slot, _) in broker.offsets.iter() {
        let Some(queue) = broker.store.queues().queue(slot) else {
            continue;
        };
        pairs.insert((group.clone(), queue.topic.clone()));
    }
    pairs.into_iter().map(Row::Consumer).collect()
}

fn too_many(queues: usize) -> Reject {
    let remark = format!(
        "groups consume {queues} queues or more, one answer has {QUEUES_MAX}: ask for one group \
         (consumerProgress -g)"
    );
    Reject::new(response::SYSTEM_ERROR, remark)
}

/// All shards have told: asks them for the queues.
pub fn pairs_known(
    broker: &mut Broker,
    now: Now,
    to: ReplyTo,
    ordered: bool,
    rows: Vec<Row>,
    out: &mut Outbox<Peer>,
) {
    let snapshot = Arc::clone(&broker.snapshot);
    let mut pairs: BTreeSet<Pair> = BTreeSet::new();
    let mut queues = 0;
    for row in rows {
        let Row::Consumer((group, topic)) = row else {
            continue;
        };
        let Some(config) = snapshot.topics.get(&topic).map(|topic| &topic.config) else {
            continue;
        };
        let counts = snapshot.groups.contains(&group) && is_consumed(broker, &group, &topic);
        if counts && (config.order || !ordered) {
            let is_new = pairs.insert((group, topic));
            queues += usize::from(is_new) * topics::queues(config) as usize;
        }
    }
    if queues > QUEUES_MAX {
        return reject_to(to, &too_many(queues), out);
    }
    let question = Question::Consumption(pairs.into_iter().collect());
    survey::begin(broker, now, Asker::Client(to), question, out);
}

/// The queues of this shard; `None` while it reads times from the disk.
pub fn go_on(
    broker: &mut Broker,
    now: Now,
    pairs: &[Pair],
    walk: &mut Walk,
    waiter: WaiterId,
) -> Option<Vec<Row>> {
    while let Some((group, topic)) = pairs.get(walk.pair) {
        let queues = survey::queues_here(broker, topic);
        for (queue_id, slot) in queues.into_iter().skip(walk.queue) {
            let place = (queue_id, slot);
            let row = survey::group_row(broker, group, topic, place, waiter)?;
            walk.rows.push(Row::OfPair(walk.pair, Box::new(row)));
            walk.queue += 1;
        }
        let rate = Row::Rate(rate(broker, now, group, topic));
        walk.rows.push(Row::OfPair(walk.pair, Box::new(rate)));
        (walk.pair, walk.queue) = (walk.pair + 1, 0);
    }
    Some(std::mem::take(&mut walk.rows))
}

/// Messages of a topic that a group gets from this shard, per second.
pub fn rate(broker: &mut Broker, now: Now, group: &str, topic: &str) -> f64 {
    let topic = broker.snapshot.topics.get(topic).map(|topic| topic.id);
    topic.map_or(0.0, |topic| {
        let got = Tally::Got(topic, group.to_owned());
        broker.tallies.rate(now.mono, &got)
    })
}

pub fn body(broker: &Broker, pairs: &[Pair], rows: &[Row]) -> Vec<u8> {
    let mut of_pairs = vec![ConsumeStats::default(); pairs.len()];
    for row in rows {
        if let Row::OfPair(pair, row) = row {
            survey::add_group_row(broker, &mut of_pairs[*pair], row);
        }
    }
    let mut all = AllConsumeStats {
        broker_addr: broker.options.store_host.to_string(),
        ..AllConsumeStats::default()
    };
    for (group, _) in broker.snapshot.groups.iter() {
        all.consume_stats_list.insert(group.to_string(), Vec::new());
    }
    for ((group, _), mut stats) in pairs.iter().zip(of_pairs) {
        stats.offset_table.sort_by_key(|(queue, _)| queue.queue_id);
        for (_, offset) in &stats.offset_table {
            all.total_diff += offset.broker_offset - offset.consumer_offset;
            all.total_inflight_diff += offset.pull_offset - offset.consumer_offset;
        }
        let list = all.consume_stats_list.entry(group.to_string());
        list.or_default().push(stats);
    }
    all.encode()
}
