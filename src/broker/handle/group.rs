//! Subscription groups: create or change (200, 225), delete (207), list (201), show (352).
//!
//! Source: `AdminBrokerProcessor`, `SubscriptionGroupManager`; spec pages semantics §1, mqadmin §1.

use std::collections::BTreeSet;

use crate::broker::control::effects::{Effects, Reject};
use crate::broker::control::{Call, Control, Reply, attributes, names};
use crate::broker::groups::{
    Exponential, Group, GroupConfig, RetryKind, RetryPolicy, SimpleSubscription,
};
use crate::broker::handle::{Page, bytes_of, parse};
use crate::broker::record::Record;
use crate::remoting::body;
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
    let list: body::SubscriptionGroupList = parse(call.command)?;
    update_all(control, call, list.group_config_list, effects)
}

/// All of them or none.
fn update_all(
    control: &mut Control,
    call: &Call<'_>,
    wanted: Vec<body::SubscriptionGroupConfig>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let mut new = BTreeSet::new();
    let mut configs = Vec::with_capacity(wanted.len());
    for group in wanted {
        let refused = |remark| Reject::new(response::INVALID_PARAMETER, remark);
        names::check_group(&group.group_name).map_err(refused)?;
        let current = control.groups.get(&group.group_name);
        let current = current.map(|group| &group.config.attributes);
        if current.is_none() {
            new.insert(group.group_name.clone());
        }
        let attributes = attributes::alter(&attributes::OF_GROUPS, current, &group.attributes);
        let attributes = attributes.map_err(|remark| Reject::new(response::SYSTEM_ERROR, remark))?;
        let config = GroupConfig {
            attributes,
            ..config_of(&group)
        };
        check_sizes(&group.group_name, &config)?;
        configs.push((group.group_name, config));
    }
    control.check_group_limit(new.len())?;
    for (name, config) in configs {
        control.put_group(call.now, &name, config, effects);
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
    let group = control.groups.get(&header.group_name).cloned();
    let may_have_offsets = header.clean_offset && names::check_group(&header.group_name).is_ok();
    if group.is_none() && !may_have_offsets {
        return Ok(Reply::empty());
    }
    let name = group.map_or_else(|| header.group_name.as_ref().into(), |group| group.name.clone());
    effects.deleted_groups.push((name.clone(), header.clean_offset));
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
    let table = body::SubscriptionGroupTable {
        data_version: control.groups.stamp().into(),
        forbidden_table: Default::default(),
        subscription_group_table: groups
            .map(|group| (group.name.to_string(), shown(group)))
            .collect(),
    };
    Ok(Reply {
        fields: vec![("totalGroupNum", control.groups.table().len().to_string())],
        body: bytes_of(&table),
    })
}

/// GET_SUBSCRIPTIONGROUP_CONFIG 352. Creates a group that may be created, as the reference.
pub fn one(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let header = GroupName::decode(&call.command.ext)?;
    control.ensure_group(call.now, &header.group, effects)?;
    let group = control.groups.get(&header.group).ok_or_else(|| {
        let code = response::SUBSCRIPTION_GROUP_NOT_EXIST;
        Reject::new(code, "No group in this broker")
    })?;
    Ok(Reply::body(bytes_of(&shown(group))))
}
