//! Responses in JSON that differ in a few numbers only: written once, then filled in.
//!
//! A [`Stencil`] is cut out of a frame that [`FrameWriter`](super::writer::FrameWriter) wrote with
//! marks where the numbers go, so that the form of a response is written down once.

use super::frame::{Codec, Frame, PREFIX_BYTES, set_prefix, split};
use super::writer::{DIGITS_MAX, decimal};

/// Longer responses are not worth it: they are put together in memory of this size.
const FRAME_MAX: usize = 512;
/// Digits of a number in hexadecimal.
const HEX_DIGITS: usize = 16;

/// A number in a response.
#[derive(Clone, Copy)]
pub enum Number {
    Decimal(i64),
    /// All 16 digits, upper-case.
    Hex(u64),
}

/// A response without body, with holes for `N` numbers.
pub struct Stencil<const N: usize> {
    before: [Box<[u8]>; N],
    rest: Box<[u8]>,
}

impl<const N: usize> Stencil<N> {
    /// `sample` has each of the marks once, in this order. `None` if it has not, or is too long.
    pub fn of(sample: &[u8], marks: [&str; N]) -> Option<Self> {
        let Frame {
            codec: Codec::Json,
            header,
            body: [],
        } = split(sample).ok()?
        else {
            return None;
        };
        let mut rest = std::str::from_utf8(header).ok()?;
        if PREFIX_BYTES + rest.len() + N * DIGITS_MAX > FRAME_MAX {
            return None;
        }
        if marks.iter().any(|mark| rest.matches(mark).count() != 1) {
            return None;
        }
        let mut before = [const { None }; N];
        for (piece, mark) in before.iter_mut().zip(marks) {
            let (head, tail) = rest.split_once(mark)?;
            *piece = Some(Box::from(head.as_bytes()));
            rest = tail;
        }
        Some(Stencil {
            before: before.map(|piece| piece.expect("every mark was found")),
            rest: rest.as_bytes().into(),
        })
    }

    /// Appends the response with these numbers.
    #[inline]
    pub fn fill(&self, numbers: [Number; N], out: &mut Vec<u8>) {
        let mut frame = [0; FRAME_MAX];
        let mut at = PREFIX_BYTES;
        let mut put = |bytes: &[u8]| {
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        for (piece, number) in self.before.iter().zip(numbers) {
            put(piece);
            match number {
                Number::Decimal(value) => put(decimal(value, &mut [0; DIGITS_MAX])),
                Number::Hex(value) => put(&hex(value)),
            }
        }
        put(&self.rest);
        set_prefix(&mut frame[..at], Codec::Json, at - PREFIX_BYTES, 0);
        out.extend_from_slice(&frame[..at]);
    }
}

fn hex(value: u64) -> [u8; HEX_DIGITS] {
    let mut digits = [0; HEX_DIGITS];
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(value.to_be_bytes()) {
        *pair = HEX_PAIRS[usize::from(byte)];
    }
    digits
}

const HEX_PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::super::writer::FrameWriter;
    use super::*;

    fn response(codec: Codec, opaque: i32, id: &str, offset: i64) -> Vec<u8> {
        let mut out = Vec::new();
        let mut w = FrameWriter::response(&mut out, codec, opaque, 0, None);
        w.field_str("region", "é\"");
        w.field_str("id", id);
        w.field_i64("offset", offset);
        w.finish(0);
        out
    }

    const MARK: &str = "4444444444444444";
    const MARKS: [&str; 3] = [MARK, "2222222222", "1111111111"];

    fn sample(codec: Codec) -> Vec<u8> {
        response(codec, 1_111_111_111, &format!("00{MARK}"), 2_222_222_222)
    }

    #[test]
    fn filled_in_it_is_what_the_writer_writes() {
        let stencil = Stencil::of(&sample(Codec::Json), MARKS).expect("it fits");
        for (opaque, id, offset) in [
            (0, 0, 0),
            (-1, u64::MAX, -1),
            (i32::MAX, 0x0123_4567_89AB_CDEF, i64::MAX),
            (i32::MIN, 1, i64::MIN),
        ] {
            let mut out = b"before".to_vec();
            let numbers = [
                Number::Hex(id),
                Number::Decimal(offset),
                Number::Decimal(opaque.into()),
            ];
            stencil.fill(numbers, &mut out);
            let expected = response(Codec::Json, opaque, &format!("00{id:016X}"), offset);
            assert_eq!(&out[6..], expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_no_stencil() {
        assert!(Stencil::of(&sample(Codec::Binary), MARKS).is_none());
        assert!(Stencil::of(&sample(Codec::Json), ["3333", MARK]).is_none());
        assert!(Stencil::of(&sample(Codec::Json), ["1111111111", MARK]).is_none());
        let twice = response(Codec::Json, 1_111_111_111, "1111111111", 0);
        assert!(Stencil::of(&twice, ["1111111111"]).is_none());
        let long = response(Codec::Json, 0, &"x".repeat(FRAME_MAX), 0);
        assert!(Stencil::<0>::of(&long, []).is_none());
    }
}
