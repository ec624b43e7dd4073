//! What every shard knows of control state: an immutable [`Snapshot`], replaced whole.
//!
//! A [`Catalog`] is a table of names that can be copied at the price of one reference count. The
//! working tables of shard 0 are catalogs as well: a change copies one bucket (about 400 of 200,000
//! entries) if a snapshot still shares it, and nothing else. So a burst of changes between two
//! snapshots costs each bucket one copy.

use std::hash::BuildHasher;
use std::sync::Arc;

use crate::base::{ConnId, Map, Mono};
use crate::broker::groups::Forbidden;
use crate::broker::members::{GroupSubscriptions, Refusals};
use crate::broker::record::Stamp;
use crate::broker::topics::Topic;
use crate::remoting::body::group::GroupConfig;

const BUCKETS: usize = 512;
/// The bucket comes from other bits of the hash than the maps inside use for their slots.
const BUCKET_SHIFT: u32 = 32;

/// Control state as of one version. Versions count changes: one snapshot may hold several.
#[derive(Clone)]
pub struct Snapshot {
    pub version: u64,
    pub topics: Catalog<Topic>,
    /// RocketMQ's `DataVersion` of the topics, for registration with name servers.
    pub topics_stamp: Stamp,
    pub groups: Catalog<GroupConfig>,
    pub forbidden: Forbidden,
    /// Groups that have members now.
    pub subscriptions: Catalog<GroupSubscriptions>,
    /// Clients that may not consume, for they do not subscribe as the members of their group do.
    pub refusals: Arc<Refusals>,
    /// Groups whose members hold order locks, with the time until which at least one lock lives
    /// if nobody renews or releases. Up to 30 s behind renewals, never behind a release of all.
    pub order_locks: Catalog<Mono>,
}

impl Snapshot {
    /// Before anything was replayed.
    pub fn empty() -> Self {
        Snapshot {
            version: 0,
            topics: Catalog::default(),
            topics_stamp: Stamp::default(),
            groups: Catalog::default(),
            forbidden: Catalog::default(),
            subscriptions: Catalog::default(),
            refusals: Arc::default(),
            order_locks: Catalog::default(),
        }
    }

    /// Why this client may not consume as a member of the group, if that is so.
    #[inline]
    pub fn refusal(&self, group: &str, conn: ConnId) -> Option<&str> {
        if self.refusals.is_empty() {
            return None;
        }
        let refused = self.refusals.get(&conn)?.get(group)?;
        Some(&refused.remark)
    }

    /// Whether a member of `group` holds an order lock: failed messages of such a group go to its
    /// dead letters at once (`RebalanceLockManager.isLockAllExpired`).
    pub fn order_locked(&self, group: &str, now: Mono) -> bool {
        self.order_locks
            .get(group)
            .is_some_and(|until| now <= **until)
    }
}

/// A table of names whose copies share what they have in common.
pub struct Catalog<V> {
    buckets: Arc<Vec<Bucket<V>>>,
    len: usize,
}

type Bucket<V> = Arc<Map<Arc<str>, Arc<V>>>;

impl<V> Clone for Catalog<V> {
    fn clone(&self) -> Self {
        Catalog {
            buckets: Arc::clone(&self.buckets),
            len: self.len,
        }
    }
}

impl<V> Default for Catalog<V> {
    fn default() -> Self {
        let empty = Bucket::default();
        Catalog {
            buckets: Arc::new(vec![empty; BUCKETS]),
            len: 0,
        }
    }
}

impl<V> Catalog<V> {
    pub fn get(&self, name: &str) -> Option<&Arc<V>> {
        self.buckets[bucket(name)].get(name)
    }

    /// The name as the table holds it.
    pub fn name(&self, name: &str) -> Option<&Arc<str>> {
        let (key, _) = self.buckets[bucket(name)].get_key_value(name)?;
        Some(key)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether nothing was changed between this copy and the other.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.buckets, &other.buckets)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries; the order means nothing but is the same for the same history.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<V>)> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }

    /// Gives what was there before.
    pub fn insert(&mut self, name: Arc<str>, value: Arc<V>) -> Option<Arc<V>> {
        let before = self.bucket_mut(&name).insert(name, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub fn remove(&mut self, name: &str) -> Option<Arc<V>> {
        if !self.contains(name) {
            return None;
        }
        self.len -= 1;
        self.bucket_mut(name).remove(name)
    }

    fn bucket_mut(&mut self, name: &str) -> &mut Map<Arc<str>, Arc<V>> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.buckets)[bucket(name)])
    }
}

fn bucket(name: &str) -> usize {
    let hash = foldhash::fast::FixedState::default().hash_one(name);
    (hash >> BUCKET_SHIFT) as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut catalog = Catalog::default();
        let names: Vec<Arc<str>> = (0..1000).map(|n| Arc::from(format!("t{n}"))).collect();
        for (value, name) in names.iter().enumerate() {
            assert!(catalog.insert(Arc::clone(name), Arc::new(value)).is_none());
        }
        let copy = catalog.clone();
        assert!(catalog.is_same(&copy));
        assert_eq!(catalog.remove("t7").as_deref(), Some(&7));
        assert!(!catalog.is_same(&copy));
        assert_eq!(catalog.remove("t7"), None);
        assert_eq!(
            catalog
                .insert(Arc::clone(&names[8]), Arc::new(0))
                .as_deref(),
            Some(&8)
        );
        assert_eq!((catalog.len(), copy.len()), (999, 1000));
        assert_eq!(
            (catalog.get("t7"), copy.get("t7").map(|value| **value)),
            (None, Some(7))
        );
        assert_eq!(copy.get("t8").map(|value| **value), Some(8));
        assert_eq!(copy.iter().count(), 1000);
        let shared = catalog.buckets.iter().zip(copy.buckets.iter());
        let copied = shared
            .filter(|(one, other)| !Arc::ptr_eq(one, other))
            .count();
        assert!(copied <= 2, "a change copies its bucket only");
    }
}
