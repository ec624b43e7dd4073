//! Who waits for which part of the log: things to do in log order once a watermark passes.

use crate::base::LogOffset;
use std::collections::VecDeque;

/// A queue of `(log offset, what)`; the offset says up to where the log must be confirmed first.
pub struct Waiting<T> {
    queue: VecDeque<(LogOffset, T)>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting {
            queue: VecDeque::new(),
        }
    }
}

impl<T> Waiting<T> {
    /// Offsets come in log order.
    pub fn push(&mut self, until: LogOffset, what: T) {
        let ordered = self.queue.back().is_none_or(|(last, _)| *last <= until);
        assert!(ordered, "waiters come in log order");
        self.queue.push_back((until, what));
    }

    /// The next thing that `confirmed` allows.
    pub fn pop(&mut self, confirmed: LogOffset) -> Option<T> {
        if self.queue.front()?.0 > confirmed {
            return None;
        }
        self.queue.pop_front().map(|(_, what)| what)
    }

    /// Takes the oldest thing whatever the watermark: for refusals.
    pub fn pop_any(&mut self) -> Option<T> {
        self.queue.pop_front().map(|(_, what)| what)
    }

    pub fn front(&self) -> Option<&T> {
        self.queue.front().map(|(_, what)| what)
    }

    /// Up to where the last of them waits.
    pub fn last(&self) -> Option<LogOffset> {
        self.queue.back().map(|(until, _)| *until)
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_in_order_what_is_confirmed() {
        let mut waiting = Waiting::default();
        waiting.push(LogOffset(10), 'a');
        waiting.push(LogOffset(10), 'b');
        waiting.push(LogOffset(30), 'c');
        assert_eq!(waiting.pop(LogOffset(9)), None);
        let given: Vec<_> = std::iter::from_fn(|| waiting.pop(LogOffset(20))).collect();
        assert_eq!(given, ['a', 'b']);
        assert_eq!(waiting.pop_any(), Some('c'));
    }
}
