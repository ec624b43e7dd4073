//! What one commit gathers, and the replies it releases.

use crate::base::disk::BLOCK_BYTES;
use crate::remoting::frame::split;

/// One commit at most.
pub const GROUP_BYTES: usize = 1 << 20;
/// Body length and CRC in front of each body.
const RECORD_HEAD_BYTES: usize = 8;
/// Length word, number of the message, place of its group in the log.
const REPLY_BYTES: usize = 4 + 8 + 8;

/// How far a group is filled.
#[derive(Clone, Copy, Default)]
pub struct Group {
    pub bytes: usize,
    pub messages: u32,
}

impl Group {
    /// Copies the body of a frame behind what is there. False if there is no room.
    pub fn append(&mut self, buffer: &mut [u8], frame: &[u8]) -> Result<bool, String> {
        let body = split(frame).map_err(|error| error.to_string())?.body;
        let end = self.bytes + RECORD_HEAD_BYTES + body.len();
        let Some(place) = buffer.get_mut(self.bytes..end) else {
            if self.messages == 0 {
                return Err(format!("a body of {} bytes fits in no group", body.len()));
            }
            return Ok(false);
        };
        let (head, copy) = place.split_at_mut(RECORD_HEAD_BYTES);
        copy.copy_from_slice(body);
        let head: &mut [u8; RECORD_HEAD_BYTES] = head.try_into().expect("split at its size");
        head[..4].copy_from_slice(&(body.len() as u32).to_be_bytes());
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

/// Writes replies; numbers messages in the order of their commits.
#[derive(Default)]
pub struct Replies {
    numbered: u64,
}

impl Replies {
    /// One for each message of the group, which lies at this place of the log.
    pub fn append(&mut self, group: Group, log_offset: u64, out: &mut Vec<u8>) {
        out.reserve(group.messages as usize * REPLY_BYTES);
        for _ in 0..group.messages {
            let mut reply = [0; REPLY_BYTES];
            reply[..4].copy_from_slice(&(REPLY_BYTES as u32 - 4).to_be_bytes());
            reply[4..12].copy_from_slice(&self.numbered.to_be_bytes());
            reply[12..].copy_from_slice(&log_offset.to_be_bytes());
            out.extend_from_slice(&reply);
            self.numbered += 1;
        }
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
