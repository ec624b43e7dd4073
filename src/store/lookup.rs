//! Look-ups of keys: a helper thread goes through a snapshot of the key index, the asker is woken
//! with the places found. What lies there decides whether it is a hit.

use crate::base::disk::{Order, Work};
use crate::base::{DiskError, LogOffset, Map};
use crate::store::index::KeyView;
use crate::store::read::WaiterId;
use std::collections::VecDeque;

/// Look-ups that wait or run at a time.
pub const LOOKUPS_MAX: usize = 256;

/// How often one is begun again because a run was merged and removed before it was read.
const RETRIES_MAX: u32 = 3;

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyQuestion {
    /// [`key_hash`](crate::store::index::key_hash) of topic and key.
    pub hash: u64,
    /// Only places below.
    pub before: LogOffset,
    /// Store times in milliseconds: only whole runs outside are left out.
    pub from_ms: i64,
    pub to_ms: i64,
    pub most: usize,
}

/// A look-up that a helper is at.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub waiter: WaiterId,
    question: KeyQuestion,
    retries: u32,
}

#[derive(Default)]
pub struct Lookups {
    waiting: VecDeque<(Asked, Work)>,
    under_way: usize,
    /// Answers that were not fetched yet.
    answers: Map<WaiterId, Result<Vec<LogOffset>, DiskError>>,
}

impl Lookups {
    /// False if too many are asked for already.
    pub fn ask(&mut self, view: KeyView, question: KeyQuestion, waiter: WaiterId) -> bool {
        if self.waiting.len() + self.under_way + self.answers.len() >= LOOKUPS_MAX {
            return false;
        }
        let asked = Asked {
            waiter,
            question,
            retries: 0,
        };
        self.begin(view, asked);
        true
    }

    fn begin(&mut self, view: KeyView, asked: Asked) {
        let question = asked.question;
        let work: Work = Box::new(move |dir| {
            let found = view.lookup(dir, &question)?;
            Ok(found.iter().flat_map(|at| at.0.to_be_bytes()).collect())
        });
        self.waiting.push_back((asked, work));
    }

    pub fn poll_order(&mut self) -> Option<(Asked, Order)> {
        let (asked, work) = self.waiting.pop_front()?;
        self.under_way += 1;
        Some((asked, Order::Work(work)))
    }

    /// The helper failed: it tries again with a newer snapshot, which has no run that is gone.
    /// False if it has tried often enough.
    pub fn retry(&mut self, view: KeyView, asked: Asked) -> bool {
        if asked.retries >= RETRIES_MAX {
            return false;
        }
        self.under_way -= 1;
        let retries = asked.retries + 1;
        self.begin(view, Asked { retries, ..asked });
        true
    }

    /// The helper's answer, kept until it is fetched.
    pub fn arrived(&mut self, waiter: WaiterId, result: Result<Vec<u8>, DiskError>) {
        self.under_way -= 1;
        let places = |bytes: Vec<u8>| {
            let (places, _) = bytes.as_chunks();
            places
                .iter()
                .map(|place| LogOffset(u64::from_be_bytes(*place)))
                .collect()
        };
        self.answers.insert(waiter, result.map(places));
    }

    /// What was found, newest first; `None` if nothing was asked or it is not there yet.
    pub fn take(&mut self, waiter: WaiterId) -> Option<Result<Vec<LogOffset>, DiskError>> {
        self.answers.remove(&waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::{Dir, Done, MemDir};
    use crate::store::index::{KeyIndex, KeyLimits};

    const QUESTION: KeyQuestion = KeyQuestion {
        hash: 7,
        before: LogOffset(u64::MAX),
        from_ms: 0,
        to_ms: i64::MAX,
        most: 10,
    };

    /// Two runs with a place each.
    fn two_runs(dir: &MemDir) -> KeyIndex {
        let limits = KeyLimits {
            hot_bytes_max: 1 << 20,
            directory_bytes_max: 0,
        };
        let mut index = KeyIndex::new(limits, LogOffset(0));
        for at in [10, 20] {
            index.append(7, LogOffset(at), 0);
            let draft = index.seal(LogOffset(at + 1)).expect("something to seal");
            index.installed(draft.write(dir).unwrap());
        }
        index
    }

    fn carry_out(dir: &MemDir, order: Order) -> Result<Vec<u8>, DiskError> {
        match dir.carry_out(order)? {
            Done::Work(bytes) => Ok(bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn runs_that_are_merged_and_gone_before_they_are_read_do_not_hide_a_key() {
        let (dir, mut lookups) = (MemDir::default(), Lookups::default());
        let mut index = two_runs(&dir);
        let old: Vec<_> = index
            .listing()
            .names
            .iter()
            .map(|n| n.to_string())
            .collect();
        assert!(lookups.ask(index.view(), QUESTION, WaiterId(1)));
        while let Some(step) = index.merge_step() {
            index.merged(step.run(&dir).unwrap());
        }
        let (asked, order) = lookups.poll_order().unwrap();
        old.iter().for_each(|name| dir.remove(name).unwrap());
        carry_out(&dir, order).expect_err("its runs are gone");
        assert!(lookups.retry(index.view(), asked));
        let (asked, order) = lookups.poll_order().unwrap();
        lookups.arrived(asked.waiter, carry_out(&dir, order));
        let places = lookups.take(WaiterId(1)).unwrap().unwrap();
        assert_eq!(places, [LogOffset(20), LogOffset(10)]);
    }

    #[test]
    fn a_disk_that_fails_is_asked_so_often() {
        let (dir, mut lookups) = (MemDir::default(), Lookups::default());
        let index = two_runs(&dir);
        assert!(lookups.ask(index.view(), QUESTION, WaiterId(1)));
        for retries in 0..=RETRIES_MAX {
            let (asked, _) = lookups.poll_order().unwrap();
            let again = lookups.retry(index.view(), asked);
            assert_eq!(again, retries < RETRIES_MAX);
        }
        assert!(lookups.poll_order().is_none());
        assert_eq!(lookups.under_way, 1, "the last one is to be answered");
    }
}
