//! Message bodies: how long they are, and the stamp of those that are checked or timed.
//!
//! ```text
//!  0  4  magic "OMQB"      16  8  sequence in its producer and queue    32  4  body length
//!  4  4  run               24  8  due, ns of the run's clock            36  4  CRC-32 of all other
//!  8  4  producer                                                              bytes
//! 12  4  queue index                                                    40     filler
//! ```
//!
//! All big-endian. The format is this generator's own.

use std::fmt;

use super::pace::Chance;

/// Bytes a body needs to carry a stamp.
pub const STAMP_BYTES: usize = 40;
/// As far as `maxMessageSize` of RocketMQ goes by default.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

const MAGIC: &[u8; 4] = b"OMQB";
const CRC_AT: usize = 36;

/// How long bodies are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodySize {
    Fixed(usize),
    /// Evenly from the first to the last.
    Between(usize, usize),
    /// Exponentially with this mean, at most [`BODY_BYTES_MAX`].
    Exponential(usize),
}

impl BodySize {
    /// Reads `1024`, `128-4096` or `exp:1024`.
    ///
    /// # Errors
    /// A sentence that says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            let bytes = part.trim().parse().ok();
            bytes.filter(|bytes| (1..=BODY_BYTES_MAX).contains(bytes)).ok_or(format!(
                "{text} is no body size: give 1024, 128-4096 or exp:1024, up to {BODY_BYTES_MAX}"
            ))
        };
        if let Some(mean) = text.strip_prefix("exp:") {
            return Ok(BodySize::Exponential(number(mean)?));
        }
        match text.split_once('-') {
            None => Ok(BodySize::Fixed(number(text)?)),
            Some((from, to)) => match (number(from)?, number(to)?) {
                (from, to) if from <= to => Ok(BodySize::Between(from, to)),
                _ => Err(format!(
                    "{text} is no body size: the first is above the last"
                )),
            },
        }
    }

    pub fn draw(self, chance: &mut Chance) -> usize {
        match self {
            BodySize::Fixed(bytes) => bytes,
            BodySize::Between(from, to) => {
                let steps = (to - from + 1) as f64;
                from + ((1.0 - chance.share()) * steps) as usize
            }
            BodySize::Exponential(mean) => {
                let drawn = (chance.exponential() * mean as f64) as usize;
                drawn.clamp(self.smallest(), self.largest())
            }
        }
    }

    pub fn smallest(self) -> usize {
        match self {
            BodySize::Fixed(bytes) | BodySize::Between(bytes, _) => bytes,
            // A stamp fits, so that any mean can be checked.
            BodySize::Exponential(mean) => mean.min(STAMP_BYTES),
        }
    }

    pub fn largest(self) -> usize {
        match self {
            BodySize::Fixed(bytes) | BodySize::Between(_, bytes) => bytes,
            BodySize::Exponential(mean) => (64 * mean).min(BODY_BYTES_MAX),
        }
    }
}

impl fmt::Display for BodySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodySize::Fixed(bytes) => write!(f, "{bytes}"),
            BodySize::Between(from, to) => write!(f, "{from}-{to}"),
            BodySize::Exponential(mean) => write!(f, "exp:{mean}"),
        }
    }
}

/// Text that does not compress to nothing.
pub fn filler(bytes: usize, seed: u64) -> Vec<u8> {
    let mut chance = Chance::new(seed);
    (0..bytes)
        .map(|_| b'a' + (chance.next() % 26) as u8)
        .collect()
}

/// Who made a message, and when it was due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Tells this run's messages from those of others.
    pub run: u32,
    pub producer: u32,
    pub queue: u32,
    pub sequence: u64,
    pub due: u64,
}

/// Writes the stamp over the first bytes of a body of at least [`STAMP_BYTES`].
pub fn put_stamp(body: &mut [u8], stamp: Stamp) {
    let len = body.len() as u32;
    body[..4].copy_from_slice(MAGIC);
    body[4..8].copy_from_slice(&stamp.run.to_be_bytes());
    body[8..12].copy_from_slice(&stamp.producer.to_be_bytes());
    body[12..16].copy_from_slice(&stamp.queue.to_be_bytes());
    body[16..24].copy_from_slice(&stamp.sequence.to_be_bytes());
    body[24..32].copy_from_slice(&stamp.due.to_be_bytes());
    body[32..36].copy_from_slice(&len.to_be_bytes());
    let crc = checksum(body);
    body[CRC_AT..STAMP_BYTES].copy_from_slice(&crc.to_be_bytes());
}

fn checksum(body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&body[..CRC_AT]);
    hasher.update(&body[STAMP_BYTES..]);
    hasher.finalize()
}

/// The stamp of a body, unchecked; `None` if there is none.
pub fn stamp(body: &[u8]) -> Option<Stamp> {
    let head: &[u8; STAMP_BYTES] = body.first_chunk()?;
    let u32_at =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    (&head[..4] == MAGIC).then(|| Stamp {
        run: u32_at(4),
        producer: u32_at(8),
        queue: u32_at(12),
        sequence: u64_at(16),
        due: u64_at(24),
    })
}

/// The stamp of a body whose length and checksum are right.
pub fn checked_stamp(body: &[u8]) -> Option<Stamp> {
    let stamp = stamp(body)?;
    let stated = body.get(32..36)? == (body.len() as u32).to_be_bytes();
    let summed = body.get(CRC_AT..STAMP_BYTES)? == checksum(body).to_be_bytes();
    (stated && summed).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_size(text: &str, expected: Result<(usize, usize), &str>) {
        match (BodySize::parse(text), expected) {
            (Ok(size), Ok(bounds)) => {
                assert_eq!((size.smallest(), size.largest()), bounds);
                let mut chance = Chance::new(3);
                for _ in 0..1000 {
                    assert!((bounds.0..=bounds.1).contains(&size.draw(&mut chance)));
                }
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn sizes() {
        check_size("1024", Ok((1024, 1024)));
        check_size("128-4096", Ok((128, 4096)));
        check_size("exp:1000", Ok((40, 64_000)));
        check_size("0", Err("up to 4194304"));
        check_size("4194305", Err("up to"));
        check_size("9-8", Err("above the last"));
        check_size("exp:x", Err("is no body size"));
    }

    #[test]
    fn means_are_as_asked() {
        let mut chance = Chance::new(1);
        let mut mean =
            |size: BodySize| (0..20_000).map(|_| size.draw(&mut chance)).sum::<usize>() / 20_000;
        assert!((980..1020).contains(&mean(BodySize::Between(0, 2000))));
        assert!((970..1030).contains(&mean(BodySize::Exponential(1000))));
    }

    #[test]
    fn stamps_are_read_back_and_damage_is_seen() {
        let stamp = Stamp {
            run: 1,
            producer: 2,
            queue: 3,
            sequence: 1 << 40,
            due: u64::MAX,
        };
        let mut body = filler(100, 1);
        put_stamp(&mut body, stamp);
        assert_eq!(checked_stamp(&body), Some(stamp));
        for at in 0..body.len() {
            let mut damaged = body.clone();
            damaged[at] ^= 1;
            assert_eq!(checked_stamp(&damaged), None, "byte {at}");
        }
        assert_eq!(checked_stamp(&body[..99]), None);
        assert_eq!(checked_stamp(&body[..STAMP_BYTES - 1]), None);
    }
}
