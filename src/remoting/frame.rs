//! Bytes to whole frames, or "need more".
//!
//! ```text
//! 0  4  total length L = 4 + header + body (does not count itself)
//! 4  4  header word: byte 0 = codec (0 JSON, 1 binary), low 24 bits = header length H
//! 8  H  header
//!    B  body, B = L - 4 - H
//! ```
//!
//! Source: `NettyDecoder`, `RemotingCommand.decode`. Nothing is copied; a frame borrows the
//! receive buffer.

use std::fmt;

/// Largest whole frame, its length word included: the bound of `LengthFieldBasedFrameDecoder`,
/// itself allowed.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest header that the 24-bit field can state.
pub const HEADER_BYTES_MAX: usize = 0x00FF_FFFF;
/// Length word and header word.
pub const PREFIX_BYTES: usize = 8;

const LENGTH_BYTES: usize = 4;
const _: () = assert!(PREFIX_BYTES == 2 * LENGTH_BYTES);

/// The two header encodings; the number is the type byte on the wire (`SerializeType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    Json = 0,
    Binary = 1,
}

/// One whole frame, borrowed. `body` is empty when there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    pub codec: Codec,
    pub header: &'a [u8],
    pub body: &'a [u8],
}

/// Why a byte sequence is no frame. Each of these ends the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The length word is smaller than the header word it must cover.
    TooShort { length: u32 },
    /// The whole frame would pass [`FRAME_BYTES_MAX`].
    TooLong { length: u32 },
    /// The type byte is neither 0 nor 1.
    UnknownCodec { codec: u8 },
    /// The header would reach beyond the frame.
    HeaderTooLong { header: usize, length: usize },
    /// The slice given to [`split`] is not exactly one frame.
    NotWhole { stated: usize, given: usize },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { length } => write!(f, "frame length {length} is below 4"),
            Self::TooLong { length } => {
                write!(
                    f,
                    "frame length {length} passes the limit of {FRAME_BYTES_MAX} bytes"
                )
            }
            Self::UnknownCodec { codec } => write!(f, "unknown header codec {codec}"),
            Self::HeaderTooLong { header, length } => {
                write!(f, "header length {header} passes the frame length {length}")
            }
            Self::NotWhole { stated, given } => {
                write!(f, "frame states {stated} bytes, {given} are given")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// Length of the frame that starts at `buf[0]`, its length word included; `None` while fewer than
/// four bytes are there.
pub fn frame_len(buf: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(word) = buf.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*word);
    if (length as usize) < LENGTH_BYTES {
        return Err(FrameError::TooShort { length });
    }
    if length as usize > FRAME_BYTES_MAX - LENGTH_BYTES {
        return Err(FrameError::TooLong { length });
    }
    Ok(Some(length as usize + LENGTH_BYTES))
}

/// Splits exactly one frame, as measured by [`frame_len`], into header and body.
pub fn split(whole: &[u8]) -> Result<Frame<'_>, FrameError> {
    let not_whole = |stated| FrameError::NotWhole {
        stated,
        given: whole.len(),
    };
    let stated = frame_len(whole)?.ok_or(not_whole(LENGTH_BYTES))?;
    if stated != whole.len() {
        return Err(not_whole(stated));
    }
    let (prefix, rest) = whole
        .split_first_chunk::<PREFIX_BYTES>()
        .ok_or(not_whole(stated))?;
    let codec = match prefix[4] {
        0 => Codec::Json,
        1 => Codec::Binary,
        codec => return Err(FrameError::UnknownCodec { codec }),
    };
    let header_len = u32::from_be_bytes([0, prefix[5], prefix[6], prefix[7]]) as usize;
    let (header, body) = rest
        .split_at_checked(header_len)
        .ok_or(FrameError::HeaderTooLong {
            header: header_len,
            length: stated - LENGTH_BYTES,
        })?;
    Ok(Frame {
        codec,
        header,
        body,
    })
}

/// Writes both words of a frame that holds its header already; the body may be elsewhere.
#[inline]
pub(super) fn set_prefix(frame: &mut [u8], codec: Codec, header_len: usize, body_len: usize) {
    assert!(
        header_len <= HEADER_BYTES_MAX,
        "headers are built from bounded values"
    );
    let length = u32::try_from(LENGTH_BYTES + header_len + body_len);
    let length = length.expect("bodies are below 4 GiB");
    let word = (codec as u32) << 24 | header_len as u32;
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    frame[LENGTH_BYTES..PREFIX_BYTES].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_len(buf: &[u8], expected: Result<Option<usize>, FrameError>) {
        assert_eq!(frame_len(buf), expected, "{buf:?}");
    }

    #[test]
    fn lengths() {
        check_len(&[], Ok(None));
        check_len(&[0, 0, 0], Ok(None));
        check_len(&[0, 0, 0, 4], Ok(Some(8)));
        check_len(&[0, 0, 0, 3, 9, 9], Err(FrameError::TooShort { length: 3 }));
        check_len(&[0x00, 0xFF, 0xFF, 0xFC], Ok(Some(FRAME_BYTES_MAX)));
        check_len(
            &[0x00, 0xFF, 0xFF, 0xFD],
            Err(FrameError::TooLong {
                length: 0x00FF_FFFD,
            }),
        );
        check_len(&[0xFF; 4], Err(FrameError::TooLong { length: u32::MAX }));
    }

    fn check_split(whole: &[u8], expected: Result<(Codec, &[u8], &[u8]), FrameError>) {
        let got = split(whole).map(|frame| (frame.codec, frame.header, frame.body));
        assert_eq!(got, expected, "{whole:?}");
    }

    #[test]
    fn splits() {
        check_split(
            &[0, 0, 0, 7, 0, 0, 0, 2, 1, 2, 3],
            Ok((Codec::Json, &[1, 2], &[3])),
        );
        check_split(
            &[0, 0, 0, 6, 1, 0, 0, 2, 1, 2],
            Ok((Codec::Binary, &[1, 2], &[])),
        );
        check_split(
            &[0, 0, 0, 4, 2, 0, 0, 0],
            Err(FrameError::UnknownCodec { codec: 2 }),
        );
        check_split(
            &[0, 0, 0, 5, 0, 0, 0, 2, 1],
            Err(FrameError::HeaderTooLong {
                header: 2,
                length: 5,
            }),
        );
        check_split(
            &[0, 0, 0, 5, 0],
            Err(FrameError::NotWhole {
                stated: 9,
                given: 5,
            }),
        );
        check_split(
            &[0, 0],
            Err(FrameError::NotWhole {
                stated: 4,
                given: 2,
            }),
        );
    }
}
