//! What the host must offer, looked at before anything is created. Each failure is one sentence
//! that says what to do.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::disk::BLOCK_BYTES;

/// The first long-term kernel with all that io_uring must do for us: waiting with a time limit
/// (5.11), and rings that are not counted as locked memory (5.12).
const KERNEL_MIN: (u32, u32) = (5, 15);

/// Holds the data directory for this process until dropped.
pub struct Lock {
    file: File,
    /// What was created for it, the lock file first, then folders from the inside out. Removed
    /// when the lock is dropped before anything was begun.
    made: Vec<PathBuf>,
}

impl Lock {
    /// Something is in the directory from here on: it stays.
    pub fn keep(&mut self) {
        self.made.clear();
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        for path in &self.made {
            // A folder that somebody else uses meanwhile is not empty, and stays.
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
        }
    }
}

/// Checks the host and takes the data directory.
pub fn prepare(data_dir: &Path) -> Result<Lock, String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    check_kernel(release.trim())?;
    check_io_uring()?;
    raise(libc::RLIMIT_NOFILE);
    let lock = take_lock(data_dir)?;
    check_direct_io(data_dir)?;
    Ok(lock)
}

/// Memory of the host, in bytes; 0 if the system does not say.
pub fn memory_bytes() -> u64 {
    // SAFETY: sysconf takes a number and returns one.
    let (pages, size) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    u64::try_from(pages).unwrap_or(0) * u64::try_from(size).unwrap_or(0)
}

fn check_kernel(release: &str) -> Result<(), String> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        // A release nobody can read is no reason to stay down; io_uring itself is checked next.
        return Ok(());
    };
    if (major, minor) < KERNEL_MIN {
        return Err(format!(
            "Linux {release} is too old: io_uring needs {}.{} or later, so update the kernel",
            KERNEL_MIN.0, KERNEL_MIN.1
        ));
    }
    Ok(())
}

fn check_io_uring() -> Result<(), String> {
    let mut params = [0u8; 120]; // struct io_uring_params
    // SAFETY: the kernel reads and fills exactly 120 bytes behind the pointer, which lives across
    // the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) };
    if fd >= 0 {
        // SAFETY: the descriptor was just made and nobody else knows it.
        unsafe { libc::close(fd as i32) };
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.unwrap_or_default();
    Err(match (error.raw_os_error(), disabled.trim()) {
        (Some(libc::EPERM), "1" | "2") => "io_uring is switched off on this host: set \
             kernel.io_uring_disabled=0 with sysctl"
            .to_owned(),
        (Some(libc::EPERM | libc::EACCES), _) => "io_uring is forbidden to this process: allow \
             io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp \
             profile (docker: --security-opt seccomp=unconfined)"
            .to_owned(),
        (Some(libc::ENOSYS), _) => {
            "this kernel has no io_uring: use one built with CONFIG_IO_URING".to_owned()
        }
        _ => format!("io_uring does not start ({error}): check the limits of this process"),
    })
}

/// Raises the soft limit to the hard one. A limit that stays is met later, and said then.
fn raise(resource: libc::__rlimit_resource_t) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a struct that lives across them; getrlimit fills it, setrlimit reads.
    unsafe {
        if libc::getrlimit(resource, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(resource, &limit);
        }
    }
}

fn take_lock(data_dir: &Path) -> Result<Lock, String> {
    let shown = data_dir.display();
    let missing = data_dir.ancestors().take_while(|path| !path.exists());
    let missing = missing.filter(|path| !path.as_os_str().is_empty());
    let mut made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
    std::fs::create_dir_all(data_dir).map_err(|e| {
        format!("cannot create the data directory {shown} ({e}): create it for this user")
    })?;
    let path = data_dir.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let opened = match options.open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            made.insert(0, path.clone());
            options.create(true).truncate(false).open(&path)
        }
        other => other,
    };
    let mut file = opened.map_err(|e| {
        format!("the data directory {shown} is not writable ({e}): give it to this user")
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(data_dir, &mut file)),
        Err(TryLockError::Error(e)) => {
            return Err(format!(
                "cannot lock {}: {e}; use a local file system",
                path.display()
            ));
        }
    }
    let mut lock = Lock { file, made };
    // Another start that came to nothing may have removed the file between open and lock.
    let inode = |meta: io::Result<Metadata>| meta.map(|meta| meta.ino()).ok();
    if inode(lock.file.metadata()) != inode(std::fs::metadata(&path)) {
        lock.keep();
        return Err(format!(
            "another process was just starting in {shown}: try again"
        ));
    }
    let written = lock.file.set_len(0);
    let written = written.and_then(|()| writeln!(lock.file, "{}", std::process::id()));
    written.map_err(|e| format!("cannot write {} ({e}): free some space", path.display()))?;
    Ok(lock)
}

/// Holds a data directory without writing to it. `None` if it has no lock file, so that nobody
/// can be using it.
pub fn hold(data_dir: &Path) -> Result<Option<Lock>, String> {
    let path = data_dir.join("lock");
    let mut file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|e| format!("cannot open {}: {e}", path.display()))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock {
            file,
            made: Vec::new(),
        })),
        Err(TryLockError::WouldBlock) => Err(in_use(data_dir, &mut file)),
        Err(TryLockError::Error(e)) => Err(format!("cannot lock {}: {e}", path.display())),
    }
}

fn in_use(data_dir: &Path, lock: &mut File) -> String {
    let mut holder = String::new();
    // The number only helps a person; without it the message still stands.
    let _ = lock.read_to_string(&mut holder);
    let holder = match holder.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    };
    format!(
        "the data directory {} is in use by {holder}: stop it or choose another directory",
        data_dir.display()
    )
}

fn check_direct_io(data_dir: &Path) -> Result<(), String> {
    let probe = data_dir.join("probe");
    let buffer = vec![0u8; 2 * BLOCK_BYTES];
    let skip = buffer.as_ptr().align_offset(BLOCK_BYTES);
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(&probe);
    let outcome = opened.and_then(|f| f.write_all_at(&buffer[skip..skip + BLOCK_BYTES], 0));
    // Left over it would harm nobody.
    let _ = std::fs::remove_file(&probe);
    outcome.map_err(|e| match e.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => format!(
            "the file system of {} cannot do direct I/O: use ext4 or XFS on a local disk",
            data_dir.display()
        ),
        _ => format!(
            "cannot write to {} ({e}): check space and rights",
            data_dir.display()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused() {
        let check = |release: &str, fine: bool| {
            assert_eq!(check_kernel(release).is_ok(), fine, "{release}");
        };
        check("5.4.0-generic", false);
        check("5.10.0-28-amd64", false);
        check("4.19", false);
        check("5.15.0-100-generic", true);
        check("6.1", true);
        check("unreadable", true);
    }

    #[test]
    fn the_second_lock_names_the_first_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = take_lock(dir.path()).unwrap();
        let refused = take_lock(dir.path()).err().unwrap();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(held);
        assert!(take_lock(dir.path()).is_ok());
    }

    #[test]
    fn direct_io_is_tried_on_the_spot() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check_direct_io(dir.path()), Ok(()));
        assert!(
            check_direct_io(&dir.path().join("missing"))
                .unwrap_err()
                .contains("missing")
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
