//! Which client looks at which light queue next, and pops that wait for that.

use super::{Client, Due, Lane, Light, Lites, Poll, Who, parent_of};
use crate::base::{ConnId, Mono, Now, ShardId};
use crate::store::consumequeue::QueueSlot;
use std::sync::Arc;

/// A client that does not come for its events within this loses them (`CLIENT_INACTIVE_INTERVAL`).
pub const PATIENCE_MS: u64 = 10_000;
/// Pops of one client that wait (`popPollingSize`), and all of them (`maxPopPollingSize`).
pub const LINE_MAX: usize = 1024;
pub const WAITING_MAX: usize = 100_000;
/// Clients of a lane that are compared to find the best one.
const LOOKS: usize = 16;

impl Lites {
    /// A light queue has new messages.
    pub fn arrived(&mut self, now: Now, slot: QueueSlot, name: &Arc<str>) {
        if self.subscriptions == 0 {
            return;
        }
        let known = self.slots.get(&slot).copied();
        let Some(light) = known.or_else(|| self.meet(slot, name)) else {
            return;
        };
        for at in 0..self.lights[&light].lanes.len() {
            let group = self.lights[&light].lanes[at].group;
            self.give(now, light, group, None);
        }
    }

    /// A queue that somebody is subscribed to was made just now.
    fn meet(&mut self, slot: QueueSlot, name: &Arc<str>) -> Option<u32> {
        let all = parent_of(name).is_some_and(|parent| self.takers.contains_key(parent));
        let wanted = all || self.light_numbers.contains_key(name);
        wanted.then(|| self.light(name, Some(slot)))
    }

    /// A light queue may have something for a group again.
    pub fn raise(&mut self, now: Now, group: &str, slot: QueueSlot) {
        let (Some(light), Some(group)) = (
            self.slots.get(&slot).copied(),
            self.group_numbers.get(group).copied(),
        ) else {
            return;
        };
        if self.lights[&light]
            .lanes
            .iter()
            .any(|lane| lane.group == group)
        {
            self.give(now, light, group, None);
        }
    }

    /// Every light queue that a group is subscribed to may have something for it.
    pub fn raise_all(&mut self, now: Now, group: &str) {
        let Some(group) = self.group_numbers.get(group).copied() else {
            return;
        };
        let wanted = |light: &Light| light.lanes.iter().any(|lane| lane.group == group);
        let lights = self.lights.iter().filter(|(_, light)| wanted(light));
        let lights: Vec<u32> = lights.map(|(number, _)| *number).collect();
        for light in lights {
            self.give(now, light, group, None);
        }
    }

    /// A lane that may have something goes to one of its clients, to `except` only if there is no
    /// other.
    pub(super) fn give(&mut self, now: Now, light: u32, group: u32, except: Option<u32>) {
        let turn = self.count();
        let Some(known) = self.lights.get(&light).filter(|light| light.slot.is_some()) else {
            return;
        };
        let lane = known.lanes.iter().find(|lane| lane.group == group);
        let Some(lane) = lane.filter(|lane| lane.at.is_none()) else {
            return;
        };
        let Some(chosen) = self.choose(now, lane, turn as usize, except) else {
            return;
        };
        self.lane(light, group).at = Some((chosen, turn));
        let client = self.clients.get_mut(&chosen).expect("lanes are at clients");
        client.events.insert(turn, light);
        if !std::mem::replace(&mut client.watched, true) {
            self.due
                .push(now.mono.after_ms(PATIENCE_MS), Due::Watch(chosen));
        }
        if !client.polls.is_empty() && !std::mem::replace(&mut client.woken, true) {
            self.wakes.push_back(chosen);
        }
    }

    /// Best is who has room, then who waits, then who came lately; among equals it goes round.
    fn choose(&self, now: Now, lane: &Lane, turn: usize, except: Option<u32>) -> Option<u32> {
        let group = &self.groups[&lane.group];
        let (some, all) = (lane.clients.len(), group.all.len());
        let looks = (0..(some + all).min(LOOKS)).map(|n| (turn + n) % (some + all));
        let candidates = looks.map(|n| match n < some {
            true => lane.clients[n],
            false => group.all[n - some],
        });
        candidates.max_by_key(|number| {
            let client = &self.clients[number];
            let came = now.mono.since_ms(client.seen.mono) < PATIENCE_MS;
            (
                except != Some(*number),
                client.events.len() < group.events_max,
                !client.polls.is_empty(),
                came,
            )
        })
    }

    /// Others get the events of a client; it keeps those that nobody else may have.
    pub(super) fn give_away(&mut self, now: Now, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let group = client.group;
        for (_, light) in std::mem::take(&mut client.events) {
            self.lane(light, group).at = None;
            self.give(now, light, group, Some(number));
        }
    }

    /// A client comes for its events: the next one, and the queue to look at.
    pub fn fetch(&mut self, now: Now, who: Who<'_>) -> Option<(u64, QueueSlot)> {
        let number = self.find(who)?;
        let client = self.clients.get_mut(&number)?;
        client.seen = now;
        let (event, light) = client.events.pop_first()?;
        let group = client.group;
        let had = self.lane(light, group).at.take();
        assert!(had == Some((number, event)), "a lane is at one client");
        let slot = self.lights[&light].slot;
        Some((event, slot.expect("what has no queue has no events")))
    }

    /// What was fetched just now cannot be looked at: it is the client's next again.
    pub fn put_back(&mut self, who: Who<'_>, event: u64, slot: QueueSlot) {
        let number = self.find(who).expect("it has fetched");
        let light = self.slots[&slot];
        let client = self.clients.get_mut(&number).expect("just found");
        client.events.insert(event, light);
        let group = client.group;
        let had = self.lane(light, group).at.replace((number, event));
        assert!(had.is_none(), "a lane is at one client");
    }

    /// A pop waits until its client has events; gives it back if no more can wait.
    pub fn park(&mut self, now: Now, poll: Box<Poll>) -> Result<(), Box<Poll>> {
        let waiting = self.find(poll.who()).map(|number| &self.clients[&number]);
        let line = waiting.map_or(0, |client| client.polls.len());
        if line >= LINE_MAX || self.polls >= WAITING_MAX {
            return Err(poll);
        }
        let (number, ticket) = (self.client(now, poll.who()), self.count());
        self.polls += 1;
        let due = Due::Poll {
            client: number,
            ticket,
        };
        self.due.push(poll.ask.until, due);
        let client = self.clients.get_mut(&number).expect("just made");
        client.seen = now;
        client.polls.push_back((ticket, poll));
        if !client.events.is_empty() && !std::mem::replace(&mut client.woken, true) {
            self.wakes.push_back(number);
        }
        self.prune();
        Ok(())
    }

    fn prune(&mut self) {
        let clients = &self.clients;
        let live = self.polls + 2 * clients.len();
        self.due.prune(live, |due| match due {
            Due::Watch(number) => clients.contains_key(number),
            Due::Expire { client, ticket } => clients
                .get(client)
                .and_then(|client| client.wants.as_ref())
                .is_some_and(|wants| wants.ticket == *ticket),
            Due::Poll { client, ticket } => clients
                .get(client)
                .is_some_and(|client| client.polls.iter().any(|(known, _)| known == ticket)),
        });
    }

    /// A pop whose client has events.
    pub fn next_wake(&mut self) -> Option<Box<Poll>> {
        while let Some(number) = self.wakes.pop_front() {
            let Some(client) = self.clients.get_mut(&number) else {
                continue;
            };
            client.woken = false;
            if client.events.is_empty() {
                continue;
            }
            let Some((_, poll)) = client.polls.pop_front() else {
                continue;
            };
            self.polls -= 1;
            if !client.polls.is_empty() {
                client.woken = true;
                self.wakes.push_back(number);
            }
            return Some(poll);
        }
        None
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.due.next()
    }

    /// Does what is due; gives a pop whose time is over.
    pub fn expire(&mut self, now: Now) -> Option<Box<Poll>> {
        while let Some(due) = self.due.pop_due(now.mono) {
            match due {
                Due::Expire { client, ticket } => self.expire_client(now, client, ticket),
                Due::Watch(number) => self.watch(now, number),
                Due::Poll { client, ticket } => {
                    let Some(known) = self.clients.get_mut(&client) else {
                        continue;
                    };
                    let at = known.polls.iter().position(|(t, _)| *t == ticket);
                    if let Some((_, poll)) = at.and_then(|at| known.polls.remove(at)) {
                        self.polls -= 1;
                        self.forget_client(client);
                        return Some(poll);
                    }
                }
            }
        }
        None
    }

    fn expire_client(&mut self, now: Now, client: u32, ticket: u64) {
        let wants = self.wants(client).filter(|wants| wants.ticket == ticket);
        match wants.map(|wants| wants.until) {
            Some(until) if until > now.mono => {
                self.due.push(until, Due::Expire { client, ticket });
            }
            Some(_) => self.forget_wants(now, client),
            None => {}
        }
    }

    /// Whether a client came for its events; others get them if not.
    fn watch(&mut self, now: Now, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        client.watched = false;
        if client.events.is_empty() {
            return;
        }
        let until = client.seen.mono.after_ms(PATIENCE_MS);
        let next = match until <= now.mono {
            true => {
                self.give_away(now, number);
                now.mono.after_ms(PATIENCE_MS)
            }
            false => until,
        };
        let client = self.clients.get_mut(&number).expect("just seen");
        if !client.events.is_empty() && !std::mem::replace(&mut client.watched, true) {
            self.due.push(next, Due::Watch(number));
        }
    }

    /// A pop of a connection here runs in another shard.
    pub fn went(&mut self, conn: ConnId, to: ShardId) {
        let shards = self.abroad.entry(conn).or_default();
        if !shards.contains(&to) {
            shards.push(to);
        }
    }

    /// Shards that must hear of the end of a connection here.
    pub fn came_by(&mut self, conn: ConnId) -> Vec<ShardId> {
        self.abroad.remove(&conn).unwrap_or_default()
    }

    /// A connection is gone: its pops take nothing any more. What their clients want stays, for a
    /// proxy comes again on another connection.
    pub fn closed(&mut self, conn: ConnId) {
        if self.polls == 0 {
            return;
        }
        let waits = |client: &Client| {
            client
                .polls
                .iter()
                .any(|(_, poll)| poll.ask.to.conn == conn)
        };
        let gone = self.clients.iter().filter(|(_, client)| waits(client));
        let gone: Vec<u32> = gone.map(|(number, _)| *number).collect();
        for number in gone {
            let client = self.clients.get_mut(&number).expect("just seen");
            let before = client.polls.len();
            client.polls.retain(|(_, poll)| poll.ask.to.conn != conn);
            self.polls -= before - client.polls.len();
            self.forget_client(number);
        }
    }
}
