//! Listening, accepting and dialling.
//!
//! Addresses are bound before anything is recovered, so that a taken port is said at once, but
//! they listen only when the machines serve: until then a client is refused, not kept waiting.

use crate::base::{Mono, Now};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Connections the kernel completes before we accept them.
const BACKLOG: i32 = 1024;
/// A killed process's ring lets go of its sockets a little after the process is gone, and whoever
/// restarts it is fast.
const BIND_TRIES: usize = 20;
const BIND_REST: Duration = Duration::from_millis(50);
/// Rest after a failed accept, which is mostly "too many open files".
const ACCEPT_REST_MS: u64 = 100;
/// Connections accepted before others get their turn.
const ACCEPTS: usize = 64;
/// Addresses of one host that a dial tries.
const DIAL_TRIES: usize = 3;

/// A bound address that does not listen yet.
pub struct Door {
    socket: Socket,
    pub addr: SocketAddr,
}

impl Door {
    pub fn bind(addr: SocketAddr) -> Result<Door, String> {
        let bound = || -> std::io::Result<Door> {
            let domain = Domain::for_address(addr);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.bind(&addr.into())?;
            let local = socket.local_addr()?.as_socket();
            Ok(Door {
                socket,
                addr: local.unwrap_or(addr),
            })
        };
        let mut tries = 0;
        loop {
            match bound() {
                Err(e) if e.kind() == ErrorKind::AddrInUse && tries < BIND_TRIES => {
                    tries += 1;
                    std::thread::sleep(BIND_REST);
                }
                other => return other.map_err(|e| cannot_listen(addr, &e)),
            }
        }
    }

    pub fn listen(&self) -> Result<(), String> {
        self.socket
            .listen(BACKLOG)
            .map_err(|e| cannot_listen(self.addr, &e))
    }
}

fn cannot_listen(addr: SocketAddr, error: &std::io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "another process listens there: stop it, or configure another port"
        }
        Some(libc::EADDRNOTAVAIL) => {
            "this host does not have that address: listen on one it has, or on 0.0.0.0"
        }
        Some(libc::EACCES) => "ports below 1024 need CAP_NET_BIND_SERVICE: take a higher one",
        _ => "check the listen address",
    };
    format!("cannot listen on {addr}: {error}; {remedy}")
}

/// A door that is open: clients come in.
pub struct Hall {
    listener: TcpListener,
    addr: SocketAddr,
    rests_until: Option<Mono>,
    shut: bool,
}

impl Hall {
    pub fn open(door: Door) -> Result<Hall, String> {
        let Door { socket, addr } = door;
        let nonblocking = socket.set_nonblocking(true);
        nonblocking.map_err(|e| cannot_listen(addr, &e))?;
        Ok(Hall {
            listener: socket.into(),
            addr,
            rests_until: None,
            shut: false,
        })
    }

    pub fn descriptor(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// When to try again after a failure.
    pub fn rests_until(&self) -> Option<Mono> {
        self.rests_until
    }

    /// Accepts who waits. True if the descriptor is to be watched for more; false after a
    /// failure, which is rested for, and once shut.
    pub fn admit(&mut self, now: Now, mut give: impl FnMut(TcpStream)) -> bool {
        self.rests_until = None;
        if self.shut {
            return false;
        }
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok((stream, _)) => give(stream),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    let addr = self.addr;
                    tracing::warn!(%addr, reason = %e, "accepting a connection failed");
                    self.rests_until = Some(now.mono.after_ms(ACCEPT_REST_MS));
                    return false;
                }
            }
        }
        true
    }

    /// Nobody comes in any more. The ring may still hold the descriptor, so that closing it would
    /// not be enough.
    pub fn shut(&mut self) {
        self.shut = true;
        self.rests_until = None;
        // An error means that nobody listened.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

/// Connects to `host:port`. Blocks.
pub fn dial(addr: &str, timeout: Duration) -> Result<TcpStream, String> {
    let found = addr
        .to_socket_addrs()
        .map_err(|e| format!("{addr} cannot be resolved: {e}"))?;
    let mut reason = "the name has no address".to_owned();
    for found in found.take(DIAL_TRIES) {
        match TcpStream::connect_timeout(&found, timeout) {
            Ok(stream) => return Ok(stream),
            Err(e) => reason = e.to_string(),
        }
    }
    Err(format!("{addr}: {reason}"))
}
