//! The real binary, real sockets, a real disk: about wiring, limits and crashes.
//!
//! `ORBITMQ_BIN` names another binary to test. What needs a mount runs as root only; elsewhere
//! those tests say so and end.

#[path = "e2e/server.rs"]
mod server;
#[path = "e2e/wire.rs"]
mod wire;

#[path = "e2e/admin.rs"]
mod admin;
#[path = "e2e/bench.rs"]
mod bench;
#[path = "e2e/crash.rs"]
mod crash;
#[path = "e2e/disk.rs"]
mod disk;
#[path = "e2e/guard.rs"]
mod guard;
#[path = "e2e/host.rs"]
mod host;
#[path = "e2e/input.rs"]
mod input;
#[path = "e2e/lite.rs"]
mod lite;
#[path = "e2e/pending.rs"]
mod pending;
#[path = "e2e/reading.rs"]
mod reading;
#[path = "e2e/retention.rs"]
mod retention;
#[path = "e2e/serving.rs"]
mod serving;
#[path = "e2e/tools.rs"]
mod tools;
#[path = "e2e/why.rs"]
mod why;
