//! The io_uring of one executor: disk orders in flight, and who waits for a descriptor.
//!
//! Always holds: memory and files that the kernel works on belong to the ring until it says that
//! it is done with them. A ring that is dropped earlier leaks them.

use bytes::Bytes;
use io_uring::{IoUring, opcode, squeue, types};
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use crate::base::blocks::BlockBuffer;
use crate::base::disk::{BLOCK_BYTES, Until};

/// Orders handed to the kernel in one call; more wait here for the next.
const ENTRIES: u32 = 256;
/// Completions the kernel can queue; beyond it keeps them aside until there is room.
const COMPLETIONS: u32 = 4096;

pub struct Ring {
    uring: IoUring,
    /// What did not fit into the submission queue.
    overflow: VecDeque<squeue::Entry>,
    held: Vec<Option<Held>>,
    free: Vec<u32>,
    in_flight: usize,
    /// A disk order was queued and the kernel does not know it yet.
    urgent: bool,
}

/// What the kernel uses until it completes an order.
struct Held {
    token: u64,
    what: Kept,
}

enum Kept {
    Nothing,
    Write {
        _file: Rc<File>,
        _data: Bytes,
    },
    Sync {
        _file: Rc<File>,
    },
    Read {
        _file: Rc<File>,
        buffer: BlockBuffer,
    },
    Open {
        _path: CString,
    },
}

/// The end of an order.
pub enum Done {
    /// A descriptor is ready, or broken; only trying tells.
    Ready,
    Written(io::Result<usize>),
    Synced(io::Result<()>),
    Read(io::Result<Bytes>),
    Opened(io::Result<File>),
}

impl Ring {
    /// For the thread that calls, and no other.
    pub fn new() -> io::Result<Ring> {
        let lean = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(ENTRIES);
        // Before Linux 6.1 completions interrupt the thread instead of waiting for it to look.
        let uring = match lean {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::builder()
                .setup_cqsize(COMPLETIONS)
                .build(ENTRIES)?,
            other => other?,
        };
        Ok(Ring {
            uring,
            overflow: VecDeque::new(),
            held: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            urgent: false,
        })
    }

    /// Orders that the kernel has not completed, descriptors waited for not counted.
    #[cfg(test)]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Tells once when `fd` can be read (`POLLIN`) or written (`POLLOUT`), or has ended. The
    /// caller keeps the descriptor open until then.
    pub fn watch(&mut self, fd: RawFd, events: i16, token: u64) {
        let entry = opcode::PollAdd::new(types::Fd(fd), events as u32).build();
        self.push(entry, token, Kept::Nothing);
    }

    /// Direct write of whole blocks.
    pub fn write(&mut self, file: Rc<File>, at: u64, data: Bytes, until: Until, token: u64) {
        let data = aligned(data);
        let len = u32::try_from(data.len()).expect("a batch is shorter than 4 GiB");
        let flags = match until {
            Until::Written => 0,
            Until::Durable => libc::RWF_DSYNC,
        };
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), data.as_ptr(), len)
            .offset(at)
            .rw_flags(flags)
            .build();
        let kept = Kept::Write {
            _file: file,
            _data: data,
        };
        self.urge(entry, token, kept);
    }

    pub fn sync(&mut self, file: Rc<File>, token: u64) {
        let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        self.urge(entry, token, Kept::Sync { _file: file });
    }

    /// Direct read of whole blocks.
    pub fn read(&mut self, file: Rc<File>, at: u64, len: usize, token: u64) {
        let mut buffer = BlockBuffer::zeroed(len);
        let target = buffer.as_mut_ptr();
        let len = u32::try_from(len).expect("a read is shorter than 4 GiB");
        let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), target, len)
            .offset(at)
            .build();
        let kept = Kept::Read {
            _file: file,
            buffer,
        };
        self.urge(entry, token, kept);
    }

    /// Opens an existing file for direct reads and writes.
    pub fn open(&mut self, path: CString, token: u64) {
        let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
            .flags(libc::O_RDWR | libc::O_DIRECT | libc::O_CLOEXEC)
            .build();
        self.urge(entry, token, Kept::Open { _path: path });
    }

    fn urge(&mut self, entry: squeue::Entry, token: u64, what: Kept) {
        self.in_flight += 1;
        self.urgent = true;
        self.push(entry, token, what);
    }

    fn push(&mut self, entry: squeue::Entry, token: u64, what: Kept) {
        let held = Some(Held { token, what });
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.held.push(None);
                u32::try_from(self.held.len() - 1).expect("orders in flight are bounded")
            }
        };
        self.held[slot as usize] = held;
        self.overflow.push_back(entry.user_data(u64::from(slot)));
        self.fill();
    }

    /// Moves what waits into the submission queue.
    fn fill(&mut self) {
        let mut queue = self.uring.submission();
        while let Some(entry) = self.overflow.front() {
            // SAFETY: what the entry points to is in `held` until its completion was seen; a
            // watched descriptor involves no memory.
            if unsafe { queue.push(entry) }.is_err() {
                return;
            }
            self.overflow.pop_front();
        }
    }

    /// Hands over what was queued, if a disk waits for it.
    pub fn hand_over_urgent(&mut self) -> io::Result<()> {
        if !self.urgent {
            return Ok(());
        }
        self.enter(None)
    }

    /// Hands everything over and lets the kernel report, without waiting.
    pub fn turn(&mut self) -> io::Result<()> {
        let idle = {
            let queue = self.uring.submission();
            queue.is_empty() && !queue.taskrun() && !queue.cq_overflow()
        };
        if idle { Ok(()) } else { self.enter(None) }
    }

    /// As [`turn`](Self::turn), and waits until something completes or the time is up.
    pub fn wait(&mut self, time: Duration) -> io::Result<()> {
        if self.has_completions() {
            return self.turn();
        }
        let time = types::Timespec::from(time);
        self.enter(Some(types::SubmitArgs::new().timespec(&time)))
    }

    fn enter(&mut self, wait: Option<types::SubmitArgs<'_, '_>>) -> io::Result<()> {
        self.urgent = false;
        let entered = match wait {
            Some(args) if self.overflow.is_empty() => {
                self.uring.submitter().submit_with_args(1, &args)
            }
            _ => self.uring.submitter().submit(),
        };
        match entered {
            Ok(_) => {}
            Err(e) => match e.raw_os_error() {
                // The time was up, a signal came, or completions must be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => return Err(e),
            },
        }
        self.fill();
        Ok(())
    }

    /// Whether [`next`](Self::next) has something.
    pub fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// The next completion.
    pub fn next(&mut self) -> Option<(u64, Done)> {
        let entry = self.uring.completion().next()?;
        Some(self.end(entry.user_data() as u32, outcome(entry.result())))
    }

    fn end(&mut self, slot: u32, result: io::Result<usize>) -> (u64, Done) {
        let held = self.held[slot as usize].take();
        let Held { token, what } = held.expect("an order completes once");
        self.free.push(slot);
        if matches!(what, Kept::Nothing) {
            return (token, Done::Ready);
        }
        self.in_flight -= 1;
        let done = match what {
            Kept::Nothing => Done::Ready,
            Kept::Write { .. } => Done::Written(result),
            Kept::Sync { .. } => Done::Synced(result.map(drop)),
            Kept::Read { mut buffer, .. } => Done::Read(result.map(|count| {
                buffer.truncate(count);
                buffer.into_bytes()
            })),
            Kept::Open { .. } => Done::Opened(result.map(|fd| {
                // SAFETY: the kernel has just made this descriptor and nobody else knows it.
                File::from(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
            })),
        };
        (token, done)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            // The kernel may still write there.
            std::mem::forget(std::mem::take(&mut self.held));
        }
    }
}

fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Direct I/O wants memory at block boundaries; whoever builds large writes takes care of it.
fn aligned(data: Bytes) -> Bytes {
    if data.as_ptr().align_offset(BLOCK_BYTES) == 0 {
        return data;
    }
    let mut copy = BlockBuffer::with_capacity(data.len());
    copy.tail().extend_from_slice(&data);
    copy.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;
    use std::os::unix::net::UnixStream;

    fn next(ring: &mut Ring) -> (u64, Done) {
        loop {
            if let Some(done) = ring.next() {
                return done;
            }
            ring.wait(Duration::from_secs(1)).unwrap();
        }
    }

    #[test]
    fn blocks_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![0; 4 * BLOCK_BYTES]).unwrap();
        let mut ring = Ring::new().unwrap();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        ring.open(name, 1);
        let (1, Done::Opened(Ok(file))) = next(&mut ring) else {
            panic!("not opened")
        };
        let file = Rc::new(file);
        // Not aligned in memory on purpose.
        let data = Bytes::from(vec![7; BLOCK_BYTES + 1]).slice(1..);
        ring.write(file.clone(), BLOCK_BYTES as u64, data, Until::Durable, 2);
        assert!(matches!(
            next(&mut ring),
            (2, Done::Written(Ok(BLOCK_BYTES)))
        ));
        ring.sync(file.clone(), 3);
        assert!(matches!(next(&mut ring), (3, Done::Synced(Ok(())))));
        ring.read(file, 0, 8 * BLOCK_BYTES, 4);
        let (4, Done::Read(Ok(read))) = next(&mut ring) else {
            panic!("not read")
        };
        assert_eq!(
            read.len(),
            4 * BLOCK_BYTES,
            "the end of the file ends the read"
        );
        assert!(read[BLOCK_BYTES..2 * BLOCK_BYTES].iter().all(|b| *b == 7));
        assert!(read[..BLOCK_BYTES].iter().all(|b| *b == 0));
        assert_eq!(ring.in_flight(), 0);
    }

    #[test]
    fn errors_are_those_of_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Ring::new().unwrap();
        let name = CString::new(dir.path().join("none").to_str().unwrap()).unwrap();
        ring.open(name, 1);
        let (1, Done::Opened(Err(error))) = next(&mut ring) else {
            panic!("opened")
        };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let read_only = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_CLOEXEC)
            .open("/dev/null")
            .unwrap();
        let data = Bytes::from(vec![0; BLOCK_BYTES]);
        ring.write(Rc::new(read_only), 0, data, Until::Written, 2);
        assert!(matches!(next(&mut ring), (2, Done::Written(Err(_)))));
    }

    #[test]
    fn more_than_fits_waits_its_turn() {
        let mut ring = Ring::new().unwrap();
        let (mut one, other) = UnixStream::pair().unwrap();
        let count = u64::from(ENTRIES) * 3;
        for token in 0..count {
            ring.watch(other.as_raw_fd(), libc::POLLIN, token);
        }
        ring.wait(Duration::from_millis(1)).unwrap();
        assert!(ring.next().is_none(), "nothing is ready");
        io::Write::write_all(&mut one, b"x").unwrap();
        let mut tokens: Vec<u64> = (0..count).map(|_| next(&mut ring).0).collect();
        tokens.sort();
        assert!(tokens.into_iter().eq(0..count));
    }
}
