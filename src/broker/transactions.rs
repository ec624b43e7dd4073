//! Transactions whose halves lie in this shard: which are open, and when each is asked about.
//!
//! A half is a message record in this shard's queue of `RMQ_SYS_TRANS_HALF_TOPIC`, with a
//! `Transaction` record beside it in the same batch; commit and rollback are `Transaction` records
//! too. Nothing is scanned: replay rebuilds the table, and a heap says who is next.
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
//!
//! Unlike the reference, a half keeps its offsets when it is asked about, is asked about at its own
//! time instead of at the next round over all, and is committed once however often it is told so.
//!
//! Source of the behaviour: `TransactionalMessageServiceImpl`, `spec/semantics.md` §7.

use crate::base::cursor::{Cursor, put_text};
use crate::base::heap::Deadlines;
use crate::base::{LogOffset, Map, Mono, Now};
use crate::store::record::{Kind, put_system};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const VERSION: u16 = 1;
/// Halves one shard keeps open; about 95 bytes each.
pub const HALVES_MAX: usize = 4_000_000;
/// About what a half takes in a dump.
const ROW_BYTES: usize = 48;
/// Rows of one record of a dump.
const ROWS_MAX: usize = 4096;

const OPENED: u8 = 1;
const ENDED: u8 = 2;
const ASKED: u8 = 3;
const PARKED: u8 = 4;

/// An open transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Half {
    pub at: LogOffset,
    /// Its place in the table of groups.
    group: u32,
    /// How often its producers were asked.
    pub checks: u32,
    /// When they will be again, wall ms.
    pub next_ms: i64,
    /// It is being committed or parked.
    pub ending: bool,
    /// It was asked about often enough.
    pub parked: bool,
}

#[derive(Default)]
pub struct Transactions {
    halves: BTreeMap<u64, Half>,
    /// Names of producer groups, and how many open halves each has.
    groups: Vec<(Arc<str>, u32)>,
    group_places: Map<Arc<str>, u32>,
    /// Places without a name.
    free_places: Vec<u32>,
    due: Deadlines<u64>,
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
        self.halves.get(&offset)
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

    /// A half was stored; its record is in the log.
    pub fn open(&mut self, now: Now, offset: u64, at: LogOffset, next_ms: i64, group: &str) {
        self.insert(offset, at, next_ms, group);
        self.due.push(due_at(now, next_ms), offset);
        // A half may have been ended years before its producer would have been asked.
        let halves = &self.halves;
        self.due
            .prune(halves.len(), |offset| halves.contains_key(offset));
    }

    fn insert(&mut self, offset: u64, at: LogOffset, next_ms: i64, group: &str) {
        let place = self.take_group(group);
        let half = Half {
            at,
            group: place,
            checks: 0,
            next_ms,
            ending: false,
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
        match self.halves.get_mut(&offset) {
            Some(half) if !half.ending => {
                half.ending = true;
                true
            }
            _ => false,
        }
    }

    /// It could not be ended after all.
    pub fn abandon_end(&mut self, now: Now, offset: u64, next_ms: i64) {
        if let Some(half) = self.halves.get_mut(&offset) {
            half.ending = false;
            half.next_ms = next_ms;
            self.due.push(due_at(now, next_ms), offset);
        }
    }

    /// It lies in the topic for operators; the log says so.
    pub fn park(&mut self, offset: u64) {
        if let Some(half) = self.halves.get_mut(&offset) {
            (half.ending, half.parked) = (false, true);
        }
    }

    /// It was committed or rolled back; the log says so.
    pub fn end(&mut self, offset: u64) {
        if let Some(half) = self.halves.remove(&offset) {
            self.leave_group(half.group);
        }
    }

    /// The next half that is to be asked about.
    pub fn pop_due(&mut self, now: Now) -> Option<(u64, Half)> {
        while let Some(offset) = self.due.pop_due(now.mono) {
            let Some(half) = self.halves.get(&offset) else {
                continue;
            };
            // An entry of an earlier time, or the wall clock went back.
            let rests = half.ending || half.parked;
            if rests || half.next_ms > now.wall_ms {
                if !rests {
                    self.due.push(due_at(now, half.next_ms), offset);
                }
                continue;
            }
            return Some((offset, *half));
        }
        None
    }

    /// Its producers were asked, or there was none to ask.
    pub fn asked(&mut self, now: Now, offset: u64, next_ms: i64) {
        let Some(half) = self.halves.get_mut(&offset) else {
            return;
        };
        half.checks += 1;
        half.next_ms = next_ms;
        self.due.push(due_at(now, next_ms), offset);
        put_asked(&mut self.unlogged, offset, half);
        self.unlogged_rows += 1;
    }

    /// It will be asked about at another time.
    pub fn postpone(&mut self, now: Now, offset: u64, next_ms: i64) {
        if let Some(half) = self.halves.get_mut(&offset) {
            half.next_ms = next_ms;
            self.due.push(due_at(now, next_ms), offset);
        }
    }

    pub fn deadline(&self) -> Option<Mono> {
        match self.halves.is_empty() {
            true => None,
            false => self.due.next(),
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
                ASKED => {
                    let (checks, next_ms) = (c.u32()?, c.u64()? as i64);
                    if let Some(half) = self.halves.get_mut(&offset) {
                        (half.checks, half.next_ms) = (checks, next_ms);
                    }
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// After recovery: when each is due.
    pub fn start(&mut self, now: Now) {
        for (offset, half) in self.halves.iter().filter(|(_, half)| !half.parked) {
            self.due.push(due_at(now, half.next_ms), *offset);
        }
    }

    /// The whole table as records.
    pub fn dump(&self, now: Now, out: &mut Vec<u8>) {
        // Growing by doubling would need three times as much for a moment.
        out.reserve(self.halves.len() * ROW_BYTES);
        let mut rows = self.halves.iter().peekable();
        while rows.peek().is_some() {
            let (mut payload, mut count) = (vec![0; 4], 0u32);
            for (offset, half) in rows.by_ref().take(ROWS_MAX) {
                let (group, _) = &self.groups[half.group as usize];
                put_opened(&mut payload, *offset, half.at, half.next_ms, group);
                count += 1;
                if half.checks > 0 {
                    put_asked(&mut payload, *offset, half);
                    count += 1;
                }
                if half.parked {
                    payload.push(PARKED);
                    payload.extend_from_slice(&offset.to_be_bytes());
                    count += 1;
                }
            }
            payload[..4].copy_from_slice(&count.to_be_bytes());
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
    out.extend_from_slice(&half.checks.to_be_bytes());
    out.extend_from_slice(&half.next_ms.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{Record, walk};
    use proptest::prelude::*;

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
                    prop_assert_eq!((half.next_ms, half.checks), (known.1, known.2));
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
        again.start(at(5000));
        assert!(again.pop_due(at(5000)).is_none(), "an operator has it");
        again
            .apply(VERSION, &Transactions::ended_payload(7))
            .unwrap();
        assert!(again.is_empty());
        assert!(again.apply(VERSION, &opened[..opened.len() - 1]).is_err());
        assert!(again.apply(VERSION + 1, &opened).is_err());
    }
}
