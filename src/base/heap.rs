//! Deadlines of one machine: what is due, oldest first; equal times in the order of their entry.

use crate::base::Mono;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Entries that may mean nothing any more before [`prune`](Deadlines::prune) looks for them.
const SLACK: usize = 1024;

/// A min-heap of `(time, entry)`. Entries cannot be taken back: owners check on waking whether an
/// entry still means something, which is cheaper than a removable heap.
pub struct Deadlines<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    entered: u64,
}

struct Entry<T> {
    at: Mono,
    order: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Deadlines {
            heap: BinaryHeap::new(),
            entered: 0,
        }
    }
}

impl<T> Deadlines<T> {
    pub fn push(&mut self, at: Mono, what: T) {
        self.entered += 1;
        self.heap.push(Reverse(Entry {
            at,
            order: self.entered,
            what,
        }));
    }

    /// The earliest time at which [`pop_due`](Self::pop_due) will give something.
    pub fn next(&self) -> Option<Mono> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub fn pop_due(&mut self, now: Mono) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.what)
    }

    /// For owners whose entries may lie far ahead: drops those that mean nothing any more, once
    /// they may be more than the `live` ones. Costs each entry a constant on the whole.
    pub fn prune(&mut self, live: usize, means: impl Fn(&T) -> bool) {
        if self.heap.len() > 2 * live + SLACK {
            self.heap.retain(|Reverse(entry)| means(&entry.what));
        }
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_is_due_in_order() {
        let mut heap = Deadlines::default();
        heap.push(Mono(5), "b");
        heap.push(Mono(3), "a");
        heap.push(Mono(5), "c");
        assert_eq!(heap.pop_due(Mono(2)), None);
        assert_eq!(heap.next(), Some(Mono(3)));
        let due: Vec<_> = std::iter::from_fn(|| heap.pop_due(Mono(5))).collect();
        assert_eq!(due, ["a", "b", "c"]);
    }
}
