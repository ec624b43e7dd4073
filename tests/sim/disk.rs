//! A disk that tears, forgets and fails.
//!
//! A write changes what everybody reads at once, and remembers for each sector what was durable
//! before, until a sync of the file. A process kill keeps what was written; a power cut gives each
//! sector not synced back to its past, or not, by chance. Names are durable as `Dir` promises.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use orbitmq::base::DiskError;
use orbitmq::base::disk::{Dir, DirEntry, Mapped, Space};

use crate::rng::Rng;

/// What the device writes whole.
const SECTOR: usize = 512;

#[derive(Default)]
struct File {
    data: Vec<u8>,
    /// Durable content of sectors written since the last sync.
    before: BTreeMap<usize, Vec<u8>>,
    /// `None`: the file's size was never synced.
    durable_len: Option<usize>,
}

impl File {
    fn remember(&mut self, sector: usize) {
        let from = (sector * SECTOR).min(self.data.len());
        let to = (from + SECTOR).min(self.data.len());
        let data = &self.data;
        self.before.entry(sector).or_insert_with(|| {
            let mut old = data[from..to].to_vec();
            old.resize(SECTOR, 0);
            old
        });
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            self.remember(sector);
        }
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[at..end].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        self.before.clear();
        self.durable_len = Some(self.data.len());
    }
}

/// Sectors as they were when a sync was ordered: what it makes durable.
pub struct SyncTicket {
    file: String,
    sectors: Vec<(usize, Vec<u8>)>,
    len: usize,
}

pub struct Disk {
    files: Rc<RefCell<BTreeMap<String, File>>>,
    rng: RefCell<Rng>,
    /// Operations of a `Dir` until the plug is pulled.
    fuse: Cell<Option<u32>>,
    blown: Cell<bool>,
    /// No space left for whoever grows a file.
    full: Cell<bool>,
    /// Bytes there are in all.
    pub size: Cell<u64>,
    pub lost_sectors: Cell<u64>,
    pub full_hits: Cell<u64>,
}

impl Disk {
    pub fn new(rng: Rng) -> Disk {
        Disk {
            files: Rc::default(),
            rng: RefCell::new(rng),
            fuse: Cell::new(None),
            blown: Cell::new(false),
            full: Cell::new(false),
            size: Cell::new(1 << 40),
            lost_sectors: Cell::new(0),
            full_hits: Cell::new(0),
        }
    }

    /// The next `Dir` operations work, then none does.
    pub fn light_fuse(&self, operations: u32) {
        self.fuse.set(Some(operations));
    }

    /// Whether the fuse burned down; new life begins without one.
    pub fn put_out(&self) -> bool {
        self.fuse.set(None);
        self.blown.replace(false)
    }

    pub fn set_full(&self, full: bool) {
        self.full.set(full);
    }

    pub fn write(&self, file: &str, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut files = self.files.borrow_mut();
        let held = files
            .get_mut(file)
            .ok_or_else(|| missing(file, "writing"))?;
        assert!(
            at as usize + bytes.len() <= held.data.len(),
            "orders write allocated blocks: {file}@{at}+{}",
            bytes.len()
        );
        held.write(at as usize, bytes);
        Ok(())
    }

    /// A write that is durable once done: these sectors, and no others.
    pub fn write_durably(&self, file: &str, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write(file, at, bytes)?;
        let sectors = at as usize / SECTOR..(at as usize + bytes.len()).div_ceil(SECTOR);
        self.with(file, "writing", |held| {
            held.before.retain(|sector, _| !sectors.contains(sector));
        })
    }

    /// A write that a crash interrupted: any of its sectors.
    pub fn tear(&self, file: &str, at: u64, bytes: &[u8], keep_percent: u64) {
        for (n, sector) in bytes.chunks(SECTOR).enumerate() {
            if self.rng.borrow_mut().percent(keep_percent) {
                let _ = self.write(file, at + (n * SECTOR) as u64, sector);
            }
        }
    }

    pub fn read(&self, file: &str, at: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        let files = self.files.borrow();
        let held = files.get(file).ok_or_else(|| missing(file, "reading"))?;
        let rest = held.data.get(at as usize..).unwrap_or(&[]);
        Ok(rest[..rest.len().min(len)].to_vec())
    }

    pub fn begin_sync(&self, file: &str) -> Result<SyncTicket, DiskError> {
        let files = self.files.borrow();
        let held = files.get(file).ok_or_else(|| missing(file, "syncing"))?;
        let content = |sector: usize| {
            let from = sector * SECTOR;
            let mut now = held.data[from..(from + SECTOR).min(held.data.len())].to_vec();
            now.resize(SECTOR, 0);
            now
        };
        let sectors = held.before.keys().map(|s| (*s, content(*s))).collect();
        Ok(SyncTicket {
            file: file.to_owned(),
            sectors,
            len: held.data.len(),
        })
    }

    pub fn end_sync(&self, ticket: SyncTicket) {
        let mut files = self.files.borrow_mut();
        let Some(held) = files.get_mut(&ticket.file) else {
            return;
        };
        for (sector, synced) in ticket.sectors {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(held.data.len());
            if held.data[from..to] == synced[..to - from] {
                held.before.remove(&sector);
            } else if let Some(before) = held.before.get_mut(&sector) {
                *before = synced;
            }
        }
        held.durable_len = held.durable_len.max(Some(ticket.len));
    }

    /// Everything that is not durable is at the mercy of chance.
    pub fn power_cut(&self) {
        let mut rng = self.rng.borrow_mut();
        let keep = *rng.pick(&[0, 0, 20, 50, 80, 100]);
        let mut files = self.files.borrow_mut();
        let mut gone = Vec::new();
        for (name, file) in files.iter_mut() {
            for (sector, before) in std::mem::take(&mut file.before) {
                let from = sector * SECTOR;
                let to = (from + SECTOR).min(file.data.len());
                if from < to && !rng.percent(keep) {
                    file.data[from..to].copy_from_slice(&before[..to - from]);
                    self.lost_sectors.set(self.lost_sectors.get() + 1);
                }
            }
            match file.durable_len {
                None if rng.percent(50) => gone.push(name.clone()),
                None if rng.percent(50) => file.data.clear(),
                Some(len) if len < file.data.len() && !rng.percent(keep) => file.data.truncate(len),
                _ => {}
            }
            file.durable_len = Some(file.data.len());
        }
        for name in gone {
            files.remove(&name);
        }
    }

    /// One `Dir` operation; an error once the plug is pulled.
    fn burn(&self, file: &str, doing: &'static str) -> Result<(), DiskError> {
        if self.blown.get() {
            return Err(error(file, doing, "the process is gone", false));
        }
        match self.fuse.get() {
            Some(0) => {
                self.blown.set(true);
                Err(error(file, doing, "the process is gone", false))
            }
            Some(left) => {
                self.fuse.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn room(&self, file: &str, doing: &'static str) -> Result<(), DiskError> {
        if !self.full.get() {
            return Ok(());
        }
        self.full_hits.set(self.full_hits.get() + 1);
        Err(error(file, doing, "no space left on device", true))
    }

    fn with<T>(
        &self,
        file: &str,
        doing: &'static str,
        act: impl FnOnce(&mut File) -> T,
    ) -> Result<T, DiskError> {
        let mut files = self.files.borrow_mut();
        files
            .get_mut(file)
            .map(act)
            .ok_or_else(|| missing(file, doing))
    }
}

pub fn error(file: &str, doing: &'static str, reason: &str, full: bool) -> DiskError {
    let (file, reason) = (file.to_owned(), reason.to_owned());
    DiskError {
        file,
        doing,
        reason,
        full,
    }
}

fn missing(file: &str, doing: &'static str) -> DiskError {
    error(file, doing, "no such file", false)
}

impl Dir for Disk {
    fn space(&self) -> Result<Space, DiskError> {
        self.burn(".", "looking at the space of")?;
        let files = self.files.borrow();
        let used: u64 = files.values().map(|file| file.data.len() as u64).sum();
        let left = self.size.get().saturating_sub(used);
        let free = if self.full.get() { 0 } else { left };
        Ok(Space { used, free })
    }

    fn map(&self, file: &str, bytes: u64) -> Result<Mapped, DiskError> {
        self.burn(file, "mapping")?;
        let (files, file) = (self.files.clone(), file.to_owned());
        assert!(files.borrow()[&file].data.len() as u64 >= bytes);
        Ok(Box::new(move |at, data| {
            let mut files = files.borrow_mut();
            let held = files.get_mut(&file).expect("a mapped file stays");
            held.write(at as usize, data);
        }))
    }

    fn list(&self, folder: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.burn(folder, "listing")?;
        let files = self.files.borrow();
        let entries = files.iter().filter_map(|(path, file)| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let (name, bytes) = (name.to_owned(), file.data.len() as u64);
            (parent == folder).then_some(DirEntry { name, bytes })
        });
        Ok(entries.collect())
    }

    fn read_at(&self, file: &str, at: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        self.burn(file, "reading")?;
        self.with(file, "reading", |held| {
            let rest = held.data.get(at as usize..).unwrap_or(&[]);
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            len
        })
    }

    fn write_at(&self, file: &str, at: u64, data: &[u8]) -> Result<(), DiskError> {
        self.room(file, "writing")?;
        let burned = self.burn(file, "writing");
        self.files.borrow_mut().entry(file.to_owned()).or_default();
        if burned.is_err() {
            // The plug was pulled in the middle of it.
            let part = self.rng.borrow_mut().below(data.len() as u64 + 1) as usize;
            self.with(file, "writing", |held| {
                held.write(at as usize, &data[..part])
            })?;
            return burned;
        }
        self.with(file, "writing", |held| held.write(at as usize, data))
    }

    fn allocate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        self.room(file, "allocating")?;
        self.burn(file, "allocating")?;
        let mut files = self.files.borrow_mut();
        let held = files.entry(file.to_owned()).or_default();
        let len = held.data.len().max(bytes as usize);
        held.data.resize(len, 0);
        held.durable_len = Some(len);
        Ok(())
    }

    fn zero_fill(&self, file: &str, at: u64, bytes: u64) -> Result<(), DiskError> {
        self.write_at(file, at, &vec![0; bytes as usize])?;
        self.sync(file)
    }

    fn sync(&self, file: &str) -> Result<(), DiskError> {
        self.burn(file, "syncing")?;
        self.with(file, "syncing", File::sync)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.burn(from, "renaming")?;
        let mut files = self.files.borrow_mut();
        let held = files
            .remove(from)
            .ok_or_else(|| missing(from, "renaming"))?;
        files.insert(to.to_owned(), held);
        Ok(())
    }

    fn remove(&self, file: &str) -> Result<(), DiskError> {
        self.burn(file, "removing")?;
        self.files.borrow_mut().remove(file);
        Ok(())
    }
}
