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
use crate::remoting::body::table::TopicList;
use crate::remoting::body::topic::{
    DataVersion, TopicConfig, TopicConfigAndMapping, TopicConfigList, TopicFilterType, TopicTable,
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
        // There are no mappings: they are as they were at the start.
        mapping_data_version: DataVersion {
            timestamp: control.started_ms,
            ..DataVersion::default()
        },
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

/// GET_SYSTEM_TOPIC_LIST_FROM_BROKER 305.
pub fn system(control: &Control) -> Result<Reply, Reject> {
    let list = TopicList {
        broker_addr: None,
        topic_list: control.system.names().map(str::to_owned).collect(),
    };
    Ok(Reply::body(json::to_vec(&list)))
}

#[cfg(test)]
mod tests {
    use super::super::rig::Rig;
    use crate::broker::control::options::ControlOptions;
    use crate::remoting::frame::Codec;

    const T1: &str = "17 topic=t1 defaultTopic=TBW102 readQueueNums=4 writeQueueNums=4 perm=6 \
                      topicFilterType=SINGLE_TAG order=false";

    fn changed(from: &str, to: &str) -> String {
        assert!(T1.contains(from));
        T1.replace(from, to)
    }

    /// Requests in order with their answers.
    fn check(options: ControlOptions, script: &[(&str, &str)]) -> Rig {
        let mut rig = Rig::new(options);
        for (request, expected) in script {
            assert_eq!(rig.ask(1, request), *expected, "{request}");
        }
        rig
    }

    /// The reference answers the same, but for the remark of a success, the order of a set, the
    /// texts of exceptions, and queue numbers below 0, which it takes.
    #[test]
    fn create_and_change() {
        check(
            ControlOptions::default(),
            &[
                (T1, "0"),
                (T1, "0"),
                (
                    &changed("topic=t1", "topic="),
                    "29 The specified topic is blank.",
                ),
                (
                    &changed("topic=t1", "topic=a~b"),
                    "29 The specified topic: a b, contains illegal characters, allowing only \
                     ^[%|a-zA-Z0-9_-]+$",
                ),
                (
                    &changed("topic=t1", "topic=TBW102"),
                    "29 The topic[TBW102] is conflict with system topic.",
                ),
                (
                    &changed("topic=t1", "topic=rmq_sys_a"),
                    "29 The topic[rmq_sys_a] is conflict with system topic.",
                ),
                (
                    &changed("SINGLE_TAG", "X"),
                    "1 topicFilterType = [X] value invalid",
                ),
                (
                    &changed("readQueueNums=4", "readQueueNums=-1"),
                    "29 readQueueNums of topic t1 is -1",
                ),
                (
                    &changed("readQueueNums=4 ", ""),
                    "29 the header field readQueueNums is missing",
                ),
                (&format!("{T1} attributes=+message.type=FIFO"), "0"),
                (
                    "351 topic=t1",
                    r#"0 {"attributes":{"message.type":"FIFO"},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"t1","topicSysFlag":0,"writeQueueNums":4}"#,
                ),
                (T1, "0"),
                (
                    &format!("{T1} attributes=+message.type=MIXED"),
                    "29 MIXED message type is not supported.",
                ),
                (&format!("{T1} attributes=+x=1"), "1 unsupported key: x"),
                (
                    &format!("{T1} attributes=x=1"),
                    "1 add/alter attribute format is wrong: x",
                ),
                (&format!("{T1} attributes=-message.type"), "0"),
                (
                    &format!("{T1} attributes=+queue.type=SimpleCQ"),
                    "1 attempt to update an unchangeable attribute. key: queue.type",
                ),
                (
                    "351 topic=t1",
                    r#"0 {"attributes":{},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"t1","topicSysFlag":0,"writeQueueNums":4}"#,
                ),
                ("351 topic=nope", "17 No topic in this broker. topic: nope"),
            ],
        );
    }

    #[test]
    fn lists_are_applied_whole() {
        let rig = check(
            ControlOptions::default(),
            &[
                (
                    r#"18 {"topicConfigList":[{"topicName":"l1"},{"topicName":"l2","readQueueNums":2,"attributes":{"+message.type":"DELAY"}}]}"#,
                    "0",
                ),
                (
                    "351 topic=l2",
                    r#"0 {"attributes":{"message.type":"DELAY"},"order":false,"perm":6,"readQueueNums":2,"topicFilterType":"SINGLE_TAG","topicName":"l2","topicSysFlag":0,"writeQueueNums":16}"#,
                ),
                (
                    r#"18 {"topicConfigList":[{"topicName":"l3"},{"topicName":""}]}"#,
                    "29 The specified topic is blank.",
                ),
                (
                    r#"18 {"topicConfigList":[{"topicName":"l3"},{"topicName":"l3"}]}"#,
                    "29 The topic[l3] is named twice.",
                ),
                ("351 topic=l3", "17 No topic in this broker. topic: l3"),
                ("18", "1 the body is empty"),
            ],
        );
        assert!(rig.effects.records.is_empty(), "a refusal leaves no record");
    }

    #[test]
    fn a_change_is_recorded_once_and_every_answer_waits_for_it() {
        let mut rig = Rig::new(ControlOptions::default());
        let published = rig.control.snapshot().version;
        rig.ask(1, T1);
        assert_eq!(
            (rig.effects.records.len(), rig.control.version()),
            (1, published + 1)
        );
        assert_eq!(rig.effects.changed_topics[..], ["t1".into()]);
        rig.ask(2, T1);
        assert!(rig.effects.records.is_empty() && rig.effects.changed_topics.is_empty());
        assert_eq!(rig.control.version(), published + 1);
        let snapshot = rig.control.snapshot();
        assert_eq!(snapshot.version, published + 1);
        assert_eq!(snapshot.topics.get("t1").unwrap().owners.len(), 4);
        rig.effects = Default::default();
        rig.send(1, &changed("t1", "t2"), true);
        assert_eq!(
            (rig.effects.records.len(), rig.effects.answers.len()),
            (1, 0),
            "one-way"
        );
    }

    #[test]
    fn delete() {
        let mut rig = check(
            ControlOptions::default(),
            &[
                (T1, "0"),
                (
                    r#"18 {"topicConfigList":[{"topicName":"%RETRY%g_t1"}]}"#,
                    "0",
                ),
                ("215 topic=~", "29 The specified topic is blank."),
                (
                    "215 topic=BenchmarkTest",
                    "29 The topic[BenchmarkTest] is conflict with system topic.",
                ),
                ("215 topic=nope", "0"),
                ("215 topic=t1", "0"),
                ("351 topic=t1", "17 No topic in this broker. topic: t1"),
            ],
        );
        let ids = |rig: &mut Rig| {
            rig.control
                .snapshot()
                .topics
                .get("t1")
                .map(|topic| topic.id)
        };
        assert_eq!(ids(&mut rig), None);
        rig.ask(1, T1);
        let id = ids(&mut rig).unwrap();
        rig.ask(1, "215 topic=t1");
        assert_eq!(rig.effects.deleted_topics[0].id, id);
        rig.ask(1, T1);
        assert!(ids(&mut rig).unwrap() > id, "a new topic, a new id");
        rig.effects = Default::default();
        rig.delete_topic("t1", &["g", "other"]);
        let deleted: Vec<_> = rig
            .effects
            .deleted_topics
            .iter()
            .map(|topic| &*topic.name)
            .collect();
        assert_eq!(deleted, ["t1", "%RETRY%g_t1"]);
    }

    #[test]
    fn pages() {
        let mut rig = Rig::new(ControlOptions::default());
        rig.ask(1, T1);
        let stamp = r#"{"counter":16,"stateVersion":0,"timestamp":1700000000000}"#;
        let mut page = |request: &str| {
            let answer = rig.ask(1, request);
            let start = format!("0 totalTopicNum=16 {{\"dataVersion\":{stamp},");
            assert!(answer.starts_with(&start), "{answer}");
            answer.matches("\"topicName\"").count()
        };
        assert_eq!(page("21"), 16);
        assert_eq!(page("21 topicSeq=0 maxTopicNum=2"), 2);
        assert_eq!(page("21 topicSeq=-5 maxTopicNum=2"), 2);
        assert_eq!(page("21 topicSeq=0 maxTopicNum=0"), 0);
        assert_eq!(page("21 topicSeq=0 maxTopicNum=5000"), 16);
        assert_eq!(
            page(&format!("21 topicSeq=15 maxTopicNum=2 dataVersion={stamp}")),
            1
        );
        assert_eq!(
            page(&format!("21 topicSeq=90 maxTopicNum=2 dataVersion={stamp}")),
            0
        );
        let other = stamp.replace("16", "15");
        assert_eq!(
            page(&format!("21 topicSeq=15 maxTopicNum=2 dataVersion={other}")),
            2
        );
        assert_eq!(page("21 topicSeq=15 maxTopicNum=2 dataVersion=x"), 2);
        let first = rig.ask(1, "21 topicSeq=0 maxTopicNum=1");
        assert!(first.ends_with(r#""topicConfigTable":{"BenchmarkTest":{"attributes":{},"order":false,"perm":6,"readQueueNums":1024,"topicFilterType":"SINGLE_TAG","topicName":"BenchmarkTest","topicSysFlag":0,"writeQueueNums":1024}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}"#), "{first}");
    }

    #[test]
    fn limits() {
        let options = ControlOptions {
            topics_max: 17,
            queues_max: 1100,
            ..ControlOptions::default()
        };
        let mut rig = check(
            options,
            &[
                (T1, "0"),
                (
                    &changed("writeQueueNums=4", "writeQueueNums=100"),
                    "2 topic t1 would bring this broker to 1184 queues, the limit is 1100",
                ),
                (&changed("topic=t1", "topic=t2"), "0"),
                (
                    &changed("topic=t1", "topic=t3"),
                    "2 topic t3 would be number 18 of this broker, the limit is 17",
                ),
                (T1, "0"),
            ],
        );
        let long = format!("351 topic={}", "x".repeat(100_000));
        assert_eq!(rig.ask(1, &long).len(), 3 + 4096, "a remark is cut");
        let binary = Codec::Binary;
        rig.codec = binary;
        assert_eq!(
            rig.ask(1, "351 topic=n"),
            "17 No topic in this broker. topic: n"
        );
    }
}
