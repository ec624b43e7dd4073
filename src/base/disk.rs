//! What parts ask of the disk, and what the disk answers. Orders are data; `shard` carries them out
//! with io_uring, the simulator with a disk that tears, forgets and fails.
//!
//! Files are named relative to the directory of the machine that orders. Two ways to the disk:
//!
//! * **Orders** on the message path: direct writes, syncs and reads of blocks.
//! * **Work** beside it: a closure over a [`Dir`] that runs on a helper thread (checkpoints,
//!   merges, zero-filling). Start-up uses a [`Dir`] too, before anything is served.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Offsets, lengths and sizes of direct I/O are multiples of this many bytes.
pub const BLOCK_BYTES: usize = 4096;

/// Names an order until its answer comes; unique for one machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OrderId(pub u64);

/// A path below the machine's directory, such as `log/00000000000000000000`.
pub type FileName = Arc<str>;

/// Runs off the shard thread. What it returns is handed back in [`Done::Work`].
pub type Work = Box<dyn FnOnce(&dyn Dir) -> Result<Vec<u8>, DiskError> + Send>;

/// Copies bytes to a place in a file's pages that the kernel keeps in memory: they outlive this
/// process, and are lost with the power until the kernel has written them back. Cannot fail.
pub type Mapped = Box<dyn FnMut(u64, &[u8])>;

/// When a write is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// When the device has taken it.
    Written,
    /// When these bytes survive a loss of power.
    Durable,
}

pub enum Order {
    /// Direct write of whole blocks into the existing, allocated part of `file`.
    Write {
        file: FileName,
        at: u64,
        data: Bytes,
        until: Until,
    },
    /// fdatasync: on success everything written to `file` before this order is durable.
    Sync {
        file: FileName,
    },
    /// Direct read of whole blocks. Bytes beyond the end of the file are left out.
    Read {
        file: FileName,
        at: u64,
        len: usize,
    },
    Work(Work),
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Write {
                file,
                at,
                data,
                until,
            } => {
                write!(f, "write {file}@{at}+{} until {until:?}", data.len())
            }
            Order::Sync { file } => write!(f, "sync {file}"),
            Order::Read { file, at, len } => write!(f, "read {file}@{at}+{len}"),
            Order::Work(_) => write!(f, "work"),
        }
    }
}

/// The answer to an [`Order`] that succeeded.
#[derive(Debug)]
pub enum Done {
    Written,
    Synced,
    Read(Bytes),
    Work(Vec<u8>),
}

/// What went wrong, where. `full` marks "no space left", which a person can mend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskError {
    pub file: String,
    pub doing: &'static str,
    pub reason: String,
    pub full: bool,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.doing, self.file, self.reason)
    }
}

impl std::error::Error for DiskError {}

/// A file in a listing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    pub name: String,
    pub bytes: u64,
}

/// How much of a file system is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    pub used: u64,
    /// What we may still take.
    pub free: u64,
}

impl Space {
    /// Rounded up, as `df` does.
    pub fn used_percent(&self) -> u64 {
        let all = u128::from(self.used) + u128::from(self.free);
        (u128::from(self.used) * 100).div_ceil(all.max(1)) as u64
    }
}

/// A machine's directory, for start-up and for [`Work`]. Blocking; never on a shard's hot path.
///
/// Two implementations: the file system (`shard::disk`) and the simulator's disk.
pub trait Dir {
    /// Plain files directly below `folder` (`""` is the directory itself), by name. A folder that
    /// does not exist is empty.
    fn list(&self, folder: &str) -> Result<Vec<DirEntry>, DiskError>;
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file. A missing file is an
    /// error.
    fn read_at(&self, file: &str, at: u64, buf: &mut [u8]) -> Result<usize, DiskError>;
    /// Writes all of `data`, growing the file if needed; creates file and folder if missing.
    fn write_at(&self, file: &str, at: u64, data: &[u8]) -> Result<(), DiskError>;
    /// Reserves `bytes` for `file` without writing them; creates file and folder if missing.
    fn allocate(&self, file: &str, bytes: u64) -> Result<(), DiskError>;
    /// Fills a block-aligned range with zeros on the disk itself and makes it durable.
    fn zero_fill(&self, file: &str, at: u64, bytes: u64) -> Result<(), DiskError>;
    /// Makes the file's bytes and size durable.
    fn sync(&self, file: &str) -> Result<(), DiskError>;
    /// Replaces `to` and makes the new name durable.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes the file durably; a file that is not there is fine.
    fn remove(&self, file: &str) -> Result<(), DiskError>;
    /// The first `bytes` of a file, all of them written before.
    fn map(&self, file: &str, bytes: u64) -> Result<Mapped, DiskError>;
    /// Of the file system that the directory is in.
    fn space(&self) -> Result<Space, DiskError>;
}

/// Writes a whole file, given in pieces, so that a crash leaves the old one or the new one.
pub fn replace_file(dir: &dyn Dir, file: &str, pieces: &[&[u8]]) -> Result<(), DiskError> {
    let temporary = format!("{file}.tmp");
    dir.remove(&temporary)?;
    let mut at = 0;
    for piece in pieces {
        dir.write_at(&temporary, at, piece)?;
        at += piece.len() as u64;
    }
    dir.sync(&temporary)?;
    dir.rename(&temporary, file)
}

/// The whole file, or `None` if it is not there.
pub fn read_file(dir: &dyn Dir, file: &str) -> Result<Option<Vec<u8>>, DiskError> {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let Some(entry) = dir
        .list(folder)?
        .into_iter()
        .find(|entry| entry.name == name)
    else {
        return Ok(None);
    };
    let mut bytes = vec![0; entry.bytes as usize];
    let read = dir.read_at(file, 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// A directory in memory for tests. It keeps what is durable apart from what is written, so that a
/// test can pull the plug: bytes since the last sync of a file are lost, and a file never synced is
/// gone. Names (rename, remove) are durable at once, as [`Dir`] promises.
#[cfg(test)]
#[derive(Default)]
pub struct MemDir {
    files: std::rc::Rc<std::cell::RefCell<std::collections::BTreeMap<String, MemFile>>>,
    /// While set, writes fail with "no space left".
    pub full: std::cell::Cell<bool>,
}

#[cfg(test)]
#[derive(Clone, Default)]
struct MemFile {
    written: Vec<u8>,
    durable: Option<Vec<u8>>,
}

#[cfg(test)]
impl MemDir {
    /// Loses everything that was not synced.
    pub fn crash(&self) {
        let mut files = self.files.borrow_mut();
        files.retain(|_, file| file.durable.is_some());
        for file in files.values_mut() {
            file.written = file.durable.clone().expect("kept only if durable");
        }
    }

    /// Changes the file behind everyone's back, durably; the file must be there.
    pub fn damage(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.files.borrow_mut();
        let file = files.get_mut(file).expect("a file to damage");
        change(&mut file.written);
        file.durable = Some(file.written.clone());
    }

    pub fn contents(&self, file: &str) -> Option<Vec<u8>> {
        Some(self.files.borrow().get(file)?.written.clone())
    }

    pub fn names(&self) -> Vec<String> {
        self.files.borrow().keys().cloned().collect()
    }

    /// Carries out an order as a driver would.
    pub fn carry_out(&self, order: Order) -> Result<Done, DiskError> {
        match order {
            Order::Write {
                file,
                at,
                data,
                until,
            } => {
                self.write_at(&file, at, &data)?;
                if until == Until::Durable {
                    self.sync(&file)?;
                }
                Ok(Done::Written)
            }
            Order::Sync { file } => self.sync(&file).map(|()| Done::Synced),
            Order::Read { file, at, len } => {
                let mut buf = vec![0; len];
                let read = self.read_at(&file, at, &mut buf)?;
                buf.truncate(read);
                Ok(Done::Read(buf.into()))
            }
            Order::Work(work) => work(self).map(Done::Work),
        }
    }

    fn room(&self, file: &str, doing: &'static str) -> Result<(), DiskError> {
        match self.full.get() {
            true => Err(DiskError {
                file: file.to_owned(),
                doing,
                reason: "no space left".to_owned(),
                full: true,
            }),
            false => Ok(()),
        }
    }

    fn missing(file: &str, doing: &'static str) -> DiskError {
        DiskError {
            file: file.to_owned(),
            doing,
            reason: "no such file".to_owned(),
            full: false,
        }
    }
}

#[cfg(test)]
impl Dir for MemDir {
    fn list(&self, folder: &str) -> Result<Vec<DirEntry>, DiskError> {
        let files = self.files.borrow();
        let entries = files.iter().filter_map(|(path, file)| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            (parent == folder).then(|| DirEntry {
                name: name.to_owned(),
                bytes: file.written.len() as u64,
            })
        });
        Ok(entries.collect())
    }

    fn read_at(&self, file: &str, at: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        let files = self.files.borrow();
        let held = files.get(file).ok_or_else(|| Self::missing(file, "read"))?;
        let rest = held.written.get(at as usize..).unwrap_or(&[]);
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, file: &str, at: u64, data: &[u8]) -> Result<(), DiskError> {
        self.room(file, "write")?;
        let mut files = self.files.borrow_mut();
        let held = &mut files.entry(file.to_owned()).or_default().written;
        let end = at as usize + data.len();
        held.resize(held.len().max(end), 0);
        held[at as usize..end].copy_from_slice(data);
        Ok(())
    }

    fn allocate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        self.room(file, "allocate")?;
        let mut files = self.files.borrow_mut();
        let held = &mut files.entry(file.to_owned()).or_default().written;
        held.resize(held.len().max(bytes as usize), 0);
        Ok(())
    }

    fn zero_fill(&self, file: &str, at: u64, bytes: u64) -> Result<(), DiskError> {
        self.write_at(file, at, &vec![0; bytes as usize])?;
        self.sync(file)
    }

    fn sync(&self, file: &str) -> Result<(), DiskError> {
        let mut files = self.files.borrow_mut();
        let held = files
            .get_mut(file)
            .ok_or_else(|| Self::missing(file, "sync"))?;
        held.durable = Some(held.written.clone());
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut files = self.files.borrow_mut();
        let held = files
            .remove(from)
            .ok_or_else(|| Self::missing(from, "rename"))?;
        files.insert(to.to_owned(), held);
        Ok(())
    }

    fn remove(&self, file: &str) -> Result<(), DiskError> {
        self.files.borrow_mut().remove(file);
        Ok(())
    }

    fn map(&self, file: &str, bytes: u64) -> Result<Mapped, DiskError> {
        let (files, file) = (self.files.clone(), file.to_owned());
        assert_eq!(files.borrow()[&file].written.len() as u64, bytes);
        Ok(Box::new(move |at, data| {
            let mut files = files.borrow_mut();
            let held = files.get_mut(&file).expect("a mapped file stays");
            held.written[at as usize..][..data.len()].copy_from_slice(data);
        }))
    }

    fn space(&self) -> Result<Space, DiskError> {
        let free = if self.full.get() { 0 } else { 1 << 50 };
        Ok(Space { used: 0, free })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced() {
        let dir = MemDir::default();
        dir.write_at("log/a", 0, b"one").unwrap();
        dir.sync("log/a").unwrap();
        dir.write_at("log/a", 3, b"two").unwrap();
        dir.write_at("log/b", 0, b"new").unwrap();
        dir.crash();
        assert_eq!(dir.contents("log/a").unwrap(), b"one");
        assert_eq!(dir.names(), ["log/a"]);
        replace_file(&dir, "meta", &[b"me", b"", b"ta"]).unwrap();
        dir.crash();
        assert_eq!(read_file(&dir, "meta").unwrap().unwrap(), b"meta");
        assert_eq!(read_file(&dir, "none").unwrap(), None);
    }
}
