//! What a client of name servers and brokers must know of the protocol beyond encoding: which
//! brokers serve a topic.
//!
//! Requests out, answers in: no socket, no clock, no state between calls. Sending and waiting is
//! the caller's.

pub mod route;
