//! Queues that sends went to lately, a cache line each.
//!
//! From a topic's name to the place of its queue it is two tables, two names, a topic and a list:
//! a dozen lines of memory, which no cache holds when there are thousands of topics. A queue that
//! is found here passed all checks that the topic asks for, and needs none of that again. All is
//! forgotten when a topic changes.

use std::hash::BuildHasher;

use crate::base::ShardId;
use crate::store::consumequeue::QueueSlot;

/// A longer name takes the long way each time.
const NAME_BYTES: usize = 39;
/// The table begins with so many lines and grows by [`GROWTH`] while more than half are in use.
const LINES_MIN: usize = 256;
const GROWTH: usize = 8;
/// 8 MiB.
const LINES_MAX: usize = 1 << 17;
/// Places of a queue, side by side; a power of two. With 40,000 queues in as many lines as there
/// may be, two places would leave a twelfth of the sends without, for those who share them drive
/// each other out.
const PLACES: usize = 8;

/// Where the messages of a queue go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Into a queue of this shard.
    Here { slot: QueueSlot, topic_id: u64 },
    /// To the shard that owns it.
    There(ShardId),
}

#[repr(align(64))]
#[derive(Clone)]
struct Line {
    route: Route,
    queue_id: i32,
    /// 0: of no generation.
    generation: u32,
    len: u8,
    name: [u8; NAME_BYTES],
}

impl Line {
    const EMPTY: Line = Line {
        route: Route::There(ShardId(0)),
        queue_id: 0,
        generation: 0,
        len: 0,
        name: [0; NAME_BYTES],
    };
}

/// A table in which nearly each queue is in the first of its places.
pub struct Routes {
    lines: Vec<Line>,
    generation: u32,
    /// Lines of this generation.
    used: usize,
}

impl Default for Routes {
    fn default() -> Self {
        Routes {
            lines: Vec::new(),
            generation: 1,
            used: 0,
        }
    }
}

impl Routes {
    #[inline]
    pub fn get(&self, topic: &str, queue_id: i32) -> Option<Route> {
        let place = self.place(topic, queue_id);
        let mut lines = places(place).filter_map(|at| self.lines.get(at));
        let line = lines.find(|line| self.is_of(line, topic, queue_id))?;
        Some(line.route)
    }

    #[inline]
    fn is_of(&self, line: &Line, topic: &str, queue_id: i32) -> bool {
        line.generation == self.generation
            && line.queue_id == queue_id
            && line.name.get(..usize::from(line.len)) == Some(topic.as_bytes())
    }

    pub fn put(&mut self, topic: &str, queue_id: i32, route: Route) {
        if topic.len() > NAME_BYTES {
            return;
        }
        if self.used * 2 >= self.lines.len() && self.lines.len() < LINES_MAX {
            let lines = (self.lines.len() * GROWTH).clamp(LINES_MIN, LINES_MAX);
            self.lines = vec![Line::EMPTY; lines];
            self.used = 0;
        }
        let place = self.place(topic, queue_id);
        let place = self.room(place, topic, queue_id);
        let line = &mut self.lines[place];
        self.used += usize::from(line.generation != self.generation);
        line.route = route;
        line.queue_id = queue_id;
        line.generation = self.generation;
        line.len = topic.len() as u8;
        line.name[..topic.len()].copy_from_slice(topic.as_bytes());
    }

    /// Which place a queue gets: where it is, else the first empty one, else its first.
    fn room(&self, place: usize, topic: &str, queue_id: i32) -> usize {
        let is_there = |at: &usize| self.is_of(&self.lines[*at], topic, queue_id);
        let is_empty = |at: &usize| self.lines[*at].generation != self.generation;
        let known = places(place).find(is_there);
        known
            .or_else(|| places(place).find(is_empty))
            .unwrap_or(place)
    }

    /// A topic has changed.
    pub fn forget(&mut self) {
        self.used = 0;
        self.generation = match self.generation.checked_add(1) {
            Some(next) => next,
            None => {
                self.lines = Vec::new();
                1
            }
        };
    }

    /// The numbers of lines are powers of two.
    #[inline]
    fn place(&self, topic: &str, queue_id: i32) -> usize {
        let hash = foldhash::fast::FixedState::default().hash_one((topic, queue_id));
        hash as usize & self.lines.len().saturating_sub(1)
    }
}

/// The places of a queue whose first is `place`.
#[inline]
fn places(place: usize) -> impl Iterator<Item = usize> {
    (0..PLACES).map(move |n| place ^ n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn route(n: u32) -> Route {
        match n % 3 {
            0 => Route::There(ShardId(n as u16)),
            _ => Route::Here {
                slot: QueueSlot(n),
                topic_id: u64::from(n) + 7,
            },
        }
    }

    #[test]
    fn a_line_is_a_cache_line() {
        assert_eq!((size_of::<Line>(), align_of::<Line>()), (64, 64));
        assert!(
            LINES_MIN.is_power_of_two() && LINES_MAX.is_power_of_two() && GROWTH.is_power_of_two()
        );
        assert_eq!(LINES_MAX * size_of::<Line>(), 8 << 20);
    }

    #[test]
    fn what_is_found_is_what_was_put_last() {
        let (mut routes, mut model) = (Routes::default(), HashMap::new());
        assert_eq!(routes.get("t", 0), None);
        let mut found = 0;
        for n in 0..400_000u32 {
            let key = (
                format!("topic-{}", n.wrapping_mul(7919) % 9_000),
                (n % 8) as i32,
            );
            let expected = model.get(&key).copied();
            let got = routes.get(&key.0, key.1);
            assert!(got.is_none() || got == expected, "{key:?}");
            found += u32::from(got.is_some());
            routes.put(&key.0, key.1, route(n));
            assert_eq!(routes.get(&key.0, key.1), Some(route(n)));
            model.insert(key, route(n));
        }
        assert!(found > 200_000, "most are found: {found}");
        assert!(routes.lines.len() <= LINES_MAX);
        routes.forget();
        let stays = model.keys().find(|key| routes.get(&key.0, key.1).is_some());
        assert_eq!(stays, None, "all is forgotten");
    }

    #[test]
    fn of_40_000_queues_nearly_all_stay() {
        let mut routes = Routes::default();
        let queues = || (0..40_000u32).map(|n| (format!("topic-{}", n / 4), (n % 4) as i32));
        // The table grows the first time.
        for _ in 0..2 {
            for (topic, queue_id) in queues() {
                routes.put(&topic, queue_id, route(1));
            }
        }
        let found = queues().filter(|(topic, queue_id)| routes.get(topic, *queue_id).is_some());
        let found = found.count();
        assert!(found > 39_900, "{found}");
    }

    #[test]
    fn names_are_compared_whole_and_long_ones_are_not_kept() {
        let mut routes = Routes::default();
        let long = "x".repeat(NAME_BYTES + 1);
        routes.put(&long, 0, route(1));
        assert_eq!(routes.get(&long, 0), None);
        routes.put(&long[1..], 0, route(1));
        assert_eq!(routes.get(&long[1..], 0), Some(route(1)));
        assert_eq!(routes.get(&long[2..], 0), None);
        assert_eq!(routes.get(&long[1..], 1), None);
    }

    #[test]
    fn generations_begin_again() {
        let mut routes = Routes {
            generation: u32::MAX,
            ..Routes::default()
        };
        routes.put("t", 0, route(1));
        routes.forget();
        assert_eq!((routes.get("t", 0), routes.generation), (None, 1));
    }
}
