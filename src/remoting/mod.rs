//! The remoting wire protocol: frames, command headers in both codecs, typed headers and bodies.
//!
//! Everything here is bytes in, values out, or the reverse: no I/O, no state between calls
//! (but [`layout`] and [`shape`], whose state changes no result).
//! Decoding borrows from the frame and does not allocate for the hot requests; encoding appends to
//! a buffer that the caller owns. Whatever a peer sends is answered with a value or an error, never
//! a panic.
//!
//! Not here: what a request means (see the broker and the name server), sockets, TLS, signatures.

pub mod binary;
pub mod body;
pub mod code;
pub mod command;
pub mod ext;
pub mod frame;
pub mod header;
pub mod json;
pub mod language;
pub mod layout;
pub mod shape;
pub mod sniff;
pub mod stencil;
pub mod text;
pub mod writer;

#[cfg(test)]
mod golden;
