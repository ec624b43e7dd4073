//! What this host can do with no broker in the way: loopback, disk, and both with the least that
//! any broker has to do in between. The figures of the broker are read against these.
//!
//! A *point* is one setting, measured for a while by one client thread against one server thread,
//! each pinned where the caller says. All servers answer the same client.
//!
//! | file | holds |
//! |---|---|
//! | `client` | the load: pipelined, or one request at a time |
//! | `inbox` | received bytes that become frames |
//! | `loopback` | a server that only answers |
//! | `group` | what one commit gathers, and the replies it releases |
//! | `bare_ring` | receive, copy, CRC, group commit, reply on one ring |
//! | `bare_glommio` | the same on glommio |
//! | `disk` | the curve of block size, depth and sync |
//! | `scratch` | files without a name |
//!
//! Not here: a message format, queues, more than one connection; what a ceiling must not pay for.

mod bare_glommio;
mod bare_ring;
mod client;
mod disk;
mod group;
mod inbox;
mod loopback;
mod scratch;
#[cfg(test)]
mod tests;

pub use disk::{DiskPoint, DiskSync, DiskWritten};
pub use scratch::Scratch;

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

/// What the client does at one point.
#[derive(Clone, Debug)]
pub struct Load {
    /// A request, sent over and over.
    pub frame: Vec<u8>,
    /// The answer to each.
    pub reply: Vec<u8>,
    /// Requests in flight. 1 is one at a time, each of them timed.
    pub depth: usize,
    /// Measured; a fifth of it before that is not.
    pub time: Duration,
    pub server_core: Option<usize>,
    pub client_core: Option<usize>,
}

/// What came of a point.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    pub messages: u64,
    pub seconds: f64,
    /// Nanoseconds from sending a request to having its answer; at depth 1 only.
    pub round_trip: Option<Percentiles>,
    /// Of one core, by the server's thread, 0 to 1. Work of kernel threads is not in it.
    pub server_core_share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentiles {
    pub p50: u64,
    pub p99: u64,
}

impl Percentiles {
    /// Of all `nanos`, which it sorts; `None` if there are none.
    fn of(nanos: &mut [u64]) -> Option<Percentiles> {
        nanos.sort_unstable();
        let at = |share: f64| nanos.get((nanos.len() as f64 * share) as usize).copied();
        Some(Percentiles {
            p50: at(0.5)?,
            p99: at(0.99)?,
        })
    }
}

/// When a group is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// When it is written.
    Async,
    /// When it is durable.
    Sync,
}

/// What the bare pipeline is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Glommio,
    Ring,
}

/// Answers each frame without a look at it.
///
/// # Errors
/// A sentence.
pub fn loopback(load: &Load) -> Result<Traffic, String> {
    point(load, |stream| loopback::serve(stream, &load.reply))
}

/// Commits each frame to `scratch` before it is answered.
///
/// # Errors
/// A sentence.
pub fn pipeline(
    build: Build,
    flush: Flush,
    load: &Load,
    scratch: &Scratch,
) -> Result<Traffic, String> {
    match build {
        Build::Ring => point(load, |stream| {
            bare_ring::serve(&stream, &load.reply, scratch, flush)
        }),
        Build::Glommio => point(load, |stream| {
            bare_glommio::serve(stream, &load.reply, scratch, flush)
        }),
    }
}

/// One client against one server, which ends when the client hangs up.
fn point(
    load: &Load,
    serve: impl FnOnce(TcpStream) -> Result<(), String> + Send,
) -> Result<Traffic, String> {
    let (server_end, client_end) = connected()?;
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            pin(load.server_core)?;
            let (cpu, wall) = (thread_cpu(), Instant::now());
            serve(server_end)?;
            let spent = thread_cpu().saturating_sub(cpu);
            Ok::<_, String>(spent.as_secs_f64() / wall.elapsed().as_secs_f64())
        });
        let client = scope.spawn(move || {
            pin(load.client_core)?;
            client::run(client_end, load)
        });
        let panicked = |_| "a thread of the measurement panicked".to_owned();
        let traffic = client.join().map_err(panicked)?;
        // The server knows best why the client got no answer.
        let server_core_share = server.join().map_err(panicked)??;
        traffic.map(|traffic| Traffic {
            server_core_share,
            ..traffic
        })
    })
}

/// Both ends of a new connection through loopback.
fn connected() -> Result<(TcpStream, TcpStream), String> {
    let ends = || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        Ok((server, client))
    };
    ends().map_err(|error: std::io::Error| format!("no connection through loopback: {error}"))
}

fn pin(core: Option<usize>) -> Result<(), String> {
    let Some(id) = core else {
        return Ok(());
    };
    match core_affinity::set_for_current(core_affinity::CoreId { id }) {
        true => Ok(()),
        false => Err(format!(
            "core {id} cannot be used: it is not there or not allowed"
        )),
    }
}

/// Time this thread has run, in user and kernel.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills the struct behind the pointer, which lives across the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } != 0;
    if failed {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Waits until the socket can be read, or also written.
fn wait_ready(socket: impl AsFd, also_write: bool) -> Result<(), String> {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd {
        fd: socket.as_fd().as_raw_fd(),
        events: libc::POLLIN | if also_write { libc::POLLOUT } else { 0 },
        revents: 0,
    };
    // SAFETY: one entry, which lives across the call.
    let ready = unsafe { libc::poll(&mut poll, 1, ANSWER_TIMEOUT_MS) };
    match ready {
        0 => Err(format!("no answer for {} s", ANSWER_TIMEOUT_MS / 1000)),
        _ => Ok(()),
    }
}

/// Far longer than any stall of a disk that can still be measured.
const ANSWER_TIMEOUT_MS: i32 = 10_000;
