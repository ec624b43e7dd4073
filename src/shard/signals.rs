//! SIGINT and SIGTERM, taken by a thread of their own.

use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};

/// Blocks both signals in the calling thread, and so in every thread that it starts later. `taken`
/// is called with each that comes, until it gives false.
///
/// # Errors
/// A sentence.
pub fn watch(mut taken: impl FnMut() -> bool + Send + 'static) -> Result<(), String> {
    let fail = || {
        format!(
            "signals cannot be watched: {}",
            std::io::Error::last_os_error()
        )
    };
    // SAFETY: a zeroed sigset_t is a valid argument to be filled; all pointers live across the
    // calls, which keep none of them.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        if libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
            return Err(fail());
        }
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC)
    };
    if fd < 0 {
        return Err(fail());
    }
    // SAFETY: the descriptor was just made and nobody else knows it.
    let mut signals = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let watch = move || {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        while signals.read_exact(&mut info).is_ok() && taken() {}
    };
    let spawned = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch);
    spawned
        .map(|_| ())
        .map_err(|e| format!("signals cannot be watched: {e}"))
}
