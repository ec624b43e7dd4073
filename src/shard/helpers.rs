//! Threads beside an executor for what blocks: work on files, look-ups of names, dials. What they
//! found comes back through a queue, and the executor's bell.

use super::bell::Bell;
use super::dir::FsDir;
use super::net;
use super::token::Place;
use crate::base::disk::Work;
use crate::base::{DiskError, OrderId};
use crate::machine::Dial;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Threads for work on files.
const THREADS: usize = 2;

/// What a helper found out, for the machine at `place`.
pub struct Found {
    pub place: Place,
    pub what: What,
}

pub enum What {
    Work {
        id: OrderId,
        result: Result<Vec<u8>, DiskError>,
        /// Names that now mean another file.
        moved: Vec<String>,
    },
    Dialed {
        token: u64,
        result: Result<TcpStream, String>,
    },
}

type Job = Box<dyn FnOnce() -> Found + Send>;

pub struct Helpers {
    jobs: Sender<Job>,
    found: Receiver<Found>,
    finder: Finder,
}

/// Brings what was found to the executor.
#[derive(Clone)]
struct Finder {
    found: Sender<Found>,
    bell: Arc<Bell>,
}

impl Finder {
    fn bring(&self, found: Found) {
        // An executor that has ended wants nothing any more.
        let _ = self.found.send(found);
        self.bell.ring();
    }
}

impl Helpers {
    /// Starts the threads, on `cores` if there are any to spare.
    pub fn start(name: &str, bell: Arc<Bell>, cores: &[usize]) -> Result<Helpers, String> {
        let (jobs, queue) = channel::<Job>();
        let (sender, found) = channel();
        let finder = Finder {
            found: sender,
            bell,
        };
        let queue = Arc::new(Mutex::new(queue));
        for at in 0..THREADS {
            let (queue, finder, cores) = (queue.clone(), finder.clone(), cores.to_vec());
            let serve = move || {
                fence_in(&cores);
                loop {
                    let job = queue.lock().expect("nobody panics holding it").recv();
                    let Ok(job) = job else { return };
                    finder.bring(job());
                }
            };
            std::thread::Builder::new()
                .name(format!("{name}-helper-{at}"))
                .spawn(serve)
                .map_err(|e| format!("a helper thread does not start: {e}"))?;
        }
        Ok(Helpers {
            jobs,
            found,
            finder,
        })
    }

    /// What was found since the last call, one at a time.
    pub fn next(&self) -> Option<Found> {
        self.found.try_recv().ok()
    }

    pub fn work(&self, place: Place, id: OrderId, root: PathBuf, work: Work) {
        let job = move || {
            let dir = FsDir::existing(&root);
            let result = work(&dir);
            let moved = dir.take_moved();
            let what = What::Work { id, result, moved };
            Found { place, what }
        };
        self.jobs
            .send(Box::new(job))
            .expect("helpers live as long as their queue");
    }

    /// A thread of its own: a host that does not answer must not hold up the files of others.
    pub fn dial(&self, place: Place, dial: Dial, timeout: Duration) -> Result<(), String> {
        let finder = self.finder.clone();
        let Dial { token, addr } = dial;
        let job = move || {
            let result = net::dial(&addr, timeout);
            let what = What::Dialed { token, result };
            finder.bring(Found { place, what });
        };
        let spawned = std::thread::Builder::new()
            .name("dial".to_owned())
            .spawn(job);
        spawned.map(drop).map_err(|e| e.to_string())
    }
}

/// Keeps the calling thread on these cores; anywhere if there are none.
fn fence_in(cores: &[usize]) {
    if cores.is_empty() {
        return;
    }
    // SAFETY: a zeroed cpu_set_t is an empty set; CPU_SET checks its bounds; the set lives across
    // the call. A refusal leaves the thread where it is, which harms nobody.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores {
            libc::CPU_SET(*core, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}
