//! Subscription groups: what is configured for the consumers of one name.
//!
//! Source: `SubscriptionGroupConfig`, `GroupRetryPolicy`; spec page semantics §1.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::broker::control::attributes::Attributes;
use crate::broker::record::{GroupPut, Stamp};
use crate::broker::snapshot::Catalog;

/// What can be configured of a group. The default is the reference's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupConfig {
    pub consume_enable: bool,
    pub consume_from_min_enable: bool,
    pub consume_broadcast_enable: bool,
    pub consume_message_orderly: bool,
    pub notify_consumer_ids_changed_enable: bool,
    pub retry_queue_nums: i32,
    pub retry_max_times: i32,
    pub retry_policy: Option<RetryPolicy>,
    pub broker_id: i64,
    pub which_broker_when_consume_slowly: i64,
    pub group_sys_flag: i32,
    pub consume_timeout_minute: i32,
    pub subscriptions: Option<Vec<SimpleSubscription>>,
    pub attributes: Attributes,
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            notify_consumer_ids_changed_enable: true,
            retry_queue_nums: 1,
            retry_max_times: 16,
            retry_policy: Some(RetryPolicy::default()),
            broker_id: 0,
            which_broker_when_consume_slowly: 1,
            group_sys_flag: 0,
            consume_timeout_minute: 15,
            subscriptions: None,
            attributes: Attributes::new(),
        }
    }
}

/// When a pop consumer gets a message again (`GroupRetryPolicy`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RetryPolicy {
    pub kind: RetryKind,
    /// Both parts are kept whatever the kind.
    pub exponential: Option<Exponential>,
    /// Milliseconds before each attempt.
    pub customized: Option<Vec<i64>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RetryKind {
    #[default]
    Customized,
    Exponential,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exponential {
    pub initial_ms: i64,
    pub max_ms: i64,
    pub multiplier: i64,
}

/// A subscription stored with the group (`SimpleSubscriptionData`); only shown, never applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimpleSubscription {
    pub topic: String,
    pub expression_type: String,
    pub expression: String,
    pub version: i64,
}

/// A group as every shard sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    pub name: Arc<str>,
    pub config: GroupConfig,
}

/// The working table of groups. `names` holds exactly the names in the catalog.
#[derive(Default)]
pub struct Groups {
    table: Catalog<Group>,
    names: BTreeSet<Arc<str>>,
    stamp: Stamp,
}

impl Groups {
    pub fn table(&self) -> &Catalog<Group> {
        &self.table
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Group>> {
        self.table.get(name)
    }

    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// All groups in the order of their names.
    pub fn sorted(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.names.iter().filter_map(|name| self.table.get(name))
    }

    /// A planned or replayed record takes effect.
    pub fn put(&mut self, put: GroupPut) {
        let name = Arc::clone(&put.group.name);
        self.stamp = put.stamp;
        self.names.insert(Arc::clone(&name));
        self.table.insert(name, Arc::new(put.group));
    }

    pub fn remove(&mut self, name: &str, stamp: Stamp) {
        self.stamp = stamp;
        if self.table.remove(name).is_some() {
            self.names.remove(name);
        }
    }

    /// Restores what the table alone does not tell.
    pub fn restore(&mut self, stamp: Stamp) {
        self.stamp = stamp;
    }
}
