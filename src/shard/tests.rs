//! The driver with a machine that does what a frame's text says, over real sockets and files.

use super::*;
use crate::base::disk::{Done, Order, OrderId, Until};
use crate::base::{ConnId, DiskError, Mono, Now};
use crate::machine::{Dial, Event, FrameIn, Link, Machine, Outbox};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;
use tempfile::TempDir;

const PREFIX: usize = 8;

/// A frame whose header word says nothing in particular.
fn framed(text: &[u8]) -> Vec<u8> {
    let mut frame = (text.len() as u32 + 4).to_be_bytes().to_vec();
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text);
    frame
}

/// Does what the first word of a frame says and answers with a frame.
struct Puppet {
    me: ShardId,
    shards: u16,
    next_order: u64,
    orders: BTreeMap<OrderId, ConnId>,
    writes: VecDeque<(OrderId, Order)>,
    wake: Option<(Mono, ConnId)>,
    admits: bool,
    stubborn: bool,
    drained: bool,
    dialing: Option<ConnId>,
    dialed: Option<(ConnId, ConnId)>,
    hold: Option<mpsc::Sender<()>>,
}

enum Note {
    /// Answer this to that connection.
    Answer(ConnId, Bytes),
    Close(ConnId),
}

impl Puppet {
    fn new(me: ShardId, shards: u16) -> Self {
        Puppet {
            me,
            shards,
            next_order: 0,
            orders: BTreeMap::new(),
            writes: VecDeque::new(),
            wake: None,
            admits: true,
            stubborn: false,
            drained: false,
            dialing: None,
            dialed: None,
            hold: None,
        }
    }

    fn order(&mut self, conn: ConnId) -> OrderId {
        self.next_order += 1;
        self.orders.insert(OrderId(self.next_order), conn);
        OrderId(self.next_order)
    }

    fn other(&self) -> ShardId {
        ShardId((self.me.0 + 1) % self.shards)
    }

    fn frame(&mut self, now: Now, link: &Link, frame: FrameIn<'_>, out: &mut Outbox<Note>) {
        let conn = link.conn;
        if let Some((dialed, asker)) = self.dialed.filter(|(dialed, _)| *dialed == conn) {
            assert_eq!(dialed, conn);
            out.write(asker, |o| o.extend_from_slice(frame.bytes()));
            return;
        }
        let text = std::str::from_utf8(&frame.bytes()[PREFIX..]).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        match words[0] {
            "echo" => out.write(conn, |o| o.extend_from_slice(frame.bytes())),
            "who" => answer(out, conn, &self.me.0.to_string()),
            "forward" => out
                .peers
                .push((self.other(), Note::Answer(conn, frame.share()))),
            "closefar" => out.peers.push((self.other(), Note::Close(conn))),
            "big" => {
                let body = vec![b'x'; words[1].parse().unwrap()];
                out.write(conn, |o| {
                    o.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
                    o.extend_from_slice(&[0; 4]);
                });
                out.share(conn, Bytes::from(body));
            }
            "write" | "sync" => self.log(conn, &words),
            "read" | "work" | "hold" | "move" => self.ask_disk(conn, &words, out),
            "release" => self.hold.take().unwrap().send(()).unwrap(),
            "close" => {
                answer(out, conn, "bye");
                out.closes.push(conn);
            }
            "tick" => self.wake = Some((now.mono.after_ms(words[1].parse().unwrap()), conn)),
            "deaf" => {
                self.admits = false;
                self.wake = Some((now.mono.after_ms(words[1].parse().unwrap()), conn));
            }
            "stubborn" => {
                self.stubborn = true;
                answer(out, conn, "ok");
            }
            "dial" => {
                self.dialing = Some(conn);
                out.dials.push(Dial {
                    token: 7,
                    addr: words[1].to_owned(),
                });
            }
            other => panic!("a test asked for {other}"),
        }
    }

    /// Through the flush loops.
    fn log(&mut self, conn: ConnId, words: &[&str]) {
        let id = self.order(conn);
        let file = words[1].into();
        let order = match words[0] {
            "write" => {
                let blocks: usize = words[3].parse().unwrap();
                let data = Bytes::from(vec![words[4].as_bytes()[0]; blocks * 4096]);
                Order::Write {
                    file,
                    at: words[2].parse().unwrap(),
                    data,
                    until: match blocks {
                        1 => Until::Durable,
                        _ => Until::Written,
                    },
                }
            }
            _ => Order::Sync { file },
        };
        self.writes.push_back((id, order));
    }

    fn ask_disk(&mut self, conn: ConnId, words: &[&str], out: &mut Outbox<Note>) {
        let id = self.order(conn);
        let order = match words[0] {
            "read" => Order::Read {
                file: words[1].into(),
                at: words[2].parse().unwrap(),
                len: words[3].parse().unwrap(),
            },
            "hold" => {
                let (release, held) = mpsc::channel();
                self.hold = Some(release);
                Order::Work(Box::new(move |_| {
                    held.recv().unwrap();
                    Ok(b"released".to_vec())
                }))
            }
            "move" => {
                let (from, to) = (words[1].to_owned(), words[2].to_owned());
                Order::Work(Box::new(move |dir| {
                    dir.rename(&from, &to).map(|()| Vec::new())
                }))
            }
            _ => {
                let file = words[1].to_owned();
                Order::Work(Box::new(move |dir| {
                    dir.zero_fill(&file, 0, 8192)?;
                    Ok(file.into_bytes())
                }))
            }
        };
        out.orders.push((id, order));
    }
}

fn answer(out: &mut Outbox<Note>, conn: ConnId, text: &str) {
    out.write(conn, |o| o.extend_from_slice(&framed(text.as_bytes())));
}

impl Machine for Puppet {
    type Peer = Note;

    fn handle(&mut self, now: Now, event: Event<'_, Note>, out: &mut Outbox<Note>) {
        match event {
            Event::Opened {
                link,
                dialed: Some(7),
            } => {
                let asker = self.dialing.take().unwrap();
                self.dialed = Some((link.conn, asker));
                out.write(link.conn, |o| o.extend_from_slice(&framed(b"echo through")));
            }
            Event::Opened { dialed, .. } => assert_eq!(dialed, None),
            Event::DialFailed { token, reason } => {
                assert_eq!(token, 7);
                answer(out, self.dialing.take().unwrap(), &reason);
            }
            Event::Frame { link, frame } => self.frame(now, link, frame, out),
            Event::Closed { .. } => {}
            Event::Peer {
                from,
                message: Note::Answer(conn, frame),
            } => {
                assert_eq!(from, conn.shard);
                out.write(conn, |_| {});
                out.share(conn, frame);
            }
            Event::Peer {
                message: Note::Close(conn),
                ..
            } => {
                answer(out, conn, "bye");
                out.closes.push(conn);
            }
            Event::Disk { id, result } => {
                let conn = self.orders.remove(&id).unwrap();
                answer(out, conn, &told(result));
            }
            Event::Tick => {
                self.admits = true;
                let (at, conn) = self.wake.take_if(|(at, _)| *at <= now.mono).unwrap();
                assert!(at <= now.mono);
                answer(out, conn, "tick");
            }
            Event::Start => {}
            Event::Stop => self.drained = !self.stubborn,
        }
    }

    fn settle(&mut self, _: Now, _: &mut Outbox<Note>) {}

    fn poll_write(&mut self, _: Now) -> Option<(OrderId, Order)> {
        self.writes.pop_front()
    }

    fn deadline(&self) -> Option<Mono> {
        self.wake.map(|(at, _)| at)
    }

    fn admits(&self) -> bool {
        self.admits
    }

    fn ready(&self) -> bool {
        true
    }

    fn drained(&self) -> bool {
        self.drained
    }
}

fn told(result: Result<Done, DiskError>) -> String {
    match result {
        Ok(Done::Written) => "written".to_owned(),
        Ok(Done::Synced) => "synced".to_owned(),
        Ok(Done::Read(bytes)) => {
            let first = bytes.first().map_or(' ', |b| *b as char);
            let same = bytes.iter().all(|b| *b as char == first);
            format!("{} bytes of {first:?} {same}", bytes.len())
        }
        Ok(Done::Work(bytes)) => String::from_utf8(bytes).unwrap(),
        Err(error) => format!("error {error}"),
    }
}

fn options(executors: usize) -> Options {
    Options {
        cores: Cores::Floating(executors),
        signals: false,
        ..Options::default()
    }
}

fn set(dir: &std::path::Path, shards: u16) -> Fleet<Puppet> {
    Fleet {
        name: "broker",
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        dirs: (0..shards)
            .map(|s| dir.join(format!("shard-{s:02}")))
            .collect(),
        make: Arc::new(move |me, dir, _| {
            let block = vec![b'-'; 64 * 4096];
            dir.write_at("log/a", 0, &block)
                .map_err(|e| e.to_string())?;
            dir.sync("log/a").map_err(|e| e.to_string())?;
            Ok(Puppet::new(me, shards))
        }),
    }
}

/// As the crate's, with nothing to prepare.
fn run(
    options: Options,
    data_dir: &std::path::Path,
    brokers: Option<Fleet<Puppet>>,
    namesrv: Option<Fleet<Puppet>>,
    ready: impl FnOnce(Running),
) -> Result<Stats, String> {
    super::run(options, data_dir, brokers, namesrv, || Ok(()), ready)
}

struct Server {
    dir: TempDir,
    addr: SocketAddr,
    stopper: Stopper,
    thread: JoinHandle<Result<Stats, String>>,
}

impl Server {
    fn start(options: Options, shards: u16) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let (tell, told) = mpsc::channel();
        let path = dir.path().to_owned();
        let thread = std::thread::spawn(move || {
            let brokers = Some(set(&path, shards));
            run(options, &path, brokers, None::<Fleet<Puppet>>, |running| {
                tell.send(running).unwrap()
            })
        });
        let Ok(running) = told.recv() else {
            panic!("{:?}", thread.join())
        };
        Server {
            dir,
            addr: running.brokers[0],
            stopper: running.stopper,
            thread,
        }
    }

    fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    fn stop(self) -> Stats {
        self.stopper.stop();
        self.thread.join().unwrap().unwrap()
    }
}

struct Client(TcpStream);

impl Client {
    fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(&framed(text.as_bytes())).unwrap();
    }

    fn receive(&mut self) -> String {
        let mut prefix = [0; PREFIX];
        self.0.read_exact(&mut prefix).unwrap();
        let len = u32::from_be_bytes(prefix[..4].try_into().unwrap()) as usize - 4;
        let mut text = vec![0; len];
        self.0.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.receive()
    }

    /// All bytes until the server ends the connection, orderly or not.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("still open"),
            _ => rest,
        }
    }
}

#[test]
fn echoes_and_stops() {
    let server = Server::start(options(1), 1);
    let mut client = server.connect();
    assert_eq!(client.ask("echo a"), "echo a");
    for n in 0..1000 {
        client.send(&format!("echo {n}"));
    }
    for n in 0..1000 {
        assert_eq!(client.receive(), format!("echo {n}"));
    }
    let stats = server.stop();
    assert_eq!((stats.frames, stats.opened, stats.closed), (1001, 1, 1));
    assert_eq!(client.rest(), b"");
}

#[test]
fn connections_go_round_the_shards() {
    for executors in [1, 2] {
        let server = Server::start(options(executors), 3);
        let mut answers: Vec<String> = (0..6).map(|_| server.connect().ask("who")).collect();
        answers.sort();
        assert_eq!(answers, ["0", "0", "1", "1", "2", "2"]);
        server.stop();
    }
}

#[test]
fn every_frame_through_another_shard_keeps_its_order() {
    for executors in [1, 2] {
        let server = Server::start(options(executors), 2);
        let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        for n in 0..500 {
            for client in &mut clients {
                client.send(&format!("forward {n}"));
            }
        }
        for client in &mut clients {
            for n in 0..500 {
                assert_eq!(client.receive(), format!("forward {n}"));
            }
            assert_eq!(client.ask("closefar"), "bye");
            assert_eq!(client.rest(), b"");
        }
        assert_eq!(server.stop().frames, 4 * 501);
    }
}

#[test]
fn large_frames_arrive_whole() {
    let server = Server::start(options(2), 2);
    let mut client = server.connect();
    for len in [65_523, 65_524, 65_525, 300_000, 5_000_000, 3] {
        for verb in ["echo", "forward"] {
            let text = format!("{verb} {}", "y".repeat(len));
            // The answer starts while the request is still being written.
            let mut writer = Client(client.0.try_clone().unwrap());
            let sent = text.clone();
            let sending = std::thread::spawn(move || writer.send(&sent));
            assert!(client.receive() == text, "{verb} {len}");
            sending.join().unwrap();
        }
    }
    server.stop();
}

#[test]
fn frames_may_come_in_pieces() {
    let server = Server::start(options(1), 1);
    let mut client = server.connect();
    let frames = [framed(b"echo one"), framed(b"echo two")].concat();
    for piece in frames.chunks(3) {
        client.0.write_all(piece).unwrap();
    }
    assert_eq!(client.receive(), "echo one");
    assert_eq!(client.receive(), "echo two");
    server.stop();
}

#[test]
fn a_slow_reader_gets_everything_but_is_not_read_meanwhile() {
    let options = Options {
        output_pause_bytes: 100_000,
        ..options(1)
    };
    let server = Server::start(options, 1);
    let mut client = server.connect();
    for _ in 0..40 {
        client.send("big 1000000");
    }
    client.send("echo end");
    for _ in 0..40 {
        assert_eq!(client.receive().len(), 1_000_000);
    }
    assert_eq!(client.receive(), "echo end");
    let stats = server.stop();
    assert_eq!((stats.slow, stats.frames), (0, 41));
    assert!(stats.bytes_out > 40_000_000);
}

#[test]
fn a_peer_that_never_reads_is_closed() {
    let options = Options {
        output_close_bytes: 20_000_000,
        ..options(1)
    };
    let server = Server::start(options, 1);
    let mut client = server.connect();
    client.send("big 16000000");
    client
        .0
        .write_all(&framed(b"big 16000000").repeat(3))
        .unwrap();
    assert!(client.rest().len() < 64_000_000);
    assert_eq!(server.stop().slow, 1);
}

#[test]
fn half_a_frame_and_silence_end_a_connection() {
    let short = Duration::from_millis(60);
    let server = Server::start(
        Options {
            half_frame: short,
            ..options(1)
        },
        1,
    );
    let mut cut = server.connect();
    cut.0.write_all(&[0, 0, 0]).unwrap();
    let mut large = server.connect();
    large
        .0
        .write_all(&framed(&[b'z'; 200_000])[..100_000])
        .unwrap();
    assert_eq!((cut.rest(), large.rest()), (vec![], vec![]));
    assert_eq!(server.stop().cut, 2);

    let server = Server::start(
        Options {
            idle: short,
            ..options(1)
        },
        1,
    );
    assert_eq!(server.connect().rest(), b"");
    assert_eq!(server.stop().idle, 1);
}

#[test]
fn other_protocols_are_told_so() {
    let server = Server::start(options(1), 1);
    let refused = |bytes: &[u8]| {
        let mut client = server.connect();
        client.0.write_all(bytes).unwrap();
        client.rest()
    };
    assert_eq!(
        refused(b"\x16\x03\x01\x02\x00\x01\x00"),
        [21, 3, 3, 0, 2, 2, 40]
    );
    let page = String::from_utf8(refused(b"GET / HTTP/1.1\r\n\r\n")).unwrap();
    assert!(
        page.starts_with("HTTP/1.1 501 ") && page.contains("remoting"),
        "{page}"
    );
    assert!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").len() > 20);
    assert_eq!(refused(b"SSH-2.0-x\r\n"), b"");
    assert_eq!(refused(&[0, 0, 0, 1, 5]), b"");
    assert_eq!(refused(&[1, 0, 0, 0]), b"");
    let stats = server.stop();
    assert_eq!((stats.foreign, stats.broken, stats.frames), (4, 2, 0));
}

#[test]
fn connections_have_a_limit() {
    let server = Server::start(
        Options {
            connections_max: 1,
            ..options(1)
        },
        1,
    );
    let mut first = server.connect();
    assert_eq!(first.ask("echo 1"), "echo 1");
    assert_eq!(server.connect().rest(), b"");
    assert_eq!(first.ask("close"), "bye");
    assert_eq!(first.rest(), b"");
    drop(first);
    let mut next = server.connect();
    while next.0.write_all(&framed(b"echo 2")).is_err() || next.0.peek(&mut [0]).unwrap_or(0) == 0 {
        next = server.connect();
    }
    assert_eq!(next.receive(), "echo 2");
    assert!(server.stop().over_connections >= 1);
}

#[test]
fn a_busy_machine_is_not_fed() {
    let server = Server::start(options(1), 1);
    let mut client = server.connect();
    client.send("deaf 80");
    let mut other = server.connect();
    other.send("echo later");
    assert_eq!(client.receive(), "tick");
    assert_eq!(other.receive(), "echo later");
    assert_eq!(client.ask("tick 1"), "tick");
    server.stop();
}

#[test]
fn disk_orders_are_answered() {
    let server = Server::start(options(1), 1);
    let mut client = server.connect();
    assert_eq!(client.ask("write log/a 4096 2 A"), "written");
    assert_eq!(client.ask("sync log/a"), "synced");
    assert_eq!(client.ask("read log/a 4096 8192"), "8192 bytes of 'A' true");
    assert_eq!(client.ask("read log/a 0 4096"), "4096 bytes of '-' true");
    assert_eq!(
        client.ask("read log/a 258048 8192"),
        "4096 bytes of '-' true"
    );
    assert_eq!(client.ask("read log/a 262144 4096"), "0 bytes of ' ' true");
    let path = server.dir.path().join("shard-00/log/a");
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(
        (bytes.len(), bytes[4095], bytes[4096], bytes[12_287]),
        (262_144, b'-', b'A', b'A')
    );
    assert_eq!(client.ask("work log/b"), "log/b");
    assert_eq!(client.ask("read log/b 0 8192"), "8192 bytes of '\\0' true");
    server.stop();
}

#[test]
fn disk_errors_reach_the_machine() {
    let server = Server::start(options(1), 1);
    let mut client = server.connect();
    let missing = "No such file or directory (os error 2)";
    assert_eq!(
        client.ask("read log/no 0 4096"),
        format!("error reading log/no: {missing}")
    );
    assert_eq!(
        client.ask("write log/no 0 1 A"),
        format!("error writing log/no: {missing}")
    );
    assert_eq!(
        client.ask("sync log/no"),
        format!("error syncing log/no: {missing}")
    );
    assert_eq!(
        client.ask("move log/no log/x"),
        format!("error renaming log/no: {missing}")
    );
    assert_eq!(server.stop().disk_errors, 4);
}

#[test]
fn orders_complete_in_any_order() {
    let server = Server::start(options(1), 1);
    let mut client = server.connect();
    client.send("hold");
    client.send("write log/a 0 1 B");
    assert_eq!(client.receive(), "written");
    client.send("release");
    assert_eq!(client.receive(), "released");
    server.stop();
}

#[test]
fn a_connection_that_rests_is_heard_again() {
    let server = Server::start(options(1), 1);
    let (mut writer, mut poller) = (server.connect(), server.connect());
    for _ in 0..100 {
        // The log is busy, and what the other connection asks is answered much later, if at all.
        writer.send("write log/a 0 1 B");
        poller.send("tick 3600000");
        assert_eq!(poller.ask("echo here"), "echo here");
        assert_eq!(writer.receive(), "written");
    }
    server.stop();
}

#[test]
fn with_an_interval_requests_wait_for_its_end() {
    let interval = Duration::from_millis(100);
    let options = Options {
        read_interval: interval,
        ..options(1)
    };
    let server = Server::start(options, 1);
    let (mut a, mut b) = (server.connect(), server.connect());
    assert_eq!(
        (a.ask("echo 1"), b.ask("echo 2")),
        ("echo 1".into(), "echo 2".into())
    );
    let start = Instant::now();
    // The first at the end of the interval under way, the second one interval later.
    for n in 0..2 {
        a.send(&format!("echo {n}"));
        b.send(&format!("echo {n}"));
        assert_eq!(
            (a.receive(), b.receive()),
            (format!("echo {n}"), format!("echo {n}"))
        );
    }
    assert!(start.elapsed() >= interval, "{:?}", start.elapsed());
    server.stop();
}

#[test]
fn many_writes_and_syncs_interleave() {
    let server = Server::start(
        Options {
            writes_in_flight: 4,
            ..options(1)
        },
        1,
    );
    let mut client = server.connect();
    for block in 0..60 {
        client.send(&format!("write log/a {} 1 {}", block * 4096, block % 10));
        client.send("sync log/a");
    }
    let mut answers: Vec<String> = (0..120).map(|_| client.receive()).collect();
    answers.sort();
    assert!(answers[..60].iter().all(|a| a == "synced"));
    assert!(answers[60..].iter().all(|a| a == "written"));
    for block in 0..60 {
        let read = client.ask(&format!("read log/a {} 4096", block * 4096));
        let digit = char::from_digit(block % 10, 10).unwrap();
        assert_eq!(read, format!("4096 bytes of {digit:?} true"));
    }
    server.stop();
}

#[test]
fn a_renamed_file_is_not_taken_for_the_old_one() {
    let server = Server::start(options(1), 1);
    let mut client = server.connect();
    assert_eq!(client.ask("read log/a 0 4096"), "4096 bytes of '-' true");
    assert_eq!(client.ask("work log/b"), "log/b");
    assert_eq!(client.ask("read log/b 0 4096"), "4096 bytes of '\\0' true");
    assert_eq!(client.ask("move log/b log/a"), "");
    assert_eq!(client.ask("read log/a 0 4096"), "4096 bytes of '\\0' true");
    assert!(client.ask("read log/b 0 4096").starts_with("error"));
    server.stop();
}

#[test]
fn dials_reach_a_listener_or_fail() {
    let server = Server::start(options(1), 1);
    let mut client = server.connect();
    assert_eq!(client.ask(&format!("dial {}", server.addr)), "echo through");
    let mut client = server.connect();
    let port = server.addr.port();
    assert_eq!(
        client.ask(&format!("dial localhost:{port}")),
        "echo through"
    );
    let mut client = server.connect();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = client.ask(&format!("dial {free}"));
    assert!(
        refused.contains("refused") && refused.contains(&free.to_string()),
        "{refused}"
    );
    let unknown = client.ask("dial no.such.host.invalid:1");
    assert!(unknown.contains("cannot be resolved"), "{unknown}");
    server.stop();
}

#[test]
fn a_name_server_runs_beside_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let brokers = set(&dir.path().join("b"), 2);
    let mut namesrv = set(&dir.path().join("n"), 1);
    namesrv.listen.push("127.0.0.1:0".parse().unwrap());
    let mut answers = Vec::new();
    let ended = run(
        options(2),
        dir.path(),
        Some(brokers),
        Some(namesrv),
        |running| {
            let mut broker = Client::connect(running.brokers[0]);
            answers.push(broker.ask(&format!("dial {}", running.namesrv[1])));
            answers.push(Client::connect(running.namesrv[0]).ask("forward self"));
            running.stopper.stop();
        },
    );
    assert!(ended.is_ok());
    assert_eq!(answers, ["echo through", "forward self"]);
}

#[test]
fn a_taken_port_is_said_before_anything_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut brokers = set(dir.path(), 1);
    brokers.listen = vec![taken.local_addr().unwrap()];
    let error = run(
        options(1),
        dir.path(),
        Some(brokers),
        None::<Fleet<Puppet>>,
        |_| panic!("it cannot be ready"),
    );
    let error = error.unwrap_err();
    assert!(error.contains("another process listens there"), "{error}");
    assert!(!dir.path().join("shard-00").exists());
}

#[test]
fn a_second_process_is_refused() {
    let server = Server::start(options(1), 1);
    let brokers = Some(set(server.dir.path(), 1));
    let error = run(
        options(1),
        server.dir.path(),
        brokers,
        None::<Fleet<Puppet>>,
        |_| panic!("it cannot be ready"),
    );
    let error = error.unwrap_err();
    assert!(
        error.contains(&format!("in use by process {}", std::process::id())),
        "{error}"
    );
    assert_eq!(server.connect().ask("echo still"), "echo still");
    server.stop();
}

#[test]
fn a_machine_that_cannot_be_made_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut brokers = set(dir.path(), 2);
    brokers.make = Arc::new(|me, _, _| match me.0 {
        1 => Err("shard 1 is damaged".to_owned()),
        _ => Ok(Puppet::new(me, 2)),
    });
    let error = run(
        options(2),
        dir.path(),
        Some(brokers),
        None::<Fleet<Puppet>>,
        |_| panic!("it cannot be ready"),
    );
    assert_eq!(error.unwrap_err(), "shard 1 is damaged");
}

#[test]
fn draining_takes_no_longer_than_allowed() {
    let server = Server::start(
        Options {
            drain: Duration::from_millis(50),
            ..options(2)
        },
        2,
    );
    assert_eq!(server.connect().ask("stubborn"), "ok");
    server.stopper.stop();
    let error = server.thread.join().unwrap().unwrap_err();
    assert!(error.contains("not everything was done"), "{error}");

    let server = Server::start(options(2), 2);
    assert_eq!(server.connect().ask("stubborn"), "ok");
    server.stopper.stop();
    server.stopper.stop();
    let error = server.thread.join().unwrap().unwrap_err();
    assert!(error.contains("second stop"), "{error}");
}

#[test]
fn the_directory_on_the_file_system() {
    let root = tempfile::tempdir().unwrap();
    let dir = FsDir::open(&root.path().join("new")).unwrap();
    assert_eq!(dir.list("log").unwrap(), []);
    dir.allocate("log/a", 10_000).unwrap();
    dir.write_at("log/a", 9_998, b"abcd").unwrap();
    dir.sync("log/a").unwrap();
    let mut buf = [9; 8];
    assert_eq!(dir.read_at("log/a", 9_996, &mut buf).unwrap(), 6);
    assert_eq!(buf, [0, 0, b'a', b'b', b'c', b'd', 9, 9]);
    dir.zero_fill("log/z", 4096, 3 << 20).unwrap();
    dir.rename("log/z", "log/b").unwrap();
    let listed: Vec<_> = dir
        .list("log")
        .unwrap()
        .into_iter()
        .map(|e| (e.name, e.bytes))
        .collect();
    assert_eq!(
        listed,
        [("a".to_owned(), 10_002), ("b".to_owned(), (3 << 20) + 4096)]
    );
    dir.remove("log/b").unwrap();
    dir.remove("log/b").unwrap();
    assert_eq!(dir.list("log").unwrap().len(), 1);
    assert!(!dir.read_at("log/b", 0, &mut buf).unwrap_err().full);
    let huge = dir.allocate("log/huge", 1 << 50).unwrap_err();
    assert_eq!((huge.doing, huge.file.as_str()), ("allocating", "log/huge"));
}

#[test]
fn a_full_disk_is_told_apart() {
    let full =
        |code| dir::disk_error("writing", "f", &std::io::Error::from_raw_os_error(code)).full;
    assert!(full(libc::ENOSPC));
    assert!(!full(libc::EIO));
}
