//! Transactions whose halves lie in this shard: which are open, and when each is asked about.
//!
//! A half is a message record in this shard's queue of `RMQ_SYS_TRANS_HALF_TOPIC`, with a
//! `Transaction` record beside it in the same batch; commit and rollback are `Transaction` records
//! too. Replay rebuilds the table. A heap says which page of it has somebody to be asked next; only
//! that page is looked through.
//!
//! `Transaction` payload, big-endian: count u32, then for each a tag u8 and the half's queue offset
//! u64, then for
//!
//! | tag | what | fields |
//! |---|---|---|
//! | 1 | opened | log offset u64, first check (wall ms) i64, producer group (u16 length, UTF-8) |
//! | 2 | ended | |
//! | 3 | asked about | times u32, next check (wall ms) i64 |
//! | 4 | parked for an operator: still open, asked about no more | |
//! | 5 | open, as are others; snapshot only | groups u16, names (as above), halves u16, rows |
//! | 6 | lies elsewhere, for its segment goes | log offset u64 |
//!
//! A row of tag 5 is short numbers (`base::cursor`): steps of queue offset, log offset and next
//! check from the half before, at first from the offset named and zeros; place of the group; twice
//! the times it was asked about, and one more if it is parked.
//!
//! Unlike the reference, a half keeps its offsets when it is asked about, is asked about at its own
//! time instead of at the next round over all, and is committed once however often it is told so.
//!
//! Source of the behaviour: `TransactionalMessageServiceImpl`, `spec/semantics.md` §7.

use crate::base::cursor::{Cursor, put_step, put_text, put_varint};
use crate::base::heap::Deadlines;
use crate::base::pages::{PAGE_NUMBERS, Pages};
use crate::base::{LogOffset, Map, Mono, Now};
use crate::store::record::{Kind, put_system};
use std::collections::VecDeque;
use std::sync::Arc;

pub const VERSION: u16 = 1;
/// Halves one shard keeps open; about 26 bytes each.
pub const HALVES_MAX: usize = 4_000_000;
/// About what a half takes in a dump.
const ROW_BYTES: usize = 8;
/// Halves of one record of a dump.
const ROWS_MAX: usize = 4096;

const OPENED: u8 = 1;
const ENDED: u8 = 2;
const ASKED: u8 = 3;
const PARKED: u8 = 4;
const OPEN: u8 = 5;
const MOVED: u8 = 6;

/// What is going on with a half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    /// It waits for its producer, or for the time to ask.
    Rests,
    /// Its time has come, and it is read to be asked about.
    Asking,
    /// It is being committed or parked.
    Ending,
}

/// An open transaction. There may be millions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Half {
    pub at: LogOffset,
    /// When its producers will be asked, wall ms.
    pub next_ms: i64,
    /// Its place in the table of groups.
    group: u32,
    /// How often its producers were asked.
    checks: u16,
    work: Work,
    /// It was asked about often enough.
    parked: bool,
}

const _: () = assert!(size_of::<Half>() == 24);

impl Half {
    pub fn checks(&self) -> u32 {
        self.checks.into()
    }

    pub fn is_ending(&self) -> bool {
        self.work == Work::Ending
    }

    pub fn is_parked(&self) -> bool {
        self.parked
    }

    /// Its producers are to be asked in its time.
    fn rests(&self) -> bool {
        self.work == Work::Rests && !self.parked
    }
}

#[derive(Default)]
pub struct Transactions {
    halves: Pages<Half>,
    /// Names of producer groups, and how many open halves each has.
    groups: Vec<(Arc<str>, u32)>,
    group_places: Map<Arc<str>, u32>,
    /// Places without a name.
    free_places: Vec<u32>,
    /// When the first half of a page that rests is to be asked about, or earlier; and the same in
    /// order, with what does not hold any more.
    scheduled: Map<u64, Mono>,
    due: Deadlines<(u64, Mono)>,
    /// To be asked about now.
    ready: VecDeque<u64>,
    /// Rows that the next record will hold.
    unlogged: Vec<u8>,
    unlogged_rows: u32,
}

impl Transactions {
    pub fn len(&self) -> usize {
        self.halves.len()
    }

    pub fn is_empty(&self) -> bool {
        self.halves.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.halves.len() >= HALVES_MAX
    }

    pub fn get(&self, offset: u64) -> Option<&Half> {
        self.halves.get(offset)
    }

    /// Halves from a queue offset on, in the order they came.
    pub fn open_from(&self, offset: u64) -> impl Iterator<Item = (u64, &Half)> {
        self.halves.range(offset..=u64::MAX)
    }

    pub fn group(&self, half: &Half) -> Arc<str> {
        Arc::clone(&self.groups[half.group as usize].0)
    }

    /// The record that says a half is open. Its length does not depend on where the half lies.
    pub fn opened_payload(offset: u64, at: LogOffset, next_ms: i64, group: &str) -> Vec<u8> {
        let mut payload = 1u32.to_be_bytes().to_vec();
        put_opened(&mut payload, offset, at, next_ms, group);
        payload
    }

    /// The record that says a half is over.
    pub fn ended_payload(offset: u64) -> Vec<u8> {
        let mut payload = 1u32.to_be_bytes().to_vec();
        payload.push(ENDED);
        payload.extend_from_slice(&offset.to_be_bytes());
        payload
    }

    /// The record that says a half is parked.
    pub fn parked_payload(offset: u64) -> Vec<u8> {
        let mut payload = 1u32.to_be_bytes().to_vec();
        payload.push(PARKED);
        payload.extend_from_slice(&offset.to_be_bytes());
        payload
    }

    /// The record that says where a half lies now. Its length does not depend on that.
    pub fn moved_payload(offset: u64, at: LogOffset) -> Vec<u8> {
        let mut payload = 1u32.to_be_bytes().to_vec();
        payload.push(MOVED);
        payload.extend_from_slice(&offset.to_be_bytes());
        payload.extend_from_slice(&at.0.to_be_bytes());
        payload
    }

    /// A half lies elsewhere; the log says so.
    pub fn move_to(&mut self, offset: u64, at: LogOffset) {
        if let Some(half) = self.halves.value_mut(offset) {
            half.at = at;
        }
    }

    /// A half was stored; its record is in the log.
    pub fn open(&mut self, now: Now, offset: u64, at: LogOffset, next_ms: i64, group: &str) {
        self.insert(offset, at, next_ms, group);
        self.schedule(now, offset, next_ms);
    }

    /// A half rests until a time.
    fn schedule(&mut self, now: Now, offset: u64, next_ms: i64) {
        let (page, at) = (offset / PAGE_NUMBERS, due_at(now, next_ms));
        if self.scheduled.get(&page).is_none_or(|known| at < *known) {
            self.scheduled.insert(page, at);
            self.due.push(at, (page, at));
            // A half may have been ended years before its producer would have been asked.
            let scheduled = &self.scheduled;
            self.due.prune(scheduled.len(), |(page, at)| {
                scheduled.get(page) == Some(at)
            });
        }
    }

    fn insert(&mut self, offset: u64, at: LogOffset, next_ms: i64, group: &str) {
        let half = Half {
            at,
            next_ms,
            group: self.take_group(group),
            checks: 0,
            work: Work::Rests,
            parked: false,
        };
        if let Some(before) = self.halves.insert(offset, half) {
            self.leave_group(before.group);
        }
    }

    /// The place of a group's name, for one half more.
    fn take_group(&mut self, group: &str) -> u32 {
        if let Some(place) = self.group_places.get(group).copied() {
            self.groups[place as usize].1 += 1;
            return place;
        }
        let name = Arc::<str>::from(group);
        let place = match self.free_places.pop() {
            Some(place) => {
                self.groups[place as usize] = (Arc::clone(&name), 1);
                place
            }
            None => {
                self.groups.push((Arc::clone(&name), 1));
                self.groups.len() as u32 - 1
            }
        };
        self.group_places.insert(name, place);
        place
    }

    /// One half less: a name without halves is not kept.
    fn leave_group(&mut self, place: u32) {
        let (name, halves) = &mut self.groups[place as usize];
        *halves -= 1;
        if *halves == 0 {
            self.group_places.remove(name);
            *name = Arc::from("");
            self.free_places.push(place);
        }
    }

    /// Its end is being worked at: it is not asked about meanwhile. False if it is not open, or
    /// that is so already.
    pub fn begin_end(&mut self, offset: u64) -> bool {
        match self.halves.value_mut(offset) {
            Some(half) if !half.is_ending() => {
                half.work = Work::Ending;
                true
            }
            _ => false,
        }
    }

    /// It could not be ended after all.
    pub fn abandon_end(&mut self, now: Now, offset: u64, next_ms: i64) {
        self.rest(now, offset, next_ms);
    }

    /// It rests until `next_ms`.
    fn rest(&mut self, now: Now, offset: u64, next_ms: i64) {
        if let Some(half) = self.halves.value_mut(offset) {
            (half.work, half.next_ms) = (Work::Rests, next_ms);
            self.schedule(now, offset, next_ms);
        }
    }

    /// It lies in the topic for operators; the log says so.
    pub fn park(&mut self, offset: u64) {
        if let Some(half) = self.halves.value_mut(offset) {
            (half.work, half.parked) = (Work::Rests, true);
        }
    }

    /// It was committed or rolled back; the log says so.
    pub fn end(&mut self, offset: u64) {
        if let Some(half) = self.halves.remove(offset) {
            self.leave_group(half.group);
            let page = offset / PAGE_NUMBERS;
            if !self.halves.has_page(page) {
                self.scheduled.remove(&page);
            }
        }
    }

    /// The next half that is to be asked about. What comes of it is told with
    /// [`asked`](Self::asked), [`postpone`](Self::postpone) or [`begin_end`](Self::begin_end).
    pub fn pop_due(&mut self, now: Now) -> Option<(u64, Half)> {
        loop {
            while let Some(offset) = self.ready.pop_front() {
                // It may have been ended meanwhile.
                let half = self.halves.get(offset);
                if let Some(half) = half.filter(|half| half.work == Work::Asking) {
                    return Some((offset, *half));
                }
            }
            let (page, at) = self.due.pop_due(now.mono)?;
            if self.scheduled.get(&page) == Some(&at) {
                self.scheduled.remove(&page);
                self.look_through(now, page);
            }
        }
    }

    /// Takes what is due out of a page, and schedules the rest of it.
    fn look_through(&mut self, now: Now, page: u64) {
        let mut next: Option<(i64, u64)> = None;
        for (offset, half) in self.halves.page_mut(page).filter(|(_, half)| half.rests()) {
            if half.next_ms <= now.wall_ms {
                half.work = Work::Asking;
                self.ready.push_back(offset);
            } else if next.is_none_or(|(next_ms, _)| half.next_ms < next_ms) {
                next = Some((half.next_ms, offset));
            }
        }
        if let Some((next_ms, offset)) = next {
            self.schedule(now, offset, next_ms);
        }
    }

    /// Its producers were asked, or there was none to ask.
    pub fn asked(&mut self, now: Now, offset: u64, next_ms: i64) {
        let Some(half) = self.halves.value_mut(offset) else {
            return;
        };
        half.checks = half.checks.saturating_add(1);
        half.next_ms = next_ms;
        put_asked(&mut self.unlogged, offset, half);
        self.unlogged_rows += 1;
        self.rest(now, offset, next_ms);
    }

    /// It will be asked about at another time, unless its end is being worked at.
    pub fn postpone(&mut self, now: Now, offset: u64, next_ms: i64) {
        let half = self.halves.get(offset);
        if half.is_some_and(|half| !half.is_ending()) {
            self.rest(now, offset, next_ms);
        }
    }

    pub fn deadline(&self) -> Option<Mono> {
        match (self.halves.is_empty(), self.ready.is_empty()) {
            (true, _) => None,
            (false, true) => self.due.next(),
            (false, false) => Some(Mono(0)),
        }
    }

    /// What was asked about since the last call, as the payload of a record.
    pub fn take_unlogged(&mut self) -> Option<Vec<u8>> {
        if self.unlogged_rows == 0 {
            return None;
        }
        let mut payload = self.unlogged_rows.to_be_bytes().to_vec();
        payload.append(&mut self.unlogged);
        self.unlogged_rows = 0;
        Some(payload)
    }

    /// Replays one record.
    pub fn apply(&mut self, version: u16, payload: &[u8]) -> Result<(), String> {
        if version != VERSION {
            return Err(format!(
                "transactions of layout {version}, known is {VERSION}"
            ));
        }
        let mut c = Cursor::new(payload);
        self.apply_rows(&mut c)
            .ok_or_else(|| "a record of transactions is cut short or unknown".to_owned())
    }

    fn apply_rows(&mut self, c: &mut Cursor<'_>) -> Option<()> {
        for _ in 0..c.u32()? {
            let (tag, offset) = (c.u8()?, c.u64()?);
            match tag {
                OPENED => {
                    let (at, next_ms) = (LogOffset(c.u64()?), c.u64()? as i64);
                    let group = c.text()?.to_owned();
                    self.insert(offset, at, next_ms, &group);
                }
                ENDED => self.end(offset),
                PARKED => self.park(offset),
                MOVED => self.move_to(offset, LogOffset(c.u64()?)),
                ASKED => {
                    let (checks, next_ms) = (c.u32()?, c.u64()? as i64);
                    let checks = u16::try_from(checks).unwrap_or(u16::MAX);
                    if let Some(half) = self.halves.value_mut(offset) {
                        (half.checks, half.next_ms) = (checks, next_ms);
                    }
                }
                OPEN => self.apply_open(offset, c)?,
                _ => return None,
            }
        }
        Some(())
    }

    fn apply_open(&mut self, first: u64, c: &mut Cursor<'_>) -> Option<()> {
        let groups: Option<Vec<&str>> = (0..c.u16()?).map(|_| c.text()).collect();
        let groups = groups?;
        let (mut offset, mut at, mut next_ms) = (first, 0u64, 0u64);
        for _ in 0..c.u16()? {
            offset = offset.wrapping_add(c.step()?);
            at = at.wrapping_add(c.step()?);
            next_ms = next_ms.wrapping_add(c.step()?);
            let group = groups.get(usize::try_from(c.varint()?).ok()?)?;
            let state = c.varint()?;
            self.insert(offset, LogOffset(at), next_ms as i64, group);
            let half = self.halves.value_mut(offset).expect("just inserted");
            half.checks = u16::try_from(state / 2).unwrap_or(u16::MAX);
            half.parked = state % 2 == 1;
        }
        Some(())
    }

    /// After recovery: when each is due.
    pub fn start(&mut self, now: Now) {
        let mut first: Map<u64, (u64, i64)> = Map::default();
        for (offset, half) in self.halves.iter().filter(|(_, half)| half.rests()) {
            let page = first.entry(offset / PAGE_NUMBERS);
            let (_, next_ms) = page.or_insert((offset, half.next_ms));
            *next_ms = half.next_ms.min(*next_ms);
        }
        for (offset, next_ms) in first.into_values() {
            self.schedule(now, offset, next_ms);
        }
    }

    /// The whole table as records.
    pub fn dump(&self, now: Now, out: &mut Vec<u8>) {
        // Growing by doubling would need three times as much for a moment.
        out.reserve(self.halves.len() * ROW_BYTES);
        let mut halves = self.halves.iter().peekable();
        while let Some((first, _)) = halves.peek().copied() {
            let (mut rows, mut count) = (Vec::new(), 0u16);
            let (mut names, mut places) = (Vec::new(), Map::default());
            let (mut offset, mut at, mut next_ms) = (first, 0, 0);
            for (next, half) in halves.by_ref().take(ROWS_MAX) {
                let places_before = places.len() as u64;
                let place = *places.entry(half.group).or_insert(places_before);
                if place == places_before {
                    put_text(&mut names, &self.groups[half.group as usize].0);
                }
                put_step(&mut rows, offset, next);
                put_step(&mut rows, at, half.at.0);
                put_step(&mut rows, next_ms, half.next_ms as u64);
                put_varint(&mut rows, place);
                put_varint(&mut rows, half.checks() as u64 * 2 + u64::from(half.parked));
                (offset, at, next_ms) = (next, half.at.0, half.next_ms as u64);
                count += 1;
            }
            let mut payload = 1u32.to_be_bytes().to_vec();
            payload.push(OPEN);
            payload.extend_from_slice(&first.to_be_bytes());
            payload.extend_from_slice(&(places.len() as u16).to_be_bytes());
            payload.append(&mut names);
            payload.extend_from_slice(&count.to_be_bytes());
            payload.append(&mut rows);
            put_system(out, Kind::Transaction, VERSION, now.wall_ms, &payload);
        }
    }
}

fn due_at(now: Now, at_ms: i64) -> Mono {
    now.mono
        .after_ms(at_ms.saturating_sub(now.wall_ms).max(0) as u64)
}

fn put_opened(out: &mut Vec<u8>, offset: u64, at: LogOffset, next_ms: i64, group: &str) {
    out.push(OPENED);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&at.0.to_be_bytes());
    out.extend_from_slice(&next_ms.to_be_bytes());
    put_text(out, group);
}

fn put_asked(out: &mut Vec<u8>, offset: u64, half: &Half) {
    out.push(ASKED);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&half.checks().to_be_bytes());
    out.extend_from_slice(&half.next_ms.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{Record, walk};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Op {
        Open(u8, u16),
        End(u8),
        Pass(u16),
        Restart,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..3u8, 0..500u16).prop_map(|(group, wait)| Op::Open(group, wait)),
            3 => any::<u8>().prop_map(Op::End),
            4 => (0..400u16).prop_map(Op::Pass),
            1 => Just(Op::Restart),
        ]
    }

    fn at(ms: u64) -> Now {
        Now {
            mono: Mono(ms),
            wall_ms: ms as i64,
        }
    }

    /// Opened halves as a plain list: group, next check, checks.
    type Model = BTreeMap<u64, (String, i64, u32)>;

    fn restarted(transactions: &Transactions, now: Now) -> Transactions {
        let mut bytes = Vec::new();
        transactions.dump(now, &mut bytes);
        let mut again = Transactions::default();
        for record in walk(&bytes) {
            let Ok((
                _,
                Record::System {
                    version, payload, ..
                },
            )) = record
            else {
                panic!("{record:?}");
            };
            again.apply(version, payload).unwrap();
        }
        again.start(now);
        again
    }

    #[test]
    fn what_is_over_leaves_nothing_behind() {
        let mut table = Transactions::default();
        let far_ms = i64::MAX / 4;
        for offset in 0..10_000u64 {
            let group = format!("g{offset}");
            table.open(at(1), offset, LogOffset(offset), far_ms, &group);
            assert_eq!(&*table.group(table.get(offset).unwrap()), &*group);
            table.end(offset);
        }
        assert!(table.due.len() < 3_000, "{}", table.due.len());
        assert_eq!((table.groups.len(), table.group_places.len()), (1, 0));
    }

    proptest! {
        #[test]
        fn every_open_half_is_asked_about_in_its_time(
            ops in prop::collection::vec(op(), 1..120)
        ) {
            const INTERVAL_MS: i64 = 100;
            let (mut table, mut model) = (Transactions::default(), Model::new());
            let (mut ms, mut next) = (0, 0);
            for op in ops {
                match op {
                    Op::Open(group, wait) => {
                        let due = ms as i64 + i64::from(wait);
                        let group = format!("g{group}");
                        table.open(at(ms), next, LogOffset(next * 100), due, &group);
                        model.insert(next, (group, due, 0));
                        next += 1;
                    }
                    Op::End(which) => {
                        let place = usize::from(which) % model.len().max(1);
                        if let Some(offset) = model.keys().nth(place).copied() {
                            prop_assert!(table.begin_end(offset));
                            prop_assert!(!table.begin_end(offset));
                            table.end(offset);
                            model.remove(&offset);
                        }
                    }
                    Op::Pass(by) => ms += u64::from(by),
                    Op::Restart => table = restarted(&table, at(ms)),
                }
                while let Some((offset, half)) = table.pop_due(at(ms)) {
                    let known = model.get_mut(&offset).expect("it is open");
                    prop_assert_eq!(&*table.group(&half), known.0.as_str());
                    prop_assert_eq!((half.next_ms, half.checks()), (known.1, known.2));
                    prop_assert!(known.1 <= ms as i64);
                    (known.1, known.2) = (ms as i64 + INTERVAL_MS, known.2 + 1);
                    table.asked(at(ms), offset, known.1);
                }
                prop_assert!(model.values().all(|(_, due, _)| *due > ms as i64));
                let soonest = model.values().map(|(_, due, _)| *due as u64).min();
                let deadline = table.deadline().map(|due| due.0);
                prop_assert!(soonest.is_none_or(|soonest| deadline.is_some_and(|d| d <= soonest)));
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }

    #[test]
    fn a_snapshot_takes_few_bytes_for_each_half_and_no_more_than_it_says() {
        let mut table = Transactions::default();
        for offset in 0..10_000u64 {
            let group = ["orders", "payments"][offset as usize % 2];
            let next_ms = 1_700_000_000_000 + offset as i64 / 100;
            table.open(at(1), offset, LogOffset(offset * 450), next_ms, group);
        }
        let mut bytes = Vec::new();
        table.dump(at(1), &mut bytes);
        assert!(bytes.len() <= 10_000 * ROW_BYTES, "{}", bytes.len());
        let again = restarted(&table, at(1));
        assert!(again.halves.iter().eq(table.halves.iter()));
        assert_eq!(again.due.len(), 10_000usize.div_ceil(PAGE_NUMBERS as usize));
        for record in walk(&bytes) {
            let Ok((_, Record::System { payload, .. })) = record else {
                panic!("{record:?}");
            };
            for cut in [5, 14, 40, payload.len() - 1] {
                let mut again = Transactions::default();
                assert!(again.apply(VERSION, &payload[..cut]).is_err());
            }
        }
    }

    #[test]
    fn what_is_being_read_is_not_taken_twice() {
        let mut table = Transactions::default();
        table.open(at(0), 1, LogOffset(0), 10, "g");
        table.open(at(0), 2, LogOffset(9), 20, "g");
        assert_eq!(table.pop_due(at(10)).map(|(offset, _)| offset), Some(1));
        assert_eq!(table.deadline(), Some(Mono(20)));
        assert_eq!(table.pop_due(at(20)).map(|(offset, _)| offset), Some(2));
        assert!(table.pop_due(at(500)).is_none());
        // Meanwhile one is ended, and the end fails; the other cannot be read.
        assert!(table.begin_end(1) && !table.begin_end(1));
        table.postpone(at(500), 1, 510);
        table.postpone(at(500), 2, 520);
        assert_eq!(table.deadline(), Some(Mono(520)));
        table.abandon_end(at(500), 1, 530);
        assert_eq!(table.pop_due(at(525)).map(|(offset, _)| offset), Some(2));
        assert_eq!(table.pop_due(at(530)).map(|(offset, _)| offset), Some(1));
    }

    #[test]
    fn records_replay() {
        let mut table = Transactions::default();
        let opened = Transactions::opened_payload(7, LogOffset(700), 1000, "g");
        table.apply(VERSION, &opened).unwrap();
        table.start(at(0));
        table.asked(at(1000), 7, 2000);
        let asked = table.take_unlogged().unwrap();
        assert!(table.take_unlogged().is_none());
        let mut again = Transactions::default();
        again.apply(VERSION, &opened).unwrap();
        again.apply(VERSION, &asked).unwrap();
        assert_eq!(again.get(7), table.get(7));
        again
            .apply(VERSION, &Transactions::parked_payload(7))
            .unwrap();
        let mut again = restarted(&again, at(5000));
        assert!(again.pop_due(at(5000)).is_none(), "an operator has it");
        assert_eq!(again.get(7).map(Half::checks), Some(1));
        again
            .apply(VERSION, &Transactions::ended_payload(7))
            .unwrap();
        assert!(again.is_empty());
        assert!(again.apply(VERSION, &opened[..opened.len() - 1]).is_err());
        assert!(again.apply(VERSION + 1, &opened).is_err());
    }
}
