//! LITE_SUBSCRIPTION_CTL 200071: clients say which lite topics they want; and
//! NOTIFY_UNSUBSCRIBE_LITE 200073 to a client that lost one to another.
//!
//! What a request says of one parent topic is done by the shard that topic's queue 0 is in. Of a
//! topic that does not exist nobody wants anything. Unlike the reference, every lite topic that is
//! asked for here counts as one of this broker, whatever the route says.
//!
//! Source: `LiteSubscriptionCtlProcessor`, `LiteSubscriptionRegistryImpl`; `spec/delta-5.5.md` §5.

use crate::base::{ConnId, Now, ShardId};
use crate::broker::acks::Ack;
use crate::broker::control::effects::Reject;
use crate::broker::control::names::is_blank;
use crate::broker::handle::{Request, make_group, parse};
use crate::broker::light::{NAME_BYTES_MAX, lite_parts, lite_queue};
use crate::broker::lite::rules::Rules;
use crate::broker::lite::{Excluded, Full, Named, Who};
use crate::broker::survey::{self, Question, Row};
use crate::broker::topics::Topic;
use crate::broker::{Broker, Peer, light};
use crate::machine::Outbox;
use crate::remoting::body::lite::{
    Action, LiteSubscription, LiteSubscriptions, OffsetKind, OffsetOption,
};
use crate::remoting::code::{request as code, response};
use crate::remoting::command::FrameWriter;
use crate::remoting::frame::Codec;
use crate::remoting::header::lite::NotifyUnsubscribeLite;
use crate::store::consumequeue::QueueSlot;
use std::sync::Arc;

/// What one request asks, and who asked it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wishes {
    entries: Vec<LiteSubscription>,
    link: ConnId,
}

fn illegal<T>(remark: impl Into<String>) -> Result<T, Reject> {
    Err(Reject::new(response::ILLEGAL_OPERATION, remark))
}

pub fn control(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    if request.command.body.is_empty() {
        return illegal("Request body is null.");
    }
    let body: LiteSubscriptions = parse(request.command)?;
    let mut entries = body.subscription_set;
    if entries.is_empty() {
        return illegal("LiteSubscriptionCtlRequestBody is empty.");
    }
    entries.retain(|entry| {
        ![&entry.client_id, &entry.group, &entry.topic]
            .iter()
            .any(|n| is_blank(n))
    });
    let adds = |entry: &&LiteSubscription| {
        matches!(entry.action, Some(Action::PartialAdd | Action::CompleteAdd))
    };
    let unknown = entries.iter().filter(adds).map(|entry| &entry.group);
    let unknown = { unknown }.find(|group| !broker.snapshot.groups.contains(group));
    if let Some(group) = unknown {
        let group = group.clone();
        return make_group(broker, request, &group, out);
    }
    let mut homes: Vec<ShardId> = Vec::new();
    for entry in &entries {
        let topic = broker.snapshot.topics.get(&entry.topic);
        let home = topic.and_then(|topic| topic.owner(0));
        homes.extend(home.filter(|home| !homes.contains(home)));
    }
    let wishes = Wishes {
        entries,
        link: request.link.conn,
    };
    match homes[..] {
        [home] if home != broker.me => broker.forward(home, request, out),
        [] | [_] => {
            carry_out(broker, request.now, &wishes, out)?;
            if !request.command.is_oneway() {
                let (to, value) = (request.reply_to(), None);
                let end = broker.log_end();
                broker.acks.push(end, Ack::Offset { to, value });
            }
        }
        _ if broker.lead.is_none() => broker.forward(ShardId(0), request, out),
        _ => return survey::ask(broker, request, Question::Lites(wishes), out),
    }
    Ok(())
}

/// The same, asked by shard 0.
pub fn rows(broker: &mut Broker, now: Now, wishes: &Wishes, out: &mut Outbox<Peer>) -> Vec<Row> {
    let done = carry_out(broker, now, wishes, out);
    done.err().map(Row::Refused).into_iter().collect()
}

/// Does what is for this shard; what comes before a refusal is done.
fn carry_out(
    broker: &mut Broker,
    now: Now,
    wishes: &Wishes,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let mut done = Ok(());
    for entry in &wishes.entries {
        let topic = broker.snapshot.topics.get(&entry.topic).cloned();
        if let Some(topic) = topic.filter(|topic| topic.owner(0) == Some(broker.me)) {
            done = one(broker, now, entry, &topic, wishes.link, out);
        }
        if done.is_err() {
            break;
        }
    }
    broker.save_leases(now);
    done
}

fn one(
    broker: &mut Broker,
    now: Now,
    entry: &LiteSubscription,
    topic: &Arc<Topic>,
    link: ConnId,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let who = who(entry);
    let Some(action) = entry.action else {
        let remark = "the entry has no action";
        return Err(Reject::new(response::SYSTEM_ERROR, remark));
    };
    let named = named(broker, entry)?;
    match action {
        Action::PartialAdd => add(broker, now, entry, &named, link, out)?,
        Action::PartialRemove => {
            let group = broker.snapshot.groups.get(&entry.group);
            let resets = group.is_some_and(|group| Rules::of(group).resets_removed);
            broker.check_resets(resets)?;
            let names: Vec<Arc<str>> = named.into_iter().map(|(name, _)| name).collect();
            for name in broker.lites.remove(now, who, &names) {
                broker.reset_lite(now, who.group, &name, Some(0).filter(|_| resets));
            }
        }
        Action::CompleteAdd => {
            let limit = limit(broker, &entry.group)?;
            let taken = match limit.0.all {
                false => broker.lites.replace(now, who, link, limit, &named),
                true => {
                    let queues = || lite_queues(&broker.store, &topic.name);
                    let lites = &mut broker.lites;
                    lites.take_all(now, who, link, limit, &topic.name, queues)
                }
            };
            taken.map_err(|Full| full(limit.1))?;
        }
        Action::CompleteRemove => broker.lites.leave(now, who),
    }
    Ok(())
}

fn who(entry: &LiteSubscription) -> Who<'_> {
    Who {
        group: &entry.group,
        client: &entry.client_id,
    }
}

/// What a group that may consume says about its clients, and how many subscriptions there may be.
/// Unlike the reference, which then takes subscriptions to what nothing will ever be put into,
/// refuses while there are no light queues.
fn limit(broker: &Broker, group: &str) -> Result<(Rules, usize), Reject> {
    if !broker.options.light {
        return illegal("no lite topics here: the broker needs enableLmq and enableMultiDispatch");
    }
    let group = broker.snapshot.groups.get(group);
    match group.filter(|group| group.consume_enable) {
        Some(group) => Ok((Rules::of(group), broker.options.lite_subscriptions_max)),
        None => illegal("Consumer group is not allowed to consume."),
    }
}

fn full(most: usize) -> Reject {
    let remark = format!("lite subscription quota exceeded {most}: see maxLiteSubscriptionCount");
    Reject::new(response::LITE_SUBSCRIPTION_QUOTA_EXCEEDED, remark)
}

/// Its lite topics come to what a client has.
fn add(
    broker: &mut Broker,
    now: Now,
    entry: &LiteSubscription,
    named: &[Named],
    link: ConnId,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let (rules, most) = limit(broker, &entry.group)?;
    if rules.all && broker.lites.subscriptions() >= most {
        return Err(full(most));
    }
    if rules.all {
        return illegal("subscribe lite operation is not supported for this group");
    }
    let (group, option) = (&*entry.group, entry.offset_option.as_ref());
    broker.check_resets(rules.resets_excluded || option.is_some())?;
    let added = broker
        .lites
        .add(now, who(entry), link, (rules, most), named);
    for excluded in added.map_err(|Full| full(most))? {
        tell(group, &excluded, out);
        if rules.resets_excluded {
            broker.reset_lite(now, group, &excluded.light, Some(0));
        }
    }
    for (name, slot) in named {
        let target = target(broker, group, *slot, option);
        broker.reset_lite(now, group, name, target);
    }
    Ok(())
}

/// The light queues of the lite topics that an entry names, each once.
fn named(broker: &Broker, entry: &LiteSubscription) -> Result<Vec<Named>, Reject> {
    let mut named: Vec<Named> = Vec::new();
    for lite in entry.lite_topic_set.iter().filter(|lite| !lite.is_empty()) {
        let name = lite_queue(&entry.topic, lite);
        if name.len() > NAME_BYTES_MAX || lite_parts(&name).is_none() {
            return illegal(format!(
                "the lite topic [{lite}] of {} makes a light queue's name of {} bytes, at most \
                 {NAME_BYTES_MAX} are allowed, and no $",
                entry.topic,
                name.len()
            ));
        }
        let slot = broker.store.queues().find(&name, 0);
        named.push((name.into(), slot));
    }
    named.sort();
    named.dedup();
    Ok(named)
}

/// The queues of all lite topics that a parent has here.
pub(super) fn lite_queues(store: &crate::store::Store, parent: &str) -> Vec<(Arc<str>, QueueSlot)> {
    let lights = store.queues().iter();
    let lights = lights.filter(|(_, queue)| light::is_light_id(queue.topic_id));
    lights
        .filter(|(_, queue)| lite_parts(&queue.topic).is_some_and(|(known, _)| known == parent))
        .map(|(slot, queue)| (queue.topic.clone(), slot))
        .collect()
}

/// Where a group is to go on in a lite topic, if that is to change.
fn target(
    broker: &Broker,
    group: &str,
    slot: Option<QueueSlot>,
    option: Option<&OffsetOption>,
) -> Option<u64> {
    let (slot, option) = (slot?, option?);
    let value = u64::try_from(option.value).ok();
    match option.kind? {
        OffsetKind::Policy if value == Some(1) => Some(0),
        OffsetKind::Policy if value == Some(2) => Some(broker.store.visible_range(slot).1.0),
        OffsetKind::Policy | OffsetKind::Timestamp => None,
        OffsetKind::Offset => value,
        OffsetKind::TailN => {
            let committed = broker.offsets.committed(group, slot)?;
            Some(committed.saturating_sub(value?))
        }
    }
}

impl Broker {
    fn check_resets(&mut self, resets: bool) -> Result<(), Reject> {
        match self.store.check_append() {
            Err(refused) if resets => Err(self.refuse(refused)),
            _ => Ok(()),
        }
    }

    /// A group goes on elsewhere in a lite topic; what it holds of it is nobody's concern any more.
    fn reset_lite(&mut self, now: Now, group: &str, name: &str, target: Option<u64>) {
        let slot = self.store.queues().find(name, 0);
        let (Some(slot), Some(target)) = (slot, target) else {
            return;
        };
        if self.offsets.committed(group, slot) != Some(target) {
            self.offsets.reset(now, group, slot, target);
            self.leases.clear(group, slot);
            self.lites.raise(now, group, slot);
        }
    }
}

/// Tells a client that it lost a lite topic to another.
fn tell(group: &str, excluded: &Excluded, out: &mut Outbox<Peer>) {
    let (_, lite) = lite_parts(&excluded.light).unwrap_or_default();
    let header = NotifyUnsubscribeLite {
        lite_topic: lite.into(),
        consumer_group: group.into(),
        client_id: (&*excluded.client).into(),
    };
    out.write(excluded.link, |bytes| {
        let code = code::NOTIFY_UNSUBSCRIBE_LITE;
        let mut w = FrameWriter::request(bytes, Codec::Json, 0, code, true);
        header.encode(&mut w);
        w.finish(0);
    });
}
