//! One connection under load: never waits, moves bytes in large pieces.
//!
//! Requests are appended to `out` and go out with one system call per turn or per
//! [`PUSH_BYTES`], whichever is less; input is read in pieces of up to [`INPUT_BYTES`].

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::Socket;

use crate::remoting::frame::frame_len;

/// Written out while still in the processor's cache.
pub const PUSH_BYTES: usize = 64 * 1024;
/// Output that the socket does not take, from which on nothing more is asked.
const UNSENT_BYTES_MAX: usize = 256 * 1024;
/// Large enough to be mapped on demand: a connection with small answers touches one page.
const INPUT_BYTES: usize = 256 * 1024;
/// With less than this left, what has come moves to the front.
const SPACE_BYTES_MIN: usize = 64 * 1024;

const FINISH_TIMEOUT: Duration = Duration::from_millis(500);

pub struct Wire {
    socket: Socket,
    addr: String,
    pub out: Vec<u8>,
    /// Bytes of `out` that are sent.
    sent: usize,
    input: Vec<u8>,
    from: usize,
    to: usize,
}

impl Wire {
    /// # Errors
    /// A sentence.
    pub fn new(socket: Socket, addr: String) -> Result<Self, String> {
        let ready = socket.set_nonblocking(true);
        ready.map_err(|error| format!("the connection to {addr} cannot be used: {error}"))?;
        Ok(Wire {
            socket,
            addr,
            out: Vec::new(),
            sent: 0,
            input: vec![0; INPUT_BYTES],
            from: 0,
            to: 0,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn addr(&self) -> &str {
        &self.addr
    }

    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether more requests may be appended.
    pub fn has_room(&self) -> bool {
        self.unsent() < UNSENT_BYTES_MAX
    }

    fn broken(&self, why: impl std::fmt::Display) -> String {
        format!(
            "the broker at {} is gone or hung up: {why}; look at its log",
            self.addr
        )
    }

    /// Sends what the socket takes at once.
    pub fn push(&mut self) -> Result<(), String> {
        while self.sent < self.out.len() {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            match self.socket.send_with_flags(&self.out[self.sent..], flags) {
                Ok(sent) => self.sent += sent,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.broken(e)),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent >= UNSENT_BYTES_MAX {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Says that nothing more will be sent, and waits a moment for the broker to have read all: a
    /// connection that is closed with input unread may take unread output with it.
    pub fn finish(&mut self) {
        // Whatever fails here has nothing left to lose.
        let _ = self.push();
        let _ = self.socket.shutdown(Shutdown::Write);
        let _ = self.socket.set_nonblocking(false);
        let _ = self.socket.set_read_timeout(Some(FINISH_TIMEOUT));
        while matches!((&self.socket).read(&mut self.input), Ok(count) if count > 0) {}
    }

    /// Reads once. True if there may be more.
    pub fn fill(&mut self) -> Result<bool, String> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.input.len() - self.to < SPACE_BYTES_MIN {
            self.input.copy_within(self.from..self.to, 0);
            self.to -= self.from;
            self.from = 0;
            if self.input.len() - self.to < SPACE_BYTES_MIN {
                self.input.resize(2 * self.input.len(), 0);
            }
        }
        loop {
            let space = self.input.len() - self.to;
            match (&self.socket).read(&mut self.input[self.to..]) {
                Ok(0) => return Err(self.broken("it closed the connection")),
                Ok(count) => {
                    self.to += count;
                    return Ok(count == space);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(self.broken(e)),
            }
        }
    }

    /// Takes the next frame that has come whole; its place for [`bytes`](Self::bytes).
    #[inline]
    pub fn frame(&mut self) -> Result<Option<Range<usize>>, String> {
        let bytes = &self.input[self.from..self.to];
        let len = frame_len(bytes)
            .map_err(|error| format!("{} answered something unreadable: {error}", self.addr))?;
        match len {
            Some(len) if len <= bytes.len() => {
                let at = self.from;
                self.from += len;
                Ok(Some(at..at + len))
            }
            _ => Ok(None),
        }
    }

    /// A frame and, beside it, the buffer for what is asked next.
    #[inline]
    pub fn bytes(&mut self, frame: Range<usize>) -> (&[u8], &mut Vec<u8>) {
        (&self.input[frame], &mut self.out)
    }
}
