//! Orders of a machine, carried out on the ring with direct I/O; work goes to helper threads.
//!
//! Orders run side by side. A sync covers the writes whose completion was reported before it was
//! ordered, which is what the machine can know. Orders for a file that is not open yet wait for it.

use super::dir::disk_error;
use super::executor::Engine;
use super::ring::Done as Ended;
use super::token::{Kind, Place, pack};
use crate::base::disk::{BLOCK_BYTES, Done, FileName};
use crate::base::{DiskError, Map, Order, OrderId};
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

/// Files kept open per machine. The log needs two, readers a few.
const OPEN_FILES_MAX: usize = 64;

/// The answer to an order.
type Answer = (OrderId, Result<Done, DiskError>);

pub struct Disk {
    root: PathBuf,
    place: Place,
    files: Files,
    /// What the ring is asked for, by slot.
    asked: Vec<Option<Asked>>,
    free: Vec<u32>,
    /// Log writes and syncs under way, and those that have ended.
    log_orders: usize,
    log_orders_ended: u64,
    /// Other orders under way, and those that wait for a place among them.
    others: usize,
    waiting: VecDeque<(OrderId, Order)>,
    /// Orders whose file cannot be opened; they are to be answered.
    pub refused: Vec<(OrderId, DiskError)>,
}

enum Asked {
    Open { file: FileName },
    Order { id: OrderId, what: What, log: bool },
}

/// An order on a file, without its data.
enum What {
    Write { file: FileName, bytes: usize },
    Sync { file: FileName },
    Read { file: FileName },
}

#[derive(Default)]
struct Files {
    by_name: Map<FileName, Entry>,
    uses: u64,
}

enum Entry {
    /// With the orders that wait for it.
    Opening(Vec<(OrderId, Order, bool)>),
    Open {
        file: Rc<File>,
        used: u64,
    },
}

impl Disk {
    pub fn new(root: PathBuf, place: Place) -> Self {
        Disk {
            root,
            place,
            files: Files::default(),
            asked: Vec::new(),
            free: Vec::new(),
            log_orders: 0,
            log_orders_ended: 0,
            others: 0,
            waiting: VecDeque::new(),
            refused: Vec::new(),
        }
    }

    /// Log writes and syncs at the disk now.
    pub fn log_orders(&self) -> usize {
        self.log_orders
    }

    /// How many have ended since the start.
    pub fn log_orders_ended(&self) -> u64 {
        self.log_orders_ended
    }

    /// Whether anything is under way.
    pub fn is_busy(&self) -> bool {
        self.log_orders + self.others > 0
    }

    /// A write or sync of the log; whoever asks keeps within the limit.
    pub fn log_order(&mut self, id: OrderId, order: Order, engine: &mut Engine) {
        self.log_orders += 1;
        self.begin(id, order, true, engine);
    }

    /// Any other order; waits its turn if there are too many.
    pub fn order(&mut self, id: OrderId, order: Order, engine: &mut Engine) {
        if self.others >= engine.options.orders_in_flight {
            return self.waiting.push_back((id, order));
        }
        self.others += 1;
        self.begin(id, order, false, engine);
    }

    fn begin(&mut self, id: OrderId, order: Order, log: bool, engine: &mut Engine) {
        let name = match order {
            Order::Work(work) => {
                let root = self.root.clone();
                return engine.helpers.work(self.place, id, root, work);
            }
            Order::Write { ref file, .. }
            | Order::Sync { ref file }
            | Order::Read { ref file, .. } => file.clone(),
        };
        self.files.uses += 1;
        match self.files.by_name.get_mut(&name) {
            Some(Entry::Open { file, used }) => {
                *used = self.files.uses;
                let file = file.clone();
                self.ask(id, order, log, file, engine);
            }
            Some(Entry::Opening(orders)) => orders.push((id, order, log)),
            None => {
                let path = self.root.join(&*name);
                let path = CString::new(path.as_os_str().as_bytes());
                let path = path.expect("file names are ours and hold no NUL");
                let orders = vec![(id, order, log)];
                self.files
                    .by_name
                    .insert(name.clone(), Entry::Opening(orders));
                let slot = self.take_slot(Asked::Open { file: name });
                engine.ring.open(path, pack(Kind::Disk, self.place, slot));
            }
        }
    }

    fn ask(&mut self, id: OrderId, order: Order, log: bool, open: Rc<File>, engine: &mut Engine) {
        match order {
            Order::Write {
                file,
                at,
                data,
                until,
            } => {
                let bytes = data.len();
                assert!(whole_blocks(at, bytes), "direct writes are whole blocks");
                let token = self.token(id, What::Write { file, bytes }, log);
                engine.ring.write(open, at, data, until, token);
            }
            Order::Read { file, at, len } => {
                assert!(whole_blocks(at, len), "direct reads are whole blocks");
                let token = self.token(id, What::Read { file }, log);
                engine.ring.read(open, at, len, token);
            }
            Order::Sync { file } => {
                let token = self.token(id, What::Sync { file }, log);
                engine.ring.sync(open, token);
            }
            Order::Work(_) => unreachable!("work goes to the helpers and opens its files itself"),
        }
    }

    fn token(&mut self, id: OrderId, what: What, log: bool) -> u64 {
        let slot = self.take_slot(Asked::Order { id, what, log });
        pack(Kind::Disk, self.place, slot)
    }

    fn take_slot(&mut self, asked: Asked) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.asked.push(None);
            u32::try_from(self.asked.len() - 1).expect("orders in flight are bounded")
        });
        self.asked[slot as usize] = Some(asked);
        slot
    }

    /// The ring has done what it was asked for. Gives the answer if that was an order.
    pub fn handle_done(&mut self, slot: u32, done: Ended, engine: &mut Engine) -> Option<Answer> {
        let asked = self.asked[slot as usize].take();
        self.free.push(slot);
        match asked.expect("the ring answers once") {
            Asked::Open { file } => {
                let Ended::Opened(result) = done else {
                    panic!("an open ends as one");
                };
                self.opened(file, result, engine);
                None
            }
            Asked::Order { id, what, log } => {
                self.ended(log, engine);
                Some((id, answer(what, done)))
            }
        }
    }

    fn opened(&mut self, name: FileName, result: io::Result<File>, engine: &mut Engine) {
        let Some(Entry::Opening(orders)) = self.files.by_name.remove(&name) else {
            panic!("a file is opened once");
        };
        let file = match result.and_then(|file| hold(&file).map(|()| file)) {
            Ok(file) => Rc::new(file),
            Err(error) => {
                for (id, order, log) in orders {
                    let refused = disk_error(doing(&order), &name, &error);
                    self.refused.push((id, refused));
                    self.ended(log, engine);
                }
                return;
            }
        };
        self.files.keep(name, file.clone());
        for (id, order, log) in orders {
            self.ask(id, order, log, file.clone(), engine);
        }
    }

    /// Makes room for an order that waits.
    fn ended(&mut self, log: bool, engine: &mut Engine) {
        if log {
            self.log_orders -= 1;
            self.log_orders_ended += 1;
            return;
        }
        self.others -= 1;
        if let Some((id, order)) = self.waiting.pop_front() {
            self.order(id, order, engine);
        }
    }

    /// Work has ended; the names in `moved` now mean other files.
    pub fn work_ended(&mut self, moved: &[String], engine: &mut Engine) {
        for name in moved {
            // A file that is being opened is the new one, or as good: the machine named it after
            // it had been told of the work before.
            if let Some(Entry::Open { .. }) = self.files.by_name.get(name.as_str()) {
                self.files.by_name.remove(name.as_str());
            }
        }
        self.ended(false, engine);
    }
}

fn answer(what: What, done: Ended) -> Result<Done, DiskError> {
    match (what, done) {
        (What::Write { file, bytes }, Ended::Written(result)) => match result {
            Ok(written) if written == bytes => Ok(Done::Written),
            Ok(written) => {
                let short = format!("{written} of {bytes} bytes were written");
                Err(disk_error("writing", &file, &io::Error::other(short)))
            }
            Err(error) => Err(disk_error("writing", &file, &error)),
        },
        (What::Sync { file }, Ended::Synced(result)) => match result {
            Ok(()) => Ok(Done::Synced),
            Err(error) => Err(disk_error("syncing", &file, &error)),
        },
        (What::Read { file }, Ended::Read(result)) => match result {
            Ok(bytes) => Ok(Done::Read(bytes)),
            Err(error) => Err(disk_error("reading", &file, &error)),
        },
        _ => panic!("the ring answers what it was asked"),
    }
}

fn doing(order: &Order) -> &'static str {
    match order {
        Order::Write { .. } => "writing",
        Order::Sync { .. } => "syncing",
        Order::Read { .. } => "reading",
        Order::Work(_) => "working on",
    }
}

/// Locks a file for as long as anything of ours is under way on it. A process that is killed
/// leaves writes behind in the kernel; they hold the open file, and so the lock, until they are
/// done, and [`wait_for_writes`](super::dir::wait_for_writes) of the next process waits for that.
fn hold(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor belongs to `file`, which lives across the call; no pointer is given.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Files {
    /// Keeps a file open, and lets go of the one used longest ago if there are too many. An order
    /// that still uses it keeps it until it has ended.
    fn keep(&mut self, name: FileName, file: Rc<File>) {
        let used = self.uses;
        self.by_name.insert(name, Entry::Open { file, used });
        if self.by_name.len() <= OPEN_FILES_MAX {
            return;
        }
        let open = self.by_name.iter().filter_map(|(name, entry)| match entry {
            Entry::Open { used, .. } => Some((*used, name)),
            Entry::Opening(_) => None,
        });
        if let Some((_, oldest)) = open.min() {
            let oldest = oldest.clone();
            self.by_name.remove(&oldest);
        }
    }
}

fn whole_blocks(at: u64, len: usize) -> bool {
    at.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES)
}
