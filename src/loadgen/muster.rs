//! The connections of a phase: producers, pullers, members, poppers and askers, connected and
//! introduced.

use std::sync::Arc;

use super::crew::{Consume, Crew, Phase};
use super::find::{Place, Target};
use super::hand::Role;
use super::haul::{Pulling, Queue, UNKNOWN};
use super::link::Link;
use super::member::{Held, Member, Rank};
use super::plan::{Pop, Query, Workload};
use super::pop::{Popper, Popping};
use super::pull::Puller;
use super::query::{Asker, draw};
use super::send::{Ends, Producer, Producing};
use super::tally::named;
use crate::remoting::code::response;
use crate::remoting::header::pull::{FLAG_SUBSCRIPTION, FLAG_SUSPEND};

/// How long a broker may hold a pull: of a puller, and of a member as client libraries ask.
const PULL_SUSPEND_MS: i64 = 1000;
const PUSH_SUSPEND_MS: i64 = 15_000;
/// Pops in flight on each connection: where nothing is said, and at most.
const POPS: usize = 8;
const POPS_MAX: usize = 1024;

impl Crew<'_> {
    /// Makes all connections.
    pub fn muster(&self, phase: &Phase) -> Result<Vec<(Link, Role)>, String> {
        let mut roles = Vec::new();
        match self.plan.workload {
            Workload::Query(query) => self.muster_askers(phase, query, &mut roles)?,
            _ if phase.send.is_some() => self.muster_producers(phase, &mut roles)?,
            _ => {}
        }
        match phase.consume {
            Consume::Nobody => {}
            Consume::Pull(connections) => self.muster_pullers(phase, connections, &mut roles)?,
            Consume::Push(members) => self.muster_members(phase, members, &mut roles)?,
            Consume::Pop(poppers, terms) => {
                self.muster_poppers(phase, poppers, terms, &mut roles)?
            }
        }
        Ok(roles)
    }

    fn muster_producers(&self, phase: &Phase, roles: &mut Vec<(Link, Role)>) -> Result<(), String> {
        let producing = Producing {
            part: phase.send_part,
            in_flight: self.plan.in_flight(),
            batch: self.plan.style.batch,
            stamped: self.plan.stamped(),
            queues: if phase.verify { self.field.queues } else { 0 },
            ends: match self.plan.workload {
                Workload::Transaction(transaction) => transaction.rollback_percent,
                _ => None,
            }
            .map(|rollback_percent| Ends {
                codec: self.plan.style.codec,
                rollback_percent,
            }),
        };
        let places = self.busy();
        let writable = |place: &&Place| -> Arc<[Target]> {
            place
                .targets
                .iter()
                .filter(|target| target.writable)
                .copied()
                .collect()
        };
        let targets: Vec<Arc<[Target]>> = places.iter().map(writable).collect();
        for number in 0..self.producers() {
            let at = number % places.len();
            let link = Link::connect(&places[at].addr, self.plan.style.codec)?;
            let producer = Producer::new(producing, number as u32, targets[at].clone());
            roles.push((link, Role::Producer(Box::new(producer))));
        }
        Ok(())
    }

    fn muster_askers(
        &self,
        phase: &Phase,
        query: Query,
        roles: &mut Vec<(Link, Role)>,
    ) -> Result<(), String> {
        let (codec, of) = (self.plan.style.codec, self.plan.connections);
        let ranges: Vec<(i64, i64)> = phase.begin.iter().copied().zip(phase.end.clone()).collect();
        let count = (query.samples, self.plan.style.seed);
        for place in self.busy() {
            let mut link = Link::connect(&place.addr, codec)?;
            let samples = draw(
                &mut link,
                &self.field,
                &place.targets,
                &ranges,
                query.by,
                count,
            )?;
            for number in 0..of {
                let link = Link::connect(&place.addr, codec)?;
                let in_flight = self.plan.in_flight();
                let asker = Asker::new(query.by, codec, samples.clone(), (number, of), in_flight);
                roles.push((link, Role::Asker(Box::new(asker))));
            }
        }
        Ok(())
    }

    fn queue(&self, phase: &Phase, target: &Target) -> Queue {
        let index = target.index as usize;
        Queue {
            topic: self.field.topics[target.topic as usize].clone(),
            id: target.id,
            index: target.index,
            offset: phase.begin.get(index).copied().unwrap_or(0),
            expected: UNKNOWN,
            until: phase.end.get(index).copied().unwrap_or(i64::MAX),
            behind: true,
        }
    }

    fn pulling(&self, phase: &Phase, flags: i32, suspend_ms: i64) -> Pulling {
        Pulling {
            codec: self.plan.style.codec,
            group: self.plan.group.as_str().into(),
            batch: self.plan.pull_batch,
            flags,
            suspend_ms,
            version: self.version,
            timing: phase.timing,
            part: phase.consume_part,
        }
    }

    fn muster_pullers(
        &self,
        phase: &Phase,
        connections: usize,
        roles: &mut Vec<(Link, Role)>,
    ) -> Result<(), String> {
        let pulling = self.pulling(phase, FLAG_SUBSCRIPTION | FLAG_SUSPEND, PULL_SUSPEND_MS);
        let in_flight = self.plan.in_flight.unwrap_or(64);
        for number in 0..connections {
            for place in &self.field.places {
                let readable = place.targets.iter().filter(|target| target.readable);
                let mine = readable.skip(number).step_by(connections);
                let queues: Vec<Queue> = mine.map(|target| self.queue(phase, target)).collect();
                if queues.is_empty() {
                    continue;
                }
                let mut link = Link::connect(&place.addr, self.plan.style.codec)?;
                let broker = place.name.clone();
                // Brokers make the group of a consumer they hear of.
                let client_id = format!("orbitmq_bench@{}#{:x}", std::process::id(), self.run);
                let known = Member::new(
                    client_id,
                    pulling.clone(),
                    broker,
                    Arc::from([]),
                    Vec::new(),
                );
                introduce(&mut link, &known)?;
                let puller = Puller::new(pulling.clone(), queues, in_flight);
                roles.push((link, Role::Puller(Box::new(puller))));
            }
        }
        Ok(())
    }

    fn muster_members(
        &self,
        phase: &Phase,
        members: usize,
        roles: &mut Vec<(Link, Role)>,
    ) -> Result<(), String> {
        let pulling = self.pulling(phase, FLAG_SUSPEND, PUSH_SUSPEND_MS);
        let mut ranks = Vec::new();
        for place in &self.field.places {
            let readable = place.targets.iter().filter(|target| target.readable);
            ranks.extend(readable.map(|target| Rank {
                topic: self.field.topics[target.topic as usize].clone(),
                broker: place.name.clone(),
                id: target.id,
            }));
        }
        ranks.sort();
        let ranks: Arc<[Rank]> = ranks.into();
        for number in 0..members {
            let client_id = format!(
                "orbitmq_bench_{number:05}@{}#{:x}",
                std::process::id(),
                self.run
            );
            for place in &self.field.places {
                let readable = place.targets.iter().filter(|target| target.readable);
                let held: Vec<Held> = readable
                    .map(|target| {
                        let queue = self.queue(phase, target);
                        Held {
                            begin: queue.offset,
                            ignore_stored: phase.ignore_stored,
                            queue,
                            mine: false,
                            committed: UNKNOWN,
                            busy: false,
                        }
                    })
                    .collect();
                let mut link = Link::connect(&place.addr, self.plan.style.codec)?;
                let (client_id, broker) = (client_id.clone(), place.name.clone());
                let member = Member::new(client_id, pulling.clone(), broker, ranks.clone(), held);
                introduce(&mut link, &member)?;
                roles.push((link, Role::Member(Box::new(member))));
            }
        }
        Ok(())
    }

    fn muster_poppers(
        &self,
        phase: &Phase,
        poppers: usize,
        terms: Pop,
        roles: &mut Vec<(Link, Role)>,
    ) -> Result<(), String> {
        for place in &self.field.places {
            let known = |target: &Target| ((target.topic, target.id), target.index);
            let popping = Popping {
                codec: self.plan.style.codec,
                group: self.plan.group.as_str().into(),
                topics: self.field.topics.as_slice().into(),
                queues: Arc::new(place.targets.iter().map(known).collect()),
                broker: place.name.clone(),
                batch: self.plan.pull_batch,
                terms,
                timing: phase.timing,
                part: 0,
                ack_part: 1,
                in_flight: self
                    .plan
                    .in_flight
                    .map_or(POPS, |count| count.min(POPS_MAX)),
            };
            for _ in 0..poppers {
                let link = Link::connect(&place.addr, self.plan.style.codec)?;
                let popper = Popper::new(popping.clone());
                roles.push((link, Role::Popper(Box::new(popper))));
            }
        }
        Ok(())
    }
}

/// The first heartbeat of a consumer, before the load begins.
fn introduce(link: &mut Link, member: &Member) -> Result<(), String> {
    member.heartbeat(&mut link.out, 0);
    let answer = link.call()?;
    if answer.code == response::SUCCESS {
        return Ok(());
    }
    let remark = answer
        .remark
        .map_or_else(String::new, |remark| remark.to_string());
    Err(format!(
        "{}: a heartbeat was refused with {}: {remark}",
        member.broker(),
        named(answer.code)
    ))
}
