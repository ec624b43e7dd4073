//! Requests for what another shard owns, on their way there.
//!
//! Those of one turn travel as one: frames back to back in one piece of memory, which the other
//! core frees once. A large frame travels alone, as a share of what it was received in.

use crate::base::{Now, ShardId};
use crate::broker::handle::{self, Raw, Request};
use crate::broker::{Broker, Peer};
use crate::machine::{COPY_BYTES_MAX, FrameIn, Link, Outbox};
use bytes::Bytes;

/// Memory that a batch begins with.
const BATCH_BYTES_USUAL: usize = 32 * 1024;
/// A batch takes no more once it has this many bytes.
const BATCH_BYTES: usize = 256 * 1024;
/// How far back a batch is looked for: what goes to other shards in one turn lies between.
const LOOK_BACK: usize = 16;

/// Whole frames and the connections they came from, in order.
pub struct Forwarded {
    bytes: Vec<u8>,
    /// And where in `bytes` each ends.
    frames: Vec<(Link, usize)>,
}

impl Forwarded {
    fn of(link: Link, frame: &[u8]) -> Self {
        let mut batch = Forwarded {
            bytes: Vec::with_capacity(BATCH_BYTES_USUAL),
            frames: Vec::new(),
        };
        batch.push(link, frame);
        batch
    }

    fn push(&mut self, link: Link, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.frames.push((link, self.bytes.len()));
    }
}

impl Broker {
    /// Sends a request to the shard that owns what it names.
    pub(super) fn forward(&self, to: ShardId, request: &Request<'_>, out: &mut Outbox<Peer>) {
        let (link, frame) = (*request.link, request.raw.bytes());
        if frame.len() > COPY_BYTES_MAX {
            let frame = request.raw.share();
            return out.peers.push((to, Peer::Request { link, frame }));
        }
        enqueue(&mut out.peers, to, link, frame);
    }

    /// Takes up what another shard has forwarded.
    pub(super) fn take_forwarded(&mut self, now: Now, batch: Forwarded, out: &mut Outbox<Peer>) {
        let bytes = Bytes::from(batch.bytes);
        let mut start = 0;
        for (link, end) in batch.frames {
            let frame = FrameIn::new(&bytes, start, end);
            handle::frame(self, now, &link, Raw::In(frame), out);
            start = end;
        }
    }
}

/// Adds a frame to what goes to that shard last, so that nothing is overtaken.
fn enqueue(peers: &mut Vec<(ShardId, Peer)>, to: ShardId, link: Link, frame: &[u8]) {
    let mut latest = peers.iter_mut().rev().take(LOOK_BACK);
    match latest.find(|(shard, _)| *shard == to) {
        Some((_, Peer::Requests(batch))) if batch.bytes.len() < BATCH_BYTES => {
            batch.push(link, frame);
        }
        _ => {
            let batch = Forwarded::of(link, frame);
            peers.push((to, Peer::Requests(batch)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ConnId;

    fn link(slot: u32) -> Link {
        Link {
            conn: ConnId {
                shard: ShardId(0),
                slot,
                generation: 1,
            },
            peer: ([127, 0, 0, 1], 1).into(),
            local: ([127, 0, 0, 1], 2).into(),
        }
    }

    /// Which slots' requests go where, and what else.
    fn told(peers: &[(ShardId, Peer)]) -> String {
        let told = peers.iter().map(|(to, peer)| match peer {
            Peer::Requests(batch) => {
                let mut from = 0;
                let frames = batch.frames.iter().map(|(link, end)| {
                    let frame = &batch.bytes[std::mem::replace(&mut from, *end)..*end];
                    format!("{}:{}", link.conn.slot, String::from_utf8_lossy(frame))
                });
                format!("{} {}", to.0, frames.collect::<Vec<_>>().join(","))
            }
            _ => format!("{} other", to.0),
        });
        told.collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn frames_of_a_turn_travel_together_and_overtake_nothing() {
        let mut peers = Vec::new();
        for (to, slot, frame) in [
            (1, 1, "a"),
            (2, 1, "b"),
            (1, 2, "cc"),
            (2, 2, ""),
            (1, 1, "d"),
        ] {
            enqueue(&mut peers, ShardId(to), link(slot), frame.as_bytes());
        }
        assert_eq!(told(&peers), "1 1:a,2:cc,1:d | 2 1:b,2:");
        peers.push((ShardId(1), Peer::SnapshotSeen { version: 1 }));
        enqueue(&mut peers, ShardId(2), link(1), b"e");
        enqueue(&mut peers, ShardId(1), link(1), b"f");
        assert_eq!(
            told(&peers),
            "1 1:a,2:cc,1:d | 2 1:b,2:,1:e | 1 other | 1 1:f"
        );
    }

    #[test]
    fn a_batch_has_a_limit() {
        let (mut peers, frame) = (Vec::new(), [b'x'; COPY_BYTES_MAX]);
        for _ in 0..=BATCH_BYTES / COPY_BYTES_MAX {
            enqueue(&mut peers, ShardId(1), link(1), &frame);
        }
        assert_eq!(peers.len(), 2);
    }
}
