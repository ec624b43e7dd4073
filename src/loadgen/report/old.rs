//! The report of a run: a table for people, one JSON object for scripts.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::loadgen::Target;
use crate::loadgen::tally::Tally;
use crate::remoting::code::response;
use crate::remoting::frame::Codec;

const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

/// What was run.
pub struct Setting<'a> {
    /// `send` or `pull`.
    pub kind: &'static str,
    pub target: &'a Target,
    pub body_bytes: Option<usize>,
    pub batch: usize,
    pub rate: Option<u64>,
    pub brokers: usize,
}

impl Setting<'_> {
    fn codec(&self) -> &'static str {
        match self.target.codec {
            Codec::Json => "json",
            Codec::Binary => "binary",
        }
    }

    fn load(&self) -> &'static str {
        if self.rate.is_some() {
            "open"
        } else {
            "closed"
        }
    }

    pub fn table(&self, tally: &Tally) -> String {
        let Target {
            topic,
            connections,
            in_flight,
            ..
        } = self.target;
        let mut out = String::new();
        let body = self
            .body_bytes
            .map_or(String::new(), |bytes| format!("{bytes} B, "));
        let connections = connections * self.brokers;
        let (kind, batch, codec, load) = (self.kind, self.batch, self.codec(), self.load());
        let _ = writeln!(
            out,
            "{kind} {topic}: {body}batch {batch}, {connections} connection(s) x {in_flight} in \
             flight, {codec}, {load} loop"
        );
        let (messages, seconds) = (tally.messages, tally.seconds());
        let _ = writeln!(out, "messages   {messages} in {seconds:.2} s");
        let megabytes = tally.bytes as f64 / 1e6 / seconds.max(1e-9);
        let _ = writeln!(
            out,
            "rate       {:.0} msg/s, {megabytes:.1} MB/s",
            tally.rate()
        );
        let latencies = QUANTILES
            .map(|(name, share)| format!("{name} {:.3}", tally.quantile(share) as f64 / 1e6));
        let _ = writeln!(out, "latency ms {}", latencies.join("  "));
        let codes = tally.codes.iter().map(|(code, count)| {
            format!(
                "{} {code}: {count}",
                response::name(*code).unwrap_or("unknown")
            )
        });
        let _ = writeln!(out, "answers    {}", codes.collect::<Vec<_>>().join(", "));
        out
    }

    pub fn json(&self, tally: &Tally) -> String {
        let latency: Map<String, Value> = QUANTILES
            .iter()
            .map(|(name, share)| {
                (
                    (*name).to_owned(),
                    json!(tally.quantile(*share) as f64 / 1e3),
                )
            })
            .collect();
        let codes: Map<String, Value> = tally
            .codes
            .iter()
            .map(|(code, count)| (code.to_string(), json!(count)))
            .collect();
        let report = json!({
            "kind": self.kind,
            "topic": self.target.topic,
            "bodyBytes": self.body_bytes,
            "batch": self.batch,
            "connections": self.target.connections * self.brokers,
            "inFlight": self.target.in_flight,
            "codec": self.codec(),
            "loop": self.load(),
            "rateAsked": self.rate,
            "messages": tally.messages,
            "seconds": tally.seconds(),
            "messagesPerSecond": tally.rate(),
            "megabytesPerSecond": tally.bytes as f64 / 1e6 / tally.seconds().max(1e-9),
            "latencyMicros": latency,
            "answers": codes,
            "failed": tally.failed,
            "gaps": tally.gaps,
        });
        format!("{report}\n")
    }
}
