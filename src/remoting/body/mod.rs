//! Typed bodies of requests and responses that carry JSON.
//!
//! Output equals the reference's bytes: members in alphabetical order (so the fields below are
//! too), null left out. Input is read as tolerantly as fastjson2 reads it ([`json`]): every member
//! may be missing, null or unknown.

pub mod assignment;
pub mod client;
pub mod cluster;
pub mod group;
pub mod heartbeat;
pub mod json;
mod lenient;
pub mod lite;
pub mod lock;
pub mod pending;
pub mod pop;
pub mod queue;
pub mod queue_entries;
pub mod register;
pub mod route;
pub mod stats;
pub mod table;
pub mod topic;

#[cfg(test)]
mod golden;
