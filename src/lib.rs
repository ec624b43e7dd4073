//! OrbitMQ: a message broker and name server for unmodified Apache RocketMQ clients.
//!
//! The modules, lowest layer first. A module imports lower rows only (`tests/tidy.rs` checks it):
//!
//! | row | modules | holds |
//! |---|---|---|
//! | 0 | [`base`] | offsets, time, disk orders, deadline heap; no domain |
//! | 1 | [`message`] [`remoting`] [`filter`] | bytes, parsing, arithmetic |
//! | 2 | [`machine`] [`store`] [`client`] | parts: state over bytes |
//! | 3 | [`broker`] [`namesrv`] | machines: state over requests |
//! | 4 | [`shard`] | io_uring, sockets, files, clocks, threads |
//! | 5 | [`admin`] [`loadgen`] | front doors and tools |
//! | 6 | [`config`] [`cli`] [`serve`] [`check`] | assembly |
//!
//! Rows 0 to 3 decide: synchronous, no clock, no socket, no file. Row 4 acts.

pub mod admin;
pub mod base;
pub mod broker;
pub mod check;
pub mod cli;
pub mod client;
pub mod config;
pub mod filter;
pub mod loadgen;
pub mod machine;
pub mod message;
pub mod namesrv;
pub mod remoting;
pub mod serve;
pub mod shard;
pub mod store;
