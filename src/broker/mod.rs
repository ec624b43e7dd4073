//! State of one shard of a broker.

pub mod control;
pub mod groups;
pub mod handle;
pub mod locks;
pub mod members;
pub mod record;
pub mod snapshot;
pub mod topics;
