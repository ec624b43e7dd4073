//! Waiting for something that another task of the same executor does. One thread, no atomics.

use glommio::timer::Timer;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Wakes the one task that waits. A ring with nobody waiting is kept; several are one.
#[derive(Default)]
pub struct Bell {
    rung: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl Bell {
    pub fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waiter.take() {
            waker.wake();
        }
    }

    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rung.replace(false) {
            return Poll::Ready(());
        }
        self.waiter.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    pub async fn wait(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// False if the time was up first.
    pub async fn wait_for(&self, time: Duration) -> bool {
        let mut timer = Timer::new(time);
        poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => Pin::new(&mut timer).poll(cx).map(|_| false),
        })
        .await
    }
}

/// Tasks that wait for work; woken one at a time. A woken task looks for work and lines up again
/// if another was faster.
#[derive(Default)]
pub struct Waiters {
    wakers: RefCell<Vec<Waker>>,
}

impl Waiters {
    pub fn line_up(&self, cx: &mut Context<'_>) {
        self.wakers.borrow_mut().push(cx.waker().clone());
    }

    pub fn wake_one(&self) {
        let next = self.wakers.borrow_mut().pop();
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// Work for several tasks, first in first out. Bounded by whoever pushes.
pub struct Queue<T> {
    items: RefCell<VecDeque<T>>,
    waiters: Waiters,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            items: RefCell::default(),
            waiters: Waiters::default(),
        }
    }
}

impl<T> Queue<T> {
    pub fn push(&self, item: T) {
        self.items.borrow_mut().push_back(item);
        self.waiters.wake_one();
    }

    pub async fn pop(&self) -> T {
        poll_fn(|cx| match self.items.borrow_mut().pop_front() {
            Some(item) => Poll::Ready(item),
            None => {
                self.waiters.line_up(cx);
                Poll::Pending
            }
        })
        .await
    }
}
