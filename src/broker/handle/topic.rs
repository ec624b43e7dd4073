//! Topics: create or change (17, 18), delete (215), list (21), show (351).
//!
//! Unlike the reference: a list of topics is applied as a whole or not at all, and one of them that
//! is unchanged does not end the request.
//!
//! Source: `AdminBrokerProcessor`; spec pages semantics §1, mqadmin §1.

use std::collections::BTreeSet;

use crate::broker::control::attributes::{self, Attributes};
use crate::broker::control::effects::{Effects, Reject};
use crate::broker::control::{Call, Control, Reply, names};
use crate::broker::handle::{Page, bytes_of, parse};
use crate::broker::record::Record;
use crate::broker::topics::{Topic, TopicConfig, TopicFilter};
use crate::remoting::body;
use crate::remoting::code::response;
use crate::remoting::header::topic::{CreateTopic, TopicName, TopicPage};

/// UPDATE_AND_CREATE_TOPIC 17.
pub fn update(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let header = CreateTopic::decode(&call.command.ext)?;
    let filter = filter_of(&header.topic_filter_type)?;
    check_name(control, &header.topic)?;
    let changes = attributes::parse_changes(header.attributes.as_deref().unwrap_or_default());
    let changes = changes.map_err(|remark| Reject::new(response::SYSTEM_ERROR, remark))?;
    let wanted = TopicConfig {
        read_queues: queues("readQueueNums", header.read_queue_nums)?,
        write_queues: queues("writeQueueNums", header.write_queue_nums)?,
        perm: header.perm,
        filter,
        sys_flag: header.topic_sys_flag.unwrap_or(0),
        order: header.order,
        attributes: Attributes::new(),
    };
    let config = altered(control, &header.topic, wanted, &changes)?;
    control.check_topic_limits([(&*header.topic, config.queues())])?;
    control.put_topic(call.now, &header.topic, config, effects);
    Ok(Reply::empty())
}

/// UPDATE_AND_CREATE_TOPIC_LIST 18.
pub fn update_list(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let list: body::TopicConfigList = parse(call.command)?;
    let mut seen = BTreeSet::new();
    let mut configs = Vec::with_capacity(list.topic_config_list.len());
    for topic in list.topic_config_list {
        check_name(control, &topic.topic_name)?;
        if !seen.insert(topic.topic_name.clone()) {
            let remark = format!("The topic[{}] is named twice.", topic.topic_name);
            return Err(Reject::new(response::INVALID_PARAMETER, remark));
        }
        let wanted = TopicConfig {
            read_queues: queues("readQueueNums", topic.read_queue_nums)?,
            write_queues: queues("writeQueueNums", topic.write_queue_nums)?,
            perm: topic.perm,
            filter: filter_of(&topic.topic_filter_type)?,
            sys_flag: topic.topic_sys_flag,
            order: topic.order,
            attributes: Attributes::new(),
        };
        let config = altered(control, &topic.topic_name, wanted, &topic.attributes)?;
        configs.push((topic.topic_name, config));
    }
    let wanted = configs.iter().map(|(name, config)| (name.as_str(), config.queues()));
    control.check_topic_limits(wanted)?;
    for (name, config) in configs {
        control.put_topic(call.now, &name, config, effects);
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
    let retries = consumed_by.iter().flat_map(|group| names::pop_retry_topics(&header.topic, group));
    let names: Vec<String> = std::iter::once(header.topic.into_owned()).chain(retries).collect();
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
    let table = body::TopicConfigTable {
        data_version: control.topics.stamp().into(),
        topic_config_table: topics.map(|topic| (topic.name.to_string(), shown(topic))).collect(),
    };
    Ok(Reply {
        fields: vec![("totalTopicNum", control.topics.table().len().to_string())],
        body: bytes_of(&table),
    })
}

/// GET_TOPIC_CONFIG 351.
pub fn one(control: &Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let header = TopicName::decode(&call.command.ext)?;
    let topic = control.topics.get(&header.topic).ok_or_else(|| {
        let remark = format!("No topic in this broker. topic: {}", header.topic);
        Reject::new(response::TOPIC_NOT_EXIST, remark)
    })?;
    Ok(Reply::body(bytes_of(&shown(topic))))
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

fn filter_of(name: &str) -> Result<TopicFilter, Reject> {
    match name {
        "SINGLE_TAG" => Ok(TopicFilter::SingleTag),
        "MULTI_TAG" => Ok(TopicFilter::MultiTag),
        _ => {
            let remark = format!("topicFilterType = [{name}] value invalid");
            Err(Reject::new(response::SYSTEM_ERROR, remark))
        }
    }
}

fn queues(field: &str, count: i32) -> Result<u32, Reject> {
    u32::try_from(count).map_err(|_| {
        let remark = format!("{field} is {count}, below 0");
        Reject::new(response::INVALID_PARAMETER, remark)
    })
}

/// `wanted` with the attributes that the topic has after `changes`.
fn altered(
    control: &Control,
    name: &str,
    wanted: TopicConfig,
    changes: &Attributes,
) -> Result<TopicConfig, Reject> {
    let kind = changes.get(&format!("+{}", attributes::MESSAGE_TYPE));
    if !control.options.mixed_message_type && kind.is_some_and(|kind| kind == "MIXED") {
        let remark = "MIXED message type is not supported.";
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    let current = control.topics.get(name).map(|topic| &topic.config.attributes);
    let attributes = attributes::alter(&attributes::OF_TOPICS, current, changes);
    let attributes = attributes.map_err(|remark| Reject::new(response::SYSTEM_ERROR, remark))?;
    Ok(TopicConfig { attributes, ..wanted })
}

/// A topic as clients and tools see it.
fn shown(topic: &Topic) -> body::TopicConfig {
    let config = &topic.config;
    body::TopicConfig {
        topic_name: topic.name.to_string(),
        read_queue_nums: config.read_queues as i32,
        write_queue_nums: config.write_queues as i32,
        perm: config.perm,
        topic_filter_type: match config.filter {
            TopicFilter::SingleTag => "SINGLE_TAG".to_owned(),
            TopicFilter::MultiTag => "MULTI_TAG".to_owned(),
        },
        topic_sys_flag: config.sys_flag,
        order: config.order,
        attributes: config.attributes.clone(),
    }
}
