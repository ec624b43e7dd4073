//! The load: the same frame over and over, answers counted by their length words.
//!
//! Pipelined, one thread sends as far as socket and depth allow and takes what answers there are;
//! it waits only when it can do neither, so it never locks up with a server that waits for room.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::inbox::Inbox;
use super::{Load, Percentiles, Traffic, wait_ready};

/// One send offers up to about so many bytes.
const BURST_BYTES: usize = 256 * 1024;
const INBOX_BYTES: usize = 256 * 1024;
/// Requests are held back until so many can go at once, as a part of the depth.
const STEP_OF_DEPTH: usize = 4;
const WARMUP_OF_TIME: u32 = 5;

pub fn run(stream: TcpStream, load: &Load) -> Result<Traffic, String> {
    if load.depth <= 1 {
        one_by_one(stream, load)
    } else {
        Pipelined::new(stream, load)?.run(load.time)
    }
}

fn broken(error: std::io::Error) -> String {
    format!("the connection broke: {error}")
}

fn one_by_one(mut stream: TcpStream, load: &Load) -> Result<Traffic, String> {
    let (mut inbox, mut nanos) = (Inbox::new(INBOX_BYTES), Vec::new());
    let begun = Instant::now();
    let (from, mut sent) = (load.time / WARMUP_OF_TIME, Instant::now());
    loop {
        stream.write_all(&load.frame).map_err(broken)?;
        while inbox.count()? == 0 {
            match stream.read(inbox.room()).map_err(broken)? {
                0 => return Err("the server hung up".to_owned()),
                count => inbox.received(count),
            }
        }
        let answered = Instant::now();
        if answered - begun > from {
            nanos.push((answered - sent).as_nanos() as u64);
        }
        if answered - begun > from + load.time {
            break;
        }
        sent = answered;
    }
    Ok(Traffic {
        messages: nanos.len() as u64,
        seconds: (begun.elapsed() - from).as_secs_f64(),
        round_trip: Percentiles::of(&mut nanos),
        server_core_share: 0.0,
    })
}

struct Pipelined {
    stream: TcpStream,
    inbox: Inbox,
    /// Whole frames, sent round and round.
    burst: Vec<u8>,
    frame_bytes: u64,
    depth: u64,
    /// Nothing is sent unless so many bytes may be.
    step_bytes: u64,
    sent_bytes: u64,
    answered: u64,
}

impl Pipelined {
    fn new(stream: TcpStream, load: &Load) -> Result<Pipelined, String> {
        stream.set_nonblocking(true).map_err(broken)?;
        let copies = (BURST_BYTES / load.frame.len()).clamp(1, load.depth);
        let frame_bytes = load.frame.len() as u64;
        Ok(Pipelined {
            stream,
            inbox: Inbox::new(INBOX_BYTES),
            burst: load.frame.repeat(copies),
            frame_bytes,
            depth: load.depth as u64,
            step_bytes: frame_bytes * (load.depth / STEP_OF_DEPTH).max(1) as u64,
            sent_bytes: 0,
            answered: 0,
        })
    }

    fn run(mut self, time: Duration) -> Result<Traffic, String> {
        let begun = Instant::now();
        let warmup = time / WARMUP_OF_TIME;
        let (mut measured_from, mut answered_before) = (None, 0);
        loop {
            let sent = self.send()?;
            let answers = self.receive()?;
            let now = Instant::now();
            match measured_from {
                None if now - begun > warmup => {
                    measured_from = Some(now);
                    answered_before = self.answered;
                }
                Some(from) if now - from > time => {
                    return Ok(Traffic {
                        messages: self.answered - answered_before,
                        seconds: (now - from).as_secs_f64(),
                        round_trip: None,
                        server_core_share: 0.0,
                    });
                }
                _ => {}
            }
            if !sent && !answers {
                wait_ready(&self.stream, self.allowed() >= self.step_bytes)?;
            }
        }
    }

    /// Bytes that the depth still allows.
    fn allowed(&self) -> u64 {
        (self.answered + self.depth) * self.frame_bytes - self.sent_bytes
    }

    /// False if nothing could be sent.
    fn send(&mut self) -> Result<bool, String> {
        let allowed = self.allowed();
        if allowed < self.step_bytes {
            return Ok(false);
        }
        let at = (self.sent_bytes % self.burst.len() as u64) as usize;
        let rest = &self.burst[at..];
        let part = &rest[..rest.len().min(allowed as usize)];
        match self.stream.write(part) {
            Ok(count) => {
                self.sent_bytes += count as u64;
                Ok(true)
            }
            Err(error) if waits(&error) => Ok(false),
            Err(error) => Err(broken(error)),
        }
    }

    /// False if nothing has come.
    fn receive(&mut self) -> Result<bool, String> {
        match self.stream.read(self.inbox.room()) {
            Ok(0) => return Err("the server hung up".to_owned()),
            Ok(count) => self.inbox.received(count),
            Err(error) if waits(&error) => return Ok(false),
            Err(error) => return Err(broken(error)),
        }
        self.answered += self.inbox.count()?;
        if self.answered * self.frame_bytes > self.sent_bytes {
            return Err("there were more answers than requests".to_owned());
        }
        Ok(true)
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
