use super::*;
use crate::base::ShardId;
use crate::broker::acks::ReplyTo;
use crate::broker::pops::What;
use crate::broker::topics::Topic;
use crate::broker::topics::config_with;
use crate::filter::Filter;
use crate::remoting::frame::Codec;
use events::{LINE_MAX, PATIENCE_MS};
use proptest::prelude::*;
use std::collections::BTreeSet;

const QUEUES: u8 = 5;
const GROUPS: [&str; 3] = ["shared", "exclusive", "all"];
const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];
const MOST: usize = 12;

fn at(ms: u64) -> Now {
    Now {
        mono: Mono(ms),
        wall_ms: ms as i64,
    }
}

fn conn(client: usize) -> ConnId {
    ConnId {
        shard: ShardId(0),
        slot: client as u32,
        generation: 1,
    }
}

fn name(queue: u8) -> Arc<str> {
    format!("%LMQ%$p${queue}").into()
}

fn rules(group: &str) -> Rules {
    Rules {
        exclusive: group == "exclusive",
        all: group == "all",
        events_max: 2,
        resets_excluded: false,
        resets_removed: false,
    }
}

fn poll(who: Who<'_>, conn: ConnId, until: Mono) -> Box<Poll> {
    let topic = Topic {
        name: "p".into(),
        id: 1,
        config: config_with(1, 6),
        owners: vec![ShardId(0)],
    };
    let ask = Ask {
        to: ReplyTo {
            conn,
            opaque: 1,
            codec: Codec::Json,
        },
        topic: Arc::new(topic),
        group: who.group.into(),
        queue_id: 0,
        filter: Filter::ALL,
        order: true,
        attempt: String::new(),
        until,
        what: What::Peek { most: 1 },
    };
    Box::new(Poll {
        client: who.client.into(),
        ask,
    })
}

/// A group's client, by numbers.
type Member = (usize, usize);

fn who((group, client): Member) -> Who<'static> {
    Who {
        group: GROUPS[group],
        client: CLIENTS[client],
    }
}

/// What a registry that looks at everything each time would know.
#[derive(Default)]
struct Model {
    lites: Lites,
    ms: u64,
    /// Messages of each queue that there is.
    queues: BTreeMap<u8, u64>,
    slots: BTreeMap<u8, u32>,
    slot_count: u32,
    /// Queues of each client that is subscribed; `None` for all.
    wants: BTreeMap<Member, (Option<BTreeSet<u8>>, u64)>,
    taken: BTreeMap<(usize, u8), u64>,
    held: BTreeSet<(usize, u8)>,
    /// Pops that wait, with the times they are over.
    waiting: BTreeMap<Member, Vec<u64>>,
}

#[derive(Clone, Debug)]
enum Step {
    Add(Member, BTreeSet<u8>),
    Remove(Member, BTreeSet<u8>),
    Replace(Member, BTreeSet<u8>),
    Leave(Member),
    Arrive(u8),
    Pop(Member, u64),
    /// A pop whose queue cannot be read.
    Stall(Member),
    Ack(usize, u8),
    Close(usize),
    Pass(u64),
    Drop(u8),
    DropGroup(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let member = || (0..GROUPS.len(), 0..CLIENTS.len());
    let set = || prop::collection::btree_set(0..QUEUES, 0..4);
    prop_oneof![
        4 => (member(), set()).prop_map(|(m, s)| Step::Add(m, s)),
        2 => (member(), set()).prop_map(|(m, s)| Step::Remove(m, s)),
        3 => (member(), set()).prop_map(|(m, s)| Step::Replace(m, s)),
        1 => member().prop_map(Step::Leave),
        8 => (0..QUEUES).prop_map(Step::Arrive),
        8 => (member(), 0..40_000u64).prop_map(|(m, wait)| Step::Pop(m, wait)),
        2 => member().prop_map(Step::Stall),
        6 => (0..GROUPS.len(), 0..QUEUES).prop_map(|(g, q)| Step::Ack(g, q)),
        1 => (0..CLIENTS.len()).prop_map(Step::Close),
        2 => prop_oneof![0..20_000u64, 0..200_000u64].prop_map(Step::Pass),
        1 => (0..QUEUES).prop_map(Step::Drop),
        1 => (0..GROUPS.len()).prop_map(Step::DropGroup),
    ]
}

impl Model {
    fn now(&self) -> Now {
        at(self.ms)
    }

    fn named(&self, queues: &BTreeSet<u8>) -> Vec<Named> {
        let slot = |queue: &u8| self.slots.get(queue).map(|slot| QueueSlot(*slot));
        queues.iter().map(|q| (name(*q), slot(q))).collect()
    }

    fn is_subscribed(&self, member: Member, queue: u8) -> bool {
        let wants = self.wants.get(&member);
        wants.is_some_and(|(set, _)| set.as_ref().is_none_or(|set| set.contains(&queue)))
    }

    fn count(&self) -> usize {
        let sets = self.wants.values().map(|(set, _)| set.as_ref());
        sets.map(|set| set.map_or(1, BTreeSet::len)).sum()
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Add(m, set) => self.add(m, set),
            Step::Remove(m, set) => self.remove(m, set),
            Step::Replace(m, set) => self.replace(m, set),
            Step::Leave(m) => {
                self.lites.leave(self.now(), who(m));
                self.wants.remove(&m);
            }
            Step::Arrive(queue) => self.arrive(queue),
            Step::Pop(m, wait) => self.pop(m, self.ms + wait),
            Step::Stall(m) => {
                if let Some((event, slot)) = self.lites.fetch(self.now(), who(m)) {
                    self.lites.put_back(who(m), event, slot);
                }
            }
            Step::Ack(group, queue) => self.ack(group, queue),
            Step::Close(client) => {
                self.lites.closed(conn(client));
                self.waiting.retain(|(_, c), _| *c != client);
            }
            Step::Pass(ms) => self.pass(ms),
            Step::Drop(queue) => self.drop_queue(queue),
            Step::DropGroup(group) => {
                self.lites.drop_group(self.now(), GROUPS[group]);
                self.wants.retain(|(g, _), _| *g != group);
                self.held.retain(|(g, _)| *g != group);
            }
        }
        self.wake();
        self.check();
    }

    fn add(&mut self, m: Member, set: BTreeSet<u8>) {
        if GROUPS[m.0] == "all" {
            return;
        }
        let had = self.wants.get(&m).map(|(set, _)| set.clone().unwrap());
        let after: BTreeSet<u8> = had.iter().flatten().chain(&set).copied().collect();
        let new = after.len() - had.as_ref().map_or(0, BTreeSet::len);
        let fits = new == 0 || self.count() + new <= MOST;
        let (now, rules) = (self.now(), rules(GROUPS[m.0]));
        let named = self.named(&set);
        let result = self
            .lites
            .add(now, who(m), conn(m.1), (rules, MOST), &named);
        let Ok(excluded) = result else {
            return assert!(!fits, "it fits");
        };
        assert!(fits, "it does not fit");
        let mut expected = BTreeSet::new();
        if rules.exclusive {
            for (other, (theirs, _)) in &mut self.wants {
                let theirs = theirs.as_mut().filter(|_| other.0 == m.0 && *other != m);
                let Some(theirs) = theirs else { continue };
                for queue in set.intersection(theirs) {
                    expected.insert((CLIENTS[other.1].to_owned(), name(*queue)));
                }
                if theirs.intersection(&set).next().is_some() {
                    theirs.retain(|queue| !set.contains(queue));
                    if theirs.is_empty() {
                        theirs.insert(u8::MAX);
                    }
                }
            }
            // Who lost its last one is forgotten.
            let last = Some(BTreeSet::from([u8::MAX]));
            self.wants.retain(|_, (set, _)| *set != last);
        }
        let told = excluded
            .iter()
            .map(|e| (e.client.to_string(), e.light.clone()));
        assert_eq!(told.collect::<BTreeSet<_>>(), expected);
        self.wants.insert(m, (Some(after), self.ms + EXPIRES_MS));
    }

    fn remove(&mut self, m: Member, set: BTreeSet<u8>) {
        let names: Vec<Arc<str>> = set.iter().map(|queue| name(*queue)).collect();
        let removed = self.lites.remove(self.now(), who(m), &names);
        let until = self.ms + EXPIRES_MS;
        let mut expected = Vec::new();
        if let Some((had, expires)) = self.wants.get_mut(&m) {
            *expires = until;
            if let Some(had) = had {
                expected = set
                    .iter()
                    .filter(|q| had.remove(q))
                    .map(|q| name(*q))
                    .collect();
            }
        }
        assert_eq!(removed, expected);
    }

    fn replace(&mut self, m: Member, set: BTreeSet<u8>) {
        let (now, rules) = (self.now(), rules(GROUPS[m.0]));
        let before = self.wants.get(&m).map(|(set, _)| set.clone());
        let until = self.ms + EXPIRES_MS;
        if rules.all {
            let slots = &self.slots;
            let queues = || {
                slots
                    .iter()
                    .map(|(q, slot)| (name(*q), QueueSlot(*slot)))
                    .collect()
            };
            let fits = before.is_some() || self.count() < MOST;
            let lites = &mut self.lites;
            let result = lites.take_all(now, who(m), conn(m.1), (rules, MOST), &"p".into(), queues);
            assert_eq!(result, if fits { Ok(()) } else { Err(Full) });
            if fits {
                self.wants.insert(m, (None, until));
            }
            return;
        }
        let before = before.flatten().unwrap_or_default();
        let new = set.difference(&before).count();
        let fits = new == 0 || self.count() - before.len() + set.len() <= MOST;
        let named = self.named(&set);
        let result = self
            .lites
            .replace(now, who(m), conn(m.1), (rules, MOST), &named);
        assert_eq!(result, if fits { Ok(()) } else { Err(Full) });
        if fits {
            self.wants.insert(m, (Some(set), until));
        }
    }

    fn arrive(&mut self, queue: u8) {
        if !self.slots.contains_key(&queue) {
            self.slot_count += 1;
            self.slots.insert(queue, self.slot_count);
        }
        *self.queues.entry(queue).or_default() += 1;
        let slot = QueueSlot(self.slots[&queue]);
        self.lites.arrived(self.now(), slot, &name(queue));
    }

    fn drop_queue(&mut self, queue: u8) {
        let Some(slot) = self.slots.remove(&queue) else {
            return;
        };
        self.lites.drop_queue(self.now(), QueueSlot(slot));
        self.queues.remove(&queue);
        self.taken.retain(|(_, q), _| *q != queue);
        self.held.retain(|(_, q)| *q != queue);
        for (set, _) in self.wants.values_mut() {
            if let Some(set) = set {
                set.remove(&queue);
            }
        }
    }

    /// A pop looks at its events; it waits if there is nothing.
    fn pop(&mut self, m: Member, until: u64) {
        let mut took = false;
        while let Some((_, slot)) = self.lites.fetch(self.now(), who(m)) {
            let queue = self.slots.iter().find(|(_, known)| **known == slot.0);
            let queue = *queue.expect("only queues that there are").0;
            assert!(self.is_subscribed(m, queue), "{m:?} got {queue}");
            if self.left(m.0, queue) == 0 {
                continue;
            }
            self.taken.insert((m.0, queue), self.queues[&queue]);
            self.held.insert((m.0, queue));
            took = true;
            break;
        }
        if !took && until > self.ms {
            let poll = poll(who(m), conn(m.1), Mono(until));
            assert!(self.lites.park(self.now(), poll).is_ok());
            self.waiting.entry(m).or_default().push(until);
        }
    }

    /// Messages that the group may take now.
    fn left(&self, group: usize, queue: u8) -> u64 {
        let all = self.queues.get(&queue).copied().unwrap_or(0);
        let taken = self.taken.get(&(group, queue)).copied().unwrap_or(0);
        if self.held.contains(&(group, queue)) {
            0
        } else {
            all - taken
        }
    }

    fn ack(&mut self, group: usize, queue: u8) {
        if self.held.remove(&(group, queue)) {
            let slot = QueueSlot(self.slots[&queue]);
            self.lites.raise(self.now(), GROUPS[group], slot);
        }
    }

    fn wake(&mut self) {
        while let Some(poll) = self.lites.next_wake() {
            let group = GROUPS
                .iter()
                .position(|name| **name == *poll.ask.group)
                .unwrap();
            let client = CLIENTS
                .iter()
                .position(|name| **name == *poll.client)
                .unwrap();
            let waiting = self.waiting.get_mut(&(group, client)).unwrap();
            let at = waiting.iter().position(|until| *until == poll.ask.until.0);
            waiting.remove(at.expect("it waits"));
            self.pop((group, client), poll.ask.until.0);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.ms += ms;
        while let Some(poll) = self.lites.expire(self.now()) {
            assert!(poll.ask.until.0 <= self.ms);
            let group = GROUPS
                .iter()
                .position(|name| **name == *poll.ask.group)
                .unwrap();
            let client = CLIENTS
                .iter()
                .position(|name| **name == *poll.client)
                .unwrap();
            let waiting = self.waiting.get_mut(&(group, client)).unwrap();
            let at = waiting.iter().position(|until| *until == poll.ask.until.0);
            waiting.remove(at.expect("it waits"));
            self.wake();
        }
        self.wants.retain(|_, (_, until)| *until > self.ms);
        self.waiting.retain(|_, pops| !pops.is_empty());
        assert!(
            self.waiting
                .values()
                .flatten()
                .all(|until| *until > self.ms)
        );
    }

    /// Who has a queue for a group.
    fn holder(&self, group: usize, queue: u8) -> Vec<usize> {
        let light = self.lites.light_numbers.get(&name(queue));
        let has = |client: &usize| {
            let number = self.lites.find(who((group, *client)));
            let client = number.and_then(|number| self.lites.clients.get(&number));
            client.is_some_and(|c| c.events.values().any(|known| Some(known) == light))
        };
        (0..CLIENTS.len()).filter(has).collect()
    }

    fn check(&self) {
        assert_eq!(self.lites.subscriptions(), self.count());
        assert!(self.count() <= MOST);
        assert_eq!(self.lites.clients(), self.wants.len());
        let polls: usize = self.waiting.values().map(Vec::len).sum();
        assert_eq!(self.lites.polls, polls);
        for group in 0..GROUPS.len() {
            for queue in 0..QUEUES {
                let members = (0..CLIENTS.len()).filter(|c| self.is_subscribed((group, *c), queue));
                let members: Vec<usize> = members.collect();
                let holders = self.holder(group, queue);
                assert!(holders.len() <= 1, "{queue} is at {holders:?}");
                assert!(holders.iter().all(|holder| members.contains(holder)));
                if self.left(group, queue) > 0 && !members.is_empty() {
                    assert_eq!(holders.len(), 1, "queue {queue} is lost for group {group}");
                    assert!(
                        self.waiting
                            .get(&(group, holders[0]))
                            .is_none_or(Vec::is_empty),
                        "who waits takes"
                    );
                }
            }
        }
    }

    /// One client of each group keeps coming, the others do not: it gets what it is subscribed to.
    fn finish(&mut self) {
        let wants: Vec<Member> = self.wants.keys().copied().collect();
        let mut seen = BTreeSet::new();
        for m in wants.into_iter().filter(|m| seen.insert(m.0)) {
            for round in 0..8 * u64::from(QUEUES) {
                self.run(Step::Pop(m, 0));
                (0..QUEUES).for_each(|queue| self.run(Step::Ack(m.0, queue)));
                if round % 4 == 3 {
                    self.refresh(m);
                    self.run(Step::Pass(PATIENCE_MS / 2));
                }
            }
            let left = |q: &u8| self.is_subscribed(m, *q) && self.left(m.0, *q) > 0;
            assert_eq!((0..QUEUES).find(left), None, "left for {m:?}");
        }
    }

    fn refresh(&mut self, m: Member) {
        let set = self.wants.get(&m).and_then(|(set, _)| set.clone());
        self.run(Step::Replace(m, set.unwrap_or_default()));
    }

    /// Nothing is left when nobody is.
    fn end(&mut self) {
        for group in 0..GROUPS.len() {
            (0..CLIENTS.len()).for_each(|client| self.run(Step::Leave((group, client))));
        }
        (0..CLIENTS.len()).for_each(|client| self.run(Step::Close(client)));
        let lites = &self.lites;
        assert_eq!((lites.clients.len(), lites.groups.len()), (0, 0));
        assert_eq!((lites.lights.len(), lites.light_numbers.len()), (0, 0));
        assert_eq!((lites.slots.len(), lites.takers.len()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_left_is_at_one_subscribed_client(steps in prop::collection::vec(step(), 0..60)) {
        let mut model = Model::default();
        steps.into_iter().for_each(|step| model.run(step));
        model.finish();
        model.end();
    }
}

fn one() -> Who<'static> {
    who((0, 0))
}

#[test]
fn a_queue_that_is_made_later_is_met() {
    let mut lites = Lites::default();
    let limit = (rules("shared"), MOST);
    let none: Vec<Named> = vec![(name(1), None)];
    assert_eq!(lites.add(at(0), one(), conn(0), limit, &none), Ok(vec![]));
    lites.arrived(at(1), QueueSlot(9), &name(2));
    assert_eq!(lites.fetch(at(1), one()), None);
    lites.arrived(at(2), QueueSlot(7), &name(1));
    let fetched = lites.fetch(at(2), one());
    assert_eq!(fetched.map(|(_, slot)| slot), Some(QueueSlot(7)));
    assert_eq!(lites.fetch(at(2), one()), None);
}

#[test]
fn no_more_than_the_limit_wait() {
    let mut lites = Lites::default();
    for _ in 0..LINE_MAX {
        assert!(lites.park(at(0), poll(one(), conn(0), Mono(9))).is_ok());
    }
    assert!(lites.park(at(0), poll(one(), conn(0), Mono(9))).is_err());
    for slot in 0..(WAITING_MAX - LINE_MAX) as u32 {
        let other = format!("c{}", slot as usize / LINE_MAX);
        let other = Who {
            group: "g",
            client: &other,
        };
        assert!(lites.park(at(0), poll(other, conn(1), Mono(9))).is_ok());
    }
    let late = Who {
        group: "g",
        client: "late",
    };
    assert!(lites.park(at(0), poll(late, conn(2), Mono(9))).is_err());
    lites.closed(conn(1));
    assert!(lites.park(at(0), poll(late, conn(2), Mono(9))).is_ok());
    assert_eq!(lites.polls, LINE_MAX + 1);
}

#[test]
fn events_go_to_who_comes_for_them() {
    let mut lites = Lites::default();
    let limit = (rules("shared"), MOST);
    let named: Vec<Named> = vec![(name(1), Some(QueueSlot(1)))];
    let (lazy, eager) = (who((0, 0)), who((0, 1)));
    lites.add(at(0), lazy, conn(0), limit, &named).unwrap();
    lites.add(at(0), eager, conn(1), limit, &named).unwrap();
    assert_eq!(lites.fetch(at(PATIENCE_MS - 1), eager), None);
    assert!(lites.expire(at(PATIENCE_MS - 1)).is_none());
    assert!(lites.expire(at(PATIENCE_MS)).is_none());
    let fetched = lites.fetch(at(PATIENCE_MS), eager);
    assert_eq!(fetched.map(|(_, slot)| slot), Some(QueueSlot(1)));
}
