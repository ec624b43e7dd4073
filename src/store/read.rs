//! Read windows: cold reads in large aligned pieces, shared by all queues of a shard.
//!
//! A caller asks with [`WindowCache::get`]; what is not there is read once, whoever else asks
//! meanwhile, and the caller asks again when it is woken. Windows are counted from the moment they
//! are ordered, so the budget holds at all times; a window that somebody waits for stays.
//!
//! A file that still grows is read only as far as the caller knows it to be written: what lies
//! behind is cut off, and a window too short for a later question is read again.
//!
//! Not here: verifying what was read, and memory of windows that left the cache while slices of
//! them are on their way to a socket.

use crate::base::disk::{BLOCK_BYTES, FileName};
use crate::base::{DiskError, Map, Order};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of a window unless a test says otherwise.
pub const WINDOW_BYTES: usize = 256 * 1024;

/// Who waits; chosen by the caller, one wake-up for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WaiterId(pub u64);

/// A window of a file: bytes `number * window_bytes ..`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WindowKey {
    pub file: FileName,
    pub number: u64,
}

/// The answer to a question for bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    Hit(Bytes),
    /// Reads are ordered or under way; [`WindowCache::arrived`] will name the waiter.
    Wait,
    /// The budget is taken by windows that others wait for. Nothing was registered: ask again
    /// after the next arrival.
    Busy,
}

/// A waiter of which all windows are there, or one of which failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Woken {
    pub waiter: WaiterId,
    pub result: Result<(), DiskError>,
}

/// Counters, ever growing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    pub hits: u64,
    pub waits: u64,
    pub busy: u64,
    pub reads: u64,
    pub failed_reads: u64,
}

struct Window {
    /// `None` while it is being read.
    bytes: Option<Bytes>,
    /// Bytes at its start that the file was known to hold when it was ordered.
    valid: usize,
    /// What it counts for: the length of the order.
    cost: usize,
    /// When it was last asked for.
    used: u64,
    /// Who holds it in place, and how many of its bytes each needs.
    waiters: Vec<(WaiterId, usize)>,
    /// The file was forgotten while it was being read.
    stale: bool,
}

impl Window {
    /// Holds `need` bytes, or is on its way with as many.
    fn covers(&self, need: usize) -> bool {
        match &self.bytes {
            Some(bytes) => need <= bytes.len(),
            None => need <= self.valid && !self.stale,
        }
    }
}

/// What a waiter still waits for.
#[derive(Default)]
struct Pending {
    windows: usize,
    failed: Option<DiskError>,
}

/// All windows of one shard.
pub struct WindowCache {
    window_bytes: usize,
    read_bytes_max: usize,
    bytes_max: usize,
    bytes: usize,
    clock: u64,
    windows: Map<WindowKey, Window>,
    pending: Map<WaiterId, Pending>,
    orders: VecDeque<WindowKey>,
    stats: Stats,
}

/// The part of a question that falls into one window.
struct Piece {
    key: WindowKey,
    range: Range<usize>,
    /// Bytes of the window that are known to be written.
    valid: usize,
}

impl WindowCache {
    /// `window_bytes` is a multiple of the block size; one question is for `read_bytes_max` bytes
    /// at most; `bytes_max` has room for such a question wherever it begins.
    pub fn new(window_bytes: usize, read_bytes_max: usize, bytes_max: usize) -> WindowCache {
        assert!(window_bytes > 0 && window_bytes.is_multiple_of(BLOCK_BYTES));
        let mut cache = WindowCache {
            window_bytes,
            read_bytes_max,
            bytes_max: usize::MAX,
            bytes: 0,
            clock: 0,
            windows: Map::default(),
            pending: Map::default(),
            orders: VecDeque::new(),
            stats: Stats::default(),
        };
        cache.resize(bytes_max);
        cache
    }

    /// Changes the budget; what nobody waits for leaves at once if it shrinks.
    pub fn resize(&mut self, bytes_max: usize) {
        let one = self.read_bytes_max + 2 * self.window_bytes;
        assert!(one <= bytes_max, "the budget has room for the largest read");
        self.bytes_max = bytes_max;
        self.make_room(0);
    }

    /// `len` bytes of `file` from `at`, of which `valid_to` bytes are known to be written and will
    /// not change. Any earlier question of this waiter is given up.
    pub fn get(
        &mut self,
        waiter: WaiterId,
        file: &FileName,
        at: u64,
        len: usize,
        valid_to: u64,
    ) -> Got {
        assert!(0 < len && len <= self.read_bytes_max, "reads are bounded");
        assert!(
            at.saturating_add(len as u64) <= valid_to,
            "only what is written is read"
        );
        self.cancel(waiter);
        self.clock += 1;
        let pieces = self.pieces(file, at, len, valid_to);
        let mut missing = 0;
        for piece in &pieces {
            let held = self.windows.get_mut(&piece.key);
            let need = piece.range.end;
            match held.filter(|window| window.covers(need) || window.bytes.is_none()) {
                Some(window) => {
                    window.used = self.clock;
                    window.waiters.push((waiter, need));
                }
                None => missing += self.cost(piece),
            }
        }
        // Pins keep the pieces that are here while room is made for those that are not.
        let room = self.make_room(missing);
        if room && missing == 0 && pieces.iter().all(|piece| self.piece(piece).is_some()) {
            self.unpin(waiter);
            self.stats.hits += 1;
            return Got::Hit(self.join(&pieces));
        }
        if !room {
            self.unpin(waiter);
            self.stats.busy += 1;
            return Got::Busy;
        }
        self.order_missing(waiter, &pieces);
        self.stats.waits += 1;
        Got::Wait
    }

    fn pieces(&self, file: &FileName, at: u64, len: usize, valid_to: u64) -> Vec<Piece> {
        let (size, end) = (self.window_bytes as u64, at + len as u64);
        let piece = |number: u64| {
            let start = number * size;
            Piece {
                key: WindowKey {
                    file: file.clone(),
                    number,
                },
                range: (at.max(start) - start) as usize..(end.min(start + size) - start) as usize,
                valid: (valid_to - start).min(size) as usize,
            }
        };
        (at / size..end.div_ceil(size)).map(piece).collect()
    }

    fn cost(&self, piece: &Piece) -> usize {
        piece.valid.next_multiple_of(BLOCK_BYTES)
    }

    fn piece(&self, piece: &Piece) -> Option<Bytes> {
        let bytes = self.windows.get(&piece.key)?.bytes.as_ref()?;
        (piece.range.end <= bytes.len()).then(|| bytes.slice(piece.range.clone()))
    }

    fn join(&self, pieces: &[Piece]) -> Bytes {
        let mut parts = pieces.iter().filter_map(|piece| self.piece(piece));
        if pieces.len() == 1 {
            return parts.next().expect("all pieces are here");
        }
        let len = pieces.iter().map(|piece| piece.range.len()).sum();
        let mut joined = BytesMut::with_capacity(len);
        parts.for_each(|part| joined.extend_from_slice(&part));
        assert_eq!(joined.len(), len, "all pieces are here");
        joined.freeze()
    }

    fn order_missing(&mut self, waiter: WaiterId, pieces: &[Piece]) {
        let mut awaited = 0;
        for piece in pieces {
            let need = piece.range.end;
            if let Some(window) = self.windows.get(&piece.key)
                && (window.covers(need) || window.bytes.is_none())
            {
                awaited += usize::from(window.bytes.is_none());
                continue;
            }
            let cost = self.cost(piece);
            let window = Window {
                bytes: None,
                valid: piece.valid,
                cost,
                used: self.clock,
                waiters: vec![(waiter, need)],
                stale: false,
            };
            self.bytes += cost;
            // A window that was too short gives way; who else held it asks again and waits here.
            if let Some(short) = self.windows.insert(piece.key.clone(), window) {
                self.bytes -= short.cost;
                let window = self.windows.get_mut(&piece.key).expect("just inserted");
                window.waiters.extend(short.waiters);
            }
            self.orders.push_back(piece.key.clone());
            awaited += 1;
        }
        let pending = Pending {
            windows: awaited,
            failed: None,
        };
        self.pending.insert(waiter, pending);
    }

    /// Forgets windows nobody waits for, least recently used first, until `more` bytes fit.
    fn make_room(&mut self, more: usize) -> bool {
        while self.bytes + more > self.bytes_max {
            let idle = self.windows.iter();
            let idle = idle.filter(|(_, w)| w.bytes.is_some() && w.waiters.is_empty());
            let Some((key, _)) = idle.min_by_key(|(_, window)| window.used) else {
                return false;
            };
            let key = key.clone();
            let gone = self.windows.remove(&key).expect("just found");
            self.bytes -= gone.cost;
        }
        true
    }

    /// The next read to be carried out; its answer goes to [`arrived`](Self::arrived).
    pub fn poll_order(&mut self) -> Option<(WindowKey, Order)> {
        let key = self.orders.pop_front()?;
        let window = self.windows.get(&key).expect("ordered windows stay");
        let order = Order::Read {
            file: key.file.clone(),
            at: key.number * self.window_bytes as u64,
            len: window.cost,
        };
        self.stats.reads += 1;
        Some((key, order))
    }

    /// Takes the answer to an order and names those who can go on. A read that failed, or gave
    /// less than the file was known to hold, is not kept.
    pub fn arrived(&mut self, key: &WindowKey, result: Result<Bytes, DiskError>) -> Vec<Woken> {
        let window = self.windows.get_mut(key).expect("ordered windows stay");
        assert!(window.bytes.is_none(), "one read at a time");
        let result = result.map(|mut bytes| {
            bytes.truncate(window.valid);
            bytes
        });
        let mut woken = Vec::new();
        for (waiter, need) in &window.waiters {
            let failed = match &result {
                Err(error) => Some(error.clone()),
                // More than was ordered: the waiter asks again.
                Ok(bytes) if bytes.len() < *need && *need <= window.valid => Some(short(key)),
                Ok(_) => None,
            };
            let Some(pending) = self.pending.get_mut(waiter) else {
                continue;
            };
            pending.windows -= 1;
            pending.failed = pending.failed.take().or(failed);
            if pending.windows == 0 {
                let result = pending.failed.take().map_or(Ok(()), Err);
                woken.push(Woken {
                    waiter: *waiter,
                    result,
                });
            }
        }
        match result {
            Ok(bytes) if !window.stale && !bytes.is_empty() => window.bytes = Some(bytes),
            result => {
                self.stats.failed_reads += u64::from(result.is_err());
                let gone = self.windows.remove(key).expect("it was here");
                self.bytes -= gone.cost;
            }
        }
        for one in &woken {
            self.pending.remove(&one.waiter);
            if one.result.is_err() {
                self.unpin(one.waiter);
            }
        }
        woken
    }

    /// The waiter went away, or will not ask again: its windows are free to leave.
    pub fn cancel(&mut self, waiter: WaiterId) {
        self.pending.remove(&waiter);
        self.unpin(waiter);
    }

    fn unpin(&mut self, waiter: WaiterId) {
        for window in self.windows.values_mut() {
            window.waiters.retain(|(other, _)| *other != waiter);
        }
    }

    /// The file was removed or renamed: nothing of it is served from here any more.
    pub fn forget_file(&mut self, file: &FileName) {
        let mut freed = 0;
        self.windows.retain(|key, window| {
            let reading = window.bytes.is_none();
            if key.file != *file {
                return true;
            }
            window.stale = true;
            freed += if reading { 0 } else { window.cost };
            reading
        });
        self.bytes -= freed;
    }

    /// Bytes of windows held or ordered.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }
}

fn short(key: &WindowKey) -> DiskError {
    DiskError {
        file: key.file.to_string(),
        doing: "read",
        reason: "the file ends before what was written to it".to_owned(),
        full: false,
    }
}
