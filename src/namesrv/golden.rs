//! Scripts recorded from the reference name server (`tests/golden/namesrv`, which says how):
//! the same requests must give the same answers here.
//!
//! Set apart: the order of the reference's hash maps; which broker 304 names; the remark "not set
//! any response code" that the reference leaves in the successful answer to 901; the name of an
//! unsupported request.

use std::collections::BTreeMap;

use super::NameServerOptions;
use super::tests::{Ask, Bench, Reply};

/// Sorts lists and members at all depths. With `strict`, members must be in order already, which
/// ours are, maps included; so members of the reference's objects are where ours are.
struct Canonical<'a> {
    rest: &'a str,
    strict: bool,
}

impl<'a> Canonical<'a> {
    fn of(text: &'a str, strict: bool) -> String {
        let mut reader = Canonical { rest: text, strict };
        let value = reader.value();
        assert_eq!(reader.rest, "", "{text}");
        value
    }

    fn take(&mut self, sign: char) -> bool {
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self) -> String {
        if self.take('{') {
            let mut members = Vec::new();
            while !self.take('}') {
                let key = self.scalar();
                assert!(self.take(':'), "{}", self.rest);
                members.push((key, self.value()));
                self.take(',');
            }
            let number = |key: &str| key.trim_matches('"').parse::<i64>().unwrap_or(0);
            let order = |key: &(String, String)| (number(&key.0), key.0.clone());
            assert!(
                !self.strict || members.is_sorted_by_key(order),
                "{members:?}"
            );
            members.sort();
            let members = members.iter().map(|(key, value)| format!("{key}:{value}"));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        } else if self.take('[') {
            let mut items = Vec::new();
            while !self.take(']') {
                items.push(self.value());
                self.take(',');
            }
            items.sort();
            format!("[{}]", items.join(","))
        } else {
            self.scalar()
        }
    }

    fn scalar(&mut self) -> String {
        let text = self.rest;
        let end = if self.take('"') {
            let mut escaped = false;
            let closes = |(_, sign): &(usize, char)| {
                let closing = *sign == '"' && !escaped;
                escaped = *sign == '\\' && !escaped;
                closing
            };
            2 + self
                .rest
                .char_indices()
                .find(closes)
                .expect("a closing quote")
                .0
        } else {
            text.find([',', ':', '}', ']']).unwrap_or(text.len())
        };
        self.rest = &text[end..];
        text[..end].to_owned()
    }
}

fn set_option(options: &mut NameServerOptions, text: &str) {
    let (key, value) = text.split_once('=').unwrap();
    let switch = match key {
        "supportActingMaster" => &mut options.acting_master,
        "orderMessageEnable" => &mut options.order_message,
        "returnOrderTopicConfigToBroker" => &mut options.return_order_topics,
        "enableAllTopicList" => &mut options.all_topic_list,
        "enableTopicList" => &mut options.topic_list,
        "deleteTopicWithBrokerRegistration" => &mut options.delete_topics_on_registration,
        other => panic!("no such option: {other}"),
    };
    *switch = value == "true";
}

fn request(bench: &mut Bench, rest: &str, body: &str) -> (i32, Option<Reply>) {
    let mut words = rest.splitn(5, ' ');
    let conn = words.next().unwrap();
    let mut number = || words.next().unwrap().parse::<i32>().unwrap();
    let (code, version, flag) = (number(), number(), number());
    let fields: BTreeMap<String, String> = serde_json::from_str(words.next().unwrap()).unwrap();
    let ask = Ask {
        code,
        version,
        flag,
        fields: fields.iter().map(|(k, v)| (&**k, &**v)).collect(),
        body: body.as_bytes(),
    };
    (code, bench.call(conn, &ask))
}

fn check_head(code: i32, reply: &Reply, rest: &str, at: &str) {
    let (answered, rest) = rest.split_once(' ').unwrap();
    let mut values = serde_json::Deserializer::from_str(rest).into_iter();
    let fields: serde_json::Value = values.next().unwrap().unwrap();
    let remark: Option<serde_json::Value> = values.next().map(Result::unwrap);
    assert_eq!(reply.code.to_string(), answered, "{at}");
    assert_eq!(serde_json::to_value(&reply.fields).unwrap(), fields, "{at}");
    let remark = remark.as_ref().and_then(|remark| remark.as_str());
    match (code, reply.code) {
        (901, 0) => assert_eq!(
            (remark, reply.remark.as_deref()),
            (Some("not set any response code"), None)
        ),
        (_, 3) => {
            let ours = reply.remark.as_deref().unwrap();
            assert!(ours.starts_with(remark.unwrap()), "{at}");
        }
        _ => assert_eq!(reply.remark.as_deref(), remark, "{at}"),
    }
}

fn check_body(code: i32, reply: &Reply, recorded: &str, at: &str) {
    assert_eq!(reply.body.len(), recorded.len(), "{at}\n{}", reply.body);
    let mut ours = Canonical::of(&reply.body, true);
    let mut theirs = Canonical::of(recorded, false);
    if code == 304 {
        for text in [&mut ours, &mut theirs] {
            *text = text.split_once("\"topicList\"").unwrap().1.to_owned();
        }
    }
    assert_eq!(ours, theirs, "{at}");
}

fn check(script: &str) {
    let mut bench = Bench::new(NameServerOptions::default());
    let mut lines = script.lines().peekable();
    let mut answers = 0;
    while let Some(at) = lines.next() {
        let (word, rest) = at.split_once(' ').unwrap();
        match word {
            "#" => {}
            "option" => set_option(&mut bench.server.options, rest),
            "close" => bench.close(rest),
            "wait" => bench.wait(rest.parse().unwrap()),
            ">" => {
                let body = lines.next_if(|line| line.starts_with(">> "));
                let (code, reply) = request(&mut bench, rest, body.map_or("", |line| &line[3..]));
                let reply = reply.unwrap_or_else(|| panic!("no answer: {at}"));
                let head = lines.next().unwrap();
                check_head(code, &reply, head.strip_prefix("< ").unwrap(), at);
                let body = lines.next_if(|line| line.starts_with("<< "));
                match body {
                    Some(body) => check_body(code, &reply, &body[3..], at),
                    None => assert_eq!(reply.body, "", "{at}"),
                }
                answers += 1;
            }
            _ => panic!("no such line: {at}"),
        }
    }
    assert!(answers > 0, "an empty script proves nothing");
}

#[test]
fn one_broker() {
    check(include_str!("../../tests/golden/namesrv/basics.txt"));
}

#[test]
fn several_brokers_and_clusters() {
    check(include_str!("../../tests/golden/namesrv/clusters.txt"));
}

#[test]
fn a_slave_stands_in() {
    check(include_str!("../../tests/golden/namesrv/acting_master.txt"));
}

#[test]
fn key_values() {
    check(include_str!("../../tests/golden/namesrv/kv.txt"));
}

#[test]
fn order_topics() {
    check(include_str!("../../tests/golden/namesrv/order.txt"));
}

#[test]
fn expiry_and_switches() {
    check(include_str!("../../tests/golden/namesrv/expiry.txt"));
}
