//! Who is connected under which producer and consumer group, and what consumer groups subscribe to.
//!
//! A member is a connection inside a group, as in the reference: a client that reconnects is in its
//! group twice until the old connection is closed or expires. Always true: `conns` names exactly
//! the groups in which a connection is a member; `members` counts them and the refusals; a consumer
//! group is in the table and in `subscriptions` as long as it has a member, and no longer. If
//! members must subscribe alike, those of a group do; who is refused is no member any more.
//!
//! Nothing here is durable. Members come by heartbeat and go by request, by the end of their
//! connection or when heartbeats stay out. The caller hears who is left to be told.
//!
//! Unlike the reference: a list of client ids names each id once, so that a reconnecting client
//! does not get two shares of the queues of which it consumes one; and members are told when
//! another one expires; members that subscribe differently are noticed ([`splits`]).
//!
//! Source: `ConsumerManager`, `ConsumerGroupInfo`, `ProducerManager`; spec page semantics §5.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::{ConnId, Map, Mono, Now};
use crate::broker::snapshot::Catalog;
use crate::broker::splits::{self, Splits, Unity};
use crate::filter::Filter;
use crate::machine::Note;
use crate::remoting::body::client::Wants;
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
    /// What it subscribes to itself; `None` for a producer, and until a consumer has said it.
    /// Members of a group that want the same share it.
    pub wants: Option<Arc<Wants>>,
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

/// A client that is kept out of a group, because it does not subscribe as the members do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    pub member: Member,
    pub remark: Arc<str>,
}

/// By connection and group.
pub type Refusals = Map<ConnId, BTreeMap<Arc<str>, Refused>>;

/// Why a client does not join.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The limit of members that a new one would pass; then nothing changed.
    Full(usize),
    /// It subscribes differently. If it was a member, it is none now.
    Different { remark: Arc<str>, change: Change },
}

/// What a change of membership came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// A member came or went, or a topic was added or dropped: other members must know.
    pub members: bool,
    /// Shards need new [`GroupSubscriptions`] or [`Refusals`].
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
    refusals: Arc<Refusals>,
    splits: Splits,
    members: usize,
    members_max: usize,
    /// Whether the members of a group must subscribe alike.
    alike: bool,
}

struct ConsumerGroup {
    members: Vec<Member>,
    unity: Unity,
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
    pub fn new(members_max: usize, alike: bool) -> Self {
        Members {
            consumers: Map::default(),
            producers: Map::default(),
            subscriptions: Catalog::default(),
            conns: Map::default(),
            producer_conns: Map::default(),
            refusals: Arc::default(),
            splits: Splits::default(),
            members: 0,
            members_max,
            alike,
        }
    }

    pub fn subscriptions(&self) -> &Catalog<GroupSubscriptions> {
        &self.subscriptions
    }

    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    pub fn splits(&self) -> &Splits {
        &self.splits
    }

    pub fn take_notes(&mut self) -> Vec<Note> {
        self.splits.take_notes()
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

    /// Whether a member has said what it wants.
    pub fn knows(&self, group: &str, conn: ConnId) -> bool {
        let mut members = self.consumers(group).iter();
        members.any(|member| member.conn == conn && member.wants.is_some())
    }

    /// Notes the fingerprint of a heartbeat; gives the one before, if the group has members.
    pub fn note_fingerprint(&mut self, group: &str, fingerprint: i32) -> Option<i32> {
        let group = self.consumers.get_mut(group)?;
        Some(std::mem::replace(&mut group.fingerprint, fingerprint))
    }

    /// A consumer's heartbeat: it joins or stays. `subscriptions` replace those of the group;
    /// `None` leaves them.
    pub fn join_consumers(
        &mut self,
        group: &str,
        member: &Member,
        mode: ConsumeMode,
        fingerprint: i32,
        subscriptions: Option<BTreeMap<Arc<str>, Arc<Subscription>>>,
    ) -> Result<Change, Refusal> {
        let (conn, now) = (member.conn, member.seen.mono);
        let wants = self.wanted(group, conn, mode, subscriptions.as_ref());
        let member = Member {
            wants,
            ..member.clone()
        };
        if self.alike {
            let others = self.consumers(group).iter().filter(|one| one.conn != conn);
            if let Some(remark) = splits::misfit(group, others, &member) {
                return Err(self.refuse(group, member, remark));
            }
        }
        let known = self.consumers.get_mut(group);
        let stays = known.and_then(|group| find(&mut group.members, conn));
        let joined = stays.is_none();
        let mut changed = joined;
        match stays {
            Some(known) => {
                changed |= known.wants != member.wants;
                *known = member;
            }
            None if self.members >= self.members_max => {
                return Err(Refusal::Full(self.members_max));
            }
            None => self.enter(group, member, fingerprint),
        }
        let entry = self.consumers.get_mut(group).expect("it has a member");
        if changed || entry.unity == (Unity::Split { told: false }) {
            self.splits
                .look(now, group, &entry.members, &mut entry.unity);
        }
        let let_in = self.let_in(group, conn);
        let (topics_changed, shared_changed) = self.subscribe(group, mode, subscriptions);
        Ok(Change {
            members: joined || topics_changed,
            subscriptions: shared_changed || let_in,
        })
    }

    fn enter(&mut self, group: &str, member: Member, fingerprint: i32) {
        let (name, conn): (Arc<str>, ConnId) = (Arc::from(group), member.conn);
        let fresh = || ConsumerGroup {
            members: Vec::new(),
            unity: Unity::Whole,
            fingerprint,
        };
        let entry = self.consumers.entry(Arc::clone(&name));
        entry.or_insert_with(fresh).members.push(member);
        self.presence(conn).consumer.insert(name);
        self.members += 1;
    }

    /// What a member wants from now on: what its heartbeat names, or what it wanted before.
    fn wanted(
        &self,
        group: &str,
        conn: ConnId,
        mode: ConsumeMode,
        named: Option<&BTreeMap<Arc<str>, Arc<Subscription>>>,
    ) -> Option<Arc<Wants>> {
        let members = self.consumers(group);
        let own = members.iter().find(|member| member.conn == conn);
        let own = own.and_then(|member| member.wants.clone());
        let Some(topics) = named else {
            return own;
        };
        let wants = splits::wants(group, mode.message_model, topics);
        let others = members.iter().filter_map(|member| member.wants.as_ref());
        let mut known = own.iter().chain(others);
        let same = known.find(|known| ***known == wants).cloned();
        Some(same.unwrap_or_else(|| Arc::new(wants)))
    }

    /// Keeps a client out. A member that changed its mind goes as well: if it stayed, it would
    /// hold queues whose messages it does not want, and when all members change theirs one after
    /// the other, none of them could ever be the first.
    fn refuse(&mut self, group: &str, member: Member, remark: String) -> Refusal {
        let (conn, now) = (member.conn, member.seen.mono);
        let left = self.leave_consumers(group, conn);
        let known = self.refusals.get(&conn).and_then(|of| of.get(group));
        let before = known.map(|refused| Arc::clone(&refused.remark));
        if before.is_none() {
            if self.members >= self.members_max {
                return Refusal::Full(self.members_max);
            }
            self.members += 1;
            self.splits.refused(now, group, &remark);
        }
        let remark: Arc<str> = Arc::from(remark);
        let news = before.as_ref() != Some(&remark);
        if news {
            let refused = Refused {
                member,
                remark: Arc::clone(&remark),
            };
            let of = Arc::make_mut(&mut self.refusals).entry(conn).or_default();
            of.insert(Arc::from(group), refused);
        }
        let change = Change {
            members: left,
            subscriptions: left || news,
        };
        Refusal::Different { remark, change }
    }

    /// A client is not refused any more. False if it was not.
    pub fn let_in(&mut self, group: &str, conn: ConnId) -> bool {
        let known = self.refusals.get(&conn);
        if !known.is_some_and(|of| of.contains_key(group)) {
            return false;
        }
        let refusals = Arc::make_mut(&mut self.refusals);
        let of = refusals.get_mut(&conn).expect("just seen");
        of.remove(group);
        if of.is_empty() {
            refusals.remove(&conn);
        }
        self.members -= 1;
        true
    }

    /// A connection is gone. False if it was refused nowhere.
    pub fn forget_refusals(&mut self, conn: ConnId) -> bool {
        if !self.refusals.contains_key(&conn) {
            return false;
        }
        let gone = Arc::make_mut(&mut self.refusals).remove(&conn);
        self.members -= gone.map_or(0, |of| of.len());
        true
    }

    /// Clients that are kept out of a group.
    pub fn refused(&self, group: &str) -> impl Iterator<Item = &Refused> {
        self.refusals.values().filter_map(move |of| of.get(group))
    }

    /// Refusals of all groups.
    pub fn refused_count(&self) -> usize {
        self.refusals.values().map(BTreeMap::len).sum()
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
        let entry = self.consumers.get_mut(group);
        let entry = entry.expect("a connection is present in groups that exist");
        entry.members.retain(|member| member.conn != conn);
        self.splits.mend(group, &entry.members, &mut entry.unity);
        if entry.members.is_empty() {
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
