//! QUERY_PENDING_MESSAGES 7001, which is ours: which messages nobody gets yet, page by page.
//!
//! Kinds ([`kind`]): the halves of transactions that are open or parked, messages for a time, delay
//! levels, and which messages for a time were taken back. An answer names places; who wants the
//! messages reads them by VIEW_MESSAGE_BY_ID 33, levels by pulling `SCHEDULE_TOPIC_XXXX`.
//!
//! A shard goes through [`LOOKED_MAX`] halves or index entries for one question, whatever it finds,
//! and says where the next one goes on. Halves come in the order they were stored in each shard;
//! messages for a time hour by hour, within one in the order they were stored, so who wants the
//! next due reads on until `completeMs` is beyond them, and bounds the question by `dueBefore`.
//!
//! What is overdue while an older message cannot be delivered may be listed though it was
//! delivered: deliveries that are ahead are known by their number only.

use crate::base::{LogOffset, Now, QueueOffset, ShardId};
use crate::broker::control::effects::Reject;
use crate::broker::handle::body::parse;
use crate::broker::handle::{Request, bad_header, disk_busy};
use crate::broker::survey::{self, Question, Row};
use crate::broker::timers::{HOUR_MS, SCAN_ENTRIES};
use crate::broker::transactions::Transactions;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::body::json;
use crate::remoting::body::pending::{PendingLevel, PendingMessages, PendingPlace};
use crate::remoting::code::response;
use crate::remoting::header::pending::{self as kind, PENDING_MAX, QueryPending};
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;
use std::fmt::Write as _;
use std::ops::Range;

/// Halves or index entries that a shard looks at for one question.
const LOOKED_MAX: usize = 16 * SCAN_ENTRIES;
/// Hours of messages for a time that it looks at.
const HOURS_MAX: usize = 4096;

/// One question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    wanted: Wanted,
    /// Places that each shard may give.
    most: usize,
    /// Where shards go on; those not named have given all. `None`: all begin.
    from: Option<Vec<(ShardId, Place)>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Wanted {
    Halves { group: Option<String> },
    Timers { from_ms: i64, before_ms: i64 },
    Levels,
    Recalled(Vec<u64>),
}

/// Where a shard goes on: halves by queue offset; timers by hour, and queue offset there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Place {
    hour: u64,
    offset: u64,
}

/// What one shard gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    shard: ShardId,
    next: Option<Place>,
    levels: Vec<PendingLevel>,
    places: Vec<PendingPlace>,
    recalled: Vec<u64>,
}

impl Part {
    fn of(shard: ShardId) -> Part {
        Part {
            shard,
            next: None,
            levels: Vec::new(),
            places: Vec::new(),
            recalled: Vec::new(),
        }
    }
}

pub fn query(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = QueryPending::decode(&request.command.ext).map_err(bad_header)?;
    let shards = broker.options.control.shards;
    let invalid = |remark: String| Reject::new(response::INVALID_PARAMETER, remark);
    let most = usize::try_from(header.max_num).unwrap_or(0);
    if !(1..=PENDING_MAX).contains(&most) {
        let remark = format!("maxNum[{}] must be 1 to {PENDING_MAX}", header.max_num);
        return Err(invalid(remark));
    }
    let wanted = match &*header.kind {
        kind::TRANSACTIONS => Wanted::Halves {
            group: header.producer_group.map(|group| group.into_owned()),
        },
        kind::TIMERS => Wanted::Timers {
            from_ms: header.due_from.unwrap_or(0),
            before_ms: header.due_before.unwrap_or(i64::MAX),
        },
        kind::LEVELS => Wanted::Levels,
        kind::RECALLED => {
            let hashes: Vec<u64> = parse(request.command)?;
            if hashes.len() > PENDING_MAX {
                let count = hashes.len();
                let remark = format!("{count} hashes, one request has {PENDING_MAX} at most");
                return Err(invalid(remark));
            }
            Wanted::Recalled(hashes)
        }
        other => {
            let (a, b, c, d) = (
                kind::TRANSACTIONS,
                kind::TIMERS,
                kind::LEVELS,
                kind::RECALLED,
            );
            let remark = format!("kind[{other}] must be {a}, {b}, {c} or {d}");
            return Err(invalid(remark));
        }
    };
    let from = match header.from.as_deref() {
        None => None,
        Some(text) => Some(places(text, shards).ok_or_else(|| {
            let remark = format!("from[{text}] is not what this broker gave: begin without it");
            invalid(remark)
        })?),
    };
    let listing = Listing {
        wanted,
        most: (most / usize::from(shards)).max(1),
        from,
    };
    survey::ask(broker, request, Question::Listing(listing), out)
}

/// Reads `shard:hour:offset`, separated by commas, each shard once.
fn places(text: &str, shards: u16) -> Option<Vec<(ShardId, Place)>> {
    let mut found: Vec<(ShardId, Place)> = Vec::new();
    for one in text.split(',') {
        let mut numbers = one.split(':');
        let shard = ShardId(numbers.next()?.parse().ok()?);
        let hour = numbers.next()?.parse().ok()?;
        let offset = numbers.next()?.parse().ok()?;
        let known = found.iter().any(|(before, _)| *before == shard);
        if known || shard.0 >= shards || numbers.next().is_some() {
            return None;
        }
        // Hours are numbers of queues.
        i32::try_from(hour).ok()?;
        found.push((shard, Place { hour, offset }));
    }
    Some(found)
}

/// The same of what shards gave; `None` if they gave all.
fn next_of(parts: &[Part]) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        if let Some(Place { hour, offset }) = part.next {
            let gap = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{gap}{}:{hour}:{offset}", part.shard.0);
        }
    }
    (!text.is_empty()).then_some(text)
}

/// What a shard says; `None` while its index is read from the disk.
pub fn rows(
    broker: &mut Broker,
    now: Now,
    listing: &Listing,
    waiter: WaiterId,
) -> Option<Vec<Row>> {
    let mut part = Part::of(broker.me);
    let from = match &listing.from {
        None => Some(Place::default()),
        Some(all) => all
            .iter()
            .find_map(|(shard, from)| (*shard == broker.me).then_some(*from)),
    };
    match (&listing.wanted, from) {
        (Wanted::Halves { group }, Some(from)) => {
            let found = halves(
                &broker.transactions,
                from.offset,
                group.as_deref(),
                listing.most,
            );
            let confirmed = broker.store.confirmed();
            let seen = found.0.into_iter().filter(|(at, _)| *at < confirmed);
            let me = broker.me;
            part.places = seen
                .map(|(at, place)| PendingPlace {
                    physical_offset: at.physical(me),
                    ..place
                })
                .collect();
            part.next = found.1.map(|offset| Place { hour: 0, offset });
        }
        (Wanted::Timers { from_ms, before_ms }, Some(from)) => {
            let first_ms = (*from_ms).max(broker.timers.read_ms(now));
            let mut walk = Walk::new(first_ms..*before_ms, listing.most);
            match timers(broker, &mut walk, from, waiter) {
                Fetch::Wait => return None,
                Fetch::Busy => return Some(vec![Row::Refused(disk_busy())]),
                _ => (part.places, part.next) = (walk.places, walk.next),
            }
        }
        (Wanted::Levels, _) => part.levels = levels(broker),
        (Wanted::Recalled(hashes), _) => {
            let taken = hashes
                .iter()
                .filter(|hash| broker.timers.is_recalled(**hash));
            part.recalled = taken.copied().collect();
        }
        (_, None) => {}
    }
    Some(vec![Row::Listed(Box::new(part))])
}

type Halves = (Vec<(LogOffset, PendingPlace)>, Option<u64>);

/// Halves from an offset on with their places in the log, and where the next question goes on.
fn halves(table: &Transactions, from: u64, group: Option<&str>, most: usize) -> Halves {
    let mut found = Vec::new();
    for (looked, (offset, half)) in table.open_from(from).enumerate() {
        if looked >= LOOKED_MAX || found.len() >= most {
            return (found, Some(offset));
        }
        let name = table.group(half);
        if group.is_none_or(|group| *group == *name) {
            let place = PendingPlace {
                checks: half.checks(),
                parked: half.is_parked(),
                producer_group: Some(name.to_string()),
                ..PendingPlace::default()
            };
            found.push((half.at, place));
        }
    }
    (found, None)
}

fn levels(broker: &Broker) -> Vec<PendingLevel> {
    let levels = broker.delays.waiting();
    levels
        .map(|(level, slot, delay_ms, progress)| {
            let (min, end) = broker.store.visible_range(slot);
            PendingLevel {
                delay_ms,
                end: end.0 as i64,
                level,
                next: progress.max(min.0) as i64,
            }
        })
        .collect()
}

/// The index of a shard's messages for a time: when in its hour each of some entries is due, at
/// least one, ms; and the physical offset of one.
struct Index<S> {
    store: S,
    times: fn(&mut S, QueueSlot, u64, usize) -> Fetch<Vec<i32>>,
    place: fn(&mut S, QueueSlot, u64) -> Fetch<i64>,
}

/// An hour: its number, its queue, and which offsets are visible there.
type Hour = (i64, QueueSlot, Range<u64>);

/// One shard's way through its messages for a time.
struct Walk {
    due: Range<i64>,
    most: usize,
    /// Entries it may still look at.
    left: usize,
    places: Vec<PendingPlace>,
    next: Option<Place>,
    damaged: u64,
}

impl Walk {
    fn new(due: Range<i64>, most: usize) -> Walk {
        Walk {
            due,
            most,
            left: LOOKED_MAX,
            places: Vec::new(),
            next: None,
            damaged: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.left == 0 || self.places.len() >= self.most
    }

    /// Goes on from a place. What is not in memory yet ends the walk, unless nothing was looked at:
    /// then the question waits, or is refused.
    fn run<S>(&mut self, from: Place, hours: Vec<Hour>, index: &mut Index<S>) -> Fetch<()> {
        for (n, (hour, slot, mut range)) in hours.into_iter().enumerate() {
            if hour * HOUR_MS >= self.due.end {
                break;
            }
            if hour == from.hour as i64 {
                range.start = range.start.max(from.offset);
            }
            let stops = n == HOURS_MAX;
            while range.start < range.end || stops {
                let here = Place {
                    hour: hour as u64,
                    offset: range.start,
                };
                if stops || self.is_over() {
                    self.next = Some(here);
                    return Fetch::Ready(());
                }
                match self.look(hour, slot, &range, index) {
                    Fetch::Ready(looked) => range.start += looked,
                    Fetch::Wait | Fetch::Busy if self.left < LOOKED_MAX || n > 0 => {
                        self.next = Some(here);
                        return Fetch::Ready(());
                    }
                    Fetch::Missing | Fetch::Damaged(_) => {
                        self.damaged += 1;
                        break;
                    }
                    other => return other.map(|_| ()),
                }
            }
        }
        Fetch::Ready(())
    }

    /// Looks at the next entries of an hour; gives how many.
    fn look<S>(
        &mut self,
        hour: i64,
        slot: QueueSlot,
        range: &Range<u64>,
        index: &mut Index<S>,
    ) -> Fetch<u64> {
        let most = (range.end - range.start).min(SCAN_ENTRIES.min(self.left) as u64);
        let times = match (index.times)(&mut index.store, slot, range.start, most as usize) {
            Fetch::Ready(times) => times,
            other => return other.map(|_| 0),
        };
        let mut looked = 0;
        for within in &times {
            let due_ms = hour * HOUR_MS + i64::from(*within as u32);
            if self.due.contains(&due_ms) {
                if self.places.len() >= self.most {
                    break;
                }
                let offset = range.start + looked as u64;
                match (index.place)(&mut index.store, slot, offset) {
                    Fetch::Ready(physical_offset) => self.places.push(PendingPlace {
                        due_ms,
                        physical_offset,
                        ..PendingPlace::default()
                    }),
                    other if looked == 0 => return other.map(|_| 0),
                    _ => break,
                }
            }
            looked += 1;
        }
        self.left -= looked;
        Fetch::Ready(looked as u64)
    }
}

/// Messages for a time of this shard.
fn timers(broker: &mut Broker, walk: &mut Walk, from: Place, waiter: WaiterId) -> Fetch<()> {
    let first = walk.due.start.div_euclid(HOUR_MS).max(from.hour as i64);
    let hours = broker.timers.hours_from(first).take(HOURS_MAX + 1);
    let hours = hours.map(|(hour, slot)| {
        let (min, end) = broker.store.visible_range(slot);
        (hour, slot, min.0..end.0)
    });
    let (hours, me) = (hours.collect(), broker.me);
    let mut index = Index {
        store: (&mut broker.store, waiter, me),
        times: |(store, waiter, _), slot, from, most| {
            store.tag_hashes(slot, QueueOffset(from), most, *waiter)
        },
        place: |(store, waiter, me), slot, offset| {
            let entry = store.entry(slot, QueueOffset(offset), *waiter);
            entry.map(|entry| entry.at.physical(*me))
        },
    };
    let went = walk.run(from, hours, &mut index);
    broker.stats.damaged_reads += walk.damaged;
    went
}

/// The disk failed: a page that lacks something must not look whole.
pub fn unread() -> Row {
    let remark = "the index of messages for a time cannot be read: orbitmq store check says why";
    Row::Refused(Reject::new(response::SYSTEM_ERROR, remark))
}

/// The answer, of what all shards gave.
pub fn body(rows: Vec<Row>) -> Vec<u8> {
    let parts = rows.into_iter().filter_map(|row| match row {
        Row::Listed(part) => Some(*part),
        _ => None,
    });
    let mut parts: Vec<Part> = parts.collect();
    parts.sort_by_key(|part| part.shard);
    let mut answer = PendingMessages {
        complete_ms: i64::MAX,
        next: next_of(&parts),
        ..PendingMessages::default()
    };
    for mut part in parts {
        let complete_ms = part
            .next
            .map_or(i64::MAX, |next| next.hour as i64 * HOUR_MS);
        answer.complete_ms = answer.complete_ms.min(complete_ms);
        answer.levels.append(&mut part.levels);
        answer.places.append(&mut part.places);
        answer.recalled.append(&mut part.recalled);
    }
    answer.places.sort_by_key(|place| place.due_ms);
    answer.levels.sort_by_key(|level| level.level);
    answer.recalled.sort_unstable();
    answer.recalled.dedup();
    json::to_vec(&answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Mono;
    use std::collections::BTreeSet;

    #[test]
    fn a_cursor_is_what_was_given() {
        let part = |shard, next: Option<(u64, u64)>| Part {
            next: next.map(|(hour, offset)| Place { hour, offset }),
            ..Part::of(ShardId(shard))
        };
        let parts = [
            part(0, Some((7, 9))),
            part(1, None),
            part(2, Some((0, u64::MAX))),
        ];
        let text = next_of(&parts).unwrap();
        assert_eq!(text, "0:7:9,2:0:18446744073709551615");
        let read = places(&text, 3).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(Some(read[1].1), parts[2].next);
        assert_eq!(next_of(&[part(0, None)]), None);
        let wrong = [
            "",
            "0",
            "0:1",
            "0:1:2:3",
            "x:1:2",
            "0:-1:2",
            "3:1:2",
            "0:1:2,0:1:3",
            "0:1:2,",
            "0:2147483648:0",
        ];
        for text in wrong {
            assert_eq!(places(text, 3), None, "{text}");
        }
    }

    /// Halves number 0 to `count`, of two groups in turn.
    fn table(count: u64) -> Transactions {
        let mut table = Transactions::default();
        let now = Now {
            mono: Mono(0),
            wall_ms: 0,
        };
        for offset in 0..count {
            let group = if offset % 2 == 0 { "even" } else { "odd" };
            table.open(now, offset, LogOffset(offset * 100), 1000, group);
        }
        table
    }

    #[test]
    fn halves_come_page_by_page() {
        let mut table = table(100);
        table.park(4);
        table.end(6);
        let (mut all, mut from) = (Vec::new(), Some(0));
        while let Some(offset) = from {
            let (found, next) = halves(&table, offset, Some("even"), 8);
            assert!(found.len() <= 8);
            all.extend(found);
            from = next;
        }
        assert_eq!(all.len(), 49);
        assert!(all.is_sorted_by_key(|(at, _)| *at));
        let parked: Vec<_> = all.iter().filter(|(_, half)| half.parked).collect();
        assert_eq!(parked.len(), 1);
        assert_eq!(parked[0].0, LogOffset(400));
        assert!(all.iter().all(|(at, _)| at.0 % 200 == 0 && at.0 != 600));
    }

    /// However few there are of what is wanted.
    #[test]
    fn one_turn_looks_at_so_many_halves() {
        let count = LOOKED_MAX as u64 + 5;
        let table = table(count);
        let (found, next) = halves(&table, 0, Some("nobody"), 10);
        assert_eq!((found.len(), next), (0, Some(LOOKED_MAX as u64)));
        let (found, next) = halves(&table, LOOKED_MAX as u64, None, 10);
        assert_eq!((found.len(), next), (5, None));
    }

    /// Times within the hour, by queue; how often it was asked, and whether the disk has time.
    struct Fake {
        hours: Vec<Vec<i32>>,
        asked: usize,
        /// From this entry on all of a queue is on the disk.
        cold: u64,
    }

    fn index(hours: Vec<Vec<i32>>, cold: u64) -> Index<Fake> {
        Index {
            store: Fake {
                hours,
                asked: 0,
                cold,
            },
            times: |fake, slot, from, most| {
                fake.asked += 1;
                match from >= fake.cold {
                    true => Fetch::Wait,
                    false => {
                        let all = &fake.hours[slot.0 as usize][from as usize..];
                        let hot = (fake.cold - from).min(most as u64) as usize;
                        Fetch::Ready(all[..hot].to_vec())
                    }
                }
            },
            place: |_, slot, offset| Fetch::Ready(i64::from(slot.0) * 1_000_000 + offset as i64),
        }
    }

    /// Hours 10, 12, 14 and so on.
    fn ranges(fake: &Fake) -> Vec<Hour> {
        let hours = fake.hours.iter().enumerate();
        let hours = hours.map(|(n, times)| {
            let slot = QueueSlot(n as u32);
            (10 + 2 * n as i64, slot, 0..times.len() as u64)
        });
        hours.collect()
    }

    fn go(walk: &mut Walk, from: Place, index: &mut Index<Fake>) -> Fetch<()> {
        let hours = ranges(&index.store);
        let hours = hours.into_iter().filter(|hour| hour.0 >= from.hour as i64);
        walk.run(from, hours.collect(), index)
    }

    #[test]
    fn timers_come_page_by_page() {
        let mut index = index(vec![vec![5, 9, 1, 7], vec![], vec![3, 2]], u64::MAX);
        let mut found = BTreeSet::new();
        let mut from = Some(Place::default());
        let mut pages = 0;
        while let Some(place) = from {
            let mut walk = Walk::new(10 * HOUR_MS + 2..14 * HOUR_MS + 3, 2);
            assert!(matches!(go(&mut walk, place, &mut index), Fetch::Ready(())));
            assert!(walk.places.len() <= 2);
            found.extend(
                walk.places
                    .iter()
                    .map(|one| (one.due_ms, one.physical_offset)),
            );
            from = walk.next;
            pages += 1;
        }
        let first = 10 * HOUR_MS;
        let expected = [
            (first + 5, 0),
            (first + 7, 3),
            (first + 9, 1),
            (first + 4 * HOUR_MS + 2, 2_000_001),
        ];
        assert_eq!(found, BTreeSet::from(expected));
        assert_eq!(pages, 2);
    }

    #[test]
    fn one_turn_looks_at_so_many_timers() {
        let mut index = index(vec![vec![1; LOOKED_MAX + 10]], u64::MAX);
        let mut walk = Walk::new(10 * HOUR_MS + 2..i64::MAX, 10);
        assert!(matches!(
            go(&mut walk, Place::default(), &mut index),
            Fetch::Ready(())
        ));
        let next = Place {
            hour: 10,
            offset: LOOKED_MAX as u64,
        };
        assert_eq!((walk.places.len(), walk.next), (0, Some(next)));
        assert_eq!(index.store.asked, LOOKED_MAX / SCAN_ENTRIES);
        let mut walk = Walk::new(10 * HOUR_MS + 2..i64::MAX, 10);
        assert!(matches!(go(&mut walk, next, &mut index), Fetch::Ready(())));
        assert_eq!(walk.next, None);
    }

    #[test]
    fn one_turn_looks_at_so_many_hours() {
        let mut index = index(vec![vec![]; HOURS_MAX + 1], u64::MAX);
        let mut walk = Walk::new(0..i64::MAX, 10);
        assert!(matches!(
            go(&mut walk, Place::default(), &mut index),
            Fetch::Ready(())
        ));
        let hour = 10 + 2 * HOURS_MAX as u64;
        assert_eq!(walk.next, Some(Place { hour, offset: 0 }));
    }

    /// What is there already is given; who has nothing yet waits.
    #[test]
    fn the_disk_is_waited_for_once() {
        let mut index = index(vec![vec![1, 2, 3, 4]], 2);
        let mut walk = Walk::new(0..i64::MAX, 10);
        assert!(matches!(
            go(&mut walk, Place::default(), &mut index),
            Fetch::Ready(())
        ));
        let next = Place {
            hour: 10,
            offset: 2,
        };
        assert_eq!((walk.places.len(), walk.next), (2, Some(next)));
        let mut walk = Walk::new(0..i64::MAX, 10);
        assert!(matches!(go(&mut walk, next, &mut index), Fetch::Wait));
        index.store.cold = u64::MAX;
        assert!(matches!(go(&mut walk, next, &mut index), Fetch::Ready(())));
        assert_eq!((walk.places.len(), walk.next), (2, None));
    }
}
