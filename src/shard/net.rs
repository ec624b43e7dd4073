//! Listening, accepting and dialling.
//!
//! Addresses are bound before anything is recovered, so that a taken port is said at once, but
//! they listen only when the machines serve: until then a client is refused, not kept waiting.

use super::drive::Shard;
use super::mesh::{Mail, Post};
use super::pace::Pace;
use crate::base::ShardId;
use crate::machine::{Dial, Event, Machine};
use glommio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::Cell;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::time::Duration;

/// Connections the kernel completes before we accept them.
const BACKLOG: i32 = 1024;
/// A killed process's ring lets go of its sockets a little after the process is gone, and whoever
/// restarts it is fast.
const BIND_TRIES: usize = 20;
const BIND_REST: Duration = Duration::from_millis(50);
/// Rest after a failed accept, which is mostly "too many open files".
const ACCEPT_REST: Duration = Duration::from_millis(100);
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

    fn into_listener(self) -> TcpListener {
        // SAFETY: the descriptor is a TCP socket that nobody else owns: it was just given up.
        unsafe { TcpListener::from_raw_fd(self.socket.into_raw_fd()) }
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

/// Accepts and sends the sockets round the machines. `next` is shared by all doors of a fleet.
pub async fn accept_loop<P: Send + 'static>(
    door: Door,
    post: Rc<Post<P>>,
    shards: u16,
    next: Rc<Cell<u16>>,
    pace: Rc<Pace>,
) {
    let addr = door.addr;
    let listener = door.into_listener();
    loop {
        match listener.shared_accept().await {
            Ok(accepted) => {
                let to = ShardId(next.get());
                next.set((to.0 + 1) % shards);
                post.send(Mail::Socket { to, accepted });
                pace.breathe().await;
            }
            Err(e) => {
                tracing::warn!(%addr, reason = %e, "accepting a connection failed");
                glommio::timer::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Resolves one dial after the other, so that a slow name server costs one helper thread at most;
/// connecting goes side by side.
pub async fn dial_loop<M: Machine + 'static>(shard: Rc<Shard<M>>) {
    loop {
        let dial = shard.dials.pop().await;
        let addrs = resolve(dial.addr.clone()).await;
        glommio::spawn_local(connect(shard.clone(), dial, addrs)).detach();
    }
}

async fn resolve(addr: String) -> Result<Vec<SocketAddr>, String> {
    if let Ok(plain) = addr.parse() {
        return Ok(vec![plain]);
    }
    let look_up = move || match addr.to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(e) => Err(format!("{addr} cannot be resolved: {e}")),
    };
    glommio::executor().spawn_blocking(look_up).await
}

async fn connect<M: Machine + 'static>(
    shard: Rc<Shard<M>>,
    dial: Dial,
    addrs: Result<Vec<SocketAddr>, String>,
) {
    let Dial { token, addr } = dial;
    let reason = match addrs {
        Ok(addrs) => match try_addresses(&addrs, shard.around.options.dial_timeout).await {
            Ok(stream) => match shard.open(stream, Some(token)) {
                Ok(()) => return,
                Err(reason) => reason,
            },
            Err(reason) => format!("{addr}: {reason}"),
        },
        Err(reason) => reason,
    };
    let now = shard.now();
    shard.step(now, Event::DialFailed { token, reason });
    shard.settle(now);
}

async fn try_addresses(addrs: &[SocketAddr], timeout: Duration) -> Result<TcpStream, String> {
    let mut reason = "the name has no address".to_owned();
    for addr in addrs.iter().take(DIAL_TRIES) {
        match TcpStream::connect_timeout(addr, timeout).await {
            Ok(stream) => return Ok(stream),
            Err(e) => reason = e.to_string(),
        }
    }
    Err(reason)
}
