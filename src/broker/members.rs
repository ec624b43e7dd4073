//! Who is connected under which producer and consumer group, and what consumer groups subscribe to.
//!
//! A member is a connection inside a group, as in the reference: a client that reconnects is in its
//! group twice until the old connection is closed or expires. Always true: `conns` names exactly
//! the groups in which a connection is a member; `members` counts them; a consumer group is in the
//! table and in `subscriptions` as long as it has a member, and no longer.
//!
//! Nothing here is durable. Members come by heartbeat and go by request, by the end of their
//! connection or when heartbeats stay out. The caller hears who is left to be told.
//!
//! Unlike the reference: a list of client ids names each id once, so that a reconnecting client
//! does not get two shares of the queues of which it consumes one; and members are told when
//! another one expires.
//!
//! Source: `ConsumerManager`, `ConsumerGroupInfo`, `ProducerManager`; spec page semantics §5.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::{ConnId, Map, Mono, Now};
use crate::broker::snapshot::Catalog;
use crate::filter::Filter;
use crate::remoting::body::heartbeat::{ConsumeFromWhere, ConsumeType, MessageModel};
use crate::remoting::language::Language;

/// One connection in one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub conn: ConnId,
    pub client_id: Arc<str>,
    pub peer: SocketAddr,
    pub language: Language,
    /// `MQVersion` ordinal.
    pub version: i32,
    /// The last heartbeat.
    pub seen: Now,
}

/// What a group wants of one topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
    /// As the client wrote it; `*` if it wrote nothing.
    pub expression: String,
    /// `TAG`, `SQL92` or what else the client named.
    pub kind: String,
    /// Grows when the client changes the expression; milliseconds or nanoseconds, by client.
    pub version: i64,
    pub class_filter: bool,
    /// `None` if the expression cannot be parsed, or its kind is not known.
    pub filter: Option<Filter>,
}

impl Subscription {
    pub fn is_tag(&self) -> bool {
        self.kind == TAG
    }
}

/// The kind of expression that names tags.
pub const TAG: &str = "TAG";
/// The kind of expression on properties (`ExpressionType.SQL92`).
pub const SQL92: &str = "SQL92";

/// How a consumer group consumes, as its last heartbeat said; `None` where it said nothing known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumeMode {
    pub consume_type: Option<ConsumeType>,
    pub message_model: Option<MessageModel>,
    pub from_where: Option<ConsumeFromWhere>,
}

/// What pulls of a consumer group are checked against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupSubscriptions {
    pub mode: ConsumeMode,
    pub topics: BTreeMap<Arc<str>, Arc<Subscription>>,
}

impl GroupSubscriptions {
    pub fn is_broadcast(&self) -> bool {
        self.mode.message_model == Some(MessageModel::Broadcasting)
    }
}

/// What a change of membership came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// A member came or went, or a topic was added or dropped: other members must know.
    pub members: bool,
    /// Shards need a new [`GroupSubscriptions`].
    pub subscriptions: bool,
}

/// The tables of membership.
pub struct Members {
    consumers: Map<Arc<str>, ConsumerGroup>,
    producers: Map<Arc<str>, Vec<Member>>,
    subscriptions: Catalog<GroupSubscriptions>,
    conns: Map<ConnId, Presence>,
    /// Clients that are producers, by the connection they joined with last.
    producer_conns: Map<Arc<str>, ConnId>,
    members: usize,
    members_max: usize,
}

struct ConsumerGroup {
    members: Vec<Member>,
    /// Of the last heartbeat that named the group; 0 if it was none of version 2.
    fingerprint: i32,
}

/// The groups a connection is in.
#[derive(Default)]
struct Presence {
    consumer: BTreeSet<Arc<str>>,
    producer: BTreeSet<Arc<str>>,
}

impl Members {
    pub fn new(members_max: usize) -> Self {
        Members {
            consumers: Map::default(),
            producers: Map::default(),
            subscriptions: Catalog::default(),
            conns: Map::default(),
            producer_conns: Map::default(),
            members: 0,
            members_max,
        }
    }

    pub fn subscriptions(&self) -> &Catalog<GroupSubscriptions> {
        &self.subscriptions
    }

    /// No member in any group.
    pub fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// Members of a consumer group in the order of their coming; empty if there is none.
    pub fn consumers(&self, group: &str) -> &[Member] {
        self.consumers
            .get(group)
            .map_or(&[], |group| &group.members)
    }

    /// Members of a producer group in the order of their coming.
    pub fn producers(&self, group: &str) -> &[Member] {
        self.producers.get(group).map_or(&[], |members| members)
    }

    /// Every producer group with its members.
    pub fn all_producers(&self) -> impl Iterator<Item = (&Arc<str>, &Vec<Member>)> {
        self.producers.iter()
    }

    /// The connection of a client that is a producer of any group.
    pub fn producer_conn(&self, client_id: &str) -> Option<ConnId> {
        self.producer_conns.get(client_id).copied()
    }

    /// The ids of a group's clients, each once, in the order of their coming.
    pub fn client_ids(&self, group: &str) -> Vec<Arc<str>> {
        let mut seen = BTreeSet::new();
        let ids = self.consumers(group).iter().map(|member| &member.client_id);
        ids.filter(|id| seen.insert(Arc::clone(id)))
            .cloned()
            .collect()
    }

    /// Notes the fingerprint of a heartbeat; gives the one before, if the group has members.
    pub fn note_fingerprint(&mut self, group: &str, fingerprint: i32) -> Option<i32> {
        let group = self.consumers.get_mut(group)?;
        Some(std::mem::replace(&mut group.fingerprint, fingerprint))
    }

    /// A consumer's heartbeat: it joins or stays. `subscriptions` replace those of the group;
    /// `None` leaves them. `Err` is the limit of members that a new one would pass; then nothing
    /// changed.
    pub fn join_consumers(
        &mut self,
        group: &str,
        member: &Member,
        mode: ConsumeMode,
        fingerprint: i32,
        subscriptions: Option<BTreeMap<Arc<str>, Arc<Subscription>>>,
    ) -> Result<Change, usize> {
        let known = self.consumers.get_mut(group);
        let stays = known.and_then(|group| find(&mut group.members, member.conn));
        let joined = stays.is_none();
        match stays {
            Some(known) => *known = member.clone(),
            None if self.members >= self.members_max => return Err(self.members_max),
            None => {
                let name: Arc<str> = Arc::from(group);
                let fresh = || ConsumerGroup {
                    members: Vec::new(),
                    fingerprint,
                };
                let entry = self
                    .consumers
                    .entry(Arc::clone(&name))
                    .or_insert_with(fresh);
                entry.members.push(member.clone());
                self.presence(member.conn).consumer.insert(name);
                self.members += 1;
            }
        }
        let (topics_changed, shared_changed) = self.subscribe(group, mode, subscriptions);
        Ok(Change {
            members: joined || topics_changed,
            subscriptions: shared_changed,
        })
    }

    /// Gives whether topics were added or dropped, and whether anything changed.
    fn subscribe(
        &mut self,
        group: &str,
        mode: ConsumeMode,
        wanted: Option<BTreeMap<Arc<str>, Arc<Subscription>>>,
    ) -> (bool, bool) {
        let before = self.subscriptions.get(group);
        let known = before.map(|shared| &shared.topics);
        let mut topics = match (&wanted, known) {
            (None, Some(known)) => known.clone(),
            _ => wanted.unwrap_or_default(),
        };
        for (topic, subscription) in &mut topics {
            // An older expression never replaces a newer one, whoever sends it.
            if let Some(known) = known.and_then(|known| known.get(topic))
                && known.version >= subscription.version
            {
                *subscription = Arc::clone(known);
            }
        }
        let same_topics = known.is_some_and(|known| known.keys().eq(topics.keys()));
        // A group's first heartbeat without topics adds none.
        let topics_changed = !same_topics && (known.is_some() || !topics.is_empty());
        let shared = GroupSubscriptions { mode, topics };
        if before.is_some_and(|before| **before == shared) {
            return (topics_changed, false);
        }
        self.subscriptions
            .insert(Arc::from(group), Arc::new(shared));
        (topics_changed, true)
    }

    /// A producer's heartbeat: it joins or stays.
    pub fn join_producers(&mut self, group: &str, member: &Member) -> Result<(), usize> {
        let known = self.producers.get_mut(group);
        if let Some(known) = known.and_then(|members| find(members, member.conn)) {
            known.seen = member.seen;
            return Ok(());
        }
        if self.members >= self.members_max {
            return Err(self.members_max);
        }
        let name: Arc<str> = Arc::from(group);
        self.producers
            .entry(Arc::clone(&name))
            .or_default()
            .push(member.clone());
        self.presence(member.conn).producer.insert(name);
        let id = Arc::clone(&member.client_id);
        self.producer_conns.insert(id, member.conn);
        self.members += 1;
        Ok(())
    }

    fn presence(&mut self, conn: ConnId) -> &mut Presence {
        self.conns.entry(conn).or_default()
    }

    /// False if the connection was no member.
    pub fn leave_consumers(&mut self, group: &str, conn: ConnId) -> bool {
        let Some(presence) = self.conns.get_mut(&conn) else {
            return false;
        };
        if !presence.consumer.remove(group) {
            return false;
        }
        let members = self
            .consumers
            .get_mut(group)
            .map(|group| &mut group.members);
        let members = members.expect("a connection is present in groups that exist");
        members.retain(|member| member.conn != conn);
        if members.is_empty() {
            self.consumers.remove(group);
            self.subscriptions.remove(group);
        }
        self.forget(conn);
        true
    }

    /// False if the connection was no member.
    pub fn leave_producers(&mut self, group: &str, conn: ConnId) -> bool {
        let Some(presence) = self.conns.get_mut(&conn) else {
            return false;
        };
        if !presence.producer.remove(group) {
            return false;
        }
        let last = presence.producer.is_empty();
        let members = self.producers.get_mut(group);
        let members = members.expect("a connection is present in groups that exist");
        for gone in members.extract_if(.., |member| member.conn == conn) {
            if last && self.producer_conns.get(&gone.client_id) == Some(&conn) {
                self.producer_conns.remove(&gone.client_id);
            }
        }
        if members.is_empty() {
            self.producers.remove(group);
        }
        self.forget(conn);
        true
    }

    /// One membership of the connection is over.
    fn forget(&mut self, conn: ConnId) {
        assert!(self.members > 0, "memberships are counted");
        self.members -= 1;
        let empty =
            |presence: &Presence| presence.consumer.is_empty() && presence.producer.is_empty();
        if self.conns.get(&conn).is_some_and(empty) {
            self.conns.remove(&conn);
        }
    }

    /// The consumer groups and producer groups a connection is in.
    pub fn groups_of(&self, conn: ConnId) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let presence = self.conns.get(&conn);
        presence.map_or_else(Default::default, |presence| {
            (
                presence.consumer.iter().cloned().collect(),
                presence.producer.iter().cloned().collect(),
            )
        })
    }

    /// Memberships whose last heartbeat is longer ago than `life_ms`: consumers, then producers.
    pub fn overdue(&self, now: Mono, life_ms: u64) -> [Vec<(Arc<str>, ConnId)>; 2] {
        let overdue = |member: &&Member| now.since_ms(member.seen.mono) > life_ms;
        let mut consumers = Vec::new();
        for (name, group) in &self.consumers {
            let gone = group.members.iter().filter(overdue);
            consumers.extend(gone.map(|member| (Arc::clone(name), member.conn)));
        }
        let mut producers = Vec::new();
        for (name, members) in &self.producers {
            let gone = members.iter().filter(overdue);
            producers.extend(gone.map(|member| (Arc::clone(name), member.conn)));
        }
        [consumers, producers]
    }
}

fn find(members: &mut [Member], conn: ConnId) -> Option<&mut Member> {
    members.iter_mut().find(|member| member.conn == conn)
}
