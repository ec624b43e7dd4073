//! Responses that differ in a few numbers only: kept as sent last, and overwritten where they
//! differ.
//!
//! A [`Stencil`] is made from a frame that [`FrameWriter`](super::writer::FrameWriter) wrote, so
//! that the form of a response is written down once. Most numbers differ from those of the response
//! before in their last digits alone; those are put in place, and the frame goes out in one piece.
//! A number of another length moves what is behind it.

use super::binary;
use super::frame::{Codec, Frame, PREFIX_BYTES, set_prefix, split};
use super::writer::{DECIMAL_PAIRS, DIGITS_MAX, decimal};
use std::ops::Range;

/// Numbers in a response.
pub const NUMBERS: usize = 4;
/// Longer responses are not worth it: the one sent last is kept in memory of this size.
const FRAME_MAX: usize = 512;
/// Digits of a number in hexadecimal.
const HEX_DIGITS: usize = 16;
/// As many digits are overwritten at once, so many that what they say fits into a `u32`.
const LOW_DIGITS: usize = 8;
const LOW_DECIMALS: i64 = 10_i64.pow(LOW_DIGITS as u32);
const LOW_BITS: i64 = u32::MAX as i64;

/// A number in a response.
#[derive(Clone, Copy)]
pub enum Number {
    /// The whole value of a field.
    Decimal(i64),
    /// All 16 digits, upper-case. Other text may be around them.
    Hex(u64),
    /// The frame's own, in the form that its codec has for it.
    Opaque(i32),
}

/// A response without body and the places of its numbers.
pub struct Stencil {
    codec: Codec,
    /// Its first `len` bytes are the response sent last.
    frame: Box<[u8; FRAME_MAX]>,
    len: usize,
    places: [Place; NUMBERS],
}

/// Where a number lies, and the bytes of it that say by how much it exceeds `base`: nothing else
/// has to change for a number from `least` to `most`.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    low: usize,
    end: usize,
    base: i64,
    least: i64,
    most: i64,
}

impl Stencil {
    /// `sample` has each of these numbers, and the text of each once. `None` if it has not, or is
    /// too long.
    pub fn of(sample: &[u8], numbers: [Number; NUMBERS]) -> Option<Self> {
        let Frame {
            codec,
            header,
            body: [],
        } = split(sample).ok()?
        else {
            return None;
        };
        if sample.len() + NUMBERS * DIGITS_MAX > FRAME_MAX {
            return None;
        }
        let mut places = [None; NUMBERS];
        for (place, number) in places.iter_mut().zip(numbers) {
            let mut buffer = [0; DIGITS_MAX];
            let bytes = number.bytes(codec, &mut buffer);
            let at = only_place(bytes, header)?;
            let end = at + bytes.len();
            let fits = match (number, codec) {
                (Number::Hex(_), _) | (_, Codec::Json) => true,
                (Number::Decimal(_), Codec::Binary) => binary::is_value(header, at..end),
                (Number::Opaque(_), Codec::Binary) => at == binary::OPAQUE_AT,
            };
            if !fits {
                return None;
            }
            let (start, end) = (PREFIX_BYTES + at, PREFIX_BYTES + end);
            *place = Some(Place::of(number, codec, start..end));
        }
        let mut frame = Box::new([0; FRAME_MAX]);
        frame[..sample.len()].copy_from_slice(sample);
        Some(Stencil {
            codec,
            frame,
            len: sample.len(),
            places: places.map(|place| place.expect("every number was found")),
        })
    }

    /// Appends the response with these numbers.
    #[inline]
    pub fn fill(&mut self, numbers: [Number; NUMBERS], out: &mut Vec<u8>) {
        // Not a loop, so that each is compiled for its kind of number.
        let [a, b, c, d] = numbers;
        self.put(0, a);
        self.put(1, b);
        self.put(2, c);
        self.put(3, d);
        out.extend_from_slice(&self.frame[..self.len]);
    }

    #[inline(always)]
    fn put(&mut self, which: usize, number: Number) {
        if !self.overwrite(which, number) {
            self.replace(which, number);
        }
    }

    /// Puts a number in place if only the low digits of it differ.
    #[inline(always)]
    fn overwrite(&mut self, which: usize, number: Number) -> bool {
        let place = &self.places[which];
        let value = number.value();
        if value < place.least || value > place.most {
            return false;
        }
        let low = (value - place.base) as u32;
        let bytes = &mut self.frame[place.low..place.end];
        match (number, self.codec) {
            (Number::Hex(_), _) => put_hex(low, bytes),
            (Number::Opaque(_), Codec::Binary) => {
                *bytes.first_chunk_mut().expect("a number has 4 bytes") = low.to_be_bytes();
            }
            (Number::Decimal(_) | Number::Opaque(_), _) => put_decimal(low, bytes),
        }
        true
    }

    /// Puts a number in place of one that may be longer or shorter.
    #[cold]
    #[inline(never)]
    fn replace(&mut self, which: usize, number: Number) {
        let mut buffer = [0; DIGITS_MAX];
        let bytes = number.bytes(self.codec, &mut buffer);
        let Place { start, end, .. } = self.places[which];
        let to = start + bytes.len();
        if to != end {
            self.frame.copy_within(end..self.len, to);
            self.len = self.len - end + to;
            for place in self.places.iter_mut().filter(|place| place.start > start) {
                place.shift(end, to);
            }
            self.state_lengths(start..to);
        }
        self.frame[start..to].copy_from_slice(bytes);
        self.places[which] = Place::of(number, self.codec, start..to);
    }

    /// Says what changed with the length of the number that is now here.
    fn state_lengths(&mut self, number: Range<usize>) {
        let frame = &mut self.frame[..self.len];
        if self.codec == Codec::Binary {
            let value = number.start - PREFIX_BYTES..number.end - PREFIX_BYTES;
            binary::restate(&mut frame[PREFIX_BYTES..], value);
        }
        set_prefix(frame, self.codec, frame.len() - PREFIX_BYTES, 0);
    }
}

impl Number {
    fn value(self) -> i64 {
        match self {
            Number::Decimal(value) => value,
            Number::Hex(value) => value as i64,
            Number::Opaque(value) => value.into(),
        }
    }

    fn bytes(self, codec: Codec, buffer: &mut [u8; DIGITS_MAX]) -> &[u8] {
        match (self, codec) {
            (Number::Hex(value), _) => {
                let (high, low) = buffer[..HEX_DIGITS].split_at_mut(LOW_DIGITS);
                put_hex((value >> u32::BITS) as u32, high);
                put_hex(value as u32, low);
                &buffer[..HEX_DIGITS]
            }
            (Number::Opaque(value), Codec::Binary) => {
                let bytes = buffer.first_chunk_mut().expect("a number has 4 bytes");
                *bytes = value.to_be_bytes();
                bytes
            }
            (Number::Decimal(_) | Number::Opaque(_), _) => decimal(self.value(), buffer),
        }
    }
}

impl Place {
    /// Of this number, whose bytes are `at`.
    fn of(number: Number, codec: Codec, at: Range<usize>) -> Place {
        let value = number.value();
        let (base, least, most, low_bytes) = match (number, codec) {
            (Number::Hex(_), _) => {
                let base = value & !LOW_BITS;
                (base, base, base | LOW_BITS, LOW_DIGITS)
            }
            (Number::Opaque(_), Codec::Binary) => (0, i32::MIN.into(), i32::MAX.into(), at.len()),
            // Below zero: rare enough to be replaced each time.
            _ if value < 0 => (0, 0, -1, 0),
            _ if at.len() > LOW_DIGITS => {
                let base = value - value % LOW_DECIMALS;
                let most = base.saturating_add(LOW_DECIMALS - 1);
                (base, base, most, LOW_DIGITS)
            }
            _ => {
                let ten_times = 10_i64.pow(at.len() as u32);
                let least = if at.len() == 1 { 0 } else { ten_times / 10 };
                (0, least, ten_times - 1, at.len())
            }
        };
        Place {
            start: at.start,
            low: at.end - low_bytes,
            end: at.end,
            base,
            least,
            most,
        }
    }

    /// What ended at `end` now ends at `to`, before this place.
    fn shift(&mut self, end: usize, to: usize) {
        for at in [&mut self.start, &mut self.low, &mut self.end] {
            *at = *at - end + to;
        }
    }
}

/// Where `bytes` are in `header`, if that is one place.
fn only_place(bytes: &[u8], header: &[u8]) -> Option<usize> {
    let mut places = header.windows(bytes.len()).enumerate();
    let (at, _) = places.find(|(_, window)| *window == bytes)?;
    places.all(|(_, window)| window != bytes).then_some(at)
}

#[inline]
fn put_decimal(value: u32, digits: &mut [u8]) {
    let mut rest = value;
    let (first, pairs) = digits.as_rchunks_mut();
    for pair in pairs.iter_mut().rev() {
        *pair = DECIMAL_PAIRS[(rest % 100) as usize];
        rest /= 100;
    }
    if let [digit] = first {
        *digit = b'0' + rest as u8;
    }
}

#[inline]
fn put_hex(value: u32, digits: &mut [u8]) {
    let pairs = digits.as_chunks_mut().0.iter_mut();
    for (pair, byte) in pairs.zip(value.to_be_bytes()) {
        *pair = HEX_PAIRS[usize::from(byte)];
    }
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
        w.field_i64("next", offset.wrapping_add(1));
        w.finish(0);
        out
    }

    const ID: u64 = 0x4444_4444_4444_4444;
    const OPAQUE: i32 = 1_111_111_111;
    const OFFSET: i64 = 2_222_222_222;
    const SAMPLE: [Number; NUMBERS] = [
        Number::Hex(ID),
        Number::Decimal(OFFSET),
        Number::Decimal(OFFSET + 1),
        Number::Opaque(OPAQUE),
    ];

    fn sample(codec: Codec) -> Vec<u8> {
        response(codec, OPAQUE, &format!("00{ID:X}"), OFFSET)
    }

    /// Fills in the same stencil time after time.
    fn check(codec: Codec, cases: impl IntoIterator<Item = (i32, u64, i64)>) {
        let mut stencil = Stencil::of(&sample(codec), SAMPLE).expect("it fits");
        for (opaque, id, offset) in cases {
            let mut out = b"before".to_vec();
            let numbers = [
                Number::Hex(id),
                Number::Decimal(offset),
                Number::Decimal(offset.wrapping_add(1)),
                Number::Opaque(opaque),
            ];
            stencil.fill(numbers, &mut out);
            let expected = response(codec, opaque, &format!("00{id:016X}"), offset);
            assert_eq!(&out[6..], expected, "{opaque} {id} {offset}");
        }
    }

    #[test]
    fn filled_in_it_is_what_the_writer_writes() {
        for codec in [Codec::Json, Codec::Binary] {
            check(codec, [(OPAQUE, ID, OFFSET)]);
            let offsets = [
                0,
                9,
                10,
                12_345,
                99_999_999,
                100_000_000,
                8_000_000_000_000_000_000,
            ];
            let offsets = offsets.into_iter().chain([-1, -10, i64::MIN, i64::MAX]);
            let offsets: Vec<_> = offsets.collect();
            let ids = [
                0,
                u64::MAX,
                0x0123_4567_89AB_CDEF,
                1 << 63,
                1,
                u64::from(u32::MAX),
            ];
            let opaques = [0, -1, i32::MAX, i32::MIN, 7, 1_000_000, 100_000_000];
            // Each after each other.
            let pairs = |count: usize| (0..count * count).flat_map(move |n| [n / count, n % count]);
            check(codec, pairs(offsets.len()).map(|n| (1, 1, offsets[n])));
            check(codec, pairs(ids.len()).map(|n| (1, ids[n], 1)));
            check(codec, pairs(opaques.len()).map(|n| (opaques[n], 1, 1)));
        }
    }

    #[test]
    fn numbers_grow_past_every_length() {
        let around = |power: u32| {
            let at = 10_i64.pow(power);
            (at.saturating_sub(3)..=at + 3).chain([at / 2, at - at / 7, at * 9 - 1])
        };
        for codec in [Codec::Json, Codec::Binary] {
            let up = (0..=18).flat_map(around);
            let down = (0..=18).rev().flat_map(around);
            let values = up.chain(down).chain(-1_200..1_200);
            check(codec, values.map(|n| (n as i32, n as u64, n)));
        }
    }

    /// The sample with other fields, or with other numbers looked for.
    fn check_none(sample: &[u8], numbers: [Number; NUMBERS]) {
        assert!(Stencil::of(sample, numbers).is_none());
    }

    #[test]
    fn what_does_not_fit_is_no_stencil() {
        let [id, offset, next, opaque] = SAMPLE;
        for codec in [Codec::Json, Codec::Binary] {
            let whole = sample(codec);
            check_none(&whole, [id, Number::Decimal(3_333), next, opaque]);
            check_none(&whole, [id, Number::Decimal(2_222), next, opaque]);
            check_none(&whole, [id, offset, next, Number::Opaque(1)]);
            check_none(&whole[1..], SAMPLE);
            let twice = format!("{ID:X}{OFFSET}");
            check_none(&response(codec, OPAQUE, &twice, OFFSET), SAMPLE);
            let long = format!("{ID:X}{}", "x".repeat(FRAME_MAX));
            check_none(&response(codec, OPAQUE, &long, OFFSET), SAMPLE);
            let mut body = response(codec, OPAQUE, &format!("{ID:X}"), OFFSET);
            let header_len = body.len() - PREFIX_BYTES;
            body.push(b'b');
            set_prefix(&mut body, codec, header_len, 1);
            check_none(&body, SAMPLE);
        }
    }

    #[test]
    fn binary_needs_whole_values_and_no_remark() {
        let [id, offset, next, opaque] = SAMPLE;
        let value = response(Codec::Binary, OPAQUE, &format!("{ID:X}345"), OFFSET);
        check_none(&value, [id, offset, Number::Decimal(345), opaque]);
        let mut out = Vec::new();
        let mut w = FrameWriter::response(&mut out, Codec::Binary, OPAQUE, 0, Some("why"));
        w.field_str("id", &format!("{ID:X}"));
        w.field_i64("offset", OFFSET);
        w.field_i64("next", OFFSET + 1);
        w.finish(0);
        check_none(&out, [id, offset, next, opaque]);
    }
}
