//! The disk's curve: what group commit can reach with blocks of one size.
//!
//! Plain blocking calls, a thread for each write in flight: no ring and no executor stand between
//! the figure and the disk. Each thread overwrites its own part of the file, in order.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use super::scratch::Aligned;
use super::{Percentiles, Scratch};

/// What makes a write durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskSync {
    /// Nothing: it has reached the device, perhaps its cache.
    None,
    /// A call after each write.
    Fdatasync,
    /// The write itself (`O_DSYNC`).
    Dsync,
}

#[derive(Clone, Copy, Debug)]
pub struct DiskPoint {
    pub block_bytes: usize,
    /// Writes in flight.
    pub depth: usize,
    pub sync: DiskSync,
    pub time: Duration,
}

/// What came of a point.
#[derive(Clone, Copy, Debug)]
pub struct DiskWritten {
    pub writes: u64,
    pub seconds: f64,
    /// Nanoseconds until a write was done, its sync included.
    pub latency: Percentiles,
}

impl DiskPoint {
    /// # Errors
    /// A sentence: the disk refused, or not one write was done in time.
    pub fn measure(&self, scratch: &Scratch) -> Result<DiskWritten, String> {
        let flags = match self.sync {
            DiskSync::Dsync => libc::O_DSYNC,
            DiskSync::None | DiskSync::Fdatasync => 0,
        };
        let file = scratch.reopen(flags)?;
        let part = scratch.bytes() / self.depth as u64;
        assert!(self.block_bytes as u64 <= part, "a block for each thread");
        let begun = Instant::now();
        let nanos = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.depth as u64)
                .map(|index| {
                    let file = &file;
                    scope.spawn(move || self.write(file, index * part, part, begun))
                })
                .collect();
            let mut nanos = Vec::new();
            for thread in threads {
                nanos.extend(
                    thread
                        .join()
                        .map_err(|_| "a writer panicked".to_owned())??,
                );
            }
            Ok::<_, String>(nanos)
        });
        let (mut nanos, seconds) = (nanos?, begun.elapsed().as_secs_f64());
        let latency = Percentiles::of(&mut nanos);
        Ok(DiskWritten {
            writes: nanos.len() as u64,
            seconds,
            latency: latency.ok_or("the disk finished no write in time")?,
        })
    }

    /// Writes into `part` bytes from `start` until time is up; how long each write took.
    fn write(
        &self,
        file: &File,
        start: u64,
        part: u64,
        begun: Instant,
    ) -> Result<Vec<u64>, String> {
        let failed = |error: std::io::Error| format!("the disk failed: {error}");
        let block = Aligned::filled(self.block_bytes, b'x');
        let (mut nanos, mut at) = (Vec::new(), 0);
        let mut from = Instant::now();
        while from - begun < self.time {
            if at + self.block_bytes as u64 > part {
                at = 0;
            }
            file.write_all_at(block.bytes(), start + at)
                .map_err(failed)?;
            if self.sync == DiskSync::Fdatasync {
                file.sync_data().map_err(failed)?;
            }
            at += self.block_bytes as u64;
            let done = Instant::now();
            nanos.push((done - from).as_nanos() as u64);
            from = done;
        }
        Ok(nanos)
    }
}
