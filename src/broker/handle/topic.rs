//! Topics: create or change (17, 18), delete (215), list (21), show (351).
//!
//! Unlike the reference: a list of topics is applied as a whole or not at all, and one of them that
//! is unchanged does not end the request.
//!
//! Source: `AdminBrokerProcessor`; spec pages semantics §1, mqadmin §1.

use std::collections::BTreeSet;

use crate::broker::control::attributes;
use crate::broker::control::effects::{Effects, Reject};
use crate::broker::control::{Call, Control, Reply, names};
use crate::broker::handle::{Page, parse};
use crate::broker::record::Record;
use crate::remoting::body::json;
use crate::remoting::body::topic::{
    TopicConfig, TopicConfigAndMapping, TopicConfigList, TopicFilterType, TopicTable,
};
use crate::remoting::code::response;
use crate::remoting::header::topic::{CreateTopic, TopicName, TopicPage};

/// UPDATE_AND_CREATE_TOPIC 17.
pub fn update(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let header = CreateTopic::decode(&call.command.ext)?;
    let topic_filter_type = filter_of(&header.topic_filter_type)?;
    check_name(control, &header.topic)?;
    let changes = attributes::parse_changes(header.attributes.as_deref().unwrap_or_default());
    let changes = changes.map_err(|remark| Reject::new(response::SYSTEM_ERROR, remark))?;
    let wanted = TopicConfig {
        attributes: changes,
        order: header.order,
        perm: header.perm,
        read_queue_nums: header.read_queue_nums,
        topic_filter_type,
        topic_name: header.topic.into_owned(),
        topic_sys_flag: header.topic_sys_flag.unwrap_or(0),
        write_queue_nums: header.write_queue_nums,
    };
    let config = altered(control, wanted)?;
    control.check_topic_limits([&config])?;
    control.put_topic(call.now, config, effects);
    Ok(Reply::empty())
}

/// UPDATE_AND_CREATE_TOPIC_LIST 18.
pub fn update_list(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let list: TopicConfigList = parse(call.command)?;
    let mut seen = BTreeSet::new();
    let mut configs = Vec::with_capacity(list.topic_config_list.len());
    for topic in list.topic_config_list {
        check_name(control, &topic.topic_name)?;
        if !seen.insert(topic.topic_name.clone()) {
            let remark = format!("The topic[{}] is named twice.", topic.topic_name);
            return Err(Reject::new(response::INVALID_PARAMETER, remark));
        }
        configs.push(altered(control, topic)?);
    }
    control.check_topic_limits(&configs)?;
    for config in configs {
        control.put_topic(call.now, config, effects);
    }
    Ok(Reply::empty())
}

/// DELETE_TOPIC_IN_BROKER 215. Of the groups that consume the topic the pop retry topics go too. A
/// topic that is not there is fine.
pub fn delete(
    control: &mut Control,
    call: &Call<'_>,
    consumed_by: &[&str],
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let header = TopicName::decode(&call.command.ext)?;
    if names::is_blank(&header.topic) {
        let remark = "The specified topic is blank.";
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    check_not_system(control, &header.topic)?;
    let pop_retries = |group: &&str| names::pop_retry_topics(&header.topic, group);
    let mut names: Vec<String> = consumed_by.iter().flat_map(pop_retries).collect();
    names.insert(0, header.topic.into_owned());
    for name in names {
        let Some(topic) = control.topics.get(&name).cloned() else {
            continue;
        };
        let record = Record::TopicDelete {
            stamp: control.topics.stamp().next(call.now.wall_ms),
            id: topic.id,
            name: topic.name.clone(),
        };
        control.commit(record, effects);
        effects.deleted_topics.push(topic);
    }
    Ok(Reply::empty())
}

/// GET_ALL_TOPIC_CONFIG 21: everything, or a page in the order of names.
pub fn all(control: &Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let header = TopicPage::decode(&call.command.ext)?;
    let page = Page {
        first: header.topic_seq,
        stamp: header.data_version.as_deref(),
        count: header.max_topic_num,
    };
    let (first, count) = page.range(control.topics.stamp(), control.options.page_max);
    let topics = control.topics.sorted().skip(first).take(count);
    let table = TopicTable {
        data_version: control.topics.stamp().into(),
        topic_config_table: topics
            .map(|topic| (topic.name.to_string(), topic.config.clone()))
            .collect(),
        ..TopicTable::default()
    };
    Ok(Reply {
        fields: vec![("totalTopicNum", control.topics.table().len().to_string())],
        body: json::to_vec(&table),
    })
}

/// GET_TOPIC_CONFIG 351.
pub fn one(control: &Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let header = TopicName::decode(&call.command.ext)?;
    let topic = control.topics.get(&header.topic).ok_or_else(|| {
        let remark = format!("No topic in this broker. topic: {}", header.topic);
        Reject::new(response::TOPIC_NOT_EXIST, remark)
    })?;
    Ok(Reply::body(json::to_vec(&TopicConfigAndMapping::from(
        topic.config.clone(),
    ))))
}

fn check_name(control: &Control, topic: &str) -> Result<(), Reject> {
    let refused = |remark| Reject::new(response::INVALID_PARAMETER, remark);
    names::check_topic(topic).map_err(refused)?;
    check_not_system(control, topic)
}

fn check_not_system(control: &Control, topic: &str) -> Result<(), Reject> {
    if control.system.contains(topic) {
        let remark = format!("The topic[{topic}] is conflict with system topic.");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    Ok(())
}

fn filter_of(name: &str) -> Result<TopicFilterType, Reject> {
    match name {
        "SINGLE_TAG" => Ok(TopicFilterType::SingleTag),
        "MULTI_TAG" => Ok(TopicFilterType::MultiTag),
        _ => {
            let remark = format!("topicFilterType = [{name}] value invalid");
            Err(Reject::new(response::SYSTEM_ERROR, remark))
        }
    }
}

/// A wanted topic, whose attributes are changes, with the attributes it has after them.
fn altered(control: &Control, wanted: TopicConfig) -> Result<TopicConfig, Reject> {
    for (field, count) in [
        ("readQueueNums", wanted.read_queue_nums),
        ("writeQueueNums", wanted.write_queue_nums),
    ] {
        if count < 0 {
            let remark = format!("{field} of topic {} is {count}", wanted.topic_name);
            return Err(Reject::new(response::INVALID_PARAMETER, remark));
        }
    }
    let kind = wanted
        .attributes
        .get(&format!("+{}", attributes::MESSAGE_TYPE));
    if !control.options.mixed_message_type && kind.is_some_and(|kind| kind == "MIXED") {
        let remark = "MIXED message type is not supported.";
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    let current = control.topics.get(&wanted.topic_name);
    let current = current.map(|topic| &topic.config.attributes);
    let attributes = attributes::alter(&attributes::OF_TOPICS, current, &wanted.attributes);
    let attributes = attributes.map_err(|remark| Reject::new(response::SYSTEM_ERROR, remark))?;
    Ok(TopicConfig {
        attributes,
        ..wanted
    })
}
