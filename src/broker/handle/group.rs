//! Subscription groups: create or change (200, 225), delete (207), list (201), show (352).
//!
//! Source: `AdminBrokerProcessor`, `SubscriptionGroupManager`; spec pages semantics §1, mqadmin §1.

use std::collections::BTreeSet;

use crate::broker::control::effects::{Effects, Reject};
use crate::broker::control::{Call, Control, Reply, attributes, names};
use crate::broker::handle::{Page, parse};
use crate::broker::record::Record;
use crate::remoting::body::group::{GroupConfig, GroupConfigList, GroupTable};
use crate::remoting::body::json;
use crate::remoting::code::response;
use crate::remoting::header::group::{DeleteGroup, GroupName, GroupPage};

/// Subscriptions and delays that a group's configuration may hold; the reference has no limit.
const LIST_MAX: usize = 1024;
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
    let group = control.groups.table().get_key(&header.group_name).cloned();
    let may_have_offsets = header.clean_offset && names::check_group(&header.group_name).is_ok();
    if group.is_none() && !may_have_offsets {
        return Ok(Reply::empty());
    }
    let name = group.unwrap_or_else(|| header.group_name.as_ref().into());
    effects
        .deleted_groups
        .push((name.clone(), header.clean_offset));
    let record = Record::GroupDelete {
        stamp: control.groups.stamp().next(call.now.wall_ms),
        name,
        clean_offsets: header.clean_offset,
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
    let groups = control.groups.sorted().skip(first).take(count);
    let table = GroupTable {
        data_version: control.groups.stamp().into(),
        forbidden_table: Default::default(),
        subscription_group_table: groups
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
