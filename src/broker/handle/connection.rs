//! Who is connected: consumers of a group (203), producers of a group (204).
//!
//! Not here: all producers (328). Source: `AdminBrokerProcessor`; spec page request-codes §3.

use crate::broker::control::effects::Reject;
use crate::broker::control::{Call, Control, Reply};
use crate::broker::members::{Member, Subscription};
use crate::filter::tag;
use crate::remoting::body::client::{Connection, ConsumerConnection, ProducerConnection};
use crate::remoting::body::heartbeat::SubscriptionData;
use crate::remoting::body::json;
use crate::remoting::code::response;
use crate::remoting::header::group::ProducerGroup;
use crate::remoting::header::member::ConsumerGroup;

/// GET_CONSUMER_CONNECTION_LIST 203.
pub fn consumers(control: &Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let header = ConsumerGroup::decode(&call.command.ext)?;
    let group = &*header.consumer_group;
    let shared = control.members.subscriptions().get(group).ok_or_else(|| {
        let remark = format!("the consumer group[{group}] not online");
        Reject::new(response::CONSUMER_NOT_ONLINE, remark)
    })?;
    let topics = shared.topics.iter();
    let connection = ConsumerConnection {
        connection_set: control
            .members
            .consumers(group)
            .iter()
            .map(connection)
            .collect(),
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

fn connection(member: &Member) -> Connection {
    Connection {
        client_id: member.client_id.to_string(),
        client_addr: member.peer.to_string(),
        language: member.language,
        version: member.version,
    }
}

fn shown(topic: &str, subscription: &Subscription) -> SubscriptionData {
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
