//! The machines of one fleet on one executor, and the loops that call into them. All loops live as
//! long as the team; nothing is spawned per message.

use super::bell::Bell;
use super::clock::Clock;
use super::dir::{FsDir, wait_for_writes};
use super::disk::Disk;
use super::drive::{Setting, Shard};
use super::mesh::{Ends, Mail, Post};
use super::net::{Door, accept_loop, dial_loop};
use super::pace::Pace;
use super::{Make, Options, Stats};
use crate::base::ShardId;
use crate::machine::{Event, Machine};
use glommio::Task;
use glommio::channels::shared_channel::ConnectedReceiver;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// How often limits of connections are looked at, unless they are shorter.
const SWEEP: Duration = Duration::from_secs(1);
/// How long closing connections may take at the end.
const CLOSING: Duration = Duration::from_secs(1);

/// The part of a fleet that one executor gets; sent to its thread.
pub struct Part<M: Machine> {
    pub make: Make<M>,
    /// The machines to make here.
    pub dirs: Vec<(ShardId, PathBuf)>,
    /// Machines in the whole fleet.
    pub shards: u16,
    pub executor: usize,
    pub executors: usize,
    pub ends: Ends<M::Peer>,
}

/// What all machines of an executor share.
#[derive(Clone)]
pub struct Around {
    pub options: Rc<Options>,
    pub clock: Clock,
    pub pace: Rc<Pace>,
    /// Rung when a machine has drained.
    pub drain: Rc<Bell>,
}

pub struct Team<M: Machine> {
    shards: Vec<Rc<Shard<M>>>,
    /// Machines in the whole fleet.
    all_shards: u16,
    executors: usize,
    post: Rc<Post<M::Peer>>,
    ends: Cell<Option<Ends<M::Peer>>>,
    pace: Rc<Pace>,
    tasks: RefCell<Vec<Task<()>>>,
    doors: RefCell<Vec<Task<()>>>,
}

impl<M: Machine + 'static> Team<M> {
    /// Makes the machines; blocks while they recover.
    pub fn make(part: Part<M>, around: &Around) -> Result<Rc<Self>, String> {
        let post = Rc::new(Post::new(part.executor, part.executors));
        let mut shards = Vec::new();
        for (id, path) in part.dirs {
            let dir = FsDir::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            wait_for_writes(&path.join(crate::store::segment::FOLDER))?;
            let machine = (part.make)(id, &dir, around.clock.now())?;
            let setting = Setting {
                id,
                shards: part.shards,
                around: around.clone(),
                disk: Disk::new(path),
                post: post.clone(),
            };
            shards.push(Rc::new(Shard::new(machine, setting)));
        }
        Ok(Rc::new(Team {
            shards,
            all_shards: part.shards,
            executors: part.executors,
            post,
            ends: Cell::new(Some(part.ends)),
            pace: around.pace.clone(),
            tasks: RefCell::default(),
            doors: RefCell::default(),
        }))
    }

    /// Joins the mesh and starts all loops. The same must happen on all executors.
    pub async fn start(self: &Rc<Self>) {
        let ends = self.ends.take().expect("a team starts once");
        for receiver in self.post.join(ends).await {
            self.spawn(mail_loop(self.clone(), receiver));
        }
        for lane in self.post.lanes() {
            let team = self.clone();
            self.spawn(async move {
                loop {
                    lane.pump().await;
                    team.relieve();
                }
            });
        }
        self.spawn(inbox_loop(self.clone()));
        for shard in &self.shards {
            for _ in 0..shard.around.options.writes_in_flight {
                self.spawn(flush_loop(shard.clone()));
            }
            for _ in 0..shard.around.options.orders_in_flight {
                self.spawn(order_loop(shard.clone()));
            }
            self.spawn(dial_loop(shard.clone()));
            self.spawn(deadline_loop(shard.clone()));
            self.spawn(sweep_loop(shard.clone()));
            let now = shard.now();
            shard.step(now, Event::Start);
            shard.settle(now);
        }
    }

    /// Whether every machine here can serve.
    pub fn ready(&self) -> bool {
        self.shards.iter().all(|shard| shard.ready())
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push(glommio::spawn_local(task));
    }

    pub fn accept(&self, doors: Vec<Door>) {
        let next = Rc::new(Cell::new(0));
        for door in doors {
            let post = self.post.clone();
            let pace = self.pace.clone();
            let accepting = accept_loop(door, post, self.all_shards, next.clone(), pace);
            self.doors
                .borrow_mut()
                .push(glommio::spawn_local(accepting));
        }
    }

    /// No new connections; the machines finish what they have.
    pub fn stop(&self) {
        self.doors.borrow_mut().clear();
        for shard in &self.shards {
            let now = shard.now();
            shard.step(now, Event::Stop);
            shard.settle(now);
        }
    }

    pub fn drained(&self) -> bool {
        self.shards.iter().all(|shard| shard.drained())
    }

    /// Closes what is open and ends all loops.
    pub async fn end(&self) -> Stats {
        self.doors.borrow_mut().clear();
        for shard in &self.shards {
            shard.hang_up_all();
        }
        for shard in &self.shards {
            while shard.connections() > 0 && shard.emptied.wait_for(CLOSING).await {}
        }
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        for task in tasks {
            task.cancel().await;
        }
        let mut stats = Stats::default();
        for shard in &self.shards {
            stats.add(&shard.stats.borrow());
        }
        stats
    }

    fn deliver(&self, mail: Mail<M::Peer>) {
        let at = usize::from(mail.to().0) / self.executors;
        let shard = &self.shards[at];
        assert_eq!(shard.id, mail.to(), "mail arrives where its shard lives");
        match mail {
            Mail::Letter(letter) => shard.deliver(letter),
            // What keeps a connection from opening was noted by the shard.
            Mail::Socket { accepted, .. } => drop(shard.open(accepted.bind_to_executor(), None)),
        }
    }

    fn relieve(&self) {
        if self.post.relieve() {
            for shard in &self.shards {
                shard.resume();
            }
        }
    }
}

async fn mail_loop<M: Machine + 'static>(
    team: Rc<Team<M>>,
    receiver: ConnectedReceiver<Mail<M::Peer>>,
) {
    while let Some(mail) = receiver.recv().await {
        team.deliver(mail);
        team.pace.breathe().await;
    }
}

async fn inbox_loop<M: Machine + 'static>(team: Rc<Team<M>>) {
    loop {
        let mail = team.post.inbox.pop().await;
        team.deliver(mail);
        team.pace.breathe().await;
    }
}

/// All of group commit outside the store: while a write is at the disk, the next group gathers.
async fn flush_loop<M: Machine + 'static>(shard: Rc<Shard<M>>) {
    loop {
        let (id, order) = shard.next_write().await;
        shard.perform(id, order).await;
    }
}

async fn order_loop<M: Machine + 'static>(shard: Rc<Shard<M>>) {
    loop {
        let (id, order) = shard.orders.pop().await;
        shard.perform(id, order).await;
    }
}

async fn deadline_loop<M: Machine + 'static>(shard: Rc<Shard<M>>) {
    loop {
        let Some(deadline) = shard.arm() else {
            shard.deadline_moved.wait().await;
            continue;
        };
        let wait_ms = deadline.since_ms(shard.now().mono);
        shard
            .deadline_moved
            .wait_for(Duration::from_millis(wait_ms))
            .await;
        let now = shard.now();
        if shard.arm().is_some_and(|deadline| deadline <= now.mono) {
            shard.step(now, Event::Tick);
            shard.settle(now);
            shard.around.pace.breathe().await;
        }
    }
}

async fn sweep_loop<M: Machine + 'static>(shard: Rc<Shard<M>>) {
    let every = SWEEP
        .min(shard.around.options.idle / 2)
        .min(shard.around.options.half_frame / 2);
    loop {
        glommio::timer::sleep(every).await;
        shard.sweep();
        shard.log_trouble();
    }
}
