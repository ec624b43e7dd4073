//! Members that lock queues to consume them in order: no queue is two members' at a time, whatever
//! becomes of the broker meanwhile.

use std::collections::BTreeMap;

use orbitmq::remoting::body::json;
use orbitmq::remoting::body::lock::{LockBatch, LockedQueues};
use orbitmq::remoting::body::queue::MessageQueue;
use orbitmq::remoting::command::Command;

use crate::client::{Asked, Client, Ctx, Role, remark_of};
use crate::model::Check;

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

const SUCCESS: i32 = 0;
const LOCK: i32 = 41;
const UNLOCK: i32 = 42;
/// Life of a lock, µs.
const LIFE_US: u64 = 60_000_000;

/// What members were told of locks.
#[derive(Default)]
pub struct Held {
    by_queue: BTreeMap<MessageQueue, Holder>,
}

struct Holder {
    member: String,
    /// When the lock was asked for and answered last, µs.
    asked_at: u64,
    at: u64,
    /// It may have been let go, or is not on a disk.
    doubtful: bool,
}

impl Held {
    /// A power cut under `ASYNC_FLUSH`.
    pub fn forget_since(&mut self, firm: u64) {
        self.by_queue.retain(|_, holder| holder.at <= firm);
    }
}

pub struct Locker {
    id: String,
    /// An unlock of it may still be on its way: it locks no more.
    pub retired: bool,
}

impl Locker {
    pub fn new(id: String) -> Locker {
        let retired = false;
        Locker { id, retired }
    }
}

impl Client {
    pub fn lock_queues(&mut self, ctx: &mut Ctx<'_>) {
        let Role::Locker(locker) = &self.role else {
            return;
        };
        let live = ctx.model.live();
        let topics: Vec<_> = live
            .iter()
            .filter(|(name, _)| name.starts_with('t'))
            .collect();
        if locker.retired || topics.is_empty() || self.waiting_answers() > 0 {
            return;
        }
        let member = locker.id.clone();
        let (topic, queues) = ctx.rng.pick(&topics);
        let wanted = (0..*queues).filter(|_| ctx.rng.percent(60));
        let wanted: Vec<MessageQueue> = wanted
            .map(|queue_id| MessageQueue {
                broker_name: "broker-a".to_owned(),
                queue_id,
                topic: topic.clone(),
            })
            .collect();
        let unlocks = ctx.rng.percent(25);
        if unlocks {
            for queue in &wanted {
                let holder = ctx.model.locks.by_queue.get_mut(queue);
                if let Some(holder) = holder.filter(|holder| holder.member == member) {
                    holder.doubtful = true;
                }
            }
        }
        let body = json::to_vec(&LockBatch {
            client_id: member,
            consumer_group: "ord".to_owned(),
            mq_set: wanted,
            only_this_broker: false,
        });
        let (code, asked) = match unlocks {
            true => (UNLOCK, Asked::Unlock),
            false => (LOCK, Asked::Lock),
        };
        self.ask(ctx, code, Some(asked), |_| {}, &body);
    }

    pub fn locked(&mut self, ctx: &mut Ctx<'_>, asked_at: u64, command: &Command<'_>) -> Check {
        let Role::Locker(locker) = &self.role else {
            return Ok(());
        };
        let (code, remark) = (command.code, remark_of(command));
        ensure!(code == SUCCESS, "lock: code {code}: {remark}");
        let told: LockedQueues =
            json::from_slice(command.body).map_err(|error| error.to_string())?;
        // What is locked when the disk has failed, a restart does not know.
        let doubtful = ctx.failed[0].is_some();
        for queue in told.queues {
            let before = ctx.model.locks.by_queue.get(&queue);
            let others = before.filter(|holder| holder.member != locker.id && !holder.doubtful);
            ensure!(
                others.is_none_or(|holder| holder.asked_at + LIFE_US <= ctx.now),
                "{queue:?} is locked by {}, given to {}",
                others.map_or("", |holder| &holder.member),
                locker.id
            );
            let member = locker.id.clone();
            let holder = Holder {
                member,
                asked_at,
                at: ctx.now,
                doubtful,
            };
            ctx.model.locks.by_queue.insert(queue, holder);
        }
        Ok(())
    }
}
