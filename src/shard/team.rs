//! The machines of one fleet on one executor: mail, doors, ticks.

use super::clock::Clock;
use super::dir::{FsDir, wait_for_writes};
use super::disk::Disk;
use super::drive::Shard;
use super::executor::Engine;
use super::helpers::Found;
use super::mesh::{Ends, Mail, Post};
use super::net::{Door, Hall};
use super::ring;
use super::token::{Kind, Place, pack};
use super::{Make, Options, Stats};
use crate::base::{Mono, Now, ShardId};
use crate::machine::{Event, Machine};
use std::path::PathBuf;

/// The part of a fleet that one executor gets; sent to its thread.
pub struct Part<M: Machine> {
    pub make: Make<M>,
    /// The machines to make here.
    pub dirs: Vec<(ShardId, PathBuf)>,
    /// Machines in the whole fleet.
    pub shards: u16,
    pub executor: usize,
    pub ends: Ends<M::Peer>,
}

pub struct Team<M: Machine> {
    fleet: u8,
    shards: Vec<Shard<M>>,
    /// Machines in the whole fleet.
    all_shards: u16,
    post: Post<M::Peer>,
    halls: Vec<Hall>,
    /// The machine that gets the next connection.
    next: u16,
    /// Memory of `deliver`.
    mail: Vec<Mail<M::Peer>>,
}

impl<M: Machine> Team<M> {
    /// Makes the machines; blocks while they recover.
    pub fn make(part: Part<M>, fleet: u8, clock: Clock, options: &Options) -> Result<Self, String> {
        let mut shards = Vec::new();
        for (id, path) in part.dirs {
            let dir = FsDir::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            wait_for_writes(&path.join(crate::store::segment::FOLDER))?;
            let machine = (part.make)(id, &dir, clock.now())?;
            let place = Place {
                fleet,
                machine: shards.len() as u16,
            };
            let disk = Disk::new(path, place);
            let ids = (id, part.shards);
            shards.push(Shard::new(machine, ids, place, disk, options.receive_bytes));
        }
        Ok(Team {
            fleet,
            shards,
            all_shards: part.shards,
            post: Post::new(part.executor, part.ends),
            halls: Vec::new(),
            next: 0,
            mail: Vec::new(),
        })
    }

    /// Tells the machines that all of the fleet are made, and lets clients in.
    pub fn start(&mut self, now: Now, doors: Vec<Door>, engine: &mut Engine) -> Result<(), String> {
        for door in doors {
            let hall = Hall::open(door)?;
            self.halls.push(hall);
            self.watch_door(self.halls.len() - 1, engine);
        }
        for shard in &mut self.shards {
            shard.step(now, Event::Start);
            shard.settle(now, engine, &mut self.post);
        }
        Ok(())
    }

    fn watch_door(&mut self, slot: usize, engine: &mut Engine) {
        let place = Place {
            fleet: self.fleet,
            machine: 0,
        };
        let token = pack(Kind::Door, place, slot as u32);
        engine
            .ring
            .watch(self.halls[slot].descriptor(), libc::POLLIN, token);
    }

    /// Accepts who waits and sends the sockets round the machines.
    pub fn handle_door(&mut self, slot: u32, now: Now, engine: &mut Engine) {
        let hall = &mut self.halls[slot as usize];
        let (post, next, shards) = (&mut self.post, &mut self.next, self.all_shards);
        let again = hall.admit(now, |stream| {
            let to = ShardId(*next);
            *next = (to.0 + 1) % shards;
            post.send(Mail::Socket { to, stream });
        });
        if again {
            self.watch_door(slot as usize, engine);
        }
    }

    /// Whether every machine here can serve.
    pub fn is_ready(&self) -> bool {
        self.shards.iter().all(Shard::is_ready)
    }

    pub fn drained(&self) -> bool {
        self.shards.iter().all(Shard::drained)
    }

    /// No new connections; the machines finish what they have.
    pub fn stop(&mut self, now: Now, engine: &mut Engine) {
        self.shut_doors();
        for shard in &mut self.shards {
            shard.step(now, Event::Stop);
            shard.settle(now, engine, &mut self.post);
        }
    }

    fn shut_doors(&mut self) {
        self.halls.iter_mut().for_each(Hall::shut);
    }

    /// Closes what is open.
    pub fn end(&mut self, now: Now, engine: &mut Engine) {
        self.shut_doors();
        for shard in &mut self.shards {
            shard.hang_up_all();
            shard.settle(now, engine, &mut self.post);
        }
    }

    /// Whether connections or disk orders are left.
    pub fn is_busy(&self) -> bool {
        let busy = |shard: &Shard<M>| shard.connections() > 0 || shard.disk.is_busy();
        self.shards.iter().any(busy)
    }

    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.shards.iter().for_each(|shard| stats.add(&shard.stats));
        stats
    }

    /// Whether there is work that no completion will tell of.
    pub fn is_restless(&self) -> bool {
        self.post.is_restless() || self.shards.iter().any(Shard::has_input)
    }

    /// When the next tick, or another try at a door, is due.
    pub fn deadline(&self) -> Option<Mono> {
        let ticks = self.shards.iter().filter_map(Shard::deadline);
        ticks
            .chain(self.halls.iter().filter_map(Hall::rests_until))
            .min()
    }

    /// One event for the machine at `place`, and what follows from it.
    pub fn handle(
        &mut self,
        (kind, place, slot): (Kind, Place, u32),
        done: ring::Done,
        now: Now,
        engine: &mut Engine,
    ) {
        if kind == Kind::Door {
            return self.handle_door(slot, now, engine);
        }
        let shard = &mut self.shards[usize::from(place.machine)];
        match kind {
            Kind::Input => shard.handle_input(slot),
            Kind::Output => shard.handle_room(now, slot, engine),
            Kind::Disk => shard.handle_disk(now, slot, done, engine),
            Kind::Bell | Kind::Door => {}
        }
        engine.touch(place);
    }

    pub fn handle_found(&mut self, found: Found, now: Now, engine: &mut Engine) {
        let shard = &mut self.shards[usize::from(found.place.machine)];
        shard.handle_found(now, found.what, engine);
        engine.touch(found.place);
    }

    /// Delivers the mail that has come.
    pub fn deliver(&mut self, now: Now, engine: &mut Engine) {
        if self.post.relieve() {
            self.shards.iter_mut().for_each(Shard::resume);
        }
        if !self.post.has_mail() {
            return;
        }
        let mut all = std::mem::take(&mut self.mail);
        self.post.collect(&mut all);
        for mail in all.drain(..) {
            let to = mail.to();
            let at = usize::from(to.0) / self.post.executors();
            let shard = &mut self.shards[at];
            assert_eq!(shard.id, to, "mail arrives where its shard lives");
            match mail {
                Mail::Letter(letter) => shard.deliver(now, letter),
                // What keeps a connection from opening was noted by the shard.
                Mail::Socket { stream, .. } => {
                    drop(shard.open(now, stream, None, &engine.options));
                }
            }
            engine.touch(Place {
                fleet: self.fleet,
                machine: at as u16,
            });
        }
        self.mail = all;
    }

    /// When the next rest of a connection ends that no completion ends.
    pub fn rests_until_ns(&self) -> Option<u64> {
        let rests = self.shards.iter().filter_map(Shard::rests_until_ns);
        rests.min()
    }

    /// Ticks of machines that asked for one, rests that end, and doors that may try again.
    pub fn tick(&mut self, now: Now, engine: &mut Engine) {
        for (at, shard) in self.shards.iter_mut().enumerate() {
            let rested = shard.rests_until_ns();
            if rested.is_some_and(|until_ns| until_ns <= engine.round_start_ns()) {
                engine.touch(Place {
                    fleet: self.fleet,
                    machine: at as u16,
                });
            }
            if shard.deadline().is_some_and(|due| due <= now.mono) {
                shard.step(now, Event::Tick);
                engine.touch(Place {
                    fleet: self.fleet,
                    machine: at as u16,
                });
            }
        }
        for slot in 0..self.halls.len() {
            if self.halls[slot]
                .rests_until()
                .is_some_and(|until| until <= now.mono)
            {
                self.handle_door(slot as u32, now, engine);
            }
        }
    }

    /// Ends the turns of machines that something happened to.
    pub fn settle(&mut self, now: Now, engine: &mut Engine) {
        for (at, shard) in self.shards.iter_mut().enumerate() {
            if engine.take_touched(self.fleet, at) {
                shard.settle(now, engine, &mut self.post);
            }
        }
    }

    /// Reads connections, some of each machine, until the round is over or none is left.
    pub fn read(&mut self, engine: &mut Engine) {
        for shard in &mut self.shards {
            if !shard.has_input() {
                continue;
            }
            shard.read_some(engine, self.post.congested());
            let now = engine.clock.now();
            shard.settle(now, engine, &mut self.post);
        }
    }

    pub fn has_input(&self) -> bool {
        self.shards.iter().any(Shard::has_input)
    }

    pub fn sweep(&mut self, now: Now, engine: &mut Engine) {
        for (at, shard) in self.shards.iter_mut().enumerate() {
            shard.sweep(now, &engine.options);
            engine.touch(Place {
                fleet: self.fleet,
                machine: at as u16,
            });
        }
    }
}
