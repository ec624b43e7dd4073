//! CRC-32 of bytes in a row, of whose parts it is known: without reading them once more.
//!
//! The checksum of `a` before `b` is that of `a`, moved by the length of `b`, with that of `b`
//! added. Moving is linear, and the same for all parts of one length: messages of one producer are
//! often of one length, and so are their bodies.

use crc32fast::Hasher;

/// The polynomial, its lowest power in the highest bit.
const POLYNOMIAL: u32 = 0xEDB8_8320;
/// A checksum is moved by so many bits at a time.
const DIGIT_BITS: usize = 4;
const DIGITS: usize = 32 / DIGIT_BITS;
const DIGIT_VALUES: usize = 1 << DIGIT_BITS;
/// So many lengths are remembered, each in one of the places it may have: the lengths of a message
/// and of its body must not drive each other out.
const LENGTHS: usize = 32;
const PLACES: usize = 4;
/// Of lengths that are not known, one in so many is learned.
const LEARN_EVERY: u32 = 64;
/// Reading fewer bytes costs less than moving by them.
const READ_MAX: usize = 64;

/// Moves a checksum by one length.
#[derive(Clone)]
struct Move {
    /// What each digit of a checksum becomes, by its place.
    digits: [[u32; DIGIT_VALUES]; DIGITS],
}

impl Move {
    fn by(bytes: usize) -> Move {
        // What becomes of the highest bit; each bit below it stands for one power more.
        let mut first = Hasher::new_with_initial(1 << 31);
        first.combine(&Hasher::new_with_initial_len(0, bytes as u64));
        let mut bit = first.finalize();
        let mut digits = [[0; DIGIT_VALUES]; DIGITS];
        for place in (0..32).rev() {
            let digit = &mut digits[place / DIGIT_BITS];
            let weight = 1 << (place % DIGIT_BITS);
            for (value, moved) in digit.iter_mut().enumerate() {
                *moved ^= if value & weight != 0 { bit } else { 0 };
            }
            bit = (bit >> 1) ^ if bit & 1 != 0 { POLYNOMIAL } else { 0 };
        }
        Move { digits }
    }

    #[inline]
    fn apply(&self, crc: u32) -> u32 {
        let moved = |place: usize| {
            let digit = crc >> (place * DIGIT_BITS);
            self.digits[place][digit as usize % DIGIT_VALUES]
        };
        (0..DIGITS).fold(0, |sum, place| sum ^ moved(place))
    }
}

/// Joins checksums. Remembers the lengths seen lately.
pub struct Joins {
    lengths: [usize; LENGTHS],
    /// Of the length at the same place.
    moves: Box<[Move]>,
    misses: u32,
}

impl Default for Joins {
    fn default() -> Self {
        Joins {
            lengths: [0; LENGTHS],
            moves: vec![Move::by(0); LENGTHS].into(),
            misses: 0,
        }
    }
}

impl Joins {
    /// The checksum of what has the checksum `before`, and then `bytes`, whose own is `crc`.
    #[inline]
    pub fn join(&mut self, before: u32, crc: u32, bytes: &[u8]) -> u32 {
        if bytes.len() > READ_MAX {
            let first = first_place(bytes.len());
            for at in first..first + PLACES {
                if self.lengths[at] == bytes.len() {
                    return self.moves[at].apply(before) ^ crc;
                }
            }
            self.miss(bytes.len());
        }
        resume(before, bytes)
    }

    #[cold]
    fn miss(&mut self, bytes: usize) {
        if self.misses.is_multiple_of(LEARN_EVERY) {
            let turn = (self.misses / LEARN_EVERY) as usize % PLACES;
            let at = first_place(bytes) + turn;
            self.lengths[at] = bytes;
            self.moves[at] = Move::by(bytes);
        }
        self.misses = self.misses.wrapping_add(1);
    }
}

fn first_place(bytes: usize) -> usize {
    bytes % (LENGTHS / PLACES) * PLACES
}

/// The checksum of what has the checksum `before`, and then `bytes`.
#[inline]
pub fn resume(before: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(before);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LENGTHS_TRIED: &[usize] = &[0, 64, 65, 97, 300];

    #[test]
    fn a_move_is_what_the_library_does() {
        for bytes in [0, 1, 7, 64, 1000, 1 << 20] {
            for crc in [0, 1, 0x8000_0000, 0x1234_5678, u32::MAX] {
                let mut hasher = Hasher::new_with_initial(crc);
                hasher.combine(&Hasher::new_with_initial_len(0, bytes as u64));
                assert_eq!(
                    Move::by(bytes).apply(crc),
                    hasher.finalize(),
                    "{bytes} {crc}"
                );
            }
        }
    }

    #[test]
    fn lengths_that_share_their_places_are_all_known() {
        let mut joins = Joins::default();
        let shared: Vec<usize> = (0..PLACES).map(|n| 1024 + n * LENGTHS).collect();
        for n in 0..10 * LEARN_EVERY as usize {
            let bytes = vec![n as u8; shared[n % PLACES]];
            let crc = joins.join(7, crc32fast::hash(&bytes), &bytes);
            assert_eq!(crc, resume(7, &bytes));
        }
        let known = |len: &&usize| joins.lengths.contains(len);
        assert_eq!(shared.iter().filter(known).count(), PLACES);
    }

    proptest! {
        #[test]
        fn joined_is_as_read(
            lengths in prop::collection::vec(prop::sample::select(LENGTHS_TRIED), 0..400),
            byte: u8,
        ) {
            let mut joins = Joins::default();
            let (mut whole, mut crc) = (Vec::new(), 0);
            for (n, len) in lengths.into_iter().enumerate() {
                let from = whole.len();
                whole.extend((0..len).map(|at| byte.wrapping_mul(at as u8) ^ n as u8));
                let bytes = &whole[from..];
                crc = joins.join(crc, crc32fast::hash(bytes), bytes);
            }
            prop_assert_eq!(crc, crc32fast::hash(&whole));
        }
    }
}
