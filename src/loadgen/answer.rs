//! Answers, read as cheaply as can be: whether the request was done, and which it was.
//!
//! A JSON answer is decoded whole until one said "done"; from then on answers that begin and end
//! with the very bytes that one had, but for the digits of the opaque, are read by comparing. So
//! nothing is assumed about the order of members or about what a broker leaves out. Everything
//! else takes the long way.

use crate::remoting::code::response;
use crate::remoting::command::{Command, FLAG_RESPONSE};
use crate::remoting::frame::{Codec, PREFIX_BYTES, split};

/// What a frame of a broker says in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// An answer with code 0.
    Done { opaque: i32 },
    /// An answer with another code; the frame has more.
    Refused { opaque: i32, code: i32 },
    /// A request of the broker's own, by its code.
    Asked { code: i32 },
}

/// Of a JSON answer with code 0: what stands before and after the digits of the opaque.
#[derive(Clone, Default, Debug)]
struct Shape {
    start: Vec<u8>,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// Reads the answers of one connection.
#[derive(Clone, Default, Debug)]
pub struct Reader {
    shape: Option<Shape>,
}

const OPAQUE: &[u8] = b"\"opaque\":";
const CODE: &[u8] = b"{\"code\":0,";
const FLAG: &[u8] = b"\"flag\":1,";

impl Reader {
    /// `frame` is whole.
    ///
    /// # Errors
    /// A sentence: the frame cannot be read.
    #[inline]
    pub fn read(&mut self, frame: &[u8]) -> Result<Said, String> {
        let header = header(frame);
        let quick = match (frame.get(4), header) {
            (Some(0), Some(header)) => self.shape.as_ref().and_then(|shape| shape.opaque(header)),
            (Some(1), Some(header)) => binary(header),
            _ => None,
        };
        match quick {
            Some(opaque) => Ok(Said::Done { opaque }),
            None => self.read_slowly(frame),
        }
    }

    fn read_slowly(&mut self, frame: &[u8]) -> Result<Said, String> {
        let command = decode(frame)?;
        if !command.is_response() {
            return Ok(Said::Asked { code: command.code });
        }
        let (opaque, code) = (command.opaque, command.code);
        if code != response::SUCCESS {
            return Ok(Said::Refused { opaque, code });
        }
        if command.codec == Codec::Json {
            self.shape = header(frame).and_then(|header| Shape::learn(header, opaque));
        }
        Ok(Said::Done { opaque })
    }
}

/// The command in a whole frame.
///
/// # Errors
/// A sentence.
pub fn decode(frame: &[u8]) -> Result<Command<'_>, String> {
    let unreadable = |error: &dyn std::fmt::Display| {
        format!("the broker answered something unreadable: {error}")
    };
    let frame = split(frame).map_err(|error| unreadable(&error))?;
    Command::decode(frame).map_err(|error| unreadable(&error))
}

#[inline]
fn header(frame: &[u8]) -> Option<&[u8]> {
    let prefix: &[u8; PREFIX_BYTES] = frame.first_chunk()?;
    let len = u32::from_be_bytes([0, prefix[5], prefix[6], prefix[7]]) as usize;
    frame.get(PREFIX_BYTES..PREFIX_BYTES + len)
}

/// Code 0 and the answer bit at their places; the opaque.
#[inline]
fn binary(header: &[u8]) -> Option<i32> {
    let head: &[u8; 13] = header.first_chunk()?;
    let flag = i32::from_be_bytes([head[9], head[10], head[11], head[12]]);
    let done = head[..2] == [0, 0] && flag & FLAG_RESPONSE != 0;
    done.then(|| i32::from_be_bytes([head[5], head[6], head[7], head[8]]))
}

impl Shape {
    /// `None` if the header is written in a way that cannot be told from its ends.
    fn learn(header: &[u8], opaque: i32) -> Option<Shape> {
        let digits = opaque.to_string();
        let wanted = [OPAQUE, digits.as_bytes()].concat();
        let at = header
            .windows(wanted.len())
            .rposition(|window| window == wanted)?;
        let digits_at = at + OPAQUE.len();
        let after = &header[digits_at + digits.len()..];
        // From the flag on, which says "answer": what is before it changes. A member must end right
        // before the opaque, so that no text within a string can look like it.
        let flag_at = header[..at]
            .windows(FLAG.len())
            .rposition(|window| window == FLAG)?;
        let before = &header[flag_at..digits_at];
        let begins = header.starts_with(CODE) && header[..at].ends_with(b",");
        let ends = after.first().is_some_and(|byte| !byte.is_ascii_digit());
        (begins && ends).then(|| Shape {
            start: CODE.to_vec(),
            before: before.to_vec(),
            after: after.to_vec(),
        })
    }

    #[inline]
    fn opaque(&self, header: &[u8]) -> Option<i32> {
        let rest = header.strip_suffix(self.after.as_slice())?;
        if !header.starts_with(&self.start) {
            return None;
        }
        let digits = rest
            .iter()
            .rev()
            .take(10)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (head, digits) = rest.split_at(rest.len() - digits);
        if digits.is_empty() || !head.ends_with(&self.before) {
            return None;
        }
        let number = digits
            .iter()
            .fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
        i32::try_from(number).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::command::FrameWriter;

    fn answer(codec: Codec, opaque: i32, code: i32, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let remark = (code != 0).then_some("no");
        let mut writer = FrameWriter::response(&mut out, codec, opaque, code, remark);
        writer.field_str("msgId", text);
        writer.finish_with_body(b"body");
        out
    }

    fn json(header: &str) -> Vec<u8> {
        let mut out = ((4 + header.len()) as u32).to_be_bytes().to_vec();
        out.extend_from_slice(&(header.len() as u32).to_be_bytes());
        out.extend_from_slice(header.as_bytes());
        out
    }

    #[test]
    fn the_short_way_and_the_long_way_agree() {
        for codec in [Codec::Json, Codec::Binary] {
            let mut reader = Reader::default();
            for (opaque, code, text) in [
                (1_000_000_001, 0, "A"),
                (1_000_000_002, 0, "quite another length"),
                (7, 0, "x"),
                (1_000_000_003, 2, "A"),
                (
                    1_000_000_004,
                    0,
                    ",\"opaque\":5,\"serializeTypeCurrentRPC\":\"JSON\"",
                ),
            ] {
                let expected = match code {
                    0 => Said::Done { opaque },
                    _ => Said::Refused { opaque, code },
                };
                assert_eq!(
                    reader.read(&answer(codec, opaque, code, text)),
                    Ok(expected)
                );
            }
            assert_eq!(reader.shape.is_some(), codec == Codec::Json);
            let another = answer(codec, 1_000_000_005, 0, "ends with other digits: 12");
            let shape = reader.shape.as_ref();
            let short = shape.map(|shape| shape.opaque(header(&another).unwrap()));
            assert!(short.is_none_or(|opaque| opaque == Some(1_000_000_005)));
            let mut out = Vec::new();
            FrameWriter::request(&mut out, codec, 5, 40, true).finish(0);
            assert_eq!(reader.read(&out), Ok(Said::Asked { code: 40 }));
        }
    }

    #[test]
    fn other_orders_of_members_are_read() {
        let mut reader = Reader::default();
        for opaque in [5, 6] {
            let header = format!(r#"{{"opaque":{opaque},"flag":1,"code":0,"version":1}}"#);
            assert_eq!(reader.read(&json(&header)), Ok(Said::Done { opaque }));
        }
        let odd = r#"{"code":0,"flag":1,"opaque":9,"extFields":{"a":"b"}}"#;
        assert_eq!(reader.read(&json(odd)), Ok(Said::Done { opaque: 9 }));
        let request = r#"{"code":0,"flag":0,"opaque":9,"extFields":{"a":"b"}}"#;
        assert_eq!(reader.read(&json(request)), Ok(Said::Asked { code: 0 }));
    }

    #[test]
    fn damage_is_a_sentence() {
        let mut reader = Reader::default();
        for bytes in [
            json("{\"code\":"),
            vec![0; 8],
            vec![],
            vec![0, 0, 0, 4, 9, 0, 0, 0],
        ] {
            assert!(reader.read(&bytes).unwrap_err().contains("unreadable"));
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut reader = Reader::default();
            let _ = reader.read(&answer(Codec::Json, 1_000_000_001, 0, "A"));
            let _ = reader.read(&bytes);
        }
    }
}
