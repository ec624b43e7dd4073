//! Who serves what: broker sets, their addresses, their topics, and who was heard of when.
//!
//! Owns the tables of the reference's `RouteInfoManager` (spec namesrv-ha §1 to §3); its cluster
//! table is derived from the broker sets here. What always holds:
//!
//! * An address of a broker set has exactly one entry among the live brokers, so everything that
//!   is shown expires. (The reference leaks either side in some orders of events.)
//! * A topic has at least one broker set, and each of its broker sets is known.
//! * A refused registration changes nothing.
//! * [`Routes::revision`] changes whenever an answer about routes may.
//!
//! Not here: persistence (brokers register anew), filter servers (obsolete), telling brokers that
//! the smallest id of their set changed (905, off by default in the reference).

use std::collections::BTreeMap;

use super::limits::{Limits, Refusal};
use super::share::{PERM_READ, PERM_WRITE, Queues, TopicShare};
use crate::base::{ConnId, Mono};
use crate::remoting::body::topic::DataVersion;

/// The id of a master (`MixAll.MASTER_ID`).
pub const MASTER_ID: i64 = 0;
/// A broker that states no timeout is gone after this long without a word.
pub const HEARTBEAT_TIMEOUT_MS: u64 = 120_000;

/// A master and its slaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerSet {
    /// Of the first registration; a broker name is in one cluster.
    pub cluster: String,
    /// By broker id; the master is [`MASTER_ID`]. Never empty.
    pub addrs: BTreeMap<i64, String>,
    /// Whether the smallest slave id may stand in for a missing master.
    pub acting_master: bool,
    pub zone: Option<String>,
    topics: usize,
}

impl BrokerSet {
    pub fn lacks_master(&self) -> bool {
        !self.addrs.contains_key(&MASTER_ID)
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct LiveKey {
    cluster: String,
    addr: String,
}

impl LiveKey {
    fn new(cluster: &str, addr: &str) -> Self {
        LiveKey {
            cluster: cluster.to_owned(),
            addr: addr.to_owned(),
        }
    }
}

/// What the last registration of an address said, and when it was last heard of.
struct Live {
    name: String,
    heard: Mono,
    timeout_ms: u64,
    version: DataVersion,
    conn: ConnId,
    ha_addr: String,
}

/// One broker's word about itself (request 103).
pub struct Registration<'a> {
    pub cluster: &'a str,
    pub name: &'a str,
    pub addr: &'a str,
    pub id: i64,
    pub ha_addr: &'a str,
    pub zone: Option<&'a str>,
    /// `None`: [`HEARTBEAT_TIMEOUT_MS`].
    pub timeout_ms: Option<i64>,
    /// `None` from brokers older than 5.0.
    pub acting_master: Option<bool>,
    pub version: DataVersion,
    /// All topics of the broker, or the ones that changed.
    pub topics: BTreeMap<String, TopicShare>,
    pub conn: ConnId,
    /// Remove topics that `topics` leaves out (`deleteTopicWithBrokerRegistration`).
    pub delete_others: bool,
}

/// The master of a slave that registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MasterOf {
    pub addr: String,
    pub ha_addr: String,
}

/// Everything known about one topic.
pub struct TopicRoute<'a> {
    pub shares: &'a BTreeMap<String, TopicShare>,
    /// In the order of `shares`.
    pub sets: Vec<(&'a str, &'a BrokerSet)>,
}

/// The tables.
pub struct Routes {
    limits: Limits,
    sets: BTreeMap<String, BrokerSet>,
    topics: BTreeMap<String, BTreeMap<String, TopicShare>>,
    live: BTreeMap<LiveKey, Live>,
    revision: u64,
}

impl Routes {
    pub fn new(limits: Limits) -> Self {
        Routes {
            limits,
            sets: BTreeMap::new(),
            topics: BTreeMap::new(),
            live: BTreeMap::new(),
            revision: 0,
        }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes a registration in. `Ok(None)` for a master, for a slave without a live master, and
    /// for a registration whose id an address with a later state version holds: that one is
    /// ignored without an error.
    pub fn register(
        &mut self,
        now: Mono,
        mut new: Registration<'_>,
    ) -> Result<Option<MasterOf>, Refusal> {
        let key = LiveKey::new(new.cluster, new.addr);
        if self.is_outranked(&new) {
            self.forget_loser(&key, &new);
            return Ok(None);
        }
        self.check_registration(&new, &key)?;
        self.drop_former_self(&key, new.name);
        let fresh = self.place(&new);
        let topics = std::mem::take(&mut new.topics);
        self.take_topics(&new, topics, fresh, &key);
        let stated = new.timeout_ms;
        let live = Live {
            name: new.name.to_owned(),
            heard: now,
            timeout_ms: stated.map_or(HEARTBEAT_TIMEOUT_MS, |ms| u64::try_from(ms).unwrap_or(0)),
            version: new.version,
            conn: new.conn,
            ha_addr: new.ha_addr.to_owned(),
        };
        self.live.insert(key, live);
        Ok(self.master_of(&new))
    }

    /// Whether another address holds the id with a later state version (an elected master).
    fn is_outranked(&self, new: &Registration<'_>) -> bool {
        let set = self.sets.get(new.name);
        let holder = set.and_then(|set| set.addrs.get(&new.id));
        holder
            .filter(|addr| *addr != new.addr)
            .and_then(|addr| self.live.get(&LiveKey::new(new.cluster, addr)))
            .is_some_and(|live| live.version.state_version > new.version.state_version)
    }

    fn forget_loser(&mut self, key: &LiveKey, new: &Registration<'_>) {
        if self.live.get(key).is_some_and(|live| live.name == new.name) {
            self.remove(key);
        }
    }

    fn check_registration(&self, new: &Registration<'_>, key: &LiveKey) -> Result<(), Refusal> {
        let set = self.sets.get(new.name);
        let known_id = set.is_some_and(|set| set.addrs.contains_key(&new.id));
        if !known_id && new.topics.len() == 1 {
            return Err(Refusal::NotRegistered);
        }
        let zone = new.zone.unwrap_or("");
        for name in [new.cluster, new.name, new.addr, new.ha_addr, zone] {
            self.limits.check_name(name)?;
        }
        let max = self.limits.brokers_max;
        if !self.live.contains_key(key) && self.live.len() >= max {
            return Err(Refusal::Brokers { max });
        }
        for (topic, share) in &new.topics {
            self.limits.check_name(topic)?;
            self.check_mapping(topic, share)?;
        }
        let kept = if new.delete_others {
            0
        } else {
            set.map_or(0, |set| set.topics)
        };
        let counts = |topic: &&String| new.delete_others || !self.has_share(topic, new.name);
        let added = new.topics.keys().filter(counts).count();
        self.check_topics(new.name, kept + added)
    }

    fn check_mapping(&self, topic: &str, share: &TopicShare) -> Result<(), Refusal> {
        let max = self.limits.mapping_queues_max;
        let queues = share.mapping.as_ref().map_or(0, |m| m.curr_id_map.len());
        if queues > max {
            let topic = topic.to_owned();
            return Err(Refusal::MappingQueues { topic, max });
        }
        Ok(())
    }

    fn check_topics(&self, broker: &str, count: usize) -> Result<(), Refusal> {
        let max = self.limits.topics_per_broker_max;
        if count > max {
            let broker = broker.to_owned();
            return Err(Refusal::Topics { broker, max });
        }
        Ok(())
    }

    /// An address that now goes by another broker name leaves the old one; in another cluster it
    /// keeps its place, under one entry.
    fn drop_former_self(&mut self, key: &LiveKey, name: &str) {
        if self.live.get(key).is_some_and(|live| live.name != name) {
            self.remove(key);
        }
        self.live
            .retain(|other, live| other == key || other.addr != key.addr || live.name != name);
    }

    /// Puts the address under its id; true if the broker name or the id is new.
    fn place(&mut self, new: &Registration<'_>) -> bool {
        let entry = self.sets.entry(new.name.to_owned());
        let set = entry.or_insert_with(|| BrokerSet {
            cluster: new.cluster.to_owned(),
            addrs: BTreeMap::new(),
            acting_master: false,
            zone: None,
            topics: 0,
        });
        let before = (set.addrs.clone(), set.acting_master, set.zone.clone());
        // A slave that became the master, or the reverse, has one id only.
        set.addrs
            .retain(|id, addr| addr != new.addr || *id == new.id);
        let holder = set.addrs.insert(new.id, new.addr.to_owned());
        set.acting_master = new.acting_master.unwrap_or(false);
        set.zone = new.zone.map(str::to_owned);
        if before != (set.addrs.clone(), set.acting_master, set.zone.clone()) {
            self.revision += 1;
        }
        let fresh = holder.is_none();
        if let Some(former) = holder.filter(|former| former != new.addr) {
            // It lost its id: nothing is left of it that could expire.
            self.live
                .retain(|key, live| key.addr != former || live.name != new.name);
        }
        fresh
    }

    /// Topics count from the master and from the smallest slave id of a 5.x set; the latter's are
    /// read only where it may stand in for the master.
    fn take_topics(
        &mut self,
        new: &Registration<'_>,
        topics: BTreeMap<String, TopicShare>,
        fresh: bool,
        key: &LiveKey,
    ) {
        let set = &self.sets[new.name];
        let smallest = set.addrs.first_key_value().map(|(id, _)| *id);
        let prime_slave = new.acting_master.is_some() && smallest == Some(new.id);
        if new.id != MASTER_ID && !prime_slave {
            return;
        }
        let read_only = new.id != MASTER_ID && set.acting_master;
        let known = self.live.get(key);
        let changed = fresh || known.is_none_or(|live| live.version != new.version);
        if new.delete_others && topics.values().all(|share| share.mapping.is_none()) {
            self.remove_shares(new.name, |topic| !topics.contains_key(topic));
        }
        for (topic, mut share) in topics {
            if changed || !self.has_share(&topic, new.name) {
                if read_only {
                    share.queues.perm &= !PERM_WRITE;
                }
                self.put_share(topic, new.name, share);
            }
        }
    }

    fn has_share(&self, topic: &str, name: &str) -> bool {
        let shares = self.topics.get(topic);
        shares.is_some_and(|shares| shares.contains_key(name))
    }

    fn put_share(&mut self, topic: String, name: &str, mut share: TopicShare) {
        let shares = self.topics.entry(topic).or_default();
        if let Some(known) = shares.get_mut(name) {
            // A registration without the mapping says nothing about it.
            share.mapping = share.mapping.or(known.mapping.take());
            *known = share;
        } else {
            shares.insert(name.to_owned(), share);
            let set = self.sets.get_mut(name);
            set.expect("topics belong to known brokers").topics += 1;
        }
        self.revision += 1;
    }

    /// Takes the broker out of the topics that `which` names.
    fn remove_shares(&mut self, name: &str, which: impl Fn(&str) -> bool) {
        let mut removed = 0;
        self.topics.retain(|topic, shares| {
            if which(topic) && shares.remove(name).is_some() {
                removed += 1;
            }
            !shares.is_empty()
        });
        self.revision += u64::from(removed > 0);
        let set = self.sets.get_mut(name);
        set.expect("topics belong to known brokers").topics -= removed;
    }

    fn master_of(&self, new: &Registration<'_>) -> Option<MasterOf> {
        if new.id == MASTER_ID {
            return None;
        }
        let addr = self.sets.get(new.name)?.addrs.get(&MASTER_ID)?;
        let live = self.live.get(&LiveKey::new(new.cluster, addr))?;
        Some(MasterOf {
            addr: addr.clone(),
            ha_addr: live.ha_addr.clone(),
        })
    }

    /// Request 104. Unknown brokers are no error.
    pub fn unregister(&mut self, cluster: &str, name: &str, addr: &str) {
        let key = LiveKey::new(cluster, addr);
        if self.live.get(&key).is_some_and(|live| live.name == name) {
            self.remove(&key);
        }
    }

    /// The connection is gone, and with it every broker that last registered over it.
    pub fn close(&mut self, conn: ConnId) {
        self.remove_where(|live| live.conn == conn);
    }

    /// Removes brokers that were silent for longer than their timeout; gives their connections,
    /// which are to be closed.
    pub fn expire(&mut self, now: Mono) -> Vec<ConnId> {
        self.remove_where(|live| now.since_ms(live.heard) > live.timeout_ms)
    }

    fn remove_where(&mut self, which: impl Fn(&Live) -> bool) -> Vec<ConnId> {
        let live = self.live.iter();
        let gone: Vec<(LiveKey, ConnId)> = live
            .filter(|(_, live)| which(live))
            .map(|(key, live)| (key.clone(), live.conn))
            .collect();
        for (key, _) in &gone {
            self.remove(key);
        }
        gone.into_iter().map(|(_, conn)| conn).collect()
    }

    /// Ends a live broker: its address goes, with the last address the broker set and its topics.
    fn remove(&mut self, key: &LiveKey) {
        let live = self.live.remove(key).expect("the caller found it");
        let set = self.sets.get_mut(&live.name);
        let set = set.expect("a live broker has its name among the sets");
        set.addrs.retain(|_, addr| *addr != key.addr);
        self.revision += 1;
        if set.addrs.is_empty() {
            self.remove_shares(&live.name, |_| true);
            self.sets.remove(&live.name);
        } else if set.acting_master && set.lacks_master() {
            self.set_perm(&live.name, |perm| perm & !PERM_WRITE);
        }
    }

    /// Request 205: no topic of the broker can be written. Gives how many topics it has.
    pub fn wipe_write(&mut self, name: &str) -> usize {
        self.set_perm(name, |perm| perm & !PERM_WRITE)
    }

    /// Request 327: every topic of the broker can be read and written, nothing else.
    pub fn add_write(&mut self, name: &str) -> usize {
        self.set_perm(name, |_| PERM_READ | PERM_WRITE)
    }

    fn set_perm(&mut self, name: &str, change: impl Fn(i32) -> i32) -> usize {
        self.revision += 1;
        let mut topics = 0;
        for shares in self.topics.values_mut() {
            if let Some(share) = shares.get_mut(name) {
                share.queues.perm = change(share.queues.perm);
                topics += 1;
            }
        }
        topics
    }

    /// Request 904, and part of 322.
    pub fn heard(&mut self, now: Mono, cluster: &str, addr: &str) {
        if let Some(live) = self.live.get_mut(&LiveKey::new(cluster, addr)) {
            live.heard = now;
        }
    }

    /// The version of the topics last registered by an address.
    pub fn version(&self, cluster: &str, addr: &str) -> Option<&DataVersion> {
        let live = self.live.get(&LiveKey::new(cluster, addr))?;
        Some(&live.version)
    }

    /// Request 217. Nothing happens if a broker is unknown.
    pub fn register_topic(
        &mut self,
        topic: &str,
        queues: Vec<(Queues, String)>,
    ) -> Result<(), Refusal> {
        self.limits.check_name(topic)?;
        for (_, name) in &queues {
            let Some(set) = self.sets.get(name) else {
                return Ok(());
            };
            if !self.has_share(topic, name) {
                self.check_topics(name, set.topics + 1)?;
            }
        }
        for (queues, name) in queues {
            let mapping = None;
            self.put_share(topic.to_owned(), &name, TopicShare { queues, mapping });
        }
        Ok(())
    }

    /// Request 216: everywhere, or in one cluster.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(shares) = self.topics.get_mut(topic) else {
            return;
        };
        let sets = &mut self.sets;
        shares.retain(|name, _| {
            let set = sets.get_mut(name).expect("topics belong to known brokers");
            let goes = cluster.is_none_or(|cluster| set.cluster == cluster);
            set.topics -= usize::from(goes);
            !goes
        });
        if shares.is_empty() {
            self.topics.remove(topic);
        }
        self.revision += 1;
    }

    pub fn route(&self, topic: &str) -> Option<TopicRoute<'_>> {
        let shares = self.topics.get(topic)?;
        let sets = shares.keys().map(|name| (&**name, &self.sets[name]));
        Some(TopicRoute {
            shares,
            sets: sets.collect(),
        })
    }

    /// All broker sets by name.
    pub fn sets(&self) -> &BTreeMap<String, BrokerSet> {
        &self.sets
    }

    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(|topic| &**topic)
    }

    pub fn topics_of_cluster(&self, cluster: &str) -> impl Iterator<Item = &str> {
        let here = move |name: &String| self.sets[name].cluster == cluster;
        let topics = self.topics.iter();
        topics.filter_map(move |(topic, shares)| shares.keys().any(here).then_some(&**topic))
    }

    /// Topics whose first broker's system flag passes.
    pub fn topics_flagged(&self, passes: impl Fn(i32) -> bool) -> impl Iterator<Item = &str> {
        self.topics.iter().filter_map(move |(topic, shares)| {
            let (_, first) = shares.first_key_value()?;
            passes(first.queues.sys_flag).then_some(&**topic)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ShardId;
    use proptest::prelude::*;

    /// One thing that happens to the tables; names and ids are few so that they meet.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Register {
            name: u8,
            addr: u8,
            id: u8,
            state: u8,
            topics: u8,
            acting: bool,
            delete_others: bool,
        },
        Unregister(u8, u8),
        Close(u8),
        Expire,
        Delete(u8, bool),
        RegisterTopic(u8, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let register = (
            0..3u8,
            0..4u8,
            0..3u8,
            0..2u8,
            0..16u8,
            any::<(bool, bool)>(),
        );
        prop_oneof![
            6 => register.prop_map(|(name, addr, id, state, topics, (acting, delete_others))| {
                Step::Register { name, addr, id, state, topics, acting, delete_others }
            }),
            1 => (0..3u8, 0..4u8).prop_map(|(name, addr)| Step::Unregister(name, addr)),
            1 => (0..4u8).prop_map(Step::Close),
            1 => Just(Step::Expire),
            1 => (0..4u8, any::<bool>()).prop_map(|(topic, all)| Step::Delete(topic, all)),
            1 => (0..4u8, 0..3u8).prop_map(|(topic, name)| Step::RegisterTopic(topic, name)),
        ]
    }

    const SHARE: TopicShare = TopicShare {
        queues: Queues {
            read: 1,
            write: 1,
            perm: 6,
            sys_flag: 0,
        },
        mapping: None,
    };

    fn cluster_of(addr: u8) -> &'static str {
        if addr < 3 { "c" } else { "d" }
    }

    fn apply(routes: &mut Routes, now: Mono, step: Step) {
        match step {
            Step::Register {
                name,
                addr,
                id,
                state,
                topics,
                acting,
                delete_others,
            } => {
                let topics = (0..4).filter(|bit| topics & (1 << bit) != 0);
                let registration = Registration {
                    cluster: cluster_of(addr),
                    name: &format!("b{name}"),
                    addr: &format!("a{addr}"),
                    id: i64::from(id),
                    ha_addr: "",
                    zone: None,
                    timeout_ms: Some(20),
                    acting_master: acting.then_some(true),
                    version: DataVersion {
                        state_version: i64::from(state),
                        ..DataVersion::default()
                    },
                    topics: topics.map(|bit| (format!("t{bit}"), SHARE)).collect(),
                    conn: conn(addr),
                    delete_others,
                };
                let before = (routes.revision, routes.topics.clone(), routes.sets.clone());
                if routes.register(now, registration).is_err() {
                    let after = (routes.revision, routes.topics.clone(), routes.sets.clone());
                    assert_eq!(before, after, "a refused registration changes nothing");
                }
            }
            Step::Unregister(name, addr) => {
                let (name, address) = (format!("b{name}"), format!("a{addr}"));
                routes.unregister(cluster_of(addr), &name, &address);
            }
            Step::Close(addr) => routes.close(conn(addr)),
            Step::Expire => drop(routes.expire(now)),
            Step::Delete(topic, all) => {
                routes.delete_topic(&format!("t{topic}"), (!all).then_some("c"));
            }
            Step::RegisterTopic(topic, name) => {
                let queues = vec![(SHARE.queues, format!("b{name}"))];
                let _ = routes.register_topic(&format!("t{topic}"), queues);
            }
        }
    }

    fn conn(addr: u8) -> ConnId {
        ConnId {
            shard: ShardId(0),
            slot: u32::from(addr),
            generation: 0,
        }
    }

    fn check_tables(routes: &Routes) {
        let mut shown = Vec::new();
        for (name, set) in &routes.sets {
            assert!(!set.addrs.is_empty());
            shown.extend(set.addrs.values().map(|addr| (name.clone(), addr.clone())));
            let shares = routes.topics.values().filter(|s| s.contains_key(name));
            assert_eq!(shares.count(), set.topics);
        }
        let live = routes.live.iter();
        let mut live: Vec<_> = live
            .map(|(k, l)| (l.name.clone(), k.addr.clone()))
            .collect();
        live.sort();
        shown.sort();
        assert_eq!(
            shown, live,
            "what is shown expires, and nothing else is kept"
        );
        for shares in routes.topics.values() {
            assert!(!shares.is_empty());
            assert!(shares.keys().all(|name| routes.sets.contains_key(name)));
        }
    }

    proptest! {
        #[test]
        fn tables_agree_after_any_history(steps in prop::collection::vec(step(), 1..60)) {
            let mut routes = Routes::new(Limits {
                brokers_max: 3,
                topics_per_broker_max: 3,
                ..Limits::default()
            });
            for (at, step) in steps.into_iter().enumerate() {
                let before = (routes.revision, routes.topics.clone(), routes.sets.clone());
                apply(&mut routes, Mono(at as u64), step);
                check_tables(&routes);
                let same = (&before.1, &before.2) == (&routes.topics, &routes.sets);
                prop_assert!(same || before.0 != routes.revision, "{step:?} went unnoticed");
            }
            assert!(routes.expire(Mono(1000)).len() <= 3);
            assert!(routes.sets.is_empty() && routes.topics.is_empty());
        }
    }
}
