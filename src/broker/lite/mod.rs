//! Lite topics: who is subscribed to which, and which client is to look at which next.
//!
//! A lite topic is a light queue; those of one parent topic live in one shard, and this table of
//! that shard is all there is about them. It is memory only, as in the reference: a client says
//! again within [`EXPIRES_MS`] what it wants, or is forgotten.
//!
//! A *lane* is one light queue for one group. While a lane may have something it is at exactly one
//! subscribed client, which has it among its *events*. A client that fetches takes its events one
//! after the other; what it cannot take now comes back when the queue is free for the group again
//! ([`raise`](Lites::raise)). So nothing is ever looked for: there are at most as many events as
//! lanes, and a lane is lost with its last subscriber only. A client that does not come for its
//! events loses them to others that do.
//!
//! Source: `LiteSubscriptionRegistryImpl`, `LiteEventDispatcher`, `PopLiteLongPollingService`; spec
//! page delta-5.5 §5.

pub mod events;
pub mod expiry;
pub mod rules;
#[cfg(test)]
mod tests;

use crate::base::heap::Deadlines;
use crate::base::{ConnId, Map, Mono, Now, Set, ShardId};
use crate::broker::light::lite_parts;
use crate::broker::pops::Ask;
use crate::store::consumequeue::QueueSlot;
use events::WAITING_MAX;
use rules::Rules;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A client that has not said for so long what it wants is gone
/// (`liteSubscriptionCheckTimeoutMills`).
pub const EXPIRES_MS: u64 = 180_000;

/// A client of a group, both by name.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    pub group: &'a str,
    pub client: &'a str,
}

/// A light queue by name, and its slot if there is such a queue.
pub type Named = (Arc<str>, Option<QueueSlot>);

/// More subscriptions than the limit.
#[derive(PartialEq, Eq, Debug)]
pub struct Full;

/// A subscription that another client took over.
#[derive(PartialEq, Eq, Debug)]
pub struct Excluded {
    pub client: Arc<str>,
    pub light: Arc<str>,
    pub link: ConnId,
}

/// A pop of what one client is subscribed to; `ask` names its parent topic.
pub struct Poll {
    pub client: Box<str>,
    pub ask: Ask,
}

impl Poll {
    pub fn who(&self) -> Who<'_> {
        Who {
            group: &self.ask.group,
            client: &self.client,
        }
    }
}

struct Group {
    name: Arc<str>,
    clients: Map<Arc<str>, u32>,
    /// Those of them that take every lite topic of `parent`.
    all: Vec<u32>,
    parent: Arc<str>,
    events_max: usize,
}

struct Client {
    id: Arc<str>,
    group: u32,
    wants: Option<Wants>,
    /// Light queues to look at, oldest first.
    events: BTreeMap<u64, u32>,
    polls: VecDeque<(u64, Box<Poll>)>,
    /// It is among those to be woken.
    woken: bool,
    /// The heap will ask whether it came for its events.
    watched: bool,
    seen: Now,
}

/// What a client is subscribed to.
struct Wants {
    lights: Set<u32>,
    all: bool,
    link: ConnId,
    until: Mono,
    ticket: u64,
}

struct Light {
    name: Arc<str>,
    slot: Option<QueueSlot>,
    lanes: Vec<Lane>,
}

/// One light queue for one group.
struct Lane {
    group: u32,
    /// Besides those that take all.
    clients: Vec<u32>,
    /// Who has it, as which event.
    at: Option<(u32, u64)>,
}

enum Due {
    Expire { client: u32, ticket: u64 },
    Watch(u32),
    Poll { client: u32, ticket: u64 },
}

/// Numbers of clients, groups and light queues are not used again.
#[derive(Default)]
pub struct Lites {
    groups: Map<u32, Group>,
    group_numbers: Map<Arc<str>, u32>,
    clients: Map<u32, Client>,
    lights: Map<u32, Light>,
    light_numbers: Map<Arc<str>, u32>,
    slots: Map<QueueSlot, u32>,
    /// Groups whose clients take all lite topics of a parent.
    takers: Map<Arc<str>, Vec<u32>>,
    /// Pairs of a client and a lite topic; one for a client that takes all.
    subscriptions: usize,
    polls: usize,
    wakes: VecDeque<u32>,
    due: Deadlines<Due>,
    numbered: u32,
    counted: u64,
    /// Where pops of connections of this shard went.
    abroad: Map<ConnId, Vec<ShardId>>,
}

impl Lites {
    pub fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// Clients that are subscribed.
    pub fn clients(&self) -> usize {
        self.clients.values().filter(|c| c.wants.is_some()).count()
    }

    fn number(&mut self) -> u32 {
        self.numbered = self.numbered.checked_add(1).expect("2^32 take years");
        self.numbered
    }

    fn count(&mut self) -> u64 {
        self.counted += 1;
        self.counted
    }

    fn find(&self, who: Who<'_>) -> Option<u32> {
        let group = self.groups.get(self.group_numbers.get(who.group)?)?;
        group.clients.get(who.client).copied()
    }

    /// A client's number; it is made known if it is not.
    fn client(&mut self, now: Now, who: Who<'_>) -> u32 {
        if let Some(number) = self.find(who) {
            return number;
        }
        let group = match self.group_numbers.get(who.group) {
            Some(group) => *group,
            None => self.make_group(who.group),
        };
        let (number, id) = (self.number(), Arc::<str>::from(who.client));
        let clients = &mut self.groups.get_mut(&group).expect("just found").clients;
        clients.insert(id.clone(), number);
        let client = Client {
            id,
            group,
            wants: None,
            events: BTreeMap::new(),
            polls: VecDeque::new(),
            woken: false,
            watched: false,
            seen: now,
        };
        self.clients.insert(number, client);
        number
    }

    fn make_group(&mut self, name: &str) -> u32 {
        let (number, name) = (self.number(), Arc::<str>::from(name));
        let group = Group {
            name: name.clone(),
            clients: Map::default(),
            all: Vec::new(),
            parent: name.clone(),
            events_max: usize::MAX,
        };
        self.groups.insert(number, group);
        self.group_numbers.insert(name, number);
        number
    }

    /// A client says that it is there.
    fn enter(&mut self, now: Now, who: Who<'_>, link: ConnId, rules: Rules) -> u32 {
        let (number, ticket) = (self.client(now, who), self.count());
        let client = self.clients.get_mut(&number).expect("just made");
        let group = self.groups.get_mut(&client.group).expect("of a client");
        group.events_max = rules.events_max;
        let until = now.mono.after_ms(EXPIRES_MS);
        match &mut client.wants {
            Some(wants) => (wants.link, wants.until) = (link, until),
            None => {
                client.wants = Some(Wants {
                    lights: Set::default(),
                    all: false,
                    link,
                    until,
                    ticket,
                });
                let client = number;
                self.due.push(until, Due::Expire { client, ticket });
            }
        }
        number
    }

    /// PARTIAL_ADD. Gives who lost what by it.
    pub fn add(
        &mut self,
        now: Now,
        who: Who<'_>,
        link: ConnId,
        (rules, most): (Rules, usize),
        lights: &[Named],
    ) -> Result<Vec<Excluded>, Full> {
        self.check(who, lights, most, false)?;
        let number = self.enter(now, who, link, rules);
        let mut excluded = Vec::new();
        for light in lights {
            if rules.exclusive {
                self.exclude(now, number, &light.0, &mut excluded);
            }
            self.subscribe(now, number, light);
        }
        Ok(excluded)
    }

    /// Whether the light queues may come to what a client has, or, `whole`, instead of it.
    fn check(&self, who: Who<'_>, lights: &[Named], most: usize, whole: bool) -> Result<(), Full> {
        let client = self.find(who).and_then(|number| self.clients.get(&number));
        let wants = client.and_then(|client| client.wants.as_ref());
        let has = |name: &str| {
            let number = self.light_numbers.get(name);
            wants.zip(number).is_some_and(|(w, n)| w.lights.contains(n))
        };
        let new = lights.iter().filter(|(name, _)| !has(name)).count();
        let kept = lights.len() - new;
        let gone = wants.map_or(0, |w| {
            w.lights.len().saturating_sub(kept) + usize::from(w.all)
        });
        let after = self.subscriptions + new - if whole { gone } else { 0 };
        // Clients without anything have a bound as well.
        let known = wants.is_some() || self.clients.len() < most + WAITING_MAX;
        match known && (new == 0 || after <= most) {
            true => Ok(()),
            false => Err(Full),
        }
    }

    /// The other clients of the group lose a light queue.
    fn exclude(&mut self, now: Now, number: u32, name: &str, excluded: &mut Vec<Excluded>) {
        let (Some(light), Some(client)) = (
            self.light_numbers.get(name).copied(),
            self.clients.get(&number),
        ) else {
            return;
        };
        let group = client.group;
        let lane = self.lights[&light].lanes.iter().find(|l| l.group == group);
        let others = lane.map_or_else(Vec::new, |lane| lane.clients.clone());
        for other in others.into_iter().filter(|other| *other != number) {
            let client = &self.clients[&other];
            let wants = client.wants.as_ref().expect("it is subscribed");
            excluded.push(Excluded {
                client: client.id.clone(),
                light: name.into(),
                link: wants.link,
            });
            let left = wants.lights.len() == 1 && !wants.all;
            match left {
                true => self.forget_wants(now, other),
                false => drop(self.unsubscribe(now, other, light)),
            }
        }
    }

    fn subscribe(&mut self, now: Now, number: u32, (name, slot): &Named) {
        let light = self.light(name, *slot);
        let client = self.clients.get_mut(&number).expect("it has entered");
        let wants = client.wants.as_mut().expect("it has entered");
        if !wants.lights.insert(light) {
            return;
        }
        self.subscriptions += 1;
        let group = client.group;
        self.lane(light, group).clients.push(number);
        self.give(now, light, group, None);
    }

    /// A light queue's number; it is made known if it is not.
    fn light(&mut self, name: &Arc<str>, slot: Option<QueueSlot>) -> u32 {
        let known = self.light_numbers.get(name).copied();
        let number = known.unwrap_or_else(|| {
            let (number, name) = (self.number(), Arc::clone(name));
            self.light_numbers.insert(name.clone(), number);
            let takers = parent_of(&name).and_then(|parent| self.takers.get(parent));
            let lanes = takers.into_iter().flatten().map(|group| Lane::new(*group));
            let lanes = lanes.collect();
            let slot = None;
            self.lights.insert(number, Light { name, slot, lanes });
            number
        });
        if let Some(slot) = slot {
            self.slots.insert(slot, number);
            self.lights.get_mut(&number).expect("just found").slot = Some(slot);
        }
        number
    }

    fn lane(&mut self, light: u32, group: u32) -> &mut Lane {
        let lanes = &mut self.lights.get_mut(&light).expect("known by number").lanes;
        let at = lanes.iter().position(|lane| lane.group == group);
        let at = at.unwrap_or_else(|| {
            lanes.push(Lane::new(group));
            lanes.len() - 1
        });
        &mut lanes[at]
    }

    /// PARTIAL_REMOVE. Gives which of them it had.
    pub fn remove(&mut self, now: Now, who: Who<'_>, names: &[Arc<str>]) -> Vec<Arc<str>> {
        let Some(number) = self.find(who) else {
            return Vec::new();
        };
        if let Some(wants) = self.wants(number) {
            wants.until = now.mono.after_ms(EXPIRES_MS);
        }
        let mut removed = Vec::new();
        for name in names {
            let light = self.light_numbers.get(name).copied();
            if light.is_some_and(|light| self.unsubscribe(now, number, light)) {
                removed.push(name.clone());
            }
        }
        removed
    }

    fn wants(&mut self, client: u32) -> Option<&mut Wants> {
        self.clients.get_mut(&client)?.wants.as_mut()
    }

    fn unsubscribe(&mut self, now: Now, number: u32, light: u32) -> bool {
        let Some(wants) = self.wants(number) else {
            return false;
        };
        if !wants.lights.remove(&light) {
            return false;
        }
        self.subscriptions -= 1;
        let group = self.clients[&number].group;
        let lane = self.lane(light, group);
        lane.clients.retain(|client| *client != number);
        if let Some((at, event)) = lane.at
            && at == number
        {
            lane.at = None;
            self.clients
                .get_mut(&number)
                .expect("seen")
                .events
                .remove(&event);
            self.give(now, light, group, None);
        }
        self.tidy(light);
        true
    }

    /// Forgets what nobody is subscribed to.
    fn tidy(&mut self, light: u32) {
        let Some(known) = self.lights.get_mut(&light) else {
            return;
        };
        let groups = &self.groups;
        known.lanes.retain(|lane| {
            let all = groups.get(&lane.group).map_or(0, |group| group.all.len());
            lane.clients.len() + all > 0
        });
        if known.lanes.is_empty() {
            let gone = self.lights.remove(&light).expect("just seen");
            self.light_numbers.remove(&gone.name);
            if let Some(slot) = gone.slot {
                self.slots.remove(&slot);
            }
        }
    }

    /// COMPLETE_ADD: this and nothing else.
    pub fn replace(
        &mut self,
        now: Now,
        who: Who<'_>,
        link: ConnId,
        (rules, most): (Rules, usize),
        lights: &[Named],
    ) -> Result<(), Full> {
        self.check(who, lights, most, true)?;
        let number = self.enter(now, who, link, rules);
        let names = &self.light_numbers;
        let kept = lights.iter().filter_map(|(name, _)| names.get(name));
        let kept: Set<u32> = kept.copied().collect();
        let wants = self.wants(number).expect("it has entered");
        let gone: Vec<u32> = wants.lights.difference(&kept).copied().collect();
        for light in gone {
            self.unsubscribe(now, number, light);
        }
        self.leave_all(now, number);
        for light in lights {
            self.subscribe(now, number, light);
        }
        Ok(())
    }

    /// COMPLETE_ADD of a group whose clients take every lite topic of `parent`; `queues` are those
    /// there are.
    pub fn take_all(
        &mut self,
        now: Now,
        who: Who<'_>,
        link: ConnId,
        (rules, most): (Rules, usize),
        parent: &Arc<str>,
        queues: impl FnOnce() -> Vec<(Arc<str>, QueueSlot)>,
    ) -> Result<(), Full> {
        let has = self.find(who).and_then(|number| self.wants(number));
        let has = has.is_some_and(|wants| wants.all);
        if !has && self.subscriptions >= most {
            return Err(Full);
        }
        let number = self.enter(now, who, link, rules);
        let wants = self.wants(number).expect("it has entered");
        let gone: Vec<u32> = wants.lights.iter().copied().collect();
        for light in gone {
            self.unsubscribe(now, number, light);
        }
        if has {
            return Ok(());
        }
        self.wants(number).expect("it has entered").all = true;
        self.subscriptions += 1;
        let group_number = self.clients[&number].group;
        let group = self.groups.get_mut(&group_number).expect("of a client");
        group.all.push(number);
        if group.all.len() > 1 {
            return Ok(());
        }
        group.parent = parent.clone();
        let takers = self.takers.entry(parent.clone()).or_default();
        takers.push(group_number);
        let known = self
            .lights
            .iter()
            .filter(|(_, l)| parent_of(&l.name) == Some(parent));
        let known: Vec<u32> = known.map(|(number, _)| *number).collect();
        for light in known {
            self.lane(light, group_number);
        }
        for (name, slot) in queues() {
            let light = self.light(&name, Some(slot));
            self.give(now, light, group_number, None);
        }
        Ok(())
    }

    /// A client does not take all any more.
    fn leave_all(&mut self, now: Now, number: u32) {
        let Some(wants) = self.wants(number).filter(|wants| wants.all) else {
            return;
        };
        wants.all = false;
        self.subscriptions -= 1;
        let group_number = self.clients[&number].group;
        let group = self.groups.get_mut(&group_number).expect("of a client");
        group.all.retain(|client| *client != number);
        let was_last = group.all.is_empty();
        if was_last && let Some(takers) = self.takers.get_mut(&group.parent) {
            takers.retain(|group| *group != group_number);
            if takers.is_empty() {
                let parent = group.parent.clone();
                self.takers.remove(&parent);
            }
        }
        self.give_away(now, number);
        if was_last {
            let lights: Vec<u32> = self.lights.keys().copied().collect();
            lights.into_iter().for_each(|light| self.tidy(light));
        }
    }

    /// COMPLETE_REMOVE: the client is gone.
    pub fn leave(&mut self, now: Now, who: Who<'_>) {
        if let Some(number) = self.find(who) {
            self.forget_wants(now, number);
        }
    }

    fn forget_wants(&mut self, now: Now, number: u32) {
        self.leave_all(now, number);
        if let Some(wants) = self.wants(number) {
            let lights: Vec<u32> = wants.lights.iter().copied().collect();
            for light in lights {
                self.unsubscribe(now, number, light);
            }
            self.clients.get_mut(&number).expect("just seen").wants = None;
        }
        self.forget_client(number);
    }

    /// Nothing is kept of a client that neither wants nor waits.
    fn forget_client(&mut self, number: u32) {
        let Some(client) = self.clients.get(&number) else {
            return;
        };
        if client.wants.is_some() || !client.polls.is_empty() {
            return;
        }
        let client = self.clients.remove(&number).expect("just seen");
        assert!(client.events.is_empty(), "who wants nothing has no events");
        let group = self.groups.get_mut(&client.group).expect("of a client");
        group.clients.remove(&client.id);
        if group.clients.is_empty() {
            let group = self.groups.remove(&client.group).expect("just seen");
            self.group_numbers.remove(&group.name);
        }
    }

    /// A light queue is gone, and what was subscribed to it with it.
    pub fn drop_queue(&mut self, now: Now, slot: QueueSlot) {
        let Some(light) = self.slots.get(&slot).copied() else {
            return;
        };
        for lane in &mut self
            .lights
            .get_mut(&light)
            .expect("slots are of lights")
            .lanes
        {
            if let Some((client, event)) = lane.at.take() {
                let client = self.clients.get_mut(&client).expect("lanes are at clients");
                client.events.remove(&event);
            }
        }
        let known = self.lights.get_mut(&light).expect("slots are of lights");
        known.slot = None;
        self.slots.remove(&slot);
        let lanes = known
            .lanes
            .iter()
            .flat_map(|lane| lane.clients.iter().copied());
        let clients: Vec<u32> = lanes.collect();
        for client in clients {
            self.unsubscribe(now, client, light);
        }
        // Those that take all meet it again when it comes back.
        if let Some(gone) = self.lights.remove(&light) {
            self.light_numbers.remove(&gone.name);
        }
    }

    /// A parent topic is gone: nobody is subscribed to its lite topics any more.
    pub fn drop_topic(&mut self, now: Now, parent: &str) {
        let lights = self.lights.iter();
        let lights = lights.filter(|(_, light)| parent_of(&light.name) == Some(parent));
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        for (number, light) in lights {
            let clients = light.lanes.iter().flat_map(|lane| &lane.clients);
            pairs.extend(clients.map(|client| (*client, *number)));
        }
        for (client, light) in pairs {
            self.unsubscribe(now, client, light);
        }
        let takers = self.takers.get(parent).into_iter().flatten();
        let clients = takers.flat_map(|group| self.groups[group].all.iter().copied());
        let clients: Vec<u32> = clients.collect();
        for client in clients {
            self.leave_all(now, client);
        }
    }

    /// A group is gone.
    pub fn drop_group(&mut self, now: Now, group: &str) {
        let number = self.group_numbers.get(group);
        let group = number.and_then(|number| self.groups.get(number));
        let clients = group.map_or_else(Vec::new, |g| g.clients.values().copied().collect());
        for client in clients {
            self.forget_wants(now, client);
        }
    }

    /// Who is subscribed to a light queue, as pairs of group and client; `*` for all of a group.
    pub fn subscribers(&self, name: &str) -> Vec<(Arc<str>, Arc<str>)> {
        let light = self
            .light_numbers
            .get(name)
            .and_then(|n| self.lights.get(n));
        let lanes = light.map_or(&[][..], |light| &light.lanes);
        let clients = lanes.iter().flat_map(|lane| &lane.clients);
        let mut found: Vec<_> = clients
            .map(|number| &self.clients[number])
            .map(|client| (self.groups[&client.group].name.clone(), client.id.clone()))
            .collect();
        let takers = parent_of(name).and_then(|parent| self.takers.get(parent));
        for group in takers.into_iter().flatten() {
            found.push((self.groups[group].name.clone(), "*".into()));
        }
        found
    }

    /// When a client came last, wall ms, and the light queues it is subscribed to.
    pub fn client_info(&self, who: Who<'_>) -> Option<(i64, Vec<Arc<str>>)> {
        let client = self.clients.get(&self.find(who)?)?;
        let lights = client.wants.as_ref()?.lights.iter();
        let mut names: Vec<_> = lights
            .map(|light| self.lights[light].name.clone())
            .collect();
        names.sort();
        Some((client.seen.wall_ms, names))
    }
}

impl Lane {
    fn new(group: u32) -> Lane {
        Lane {
            group,
            clients: Vec::new(),
            at: None,
        }
    }
}

/// The topic of a lite topic's queue.
fn parent_of(name: &str) -> Option<&str> {
    lite_parts(name).map(|(parent, _)| parent)
}
