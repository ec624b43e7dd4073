//! Order locks: which member of a group consumes a queue alone, so that order is kept.
//!
//! A lock lives 60 s after its last renewal and is lost by nothing else: not when its holder
//! disconnects, for it may come back. After that anybody may take it. Expired entries are dropped
//! by [`Locks::sweep`], which nobody can tell from the reference keeping them.
//!
//! Who holds a lock is durable, when it was renewed is not: after a start each is as if renewed
//! just then. In the reference a restart forgets all locks, and a member that is back first
//! may take a queue that another is still consuming.
//!
//! Not here: locks over several replicas (`lockInStrictMode`), and any check that the queues exist.
//!
//! Source: `RebalanceLockManager`; spec page semantics §5.

use std::sync::Arc;

use crate::base::{Map, Mono, Set};
use crate::broker::snapshot::Catalog;
use crate::remoting::body::queue::MessageQueue;

/// Life of a lock after its last renewal.
pub const LOCK_LIFE_MS: u64 = 60_000;
/// How far the shared times may lie behind renewals, so that not each renewal is shared.
const SHARED_LAG_MS: u64 = 30_000;

/// All order locks of a broker.
pub struct Locks {
    groups: Map<Arc<str>, Map<MessageQueue, Lock>>,
    held: usize,
    held_max: usize,
    /// What shards see: see [`crate::broker::snapshot::Snapshot::order_locks`].
    shared: Catalog<Mono>,
    /// Set when `shared` changed since [`Locks::take_changed`].
    changed: bool,
}

struct Lock {
    client: Arc<str>,
    renewed: Mono,
}

/// What a client holds of what it asked for, and what of it was another's before, or nobody's.
#[derive(Default)]
pub struct Locked {
    pub queues: Vec<MessageQueue>,
    pub new: Vec<MessageQueue>,
}

impl Lock {
    fn is_live(&self, now: Mono) -> bool {
        now.since_ms(self.renewed) <= LOCK_LIFE_MS
    }
}

impl Locks {
    pub fn new(held_max: usize) -> Self {
        Locks {
            groups: Map::default(),
            held: 0,
            held_max,
            shared: Catalog::default(),
            changed: false,
        }
    }

    pub fn shared(&self) -> &Catalog<Mono> {
        &self.shared
    }

    /// Whether the shared times changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// A record takes effect. When the lock was renewed is known with [`start`](Self::start).
    pub fn put(&mut self, group: &str, queue: &MessageQueue, client: Option<&str>) {
        let held = self.groups.entry(Arc::from(group)).or_default();
        let before = held.len();
        match client {
            Some(client) if held.get(queue).is_some_and(|lock| *lock.client == *client) => {}
            Some(client) => {
                let (client, renewed) = (Arc::from(client), Mono(0));
                held.insert(queue.clone(), Lock { client, renewed });
            }
            None => drop(held.remove(queue)),
        }
        self.held = self.held + held.len() - before;
        if held.is_empty() {
            self.groups.remove(group);
        }
    }

    /// The broker starts: every holder has a whole life to come back in.
    pub fn start(&mut self, now: Mono) {
        let names: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for name in names {
            for lock in self
                .groups
                .get_mut(&name)
                .into_iter()
                .flat_map(Map::values_mut)
            {
                lock.renewed = now;
            }
            self.share(&name);
        }
    }

    /// Group, queue and holder of each.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &MessageQueue, &Arc<str>)> {
        let groups = self.groups.iter();
        groups.flat_map(|(name, held)| held.iter().map(move |(q, lock)| (name, q, &lock.client)))
    }

    /// Locks or renews for `client`; gives the queues that `client` holds now, in the order asked,
    /// each once. `Err` is the limit that a new lock would pass; then nothing changed.
    pub fn lock(
        &mut self,
        now: Mono,
        group: &str,
        client: &str,
        queues: &[MessageQueue],
    ) -> Result<Locked, usize> {
        let known = self.groups.get(group);
        let unknown = |queue: &&MessageQueue| known.is_none_or(|held| !held.contains_key(*queue));
        if self.held + queues.iter().filter(unknown).count() > self.held_max {
            return Err(self.held_max);
        }
        let client: Arc<str> = Arc::from(client);
        let held = self.groups.entry(Arc::from(group)).or_default();
        let before = held.len();
        let (mut locked, mut told) = (Locked::default(), Set::default());
        for queue in queues {
            let fresh = || Lock {
                client: Arc::clone(&client),
                renewed: now,
            };
            let known = held.get(queue);
            if known.is_some_and(|lock| lock.is_live(now) && lock.client != client) {
                continue;
            }
            if known.is_none_or(|lock| lock.client != client) {
                locked.new.push(queue.clone());
            }
            held.insert(queue.clone(), fresh());
            if told.insert(queue) {
                locked.queues.push(queue.clone());
            }
        }
        self.held += held.len() - before;
        self.share(group);
        Ok(locked)
    }

    /// Releases those of `queues` that `client` holds, dead or alive; gives them.
    pub fn unlock(
        &mut self,
        group: &str,
        client: &str,
        queues: &[MessageQueue],
    ) -> Vec<MessageQueue> {
        let mut released = Vec::new();
        let Some(held) = self.groups.get_mut(group) else {
            return released;
        };
        for queue in queues {
            if held.get(queue).is_some_and(|lock| *lock.client == *client) {
                held.remove(queue);
                self.held -= 1;
                released.push(queue.clone());
            }
        }
        self.share(group);
        released
    }

    /// Drops locks that died.
    pub fn sweep(&mut self, now: Mono) {
        let names: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for name in names {
            if let Some(held) = self.groups.get_mut(&name) {
                let before = held.len();
                held.retain(|_, lock| lock.is_live(now));
                self.held -= before - held.len();
            }
            self.share(&name);
        }
    }

    /// Brings the shared time of `group` in line with its locks.
    fn share(&mut self, group: &str) {
        let held = self.groups.get(group);
        let newest = held.and_then(|held| held.values().map(|lock| lock.renewed).max());
        let Some(newest) = newest else {
            self.groups.remove(group);
            self.changed |= self.shared.remove(group).is_some();
            return;
        };
        let until = newest.after_ms(LOCK_LIFE_MS);
        let shown = self.shared.get(group).map(|until| **until);
        let fresh_enough =
            shown.is_some_and(|shown| shown <= until && until.since_ms(shown) < SHARED_LAG_MS);
        if !fresh_enough {
            self.shared.insert(Arc::from(group), Arc::new(until));
            self.changed = true;
        }
    }
}
