//! A client of few words: frames out, frames in, nothing decided.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use orbitmq::message::view::RecordView;
use orbitmq::remoting::code::request as ask;
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::frame::{Codec, split};

use crate::server::PATIENCE;

/// The batch of bytes that a frame carries, decoded.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: i32,
    pub opaque: i32,
    pub remark: String,
    pub fields: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    pub fn number(&self, name: &str) -> i64 {
        let text = self.field(name);
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} in {self:?}"))
    }
}

/// A message as pulled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pulled {
    pub offset: u64,
    pub body: Vec<u8>,
}

pub struct Client {
    pub stream: TcpStream,
    pub codec: Codec,
    /// Of the last request.
    pub opaque: i32,
}

pub type Fields<'a> = &'a [(&'a str, &'a str)];

impl Client {
    pub fn connect(addr: SocketAddr) -> Client {
        Client::try_connect(addr).unwrap_or_else(|error| panic!("{addr}: {error}"))
    }

    pub fn try_connect(addr: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client {
            stream,
            codec: Codec::Json,
            opaque: 0,
        })
    }

    pub fn frame(&mut self, code: i32, fields: Fields<'_>, body: &[u8]) -> Vec<u8> {
        self.framed(code, fields, body, false)
    }

    /// Sends a request that wants no answer.
    pub fn tell(&mut self, code: i32, fields: Fields<'_>, body: &[u8]) {
        let frame = self.framed(code, fields, body, true);
        self.stream.write_all(&frame).unwrap();
    }

    fn framed(&mut self, code: i32, fields: Fields<'_>, body: &[u8], oneway: bool) -> Vec<u8> {
        self.opaque += 1;
        let mut out = Vec::new();
        let mut writer = FrameWriter::request(&mut out, self.codec, self.opaque, code, oneway);
        for (key, value) in fields {
            writer.field_str(key, value);
        }
        writer.finish_with_body(body);
        out
    }

    pub fn try_call(
        &mut self,
        code: i32,
        fields: Fields<'_>,
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let frame = self.frame(code, fields, body);
        self.stream.write_all(&frame)?;
        loop {
            let answer = self.read()?;
            // Requests of the broker itself are for clients with more to do.
            if let Some(answer) = answer.filter(|answer| answer.opaque == self.opaque) {
                return Ok(answer);
            }
        }
    }

    pub fn call(&mut self, code: i32, fields: Fields<'_>, body: &[u8]) -> Answer {
        let answer = self.try_call(code, fields, body);
        answer.unwrap_or_else(|error| panic!("request {code} {fields:?}: {error}"))
    }

    /// The next frame if it is an answer.
    pub fn read(&mut self) -> std::io::Result<Option<Answer>> {
        let mut frame = vec![0; 4];
        self.stream.read_exact(&mut frame)?;
        let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        frame.resize(4 + length as usize, 0);
        self.stream.read_exact(&mut frame[4..])?;
        let command = Command::decode(split(&frame).expect("a whole frame")).expect("a header");
        Ok(command.is_response().then(|| Answer {
            code: command.code,
            opaque: command.opaque,
            remark: command
                .remark
                .map_or(String::new(), |text| text.to_cow().into_owned()),
            fields: command
                .ext
                .iter()
                .map(|(key, value)| (key.to_cow().into_owned(), value.to_cow().into_owned()))
                .collect(),
            body: command.body.to_vec(),
        }))
    }

    /// Whether the other side has closed: waits for it.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    pub fn create_topic(&mut self, topic: &str, queues: u32) {
        let queues = queues.to_string();
        let answer = self.call(
            ask::UPDATE_AND_CREATE_TOPIC,
            &[
                ("topic", topic),
                ("defaultTopic", "TBW102"),
                ("readQueueNums", &queues),
                ("writeQueueNums", &queues),
                ("perm", "6"),
                ("topicFilterType", "SINGLE_TAG"),
            ],
            b"",
        );
        assert_eq!(answer.code, 0, "{answer:?}");
    }

    pub fn try_send(&mut self, topic: &str, queue: i32, body: &[u8]) -> std::io::Result<Answer> {
        self.try_send_with(topic, queue, body, "", false)
    }

    pub fn try_send_with(
        &mut self,
        topic: &str,
        queue: i32,
        body: &[u8],
        properties: &str,
        batch: bool,
    ) -> std::io::Result<Answer> {
        let queue = queue.to_string();
        let code = match batch {
            true => ask::SEND_BATCH_MESSAGE,
            false => ask::SEND_MESSAGE_V2,
        };
        self.try_call(
            code,
            &[
                ("a", "e2e-producers"),
                ("b", topic),
                ("c", "TBW102"),
                ("d", "4"),
                ("e", &queue),
                ("f", "0"),
                ("g", "1700000000000"),
                ("h", "0"),
                ("i", properties),
                ("j", "0"),
                ("k", "false"),
                ("m", if batch { "true" } else { "false" }),
            ],
            body,
        )
    }

    pub fn send(&mut self, topic: &str, queue: i32, body: &[u8]) -> Answer {
        self.try_send(topic, queue, body).expect("an answer")
    }

    /// Sends and gives the queue offset.
    pub fn sent(&mut self, topic: &str, queue: i32, body: &[u8]) -> i64 {
        let answer = self.send(topic, queue, body);
        assert_eq!(answer.code, 0, "{answer:?}");
        answer.number("queueOffset")
    }

    pub fn try_pull(
        &mut self,
        topic: &str,
        queue: i32,
        offset: u64,
        count: u32,
    ) -> std::io::Result<Answer> {
        let (queue, offset, count) = (queue.to_string(), offset.to_string(), count.to_string());
        self.try_call(
            ask::PULL_MESSAGE,
            &[
                ("consumerGroup", "e2e-consumers"),
                ("topic", topic),
                ("queueId", &queue),
                ("queueOffset", &offset),
                ("maxMsgNums", &count),
                ("sysFlag", "4"),
                ("commitOffset", "0"),
                ("suspendTimeoutMillis", "0"),
                ("subscription", "*"),
                ("subVersion", "0"),
                ("expressionType", "TAG"),
            ],
            b"",
        )
    }

    /// Messages from `offset` on, none if there is none.
    pub fn try_messages(
        &mut self,
        topic: &str,
        queue: i32,
        offset: u64,
    ) -> std::io::Result<Vec<Pulled>> {
        let answer = self.try_pull(topic, queue, offset, 256)?;
        Ok(match answer.code {
            0 => messages(&answer.body),
            19..=21 => Vec::new(),
            _ => panic!("pulling {topic}/{queue} at {offset}: {answer:?}"),
        })
    }

    pub fn messages(&mut self, topic: &str, queue: i32, offset: u64) -> Vec<Pulled> {
        self.try_messages(topic, queue, offset).expect("an answer")
    }

    /// The first `count` messages, in as many pulls as it takes, and no more there.
    pub fn all_messages(&mut self, topic: &str, queue: i32, count: u64) -> Vec<Pulled> {
        let mut all = Vec::new();
        while (all.len() as u64) < count {
            let some = self.messages(topic, queue, all.len() as u64);
            assert!(!some.is_empty(), "{topic}/{queue}: a hole at {}", all.len());
            all.extend(some);
        }
        assert_eq!(self.messages(topic, queue, count), []);
        all
    }

    pub fn queue_offset(&mut self, code: i32, topic: &str, queue: i32) -> u64 {
        let queue = queue.to_string();
        let answer = self.call(code, &[("topic", topic), ("queueId", &queue)], b"");
        assert_eq!(answer.code, 0, "{answer:?}");
        answer.number("offset") as u64
    }

    pub fn try_commit(&mut self, topic: &str, queue: i32, offset: u64) -> std::io::Result<Answer> {
        let (queue, offset) = (queue.to_string(), offset.to_string());
        self.try_call(
            ask::UPDATE_CONSUMER_OFFSET,
            &[
                ("consumerGroup", "e2e-consumers"),
                ("topic", topic),
                ("queueId", &queue),
                ("commitOffset", &offset),
            ],
            b"",
        )
    }

    /// What the group has committed; `None` if nothing.
    pub fn committed(&mut self, topic: &str, queue: i32) -> Option<u64> {
        let queue = queue.to_string();
        let answer = self.call(
            ask::QUERY_CONSUMER_OFFSET,
            &[
                ("consumerGroup", "e2e-consumers"),
                ("topic", topic),
                ("queueId", &queue),
                ("setZeroIfNotFound", "false"),
            ],
            b"",
        );
        match answer.code {
            0 => Some(answer.number("offset") as u64),
            22 => None,
            _ => panic!("{answer:?}"),
        }
    }
}

/// The messages of a pull body, checked.
pub fn messages(body: &[u8]) -> Vec<Pulled> {
    let records = RecordView::iter(body);
    let pulled = records.map(|record| {
        let record = record.expect("a whole record");
        assert!(record.has_valid_body_crc(), "a body is not what was stored");
        Pulled {
            offset: record.queue_offset() as u64,
            body: record.body().to_vec(),
        }
    });
    pulled.collect()
}
