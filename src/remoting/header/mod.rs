//! Typed headers: what the extension fields of each command mean, in both directions.
//!
//! One struct per header class of the reference, named after what it asks, one file per family.
//! Servers decode requests and encode responses; the client, the simulator and the load generator do
//! the reverse. The two hot families ([`send`], [`pull`]) are written out by hand and read the
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
/// required; with `opt_` before, optional; with `or VALUE` behind, a default that is always written.
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
                    $($field: crate::remoting::header::header!(@decode ext $kind $key $($default)?),)+
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
                    $($field: crate::remoting::header::header!(@decode ext $kind $key $($default)?),)+
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

pub mod offset;
pub mod pull;
pub mod send;
