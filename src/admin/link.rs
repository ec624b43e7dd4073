//! Requests to name servers and brokers, one at a time, over blocking sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::broker::control::names::{DLQ_PREFIX, RETRY_PREFIX};
use crate::client::route::{self, BrokerRoute};
use crate::remoting::body::cluster::ClusterInfo;
use crate::remoting::body::json;
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::{Codec, frame_len, split};
use crate::shard::clock::Clock;

/// With what names of light queues begin (`MixAll.LMQ_PREFIX`).
const LIGHT_PREFIX: &str = "%LMQ%";

/// Why something could not be answered.
#[derive(Debug)]
pub enum Trouble {
    /// No name server, or not this broker, can be reached.
    Unreachable { addr: String, why: String },
    Refused {
        addr: String,
        code: i32,
        remark: String,
    },
    /// The answer is not what it should be.
    Strange { addr: String, why: String },
    /// What was asked for is not there.
    Absent(String),
    /// What was asked for makes no sense.
    Wrong(String),
}

impl Trouble {
    pub fn is_absent(&self) -> bool {
        matches!(self, Trouble::Absent(_))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unreachable { addr, why } => {
                write!(
                    f,
                    "{addr} cannot be reached: {why}. Is it running there? See --namesrv"
                )
            }
            Trouble::Refused { addr, code, remark } => {
                write!(f, "{addr} refused with code {code}: {remark}")
            }
            Trouble::Strange { addr, why } => write!(f, "{addr} answered what is no answer: {why}"),
            Trouble::Absent(what) | Trouble::Wrong(what) => write!(f, "{what}"),
        }
    }
}

/// An answer that says success, or what else is good.
pub struct Answer {
    pub addr: String,
    pub code: i32,
    fields: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Trouble> {
        json::from_slice(&self.body).map_err(|error| Trouble::Strange {
            addr: self.addr.clone(),
            why: error.to_string(),
        })
    }

    pub fn number(&self, name: &str) -> Result<i64, Trouble> {
        let text = self.field(name);
        text.parse().map_err(|_| Trouble::Strange {
            addr: self.addr.clone(),
            why: format!("{name} is {text:?}, no number"),
        })
    }

    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// A master of the cluster.
#[derive(Clone)]
pub struct Broker {
    pub cluster: String,
    pub name: String,
    pub addr: String,
}

pub struct Link {
    name_servers: Vec<String>,
    timeout: Duration,
    open: BTreeMap<String, TcpStream>,
    opaque: i32,
    clock: Clock,
}

impl Link {
    pub fn new(name_servers: &str, timeout: Duration) -> Link {
        let list = name_servers.split([';', ',']).map(str::trim);
        Link {
            name_servers: list
                .filter(|addr| !addr.is_empty())
                .map(str::to_owned)
                .collect(),
            timeout,
            open: BTreeMap::new(),
            opaque: 0,
            clock: Clock::start(),
        }
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.now().wall_ms
    }

    /// Asks; anything but success is [`Trouble::Refused`].
    pub fn ask(
        &mut self,
        addr: &str,
        code: i32,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Trouble> {
        self.ask_until(addr, code, fields, body, |code| code == response::SUCCESS)
    }

    /// Asks, where other codes than success are good too.
    pub fn ask_until(
        &mut self,
        addr: &str,
        code: i32,
        fields: &[(&str, &str)],
        body: &[u8],
        is_good: impl Fn(i32) -> bool,
    ) -> Result<Answer, Trouble> {
        self.opaque += 1;
        let frame = framed(self.opaque, code, fields, body);
        let bytes = self
            .exchange(addr, &frame)
            .map_err(|error| Trouble::Unreachable {
                addr: addr.to_owned(),
                why: match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        format!("no answer within {} ms", self.timeout.as_millis())
                    }
                    _ => error.to_string(),
                },
            })?;
        answered(addr, &bytes, is_good)
    }

    /// Sends a frame and reads the answer to it.
    fn exchange(&mut self, addr: &str, frame: &[u8]) -> std::io::Result<Vec<u8>> {
        let end_ns = self.clock.nanos() + self.timeout.as_nanos() as u64;
        if !self.open.contains_key(addr) {
            let stream = connect(addr, self.timeout)?;
            stream.set_nodelay(true)?;
            self.open.insert(addr.to_owned(), stream);
        }
        let stream = self.open.get_mut(addr).expect("just opened");
        stream.write_all(frame)?;
        let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
        loop {
            let len = frame_len(&bytes).map_err(std::io::Error::other)?;
            if let Some(len) = len.filter(|len| *len <= bytes.len()) {
                let rest = bytes.split_off(len);
                // The broker may ask its clients things; that is not for us.
                let is_answer = split(&bytes)
                    .ok()
                    .and_then(|frame| Command::decode(frame).ok())
                    .is_none_or(|command| command.is_response());
                if is_answer {
                    return Ok(bytes);
                }
                bytes = rest;
                continue;
            }
            let left_ns = end_ns.saturating_sub(self.clock.nanos());
            if left_ns == 0 {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(Duration::from_nanos(left_ns)))?;
            match stream.read(&mut chunk)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => bytes.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Asks the first name server that can be reached.
    pub fn ask_names(&mut self, code: i32, fields: &[(&str, &str)]) -> Result<Answer, Trouble> {
        let mut last = Trouble::Wrong("--namesrv names no name server".to_owned());
        for addr in self.name_servers.clone() {
            match self.ask(&addr, code, fields, b"") {
                Err(trouble @ Trouble::Unreachable { .. }) => last = trouble,
                other => return other,
            }
        }
        Err(last)
    }

    /// Every master.
    pub fn brokers(&mut self) -> Result<Vec<Broker>, Trouble> {
        let info: ClusterInfo = self
            .ask_names(request::GET_BROKER_CLUSTER_INFO, &[])?
            .read()?;
        let masters = info.broker_addr_table.into_values().filter_map(|mut data| {
            Some(Broker {
                addr: data.broker_addrs.remove(&0)?,
                cluster: data.cluster,
                name: data.broker_name,
            })
        });
        let masters: Vec<Broker> = masters.collect();
        match masters.is_empty() {
            true => Err(Trouble::Absent("no broker is registered".to_owned())),
            false => Ok(masters),
        }
    }

    /// The masters that have a topic. No name server knows light queues: each broker has its own.
    pub fn route(&mut self, topic: &str) -> Result<Vec<BrokerRoute>, Trouble> {
        if topic.starts_with(LIGHT_PREFIX) {
            let brokers = self.brokers()?.into_iter().map(|broker| BrokerRoute {
                name: broker.name,
                addr: broker.addr,
                readable: 1,
                writable: 0,
            });
            return Ok(brokers.collect());
        }
        let fields = [("topic", topic), ("acceptStandardJsonOnly", "true")];
        let absent = || Trouble::Absent(no_topic(topic));
        let answer = match self.ask_names(request::GET_ROUTEINFO_BY_TOPIC, &fields) {
            Err(Trouble::Refused { code, .. }) if code == response::TOPIC_NOT_EXIST => {
                return Err(absent());
            }
            other => other?,
        };
        let brokers = route::masters(answer.read()?);
        match brokers.is_empty() {
            true => Err(absent()),
            false => Ok(brokers),
        }
    }
}

/// A request as bytes.
pub fn framed<V: AsRef<str>>(opaque: i32, code: i32, fields: &[(&str, V)], body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut w = FrameWriter::request(&mut frame, Codec::Json, opaque, code, false);
    for (key, value) in fields {
        w.field_str(key, value.as_ref());
    }
    w.finish_with_body(body);
    frame
}

/// What the bytes of an answer say.
pub fn answered(
    addr: &str,
    bytes: &[u8],
    is_good: impl Fn(i32) -> bool,
) -> Result<Answer, Trouble> {
    let strange = |why: String| Trouble::Strange {
        addr: addr.to_owned(),
        why,
    };
    let command = split(bytes).map_err(|error| strange(error.to_string()))?;
    let command = Command::decode(command).map_err(|error| strange(error.to_string()))?;
    if !is_good(command.code) {
        let remark = command.remark.map(|text| text.to_string());
        return Err(Trouble::Refused {
            addr: addr.to_owned(),
            code: command.code,
            remark: remark.unwrap_or_default(),
        });
    }
    let fields = command.ext.iter();
    Ok(Answer {
        addr: addr.to_owned(),
        code: command.code,
        fields: fields
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        body: command.body.to_vec(),
    })
}

/// What to do about a topic that is not there depends on who makes it.
fn no_topic(topic: &str) -> String {
    let what = format!("no broker has the topic {topic}");
    if topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX) {
        return format!("{what}: the broker makes it with the first message that needs it");
    }
    format!(
        "{what}: make it with `orbitmq admin create-topic {topic}`, or see \
         `orbitmq admin topics` for how it is spelled"
    )
}

pub fn connect(addr: &str, timeout: Duration) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for addr in addr.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
