//! Wakes an executor that sleeps in its ring, from another thread.
//!
//! A sleeper says so, then looks once more at everything that could have been meant for it; a
//! ringer first leaves what it has, then looks whether anybody sleeps. One of the two sees the
//! other, so ringing somebody awake costs no system call and no ring is lost.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

pub struct Bell {
    event: OwnedFd,
    asleep: AtomicBool,
}

impl Bell {
    pub fn new() -> io::Result<Bell> {
        // SAFETY: eventfd takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Bell {
            // SAFETY: the descriptor was just made and nobody else knows it.
            event: unsafe { OwnedFd::from_raw_fd(fd) },
            asleep: AtomicBool::new(false),
        })
    }

    /// Called after the sleeper's work is where it will find it.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: write reads eight bytes that live across the call. It can only fail on a
            // counter near 2^64, and then the sleeper is awake.
            unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// The sleeper is about to sleep, and looks for work after this.
    pub fn lie_down(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub fn rise(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Readable once the bell rang while somebody slept.
    pub fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Makes the descriptor unreadable again.
    pub fn silence(&self) {
        let mut count = [0u8; 8];
        // SAFETY: read fills at most eight bytes, which live across the call. Nothing to read is
        // as good.
        unsafe {
            libc::read(
                self.event.as_raw_fd(),
                count.as_mut_ptr().cast(),
                count.len(),
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(bell: &Bell) -> bool {
        let mut poll = libc::pollfd {
            fd: bell.descriptor(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: poll reads and writes one struct, which lives across the call.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    }

    #[test]
    fn only_a_sleeper_is_woken() {
        let bell = Bell::new().unwrap();
        bell.ring();
        assert!(!readable(&bell));
        bell.lie_down();
        bell.ring();
        bell.ring();
        assert!(readable(&bell));
        bell.silence();
        assert!(!readable(&bell));
        bell.rise();
        bell.ring();
        assert!(!readable(&bell));
    }
}
