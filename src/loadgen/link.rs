//! One connection on which a question waits for its answer: to name servers, and to brokers before
//! the load begins.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::wire::Wire;
use crate::remoting::command::Command;
use crate::remoting::frame::{Codec, frame_len, split};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longer than any broker holds a request by itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const INPUT_BYTES: usize = 64 * 1024;

pub struct Link {
    socket: Socket,
    addr: String,
    pub codec: Codec,
    /// Frames go to the end of this.
    pub out: Vec<u8>,
    input: Vec<u8>,
    from: usize,
    to: usize,
}

impl Link {
    /// Connects to `host:port`.
    pub fn connect(addr: &str, codec: Codec) -> Result<Link, String> {
        let resolved = addr.to_socket_addrs();
        let resolved: Vec<SocketAddr> = resolved
            .map_err(|error| format!("{addr} is no address: {error}; give host:port"))?
            .collect();
        let mut last = format!("{addr} has no address");
        for candidate in resolved {
            match open(candidate) {
                Ok(socket) => {
                    return Ok(Link {
                        socket,
                        addr: addr.to_owned(),
                        codec,
                        out: Vec::new(),
                        input: Vec::new(),
                        from: 0,
                        to: 0,
                    });
                }
                Err(error) => last = format!("{addr} cannot be reached: {error}"),
            }
        }
        Err(last)
    }

    /// Gives the connection away: from now on nothing waits.
    ///
    /// # Errors
    /// A sentence.
    pub fn into_wire(self) -> Result<Wire, String> {
        Wire::new(self.socket, self.addr)
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

    /// Waits for bytes.
    fn receive(&mut self) -> Result<(), String> {
        if self.from > 0 {
            self.input.copy_within(self.from..self.to, 0);
            self.to -= self.from;
            self.from = 0;
        }
        if self.to == self.input.len() {
            self.input.resize((2 * self.to).max(INPUT_BYTES), 0);
        }
        loop {
            match (&self.socket).read(&mut self.input[self.to..]) {
                Ok(0) => return Err(format!("{} closed the connection", self.addr)),
                Ok(count) => {
                    self.to += count;
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
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
        let sent = self.socket.write_all(&self.out);
        sent.map_err(|error| self.broken(&error))?;
        self.out.clear();
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
