//! One connection of the generator: whole frames in and out of large buffers.
//!
//! Output is sent as far as the socket takes it without waiting; input is waited for. So the
//! generator always reads, and a broker that stops reading until its answers are taken cannot
//! lock up with it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::remoting::command::Command;
use crate::remoting::frame::{Codec, frame_len, split};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longer than any broker holds a request by itself.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const INPUT_BYTES: usize = 1 << 20;
/// Output that is sent is cut off the buffer in steps of this size.
const SENT_KEPT_BYTES: usize = 1 << 20;

pub struct Link {
    socket: Socket,
    addr: String,
    waits: bool,
    pub codec: Codec,
    /// Frames go to the end of this.
    pub out: Vec<u8>,
    /// Bytes of `out` that are sent.
    sent: usize,
    /// Bytes cut off `out` so far.
    cut: u64,
    input: Vec<u8>,
    from: usize,
    to: usize,
}

impl Link {
    /// Connects to `host:port`.
    pub fn connect(addr: &str, codec: Codec) -> Result<Link, String> {
        let resolved = addr.to_socket_addrs();
        let resolved: Vec<SocketAddr> = resolved
            .map_err(|error| format!("{addr} is no address: {error}"))?
            .collect();
        let mut last = format!("{addr} has no address");
        for candidate in resolved {
            match open(candidate) {
                Ok(socket) => {
                    return Ok(Link {
                        socket,
                        addr: addr.to_owned(),
                        waits: true,
                        codec,
                        out: Vec::new(),
                        sent: 0,
                        cut: 0,
                        input: vec![0; INPUT_BYTES],
                        from: 0,
                        to: 0,
                    });
                }
                Err(error) => last = format!("{addr} cannot be reached: {error}"),
            }
        }
        Err(last)
    }

    /// From now on nothing waits; [`receive`](Self::receive) may find nothing.
    pub fn never_wait(&mut self) -> Result<(), String> {
        self.waits = false;
        self.socket
            .set_nonblocking(true)
            .map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &std::io::Error) -> String {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!(
                    "{} gave no answer for {} s",
                    self.addr,
                    ANSWER_TIMEOUT.as_secs()
                )
            }
            _ => format!("the connection to {} broke: {error}", self.addr),
        }
    }

    /// Bytes that were put into `out` since the beginning.
    pub fn written(&self) -> u64 {
        self.cut + self.out.len() as u64
    }

    /// Bytes that the socket has taken since the beginning.
    pub fn taken(&self) -> u64 {
        self.cut + self.sent as u64
    }

    /// Sends what the socket takes at once.
    pub fn push(&mut self) -> Result<(), String> {
        while self.sent < self.out.len() {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            match self.socket.send_with_flags(&self.out[self.sent..], flags) {
                Ok(sent) => self.sent += sent,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.broken(&e)),
            }
        }
        if self.sent == self.out.len() || self.sent > SENT_KEPT_BYTES {
            self.out.drain(..self.sent);
            self.cut += self.sent as u64;
            self.sent = 0;
        }
        Ok(())
    }

    /// Sends everything, waiting for room. Only while no answer is due: see the head of this file.
    pub fn push_all(&mut self) -> Result<(), String> {
        while self.sent < self.out.len() {
            match self.socket.write(&self.out[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.broken(&e)),
            }
        }
        self.push()
    }

    /// Waits for bytes, unless it [never waits](Self::never_wait). False if there were none.
    pub fn receive(&mut self) -> Result<bool, String> {
        if self.from > 0 {
            self.input.copy_within(self.from..self.to, 0);
            self.to -= self.from;
            self.from = 0;
        }
        if self.to == self.input.len() {
            self.input.resize(2 * self.to, 0);
        }
        loop {
            match (&self.socket).read(&mut self.input[self.to..]) {
                Ok(0) => return Err(format!("{} closed the connection", self.addr)),
                Ok(count) => {
                    self.to += count;
                    return Ok(true);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return if self.waits {
                        Err(self.broken(&e))
                    } else {
                        Ok(false)
                    };
                }
                Err(e) => return Err(self.broken(&e)),
            }
        }
    }

    /// The next answer that has come whole, decoded. What a broker asks by itself is passed over.
    pub fn take(&mut self) -> Result<Option<Command<'_>>, String> {
        let unreadable = |error: &dyn std::fmt::Display| {
            format!("{} answered something unreadable: {error}", self.addr)
        };
        loop {
            let bytes = &self.input[self.from..self.to];
            let len = match frame_len(bytes).map_err(|e| unreadable(&e))? {
                Some(len) if len <= bytes.len() => len,
                _ => return Ok(None),
            };
            let frame = split(&bytes[..len]).map_err(|e| unreadable(&e))?;
            let command = Command::decode(frame).map_err(|e| unreadable(&e))?;
            self.from += len;
            if command.is_response() {
                return Ok(Some(command));
            }
        }
    }

    /// Sends what is in `out` and waits for one answer. Nothing else may be in flight.
    pub fn call(&mut self) -> Result<Command<'_>, String> {
        self.push_all()?;
        loop {
            let before = self.from;
            if self.take()?.is_some() {
                self.from = before;
                break;
            }
            self.receive()?;
        }
        let addr = self.addr.clone();
        self.take()?.ok_or(format!("{addr} gave no answer"))
    }
}

fn open(addr: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.connect_timeout(&addr.into(), CONNECT_TIMEOUT)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(socket)
}
