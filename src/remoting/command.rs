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
