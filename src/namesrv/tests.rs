//! A name server driven by encoded frames, and what its clients can observe.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;

use super::*;
use crate::base::disk::{DirEntry, Mapped};
use crate::base::{ConnId, ShardId};
use crate::machine::{FrameIn, Link, Part};
use crate::remoting::code::request;
use crate::remoting::command::{Command, FLAG_ONEWAY, FrameWriter};
use crate::remoting::frame::{self, Codec};

/// Files in memory; fails all writes on demand.
#[derive(Default)]
pub struct Files {
    files: RefCell<BTreeMap<String, Vec<u8>>>,
    pub broken: Cell<bool>,
}

impl Files {
    pub fn with(file: &str, text: &str) -> Self {
        let files = Files::default();
        files.write_at(file, 0, text.as_bytes()).unwrap();
        files
    }

    pub fn text(&self, file: &str) -> String {
        let files = self.files.borrow();
        let bytes = files.get(file).map(Vec::as_slice).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl Dir for Files {
    fn space(&self) -> Result<crate::base::disk::Space, DiskError> {
        unreachable!("a name server does not ask for it")
    }

    fn map(&self, _: &str, _: u64) -> Result<Mapped, DiskError> {
        unreachable!("a name server maps nothing")
    }

    fn list(&self, _: &str) -> Result<Vec<DirEntry>, DiskError> {
        let files = self.files.borrow();
        let entry = |(name, bytes): (&String, &Vec<u8>)| DirEntry {
            name: name.clone(),
            bytes: bytes.len() as u64,
        };
        Ok(files.iter().map(entry).collect())
    }
    fn read_at(&self, file: &str, at: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        let files = self.files.borrow();
        let rest = &files[file][at as usize..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn write_at(&self, file: &str, at: u64, data: &[u8]) -> Result<(), DiskError> {
        if self.broken.get() {
            return Err(DiskError {
                file: file.to_owned(),
                doing: "write",
                reason: "no space left".to_owned(),
                full: true,
            });
        }
        let mut files = self.files.borrow_mut();
        let bytes = files.entry(file.to_owned()).or_default();
        bytes.truncate(at as usize);
        bytes.extend_from_slice(data);
        Ok(())
    }
    fn allocate(&self, _: &str, _: u64) -> Result<(), DiskError> {
        Ok(())
    }
    fn zero_fill(&self, _: &str, _: u64, _: u64) -> Result<(), DiskError> {
        Ok(())
    }
    fn sync(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut files = self.files.borrow_mut();
        let bytes = files.remove(from).unwrap();
        files.insert(to.to_owned(), bytes);
        Ok(())
    }
    fn remove(&self, file: &str) -> Result<(), DiskError> {
        self.files.borrow_mut().remove(file);
        Ok(())
    }
}

/// What a client makes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: i32,
    pub remark: Option<String>,
    pub fields: BTreeMap<String, String>,
    pub body: String,
}

/// One request, as a test writes it.
#[derive(Clone)]
pub struct Ask<'a> {
    pub code: i32,
    pub version: i32,
    pub flag: i32,
    pub fields: Vec<(&'a str, &'a str)>,
    pub body: &'a [u8],
}

/// A name server, its clients and its disk.
pub struct Bench {
    pub server: NameServer,
    pub files: Files,
    pub now: Now,
    out: Outbox<Infallible>,
    links: BTreeMap<String, Link>,
    opened: u32,
}

impl Bench {
    pub fn new(options: NameServerOptions) -> Self {
        Bench::start(options, Files::default()).unwrap()
    }

    pub fn start(options: NameServerOptions, files: Files) -> Result<Self, String> {
        let now = Now::default();
        Ok(Bench {
            server: NameServer::new(options, &files, now)?,
            files,
            now,
            out: Outbox::new(ShardId(0), 1),
            links: BTreeMap::new(),
            opened: 0,
        })
    }

    /// The connection called `name`, opened when first used.
    pub fn link(&mut self, name: &str) -> Link {
        self.link_at(name, "10.1.1.1:9876")
    }

    /// As [`Bench::link`], for a client that reaches us by `local`.
    pub fn link_at(&mut self, name: &str, local: &str) -> Link {
        if let Some(link) = self.links.get(name) {
            return *link;
        }
        self.opened += 1;
        let conn = ConnId {
            shard: ShardId(0),
            slot: self.opened,
            generation: 1,
        };
        let link = Link {
            conn,
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            local: local.parse().unwrap(),
        };
        self.out.open(conn);
        let opened = Event::Opened { link, dialed: None };
        self.server.handle(self.now, opened, &mut self.out);
        self.links.insert(name.to_owned(), link);
        link
    }

    pub fn close(&mut self, name: &str) {
        let conn = self.links.remove(name).unwrap().conn;
        self.out.forget(conn);
        let closed = Event::Closed { conn };
        self.server.handle(self.now, closed, &mut self.out);
    }

    pub fn wait(&mut self, ms: u64) {
        let end = self.now.mono.after_ms(ms);
        while let Some(at) = self.server.deadline().filter(|at| *at <= end) {
            self.now.mono = at;
            self.server.handle(self.now, Event::Tick, &mut self.out);
        }
        self.now.mono = end;
    }

    /// Names of connections the server wants closed since the last call.
    pub fn closing(&mut self) -> Vec<&str> {
        let closes = std::mem::take(&mut self.out.closes);
        let names = self.links.iter();
        let closing = names.filter(|(_, link)| closes.contains(&link.conn));
        closing.map(|(name, _)| &**name).collect()
    }

    pub fn raw(&mut self, conn: &str, bytes: &[u8]) {
        let link = self.link(conn);
        let chunk = Bytes::copy_from_slice(bytes);
        let frame = FrameIn::new(&chunk, 0, chunk.len());
        let event = Event::Frame { link: &link, frame };
        self.server.handle(self.now, event, &mut self.out);
    }

    pub fn send(&mut self, conn: &str, codec: Codec, ask: &Ask<'_>) {
        let mut bytes = Vec::new();
        match codec {
            Codec::Json => {
                let fields: BTreeMap<_, _> = ask.fields.iter().copied().collect();
                let header = serde_json::json!({"code": ask.code, "version": ask.version,
                    "flag": ask.flag, "opaque": 5, "language": "JAVA", "extFields": fields});
                let header = header.to_string();
                let length = (4 + header.len() + ask.body.len()) as u32;
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
                bytes.extend_from_slice(header.as_bytes());
                bytes.extend_from_slice(ask.body);
            }
            Codec::Binary => {
                let oneway = ask.flag & FLAG_ONEWAY != 0;
                let mut writer = FrameWriter::request(&mut bytes, codec, 5, ask.code, oneway);
                for (key, value) in &ask.fields {
                    writer.field_str(key, value);
                }
                writer.finish_with_body(ask.body);
            }
        }
        self.raw(conn, &bytes);
    }

    /// Carries out one order of the server.
    pub fn disk(&mut self) -> bool {
        if self.out.orders.is_empty() {
            return false;
        }
        let (id, Order::Work(work)) = self.out.orders.remove(0) else {
            panic!("a name server orders work only");
        };
        let result = work(&self.files).map(Done::Work);
        let event = Event::Disk { id, result };
        self.server.handle(self.now, event, &mut self.out);
        true
    }

    /// The next answer on a connection, and its codec.
    pub fn reply(&mut self, conn: &str) -> Option<(Codec, Reply)> {
        let conn = self.link(conn).conn;
        let (mut bytes, mut parts) = (Vec::new(), VecDeque::new());
        self.out.pending(conn)?.take(&mut bytes, &mut parts);
        let (mut inline, mut all) = (&*bytes, Vec::new());
        for part in &parts {
            match part {
                Part::Inline(length) => {
                    let (head, tail) = inline.split_at(*length);
                    all.extend_from_slice(head);
                    inline = tail;
                }
                Part::Shared(shared) => all.extend_from_slice(shared),
            }
        }
        if all.is_empty() {
            return None;
        }
        let command = Command::decode(frame::split(&all).unwrap()).unwrap();
        assert!(command.is_response() && command.opaque == 5);
        let fields = command.ext.iter();
        let reply = Reply {
            code: command.code,
            remark: command.remark.map(|text| text.to_string()),
            fields: fields
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            body: String::from_utf8(command.body.to_vec()).unwrap(),
        };
        Some((command.codec, reply))
    }

    /// Sends, lets the disk work, and takes the answer.
    pub fn call(&mut self, conn: &str, ask: &Ask<'_>) -> Option<Reply> {
        self.send(conn, Codec::Json, ask);
        while self.disk() {}
        self.reply(conn).map(|(_, reply)| reply)
    }

    /// The answer in one line: code, remark, fields, body.
    fn line(&mut self, code: i32, fields: &str, body: &str) -> String {
        let fields = fields.split_whitespace();
        let ask = Ask {
            code,
            version: 513,
            flag: 0,
            fields: fields.map(|field| field.split_once('=').unwrap()).collect(),
            body: body.as_bytes(),
        };
        shown(self.call("c", &ask))
    }
}

fn shown(reply: Option<Reply>) -> String {
    let Some(reply) = reply else {
        return "nothing".to_owned();
    };
    let mut text = reply.code.to_string();
    if let Some(remark) = reply.remark {
        text += &format!(" {remark}");
    }
    for (key, value) in reply.fields {
        text += &format!(" {key}={value}");
    }
    if !reply.body.is_empty() {
        text += &format!(" {}", reply.body);
    }
    text
}

fn registering(name: &str, addr: &str, id: u8) -> String {
    format!("brokerName={name} brokerAddr={addr} brokerId={id} clusterName=c haServerAddr=h:1")
}

fn topics(names: &[&str]) -> String {
    let table: BTreeMap<_, _> = names
        .iter()
        .map(|name| (*name, serde_json::json!({"topicName": name})))
        .collect();
    serde_json::json!({"topicConfigSerializeWrapper": {"topicConfigTable": table}}).to_string()
}

/// A bench with broker `b` at 10.0.0.1:10911 and topics t and u.
fn served(options: NameServerOptions) -> Bench {
    let mut bench = Bench::new(options);
    let fields = registering("b", "10.0.0.1:10911", 0);
    let answer = bench.line(request::REGISTER_BROKER, &fields, &topics(&["t", "u"]));
    assert_eq!(answer, "0");
    bench
}

fn limited(limits: Limits) -> NameServerOptions {
    NameServerOptions {
        limits,
        ..NameServerOptions::default()
    }
}

#[test]
fn requests_without_a_needed_field_name_it() {
    let mut bench = Bench::new(NameServerOptions::default());
    let mut check = |code, fields: &str, field| {
        let expected = format!("1 the header field {field} is missing");
        assert_eq!(bench.line(code, fields, ""), expected);
    };
    check(request::GET_ROUTEINFO_BY_TOPIC, "", "topic");
    check(request::REGISTER_BROKER, "", "brokerName");
    check(request::UNREGISTER_BROKER, "brokerName=b", "brokerAddr");
    check(request::BROKER_HEARTBEAT, "", "clusterName");
    check(request::QUERY_DATA_VERSION, "", "brokerName");
    check(
        request::GET_BROKER_MEMBER_GROUP,
        "clusterName=c",
        "brokerName",
    );
    check(request::PUT_KV_CONFIG, "namespace=n key=k", "value");
    check(request::GET_KV_CONFIG, "namespace=n", "key");
    check(request::DELETE_KV_CONFIG, "", "namespace");
    check(request::GET_KVLIST_BY_NAMESPACE, "", "namespace");
    check(request::WIPE_WRITE_PERM_OF_BROKER, "", "brokerName");
    check(request::ADD_WRITE_PERM_OF_BROKER, "", "brokerName");
    check(request::DELETE_TOPIC_IN_NAMESRV, "", "topic");
    check(request::REGISTER_TOPIC_IN_NAMESRV, "", "topic");
    check(request::GET_TOPICS_BY_CLUSTER, "", "cluster");
}

#[test]
fn unknown_codes_are_named() {
    let mut bench = Bench::new(NameServerOptions::default());
    let answer = bench.line(10, "", "");
    assert_eq!(answer, "3  request type 10 not supported (SEND_MESSAGE)");
    assert_eq!(
        bench.line(77_777, "", ""),
        "3  request type 77777 not supported"
    );
}

#[test]
fn one_way_requests_and_responses_are_not_answered() {
    let mut bench = Bench::new(NameServerOptions::default());
    for (code, flag) in [(106, 2), (9999, 2), (100, 2), (106, 1), (106, 3)] {
        let ask = Ask {
            code,
            version: 513,
            flag,
            fields: vec![("namespace", "n"), ("key", "k"), ("value", "v")],
            body: b"",
        };
        assert_eq!(bench.call("c", &ask), None, "{code} {flag}");
    }
    let value = bench.line(request::GET_KV_CONFIG, "namespace=n key=k", "");
    assert_eq!(value, "0 value=v", "a one-way change is done all the same");
}

#[test]
fn answers_come_in_the_codec_of_the_request() {
    let mut bench = served(NameServerOptions::default());
    for codec in [Codec::Json, Codec::Binary] {
        for code in [request::GET_ROUTEINFO_BY_TOPIC, request::PUT_KV_CONFIG] {
            let fields = vec![
                ("topic", "t"),
                ("namespace", "n"),
                ("key", "k"),
                ("value", "v"),
            ];
            let ask = Ask {
                code,
                version: 513,
                flag: 0,
                fields,
                body: b"",
            };
            bench.send("c", codec, &ask);
            bench.disk();
            let (answered, reply) = bench.reply("c").unwrap();
            assert_eq!((answered, reply.code), (codec, 0));
        }
    }
}

#[test]
fn bytes_that_are_no_command_end_the_connection() {
    let mut bench = Bench::new(NameServerOptions::default());
    for bytes in [
        &b"\0\0\0\x05\x02\0\0\0x"[..],
        b"\0\0\0\x05\0\0\0\x01x",
        b"x",
        b"",
    ] {
        bench.raw("c", bytes);
        assert_eq!(bench.closing(), ["c"], "{bytes:?}");
    }
}

#[test]
fn a_local_broker_is_shown_by_the_address_its_client_used() {
    let mut bench = served(NameServerOptions {
        local_broker: Some(LocalBroker {
            registered: "10.0.0.1:10911".to_owned(),
        }),
        ..NameServerOptions::default()
    });
    let slave = registering("b", "10.0.0.2:10911", 1);
    bench.line(request::REGISTER_BROKER, &slave, &topics(&["t", "u"]));
    let mut check = |local: &str, expected: &str| {
        bench.link_at(local, local);
        for code in [105, 106, 304] {
            let ask = Ask {
                code,
                version: 317,
                flag: 0,
                fields: vec![("topic", "t")],
                body: b"",
            };
            let body = bench.call(local, &ask).unwrap().body;
            assert!(body.contains(&format!("\"{expected}\"")), "{local} {body}");
            assert!(
                code == 304 || body.contains("1:\"10.0.0.2:10911\""),
                "{body}"
            );
        }
    };
    check("192.168.7.7:9876", "192.168.7.7:10911");
    check("172.17.0.2:9876", "172.17.0.2:10911");
    check("[::ffff:192.168.7.8]:9876", "192.168.7.8:10911");
    check("[fe80::1]:9876", "10.0.0.1:10911");
    check("127.0.0.1:1", "127.0.0.1:10911");
}

#[test]
fn routes_are_refused_until_brokers_had_time_to_register() {
    let mut bench = served(NameServerOptions {
        wait_for_service_ms: Some(1000),
        ..NameServerOptions::default()
    });
    let route = request::GET_ROUTEINFO_BY_TOPIC;
    assert_eq!(bench.line(route, "topic=t", ""), "1 name server not ready");
    bench.wait(999);
    assert_eq!(bench.line(route, "topic=t", ""), "1 name server not ready");
    bench.wait(1);
    assert!(bench.line(route, "topic=t", "").starts_with("0 {"));
}

#[test]
fn silent_brokers_expire_and_lose_their_connection() {
    let mut bench = served(NameServerOptions::default());
    let members = "clusterName=c brokerName=b";
    bench.wait(120_000);
    assert!(bench.closing().is_empty());
    bench.line(
        904,
        "clusterName=c brokerName=b brokerAddr=10.0.0.1:10911",
        "",
    );
    bench.wait(120_000);
    assert!(bench.closing().is_empty());
    let answer = bench.line(901, members, "");
    assert!(answer.contains("{0:\"10.0.0.1:10911\"}"), "{answer}");
    bench.wait(5000);
    assert_eq!(bench.closing(), ["c"]);
    assert!(bench.line(901, members, "").contains("\"brokerAddrs\":{}"));
    assert_eq!(bench.line(206, "", ""), "0 {\"topicList\":[]}");
}

#[test]
fn every_broker_of_a_closed_connection_goes() {
    let mut bench = served(NameServerOptions::default());
    let other = registering("d", "10.0.0.3:10911", 0);
    assert_eq!(bench.line(103, &other, &topics(&["t", "v"])), "0");
    bench.close("c");
    assert_eq!(bench.line(206, "", ""), "0 {\"topicList\":[]}");
}

#[test]
fn a_refused_registration_changes_nothing() {
    let mut bench = served(NameServerOptions::default());
    let before = bench.line(106, "", "");
    let single = registering("new", "10.0.0.9:1", 0);
    let answer = bench.line(103, &single, &topics(&["x"]));
    assert_eq!(answer, "1 register broker failed");
    let moved = registering("b", "10.0.0.1:10911", 2);
    let answer = bench.line(103, &moved, &topics(&["x"]));
    assert_eq!(answer, "1 register broker failed");
    assert_eq!(bench.line(106, "", ""), before);
    let answer = bench.line(103, &single, "{");
    assert!(answer == "1 the body is no JSON at byte 1", "{answer}");
}

#[test]
fn an_address_that_changes_its_name_leaves_the_old_one() {
    let mut bench = served(NameServerOptions::default());
    let renamed = registering("d", "10.0.0.1:10911", 0);
    assert_eq!(bench.line(103, &renamed, &topics(&["v", "w"])), "0");
    assert_eq!(bench.line(206, "", ""), r#"0 {"topicList":["v","w"]}"#);
    let moved = renamed.replace("clusterName=c", "clusterName=e");
    assert_eq!(bench.line(103, &moved, &topics(&["v", "w"])), "0");
    bench.close("c");
    assert_eq!(bench.line(206, "", ""), r#"0 {"topicList":[]}"#);
}

#[test]
fn brokers_topics_and_names_are_bounded() {
    let mut bench = served(limited(Limits {
        brokers_max: 2,
        topics_per_broker_max: 3,
        name_bytes_max: 20,
        mapping_queues_max: 1,
        ..Limits::default()
    }));
    let b = registering("b", "10.0.0.1:10911", 0);
    let mut check = |fields: &str, body: &str, expected: &str| {
        assert_eq!(bench.line(103, fields, body), expected);
    };
    check(&b, &topics(&["v"]), "0");
    check(&b, &topics(&["v", "t"]), "0");
    check(
        &b,
        &topics(&["w"]),
        "1 broker b may have at most 3 topics here",
    );
    let long = "x".repeat(21);
    check(
        &b,
        &topics(&[&long]),
        "1 a name of 21 bytes passes the limit of 20",
    );
    let second = registering("b", "10.0.0.2:10911", 1);
    check(&second, "", "0 haServerAddr=h:1 masterAddr=10.0.0.1:10911");
    let third = registering("b", "10.0.0.3:10911", 2);
    check(&third, "", "1 this name server holds at most 2 brokers");
    check(&second, "", "0 haServerAddr=h:1 masterAddr=10.0.0.1:10911");
    let mapped = topics(&["t", "u"]).replace(
        "{\"topicConfigTable",
        "{\"topicQueueMappingInfoMap\":{\"t\":{\"bname\":\"b\",\"currIdMap\":{0:0,1:1}}},\
         \"topicConfigTable",
    );
    check(&b, &mapped, "1 topic t maps more than 1 queues");
    let queues = "{\"queueDatas\":[{\"brokerName\":\"b\"}]}";
    let answer = bench.line(217, "topic=w", queues);
    assert_eq!(answer, "1 broker b may have at most 3 topics here");
    assert_eq!(bench.line(217, "topic=t", queues), "0");
}

#[test]
fn large_routes_are_sent_whole() {
    let mut bench = Bench::new(NameServerOptions::default());
    for n in 0..40 {
        let fields = registering(&format!("b{n:02}"), &format!("10.0.0.{n}:10911"), 0);
        assert_eq!(bench.line(103, &fields, &topics(&["t", "u"])), "0");
    }
    let first = bench.line(105, "topic=t", "");
    assert!(first.len() > 4096 && first.ends_with('}'));
    assert_eq!(bench.line(105, "topic=t", ""), first, "from the cache");
}

#[test]
fn options_are_shown_as_properties() {
    let mut bench = Bench::new(NameServerOptions::default());
    let answer = bench.line(319, "", "");
    assert!(
        answer.contains("\nscanNotActiveBrokerInterval=5000\n"),
        "{answer}"
    );
}

#[test]
fn a_change_is_answered_when_it_is_durable() {
    let mut bench = Bench::new(NameServerOptions::default());
    let put = |key: &'static str, value: &'static str| Ask {
        code: 100,
        version: 513,
        flag: 0,
        fields: vec![("namespace", "n"), ("key", key), ("value", value)],
        body: b"",
    };
    bench.send("a", Codec::Json, &put("k", "1"));
    bench.send("b", Codec::Json, &put("k", "2"));
    bench.send("c", Codec::Json, &put("l", "3"));
    bench.server.handle(bench.now, Event::Stop, &mut bench.out);
    assert!(bench.reply("a").is_none() && !bench.server.drained());
    assert_eq!(bench.out.orders.len(), 1, "one write in flight");
    bench.disk();
    assert_eq!(bench.reply("a").unwrap().1.code, 0);
    assert!(bench.reply("b").is_none() && bench.reply("c").is_none());
    let first = r#"{"configTable":{"n":{"k":"1"}}}"#;
    assert_eq!(bench.files.text(kv::FILE), first);
    bench.disk();
    assert_eq!(bench.reply("b").unwrap().1.code, 0);
    assert_eq!(bench.reply("c").unwrap().1.code, 0);
    assert!(
        !bench.disk() && bench.server.drained(),
        "the two went together"
    );
    let both = r#"{"configTable":{"n":{"k":"2","l":"3"}}}"#;
    assert_eq!(bench.files.text(kv::FILE), both);
}

#[test]
fn a_failed_write_shows_nothing() {
    let mut bench = Bench::new(NameServerOptions::default());
    assert_eq!(bench.line(100, "namespace=n key=k value=1", ""), "0");
    bench.files.broken.set(true);
    let failed = "1 write kvConfig.json.tmp: no space left";
    assert_eq!(bench.line(100, "namespace=n key=k value=2", ""), failed);
    assert_eq!(bench.line(102, "namespace=n key=k", ""), failed);
    assert_eq!(bench.line(101, "namespace=n key=k", ""), "0 value=1");
    bench.files.broken.set(false);
    assert_eq!(bench.line(102, "namespace=n key=k", ""), "0");
    assert_eq!(bench.line(219, "namespace=n", ""), r#"0 {"table":{}}"#);
}

#[test]
fn config_items_survive_a_restart() {
    let mut bench = Bench::new(NameServerOptions::default());
    assert_eq!(bench.line(100, "namespace=n key=k value=é\"", ""), "0");
    let mut again = Bench::start(NameServerOptions::default(), bench.files).unwrap();
    assert_eq!(again.line(101, "namespace=n key=k", ""), "0 value=é\"");
    let refused = |text: &str| {
        let started = Bench::start(NameServerOptions::default(), Files::with(kv::FILE, text));
        started.err().expect("the start is refused")
    };
    assert_eq!(
        refused("{\"configTable\":[]}"),
        "kvConfig.json is broken (invalid type: sequence, expected a map at line 1 column 15): \
         repair it, or remove it to start without config items"
    );
    assert!(refused("").starts_with("kvConfig.json is broken (EOF"));
    let java = Files::with(
        kv::FILE,
        "{\"configTable\":{\"ORDER_TOPIC_CONFIG\":{\"t\":\"b:4\"}}}",
    );
    let mut java = Bench::start(NameServerOptions::default(), java).unwrap();
    let answer = java.line(219, "namespace=ORDER_TOPIC_CONFIG", "");
    assert_eq!(answer, r#"0 {"table":{"t":"b:4"}}"#);
}

#[test]
fn config_items_are_bounded() {
    let mut bench = Bench::new(limited(Limits {
        kv_entries_max: 2,
        kv_value_bytes_max: 6,
        kv_bytes_max: 12,
        kv_waiting_max: 1,
        name_bytes_max: 4,
        ..Limits::default()
    }));
    let mut check = |fields: &str, expected: &str| {
        assert_eq!(bench.line(100, fields, ""), expected, "{fields}");
    };
    check("namespace=n key=k value=1", "0");
    check(
        "namespace=n key=k value=1234567",
        "1 a value of 7 bytes passes the limit of 6",
    );
    check(
        "namespace=nnnnn key=k value=1",
        "1 a name of 5 bytes passes the limit of 4",
    );
    check(
        "namespace=n key=kkkkk value=1",
        "1 a name of 5 bytes passes the limit of 4",
    );
    check("namespace=m key=l value=123456", "0");
    check(
        "namespace=n key=k value=123",
        "1 all config items together may take 12 bytes",
    );
    check("namespace=n key=k value=12", "0");
    check(
        "namespace=n key=m value=",
        "1 this name server holds at most 2 config items",
    );
    check("namespace=n key=k value=", "0");
    assert_eq!(bench.line(102, "namespace=n key=k", ""), "0");
    assert_eq!(bench.line(100, "namespace=n key=m value=1", ""), "0");
    for _ in 0..3 {
        let ask = Ask {
            code: 102,
            version: 513,
            flag: 0,
            fields: vec![("namespace", "n"), ("key", "k")],
            body: b"",
        };
        bench.send("c", Codec::Json, &ask);
    }
    let (_, refused) = bench.reply("c").unwrap();
    assert_eq!(
        shown(Some(refused)),
        "1 1 config changes wait for the disk already"
    );
}

const SERVED: [i32; 23] = [
    100, 101, 102, 103, 104, 105, 106, 205, 206, 216, 217, 219, 224, 304, 311, 312, 313, 318, 319,
    322, 327, 901, 904,
];
const FIELDS: [&str; 15] = [
    "topic",
    "namespace",
    "key",
    "value",
    "brokerName",
    "brokerAddr",
    "clusterName",
    "cluster",
    "haServerAddr",
    "brokerId",
    "heartbeatTimeoutMillis",
    "enableActingMaster",
    "bodyCrc32",
    "__ZONE_NAME",
    "__ZONE_MODE",
];
const VALUES: [&str; 9] = [
    "",
    "t",
    "b",
    "0",
    "1",
    "-9223372036854775808",
    "9223372036854775807",
    "true",
    "ORDER_TOPIC_CONFIG",
];

proptest::proptest! {
    #[test]
    fn whatever_is_asked_gets_one_answer(
        asks in proptest::collection::vec(
            (0..SERVED.len(), proptest::array::uniform15(0..VALUES.len()), 0..5usize, -1..600i32),
            1..20,
        )
    ) {
        let mut bench = Bench::new(NameServerOptions {
            acting_master: true,
            order_message: true,
            ..NameServerOptions::default()
        });
        let full = topics(&["t", "u", "b"]);
        for (code, values, body, version) in asks {
            let values = values.map(|at| VALUES[at]);
            let ask = Ask {
                code: SERVED[code],
                version,
                flag: 0,
                fields: FIELDS.into_iter().zip(values).collect(),
                body: [b"", &b"{}"[..], b"null", b"\x78\x9c{", full.as_bytes()][body],
            };
            proptest::prop_assert!(bench.call("c", &ask).is_some());
            bench.wait(3000);
        }
    }
}
