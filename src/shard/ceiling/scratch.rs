//! Files without a name: they are gone with the process, however it ends.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::disk::BLOCK_BYTES;

const FILL_BYTES: usize = 1 << 20;

/// A zero-filled, synced file for direct I/O.
pub struct Scratch {
    file: File,
    bytes: u64,
}

impl Scratch {
    /// Makes one of `bytes`, whole MiB, in the directory.
    ///
    /// # Errors
    /// A sentence: no such directory, no direct I/O, no space.
    pub fn make(dir: &Path, bytes: u64) -> Result<Scratch, String> {
        assert!(
            bytes > 0 && bytes.is_multiple_of(FILL_BYTES as u64),
            "whole pieces"
        );
        let fail = |error: std::io::Error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => format!(
                "the file system of {} cannot do direct I/O: name a directory on a local disk",
                dir.display()
            ),
            _ => format!(
                "cannot make a file of {bytes} bytes in {}: {error}",
                dir.display()
            ),
        };
        let file = nameless(dir).map_err(fail)?;
        let zeros = Aligned::filled(FILL_BYTES, 0);
        for at in (0..bytes).step_by(FILL_BYTES) {
            file.write_all_at(zeros.bytes(), at).map_err(fail)?;
        }
        file.sync_all().map_err(fail)?;
        Ok(Scratch { file, bytes })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A path to it that works in this process only.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// The file once more, with direct I/O and these flags on top.
    pub fn reopen(&self, flags: i32) -> Result<File, String> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT | flags)
            .open(self.path())
            .map_err(|error| format!("cannot open the file again: {error}"))
    }
}

/// Linux makes files without a name on most file systems; elsewhere the name goes at once.
fn nameless(dir: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let made = options
        .clone()
        .custom_flags(libc::O_DIRECT | libc::O_TMPFILE)
        .open(dir);
    match made {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        made => return made,
    }
    let path = dir.join(format!("ceiling-{}", std::process::id()));
    let made = options
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(made)
}

/// Memory that direct I/O takes.
pub struct Aligned {
    memory: Vec<u8>,
    skip: usize,
    len: usize,
}

impl Aligned {
    pub fn filled(len: usize, byte: u8) -> Aligned {
        let memory = vec![byte; len + BLOCK_BYTES];
        let skip = memory.as_ptr().align_offset(BLOCK_BYTES);
        Aligned { memory, skip, len }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.skip..self.skip + self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.skip..self.skip + self.len]
    }
}
