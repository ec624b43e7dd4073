//! Big-endian reading and writing of fixed layouts. Reads never panic: bytes may come from a disk
//! or a peer.

/// Sets the bytes of one field. The compiler makes one move of it, wherever this ends up; a copy
/// between slices is a call unless both lengths are seen.
#[inline(always)]
pub fn set<const N: usize>(bytes: &mut [u8], at: usize, field: [u8; N]) {
    let place = bytes[at..].first_chunk_mut();
    *place.expect("layouts have room for their fields") = field;
}

/// Reads from the front of a slice; every method gives `None` once the bytes are used up.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    pub fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }
    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A number as [`put_varint`] writes it.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// What is to be added, wrapping, to get to the next number, as [`put_step`] writes it.
    pub fn step(&mut self) -> Option<u64> {
        let zigzag = self.varint()?;
        Some((zigzag >> 1) ^ (zigzag & 1).wrapping_neg())
    }

    /// A text with its length in two bytes before it, as [`put_text`] writes it.
    pub fn text(&mut self) -> Option<&'a str> {
        let len = self.u16()?;
        std::str::from_utf8(self.bytes(usize::from(len))?).ok()
    }
}

/// Writes `text` with its length in two bytes before it. At most 65,535 bytes.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("names are checked to be short before this");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Writes a number in as few bytes as it needs, seven bits in each, the lowest first.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes how to get from one number to another: short if they are near, in either direction.
pub fn put_step(out: &mut Vec<u8>, from: u64, to: u64) {
    let step = to.wrapping_sub(from) as i64;
    put_varint(out, ((step << 1) ^ (step >> 63)) as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_put_and_stops_at_the_end() {
        let mut bytes = 7u32.to_be_bytes().to_vec();
        put_text(&mut bytes, "topic");
        let mut cursor = Cursor::new(&bytes);
        assert_eq!((cursor.u32(), cursor.text()), (Some(7), Some("topic")));
        assert_eq!(cursor.u8(), None);
    }
    #[test]
    fn numbers_take_as_few_bytes_as_they_need() {
        let check = |value: u64, len: usize| {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), len, "{value}");
            assert_eq!(Cursor::new(&bytes).varint(), Some(value));
            assert_eq!(Cursor::new(&bytes[..len - 1]).varint(), None);
        };
        check(0, 1);
        check(127, 1);
        check(128, 2);
        check(u64::MAX, 10);
        assert_eq!(Cursor::new(&[0xFF; 20]).varint(), None);
        for (from, to, len) in [(5, 6, 1), (6, 5, 1), (0, u64::MAX, 1), (1 << 63, 0, 10)] {
            let mut bytes = Vec::new();
            put_step(&mut bytes, from, to);
            let step = Cursor::new(&bytes).step().unwrap();
            assert_eq!((from.wrapping_add(step), bytes.len()), (to, len));
        }
    }
}
