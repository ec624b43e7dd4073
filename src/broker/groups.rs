//! Subscription groups: what is configured for the consumers of one name.
//!
//! A group is the reference's configuration as it is, whether or not this broker acts on a member
//! of it. Source: `SubscriptionGroupConfig`; spec page semantics §1.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::broker::record::{GroupPut, Stamp};
use crate::broker::snapshot::Catalog;
use crate::remoting::body::group::GroupConfig;

/// The working table of groups. `names` holds exactly the names in the catalog.
#[derive(Default)]
pub struct Groups {
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
    }

    /// Restores what the table alone does not tell.
    pub fn restore(&mut self, stamp: Stamp) {
        self.stamp = stamp;
    }
}
