//! Loads against a broker of a few lines, which answers as it is told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::message::encode::{Draft, Placed, encode};
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::{frame_len, split};
use crate::remoting::header::pull::{PullHeader, PullResponse};

/// How the broker answers.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Serving,
    /// Every third send is refused.
    Busy,
    /// Every second pulled message is left out.
    Holes,
    Hangup,
    NoTopic,
    NoGroup,
}

struct Fake {
    addr: String,
    mood: Mood,
}

impl Fake {
    /// A name server and broker on a free port; its threads live as long as its connections.
    fn start(mood: Mood) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let shown = addr.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let fake = Fake {
                    addr: addr.clone(),
                    mood,
                };
                std::thread::spawn(move || fake.serve(stream.unwrap()));
            }
        });
        shown
    }

    fn serve(self, mut stream: TcpStream) {
        let (mut bytes, mut chunk, mut sends) = (Vec::new(), vec![0; 1 << 16], 0);
        loop {
            match stream.read(&mut chunk) {
                Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
                _ => return,
            }
            let (mut at, mut out) = (0, Vec::new());
            while let Ok(Some(len)) = frame_len(&bytes[at..]) {
                let Some(whole) = bytes.get(at..at + len) else {
                    break;
                };
                let command = Command::decode(split(whole).unwrap()).unwrap();
                if self.mood == Mood::Hangup && command.code != request::GET_ROUTEINFO_BY_TOPIC {
                    return;
                }
                self.answer(&command, &mut out, &mut sends);
                at += len;
            }
            bytes.drain(..at);
            if stream.write_all(&out).is_err() {
                return;
            }
        }
    }

    fn answer(&self, command: &Command<'_>, out: &mut Vec<u8>, sends: &mut u64) {
        let code = match command.code {
            request::GET_ROUTEINFO_BY_TOPIC if self.mood == Mood::NoTopic => {
                response::TOPIC_NOT_EXIST
            }
            request::GET_ROUTEINFO_BY_TOPIC => return self.route(command, out),
            request::PULL_MESSAGE if self.mood == Mood::NoGroup => {
                response::SUBSCRIPTION_GROUP_NOT_EXIST
            }
            request::PULL_MESSAGE => return self.pull(command, out),
            request::HEART_BEAT => {
                // As brokers do when a group changes: a request of their own comes first.
                let code = request::NOTIFY_CONSUMER_IDS_CHANGED;
                FrameWriter::request(out, command.codec, 7, code, true).finish(0);
                response::SUCCESS
            }
            _ => {
                *sends += 1;
                let busy = self.mood == Mood::Busy && sends.is_multiple_of(3);
                if busy {
                    response::SYSTEM_BUSY
                } else {
                    response::SUCCESS
                }
            }
        };
        let remark = (code != response::SUCCESS).then_some("not now");
        FrameWriter::response(out, command.codec, command.opaque, code, remark).finish(0);
    }

    fn route(&self, command: &Command<'_>, out: &mut Vec<u8>) {
        let body = format!(
            r#"{{"brokerDatas":[{{"brokerAddrs":{{"0":"{}"}},"brokerName":"a"}}],"queueDatas":
            [{{"brokerName":"a","perm":6,"readQueueNums":2,"writeQueueNums":2}}]}}"#,
            self.addr
        );
        FrameWriter::response(out, command.codec, command.opaque, 0, None)
            .finish_with_body(body.as_bytes());
    }

    fn pull(&self, command: &Command<'_>, out: &mut Vec<u8>) {
        let header = PullHeader::decode(&command.ext).unwrap();
        let step = if self.mood == Mood::Holes { 2 } else { 1 };
        let (mut records, next) = (Vec::new(), header.queue_offset + 4 * step);
        for n in 0..4 {
            let host = "127.0.0.1:1".parse().unwrap();
            let draft = Draft {
                topic: "T",
                queue_id: header.queue_id,
                flag: 0,
                sys_flag: 0,
                born_timestamp: 0,
                born_host: host,
                store_host: host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: b"0123456789",
                properties: b"",
            };
            let queue_offset = header.queue_offset + n * step;
            let placed = Placed {
                queue_offset,
                physical_offset: 0,
                store_timestamp: 0,
            };
            encode(&draft, placed, &mut records);
        }
        let mut writer =
            FrameWriter::response(out, command.codec, command.opaque, response::SUCCESS, None);
        let answer = PullResponse {
            suggest_which_broker_id: 0,
            next_begin_offset: next,
            min_offset: 0,
            max_offset: i64::MAX,
            offset_delta: None,
            topic_sys_flag: None,
            group_sys_flag: None,
            forbidden_type: None,
        };
        answer.encode(&mut writer);
        writer.finish_with_body(&records);
    }
}

fn target(addr: &str, stop: Stop) -> Target {
    Target {
        name_servers: vec![addr.to_owned()],
        topic: "T".to_owned(),
        connections: 2,
        in_flight: 3,
        stop,
        warmup_seconds: 0,
        codec: Codec::Json,
        core: None,
        json: true,
    }
}

fn send(addr: &str) -> SendLoad {
    let target = target(addr, Stop::Messages(100));
    SendLoad {
        target,
        body_bytes: 10,
        batch: 1,
        queues: 2,
        rate: None,
    }
}

fn pull(addr: &str) -> PullLoad {
    PullLoad {
        target: target(addr, Stop::Messages(100)),
        group: "g".to_owned(),
        batch: 4,
    }
}

fn check(load: Load, expected: &str) {
    let outcome = run(&load).err().unwrap_or_else(|| "fine".to_owned());
    assert!(outcome.contains(expected), "{load:?} gave {outcome}");
}

#[test]
fn loads_end_as_told() {
    let addr = Fake::start(Mood::Serving);
    check(Load::Send(send(&addr)), "fine");
    let rate = Some(10_000);
    check(
        Load::Send(SendLoad {
            rate,
            batch: 5,
            ..send(&addr)
        }),
        "fine",
    );
    let binary = Target {
        codec: Codec::Binary,
        json: false,
        ..target(&addr, Stop::Seconds(1))
    };
    check(
        Load::Send(SendLoad {
            target: binary,
            ..send(&addr)
        }),
        "fine",
    );
    check(Load::Pull(pull(&addr)), "fine");
}

#[test]
fn failures_are_sentences() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    check(Load::Send(send(&closed)), "name server: 127.0.0.1:");
    check(Load::Send(send(&closed)), "cannot be reached");
    check(Load::Send(send("nonsense")), "is no address");
    let addr = Fake::start(Mood::NoTopic);
    check(Load::Send(send(&addr)), "no broker creates topics");
    check(Load::Pull(pull(&addr)), "no route for topic T");
    let addr = Fake::start(Mood::Busy);
    check(
        Load::Send(send(&addr)),
        "requests were refused, first with SYSTEM_BUSY 2: not now",
    );
    check(
        Load::Pull(pull(&Fake::start(Mood::Holes))),
        "did not follow its predecessor",
    );
    check(
        Load::Send(send(&Fake::start(Mood::Hangup))),
        "closed the connection",
    );
    let core = Some(100_000);
    let target = Target {
        core,
        ..target(&addr, Stop::Messages(1))
    };
    check(
        Load::Send(SendLoad {
            target,
            ..send(&addr)
        }),
        "core 100000 cannot be used",
    );
}

#[test]
fn parts_make_the_whole() {
    let parts = (0..7).map(|index| {
        Place {
            index,
            workers: 7,
            peer: 0,
        }
        .part(100)
    });
    let counts = parts.fold(BTreeMap::<u64, u32>::new(), |mut counts, part| {
        *counts.entry(part).or_default() += 1;
        counts
    });
    assert_eq!(counts, BTreeMap::from([(14, 5), (15, 2)]));
}
