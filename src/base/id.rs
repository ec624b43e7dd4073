//! Newtypes for what must not be mixed up.

/// One commit log and everything derived from it; `0..shards`. Shard 0 also owns control state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// A byte position in one shard's log, counted from the first byte ever written to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogOffset(pub u64);

/// A message's number in its queue, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct QueueOffset(pub u64);

/// A connection: the shard whose driver holds the socket, its slot there, and a generation that
/// keeps a late answer from reaching the slot's next tenant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId {
    pub shard: ShardId,
    pub slot: u32,
    pub generation: u32,
}

/// Bits of a physical offset that name the shard, so that any offset a client sees finds its log.
const SHARD_SHIFT: u32 = 55;
/// Shards a physical offset can name (bits 55 to 62).
pub const SHARDS_MAX: u16 = 256;

impl LogOffset {
    /// The offset as clients see it: RocketMQ's `commitLogOffset`, shard in bits 55 to 62.
    pub fn physical(self, shard: ShardId) -> i64 {
        assert!(
            self.0 >> SHARD_SHIFT == 0,
            "a log holds less than 2^55 bytes"
        );
        assert!(shard.0 < SHARDS_MAX, "a shard number has eight bits");
        (self.0 | (u64::from(shard.0) << SHARD_SHIFT)) as i64
    }

    /// Splits what a client sent; `None` if it is negative.
    pub fn from_physical(physical: i64) -> Option<(ShardId, LogOffset)> {
        let bits = u64::try_from(physical).ok()?;
        let shard = ShardId((bits >> SHARD_SHIFT) as u16);
        Some((shard, LogOffset(bits & ((1 << SHARD_SHIFT) - 1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn physical_offsets_carry_their_shard() {
        let at = LogOffset(12_345);
        assert_eq!(at.physical(ShardId(0)), 12_345);
        assert_eq!(
            LogOffset::from_physical(at.physical(ShardId(7))),
            Some((ShardId(7), at))
        );
        assert_eq!(LogOffset::from_physical(-1), None);
    }
}
