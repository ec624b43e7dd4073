//! The same question to this code and to the reference's own classes: the answers must be equal.

#[path = "differential/answers.rs"]
mod answers;
#[path = "differential/brokers.rs"]
mod brokers;
#[path = "differential/cases/mod.rs"]
mod cases;
#[path = "differential/java.rs"]
mod java;
#[path = "differential/known.rs"]
mod known;
#[path = "differential/script.rs"]
mod script;
#[path = "differential/shape.rs"]
mod shape;
#[path = "differential/sql.rs"]
mod sql;
#[path = "differential/wire.rs"]
mod wire;
