//! OrbitMQ.
pub mod base;
pub mod remoting;
