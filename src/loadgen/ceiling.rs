//! `bench ceiling`: what this host allows, as a table and as JSON.
//!
//! Field names of the JSON are kept: `bench/compare` divides the broker's figures by these. Units
//! are in the names, latencies in nanoseconds. A part that was not asked for is empty.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::broker::control::names::AUTO_CREATE_TOPIC;
use crate::remoting::code::{request, response};
use crate::remoting::command::FrameWriter;
use crate::remoting::frame::Codec;
use crate::remoting::header::send::{SendHeader, SendResponse};
use crate::remoting::text::Text;
use crate::shard::ceiling::{self, Build, DiskPoint, DiskSync, Flush, Load, Scratch, Traffic};

/// Rises when a reader of old files could misread a new one.
const FORMAT: u32 = 1;
const BODIES: [usize; 2] = [128, 1024];
/// Requests in flight of the pipelined points: bytes enough for the largest commit on its way and
/// the next one gathering, whatever the body.
const DEPTH_BYTES: usize = 4 << 20;
const BLOCK_BYTES: [usize; 7] = [4, 16, 64, 128, 256, 512, 1024];
const DISK_DEPTHS: [usize; 3] = [1, 2, 4];
const SYNCS: [DiskSync; 3] = [DiskSync::None, DiskSync::Fdatasync, DiskSync::Dsync];
/// The disk has many points; each takes this part of the time of one.
const DISK_TIME_PART: u32 = 5;
const SCRATCH_BYTES: u64 = 256 << 20;

/// One of the three measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Loopback,
    Disk,
    Pipeline,
}

/// What to measure, and where.
#[derive(Clone, Debug)]
pub struct Ceiling {
    /// All three if there is none.
    pub only: Option<Part>,
    /// Files without a name are made here.
    pub data: PathBuf,
    /// Of the server and of the client.
    pub cores: (Option<usize>, Option<usize>),
    /// For each point.
    pub time: Duration,
    pub codec: Codec,
    pub json: bool,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    format: u32,
    loopback: Vec<LoopbackRow>,
    disk: Vec<DiskRow>,
    pipeline: Vec<PipelineRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LoopbackRow {
    body_bytes: usize,
    request_bytes: usize,
    reply_bytes: usize,
    #[serde(flatten)]
    traffic: TrafficRow,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PipelineRow {
    /// `glommio` or `ring`.
    build: &'static str,
    /// As `flushDiskType`.
    flush: &'static str,
    body_bytes: usize,
    request_bytes: usize,
    #[serde(flatten)]
    traffic: TrafficRow,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TrafficRow {
    /// Requests in flight.
    depth: usize,
    messages_per_second: f64,
    /// Of the round trip; at depth 1 only.
    p50: Option<u64>,
    p99: Option<u64>,
    server_core_share: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiskRow {
    block_bytes: usize,
    depth: usize,
    /// `none`, `fdatasync` or `dsync`.
    sync: &'static str,
    writes_per_second: f64,
    megabytes_per_second: f64,
    p50: u64,
    p99: u64,
}

/// Measures and prints.
///
/// # Errors
/// A sentence: cores or a directory that cannot be used, or a disk that failed.
pub fn run(asked: &Ceiling) -> Result<(), String> {
    let wants = |part| asked.only.is_none_or(|only| only == part);
    let mut report = Report {
        format: FORMAT,
        ..Report::default()
    };
    if wants(Part::Loopback) {
        report.loopback = loopback(asked)?;
    }
    if wants(Part::Disk) || wants(Part::Pipeline) {
        progress("zero-filling");
        let scratch = Scratch::make(&asked.data, SCRATCH_BYTES)?;
        if wants(Part::Disk) {
            report.disk = disk(asked, &scratch)?;
        }
        if wants(Part::Pipeline) {
            report.pipeline = pipeline(asked, &scratch)?;
        }
    }
    progress("");
    let text = if asked.json {
        let json = serde_json::to_string(&report);
        json.map_err(|error| format!("no JSON for the report: {error}"))? + "\n"
    } else {
        table(&report)
    };
    // A reader that has gone, as in `… | head`, is no failure of ours.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

/// Says what is being measured, in one line that is written over.
fn progress(what: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r{what:<60}\r");
    }
}

fn loopback(asked: &Ceiling) -> Result<Vec<LoopbackRow>, String> {
    let mut rows = Vec::new();
    for body_bytes in BODIES {
        let frame = request(asked.codec, body_bytes);
        for depth in [DEPTH_BYTES / frame.len(), 1] {
            progress(&format!("loopback, {body_bytes} B, depth {depth}"));
            let load = asked.load(&frame, depth);
            let traffic = ceiling::loopback(&load)?;
            rows.push(LoopbackRow {
                body_bytes,
                request_bytes: frame.len(),
                reply_bytes: load.reply.len(),
                traffic: TrafficRow::new(depth, traffic),
            });
        }
    }
    Ok(rows)
}

fn disk(asked: &Ceiling, scratch: &Scratch) -> Result<Vec<DiskRow>, String> {
    let mut rows = Vec::new();
    for sync in SYNCS {
        for depth in DISK_DEPTHS {
            for block_bytes in BLOCK_BYTES.map(|kib| kib * 1024) {
                let word = sync_word(sync);
                progress(&format!(
                    "disk, {block_bytes} B, depth {depth}, sync {word}"
                ));
                let point = DiskPoint {
                    block_bytes,
                    depth,
                    sync,
                    time: asked.time / DISK_TIME_PART,
                };
                let done = point.measure(scratch)?;
                let writes_per_second = done.writes as f64 / done.seconds;
                rows.push(DiskRow {
                    block_bytes,
                    depth,
                    sync: word,
                    writes_per_second,
                    megabytes_per_second: writes_per_second * block_bytes as f64 / 1e6,
                    p50: done.latency.p50,
                    p99: done.latency.p99,
                });
            }
        }
    }
    Ok(rows)
}

fn pipeline(asked: &Ceiling, scratch: &Scratch) -> Result<Vec<PipelineRow>, String> {
    let mut rows = Vec::new();
    for (build, build_word) in [(Build::Glommio, "glommio"), (Build::Ring, "ring")] {
        for (flush, flush_word) in [(Flush::Sync, "SYNC_FLUSH"), (Flush::Async, "ASYNC_FLUSH")] {
            for body_bytes in BODIES {
                let frame = request(asked.codec, body_bytes);
                for depth in [DEPTH_BYTES / frame.len(), 1] {
                    progress(&format!(
                        "pipeline on {build_word}, {flush_word}, {body_bytes} B, depth {depth}"
                    ));
                    let load = asked.load(&frame, depth);
                    let traffic = ceiling::pipeline(build, flush, &load, scratch)?;
                    rows.push(PipelineRow {
                        build: build_word,
                        flush: flush_word,
                        body_bytes,
                        request_bytes: frame.len(),
                        traffic: TrafficRow::new(depth, traffic),
                    });
                }
            }
        }
    }
    Ok(rows)
}

fn sync_word(sync: DiskSync) -> &'static str {
    match sync {
        DiskSync::None => "none",
        DiskSync::Fdatasync => "fdatasync",
        DiskSync::Dsync => "dsync",
    }
}

impl Ceiling {
    fn load(&self, frame: &[u8], depth: usize) -> Load {
        Load {
            frame: frame.to_vec(),
            reply: reply(self.codec),
            depth,
            time: self.time,
            server_core: self.cores.0,
            client_core: self.cores.1,
        }
    }
}

impl TrafficRow {
    fn new(depth: usize, traffic: Traffic) -> TrafficRow {
        TrafficRow {
            depth,
            messages_per_second: traffic.messages as f64 / traffic.seconds,
            p50: traffic.round_trip.map(|nanos| nanos.p50),
            p99: traffic.round_trip.map(|nanos| nanos.p99),
            server_core_share: traffic.server_core_share,
        }
    }
}

/// A send as a producer library frames it.
fn request(codec: Codec, body_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = FrameWriter::request(&mut out, codec, 1, request::SEND_MESSAGE_V2, false);
    let properties = "UNIQ_KEY\u{1}7F000001F35E1B6D3586123456780001\u{2}WAIT\u{1}true";
    let header = SendHeader {
        producer_group: Text::plain("orbitmq_bench"),
        topic: Text::plain("ceiling"),
        default_topic: Text::plain(AUTO_CREATE_TOPIC),
        default_topic_queue_nums: 8,
        queue_id: 3,
        sys_flag: 0,
        born_timestamp: 1_760_000_000_000,
        flag: 0,
        properties: Text::plain(properties),
        reconsume_times: 0,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    };
    header.encode_short(&mut writer);
    // Text that does not compress to nothing, should the disk try.
    let body: Vec<u8> = (0..body_bytes).map(|n| b'a' + (n * n % 26) as u8).collect();
    writer.finish_with_body(&body);
    out
}

/// The answer to a send that was stored.
fn reply(codec: Codec) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = FrameWriter::response(&mut out, codec, 1, response::SUCCESS, None);
    let answer = SendResponse {
        msg_id: Text::plain("7F00000100002A9F0000000012345678"),
        queue_id: 3,
        queue_offset: 123_456,
        transaction_id: None,
        batch_uniq_id: None,
        recall_handle: None,
        region: Some(Text::plain("DefaultRegion")),
        trace_on: true,
    };
    answer.encode(&mut writer);
    writer.finish(0);
    out
}

fn table(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string never fails.
    let _ = tables(report, &mut out);
    out
}

fn tables(report: &Report, out: &mut String) -> std::fmt::Result {
    if !report.loopback.is_empty() {
        writeln!(out, "Loopback TCP, no broker: frames and answers of a send")?;
        writeln!(out, "  {:>6}  {TRAFFIC_HEAD}", "body B")?;
        for row in &report.loopback {
            writeln!(out, "  {:>6}  {}", row.body_bytes, traffic(&row.traffic))?;
        }
    }
    if !report.disk.is_empty() {
        writeln!(
            out,
            "Disk, O_DIRECT on written blocks: writes/s, MB/s, p50 and p99 in microseconds"
        )?;
    }
    for rows in report
        .disk
        .chunk_by(|a, b| (a.sync, a.depth) == (b.sync, b.depth))
    {
        for (index, row) in rows.iter().enumerate() {
            let group = match index {
                0 => format!("sync {}, depth {}", row.sync, row.depth),
                _ => String::new(),
            };
            writeln!(
                out,
                "  {group:<24} {:>5} KiB {:>9.0} {:>8.1} {:>9.1} {:>9.1}",
                row.block_bytes / 1024,
                row.writes_per_second,
                row.megabytes_per_second,
                row.p50 as f64 / 1e3,
                row.p99 as f64 / 1e3,
            )?;
        }
    }
    if !report.pipeline.is_empty() {
        writeln!(
            out,
            "Bare pipeline: receive, copy, CRC, group commit, reply; one server core"
        )?;
        writeln!(
            out,
            "  {:<8} {:<12} {:>6}  {TRAFFIC_HEAD}",
            "build", "flush", "body B"
        )?;
        for row in &report.pipeline {
            let (build, flush, body) = (row.build, row.flush, row.body_bytes);
            let traffic = traffic(&row.traffic);
            writeln!(out, "  {build:<8} {flush:<12} {body:>6}  {traffic}")?;
        }
    }
    Ok(())
}

const TRAFFIC_HEAD: &str = "  depth       msg/s    p50 us    p99 us  server core";

fn traffic(row: &TrafficRow) -> String {
    let micros = |nanos: Option<u64>| match nanos {
        Some(nanos) => format!("{:.1}", nanos as f64 / 1e3),
        None => "-".to_owned(),
    };
    format!(
        "{:>7} {:>11.0} {:>9} {:>9} {:>11.0} %",
        row.depth,
        row.messages_per_second,
        micros(row.p50),
        micros(row.p99),
        row.server_core_share * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::command::Command;
    use crate::remoting::frame::split;

    #[test]
    fn frames_are_those_of_a_send() {
        for codec in [Codec::Json, Codec::Binary] {
            let frame = request(codec, 128);
            let command = Command::decode(split(&frame).unwrap()).unwrap();
            assert_eq!(command.body.len(), 128);
            assert_eq!(SendHeader::decode_short(&command.ext).unwrap().queue_id, 3);
            let frame = reply(codec);
            let command = Command::decode(split(&frame).unwrap()).unwrap();
            assert!(command.is_response() && SendResponse::decode(&command.ext).is_ok());
        }
    }

    fn sample() -> Report {
        let traffic = || TrafficRow {
            depth: 1,
            messages_per_second: 20_000.0,
            p50: Some(42_000),
            p99: None,
            server_core_share: 0.5,
        };
        Report {
            format: FORMAT,
            loopback: vec![LoopbackRow {
                body_bytes: 128,
                request_bytes: 451,
                reply_bytes: 216,
                traffic: traffic(),
            }],
            disk: vec![DiskRow {
                block_bytes: 4096,
                depth: 2,
                sync: "dsync",
                writes_per_second: 6000.0,
                megabytes_per_second: 24.6,
                p50: 150_000,
                p99: 400_000,
            }],
            pipeline: vec![PipelineRow {
                build: "ring",
                flush: "SYNC_FLUSH",
                body_bytes: 128,
                request_bytes: 451,
                traffic: traffic(),
            }],
        }
    }

    /// `bench/compare` reads these names.
    #[test]
    fn json_names_are_kept() {
        let traffic = r#""depth":1,"messagesPerSecond":20000.0,"p50":42000,"p99":null,"#;
        let expected = format!(
            concat!(
                r#"{{"format":1,"loopback":[{{"bodyBytes":128,"requestBytes":451,"#,
                r#""replyBytes":216,{0}"serverCoreShare":0.5}}],"disk":[{{"blockBytes":4096,"#,
                r#""depth":2,"sync":"dsync","writesPerSecond":6000.0,"megabytesPerSecond":24.6,"#,
                r#""p50":150000,"p99":400000}}],"pipeline":[{{"build":"ring","#,
                r#""flush":"SYNC_FLUSH","bodyBytes":128,"requestBytes":451,{0}"#,
                r#""serverCoreShare":0.5}}]}}"#
            ),
            traffic
        );
        assert_eq!(serde_json::to_string(&sample()).unwrap(), expected);
    }

    #[test]
    fn the_table_has_what_was_measured_only() {
        let whole = table(&sample());
        for words in [
            "Loopback",
            "sync dsync, depth 2",
            "ring     SYNC_FLUSH",
            "42.0",
        ] {
            assert!(whole.contains(words), "{words} is not in\n{whole}");
        }
        let part = Report {
            disk: Vec::new(),
            ..sample()
        };
        assert!(!table(&part).contains("Disk"));
    }
}
