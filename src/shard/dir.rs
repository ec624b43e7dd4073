//! A machine's directory on the file system: blocking, for start-up and for work on helper
//! threads. Orders of the message path go through `disk`.
//!
//! A new name is made durable when it appears (the folder is synced), so a file that exists after
//! a crash is one somebody finished creating or nobody has synced yet.

use super::mapping::Mapping;
use crate::base::DiskError;
use crate::base::disk::{BLOCK_BYTES, Dir, DirEntry, Mapped, Space};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// One write of zeros. A commit that comes meanwhile waits for it: 1 MiB held the disk for 600 us,
/// 21 times a second at 18,000 messages a second.
const ZERO_STEP_BYTES: usize = 128 * 1024;
const _: () = assert!(ZERO_STEP_BYTES.is_multiple_of(BLOCK_BYTES));

pub struct FsDir {
    root: PathBuf,
    /// Names that now mean another file, for whoever keeps files open.
    moved: Mutex<Vec<String>>,
}

impl FsDir {
    /// Creates the directory if it is missing.
    pub fn open(root: &Path) -> Result<Self, DiskError> {
        let dir = FsDir::existing(root);
        fs::create_dir_all(root).map_err(|e| disk_error("creating", ".", &e))?;
        Ok(dir)
    }

    /// As it is; nothing is created.
    pub fn existing(root: &Path) -> Self {
        FsDir {
            root: root.to_owned(),
            moved: Mutex::default(),
        }
    }

    /// The names renamed or removed since the last call.
    pub(super) fn take_moved(&self) -> Vec<String> {
        let mut moved = self.moved.lock().expect("no one panics holding it");
        std::mem::take(&mut moved)
    }

    fn note_moved(&self, file: &str) {
        let mut moved = self.moved.lock().expect("no one panics holding it");
        moved.push(file.to_owned());
    }

    /// Opens for writing; a file that had to be created has a durable name afterwards.
    fn writable(&self, file: &str, doing: &'static str) -> Result<File, DiskError> {
        let path = self.root.join(file);
        let fail = |e: io::Error| disk_error(doing, file, &e);
        match OpenOptions::new().write(true).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => return other.map_err(fail),
        }
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            fs::create_dir_all(folder).map_err(fail)?;
            self.sync_folder_of(folder).map_err(fail)?;
        }
        let created = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let created = created.map_err(fail)?;
        self.sync_folder_of(&path).map_err(fail)?;
        Ok(created)
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        File::open(path.parent().unwrap_or(&self.root))?.sync_all()
    }
}

impl Dir for FsDir {
    fn list(&self, folder: &str) -> Result<Vec<DirEntry>, DiskError> {
        let fail = |e: io::Error| disk_error("listing", folder, &e);
        let entries = match fs::read_dir(self.root.join(folder)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(fail)?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let meta = entry.metadata().map_err(fail)?;
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                files.push(DirEntry {
                    name,
                    bytes: meta.len(),
                });
            }
        }
        files.sort();
        Ok(files)
    }

    fn read_at(&self, file: &str, at: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        let fail = |e: io::Error| disk_error("reading", file, &e);
        let opened = File::open(self.root.join(file)).map_err(fail)?;
        let mut read = 0;
        while read < buf.len() {
            match opened.read_at(&mut buf[read..], at + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(fail(e)),
            }
        }
        Ok(read)
    }

    fn write_at(&self, file: &str, at: u64, data: &[u8]) -> Result<(), DiskError> {
        let opened = self.writable(file, "writing")?;
        opened
            .write_all_at(data, at)
            .map_err(|e| disk_error("writing", file, &e))
    }

    fn allocate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        let opened = self.writable(file, "allocating")?;
        let fail = |e: io::Error| disk_error("allocating", file, &e);
        let len = i64::try_from(bytes).map_err(|_| fail(ErrorKind::InvalidInput.into()))?;
        // SAFETY: the descriptor belongs to `opened`, which lives across the call; fallocate takes
        // no pointers.
        if unsafe { libc::fallocate(opened.as_raw_fd(), 0, 0, len) } != 0 {
            return Err(fail(io::Error::last_os_error()));
        }
        Ok(())
    }

    fn zero_fill(&self, file: &str, at: u64, bytes: u64) -> Result<(), DiskError> {
        let block = BLOCK_BYTES as u64;
        assert!(
            at.is_multiple_of(block) && bytes.is_multiple_of(block),
            "zero-fill takes blocks"
        );
        let fail = |e: io::Error| disk_error("zero-filling", file, &e);
        drop(self.writable(file, "zero-filling")?);
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(self.root.join(file))
            .map_err(fail)?;
        let buffer = vec![0u8; ZERO_STEP_BYTES + BLOCK_BYTES];
        let skip = buffer.as_ptr().align_offset(BLOCK_BYTES);
        let zeros = &buffer[skip..skip + ZERO_STEP_BYTES];
        let mut done = 0;
        while done < bytes {
            let step = (bytes - done).min(ZERO_STEP_BYTES as u64);
            direct
                .write_all_at(&zeros[..step as usize], at + done)
                .map_err(fail)?;
            done += step;
        }
        direct.sync_data().map_err(fail)
    }

    fn sync(&self, file: &str) -> Result<(), DiskError> {
        let fail = |e: io::Error| disk_error("syncing", file, &e);
        File::open(self.root.join(file))
            .and_then(|f| f.sync_all())
            .map_err(fail)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let fail = |e: io::Error| disk_error("renaming", from, &e);
        let (old, new) = (self.root.join(from), self.root.join(to));
        fs::rename(&old, &new).map_err(fail)?;
        self.note_moved(from);
        self.note_moved(to);
        self.sync_folder_of(&new).map_err(fail)?;
        if old.parent() != new.parent() {
            self.sync_folder_of(&old).map_err(fail)?;
        }
        Ok(())
    }

    fn remove(&self, file: &str) -> Result<(), DiskError> {
        let fail = |e: io::Error| disk_error("removing", file, &e);
        let path = self.root.join(file);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(fail)?,
        }
        self.note_moved(file);
        self.sync_folder_of(&path).map_err(fail)
    }

    fn map(&self, file: &str, bytes: u64) -> Result<Mapped, DiskError> {
        let fail = |e: io::Error| disk_error("mapping", file, &e);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.root.join(file));
        let opened = opened.map_err(fail)?;
        let len = usize::try_from(bytes).map_err(|_| fail(ErrorKind::InvalidInput.into()))?;
        let mut mapping = Mapping::of(&opened, len).map_err(fail)?;
        Ok(Box::new(move |at, data| mapping.write(at as usize, data)))
    }

    fn space(&self) -> Result<Space, DiskError> {
        let fail = |e: io::Error| disk_error("looking at the space of", ".", &e);
        let path = CString::new(self.root.as_os_str().as_bytes());
        let path = path.map_err(|_| fail(ErrorKind::InvalidInput.into()))?;
        // SAFETY: a zeroed statvfs is a valid value for the call to fill in; the path ends with a
        // zero byte and, like the value, lives across the call.
        let (failed, found) = unsafe {
            let mut found: libc::statvfs = std::mem::zeroed();
            (libc::statvfs(path.as_ptr(), &mut found) != 0, found)
        };
        if failed {
            return Err(fail(io::Error::last_os_error()));
        }
        // What is kept for the administrator counts neither as used nor as free.
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space {
            used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
            free: bytes(found.f_bavail),
        })
    }
}

/// How long writes of a process that was killed may take to end.
const WRITES_END_MS: u64 = 10_000;

/// Waits until nothing of an earlier process is under way on the files of `folder`: what it had
/// handed to the kernel may be written after its death, and must not land on what we write.
pub fn wait_for_writes(folder: &Path) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let fail = |reason: String| format!("{}: {reason}", path.display());
        let file = File::open(&path).map_err(|e| fail(e.to_string()))?;
        let mut waited_ms = 0;
        while let Err(error) = file.try_lock() {
            if waited_ms >= WRITES_END_MS {
                let held = "still in use by a process that has ended: wait, then start again";
                return Err(fail(format!("{held} ({error})")));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
            waited_ms += 1;
        }
    }
    Ok(())
}

/// What `Dir` and orders report.
pub(super) fn disk_error(doing: &'static str, file: &str, reason: &io::Error) -> DiskError {
    DiskError {
        file: file.to_owned(),
        doing,
        reason: reason.to_string(),
        full: matches!(reason.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)),
    }
}
