//! OrbitMQ.
pub mod base;
pub mod filter;
pub mod message;
pub mod remoting;
