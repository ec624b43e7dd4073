//! Drives machines: sockets, files, clocks and cores. Everything here acts; nothing decides.
//!
//! One process runs up to two *fleets* of machines: the shards of a broker, spread over executors
//! (shard `s` runs on executor `s % executors`), and a name server on the first executor. Each
//! machine is single-threaded; the shards of a fleet write to each other through `mesh`.
//!
//! A *turn* is a batch of events for one machine (the frames of one receive, one disk completion,
//! one letter from another shard, a tick) followed by `Shard::settle`, which sends what the
//! machine wrote and starts what it ordered.
//!
//! | file | holds |
//! |---|---|
//! | `boot` | placing executors, start-up, stopping |
//! | `executor` | the loop of one executor: rounds, sleeping |
//! | `team` | the machines of one fleet on one executor |
//! | `drive` | a machine with its outbox and connections; turns |
//! | `conn` | one connection: receiving, sending, limits |
//! | `ring` | io_uring: disk orders in flight, descriptors waited for |
//! | `mesh` | letters between shards; `bell` wakes who sleeps |
//! | `net` | listeners, accepting, dialling |
//! | `disk` | orders on the ring; `dir` the same directory for start-up and helper threads |
//! | `helpers` | threads for what blocks |
//! | `checks` | what the host must offer; the lock file |
//! | `signals` | SIGINT and SIGTERM |
//!
//! Not here: TLS, HTTP. This folder alone knows io_uring, and reads clocks.

mod bell;
mod boot;
pub mod ceiling;
pub mod checks;
pub mod clock;
mod conn;
pub mod dir;
mod disk;
mod drive;
mod executor;
mod helpers;
mod mapping;
mod mesh;
mod net;
mod ring;
pub mod signals;
mod team;
#[cfg(test)]
mod tests;
mod token;

pub use boot::{Running, Stopper, run};
pub use dir::FsDir;

use crate::base::disk::Dir;
use crate::base::{Now, ShardId};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where executors run.
#[derive(Clone, Debug)]
pub enum Cores {
    /// One executor per core, pinned to it. If one of them may not be used, all float.
    Pinned(Vec<usize>),
    /// So many executors, placed by the kernel.
    Floating(usize),
}

impl Cores {
    /// All cores this process may use.
    pub fn usable() -> Self {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        if ids.is_empty() {
            return Cores::Floating(1);
        }
        Cores::Pinned(ids.into_iter().map(|core| core.id).collect())
    }

    fn count(&self) -> usize {
        match self {
            Cores::Pinned(cores) => cores.len().max(1),
            Cores::Floating(count) => (*count).max(1),
        }
    }
}

/// How to drive. The defaults are for production; tests make the times short.
#[derive(Clone, Debug)]
pub struct Options {
    pub cores: Cores,
    /// How long a pinned executor polls before it sleeps. Zero unless the cores are dedicated.
    pub spin: Duration,
    /// Connections are taken up again at whole multiples of this after they were read; zero means
    /// at once.
    pub read_interval: Duration,
    /// How long connections may be read before disks and mail are looked at again.
    pub round: Duration,
    /// Log writes and syncs that may be at the disk at once, per machine.
    pub writes_in_flight: usize,
    /// Other disk orders that may be under way at once, per machine.
    pub orders_in_flight: usize,
    /// Connections per machine; more are closed at once.
    pub connections_max: usize,
    /// One receive takes up to this many bytes; longer frames get a buffer of their own.
    pub receive_bytes: usize,
    /// A connection with more unsent output than this is not read.
    pub output_pause_bytes: usize,
    /// A connection with more unsent output than this is closed.
    pub output_close_bytes: usize,
    /// A connection on which nothing moved for so long is closed.
    pub idle: Duration,
    /// The rest of a frame must arrive within this time.
    pub half_frame: Duration,
    pub dial_timeout: Duration,
    /// How long machines may take to drain after a stop.
    pub drain: Duration,
    /// Whether SIGTERM and SIGINT stop the process. The calling thread must be the first one.
    pub signals: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cores: Cores::usable(),
            spin: Duration::ZERO,
            read_interval: Duration::ZERO,
            round: Duration::from_micros(300),
            writes_in_flight: 2,
            orders_in_flight: 16,
            connections_max: 16_384,
            receive_bytes: 256 * 1024,
            output_pause_bytes: 1024 * 1024,
            output_close_bytes: 64 * 1024 * 1024,
            idle: Duration::from_secs(120),
            half_frame: Duration::from_secs(30),
            dial_timeout: Duration::from_secs(3),
            drain: Duration::from_secs(5),
            signals: true,
        }
    }
}

/// Makes one machine, on the thread it will live on. Blocking I/O through the directory is fine:
/// nothing is served yet.
pub type Make<M> = Arc<dyn Fn(ShardId, &dyn Dir, Now) -> Result<M, String> + Send + Sync>;

/// Machines that belong together: the shards of a broker, or one name server.
pub struct Fleet<M> {
    /// For messages to people: "broker", "name server".
    pub name: &'static str,
    /// Every address speaks the whole protocol. Connections go round the machines.
    pub listen: Vec<SocketAddr>,
    /// One directory per machine; machine `i` gets `dirs[i]`.
    pub dirs: Vec<PathBuf>,
    pub make: Make<M>,
}

/// What one machine's driver has counted since start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    pub turns: u64,
    pub frames: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub opened: u64,
    pub closed: u64,
    /// Closed at once because the limit of connections was reached.
    pub over_connections: u64,
    /// Peers of another protocol.
    pub foreign: u64,
    /// Frames with an impossible length or an unreadable header.
    pub broken: u64,
    /// Frames whose rest did not come in time.
    pub cut: u64,
    pub idle: u64,
    /// Closed for reading too slowly.
    pub slow: u64,
    pub disk_errors: u64,
}

impl Stats {
    fn add(&mut self, other: &Stats) {
        self.turns += other.turns;
        self.frames += other.frames;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.opened += other.opened;
        self.closed += other.closed;
        self.over_connections += other.over_connections;
        self.foreign += other.foreign;
        self.broken += other.broken;
        self.cut += other.cut;
        self.idle += other.idle;
        self.slow += other.slow;
        self.disk_errors += other.disk_errors;
    }
}
