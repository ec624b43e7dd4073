//! How many messages came into each topic and how many of them each group got, over the last
//! minute, hour and day: what VIEW_BROKER_STATS_DATA 315 tells.
//!
//! Queues count what is appended to them; a sample gathers that every [`TICK_MS`], as far as there
//! is any. What groups get is counted here, once per answer. A row keeps what its totals were at
//! the ticks of a minute, an hour and a day at which they had changed, so a row of a quiet topic is
//! small. Unlike the reference, sums go up to now and not to the last tick.
//!
//! Nothing here is durable: counting begins with the start, as in the reference. Topics and groups
//! beyond [`ROWS_MAX`] are not counted one by one.
//!
//! Source: `BrokerStatsManager`, `StatsItem`.

use crate::base::{Map, Mono};
use crate::store::queues::Growth;
use std::collections::VecDeque;
use std::sync::Arc;

/// Topics, and pairs of topic and group, that one shard counts.
pub const ROWS_MAX: usize = 8192;
const TICK_MS: u64 = 10_000;
/// Minute, hour and day: how long, and how often a total is kept.
const SPANS: [(u64, u64); 3] = [
    (60_000, TICK_MS),
    (3_600_000, 600_000),
    (86_400_000, 3_600_000),
];

/// Messages, their bytes as stored, and the sends or answers they came with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    pub messages: u64,
    pub bytes: u64,
    pub times: u64,
}

impl Count {
    fn add(&mut self, more: Count) {
        self.messages += more.messages;
        self.bytes += more.bytes;
        self.times += more.times;
    }

    fn since(self, base: Count) -> Count {
        Count {
            messages: self.messages - base.messages,
            bytes: self.bytes - base.bytes,
            times: self.times - base.times,
        }
    }
}

/// What was counted in one span, and over how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    pub count: Count,
    pub ms: u64,
}

/// Minute, hour, day.
pub type Sums = [Sum; 3];

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tally {
    /// Of a topic, by its id.
    Put(u64),
    Got(u64, String),
    AllPut,
    AllGot,
}

struct Row {
    total: Count,
    begun: Mono,
    /// For each span, totals at ticks; one of them may be older than the span.
    samples: [VecDeque<(Mono, Count)>; 3],
}

impl Row {
    fn new(begun: Mono) -> Row {
        Row {
            total: Count::default(),
            begun,
            samples: Default::default(),
        }
    }

    fn sample(&mut self, span: usize, tick: Mono) {
        let samples = &mut self.samples[span];
        let newest = samples.back().map_or(Count::default(), |(_, total)| *total);
        if newest != self.total {
            samples.push_back((tick, self.total));
        }
        let since = tick.0.saturating_sub(SPANS[span].0);
        while samples.get(1).is_some_and(|(at, _)| at.0 <= since) {
            samples.pop_front();
        }
    }

    fn sum(&self, span: usize, now: Mono) -> Sum {
        let (length, tick) = SPANS[span];
        let since = now.0.saturating_sub(length);
        let base = self.samples[span].iter().rev();
        let base = base
            .map(|(at, total)| (at.0, *total))
            .find(|(at, _)| *at <= since);
        let begin = (since / tick * tick).max(self.begun.0);
        Sum {
            count: self
                .total
                .since(base.map_or(Count::default(), |(_, total)| total)),
            ms: now.0.saturating_sub(begin).max(TICK_MS),
        }
    }

    fn is_idle(&self, now: Mono) -> bool {
        let [.., day] = self.sums(now);
        day.count == Count::default() && now.since_ms(self.begun) > SPANS[2].0
    }

    fn sums(&self, now: Mono) -> Sums {
        [0, 1, 2].map(|span| self.sum(span, now))
    }
}

struct OfTopic {
    put: Row,
    groups: Map<Arc<str>, Row>,
}

/// The tallies of one shard.
pub struct Tallies {
    /// By topic id.
    topics: Map<u64, OfTopic>,
    all_put: Row,
    all_got: Row,
    /// Of topics and groups, never more than [`ROWS_MAX`].
    rows: usize,
    /// Up to where each span is sampled, and whether anything was counted since.
    sampled: [Mono; 3],
    changed: [bool; 3],
}

impl Tallies {
    pub fn new(now: Mono) -> Tallies {
        Tallies {
            topics: Map::default(),
            all_put: Row::new(now),
            all_got: Row::new(now),
            rows: 0,
            sampled: [now; 3],
            changed: [false; 3],
        }
    }

    pub fn is_full(&self) -> bool {
        self.rows >= ROWS_MAX
    }

    /// Messages came into queues of a topic.
    pub fn put(&mut self, topic: u64, growth: Growth) {
        let count = Count {
            messages: growth.messages,
            bytes: growth.bytes,
            times: growth.sends,
        };
        self.changed = [true; 3];
        self.all_put.total.add(count);
        let begun = self.sampled[0];
        if let Some(of_topic) = self.of_topic(topic, begun) {
            of_topic.put.total.add(count);
        }
    }

    /// A group got messages of a topic.
    pub fn got(&mut self, now: Mono, topic: u64, group: &str, messages: usize, bytes: usize) {
        if messages == 0 {
            return;
        }
        let count = Count {
            messages: messages as u64,
            bytes: bytes as u64,
            times: 1,
        };
        self.changed = [true; 3];
        self.all_got.total.add(count);
        let known = self.topics.get_mut(&topic);
        match known.and_then(|of_topic| of_topic.groups.get_mut(group)) {
            Some(row) => row.total.add(count),
            None => self.first_got(now, topic, group, count),
        }
    }

    #[cold]
    fn first_got(&mut self, now: Mono, topic: u64, group: &str, count: Count) {
        if self.of_topic(topic, now).is_none() || self.is_full() {
            return;
        }
        let of_topic = self.topics.get_mut(&topic).expect("just entered");
        let mut row = Row::new(now);
        row.total = count;
        of_topic.groups.insert(group.into(), row);
        self.rows += 1;
    }

    fn of_topic(&mut self, topic: u64, begun: Mono) -> Option<&mut OfTopic> {
        let fresh = !self.topics.contains_key(&topic);
        if fresh && self.is_full() {
            return None;
        }
        self.rows += usize::from(fresh);
        Some(self.topics.entry(topic).or_insert_with(|| OfTopic {
            put: Row::new(begun),
            groups: Map::default(),
        }))
    }

    pub fn drop_topic(&mut self, topic: u64) {
        if let Some(gone) = self.topics.remove(&topic) {
            self.rows -= 1 + gone.groups.len();
        }
    }

    pub fn drop_group(&mut self, group: &str) {
        for of_topic in self.topics.values_mut() {
            self.rows -= usize::from(of_topic.groups.remove(group).is_some());
        }
    }

    /// Whether [`sample`](Self::sample) has something to do.
    pub fn is_due(&self, now: Mono) -> bool {
        now.since_ms(tick(self.sampled[0], TICK_MS)) >= TICK_MS
    }

    /// When it has, if anything was counted; `grown` if queues have counted something.
    pub fn deadline(&self, grown: bool) -> Option<Mono> {
        let next = |span: usize| {
            let every = SPANS[span].1;
            tick(self.sampled[span], every).after_ms(every)
        };
        let changed = [self.changed[0] || grown, self.changed[1], self.changed[2]];
        (0..3).filter(|span| changed[*span]).map(next).min()
    }

    /// Keeps the totals of the ticks that are over.
    pub fn sample(&mut self, now: Mono) {
        for (span, (_, every)) in SPANS.into_iter().enumerate() {
            let tick = tick(now, every);
            if tick <= self.sampled[span] {
                continue;
            }
            self.sampled[span] = tick;
            if !std::mem::take(&mut self.changed[span]) {
                continue;
            }
            self.all_put.sample(span, tick);
            self.all_got.sample(span, tick);
            for of_topic in self.topics.values_mut() {
                of_topic.put.sample(span, tick);
                let groups = of_topic.groups.values_mut();
                groups.for_each(|row| row.sample(span, tick));
            }
            if span == 2 {
                self.forget_idle(now);
            }
        }
    }

    /// Nothing came or went for a day: the same is said without the row.
    fn forget_idle(&mut self, now: Mono) {
        self.topics.retain(|_, of_topic| {
            of_topic.groups.retain(|_, row| !row.is_idle(now));
            !of_topic.groups.is_empty() || !of_topic.put.is_idle(now)
        });
        let rows = self
            .topics
            .values()
            .map(|of_topic| 1 + of_topic.groups.len());
        self.rows = rows.sum();
    }

    /// `None` for what was never counted.
    pub fn sums(&self, now: Mono, tally: &Tally) -> Option<Sums> {
        let row = match tally {
            Tally::AllPut => &self.all_put,
            Tally::AllGot => &self.all_got,
            Tally::Put(topic) => &self.topics.get(topic)?.put,
            Tally::Got(topic, group) => self.topics.get(topic)?.groups.get(&**group)?,
        };
        Some(row.sums(now))
    }

    /// Messages per second over the last minute.
    pub fn rate(&self, now: Mono, tally: &Tally) -> f64 {
        let sums = self.sums(now, tally);
        sums.map_or(0.0, |[minute, ..]| minute.rate(|count| count.messages))
    }
}

impl Sum {
    pub fn rate(&self, of: impl Fn(&Count) -> u64) -> f64 {
        of(&self.count) as f64 * 1000.0 / self.ms.max(1) as f64
    }
}

/// The last moment that is a whole number of `every` ms.
fn tick(now: Mono, every: u64) -> Mono {
    Mono(now.0 / every * every)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(messages: u64) -> Growth {
        Growth {
            messages,
            bytes: messages * 100,
            sends: 1,
        }
    }

    fn messages(tallies: &Tallies, now: u64, tally: &Tally) -> Option<[u64; 3]> {
        let sums = tallies.sums(Mono(now), tally)?;
        Some(sums.map(|sum| sum.count.messages))
    }

    /// As a broker does: at every tick that is asked for, and in every turn.
    fn pass(tallies: &mut Tallies, to: u64) {
        while let Some(due) = tallies.deadline(false).filter(|due| due.0 <= to) {
            tallies.sample(due);
        }
        tallies.sample(Mono(to));
    }

    #[test]
    fn sums_are_of_their_span_and_up_to_now() {
        let mut tallies = Tallies::new(Mono(0));
        tallies.put(1, growth(100));
        let check = |tallies: &Tallies, now, expected| {
            assert_eq!(
                messages(tallies, now, &Tally::Put(1)),
                Some(expected),
                "{now}"
            );
        };
        check(&tallies, 3_000, [100; 3]);
        pass(&mut tallies, 45_000);
        tallies.put(1, growth(5));
        check(&tallies, 45_000, [105; 3]);
        pass(&mut tallies, 80_000);
        check(&tallies, 80_000, [5, 105, 105]);
        pass(&mut tallies, 4_000_000);
        check(&tallies, 4_000_000, [0, 105, 105]);
        tallies.put(1, growth(7));
        pass(&mut tallies, 4_800_000);
        check(&tallies, 4_800_000, [0, 7, 112]);
        pass(&mut tallies, 90_000_000);
        check(&tallies, 90_000_000, [0, 0, 7]);
        assert_eq!(tallies.deadline(false), None, "nothing changes any more");
        assert_eq!(messages(&tallies, 0, &Tally::Put(2)), None);
    }

    #[test]
    fn rates_are_per_second_of_the_time_that_was_counted() {
        let mut tallies = Tallies::new(Mono(0));
        tallies.got(Mono(0), 1, "g", 30, 3000);
        tallies.got(Mono(0), 1, "g", 10, 1000);
        let got = Tally::Got(1, "g".to_owned());
        assert_eq!(tallies.rate(Mono(2_000), &got), 4.0, "ten seconds at least");
        assert_eq!(tallies.rate(Mono(20_000), &got), 2.0);
        let [minute, ..] = tallies.sums(Mono(0), &got).unwrap();
        let Count { bytes, times, .. } = minute.count;
        assert_eq!((bytes, times), (4000, 2));
        assert_eq!(messages(&tallies, 0, &Tally::AllGot), Some([40; 3]));
        assert_eq!(messages(&tallies, 0, &Tally::AllPut), Some([0; 3]));
    }

    #[test]
    fn a_busy_row_keeps_a_bounded_history() {
        let mut tallies = Tallies::new(Mono(0));
        for second in 0..200_000 {
            tallies.put(1, growth(1));
            pass(&mut tallies, second * 1000);
        }
        let lengths = tallies.topics[&1].put.samples.each_ref().map(VecDeque::len);
        assert!(
            lengths.iter().zip([8, 8, 26]).all(|(is, most)| *is <= most),
            "{lengths:?}"
        );
        let [minute, hour, day] = messages(&tallies, 199_999_000, &Tally::Put(1)).unwrap();
        assert!((60..=70).contains(&minute), "{minute}");
        assert!((3_600..=4_200).contains(&hour), "{hour}");
        assert!((86_400..=90_000).contains(&day), "{day}");
    }

    #[test]
    fn rows_are_limited_and_go_with_their_topic_or_group() {
        let mut tallies = Tallies::new(Mono(0));
        for topic in 0..ROWS_MAX as u64 - 1 {
            tallies.put(topic, growth(1));
        }
        tallies.got(Mono(0), 0, "g", 1, 1);
        assert!(tallies.is_full());
        tallies.got(Mono(0), 0, "h", 1, 1);
        tallies.put(9_999_999, growth(1));
        assert_eq!(messages(&tallies, 0, &Tally::Put(9_999_999)), None);
        assert_eq!(messages(&tallies, 0, &Tally::AllPut), Some([8192; 3]));
        let got = |group: &str| Tally::Got(0, group.to_owned());
        assert_eq!(messages(&tallies, 0, &got("h")), None);
        tallies.drop_group("g");
        assert_eq!(messages(&tallies, 0, &got("g")), None);
        tallies.drop_topic(0);
        assert_eq!(tallies.rows, ROWS_MAX - 2);
        tallies.put(9_999_999, growth(1));
        assert_eq!(messages(&tallies, 0, &Tally::Put(9_999_999)), Some([1; 3]));
    }

    #[test]
    fn what_is_quiet_for_a_day_is_forgotten() {
        let mut tallies = Tallies::new(Mono(0));
        tallies.put(1, growth(1));
        tallies.got(Mono(0), 1, "g", 1, 1);
        pass(&mut tallies, 100_000_000);
        tallies.put(2, growth(1));
        pass(&mut tallies, 200_000_000);
        assert_eq!((tallies.rows, tallies.topics.len()), (1, 1));
        assert_eq!(messages(&tallies, 200_000_000, &Tally::Put(1)), None);
    }
}
