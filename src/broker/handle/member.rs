//! Clients: heartbeat (34), unregister (35), ids of a group (38); telling members of changes (40).
//!
//! Unlike the reference: `notifyConsumerIdsChangedEnable` of a group counts whatever the reason of
//! the change; a group that lost its members forgets its fingerprint, and a heartbeat without
//! subscriptions for such a group, or on a connection that has not said any, is asked for them;
//! unregistering creates no group; a client may be refused because it subscribes differently.
//!
//! Source: `ClientManageProcessor`, `ConsumerManageProcessor`, `DefaultConsumerIdsChangeListener`;
//! spec pages remoting §11, semantics §5.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::ConnId;
use crate::broker::control::effects::{Effects, Reject};
use crate::broker::control::{Call, Control, Reply, names};
use crate::broker::handle::{check_length, parse};
use crate::broker::members::{ConsumeMode, Member, Refusal, SQL92, Subscription, TAG};
use crate::broker::topics::{perm, sys_flag};
use crate::filter::Filter;
use crate::filter::sql::SqlFilter;
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
/// that is refused (a limit, a subscription unlike the members') is left out as well, the others
/// are not, and the whole answer is that refusal.
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
        wants: None,
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
        // A member of a new connection that does not repeat what it wants.
        changed |= data.without_sub && !control.members.knows(&consumer.group_name, member.conn);
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
    let (change, answer) = match joined {
        Ok(change) => (change, Ok(())),
        Err(Refusal::Full(most)) => return Err(too_many_members(most)),
        Err(Refusal::Different { remark, change }) => {
            let refused = Reject::new(response::NO_PERMISSION, &*remark);
            (change, Err(refused))
        }
    };
    if change.subscriptions {
        control.changed();
    }
    if change.members {
        tell(control, name, effects);
    }
    answer
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
    let filter = match kind {
        TAG => Some(tags(expression)?.into()),
        // The group's pulls are told; its heartbeats are taken, as in the reference.
        SQL92 => SqlFilter::parse(expression).ok().map(Filter::Sql),
        _ => None,
    };
    Ok(Subscription {
        expression: expression.to_owned(),
        kind: kind.to_owned(),
        version: data.sub_version,
        class_filter: data.class_filter_mode,
        filter,
    })
}

fn tags(expression: &str) -> Result<TagFilter, Reject> {
    match TagFilter::parse(expression) {
        Ok(filter) => Ok(filter),
        // Lets nothing pass, as in the reference.
        Err(TagError::NoTag) => Ok(TagFilter::Codes(Default::default())),
        Err(error) => Err(Reject::new(response::SYSTEM_BUSY, error.to_string())),
    }
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
    if control.members.let_in(group, conn) {
        control.changed();
    }
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

#[cfg(test)]
mod tests {
    use super::super::rig::{Rig, conn};
    use crate::broker::control::effects::Effects;
    use crate::broker::control::options::ControlOptions;
    use crate::broker::topics::sys_flag;
    use crate::filter::Filter;
    use crate::filter::tag::TagFilter;

    const FULL: &str = "0 IS_SUPPORT_HEART_BEAT_V2=true IS_SUB_CHANGE=true";
    const KNOWN: &str = "0 IS_SUPPORT_HEART_BEAT_V2=true IS_SUB_CHANGE=false";

    /// A heartbeat of one consumer; `topics` as `topic:expression:version`, joined by blanks.
    fn beat(client: &str, group: &str, topics: &str, more: &str) -> String {
        let topics = topics.split_whitespace().map(|topic| {
            let mut parts = topic.split(':');
            let mut part = || parts.next().unwrap_or_default();
            format!(
                r#"{{"topic":"{}","subString":"{}","subVersion":{}}}"#,
                part(),
                part(),
                part()
            )
        });
        let topics: Vec<_> = topics.collect();
        format!(
            r#"34 {{"clientID":"{client}","consumerDataSet":[{{"groupName":"{group}","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[{}]}}]{more}}}"#,
            topics.join(",")
        )
    }

    fn rig() -> Rig {
        Rig::new(ControlOptions::default())
    }

    #[test]
    fn a_consumer_joins_and_leaves() {
        let mut rig = rig();
        assert_eq!(
            rig.ask(1, "38 consumerGroup=g"),
            "1 no consumer for this group, g"
        );
        let before = rig.control.version();
        assert_eq!(rig.ask(1, &beat("c1", "g", "t:a||b:5", "")), FULL);
        assert_eq!(rig.notices(), "1:g");
        assert_eq!(
            rig.effects.records.len(),
            2,
            "the group and its retry topic"
        );
        assert_eq!(rig.control.version(), before + 3, "and the subscriptions");
        let snapshot = rig.control.snapshot();
        assert!(snapshot.groups.contains("g") && snapshot.topics.contains("%RETRY%g"));
        let subscription = &snapshot.subscriptions.get("g").unwrap().topics["t"];
        let expected = Filter::Tags(TagFilter::parse("a||b").unwrap());
        assert_eq!(subscription.filter, Some(expected));
        assert_eq!(rig.ask(1, &beat("c1", "g", "t:a||b:5", "")), FULL);
        assert_eq!(
            (rig.notices(), rig.effects.records.len()),
            (String::new(), 0)
        );
        assert_eq!(rig.control.version(), before + 3, "nothing new");
        assert_eq!(rig.ask(2, &beat("c2", "g", "t:a||b:5", "")), FULL);
        assert_eq!(rig.notices(), "1:g 2:g");
        assert_eq!(
            rig.control.version(),
            before + 3,
            "a member alone needs no snapshot"
        );
        assert_eq!(
            rig.ask(1, "38 consumerGroup=g"),
            r#"0 {"consumerIdList":["c1","c2"]}"#
        );
        assert_eq!(rig.ask(1, "35 clientID=c1 consumerGroup=g"), "0");
        assert_eq!(rig.notices(), "2:g");
        assert_eq!(
            rig.ask(1, "38 consumerGroup=g"),
            r#"0 {"consumerIdList":["c2"]}"#
        );
        rig.ask(2, "35 clientID=c2 consumerGroup=g");
        assert_eq!(rig.control.version(), before + 4);
        assert!(rig.control.snapshot().subscriptions.is_empty());
    }

    #[test]
    fn two_connections_of_one_client() {
        let mut rig = rig();
        rig.ask(1, &beat("c", "g", "t:*:1", ""));
        rig.ask(2, &beat("c", "g", "t:*:1", ""));
        rig.ask(3, &beat("d", "g", "t:*:1", ""));
        assert_eq!(
            rig.ask(1, "38 consumerGroup=g"),
            r#"0 {"consumerIdList":["c","d"]}"#
        );
        rig.effects = Effects::default();
        rig.control.closed(conn(1), &mut rig.effects);
        assert_eq!(rig.notices(), "2:g 3:g");
        assert_eq!(
            rig.ask(3, "38 consumerGroup=g"),
            r#"0 {"consumerIdList":["c","d"]}"#
        );
        rig.control.closed(conn(2), &mut rig.effects);
        assert_eq!(
            rig.ask(3, "38 consumerGroup=g"),
            r#"0 {"consumerIdList":["d"]}"#
        );
    }

    #[test]
    fn subscriptions_change_by_topic_and_by_version() {
        let mut rig = rig();
        let mut check = |topics: &str, notices: &str, changes: u64, expected: &str| {
            let before = rig.control.version();
            rig.ask(1, &beat("c", "g", topics, ""));
            assert_eq!(rig.notices(), notices, "{topics}");
            assert_eq!(rig.control.version(), before + changes, "{topics}");
            let snapshot = rig.control.snapshot();
            let seen = snapshot.subscriptions.get("g").unwrap().topics.iter();
            let seen =
                seen.map(|(topic, sub)| format!("{topic}:{}:{}", sub.expression, sub.version));
            assert_eq!(seen.collect::<Vec<_>>().join(" "), expected);
        };
        check("t:a:5", "1:g", 3, "t:a:5");
        check("t:b:5", "", 0, "t:a:5");
        check("t:b:4", "", 0, "t:a:5");
        check("t:b:6", "", 1, "t:b:6");
        check("t:b:6 u:*:1", "1:g", 1, "t:b:6 u:*:1");
        check("u::1", "1:g", 1, "u:*:1");
        check("", "1:g", 1, "");
    }

    /// As the reference, but for a group whose fingerprint is not known.
    #[test]
    fn fingerprints() {
        let mut rig = rig();
        let mut check = |more: &str, topics: &str, expected: &str| {
            assert_eq!(
                rig.ask(1, &beat("c", "g", topics, more)),
                expected,
                "{more}"
            );
            rig.control
                .snapshot()
                .subscriptions
                .get("g")
                .unwrap()
                .topics
                .len()
        };
        let bare = |print: i32| format!(r#","heartbeatFingerprint":{print},"withoutSub":true"#);
        let full = |print: i32| format!(r#","heartbeatFingerprint":{print}"#);
        assert_eq!(check(&bare(7), "", FULL), 0);
        assert_eq!(check(&full(7), "t:*:1", KNOWN), 1);
        assert_eq!(check(&bare(7), "", KNOWN), 1);
        assert_eq!(check(&bare(8), "", FULL), 1);
        assert_eq!(check(&full(8), "t:*:1 u:*:1", KNOWN), 2);
        assert_eq!(check("", "t:*:1", FULL), 1);
        assert_eq!(check(&full(8), "t:*:1", FULL), 1);
    }

    #[test]
    fn retry_topics_follow_their_group() {
        let mut rig = rig();
        rig.ask(1, "17 topic=o defaultTopic=TBW102 readQueueNums=1 writeQueueNums=1 perm=6 topicFilterType=SINGLE_TAG order=true");
        rig.ask(1, r#"200 {"groupName":"g","retryQueueNums":3}"#);
        let retry = |rig: &mut Rig, group: &str| {
            let snapshot = rig.control.snapshot();
            let config = &snapshot
                .topics
                .get(&format!("%RETRY%{group}"))
                .unwrap()
                .config;
            (config.write_queue_nums, config.order, config.topic_sys_flag)
        };
        rig.ask(
            1,
            &beat("c", "g", "o:*:1", "")
                .replace("\"consumeType", "\"unitMode\":true,\"consumeType"),
        );
        assert_eq!(retry(&mut rig, "g"), (3, true, sys_flag::UNIT_SUB));
        rig.ask(
            1,
            &beat(
                "c",
                "g",
                "o:*:1",
                r#","heartbeatFingerprint":1,"withoutSub":true"#,
            ),
        );
        assert_eq!(
            (retry(&mut rig, "g").1, rig.effects.records.len()),
            (true, 0)
        );
        rig.ask(1, &beat("c", "g", "t:*:1", ""));
        assert_eq!(
            (retry(&mut rig, "g").1, rig.effects.records.len()),
            (false, 1)
        );
    }

    #[test]
    fn broadcasting_and_quiet_groups_are_not_told() {
        let mut rig = rig();
        let broadcast = beat("c", "g", "t:*:1", "").replace("CLUSTERING", "BROADCASTING");
        rig.ask(1, &broadcast);
        assert_eq!(rig.notices(), "");
        assert!(
            rig.control
                .snapshot()
                .subscriptions
                .get("g")
                .unwrap()
                .is_broadcast()
        );
        rig.ask(
            1,
            r#"200 {"groupName":"q","notifyConsumerIdsChangedEnable":false}"#,
        );
        rig.ask(1, &beat("c", "q", "t:*:1", ""));
        assert_eq!(rig.notices(), "");
        let mut silent = Rig::new(ControlOptions {
            notify_consumer_ids_changed: false,
            ..ControlOptions::default()
        });
        silent.ask(1, &beat("c", "g", "t:*:1", ""));
        assert_eq!(silent.notices(), "");
    }

    #[test]
    fn groups_that_may_not_be_are_left_out() {
        let mut rig = Rig::new(ControlOptions {
            auto_create_group: false,
            reject_pull_consumer: true,
            ..ControlOptions::default()
        });
        assert_eq!(rig.ask(1, &beat("c", "g", "t:*:1", "")), FULL);
        assert_eq!(
            rig.ask(1, "38 consumerGroup=g"),
            "1 no consumer for this group, g"
        );
        rig.ask(1, r#"200 {"groupName":"g"}"#);
        rig.ask(
            1,
            &beat("c", "g", "t:*:1", "").replace("PASSIVELY", "ACTIVELY"),
        );
        assert_eq!(
            rig.ask(1, "38 consumerGroup=g"),
            "1 no consumer for this group, g"
        );
        rig.ask(1, &beat("c", "g", "t:*:1", ""));
        assert_eq!(
            rig.ask(1, "38 consumerGroup=g"),
            r#"0 {"consumerIdList":["c"]}"#
        );
    }

    #[test]
    fn silent_members_expire() {
        let mut rig = rig();
        rig.ask(
            1,
            r#"34 {"clientID":"p","producerDataSet":[{"groupName":"pg"}]}"#,
        );
        rig.ask(1, &beat("c1", "g", "t:*:1", ""));
        rig.pass_ms(1000);
        rig.ask(2, &beat("c2", "g", "t:*:1", ""));
        for _ in 0..12 {
            let at = rig.control.deadline().unwrap();
            rig.pass_ms(at.since_ms(rig.now.mono));
            rig.effects = Effects::default();
            rig.control.expire(rig.now, &mut rig.effects);
            assert!(rig.effects.closes.is_empty(), "at {at:?}");
        }
        rig.pass_ms(1);
        rig.control.expire(rig.now, &mut rig.effects);
        assert!(rig.effects.closes.is_empty(), "not yet time to look");
        rig.pass_ms(9_999);
        rig.control.expire(rig.now, &mut rig.effects);
        assert_eq!(rig.effects.closes, [conn(1), conn(2)]);
        assert_eq!(
            rig.notices(),
            "2:g",
            "the first goes while the second is there"
        );
        assert_eq!(rig.control.deadline(), None, "nobody is left to look at");
        assert_eq!(
            rig.ask(1, "204 producerGroup=pg"),
            "1 the producer group[pg] not exist"
        );
    }

    #[test]
    fn limits_are_named_and_spare_the_others() {
        let mut rig = Rig::new(ControlOptions {
            members_max: 2,
            subscriptions_max: 1,
            ..ControlOptions::default()
        });
        let many = beat(
            "c",
            "g",
            "t:*:1 u:*:1",
            r#","producerDataSet":[{"groupName":"p"}]"#,
        );
        assert_eq!(
            rig.ask(1, &many),
            "2 group g subscribes to 2 topics, the limit is 1"
        );
        assert!(rig.ask(1, "204 producerGroup=p").starts_with("0 "));
        assert_eq!(rig.ask(1, &beat("c", "g", "t:*:1", "")), FULL);
        let full = "2 this broker has 2 clients in groups, which is the limit";
        assert_eq!(rig.ask(2, &beat("d", "g", "t:*:1", "")), full);
        assert_eq!(
            rig.ask(1, &beat("c", "g", "t:*:1", "")),
            FULL,
            "a member stays"
        );
        let long = "x".repeat(1025);
        assert_eq!(
            rig.ask(1, &beat(&long, "g", "t:*:1", "")),
            "29 the client id has 1025 bytes, the limit is 1024"
        );
        let tags = format!("t:{}:1", "x".repeat(65_537));
        assert_eq!(
            rig.ask(1, &beat("c", "g", &tags, "")),
            "2 the expression for topic t has 65537 bytes, the limit is 65536"
        );
        assert_eq!(rig.ask(1, "34"), "1 the body is empty");
    }
}
