//! Orders of a machine, carried out on io_uring with direct I/O; work goes to helper threads.
//!
//! Orders run side by side. A sync covers the writes whose completion was reported before it was
//! ordered, which is what the machine can know.

use super::dir::{FsDir, disk_error};
use crate::base::disk::{BLOCK_BYTES, Done, FileName, Work};
use crate::base::{DiskError, Map, Order};
use bytes::Bytes;
use glommio::io::{DmaFile, OpenOptions};
use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::Rc;

/// Files kept open per machine. The log needs two, readers a few.
const OPEN_FILES_MAX: usize = 64;

pub struct Disk {
    root: PathBuf,
    files: RefCell<OpenFiles>,
}

#[derive(Default)]
struct OpenFiles {
    by_name: Map<FileName, (Rc<DmaFile>, u64)>,
    uses: u64,
}

impl Disk {
    pub fn new(root: PathBuf) -> Self {
        Disk {
            root,
            files: RefCell::default(),
        }
    }

    pub async fn perform(&self, order: Order) -> Result<Done, DiskError> {
        match order {
            Order::Write { file, at, data } => self.write(&file, at, &data).await,
            Order::Sync { file } => self.sync(&file).await,
            Order::Read { file, at, len } => self.read(&file, at, len).await,
            Order::Work(work) => self.work(work).await,
        }
    }

    async fn write(&self, file: &FileName, at: u64, data: &Bytes) -> Result<Done, DiskError> {
        assert!(
            whole_blocks(at, data.len()),
            "direct writes are whole blocks"
        );
        let opened = self.open(file, "writing").await?;
        let mut buffer = opened.alloc_dma_buffer(data.len());
        buffer.as_bytes_mut().copy_from_slice(data);
        let written = opened.write_at(buffer, at).await;
        let written = written.map_err(|e| disk_error("writing", file, &io_error(e)))?;
        if written != data.len() {
            let short = format!("{written} of {} bytes were written", data.len());
            return Err(disk_error("writing", file, &io::Error::other(short)));
        }
        Ok(Done::Written)
    }

    async fn sync(&self, file: &FileName) -> Result<Done, DiskError> {
        let opened = self.open(file, "syncing").await?;
        let synced = opened.fdatasync().await;
        synced.map_err(|e| disk_error("syncing", file, &io_error(e)))?;
        Ok(Done::Synced)
    }

    async fn read(&self, file: &FileName, at: u64, len: usize) -> Result<Done, DiskError> {
        assert!(whole_blocks(at, len), "direct reads are whole blocks");
        let opened = self.open(file, "reading").await?;
        let read = opened.read_at_aligned(at, len).await;
        let read = read.map_err(|e| disk_error("reading", file, &io_error(e)))?;
        // Copied out: the registered buffer is scarce and may not leave this thread.
        Ok(Done::Read(Bytes::copy_from_slice(&read)))
    }

    async fn work(&self, work: Work) -> Result<Done, DiskError> {
        let dir = FsDir::existing(&self.root);
        let job = move || {
            let result = work(&dir);
            (result, dir.take_moved())
        };
        let (result, moved) = glommio::executor().spawn_blocking(job).await;
        let mut closing = Vec::new();
        for name in moved {
            let gone = self.files.borrow_mut().by_name.remove(name.as_str());
            closing.extend(gone.map(|(file, _)| file));
        }
        for file in closing {
            close(file).await;
        }
        result.map(Done::Work)
    }

    async fn open(&self, name: &FileName, doing: &'static str) -> Result<Rc<DmaFile>, DiskError> {
        if let Some(file) = self.files.borrow_mut().find(name) {
            return Ok(file);
        }
        let path = self.root.join(&**name);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .dma_open(&path)
            .await;
        let file = Rc::new(opened.map_err(|e| disk_error(doing, name, &io_error(e)))?);
        hold(&file).map_err(|e| disk_error(doing, name, &e))?;
        let evicted = self.files.borrow_mut().keep(name.clone(), file.clone());
        if let Some(evicted) = evicted {
            close(evicted).await;
        }
        Ok(file)
    }
}

/// Locks a file for as long as anything of ours is under way on it. A process that is killed
/// leaves writes behind in the kernel; they hold the open file, and so the lock, until they are
/// done, and [`wait_for_writes`](super::dir::wait_for_writes) of the next process waits for that.
fn hold(file: &DmaFile) -> io::Result<()> {
    // SAFETY: the descriptor belongs to `file`, which lives across the call; no pointer is given.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl OpenFiles {
    fn find(&mut self, name: &FileName) -> Option<Rc<DmaFile>> {
        self.uses += 1;
        let (file, used) = self.by_name.get_mut(name)?;
        *used = self.uses;
        Some(file.clone())
    }

    /// Gives back the file used longest ago if there are too many.
    fn keep(&mut self, name: FileName, file: Rc<DmaFile>) -> Option<Rc<DmaFile>> {
        self.by_name.insert(name, (file, self.uses));
        if self.by_name.len() <= OPEN_FILES_MAX {
            return None;
        }
        let oldest = self
            .by_name
            .iter()
            .min_by_key(|(_, (_, used))| *used)?
            .0
            .clone();
        self.by_name.remove(&oldest).map(|(file, _)| file)
    }
}

/// An order that still uses the file keeps it; the last one out closes it by dropping.
async fn close(file: Rc<DmaFile>) {
    if let Err(e) = file.close_rc().await {
        tracing::warn!(reason = %e, "closing a file failed");
    }
}

fn whole_blocks(at: u64, len: usize) -> bool {
    at.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES)
}

/// The operating system's error where there is one, without glommio's wrapping.
fn io_error(error: glommio::GlommioError<()>) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error.to_string()),
    }
}
