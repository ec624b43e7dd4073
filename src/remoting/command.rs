//! One remoting command, decoded from either codec.

use std::fmt;

use super::ext::ExtFields;
use super::frame::{Codec, Frame};
use super::language::Language;
use super::text::Text;
use super::{binary, json};

pub use super::writer::FrameWriter;

/// Bit of `flag`: the frame answers a request.
pub const FLAG_RESPONSE: i32 = 1;
/// Bit of `flag`: the sender wants no answer.
pub const FLAG_ONEWAY: i32 = 2;
/// `version` that every frame of ours carries: V5_5_0. Clients gate features on it.
pub const VERSION: i32 = 513;

/// A request or a response, borrowed from its frame.
#[derive(Clone, Debug)]
pub struct Command<'a> {
    /// Request code, or response code when [`Command::is_response`].
    pub code: i32,
    pub language: Language,
    /// `MQVersion` ordinal of the sender.
    pub version: i32,
    /// Chosen by the requester, echoed in the response.
    pub opaque: i32,
    pub flag: i32,
    pub remark: Option<Text<'a>>,
    pub ext: ExtFields<'a>,
    /// Empty when there is none.
    pub body: &'a [u8],
    /// The codec the sender used; answering in it is always safe.
    pub codec: Codec,
}

impl<'a> Command<'a> {
    pub fn decode(frame: Frame<'a>) -> Result<Self, CommandError> {
        match frame.codec {
            Codec::Json => json::decode(frame),
            Codec::Binary => binary::decode(frame),
        }
    }

    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }
}

/// Why a header is unreadable. Ends the connection, as in the reference; there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError {
    NotUtf8,
    /// JSON: what was expected at this byte of the header.
    Json {
        at: usize,
        expected: &'static str,
    },
    /// JSON: deeper than [`json::DEPTH_MAX`].
    TooDeep,
    /// More than [`super::ext::EXT_FIELDS_MAX`].
    TooManyFields,
    /// Binary: a length at this byte of the header does not fit.
    Truncated {
        at: usize,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => write!(f, "the header is not UTF-8"),
            Self::Json { at, expected } => write!(f, "header byte {at}: expected {expected}"),
            Self::TooDeep => write!(f, "the header nests deeper than {}", json::DEPTH_MAX),
            Self::TooManyFields => {
                write!(
                    f,
                    "more than {} extension fields",
                    super::ext::EXT_FIELDS_MAX
                )
            }
            Self::Truncated { at } => write!(f, "header byte {at}: a length does not fit"),
        }
    }
}

impl std::error::Error for CommandError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{frame_len, split};
    use super::*;

    fn codec() -> impl Strategy<Value = Codec> {
        prop_oneof![Just(Codec::Json), Just(Codec::Binary)]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            codec in codec(),
            code: i16,
            opaque: i32,
            remark in proptest::option::of(".{1,20}"),
            fields in proptest::collection::vec(("[a-zA-Z_]{1,9}", ".{1,12}"), 0..8),
            body: Vec<u8>,
        ) {
            let mut out = Vec::new();
            let remark = remark.as_deref();
            let mut writer =
                FrameWriter::response(&mut out, codec, opaque, i32::from(code), remark);
            fields.iter().for_each(|(key, value)| writer.field_str(key, value));
            writer.finish_with_body(&body);
            prop_assert_eq!(frame_len(&out), Ok(Some(out.len())));
            let command = Command::decode(split(&out).unwrap()).unwrap();
            prop_assert_eq!(command.code, i32::from(code));
            prop_assert_eq!((command.opaque, command.codec), (opaque, codec));
            prop_assert!(command.remark == remark.map(Text::plain));
            prop_assert_eq!(command.body, body.as_slice());
            let owned = |(key, value): (Text<'_>, Text<'_>)| (key.to_string(), value.to_string());
            let read: Vec<_> = command.ext.iter().map(owned).collect();
            prop_assert_eq!(&read, &fields);
            for (key, _) in &fields {
                let last = fields.iter().rfind(|(known, _)| known == key).unwrap();
                prop_assert!(command.ext.find(key).unwrap() == last.1.as_str());
            }
        }

        #[test]
        fn arbitrary_headers_never_panic(codec in codec(), header: Vec<u8>) {
            let _ = Command::decode(Frame { codec, header: &header, body: b"" });
        }

        #[test]
        fn almost_json_never_panics(header in "\\{[\\[\\]{}:,\"\\\\a0u ntre.-]{0,60}") {
            let header = header.as_bytes();
            let _ = Command::decode(Frame { codec: Codec::Json, header, body: b"" });
        }

        #[test]
        fn damaged_frames_never_panic(codec in codec(), at: prop::sample::Index, byte: u8) {
            let mut out = Vec::new();
            let mut writer = FrameWriter::request(&mut out, codec, 1, 310, false);
            writer.field_str("i", "k\u{1}v\u{2}");
            writer.field_i64("g", 1_700_000_000_000);
            writer.finish_with_body(b"body");
            let at = at.index(out.len());
            out[at] = byte;
            if let Ok(command) = split(&out).map(Command::decode) {
                let _ = command.map(|command| command.ext.len());
            }
        }
    }
}
