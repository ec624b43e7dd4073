//! Subscription groups: create or change (200, 225), delete (207), list (201), show (352), forbid
//! to read a topic (353).
//!
//! Source: `AdminBrokerProcessor`, `SubscriptionGroupManager`; spec pages semantics §1,
//! mqadmin §1.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::broker::control::effects::{Effects, Reject};
use crate::broker::control::{Call, Control, Reply, attributes, names};
use crate::broker::handle::{Page, parse};
use crate::broker::lite::rules::bound_to;
use crate::broker::record::Record;
use crate::remoting::body::group::{Forbidden, GroupConfig, GroupConfigList, GroupTable};
use crate::remoting::body::json;
use crate::remoting::code::response;
use crate::remoting::header::group::{DeleteGroup, GroupForbidden, GroupName, GroupPage};

/// Subscriptions and delays that a group's configuration may hold; the reference has no limit.
const LIST_MAX: usize = 1024;
/// Pairs of group and topic that may be forbidden.
const FORBIDDEN_MAX: usize = 100_000;
/// The bit that says so (`PermName.INDEX_PERM_READ`).
const READ_FORBIDDEN: i32 = 1 << 2;
/// Bytes of a text in a group's configuration.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP 200. Without a body it does nothing, as the reference.
pub fn update(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    if call.command.body.is_empty() {
        return Ok(Reply::empty());
    }
    update_all(control, call, vec![parse(call.command)?], effects)
}

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST 225.
pub fn update_list(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let list: GroupConfigList = parse(call.command)?;
    update_all(control, call, list.group_config_list, effects)
}

/// All of them or none.
fn update_all(
    control: &mut Control,
    call: &Call<'_>,
    wanted: Vec<GroupConfig>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let mut new = BTreeSet::new();
    let mut configs = Vec::with_capacity(wanted.len());
    for group in wanted {
        let refused = |remark| Reject::new(response::INVALID_PARAMETER, remark);
        names::check_group(&group.group_name).map_err(refused)?;
        let current = control.groups.get(&group.group_name);
        let current = current.map(|group| &group.attributes);
        if current.is_none() {
            new.insert(group.group_name.clone());
        }
        let attributes = attributes::alter(&attributes::OF_GROUPS, current, &group.attributes);
        let attributes =
            attributes.map_err(|remark| Reject::new(response::SYSTEM_ERROR, remark))?;
        check_sizes(&group)?;
        configs.push(GroupConfig {
            attributes,
            ..group
        });
    }
    control.check_group_limit(new.len())?;
    for config in configs {
        control.put_group(call.now, config, effects);
    }
    Ok(Reply::empty())
}

/// DELETE_SUBSCRIPTIONGROUP 207. A group that is not there is fine; its offsets may still go.
pub fn delete(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let header = DeleteGroup::decode(&call.command.ext)?;
    let group = control.groups.table().name(&header.group_name).cloned();
    // Lite topics are too many to keep offsets for a group of the same name.
    let known = control.groups.get(&header.group_name);
    let is_lite = known.is_some_and(|group| bound_to(group).is_some());
    let clean_offsets = header.clean_offset || is_lite;
    let may_have_offsets = clean_offsets && names::check_group(&header.group_name).is_ok();
    let is_named = control.groups.forbidden().contains(&header.group_name);
    if group.is_none() && !may_have_offsets && !is_named {
        return Ok(Reply::empty());
    }
    let name = group.unwrap_or_else(|| header.group_name.as_ref().into());
    effects.deleted_groups.push((name.clone(), clean_offsets));
    let record = Record::GroupDelete {
        stamp: control.groups.stamp().next(call.now.wall_ms),
        name,
        clean_offsets,
    };
    control.commit(record, effects);
    Ok(Reply::empty())
}

/// GET_ALL_SUBSCRIPTIONGROUP_CONFIG 201: everything, or a page in the order of names.
pub fn all(control: &Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let header = GroupPage::decode(&call.command.ext)?;
    let page = Page {
        first: header.group_seq,
        stamp: header.data_version.as_deref(),
        count: header.max_group_num,
    };
    let (first, count) = page.range(control.groups.stamp(), control.options.page_max);
    let whole = count >= control.groups.table().len();
    let groups: Vec<_> = control.groups.sorted().skip(first).take(count).collect();
    let forbidden = control.groups.forbidden();
    // Groups that are not made yet may have an entry too.
    let is_listed = |name: &str| {
        let found = groups.binary_search_by(|group| group.group_name.as_str().cmp(name));
        whole || found.is_ok()
    };
    let topics_of = |topics: &BTreeSet<Arc<str>>| {
        let topics = topics.iter();
        topics
            .map(|topic| (topic.to_string(), READ_FORBIDDEN))
            .collect()
    };
    let forbidden = forbidden.iter().filter(|(name, _)| is_listed(name));
    let table = GroupTable {
        data_version: control.groups.stamp().into(),
        forbidden_table: forbidden
            .map(|(name, topics)| (name.to_string(), topics_of(topics)))
            .collect(),
        subscription_group_table: groups
            .iter()
            .map(|group| (group.group_name.clone(), GroupConfig::clone(group)))
            .collect(),
    };
    Ok(Reply {
        fields: vec![("totalGroupNum", control.groups.table().len().to_string())],
        body: json::to_vec(&table),
    })
}

/// GET_SUBSCRIPTIONGROUP_CONFIG 352. Creates a group that may be created, as the reference.
pub fn one(control: &mut Control, call: &Call<'_>, effects: &mut Effects) -> Result<Reply, Reject> {
    let header = GroupName::decode(&call.command.ext)?;
    control.ensure_group(call.now, &header.group, effects)?;
    let group = control.groups.get(&header.group).ok_or_else(|| {
        let code = response::SUBSCRIPTION_GROUP_NOT_EXIST;
        Reject::new(code, "No group in this broker")
    })?;
    Ok(Reply::body(json::to_vec(&**group)))
}

/// UPDATE_AND_GET_GROUP_FORBIDDEN 353: forbids or allows, if the request says which, and tells how
/// it is then.
pub fn forbid(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let header = GroupForbidden::decode(&call.command.ext)?;
    let (group, topic) = (header.group.into_owned(), header.topic.into_owned());
    let known = control.groups.is_forbidden(&group, &topic);
    let wanted = header.readable.map_or(known, |readable| !readable);
    if wanted != known {
        let invalid = |remark| Reject::new(response::INVALID_PARAMETER, remark);
        names::check_group(&group).map_err(invalid)?;
        if control.topics.get(&topic).is_none() {
            names::check_topic(&topic).map_err(invalid)?;
        }
        if wanted && control.groups.forbidden_count() >= FORBIDDEN_MAX {
            let remark = format!(
                "{FORBIDDEN_MAX} pairs of group and topic are forbidden, which is the limit: allow \
                 some, or delete groups"
            );
            return Err(Reject::new(response::SYSTEM_ERROR, remark));
        }
        let record = Record::Forbidden {
            stamp: control.groups.stamp().next(call.now.wall_ms),
            group: group.clone(),
            topic: topic.clone(),
            forbidden: wanted,
        };
        control.commit(record, effects);
    }
    Ok(Reply::body(json::to_vec(&Forbidden {
        group,
        readable: !wanted,
        topic,
    })))
}

/// Lists and texts that a record can hold.
fn check_sizes(group: &GroupConfig) -> Result<(), Reject> {
    let delays = group.group_retry_policy.customized_retry_policy.as_ref();
    let subscriptions = group.subscription_data_set.as_deref().unwrap_or_default();
    let texts = subscriptions.iter().flat_map(|subscription| {
        [
            &subscription.topic,
            &subscription.expression_type,
            &subscription.expression,
        ]
    });
    let checks = [
        (
            "retry delays",
            delays.map_or(0, |delays| delays.next.len()),
            LIST_MAX,
        ),
        ("subscriptions", subscriptions.len(), LIST_MAX),
        (
            "bytes in a subscription's text",
            texts.map(String::len).max().unwrap_or(0),
            TEXT_BYTES_MAX,
        ),
    ];
    for (what, count, most) in checks {
        if count > most {
            let remark = format!(
                "group {} has {count} {what}, the limit is {most}",
                group.group_name
            );
            return Err(Reject::new(response::INVALID_PARAMETER, remark));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rig::Rig;
    use crate::broker::control::Control;
    use crate::broker::control::options::ControlOptions;

    fn check(options: ControlOptions, script: &[(&str, &str)]) -> Rig {
        let mut rig = Rig::new(options);
        for (request, expected) in script {
            assert_eq!(rig.ask(1, request), *expected, "{request}");
        }
        rig
    }

    fn shown(name: &str, attributes: &str) -> String {
        format!(
            r#"0 {{"attributes":{attributes},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"{name}","groupRetryPolicy":{{"type":"CUSTOMIZED"}},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}}"#
        )
    }

    /// The reference answers the same, but for the texts of exceptions.
    #[test]
    fn create_change_and_delete() {
        check(
            ControlOptions::default(),
            &[
                (r#"200 {"groupName":"g1","retryQueueNums":2}"#, "0"),
                (
                    r#"200 {"groupName":"g 1"}"#,
                    "29 The specified group: g 1, contains illegal characters, allowing only \
                     ^[%|a-zA-Z0-9_-]+$",
                ),
                ("200", "0"),
                ("200 {", "1 the body is no JSON at byte 1"),
                (
                    r#"200 {"groupName":"g1","attributes":{"+priority.factor":"50"}}"#,
                    "0",
                ),
                (
                    r#"200 {"groupName":"g1","attributes":{"+priority.factor":"500"}}"#,
                    "1 value is not in range(0, 100)",
                ),
                ("352 group=g1", &shown("g1", r#"{"priority.factor":"50"}"#)),
                ("352 group=gauto", &shown("gauto", "{}")),
                ("352 group=g~auto", "26 No group in this broker"),
                (
                    r#"225 {"groupConfigList":[{"groupName":"g2"},{"groupName":"g3","consumeEnable":false}]}"#,
                    "0",
                ),
                ("207 groupName=g3", "0"),
                ("207 groupName=nope", "0"),
            ],
        );
    }

    #[test]
    fn a_lite_group_goes_with_its_offsets() {
        let mut rig = check(
            ControlOptions::default(),
            &[(
                r#"200 {"groupName":"g","attributes":{"+lite.bind.topic":"p"}}"#,
                "0",
            )],
        );
        rig.ask(1, "207 groupName=g");
        assert_eq!(rig.effects.deleted_groups[..], [("g".into(), true)]);
    }

    #[test]
    fn deletion_tells_of_offsets() {
        let mut rig = check(
            ControlOptions::default(),
            &[(r#"200 {"groupName":"g"}"#, "0")],
        );
        rig.ask(1, "207 groupName=g");
        assert_eq!(rig.effects.deleted_groups[..], [("g".into(), false)]);
        rig.ask(1, "207 groupName=g cleanOffset=true");
        assert_eq!(rig.effects.deleted_groups[..], [("g".into(), true)]);
        assert_eq!(rig.effects.records.len(), 1);
        rig.ask(1, "207 groupName=g");
        assert!(rig.effects.deleted_groups.is_empty() && rig.effects.records.is_empty());
        let long = format!("207 groupName={} cleanOffset=true", "x".repeat(70_000));
        assert_eq!(rig.ask(1, &long), "0", "no such group can have offsets");
        assert!(rig.effects.records.is_empty());
    }

    /// Unlike the reference, where to allow one topic allows all.
    #[test]
    fn groups_may_be_forbidden_to_read_topics() {
        let mut rig = check(
            ControlOptions::default(),
            &[
                (
                    "353 group=g topic=t",
                    r#"0 {"group":"g","readable":true,"topic":"t"}"#,
                ),
                (
                    "353 group=g topic=t readable=false",
                    r#"0 {"group":"g","readable":false,"topic":"t"}"#,
                ),
                (
                    "353 group=g topic=u readable=false",
                    r#"0 {"group":"g","readable":false,"topic":"u"}"#,
                ),
                (
                    "353 group=g topic=u readable=true",
                    r#"0 {"group":"g","readable":true,"topic":"u"}"#,
                ),
                (
                    "353 group=g topic=t",
                    r#"0 {"group":"g","readable":false,"topic":"t"}"#,
                ),
                (
                    "353 group=g~h topic=t readable=false",
                    "29 The specified group: g h, contains illegal characters, allowing only \
                     ^[%|a-zA-Z0-9_-]+$",
                ),
            ],
        );
        let all = rig.ask(1, "201");
        assert!(all.contains(r#""forbiddenTable":{"g":{"t":4}}"#), "{all}");
        let page = rig.ask(1, "201 groupSeq=0 maxGroupNum=1");
        assert!(page.contains(r#""forbiddenTable":{}"#), "{page}");
        let mut replayed = Control::new(ControlOptions::default());
        rig.control
            .dump(&mut |payload| replayed.apply(payload).unwrap());
        assert!(replayed.groups.is_forbidden("g", "t"));
        assert_eq!(replayed.groups.forbidden_count(), 1);
        assert!(rig.control.snapshot().forbidden.contains("g"));
        assert_eq!(rig.ask(1, "207 groupName=g"), "0");
        assert!(rig.control.snapshot().forbidden.is_empty());
    }

    #[test]
    fn forbidden_pairs_are_limited() {
        let mut rig = Rig::new(ControlOptions::default());
        let stamp = rig.control.groups.stamp();
        for topic in 0..super::FORBIDDEN_MAX {
            let topic = topic.to_string();
            rig.control.groups.forbid(&topic, "t", true, stamp);
        }
        assert_eq!(
            rig.ask(1, "353 group=g topic=t readable=false"),
            "1 100000 pairs of group and topic are forbidden, which is the limit: allow some, or \
             delete groups"
        );
        rig.ask(1, "353 group=5 topic=t readable=true");
        let answer = rig.ask(1, "353 group=g topic=t readable=false");
        assert!(answer.starts_with("0 "), "{answer}");
    }

    #[test]
    fn pages() {
        let mut rig = Rig::new(ControlOptions::default());
        let first = rig.ask(1, "201 groupSeq=0 maxGroupNum=1");
        assert!(first.starts_with(r#"0 totalGroupNum=8 {"dataVersion":{"counter":8,"stateVersion":0,"timestamp":1700000000000},"forbiddenTable":{},"subscriptionGroupTable":{"CID_ONS-HTTP-PROXY":{"#), "{first}");
        assert_eq!(rig.ask(1, "201").matches("groupName").count(), 8);
    }

    #[test]
    fn creation_may_be_switched_off() {
        let closed = ControlOptions {
            auto_create_group: false,
            ..ControlOptions::default()
        };
        check(
            closed,
            &[
                ("352 group=g", "26 No group in this broker"),
                ("352 group=CID_RMQ_SYS_x", &shown("CID_RMQ_SYS_x", "{}")),
            ],
        );
    }

    #[test]
    fn limits() {
        let options = ControlOptions {
            groups_max: 9,
            ..ControlOptions::default()
        };
        let long = format!(
            r#"200 {{"groupName":"g1","subscriptionDataSet":[{{"topic":"t","expression":"{}"}}]}}"#,
            "x".repeat(16_385)
        );
        let delays = format!(
            r#"200 {{"groupName":"g1","groupRetryPolicy":{{"customizedRetryPolicy":{{"next":[1{}]}}}}}}"#,
            ",1".repeat(1024)
        );
        check(
            options,
            &[
                (
                    r#"225 {"groupConfigList":[{"groupName":"g1"},{"groupName":"g2"}]}"#,
                    "2 this broker would have 10 groups, the limit is 9",
                ),
                (r#"200 {"groupName":"g1"}"#, "0"),
                (r#"200 {"groupName":"g1","retryMaxTimes":3}"#, "0"),
                (
                    "352 group=g2",
                    "2 this broker would have 10 groups, the limit is 9",
                ),
                (
                    &long,
                    "29 group g1 has 16385 bytes in a subscription's text, the limit is 16384",
                ),
                (
                    &delays,
                    "29 group g1 has 1025 retry delays, the limit is 1024",
                ),
            ],
        );
    }
}
