//! Read windows: cold reads in large aligned pieces, shared by all queues of a shard.
//!
//! A caller asks with [`WindowCache::get`]; what is not there is read once, whoever else asks
//! meanwhile, and the caller asks again when it is woken. Windows are counted from the moment they
//! are ordered, so the budget holds at all times; a window that somebody waits for stays.
//!
//! Who reads one window after the other is read ahead of: the more windows in a row are here, the
//! further, up to [`AHEAD_MAX`]. What was read ahead takes at most half of the budget until it is
//! asked for, and pushes out nothing of its kind.
//!
//! A file that still grows is read only as far as the caller knows it to be written: what lies
//! behind is cut off, and a window too short for a later question is read again.
//!
//! Not here: verifying what was read, and memory of windows that left the cache while slices of
//! them are on their way to a socket.

use crate::base::disk::{BLOCK_BYTES, FileName};
use crate::base::{DiskError, Map, Order, Set};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of a window unless a test says otherwise.
pub const WINDOW_BYTES: usize = 256 * 1024;
/// Windows that are read ahead of a reader at most.
const AHEAD_MAX: u64 = 8;
/// How far back a reader that goes through a file looks for windows to leave behind.
const PASSED_MAX: u64 = 4 * AHEAD_MAX;

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
    /// Of `reads`: those that nobody had asked for yet.
    pub ahead: u64,
    pub failed_reads: u64,
}

/// Who holds a window in place, and how many of its bytes they need.
type Waiting = (WaiterId, usize);

struct Window {
    /// `None` while it is being read.
    bytes: Option<Bytes>,
    /// Bytes at its start that the file was known to hold when it was ordered.
    valid: usize,
    /// What it counts for: the length of the order.
    cost: usize,
    /// When it was last asked for.
    used: u64,
    waiters: Vec<Waiting>,
    /// The file was forgotten while it was being read.
    stale: bool,
    /// Somebody has asked for it; until then it was read ahead.
    asked: bool,
}

impl Window {
    /// Holds `need` bytes, or is on its way: then a waiter that finds it short asks again.
    fn serves(&self, need: usize) -> bool {
        self.bytes.as_ref().is_none_or(|bytes| need <= bytes.len())
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
    /// Of `bytes`: what nobody has asked for yet.
    ahead_bytes: usize,
    clock: u64,
    windows: Map<WindowKey, Window>,
    pending: Map<WaiterId, Pending>,
    /// Who stands in the waiters of some window.
    pinning: Set<WaiterId>,
    orders: VecDeque<WindowKey>,
    /// Carried out after the others: nobody waits for them yet.
    orders_ahead: VecDeque<WindowKey>,
    stats: Stats,
}

/// The part of a question that falls into one window.
struct Piece {
    key: WindowKey,
    range: Range<usize>,
    /// Bytes of the window that are known to be written.
    valid: usize,
}

impl Piece {
    fn cost(&self) -> usize {
        self.valid.next_multiple_of(BLOCK_BYTES)
    }
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
            ahead_bytes: 0,
            clock: 0,
            windows: Map::default(),
            pending: Map::default(),
            pinning: Set::default(),
            orders: VecDeque::new(),
            orders_ahead: VecDeque::new(),
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
        self.make_room(0, |_| true);
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
        if pieces.iter().all(|piece| self.piece(piece).is_some()) {
            self.stats.hits += 1;
            let hit = self.join(&pieces);
            self.touch(&pieces, valid_to);
            return Got::Hit(hit);
        }
        // Pins keep the pieces that are here while room is made for those that are not.
        self.pinning.insert(waiter);
        let mut missing = 0;
        for piece in &pieces {
            match self.windows.get_mut(&piece.key) {
                Some(window) if window.serves(piece.range.end) => {
                    window.used = self.clock;
                    window.waiters.push((waiter, piece.range.end));
                }
                _ => missing += piece.cost(),
            }
        }
        if !self.make_room(missing, |_| true) {
            self.cancel(waiter);
            self.stats.busy += 1;
            return Got::Busy;
        }
        self.order_missing(waiter, &pieces);
        self.stats.waits += 1;
        self.touch(&pieces, valid_to);
        Got::Wait
    }

    /// Somebody asks for these pieces, which are here or ordered. The first time that anybody does
    /// is when to read ahead.
    fn touch(&mut self, pieces: &[Piece], valid_to: u64) {
        let mut newest = None;
        for piece in pieces {
            let window = self.windows.get_mut(&piece.key);
            let window = window.expect("it is here or ordered");
            window.used = self.clock;
            if !std::mem::replace(&mut window.asked, true) {
                self.ahead_bytes -= window.cost;
                newest = Some(piece);
            }
        }
        if let Some(piece) = newest {
            self.read_ahead(&piece.key, valid_to);
        }
    }

    /// Orders windows behind this one, as many as there are in a row before it.
    fn read_ahead(&mut self, key: &WindowKey, valid_to: u64) {
        let size = self.window_bytes as u64;
        let at = |number| WindowKey {
            file: key.file.clone(),
            number,
        };
        let before = (1..=key.number.min(AHEAD_MAX)).map(|back| at(key.number - back));
        let before = before.take_while(|key| self.windows.contains_key(key));
        let ahead = before.count() as u64;
        // Only whole ones: the end of a file that grows would be read again.
        let whole = (valid_to / size).min(key.number + 1 + ahead);
        for key in (key.number + 1..whole).map(at) {
            if self.windows.contains_key(&key) {
                continue;
            }
            let cost = self.window_bytes;
            let most = self.bytes_max / 2;
            if self.ahead_bytes + cost > most || !self.make_room(cost, |window| window.asked) {
                return;
            }
            self.insert(key, cost, cost, Vec::new());
            self.stats.ahead += 1;
        }
    }

    /// Orders a window. One that was too short gives way; who held it asks again and waits here.
    fn insert(&mut self, key: WindowKey, valid: usize, cost: usize, waiters: Vec<Waiting>) {
        let is_awaited = !waiters.is_empty();
        let window = Window {
            bytes: None,
            valid,
            cost,
            used: self.clock,
            waiters,
            stale: false,
            asked: false,
        };
        self.bytes += cost;
        self.ahead_bytes += cost;
        if let Some(short) = self.windows.insert(key.clone(), window) {
            self.leave(&short);
            let window = self.windows.get_mut(&key).expect("just inserted");
            window.waiters.extend(short.waiters);
        }
        match is_awaited {
            true => self.orders.push_back(key),
            false => self.orders_ahead.push_back(key),
        }
    }

    /// The window is no longer held.
    fn leave(&mut self, gone: &Window) {
        self.bytes -= gone.cost;
        if !gone.asked {
            self.ahead_bytes -= gone.cost;
        }
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
                && window.serves(need)
            {
                awaited += usize::from(window.bytes.is_none());
                continue;
            }
            let waiters = vec![(waiter, need)];
            self.insert(piece.key.clone(), piece.valid, piece.cost(), waiters);
            awaited += 1;
        }
        let pending = Pending {
            windows: awaited,
            failed: None,
        };
        self.pending.insert(waiter, pending);
    }

    /// Forgets windows that nobody waits for and that may go, least recently used first, until
    /// `more` bytes fit.
    fn make_room(&mut self, more: usize, may_go: fn(&Window) -> bool) -> bool {
        while self.bytes + more > self.bytes_max {
            let idle = self.windows.iter();
            let idle = idle.filter(|(_, w)| w.bytes.is_some() && w.waiters.is_empty() && may_go(w));
            let Some((key, _)) = idle.min_by_key(|(_, window)| window.used) else {
                return false;
            };
            let key = key.clone();
            let gone = self.windows.remove(&key).expect("just found");
            self.leave(&gone);
        }
        true
    }

    /// The next read to be carried out; its answer goes to [`arrived`](Self::arrived).
    pub fn poll_order(&mut self) -> Option<(WindowKey, Order)> {
        let next = self.orders.pop_front();
        let key = next.or_else(|| self.orders_ahead.pop_front())?;
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
                self.leave(&gone);
            }
        }
        for one in &woken {
            self.pending.remove(&one.waiter);
            if one.result.is_err() {
                self.cancel(one.waiter);
            }
        }
        woken
    }

    /// The waiter went away, or will not ask again: its windows are free to leave.
    pub fn cancel(&mut self, waiter: WaiterId) {
        self.pending.remove(&waiter);
        if self.pinning.remove(&waiter) {
            for window in self.windows.values_mut() {
                window.waiters.retain(|(other, _)| *other != waiter);
            }
        }
    }

    /// Whoever goes through a file once and in order has come to `at`: windows that lie further
    /// behind than [`read_ahead`](Self::read_ahead) looks back are free to leave before their time.
    pub fn pass(&mut self, file: &FileName, at: u64) {
        let number = at / self.window_bytes as u64;
        for back in (AHEAD_MAX + 1..=PASSED_MAX).take_while(|back| *back <= number) {
            let key = WindowKey {
                file: file.clone(),
                number: number - back,
            };
            let held = self.windows.get(&key);
            if held.is_some_and(|window| window.bytes.is_some() && window.waiters.is_empty()) {
                let gone = self.windows.remove(&key).expect("just found");
                self.leave(&gone);
            }
        }
    }

    /// The file was removed or renamed: nothing of it is served from here any more.
    pub fn forget_file(&mut self, file: &FileName) {
        let of_file = |(key, window): (&WindowKey, &mut Window)| {
            window.stale |= key.file == *file;
            (window.stale && window.bytes.is_some()).then(|| key.clone())
        };
        let gone: Vec<_> = self.windows.iter_mut().filter_map(of_file).collect();
        for key in gone {
            let gone = self.windows.remove(&key).expect("just found");
            self.leave(&gone);
        }
    }

    /// Whether a read of this file is ordered or under way.
    pub fn is_reading(&self, file: &str) -> bool {
        let mut windows = self.windows.iter();
        windows.any(|(key, window)| *key.file == *file && window.bytes.is_none())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::{Dir, Done, MemDir};
    use proptest::prelude::*;

    const SIZE: usize = 8192;
    const END: u64 = 100_000;

    fn cache() -> WindowCache {
        WindowCache::new(SIZE, 2 * SIZE, 4 * SIZE)
    }

    fn file() -> FileName {
        "log/0".into()
    }

    fn byte(at: usize) -> u8 {
        (at / 100) as u8
    }

    fn disk() -> MemDir {
        let dir = MemDir::default();
        let bytes: Vec<_> = (0..END as usize).map(byte).collect();
        dir.write_at(&file(), 0, &bytes).unwrap();
        dir
    }

    fn ask(cache: &mut WindowCache, waiter: u64, at: u64, len: usize) -> Got {
        cache.get(WaiterId(waiter), &file(), at, len, END)
    }

    /// Carries out the next order.
    fn serve(cache: &mut WindowCache, dir: &MemDir) -> Option<Vec<Woken>> {
        let (key, order) = cache.poll_order()?;
        let result = dir.carry_out(order).map(|done| match done {
            Done::Read(bytes) => bytes,
            other => panic!("not a read: {other:?}"),
        });
        Some(cache.arrived(&key, result))
    }

    fn woken(waiters: &[u64]) -> Vec<Woken> {
        let one = |waiter: &u64| Woken {
            waiter: WaiterId(*waiter),
            result: Ok(()),
        };
        waiters.iter().map(one).collect()
    }

    fn hit(got: Got, at: usize, len: usize) {
        let Got::Hit(bytes) = got else {
            panic!("{got:?}");
        };
        assert!(bytes.iter().copied().eq((at..at + len).map(byte)));
    }

    #[test]
    fn one_read_serves_all_who_ask() {
        let (mut cache, dir) = (cache(), disk());
        assert_eq!(ask(&mut cache, 1, 100, 50), Got::Wait);
        assert_eq!(ask(&mut cache, 2, 8000, 100), Got::Wait);
        assert_eq!(serve(&mut cache, &dir).unwrap(), woken(&[1, 2]));
        assert!(cache.poll_order().is_none());
        hit(ask(&mut cache, 1, 100, 50), 100, 50);
        hit(ask(&mut cache, 2, 8000, 100), 8000, 100);
        assert_eq!(cache.stats().reads, 1);
    }

    #[test]
    fn a_record_over_two_windows_is_joined() {
        let (mut cache, dir) = (cache(), disk());
        assert_eq!(ask(&mut cache, 1, 8000, 300), Got::Wait);
        assert_eq!(serve(&mut cache, &dir).unwrap(), []);
        assert_eq!(serve(&mut cache, &dir).unwrap(), woken(&[1]));
        hit(ask(&mut cache, 1, 8000, 300), 8000, 300);
        hit(ask(&mut cache, 1, 5000, 10_000), 5000, 10_000);
    }

    #[test]
    fn who_goes_through_once_leaves_nothing_behind() {
        let end = 40 * SIZE as u64;
        let (mut cache, dir) = (WindowCache::new(SIZE, SIZE, 40 * SIZE), MemDir::default());
        dir.write_at(&file(), 0, &vec![0; end as usize]).unwrap();
        for number in 0..40 {
            let at = number * SIZE as u64;
            while cache.get(WaiterId(1), &file(), at, 10, end) == Got::Wait {
                serve(&mut cache, &dir);
            }
            cache.pass(&file(), at);
        }
        while serve(&mut cache, &dir).is_some() {}
        assert_eq!(cache.memory_bytes(), (AHEAD_MAX as usize + 1) * SIZE);
        assert!(cache.stats().ahead > 30, "it is read ahead of all the same");
        // What somebody waits for stays.
        assert_eq!(cache.get(WaiterId(2), &file(), 0, 10, end), Got::Wait);
        serve(&mut cache, &dir);
        cache.pass(&file(), 20 * SIZE as u64);
        assert!(matches!(
            cache.get(WaiterId(2), &file(), 0, 10, end),
            Got::Hit(_)
        ));
    }

    #[test]
    fn a_failed_read_reaches_every_waiter_and_is_not_kept() {
        let (mut cache, dir) = (cache(), disk());
        ask(&mut cache, 1, 0, 10);
        ask(&mut cache, 2, 8000, 300);
        let (key, _) = cache.poll_order().unwrap();
        let error = short(&key);
        let told = cache.arrived(&key, Err(error.clone()));
        assert_eq!(told.len(), 1, "the other still waits for its second window");
        assert_eq!(told[0].result, Err(error));
        assert!(serve(&mut cache, &dir).unwrap()[0].result.is_err());
        assert_eq!(
            serve(&mut cache, &dir).unwrap(),
            [],
            "read ahead of the second"
        );
        assert_eq!(ask(&mut cache, 1, 0, 10), Got::Wait);
        assert_eq!(serve(&mut cache, &dir).unwrap(), woken(&[1]));
    }

    #[test]
    fn a_file_shorter_than_promised_is_an_error() {
        let (mut cache, dir) = (cache(), disk());
        dir.damage(&file(), |bytes| bytes.truncate(5000));
        assert_eq!(ask(&mut cache, 1, 0, 4000), Got::Wait);
        assert_eq!(ask(&mut cache, 2, 0, 5001), Got::Wait);
        let told = serve(&mut cache, &dir).unwrap();
        assert_eq!(
            (told[0].result.is_ok(), told[1].result.is_ok()),
            (true, false)
        );
        hit(ask(&mut cache, 1, 0, 4000), 0, 4000);
    }

    #[test]
    fn the_tail_of_a_growing_file_is_read_again() {
        let (mut cache, dir) = (cache(), disk());
        let get = |cache: &mut WindowCache, waiter, len, valid_to| {
            cache.get(WaiterId(waiter), &file(), 0, len, valid_to)
        };
        assert_eq!(get(&mut cache, 1, 1000, 1000), Got::Wait);
        assert_eq!(get(&mut cache, 2, 2000, 2000), Got::Wait);
        let (key, order) = cache.poll_order().unwrap();
        let Order::Read { len, .. } = order else {
            panic!("{order:?}");
        };
        assert_eq!(len, 4096, "no more than what is written");
        let bytes = dir.contents(&file()).unwrap()[..4096].to_vec();
        assert_eq!(cache.arrived(&key, Ok(bytes.into())), woken(&[1, 2]));
        hit(get(&mut cache, 1, 1000, 1000), 0, 1000);
        assert_eq!(get(&mut cache, 2, 2000, 2000), Got::Wait);
        assert_eq!(serve(&mut cache, &dir).unwrap(), woken(&[2]));
        hit(get(&mut cache, 2, 2000, 2000), 0, 2000);
        assert_eq!(cache.memory_bytes(), 4096);
    }

    #[test]
    fn windows_with_waiters_stay_and_the_rest_goes_by_age() {
        let (mut cache, dir) = (cache(), disk());
        for number in 0..4 {
            assert_eq!(ask(&mut cache, number, number * SIZE as u64, 10), Got::Wait);
        }
        assert_eq!(ask(&mut cache, 9, 4 * SIZE as u64, 10), Got::Busy);
        (0..4).for_each(|_| drop(serve(&mut cache, &dir)));
        assert_eq!(
            ask(&mut cache, 9, 4 * SIZE as u64, 10),
            Got::Busy,
            "none has asked again"
        );
        hit(ask(&mut cache, 1, SIZE as u64, 10), SIZE, 10);
        cache.cancel(WaiterId(3));
        hit(ask(&mut cache, 1, SIZE as u64, 10), SIZE, 10);
        assert_eq!(ask(&mut cache, 9, 4 * SIZE as u64, 10), Got::Wait);
        hit(ask(&mut cache, 1, SIZE as u64, 10), SIZE, 10);
        assert_eq!(
            ask(&mut cache, 3, 3 * SIZE as u64, 10),
            Got::Wait,
            "the oldest went"
        );
        assert_eq!(cache.memory_bytes(), 4 * SIZE);
        assert_eq!(cache.stats().busy, 2);
    }

    #[test]
    fn who_reads_on_is_read_ahead_of() {
        let (mut cache, dir) = (WindowCache::new(SIZE, 2 * SIZE, 8 * SIZE), disk());
        let place = |number: u64| number * SIZE as u64;
        let waits = |cache: &mut WindowCache, number| {
            assert_eq!(ask(cache, number, place(number), 10), Got::Wait);
            assert_eq!(serve(cache, &dir).unwrap(), woken(&[number]));
            hit(
                ask(cache, number, place(number), 10),
                number as usize * SIZE,
                10,
            );
        };
        waits(&mut cache, 0);
        assert!(cache.poll_order().is_none(), "one window is no row");
        waits(&mut cache, 1);
        let read = |cache: &mut WindowCache| {
            std::iter::from_fn(|| serve(cache, &dir))
                .map(|woken| assert!(woken.is_empty()))
                .count()
        };
        assert_eq!(read(&mut cache), 1);
        hit(ask(&mut cache, 2, place(2), 10), 2 * SIZE, 10);
        assert_eq!(read(&mut cache), 2, "two before it, two ahead");
        hit(ask(&mut cache, 3, place(3), 10), 3 * SIZE, 10);
        hit(ask(&mut cache, 4, place(4), 10), 4 * SIZE, 10);
        assert_eq!(read(&mut cache), 4, "half of the budget, and no further");
        assert_eq!((cache.stats().ahead, cache.stats().waits), (7, 2));
        // Others push it out, but not what is read ahead for them.
        waits(&mut cache, 11);
        assert!(cache.memory_bytes() <= 8 * SIZE);
    }

    #[test]
    fn a_file_that_grows_is_not_read_ahead_beyond_whole_windows() {
        let (mut cache, dir) = (cache(), disk());
        let valid_to = 2 * SIZE as u64 + 100;
        let mut get = |at| {
            let got = cache.get(WaiterId(1), &file(), at, 10, valid_to);
            serve(&mut cache, &dir);
            got
        };
        assert_eq!(get(0), Got::Wait);
        assert_eq!(get(SIZE as u64), Got::Wait);
        assert!(cache.poll_order().is_none());
        assert_eq!(cache.stats().ahead, 0);
    }

    #[test]
    fn a_forgotten_file_is_not_served() {
        let (mut cache, dir) = (cache(), disk());
        ask(&mut cache, 1, 0, 10);
        serve(&mut cache, &dir);
        ask(&mut cache, 2, 3 * SIZE as u64, 10);
        cache.forget_file(&file());
        assert_eq!(serve(&mut cache, &dir).unwrap(), woken(&[2]));
        assert_eq!(cache.memory_bytes(), 0);
        assert_eq!(ask(&mut cache, 2, SIZE as u64, 10), Got::Wait);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Ask(u64, u64, usize),
        Serve,
        Fail,
        Cancel(u64),
        Forget,
        Pass(u64),
        Resize(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let ask = (0..6u64, 0..80_000u64, 1..2 * SIZE);
        prop_oneof![
            8 => ask.prop_map(|(waiter, at, len)| Op::Ask(waiter, at, len)),
            8 => Just(Op::Serve),
            1 => Just(Op::Fail),
            1 => (0..6u64).prop_map(Op::Cancel),
            1 => Just(Op::Forget),
            1 => (0..END).prop_map(Op::Pass),
            1 => (4..9usize).prop_map(|windows| Op::Resize(windows * SIZE)),
        ]
    }

    proptest! {
        #[test]
        fn every_waiter_is_woken_once_and_gets_its_bytes(
            ops in prop::collection::vec(op(), 1..200)
        ) {
            let (mut cache, dir) = (WindowCache::new(SIZE, 2 * SIZE, 8 * SIZE), disk());
            let mut waiting = Set::default();
            let (mut most, mut polled) = (8 * SIZE, 0);
            let drain = ops.len() * 4;
            for op in ops.into_iter().chain((0..drain).map(|_| Op::Serve)) {
                let mut told = Vec::new();
                match op {
                    Op::Ask(waiter, at, len) => match ask(&mut cache, waiter, at, len) {
                        Got::Wait => drop(waiting.insert(waiter)),
                        Got::Busy => drop(waiting.remove(&waiter)),
                        Got::Hit(bytes) => {
                            waiting.remove(&waiter);
                            let at = at as usize;
                            prop_assert!(bytes.iter().copied().eq((at..at + len).map(byte)));
                        }
                    },
                    Op::Serve => told = serve(&mut cache, &dir).unwrap_or_default(),
                    Op::Fail => if let Some((key, _)) = cache.poll_order() {
                        told = cache.arrived(&key, Err(short(&key)));
                    },
                    Op::Cancel(waiter) => {
                        cache.cancel(WaiterId(waiter));
                        waiting.remove(&waiter);
                    }
                    Op::Forget => cache.forget_file(&file()),
                    Op::Pass(at) => cache.pass(&file(), at),
                    Op::Resize(bytes) => {
                        cache.resize(bytes);
                        most = most.max(bytes);
                    }
                }
                for one in told {
                    prop_assert!(waiting.remove(&one.waiter.0));
                    polled += 1;
                }
                let held: usize = cache.windows.values().map(|window| window.cost).sum();
                prop_assert_eq!(cache.memory_bytes(), held);
                let ahead = cache.windows.values().filter(|window| !window.asked);
                let ahead: usize = ahead.map(|window| window.cost).sum();
                prop_assert_eq!(cache.ahead_bytes, ahead);
                prop_assert!(held <= most);
            }
            prop_assert!(waiting.is_empty(), "{waiting:?} still wait, {polled} did not");
        }
    }
}
