//! What a run gave: written by `orbitmq bench … --json`, read by reports and by `bench/compare`.
//!
//! Units are in the names. A field that was not measured is absent, never zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Rises when a reader of old files could misread a new one.
pub const FORMAT: u32 = 1;

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub format: u32,
    /// `send`, `pull`, `e2e`, …
    pub workload: String,
    /// Whatever `--label` said; reports group runs by it.
    pub label: String,
    /// Wall clock at the start, milliseconds since 1970.
    pub started_ms: i64,
    /// What was asked for, as words: topic, connections, inFlight, bodyBytes, codec, ….
    pub settings: BTreeMap<String, String>,
    /// The next request waits for an answer, and latency counts from sending. Otherwise each
    /// message has a moment when it is due, and latency counts from there.
    pub closed_loop: bool,
    pub asked_per_second: Option<f64>,
    /// One for each kind of operation, the workload's main one first.
    pub parts: Vec<Part>,
    pub broker: Option<BrokerCost>,
    pub generator: GeneratorCost,
    pub verified: Option<Verified>,
    /// Rates that `ramp` tried.
    pub steps: Vec<Step>,
    /// Why the figures may not be used; empty for a sound run.
    pub void: Vec<String>,
    /// What ended the run early; the rest is what was measured until then.
    pub broken: Option<String>,
}

/// One kind of operation in a run: `send`, `pull`, `end to end`, ….
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    pub name: String,
    pub messages: u64,
    pub requests: u64,
    /// Of the bodies.
    pub bytes: u64,
    /// From the first to the last message that counts.
    pub seconds: f64,
    pub messages_per_second: f64,
    /// Refused requests by response code and name, as `SYSTEM_BUSY 2`.
    pub failures: BTreeMap<String, u64>,
    pub latency: Option<Latency>,
    pub timeline: Vec<Second>,
}

/// Nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    pub count: u64,
    pub mean: u64,
    pub min: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub p9999: u64,
    pub max: u64,
    /// Share (0 to 1, growing) and the latency within which it was answered.
    pub curve: Vec<(f64, u64)>,
}

/// One second of a run; latencies in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Second {
    /// Since the start of measuring; negative while warming up.
    pub at: i32,
    pub messages: u64,
    pub failed: u64,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

/// What the broker's process spent, by `/proc` (`--broker-pid`).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerCost {
    /// User and system time of all its threads, divided by the messages of all parts.
    pub user_us_per_message: f64,
    pub system_us_per_message: f64,
    /// Its share of one core.
    pub cores: f64,
    pub rss_bytes: u64,
    pub rss_max_bytes: u64,
    /// System calls that read or write (`/proc/PID/io`).
    pub calls_per_message: Option<f64>,
    /// What the block device was told to write, by all processes of the machine.
    pub device_bytes_per_message: Option<f64>,
    pub device_writes_per_message: Option<f64>,
    pub device_syncs_per_message: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratorCost {
    pub us_per_message: f64,
    /// The busiest thread's share of its core, 0 to 1.
    pub core_share: f64,
    /// How late messages of an open loop were sent, 99th percentile, nanoseconds.
    pub lag_p99: Option<u64>,
    /// Share of the machine's time that the hypervisor took, 0 to 1.
    pub steal: f64,
}

/// What `--verify` proved.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    pub acknowledged: u64,
    pub received: u64,
    /// Acknowledged and not received.
    pub lost: u64,
    pub duplicated: u64,
    /// Received after a later one of the same producer and queue.
    pub reordered: u64,
    /// Whoever asked knows that the broker may swap requests in flight together.
    #[serde(default)]
    pub reorder_allowed: bool,
    pub corrupt: u64,
    /// Received though no answer said it was stored: allowed.
    pub unacknowledged: u64,
}

/// One rate of a ramp.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub asked_per_second: f64,
    pub messages_per_second: f64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub held: bool,
}
