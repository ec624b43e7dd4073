//! The bare pipeline on one ring and one thread: socket and disk in the same queue.
//!
//! A turn takes what has completed, gathers what was received, and puts the next write, send and
//! receive into the queue; one call hands them in and waits. While a group is on its way to the
//! disk the next one gathers. A group is acknowledged when all before it are.
//!
//! A durable write is one entry (`RWF_DSYNC`): two of them in flight did 1.5 times what a write
//! and an `fdatasync` linked behind it did, which goes to a worker thread each time.
//!
//! A group of one block that has the disk to itself is written by plain calls on this thread: with
//! nothing to overlap, the way through the ring only adds to the round trip.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Error;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};

use super::group::{GROUP_BYTES, Group, Place, answer};
use super::inbox::Inbox;
use super::scratch::Aligned;
use super::{Flush, Scratch};
use crate::base::disk::BLOCK_BYTES;

const RECEIVE_BYTES: usize = 256 * 1024;
const WRITES_IN_FLIGHT: usize = 2;
/// One for each write in flight, one that gathers.
const SLOTS: usize = WRITES_IN_FLIGHT + 1;
/// More than can be under way: the writes, one send, one receive.
const QUEUE_ENTRIES: u32 = 16;

/// What an entry of the queue was, in its user data; the slot is in the low byte.
const RECEIVE: u64 = 1 << 8;
const SEND: u64 = 2 << 8;
const WRITE: u64 = 3 << 8;
const SLOT_MASK: u64 = 0xFF;

pub fn serve(
    stream: &TcpStream,
    reply: &[u8],
    scratch: &Scratch,
    flush: Flush,
) -> Result<(), String> {
    let file = scratch.reopen(0)?;
    let mut server = Server::new(stream, reply, &file, scratch.bytes(), flush)?;
    let served = server.run();
    let drained = server.drain();
    served.and(drained)
}

/// A group on its way through memory and disk.
struct Slot {
    buffer: Aligned,
    group: Group,
    log_offset: u64,
    is_done: bool,
}

struct Server<'a> {
    ring: IoUring,
    stream: &'a TcpStream,
    file: &'a File,
    flush: Flush,
    inbox: Inbox,
    slots: Vec<Slot>,
    /// Slots that gather nothing and are not at the disk.
    free: Vec<usize>,
    open: Option<usize>,
    /// Slots at the disk, oldest first.
    committing: VecDeque<usize>,
    place: Place,
    reply: &'a [u8],
    /// Replies that the socket was not given yet.
    out: Vec<u8>,
    /// What it was given; from `sent` on it has not taken it.
    sending: Vec<u8>,
    sent: usize,
    /// Entries in the ring.
    under_way: usize,
    is_receiving: bool,
    is_sending: bool,
    hung_up: bool,
}

fn failed(doing: &str, error: Error) -> String {
    format!("{doing} failed: {error}")
}

impl<'a> Server<'a> {
    fn new(
        stream: &'a TcpStream,
        reply: &'a [u8],
        file: &'a File,
        file_bytes: u64,
        flush: Flush,
    ) -> Result<Server<'a>, String> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(QUEUE_ENTRIES);
        let slot = || Slot {
            buffer: Aligned::filled(GROUP_BYTES, b'x'),
            group: Group::default(),
            log_offset: 0,
            is_done: false,
        };
        Ok(Server {
            ring: ring.map_err(|error| failed("io_uring with deferred task work", error))?,
            stream,
            file,
            flush,
            inbox: Inbox::new(RECEIVE_BYTES),
            slots: (0..SLOTS).map(|_| slot()).collect(),
            free: (0..SLOTS).collect(),
            open: None,
            committing: VecDeque::new(),
            place: Place::new(file_bytes),
            reply,
            out: Vec::new(),
            sending: Vec::new(),
            sent: 0,
            under_way: 0,
            is_receiving: false,
            is_sending: false,
            hung_up: false,
        })
    }

    /// Turns, until the client has gone.
    fn run(&mut self) -> Result<(), String> {
        while !self.hung_up {
            self.gather()?;
            self.send()?;
            self.receive()?;
            self.turn()?;
        }
        Ok(())
    }

    /// Waits for all that is under way: the kernel writes into memory of ours until then.
    fn drain(&mut self) -> Result<(), String> {
        // Wakes a receive or send that would wait for the client. It may have gone, too.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let mut first = Ok(());
        while self.under_way > 0 {
            first = first.and(self.turn());
        }
        first
    }

    fn turn(&mut self) -> Result<(), String> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // Nothing can be waited for any more, so nothing of ours may be freed either.
            Err(error) => panic!("the ring is broken: {error}"),
        }
        let mut outcome = Ok(());
        loop {
            let next = self.ring.completion().next();
            let Some(entry) = next else { return outcome };
            let completed = self.complete(entry.user_data(), entry.result());
            outcome = outcome.and(completed);
        }
    }

    /// Bodies of whole frames go to the open group, which goes to the disk when that has room.
    fn gather(&mut self) -> Result<(), String> {
        loop {
            let Some(at) = self.open.or_else(|| self.free.pop()) else {
                return Ok(());
            };
            self.open = Some(at);
            let slot = &mut self.slots[at];
            let buffer = slot.buffer.bytes_mut();
            let mut fits = Ok(true);
            while self.inbox.next(|frame| {
                fits = slot.group.append(buffer, frame);
                fits == Ok(true)
            })? {}
            let all_gathered = fits?;
            if slot.group.messages == 0 || self.committing.len() == WRITES_IN_FLIGHT {
                return Ok(());
            }
            self.open = None;
            self.commit(at)?;
            if all_gathered {
                return Ok(());
            }
        }
    }

    fn commit(&mut self, at: usize) -> Result<(), String> {
        let is_alone = self.committing.is_empty();
        let slot = &mut self.slots[at];
        let len = slot.group.write_bytes();
        slot.log_offset = self.place.take(len);
        slot.is_done = false;
        self.committing.push_back(at);
        let bytes = &slot.buffer.bytes()[..len];
        if is_alone && len == BLOCK_BYTES {
            let mut written = self.file.write_all_at(bytes, slot.log_offset);
            if self.flush == Flush::Sync {
                written = written.and_then(|()| self.file.sync_data());
            }
            written.map_err(|error| failed("a commit", error))?;
            self.committed(at);
            return Ok(());
        }
        let flags = match self.flush {
            Flush::Async => 0,
            Flush::Sync => libc::RWF_DSYNC,
        };
        let write = opcode::Write::new(Fd(self.file.as_raw_fd()), bytes.as_ptr(), len as u32)
            .offset(slot.log_offset)
            .rw_flags(flags)
            .build();
        self.push(write.user_data(WRITE | at as u64))
    }

    fn send(&mut self) -> Result<(), String> {
        if self.is_sending {
            return Ok(());
        }
        if self.sent == self.sending.len() {
            self.sending.clear();
            self.sent = 0;
            std::mem::swap(&mut self.sending, &mut self.out);
        }
        let rest = &self.sending[self.sent..];
        if rest.is_empty() {
            return Ok(());
        }
        let socket = Fd(self.stream.as_raw_fd());
        let send = opcode::Send::new(socket, rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        self.is_sending = true;
        self.push(send.user_data(SEND))
    }

    fn receive(&mut self) -> Result<(), String> {
        if self.is_receiving {
            return Ok(());
        }
        let room = self.inbox.room();
        if room.is_empty() {
            return Ok(());
        }
        let socket = Fd(self.stream.as_raw_fd());
        let receive = opcode::Recv::new(socket, room.as_mut_ptr(), room.len() as u32).build();
        self.is_receiving = true;
        self.push(receive.user_data(RECEIVE))
    }

    fn push(&mut self, entry: Entry) -> Result<(), String> {
        // SAFETY: what the entry points to belongs to this server and keeps its place until
        // `drain` has seen the end of every entry: the room of the inbox is not touched while
        // `is_receiving`, a slot's buffer not while it is in `committing`, `sending` not while
        // `is_sending`. File and stream outlive the server.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| "the ring's queue is full".to_owned())?;
        self.under_way += 1;
        Ok(())
    }

    fn complete(&mut self, data: u64, result: i32) -> Result<(), String> {
        self.under_way -= 1;
        let at = (data & SLOT_MASK) as usize;
        match data & !SLOT_MASK {
            RECEIVE => {
                self.is_receiving = false;
                match usize::try_from(result) {
                    Ok(count) if count > 0 => self.inbox.received(count),
                    // An end, or a reset because answers were under way.
                    _ => self.hung_up = true,
                }
            }
            SEND => {
                self.is_sending = false;
                match usize::try_from(result) {
                    Ok(count) => self.sent += count,
                    Err(_) => self.hung_up = true,
                }
            }
            _ if result < 0 => {
                return Err(failed("a commit", Error::from_raw_os_error(-result)));
            }
            _ => {
                let (written, asked) = (result as usize, self.slots[at].group.write_bytes());
                if written != asked {
                    return Err(format!("{written} of {asked} bytes were written"));
                }
                self.committed(at);
            }
        }
        Ok(())
    }

    /// Acknowledges the groups at the front of the log that are done.
    fn committed(&mut self, at: usize) {
        self.slots[at].is_done = true;
        while let Some(at) = self.committing.front().copied() {
            let slot = &mut self.slots[at];
            if !slot.is_done {
                return;
            }
            answer(slot.group, self.reply, &mut self.out);
            slot.group = Group::default();
            self.committing.pop_front();
            self.free.push(at);
        }
    }
}
