//! Puts load on a cluster, ours or Java RocketMQ, and measures what it does.
//!
//! Each core given runs one thread with many connections (`hand`). Without a rate the load is
//! *closed*: the next request waits for an answer, and latency counts from the moment of sending;
//! such a run says capacity, not latency. With a rate it is *open*: each message has a moment when
//! it is due (`pace`), latency counts from there, and a broker that is late shows as latency, not
//! as fewer messages.
//!
//! A run that this process or the machine disturbed is void and says so: messages written late, a
//! thread's core saturated, time stolen by the hypervisor. So is one that somebody interrupted: it
//! saves what it has (`interrupt`). With `--verify` what was acknowledged is
//! compared with what comes out (`verify`).
//!
//! Not here: what a client library adds for the user's comfort, retries above all. A refused
//! request is counted by its code and never repeated.

mod answer;
mod body;
pub mod ceiling;
mod crew;
mod desk;
mod find;
mod hand;
mod haul;
mod interrupt;
mod judge;
mod letter;
mod link;
mod member;
mod muster;
pub mod outcome;
mod pace;
pub mod plan;
mod pop;
mod proc;
mod progress;
mod pull;
mod query;
pub mod report;
mod run;
mod save;
mod send;
mod slots;
mod tally;
mod turn;
mod verify;
mod wire;

pub use body::{BODY_BYTES_MAX, BodySize};
pub use letter::Style;
pub use run::Verdict;
pub use save::bench;

#[cfg(test)]
mod tests;
