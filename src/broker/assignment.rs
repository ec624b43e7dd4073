//! Which member of a group gets which queues, where the broker decides that, and which groups pop.
//!
//! Source: `QueryAssignmentProcessor`, `MessageRequestModeManager`,
//! `AllocateMessageQueueAveragely`; `spec/semantics.md` §5.

use crate::remoting::body::assignment::RequestMode;
use crate::remoting::body::queue::MessageQueue;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pairs of topic and group with a mode of their own.
pub const MODES_MAX: usize = 100_000;

/// How a group gets the messages of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mode {
    pub pops: bool,
    /// With how many members each shares its queues; all with all if 0 or less.
    pub share: i32,
}

impl Mode {
    pub fn request_mode(self) -> RequestMode {
        match self.pops {
            true => RequestMode::Pop,
            false => RequestMode::Pull,
        }
    }
}

/// What operators have chosen; everybody else pulls.
#[derive(Default)]
pub struct Modes {
    table: BTreeMap<(String, String), Mode>,
}

impl Modes {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn put(&mut self, topic: &str, group: &str, mode: Mode) {
        self.table
            .insert((topic.to_owned(), group.to_owned()), mode);
    }

    pub fn of(&self, topic: &str, group: &str) -> Mode {
        let key = (topic.to_owned(), group.to_owned());
        self.table.get(&key).copied().unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Mode)> {
        let rows = self.table.iter();
        rows.map(|((topic, group), mode)| (topic.as_str(), group.as_str(), *mode))
    }

    pub fn drop_topic(&mut self, topic: &str) {
        self.table.retain(|(known, _), _| known != topic);
    }

    pub fn drop_group(&mut self, group: &str) {
        self.table.retain(|(_, known), _| known != group);
    }
}

/// What one member of a group gets of `queues`, both sorted; `None` for a rule that is not known
/// here.
pub fn allocate(
    strategy: &str,
    mode: Mode,
    client: &str,
    queues: &[MessageQueue],
    clients: &[Arc<str>],
) -> Option<Vec<MessageQueue>> {
    let share = match strategy {
        "AVG" => averagely,
        "AVG_BY_CIRCLE" => by_circle,
        _ => return None,
    };
    let Some(at) = clients.iter().position(|known| **known == *client) else {
        return Some(Vec::new());
    };
    if !mode.pops {
        return Some(share(at, queues, clients.len()));
    }
    let (shares, members) = (mode.share.max(0) as usize, clients.len());
    if shares == 0 || shares + 1 >= members {
        let any = queues.iter().map(|queue| MessageQueue {
            queue_id: -1,
            ..queue.clone()
        });
        let mut any: Vec<MessageQueue> = any.collect();
        any.dedup();
        return Some(any);
    }
    if members > queues.len() {
        return Some(vec![queues[at % queues.len().max(1)].clone()]);
    }
    let those = (0..=shares).flat_map(|n| share((at + n) % members, queues, members));
    Some(those.collect())
}

/// Neighbouring queues; the first members get one more if it does not come out even.
fn averagely(at: usize, queues: &[MessageQueue], members: usize) -> Vec<MessageQueue> {
    let (each, more) = (queues.len() / members, queues.len() % members);
    let first = at * each + at.min(more);
    let count = each + usize::from(at < more);
    queues[first..first + count].to_vec()
}

fn by_circle(at: usize, queues: &[MessageQueue], members: usize) -> Vec<MessageQueue> {
    queues.iter().skip(at).step_by(members).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(count: i32) -> Vec<MessageQueue> {
        (0..count)
            .map(|queue_id| MessageQueue {
                broker_name: if queue_id % 2 == 0 { "a" } else { "b" }.to_owned(),
                queue_id,
                topic: "t".to_owned(),
            })
            .collect()
    }

    fn clients(count: usize) -> Vec<Arc<str>> {
        (0..count).map(|n| format!("c{n:02}").into()).collect()
    }

    #[test]
    fn every_queue_goes_to_exactly_one_member() {
        for strategy in ["AVG", "AVG_BY_CIRCLE"] {
            for (count, members) in [(0, 1), (4, 3), (3, 4), (8, 8), (17, 5)] {
                let (queues, clients) = (queues(count), clients(members));
                let mut all: Vec<i32> = clients
                    .iter()
                    .flat_map(|client| {
                        allocate(strategy, Mode::default(), client, &queues, &clients).unwrap()
                    })
                    .map(|queue| queue.queue_id)
                    .collect();
                all.sort_unstable();
                assert_eq!(
                    all,
                    (0..count).collect::<Vec<_>>(),
                    "{strategy} {count} {members}"
                );
            }
        }
    }

    #[test]
    fn members_that_pop_share() {
        let (queues, clients) = (queues(4), clients(4));
        let pop = |share| Mode { pops: true, share };
        let of = |share| {
            let mut got = allocate("AVG", pop(share), "c01", &queues, &clients).unwrap();
            got.sort_by_key(|queue| (queue.broker_name.clone(), queue.queue_id));
            got.iter().map(|queue| queue.queue_id).collect::<Vec<_>>()
        };
        assert_eq!(of(1), [2, 1], "its own and the next one's");
        assert!(of(0).iter().all(|id| *id == -1));
        assert_eq!(
            allocate("AVG", pop(0), "x", &queues, &clients),
            Some(vec![])
        );
        assert_eq!(allocate("NEAR", pop(0), "c01", &queues, &clients), None);
    }
}
