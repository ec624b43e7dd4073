//! Who is connected: consumers of a group (203), producers of a group (204) and of all (328), and
//! what a group wants of a topic (345).
//!
//! Source: `AdminBrokerProcessor`; spec page request-codes §3.

use crate::broker::control::effects::Reject;
use crate::broker::control::{Call, Control, Reply};
use crate::broker::members::{Member, Subscription};
use crate::filter::tag;
use crate::remoting::body::client::{
    Connection, ConsumerConnection, GroupSubscription, Producer, ProducerConnection, ProducerTable,
};
use crate::remoting::body::heartbeat::SubscriptionData;
use crate::remoting::body::json;
use crate::remoting::code::response;
use crate::remoting::header::group::{ProducerGroup, TopicAndGroup};
use crate::remoting::header::member::ConsumerConnections;

/// GET_CONSUMER_CONNECTION_LIST 203.
pub fn consumers(control: &Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let header = ConsumerConnections::decode(&call.command.ext)?;
    let group = &*header.consumer_group;
    let shared = control.members.subscriptions().get(group).ok_or_else(|| {
        let remark = format!("the consumer group[{group}] not online");
        Reject::new(response::CONSUMER_NOT_ONLINE, remark)
    })?;
    let topics = shared.topics.iter();
    let members = control.members.consumers(group).iter();
    let connection = ConsumerConnection {
        connection_set: match header.each {
            true => each(control, group),
            false => members.map(connection).collect(),
        },
        subscription_table: topics
            .map(|(topic, subscription)| (topic.to_string(), shown(topic, subscription)))
            .collect(),
        consume_type: shared.mode.consume_type,
        message_model: shared.mode.message_model,
        consume_from_where: shared.mode.from_where,
    };
    Ok(Reply::body(json::to_vec(&connection)))
}

/// GET_PRODUCER_CONNECTION_LIST 204.
pub fn producers(control: &Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let header = ProducerGroup::decode(&call.command.ext)?;
    let members = control.members.producers(&header.producer_group);
    if members.is_empty() {
        let remark = format!("the producer group[{}] not exist", header.producer_group);
        return Err(Reject::new(response::SYSTEM_ERROR, remark));
    }
    let connection = ProducerConnection {
        connection_set: members.iter().map(connection).collect(),
    };
    Ok(Reply::body(json::to_vec(&connection)))
}

/// GET_ALL_PRODUCER_INFO 328.
pub fn all_producers(control: &Control) -> Result<Reply, Reject> {
    let producer = |member: &Member| Producer {
        client_id: member.client_id.to_string(),
        language: member.language,
        last_update_timestamp: member.seen.wall_ms,
        remote_ip: member.peer.to_string(),
        version: member.version,
    };
    let groups = control.members.all_producers();
    let rows = groups.map(|(group, members)| {
        let producers = members.iter().map(producer).collect();
        (group.to_string(), producers)
    });
    Ok(Reply::body(json::to_vec(&ProducerTable {
        data: rows.collect(),
    })))
}

/// QUERY_SUBSCRIPTION_BY_CONSUMER 345.
pub fn subscription(control: &Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let header = TopicAndGroup::decode(&call.command.ext)?;
    let shared = control.members.subscriptions().get(&header.group);
    let wanted = shared.and_then(|shared| shared.topics.get(&*header.topic));
    Ok(Reply::body(json::to_vec(&GroupSubscription {
        subscription_data: wanted.map(|wanted| shown(&header.topic, wanted)),
        group: header.group.into_owned(),
        topic: header.topic.into_owned(),
    })))
}

fn connection(member: &Member) -> Connection {
    Connection {
        client_id: member.client_id.to_string(),
        client_addr: member.peer.to_string(),
        language: member.language,
        version: member.version,
        ..Connection::default()
    }
}

/// Members and those who are refused, each with what it wants itself.
fn each(control: &Control, group: &str) -> Vec<Connection> {
    let members = control.members.consumers(group).iter();
    let members = members.map(|member| (member, None));
    let refused = control.members.refused(group);
    let refused = refused.map(|refused| (&refused.member, Some(refused.remark.to_string())));
    let told = |(member, refused): (&Member, Option<String>)| Connection {
        wants: member.wants.as_deref().cloned(),
        refused,
        ..connection(member)
    };
    members.chain(refused).map(told).collect()
}

pub(super) fn shown(topic: &str, subscription: &Subscription) -> SubscriptionData {
    let is_all = subscription.expression == tag::ALL;
    let tags = tag::tags(&subscription.expression).filter(|_| subscription.is_tag() && !is_all);
    let tags: Vec<String> = tags.map(str::to_owned).collect();
    SubscriptionData {
        topic: topic.to_owned(),
        sub_string: subscription.expression.clone(),
        code_set: tags.iter().map(|tag| tag::java_hash(tag)).collect(),
        tags_set: tags.into_iter().collect(),
        sub_version: subscription.version,
        expression_type: subscription.kind.clone(),
        class_filter_mode: subscription.class_filter,
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::Rig;
    use crate::broker::control::options::ControlOptions;

    /// The reference's answers but for addresses.
    #[test]
    fn who_is_connected() {
        let mut rig = Rig::new(ControlOptions::default());
        let mut check = |request: &str, expected: &str| assert_eq!(rig.ask(1, request), expected);
        check(
            "203 consumerGroup=hg",
            "206 the consumer group[hg] not online",
        );
        check("204 producerGroup=p1", "1 the producer group[p1] not exist");
        check(
            r#"34 {"clientID":"c1","producerDataSet":[{"groupName":"p1"}],"consumerDataSet":[{"groupName":"hg","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","unitMode":false,"subscriptionDataSet":[{"topic":"t1","subString":"a||b","tagsSet":["a","b"],"codeSet":[97,98],"subVersion":5,"expressionType":"TAG"},{"topic":"t2","subString":"","subVersion":6},{"topic":"t3","subString":"a > 1","subVersion":7,"expressionType":"SQL92"}]}]}"#,
            "0 IS_SUPPORT_HEART_BEAT_V2=true IS_SUB_CHANGE=true",
        );
        check(
            "203 consumerGroup=hg",
            r#"0 {"connectionSet":[{"clientAddr":"127.0.0.1:1001","clientId":"c1","language":"JAVA","version":513}],"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionTable":{"t1":{"classFilterMode":false,"codeSet":[97,98],"expressionType":"TAG","subString":"a||b","subVersion":5,"tagsSet":["a","b"],"topic":"t1"},"t2":{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":6,"tagsSet":[],"topic":"t2"},"t3":{"classFilterMode":false,"codeSet":[],"expressionType":"SQL92","subString":"a > 1","subVersion":7,"tagsSet":[],"topic":"t3"}}}"#,
        );
        check(
            "204 producerGroup=p1",
            r#"0 {"connectionSet":[{"clientAddr":"127.0.0.1:1001","clientId":"c1","language":"JAVA","version":513}]}"#,
        );
        check(
            "328",
            r#"0 {"data":{"p1":[{"clientId":"c1","language":"JAVA","lastUpdateTimestamp":1700000000000,"remoteIP":"127.0.0.1:1001","version":513}]}}"#,
        );
        check("35 clientID=c1 producerGroup=p1 consumerGroup=hg", "0");
        check("328", r#"0 {"data":{}}"#);
        check(
            "203 consumerGroup=hg",
            "206 the consumer group[hg] not online",
        );
        check("204 producerGroup=p1", "1 the producer group[p1] not exist");
        check("203", "29 the header field consumerGroup is missing");
    }
}
