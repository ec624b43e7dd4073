//! The stored message: disk layout and pull-response layout are the same bytes.
//!
//! Encoding appends one record to a buffer; reading is a view over bytes that checks every length
//! once and copies nothing. No clock, no randomness: times, offsets and counters are arguments.
//!
//! Not here: where records lie (the store), compression (bodies pass through as sent).

pub mod batch;
pub mod encode;
pub mod id;
pub mod layout;
pub mod names;
pub mod properties;
pub mod view;

#[cfg(test)]
mod golden;
