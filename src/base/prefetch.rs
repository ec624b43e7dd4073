//! Memory that is written soon, asked for now.
//!
//! A message is copied to where none was for a while: its lines of memory are in no near cache.
//! Stores wait for them in order, and whatever reads what a store behind them wrote waits as well:
//! a tenth of what a message costs, unless the lines were on their way before.
//!
//! The one place outside `shard` that needs `unsafe`: the compiler's hint is not safe to call,
//! although it reads and writes nothing.

/// More lines than this are not asked for at once; a processor follows long copies by itself.
const BYTES_MAX: usize = 2048;
const LINE_BYTES: usize = 64;

/// Asks for the memory of `bytes` from `place` on. Only a hint: any address will do, and where the
/// processor is another nothing is done.
#[inline]
pub fn for_write(place: *const u8, bytes: usize) {
    for at in (0..bytes.min(BYTES_MAX)).step_by(LINE_BYTES) {
        let _line = place.wrapping_add(at);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint is no access: it can neither fault nor change anything.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_ET0>(_line.cast());
        }
    }
}
