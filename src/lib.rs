//! OrbitMQ.
pub mod base;
pub mod cli;
pub mod config;
