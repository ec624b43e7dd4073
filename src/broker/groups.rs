//! Subscription groups: what is configured for the consumers of one name, and which topics they
//! may not read.
//!
//! What is forbidden needs no group: it may be said before there is one. It goes with the group,
//! not with the topic, as in the reference. Unlike there, to allow one topic leaves the others as
//! they are.
//!
//! A group is the reference's configuration as it is, whether or not this broker acts on a member
//! of it. Source: `SubscriptionGroupConfig`; spec page semantics §1.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::broker::record::{GroupPut, Stamp};
use crate::broker::snapshot::Catalog;
use crate::remoting::body::group::GroupConfig;

/// Groups and the topics they may not read; no group has none.
pub type Forbidden = Catalog<BTreeSet<Arc<str>>>;

/// The working table of groups. `names` holds exactly the names in the catalog.
#[derive(Default)]
pub struct Groups {
    forbidden: Forbidden,
    /// Pairs in it.
    forbidden_count: usize,
    table: Catalog<GroupConfig>,
    names: BTreeSet<Arc<str>>,
    stamp: Stamp,
}

impl Groups {
    pub fn table(&self) -> &Catalog<GroupConfig> {
        &self.table
    }

    pub fn get(&self, name: &str) -> Option<&Arc<GroupConfig>> {
        self.table.get(name)
    }

    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// All groups in the order of their names.
    pub fn sorted(&self) -> impl Iterator<Item = &Arc<GroupConfig>> {
        self.names.iter().filter_map(|name| self.table.get(name))
    }

    /// A planned or replayed record takes effect.
    pub fn put(&mut self, put: GroupPut) {
        let known = self.table.name(&put.group.group_name);
        let name = known.map_or_else(|| Arc::from(put.group.group_name.as_str()), Arc::clone);
        self.stamp = put.stamp;
        self.names.insert(Arc::clone(&name));
        self.table.insert(name, Arc::new(put.group));
    }

    pub fn remove(&mut self, name: &str, stamp: Stamp) {
        self.stamp = stamp;
        if self.table.remove(name).is_some() {
            self.names.remove(name);
        }
        let topics = self.forbidden.remove(name);
        self.forbidden_count -= topics.map_or(0, |topics| topics.len());
    }

    pub fn forbidden(&self) -> &Forbidden {
        &self.forbidden
    }

    /// Pairs of group and topic that are forbidden.
    pub fn forbidden_count(&self) -> usize {
        self.forbidden_count
    }

    pub fn is_forbidden(&self, group: &str, topic: &str) -> bool {
        is_forbidden(&self.forbidden, group, topic)
    }

    /// A planned or replayed record takes effect.
    pub fn forbid(&mut self, group: &str, topic: &str, forbidden: bool, stamp: Stamp) {
        self.stamp = stamp;
        if self.is_forbidden(group, topic) == forbidden {
            return;
        }
        let known = self.forbidden.get(group);
        let mut topics = known.map_or_else(BTreeSet::new, |topics| BTreeSet::clone(topics));
        if forbidden {
            topics.insert(Arc::from(topic));
            self.forbidden_count += 1;
        } else {
            topics.remove(topic);
            self.forbidden_count -= 1;
        }
        match topics.is_empty() {
            true => self.forbidden.remove(group),
            false => self.forbidden.insert(Arc::from(group), Arc::new(topics)),
        };
    }

    /// Restores what the table alone does not tell.
    pub fn restore(&mut self, stamp: Stamp) {
        self.stamp = stamp;
    }
}

pub fn is_forbidden(table: &Forbidden, group: &str, topic: &str) -> bool {
    !table.is_empty()
        && table
            .get(group)
            .is_some_and(|topics| topics.contains(topic))
}
