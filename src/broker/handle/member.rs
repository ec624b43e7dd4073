//! Clients: heartbeat (34), unregister (35), ids of a group (38); telling members of changes (40).
//!
//! Unlike the reference: `notifyConsumerIdsChangedEnable` of a group counts whatever the reason of
//! the change; a group that lost its members forgets its fingerprint, and a heartbeat without
//! subscriptions for such a group is asked for them; unregistering creates no group.
//!
//! Source: `ClientManageProcessor`, `ConsumerManageProcessor`, `DefaultConsumerIdsChangeListener`;
//! spec pages remoting §11, semantics §5.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::ConnId;
use crate::broker::control::effects::{Effects, Reject};
use crate::broker::control::{Call, Control, Reply, names};
use crate::broker::handle::{check_length, parse};
use crate::broker::members::{ConsumeMode, Member, Subscription, TAG};
use crate::broker::topics::{perm, sys_flag};
use crate::filter::tag::{self, TagError, TagFilter};
use crate::remoting::body::client::ConsumerList;
use crate::remoting::body::heartbeat::{
    ConsumeType, ConsumerData, HeartbeatData, SubscriptionData,
};
use crate::remoting::body::json;
use crate::remoting::body::topic::TopicConfig;
use crate::remoting::code::{request, response};
use crate::remoting::command::FrameWriter;
use crate::remoting::frame::Codec;
use crate::remoting::header::member::{
    ConsumerGroup, HEARTBEAT_V2, SUBSCRIPTION_CHANGED, UnregisterClient,
};

/// Longest expression of a subscription; the reference has no limit.
const EXPRESSION_BYTES_MAX: usize = 64 * 1024;

/// HEART_BEAT 34. A group that may not be created is left out silently: its pulls hear why. One
/// that passes a limit is left out as well, and the whole answer is that refusal.
pub fn heartbeat(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let data: HeartbeatData = parse(call.command)?;
    check_length("client id", &data.client_id)?;
    let member = Member {
        conn: call.link.conn,
        client_id: Arc::from(data.client_id.as_str()),
        peer: call.link.peer,
        language: call.command.language,
        version: call.command.version,
        seen: call.now,
    };
    let mut refused = Ok(());
    let mut changed = data.heartbeat_fingerprint == 0;
    for consumer in &data.consumer_data_set {
        if control.options.reject_pull_consumer
            && consumer.consume_type == Some(ConsumeType::Actively)
        {
            continue;
        }
        changed |= fingerprint_changed(control, &data, consumer);
        let joined = join_consumers(control, call, &member, &data, consumer, effects);
        refused = refused.and(joined);
    }
    for producer in &data.producer_data_set {
        refused = refused.and(join_producers(control, &member, &producer.group_name));
    }
    control.scan_later(call.now);
    refused?;
    Ok(Reply {
        fields: vec![
            (HEARTBEAT_V2, true.to_string()),
            (SUBSCRIPTION_CHANGED, changed.to_string()),
        ],
        body: Vec::new(),
    })
}

/// Whether the client must send its subscriptions again.
fn fingerprint_changed(
    control: &mut Control,
    data: &HeartbeatData,
    consumer: &ConsumerData,
) -> bool {
    let fingerprint = data.heartbeat_fingerprint;
    match control
        .members
        .note_fingerprint(&consumer.group_name, fingerprint)
    {
        Some(before) => before != fingerprint,
        None => data.without_sub,
    }
}

fn join_producers(control: &mut Control, member: &Member, group: &str) -> Result<(), Reject> {
    check_length("producer group", group)?;
    control
        .members
        .join_producers(group, member)
        .map_err(too_many_members)
}

fn join_consumers(
    control: &mut Control,
    call: &Call<'_>,
    member: &Member,
    data: &HeartbeatData,
    consumer: &ConsumerData,
    effects: &mut Effects,
) -> Result<(), Reject> {
    let name = consumer.group_name.as_str();
    let subscriptions = match data.without_sub && data.heartbeat_fingerprint != 0 {
        true => None,
        false => Some(subscriptions(control, consumer)?),
    };
    control.ensure_group(call.now, name, effects)?;
    let Some(retry_queues) = control.groups.get(name).map(|group| group.retry_queue_nums) else {
        return Ok(());
    };
    let retry = TopicConfig {
        order: has_order_topic(control, name, subscriptions.as_ref()),
        perm: perm::READ | perm::WRITE,
        read_queue_nums: retry_queues.max(0),
        topic_name: names::retry_topic(name),
        topic_sys_flag: if consumer.unit_mode {
            sys_flag::UNIT_SUB
        } else {
            0
        },
        write_queue_nums: retry_queues.max(0),
        ..TopicConfig::default()
    };
    ensure_retry_topic(control, call, retry, effects)?;
    let mode = ConsumeMode {
        consume_type: consumer.consume_type,
        message_model: consumer.message_model,
        from_where: consumer.consume_from_where,
    };
    let fingerprint = data.heartbeat_fingerprint;
    let joined = control
        .members
        .join_consumers(name, member, mode, fingerprint, subscriptions);
    let change = joined.map_err(too_many_members)?;
    if change.subscriptions {
        control.changed();
    }
    if change.members {
        tell(control, name, effects);
    }
    Ok(())
}

/// The retry topic exists, and has the order flag that its consumers' topics give it.
fn ensure_retry_topic(
    control: &mut Control,
    call: &Call<'_>,
    wanted: TopicConfig,
    effects: &mut Effects,
) -> Result<(), Reject> {
    let order = wanted.order;
    match control
        .topics
        .get(&wanted.topic_name)
        .map(|topic| topic.config.clone())
    {
        Some(config) => control.put_topic(call.now, TopicConfig { order, ..config }, effects),
        None => drop(control.ensure_topic(call.now, wanted, effects)?),
    }
    Ok(())
}

type Subscriptions = BTreeMap<Arc<str>, Arc<Subscription>>;

/// Whether one of the topics is ordered; of the group's known topics if the heartbeat names none.
fn has_order_topic(control: &Control, group: &str, named: Option<&Subscriptions>) -> bool {
    let known = control
        .members
        .subscriptions()
        .get(group)
        .map(|known| &known.topics);
    let mut topics = named.or(known).into_iter().flat_map(BTreeMap::keys);
    topics.any(|topic| {
        control
            .topics
            .get(topic)
            .is_some_and(|topic| topic.config.order)
    })
}

fn subscriptions(control: &Control, consumer: &ConsumerData) -> Result<Subscriptions, Reject> {
    let (count, most) = (
        consumer.subscription_data_set.len(),
        control.options.subscriptions_max,
    );
    if count > most {
        let group = &consumer.group_name;
        let remark = format!("group {group} subscribes to {count} topics, the limit is {most}");
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    }
    let data = consumer.subscription_data_set.iter();
    data.map(|data| {
        Ok((
            Arc::from(data.topic.as_str()),
            Arc::new(subscription(data)?),
        ))
    })
    .collect()
}

fn subscription(data: &SubscriptionData) -> Result<Subscription, Reject> {
    check_length("topic", &data.topic)?;
    check_length("expression type", &data.expression_type)?;
    let expression = match data.sub_string.as_str() {
        "" => tag::ALL,
        text => text,
    };
    if expression.len() > EXPRESSION_BYTES_MAX {
        let remark = format!(
            "the expression for topic {} has {} bytes, the limit is {EXPRESSION_BYTES_MAX}",
            data.topic,
            expression.len()
        );
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    }
    let kind = match data.expression_type.as_str() {
        "" => TAG,
        kind => kind,
    };
    let filter = match TagFilter::parse(expression) {
        _ if kind != TAG => TagFilter::All,
        Ok(filter) => filter,
        // Lets nothing pass, as in the reference.
        Err(TagError::NoTag) => TagFilter::Codes(Default::default()),
        Err(error) => return Err(Reject::new(response::SYSTEM_BUSY, error.to_string())),
    };
    Ok(Subscription {
        expression: expression.to_owned(),
        kind: kind.to_owned(),
        version: data.sub_version,
        class_filter: data.class_filter_mode,
        filter,
    })
}

fn too_many_members(most: usize) -> Reject {
    let remark = format!("this broker has {most} clients in groups, which is the limit");
    Reject::new(response::SYSTEM_BUSY, remark)
}

/// UNREGISTER_CLIENT 35.
pub fn unregister(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let header = UnregisterClient::decode(&call.command.ext)?;
    let conn = call.link.conn;
    if let Some(group) = header.producer_group {
        control.members.leave_producers(&group, conn);
    }
    if let Some(group) = header.consumer_group {
        leave(control, &group, conn, effects);
    }
    Ok(Reply::empty())
}

/// GET_CONSUMER_LIST_BY_GROUP 38.
pub fn client_ids(control: &Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let header = ConsumerGroup::decode(&call.command.ext)?;
    let ids = control.members.client_ids(&header.consumer_group);
    if ids.is_empty() {
        let remark = format!("no consumer for this group, {}", header.consumer_group);
        return Err(Reject::new(response::SYSTEM_ERROR, remark));
    }
    let list = ConsumerList {
        consumer_id_list: ids.iter().map(|id| id.to_string()).collect(),
    };
    Ok(Reply::body(json::to_vec(&list)))
}

/// A connection is no member of the group any more; those who stay are told.
pub(in crate::broker) fn leave(
    control: &mut Control,
    group: &str,
    conn: ConnId,
    effects: &mut Effects,
) {
    if !control.members.leave_consumers(group, conn) {
        return;
    }
    if control.members.consumers(group).is_empty() {
        control.changed();
    }
    tell(control, group, effects);
}

/// NOTIFY_CONSUMER_IDS_CHANGED 40 to every member, unless the broker or the group is set not to, or
/// the group is broadcasting. Always in JSON, which every client reads.
fn tell(control: &Control, group: &str, effects: &mut Effects) {
    let quiet = |group: &str| {
        let config = control.groups.get(group);
        let shared = control.members.subscriptions().get(group);
        config.is_some_and(|config| !config.notify_consumer_ids_changed_enable)
            || shared.is_some_and(|shared| shared.is_broadcast())
    };
    if !control.options.notify_consumer_ids_changed || quiet(group) {
        return;
    }
    let mut frame = Vec::new();
    let code = request::NOTIFY_CONSUMER_IDS_CHANGED;
    let mut writer = FrameWriter::request(&mut frame, Codec::Json, 0, code, true);
    ConsumerGroup {
        consumer_group: group.into(),
    }
    .encode(&mut writer);
    writer.finish(0);
    let members = control.members.consumers(group).iter();
    effects
        .notices
        .extend(members.map(|member| (member.conn, frame.clone())));
}
