//! Control state driven by whole frames, for tests: requests and answers as one line each.

use std::net::SocketAddr;

use crate::base::{ConnId, Mono, Now, ShardId};
use crate::broker::control::effects::{Answer, Effects};
use crate::broker::control::options::ControlOptions;
use crate::broker::control::{Control, Handled};
use crate::machine::Link;
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::{Codec, split};

pub struct Rig {
    pub control: Control,
    pub now: Now,
    pub effects: Effects,
    pub codec: Codec,
}

/// Connections of the tests differ by their slot.
pub fn conn(slot: u32) -> ConnId {
    ConnId {
        shard: ShardId(0),
        slot,
        generation: 1,
    }
}

fn link(slot: u32) -> Link {
    Link {
        conn: conn(slot),
        peer: SocketAddr::from(([127, 0, 0, 1], 1000 + slot as u16)),
        local: SocketAddr::from(([127, 0, 0, 1], 10911)),
    }
}

impl Rig {
    /// A broker that started with nothing but its own topics and groups.
    pub fn new(options: ControlOptions) -> Self {
        let now = Now {
            mono: Mono(0),
            wall_ms: 1_700_000_000_000,
        };
        let mut control = Control::new(options);
        control.start(now, &mut Effects::default());
        Rig {
            control,
            now,
            effects: Effects::default(),
            codec: Codec::Json,
        }
    }

    pub fn pass_ms(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after_ms(ms);
        self.now.wall_ms += ms as i64;
    }

    /// Sends a request without effects of earlier ones; `line` is `code key=value ... {body}`, `~`
    /// in a value stands for a blank. Gives `code remark key=value ... body`, each if it is there.
    pub fn ask(&mut self, slot: u32, line: &str) -> String {
        self.effects = Effects::default();
        assert_eq!(self.send(slot, line, false), Handled::Yes, "{line}");
        let answers: Vec<Answer> = self.effects.answers.drain(..).collect();
        let [answer] = &answers[..] else {
            panic!("{} answers to {line}", answers.len());
        };
        assert_eq!(answer.conn, conn(slot));
        assert_eq!(
            answer.version,
            self.control.version(),
            "nothing is seen early"
        );
        shown(&answer.frame)
    }

    pub fn send(&mut self, slot: u32, line: &str, oneway: bool) -> Handled {
        let (head, body) = line.split_at(line.find(" {").unwrap_or(line.len()));
        let mut words = head.split_whitespace();
        let code = words.next().unwrap().parse().unwrap();
        let mut frame = Vec::new();
        let mut writer = FrameWriter::request(&mut frame, self.codec, 7, code, oneway);
        for word in words {
            let (key, value) = word.split_once('=').unwrap();
            writer.field_str(key, &value.replace('~', " "));
        }
        writer.finish_with_body(body.trim_start().as_bytes());
        let command = Command::decode(split(&frame).unwrap()).unwrap();
        self.control
            .handle(self.now, &link(slot), &command, &mut self.effects)
    }

    /// As 215 with the groups that consume the topic.
    pub fn delete_topic(&mut self, topic: &str, consumed_by: &[&str]) {
        let mut frame = Vec::new();
        let mut writer = FrameWriter::request(&mut frame, self.codec, 7, 215, false);
        writer.field_str("topic", topic);
        writer.finish(0);
        let command = Command::decode(split(&frame).unwrap()).unwrap();
        let effects = &mut self.effects;
        self.control
            .delete_topic(self.now, &link(1), &command, consumed_by, effects);
    }

    /// Slots that were told of a change in a group since the last request, as `slot:group`.
    pub fn notices(&self) -> String {
        let notices = self.effects.notices.iter().map(|(conn, frame)| {
            let command = Command::decode(split(frame).unwrap()).unwrap();
            assert!(command.code == 40 && command.is_oneway());
            format!(
                "{}:{}",
                conn.slot,
                command.ext.find("consumerGroup").unwrap()
            )
        });
        notices.collect::<Vec<_>>().join(" ")
    }
}

fn shown(frame: &[u8]) -> String {
    let command = Command::decode(split(frame).unwrap()).unwrap();
    assert!(command.is_response() && command.opaque == 7);
    let mut words = vec![command.code.to_string()];
    words.extend(command.remark.map(|remark| remark.to_string()));
    words.extend(
        command
            .ext
            .iter()
            .map(|(key, value)| format!("{key}={value}")),
    );
    words.push(std::str::from_utf8(command.body).unwrap().to_owned());
    words.retain(|word| !word.is_empty());
    words.join(" ")
}
