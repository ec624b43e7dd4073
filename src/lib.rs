//! OrbitMQ.
pub mod base;
