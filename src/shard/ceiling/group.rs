//! What one commit gathers, and the replies it releases.
//!
//! A group holds frames as they came: a broker keeps the body, the properties and who sent it,
//! which is about as much.

use crate::base::disk::BLOCK_BYTES;

/// One commit at most.
pub const GROUP_BYTES: usize = 1 << 20;
/// Length and CRC in front of each frame.
const RECORD_HEAD_BYTES: usize = 8;

/// How far a group is filled.
#[derive(Clone, Copy, Default)]
pub struct Group {
    pub bytes: usize,
    pub messages: u32,
}

impl Group {
    /// Copies a frame behind what is there. False if there is no room.
    pub fn append(&mut self, buffer: &mut [u8], frame: &[u8]) -> Result<bool, String> {
        let end = self.bytes + RECORD_HEAD_BYTES + frame.len();
        let Some(place) = buffer.get_mut(self.bytes..end) else {
            if self.messages == 0 {
                return Err(format!("a frame of {} bytes fits in no group", frame.len()));
            }
            return Ok(false);
        };
        let (head, copy) = place.split_at_mut(RECORD_HEAD_BYTES);
        copy.copy_from_slice(frame);
        let head: &mut [u8; RECORD_HEAD_BYTES] = head.try_into().expect("split at its size");
        head[..4].copy_from_slice(&(frame.len() as u32).to_be_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(copy).to_be_bytes());
        self.bytes = end;
        self.messages += 1;
        Ok(true)
    }

    /// What goes to the disk: whole blocks.
    pub fn write_bytes(&self) -> usize {
        self.bytes.next_multiple_of(BLOCK_BYTES)
    }
}

/// Appends a reply for each message of the group.
pub fn answer(group: Group, reply: &[u8], out: &mut Vec<u8>) {
    out.reserve(group.messages as usize * reply.len());
    for _ in 0..group.messages {
        out.extend_from_slice(reply);
    }
}

/// Where the next group goes: round and round in one file.
pub struct Place {
    at: u64,
    file_bytes: u64,
}

impl Place {
    pub fn new(file_bytes: u64) -> Place {
        assert!(file_bytes >= GROUP_BYTES as u64, "room for one group");
        Place { at: 0, file_bytes }
    }

    pub fn take(&mut self, bytes: usize) -> u64 {
        if self.at + bytes as u64 > self.file_bytes {
            self.at = 0;
        }
        let at = self.at;
        self.at += bytes as u64;
        at
    }
}
