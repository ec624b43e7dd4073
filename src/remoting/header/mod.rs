//! Typed headers: what the extension fields of each command mean, in both directions.
//!
//! One struct per header class of the reference, named after what it asks, one file per family.
//! Servers decode requests and encode responses; the client, the simulator and the load generator
//! do the reverse. The two hot families ([`send`], [`pull`]) are written out by hand and read the
//! fields in one pass; all others come from the table macro below and search field by field.
//!
//! Stricter than the reference in one point: a missing required field or a bad number is an error
//! that names the field, where Java logs it and fails later. An empty number counts as missing.
//! The fields every header inherits (`ns`, `nsd`, `bname`, `oway`, `lo`) are not repeated here.

use std::fmt;

use super::ext::ExtFields;
use super::text::Text;

/// A header that cannot be used; becomes the remark of the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderError {
    /// Wire name of the field.
    pub field: &'static str,
    pub reason: Reason,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    Missing,
    NotInt32,
    NotInt64,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            Reason::Missing => "is missing",
            Reason::NotInt32 => "is not a 32-bit integer",
            Reason::NotInt64 => "is not a 64-bit integer",
        };
        write!(f, "the header field {} {reason}", self.field)
    }
}

impl std::error::Error for HeaderError {}

const fn missing(field: &'static str) -> HeaderError {
    HeaderError {
        field,
        reason: Reason::Missing,
    }
}

fn int32(field: &'static str, value: Text<'_>) -> Result<i32, HeaderError> {
    value.parse_i32().ok_or(HeaderError {
        field,
        reason: Reason::NotInt32,
    })
}

fn int64(field: &'static str, value: Text<'_>) -> Result<i64, HeaderError> {
    value.parse_i64().ok_or(HeaderError {
        field,
        reason: Reason::NotInt64,
    })
}

fn optional_int32(ext: &ExtFields<'_>, key: &'static str) -> Result<Option<i32>, HeaderError> {
    ext.find(key)
        .filter(|value| !value.is_empty())
        .map(|value| int32(key, value))
        .transpose()
}

fn optional_int64(ext: &ExtFields<'_>, key: &'static str) -> Result<Option<i64>, HeaderError> {
    ext.find(key)
        .filter(|value| !value.is_empty())
        .map(|value| int64(key, value))
        .transpose()
}

/// States headers as tables: `field: kind "wireName",`. Kinds are `text`, `i32`, `i64` and `bool`,
/// required; with `opt_` before, optional; with `or VALUE` behind, a default that is always
/// written.
macro_rules! header {
    ($(#[$meta:meta])* struct $name:ident<'a> {
        $($(#[$note:meta])* $field:ident: $kind:ident $key:literal $(or $default:literal)?,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name<'a> {
            $($(#[$note])* pub $field: crate::remoting::header::header!(@type $kind),)+
        }

        impl<'a> $name<'a> {
            pub fn decode(
                ext: &crate::remoting::ext::ExtFields<'a>,
            ) -> Result<Self, crate::remoting::header::HeaderError> {
                Ok(Self {
                    $($field: crate::remoting::header::header!(
                        @decode ext $kind $key $($default)?
                    ),)+
                })
            }

            pub fn encode(&self, writer: &mut crate::remoting::command::FrameWriter<'_>) {
                $(crate::remoting::header::header!(@encode writer $kind $key self.$field);)+
            }
        }
    };
    ($(#[$meta:meta])* struct $name:ident {
        $($(#[$note:meta])* $field:ident: $kind:ident $key:literal $(or $default:literal)?,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name {
            $($(#[$note])* pub $field: crate::remoting::header::header!(@type $kind),)+
        }

        impl $name {
            pub fn decode(
                ext: &crate::remoting::ext::ExtFields<'_>,
            ) -> Result<Self, crate::remoting::header::HeaderError> {
                Ok(Self {
                    $($field: crate::remoting::header::header!(
                        @decode ext $kind $key $($default)?
                    ),)+
                })
            }

            pub fn encode(&self, writer: &mut crate::remoting::command::FrameWriter<'_>) {
                $(crate::remoting::header::header!(@encode writer $kind $key self.$field);)+
            }
        }
    };

    (@type text) => { std::borrow::Cow<'a, str> };
    (@type opt_text) => { Option<std::borrow::Cow<'a, str>> };
    (@type i32) => { i32 };
    (@type opt_i32) => { Option<i32> };
    (@type i64) => { i64 };
    (@type opt_i64) => { Option<i64> };
    (@type bool) => { bool };
    (@type opt_bool) => { Option<bool> };

    (@decode $ext:ident text $key:literal) => {
        $ext.find($key).ok_or(crate::remoting::header::missing($key))?.to_cow()
    };
    (@decode $ext:ident opt_text $key:literal) => { $ext.find($key).map(|value| value.to_cow()) };
    (@decode $ext:ident i32 $key:literal) => {
        crate::remoting::header::optional_int32($ext, $key)?
            .ok_or(crate::remoting::header::missing($key))?
    };
    (@decode $ext:ident i32 $key:literal $default:literal) => {
        crate::remoting::header::optional_int32($ext, $key)?.unwrap_or($default)
    };
    (@decode $ext:ident opt_i32 $key:literal) => {
        crate::remoting::header::optional_int32($ext, $key)?
    };
    (@decode $ext:ident i64 $key:literal) => {
        crate::remoting::header::optional_int64($ext, $key)?
            .ok_or(crate::remoting::header::missing($key))?
    };
    (@decode $ext:ident i64 $key:literal $default:literal) => {
        crate::remoting::header::optional_int64($ext, $key)?.unwrap_or($default)
    };
    (@decode $ext:ident opt_i64 $key:literal) => {
        crate::remoting::header::optional_int64($ext, $key)?
    };
    (@decode $ext:ident bool $key:literal) => {
        $ext.find($key).ok_or(crate::remoting::header::missing($key))?.parse_bool()
    };
    (@decode $ext:ident bool $key:literal $default:literal) => {
        $ext.find($key).map_or($default, |value| value.parse_bool())
    };
    (@decode $ext:ident opt_bool $key:literal) => {
        $ext.find($key).map(|value| value.parse_bool())
    };

    (@encode $writer:ident text $key:literal $value:expr) => { $writer.field_str($key, &$value) };
    (@encode $writer:ident opt_text $key:literal $value:expr) => {
        if let Some(value) = &$value { $writer.field_str($key, value) }
    };
    (@encode $writer:ident i32 $key:literal $value:expr) => {
        $writer.field_i64($key, i64::from($value))
    };
    (@encode $writer:ident opt_i32 $key:literal $value:expr) => {
        if let Some(value) = $value { $writer.field_i64($key, i64::from(value)) }
    };
    (@encode $writer:ident i64 $key:literal $value:expr) => { $writer.field_i64($key, $value) };
    (@encode $writer:ident opt_i64 $key:literal $value:expr) => {
        if let Some(value) = $value { $writer.field_i64($key, value) }
    };
    (@encode $writer:ident bool $key:literal $value:expr) => { $writer.field_bool($key, $value) };
    (@encode $writer:ident opt_bool $key:literal $value:expr) => {
        if let Some(value) = $value { $writer.field_bool($key, value) }
    };
}
use header;

pub mod group;
pub mod lite;
pub mod member;
pub mod namesrv;
pub mod namesrv_admin;
pub mod offset;
pub mod pending;
pub mod pop;
pub mod pull;
pub mod query;
pub mod send;
pub mod timer;
pub mod topic;
pub mod transaction;

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::namesrv::RegisterBroker;
    use super::offset::{MaxOffset, OffsetResponse};
    use super::{HeaderError, Reason};
    use crate::remoting::command::{Command, FrameWriter};
    use crate::remoting::frame::{Codec, Frame, split};

    fn example() -> RegisterBroker<'static> {
        RegisterBroker {
            broker_name: Cow::Borrowed("broker-a"),
            broker_addr: Cow::Borrowed("10.0.0.1:10911"),
            cluster_name: Cow::Borrowed("\"quoted\""),
            ha_server_addr: Cow::Borrowed("10.0.0.1:10912"),
            broker_id: -1,
            heartbeat_timeout_ms: None,
            enable_acting_master: Some(true),
            compressed: false,
            body_crc32: 7,
            zone_name: Some(Cow::Borrowed("zoné")),
        }
    }

    #[test]
    fn every_kind_reads_back() {
        for codec in [Codec::Json, Codec::Binary] {
            let mut out = Vec::new();
            let mut writer = FrameWriter::request(&mut out, codec, 1, 103, false);
            example().encode(&mut writer);
            writer.finish(0);
            let command = Command::decode(split(&out).unwrap()).unwrap();
            assert_eq!(RegisterBroker::decode(&command.ext), Ok(example()));
        }
    }

    fn check(fields: &str, expected: Result<MaxOffset<'_>, HeaderError>) {
        let header = format!("{{\"extFields\":{{{fields}}}}}");
        let frame = Frame {
            codec: Codec::Json,
            header: header.as_bytes(),
            body: b"",
        };
        let command = Command::decode(frame).unwrap();
        assert_eq!(MaxOffset::decode(&command.ext), expected, "{fields}");
    }

    #[test]
    fn defaults_and_errors() {
        let topic = Cow::Borrowed("t");
        let full = MaxOffset {
            topic,
            queue_id: 3,
            committed: true,
        };
        let written = MaxOffset {
            committed: false,
            ..full.clone()
        };
        let error = |field, reason| Err(HeaderError { field, reason });
        check(r#""topic":"t","queueId":"3""#, Ok(full.clone()));
        check(
            r#""topic":"\u0074","queueId":3,"committed":null,"lo":"x""#,
            Ok(full),
        );
        check(r#""topic":"t","queueId":3,"committed":false"#, Ok(written));
        check(r#""queueId":"3""#, error("topic", Reason::Missing));
        check(
            r#""topic":"t","queueId":"""#,
            error("queueId", Reason::Missing),
        );
        check(
            r#""topic":"t","queueId":"x""#,
            error("queueId", Reason::NotInt32),
        );
    }

    #[test]
    fn numbers_without_strings() {
        let mut out = Vec::new();
        let mut writer = FrameWriter::response(&mut out, Codec::Binary, 1, 0, None);
        OffsetResponse { offset: i64::MIN }.encode(&mut writer);
        writer.finish(0);
        let command = Command::decode(split(&out).unwrap()).unwrap();
        assert_eq!(
            OffsetResponse::decode(&command.ext),
            Ok(OffsetResponse { offset: i64::MIN })
        );
    }

    #[test]
    fn errors_name_the_field() {
        let text = HeaderError {
            field: "queueId",
            reason: Reason::NotInt32,
        }
        .to_string();
        assert_eq!(text, "the header field queueId is not a 32-bit integer");
    }
}
