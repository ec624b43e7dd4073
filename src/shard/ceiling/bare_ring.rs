//! The bare pipeline on one ring and one thread: socket and disk in the same queue.
//!
//! A turn takes what has completed, gathers what was received, and puts the next write, send and
//! receive into the queue; one call hands them in and waits. While a group is on its way to the
//! disk the next one gathers. A group is acknowledged when all before it are.

use std::collections::VecDeque;
use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};

use super::group::{GROUP_BYTES, Group, Place, Replies};
use super::inbox::Inbox;
use super::scratch::Aligned;
use super::{Flush, Scratch};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncBy {
    Dsync,
    Linked,
    Inline,
}

#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    pub receive_bytes: usize,
    pub group_bytes: usize,
    pub in_flight: usize,
    pub sync: SyncBy,
    pub fixed: bool,
    pub spin: bool,
    pub defer: bool,
    pub send_now: bool,
    pub iowq: Option<usize>,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            receive_bytes: 256 * 1024,
            group_bytes: GROUP_BYTES,
            in_flight: 2,
            sync: SyncBy::Dsync,
            fixed: false,
            spin: false,
            defer: true,
            send_now: false,
            iowq: None,
        }
    }
}

const QUEUE_ENTRIES: u32 = 64;
const RECEIVE: u64 = 1 << 8;
const SEND: u64 = 2 << 8;
const WRITE: u64 = 3 << 8;
const SYNC: u64 = 4 << 8;
const SLOT: u64 = 0xFF;

pub fn serve(stream: &TcpStream, scratch: &Scratch, flush: Flush) -> Result<(), String> {
    serve_tuned(stream, scratch, flush, Tuning::default())
}

pub fn serve_tuned(
    stream: &TcpStream,
    scratch: &Scratch,
    flush: Flush,
    tuning: Tuning,
) -> Result<(), String> {
    let file = scratch.reopen(0)?;
    let mut server = Server::new(stream, &file, scratch.bytes(), flush, tuning)?;
    let served = server.run();
    eprintln!(
        "    turns {} writes {} receives {} sends {} mean group {}",
        server.turns,
        server.writes,
        server.receives,
        server.sends,
        server.bytes / server.writes.max(1)
    );
    served
}

struct Slot {
    buffer: Aligned,
    group: Group,
    log_offset: u64,
    done: bool,
}

struct Server<'a> {
    ring: IoUring,
    stream: &'a TcpStream,
    file: &'a File,
    flush: Flush,
    tuning: Tuning,
    inbox: Inbox,
    slots: Vec<Slot>,
    /// Slots at the disk, oldest first.
    committing: VecDeque<usize>,
    free: Vec<usize>,
    open: Option<usize>,
    place: Place,
    replies: Replies,
    /// Replies that are not with the socket yet.
    out: Vec<u8>,
    /// With the socket from `sent` on, if `is_sending`.
    sending: Vec<u8>,
    sent: usize,
    is_sending: bool,
    is_receiving: bool,
    hung_up: bool,
    turns: u64,
    writes: u64,
    receives: u64,
    sends: u64,
    bytes: u64,
}

fn failed(doing: &str, error: std::io::Error) -> String {
    format!("{doing} failed: {error}")
}

impl<'a> Server<'a> {
    fn new(
        stream: &'a TcpStream,
        file: &'a File,
        file_bytes: u64,
        flush: Flush,
        tuning: Tuning,
    ) -> Result<Server<'a>, String> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer();
        if tuning.defer {
            builder.setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        let ring: IoUring = builder
            .build(QUEUE_ENTRIES)
            .map_err(|e| failed("io_uring", e))?;
        let slots: Vec<Slot> = (0..=tuning.in_flight)
            .map(|_| Slot {
                buffer: Aligned::filled(tuning.group_bytes, b'x'),
                group: Group::default(),
                log_offset: 0,
                done: false,
            })
            .collect();
        if tuning.fixed {
            let vecs: Vec<libc::iovec> = slots
                .iter()
                .map(|slot| libc::iovec {
                    iov_base: slot.buffer.bytes().as_ptr() as *mut _,
                    iov_len: slot.buffer.bytes().len(),
                })
                .collect();
            // SAFETY: x
            unsafe { ring.submitter().register_buffers(&vecs) }
                .map_err(|e| failed("register", e))?;
        }
        if let Some(core) = tuning.iowq {
            // SAFETY: x
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: x
            unsafe { libc::CPU_SET(core, &mut set) };
            ring.submitter()
                .register_iowq_aff(&set)
                .map_err(|e| failed("aff", e))?;
        }
        Ok(Server {
            ring,
            stream,
            file,
            flush,
            tuning,
            inbox: Inbox::new(tuning.receive_bytes),
            free: (0..slots.len()).collect(),
            slots,
            committing: VecDeque::new(),
            open: None,
            place: Place::new(file_bytes),
            replies: Replies::default(),
            out: Vec::new(),
            sending: Vec::new(),
            sent: 0,
            is_sending: false,
            is_receiving: false,
            hung_up: false,
            turns: 0,
            writes: 0,
            receives: 0,
            sends: 0,
            bytes: 0,
        })
    }

    fn run(&mut self) -> Result<(), String> {
        while !(self.hung_up && self.committing.is_empty() && !self.is_sending) {
            self.gather()?;
            self.commit()?;
            self.send()?;
            self.receive()?;
            self.turns += 1;
            if self.tuning.spin {
                self.ring
                    .submitter()
                    .submit_and_wait(0)
                    .map_err(|e| failed("io_uring", e))?;
            } else {
                self.ring
                    .submit_and_wait(1)
                    .map_err(|e| failed("io_uring", e))?;
            }
            self.complete()?;
        }
        Ok(())
    }

    /// Bodies of whole frames go to the open group.
    fn gather(&mut self) -> Result<(), String> {
        loop {
            let Some(at) = self.open.or_else(|| self.free.pop()) else {
                return Ok(());
            };
            self.open = Some(at);
            let slot = &mut self.slots[at];
            let mut full = Ok(true);
            let buffer = slot.buffer.bytes_mut();
            while self.inbox.next(|frame| {
                full = slot.group.append(buffer, frame);
                full == Ok(true)
            })? {}
            if full? || self.committing.len() >= self.tuning.in_flight {
                return Ok(());
            }
            self.commit()?;
        }
    }

    /// The open group goes to the disk if there is something in it and room there.
    fn commit(&mut self) -> Result<(), String> {
        if self.committing.len() >= self.tuning.in_flight {
            return Ok(());
        }
        let Some(at) = self.open.take_if(|at| self.slots[*at].group.messages > 0) else {
            return Ok(());
        };
        self.writes += 1;
        let slot = &mut self.slots[at];
        let bytes = slot.group.write_bytes();
        self.bytes += bytes as u64;
        slot.log_offset = self.place.take(bytes);
        slot.done = false;
        self.committing.push_back(at);
        let sync = self.flush == Flush::Sync;
        let flags = if sync && self.tuning.sync == SyncBy::Dsync {
            libc::RWF_DSYNC
        } else {
            0
        };
        let fd = types::Fd(self.file.as_raw_fd());
        if self.tuning.sync == SyncBy::Inline && sync {
            use std::os::unix::fs::FileExt;
            self.file
                .write_all_at(&slot.buffer.bytes()[..bytes], slot.log_offset)
                .map_err(|e| failed("write", e))?;
            self.file.sync_data().map_err(|e| failed("sync", e))?;
            self.committed(at);
            return Ok(());
        }
        let start = slot.buffer.bytes().as_ptr();
        let write = if self.tuning.fixed {
            opcode::WriteFixed::new(fd, start, bytes as u32, at as u16)
                .offset(slot.log_offset)
                .rw_flags(flags)
                .build()
        } else {
            opcode::Write::new(fd, start, bytes as u32)
                .offset(slot.log_offset)
                .rw_flags(flags)
                .build()
        }
        .user_data(WRITE | at as u64);
        if sync && self.tuning.sync == SyncBy::Linked {
            self.push(write.flags(Flags::IO_LINK))?;
            let entry = opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build()
                .user_data(SYNC | at as u64);
            self.push(entry)
        } else {
            self.push(write)
        }
    }

    fn send(&mut self) -> Result<(), String> {
        if self.is_sending {
            return Ok(());
        }
        if self.sent == self.sending.len() {
            if self.out.is_empty() {
                return Ok(());
            }
            self.sending.clear();
            std::mem::swap(&mut self.sending, &mut self.out);
            self.sent = 0;
        }
        self.sends += 1;
        let rest = &self.sending[self.sent..];
        if self.tuning.send_now {
            use std::io::Write;
            let mut s = self.stream;
            self.sent += s.write(rest).map_err(|e| failed("send", e))?;
            return Ok(());
        }
        self.is_sending = true;
        let fd = types::Fd(self.stream.as_raw_fd());
        let entry = opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(SEND);
        self.push(entry)
    }

    fn receive(&mut self) -> Result<(), String> {
        let room = self.inbox.room();
        if self.is_receiving || self.hung_up || room.is_empty() {
            return Ok(());
        }
        let fd = types::Fd(self.stream.as_raw_fd());
        let entry = opcode::Recv::new(fd, room.as_mut_ptr(), room.len() as u32)
            .build()
            .user_data(RECEIVE);
        self.is_receiving = true;
        self.receives += 1;
        self.push(entry)
    }

    fn push(&mut self, entry: Entry) -> Result<(), String> {
        // SAFETY: what the entry points to belongs to this server and stays where it is: the part
        // of the inbox is not touched while `is_receiving`, a group's buffer while it is in
        // `committing`, `sending` while `is_sending`. `close` waits for all of them.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| "the queue is full".to_owned())
    }

    fn complete(&mut self) -> Result<(), String> {
        while let Some((data, result)) = {
            let next = self.ring.completion().next();
            next.map(|entry| (entry.user_data(), entry.result()))
        } {
            let at = (data & SLOT) as usize;
            match data & !SLOT {
                RECEIVE => {
                    self.is_receiving = false;
                    if result <= 0 {
                        self.hung_up = true;
                    } else {
                        self.inbox.received(result as usize);
                    }
                }
                SEND => {
                    self.is_sending = false;
                    if result <= 0 {
                        self.hung_up = true;
                        self.sent = self.sending.len();
                        self.out.clear();
                    } else {
                        self.sent += result as usize;
                    }
                }
                kind => {
                    if result < 0 {
                        return Err(failed(
                            "a commit",
                            std::io::Error::from_raw_os_error(-result),
                        ));
                    }
                    if kind == WRITE {
                        assert_eq!(result as usize, self.slots[at].group.write_bytes());
                    }
                    let last = if self.flush == Flush::Sync && self.tuning.sync == SyncBy::Linked {
                        SYNC
                    } else {
                        WRITE
                    };
                    if kind == last {
                        self.committed(at);
                    }
                }
            }
        }
        Ok(())
    }

    fn committed(&mut self, at: usize) {
        self.slots[at].done = true;
        while let Some(at) = self.committing.front().copied() {
            let slot = &mut self.slots[at];
            if !slot.done {
                return;
            }
            self.replies
                .append(slot.group, slot.log_offset, &mut self.out);
            slot.group = Group::default();
            self.committing.pop_front();
            self.free.push(at);
        }
    }
}
