//! A connection that sends one frame and waits for its answer.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::frame::{Codec, split};

/// Nobody serves it.
const UNSERVED: i32 = 9999;

/// What came back for one request.
#[derive(Clone, Debug)]
pub enum Outcome {
    Answer(Answer),
    /// The connection was closed instead.
    Closed,
    /// Nothing came in time.
    Silent,
}

/// One decoded answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: i32,
    pub version: i32,
    pub flag: i32,
    pub remark: Option<String>,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub struct Link {
    address: String,
    stream: TcpStream,
    opaque: i32,
}

impl Link {
    pub fn connect(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            address: address.to_owned(),
            stream,
            opaque: 0,
        })
    }

    pub fn wait_for(&self, patience: Duration) {
        let set = self.stream.set_read_timeout(Some(patience));
        set.expect("a time above zero");
    }

    /// The address under which the server sees this connection.
    pub fn local(&self) -> String {
        self.stream
            .local_addr()
            .map_or(String::new(), |local| local.to_string())
    }

    /// Asks, and opens the connection anew after anything but an answer.
    pub fn ask(
        &mut self,
        codec: Codec,
        code: i32,
        fields: &[(String, String)],
        body: &[u8],
    ) -> Outcome {
        let frame = self.frame(codec, code, fields, body, false);
        self.exchange(&frame, Some(self.opaque))
    }

    /// Sends a request that nobody answers.
    pub fn tell(&mut self, code: i32, fields: &[(String, String)], body: &[u8]) {
        let frame = self.frame(Codec::Json, code, fields, body, true);
        self.stream.write_all(&frame).expect("the server takes it");
    }

    fn frame(
        &mut self,
        codec: Codec,
        code: i32,
        fields: &[(String, String)],
        body: &[u8],
        oneway: bool,
    ) -> Vec<u8> {
        self.opaque += 1;
        let mut frame = Vec::new();
        let mut writer = FrameWriter::request(&mut frame, codec, self.opaque, code, oneway);
        for (key, value) in fields {
            writer.field_str(key, value);
        }
        writer.finish_with_body(body);
        frame
    }

    /// Sends bytes that may be no frame, on a connection that has seen one: the first bytes of a
    /// connection may be those of another protocol.
    pub fn exchange_raw(&mut self, frame: &[u8]) -> Outcome {
        let greeting = self.ask(Codec::Json, UNSERVED, &[], b"");
        assert!(matches!(greeting, Outcome::Answer(_)), "{greeting:?}");
        self.exchange(frame, None)
    }

    fn exchange(&mut self, frame: &[u8], opaque: Option<i32>) -> Outcome {
        let written = self.stream.write_all(frame);
        let outcome = match written.and_then(|()| self.answer(opaque)) {
            Ok(answer) => return Outcome::Answer(answer),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::Silent,
                _ => Outcome::Closed,
            },
        };
        *self = Self::connect(&self.address).expect("the server still accepts");
        outcome
    }

    /// The answer to the last request; requests of the server itself are passed over.
    fn answer(&mut self, opaque: Option<i32>) -> std::io::Result<Answer> {
        loop {
            let mut frame = vec![0; 4];
            self.stream.read_exact(&mut frame)?;
            let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
            frame.resize(4 + length as usize, 0);
            self.stream.read_exact(&mut frame[4..])?;
            let command = Command::decode(split(&frame).expect("a whole frame")).expect("a header");
            if !command.is_response() {
                continue;
            }
            let asked = opaque.is_none_or(|opaque| opaque == command.opaque);
            assert!(asked, "an answer to a one-way request");
            return Ok(Answer {
                code: command.code,
                version: command.version,
                flag: command.flag,
                remark: command.remark.map(|text| text.to_cow().into_owned()),
                fields: command
                    .ext
                    .iter()
                    .map(|(key, value)| (key.to_cow().into_owned(), value.to_cow().into_owned()))
                    .collect(),
                body: command.body.to_vec(),
            });
        }
    }
}
