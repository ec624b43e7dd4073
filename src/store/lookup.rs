//! Look-ups of keys: a helper thread goes through a snapshot of the key index, the asker is woken
//! with the places found. What lies there decides whether it is a hit.

use crate::base::disk::{Order, Work};
use crate::base::{DiskError, LogOffset, Map};
use crate::store::index::KeyView;
use crate::store::read::WaiterId;
use std::collections::VecDeque;

/// Look-ups that wait or run at a time.
pub const LOOKUPS_MAX: usize = 256;

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyQuestion {
    /// [`key_hash`](crate::store::index::key_hash) of topic and key.
    pub hash: u64,
    /// Store times in milliseconds: only whole runs outside are left out.
    pub from_ms: i64,
    pub to_ms: i64,
    pub most: usize,
}

#[derive(Default)]
pub struct Lookups {
    waiting: VecDeque<(WaiterId, Work)>,
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
        let work: Work = Box::new(move |dir| {
            let KeyQuestion {
                hash,
                from_ms,
                to_ms,
                most,
            } = question;
            let found = view.lookup(dir, hash, from_ms, to_ms, most)?;
            Ok(found.iter().flat_map(|at| at.0.to_be_bytes()).collect())
        });
        self.waiting.push_back((waiter, work));
        true
    }

    pub fn poll_order(&mut self) -> Option<(WaiterId, Order)> {
        let (waiter, work) = self.waiting.pop_front()?;
        self.under_way += 1;
        Some((waiter, Order::Work(work)))
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
