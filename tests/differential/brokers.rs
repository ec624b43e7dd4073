//! The two servers that are asked: the reference, a name server and a broker, and OrbitMQ.
//!
//! Both start with the same settings, on free ports of the loopback, in a directory that vanishes.
//! Every process is ended by its id when its owner goes, however the test ends.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use orbitmq::remoting::code::request;
use orbitmq::remoting::frame::Codec;

use crate::wire::{Link, Outcome};

const READY: &str = "orbitmq ready ";
const READY_WITHIN: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);
/// Below the ports that outgoing connections get.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Listen, the fast port two below, replication one above.
const PORT_STEP: u16 = 8;

pub const BROKER: &str = "broker-a";
pub const CLUSTER: &str = "DefaultCluster";

/// What both are told.
const ALIKE: [(&str, &str); 7] = [
    ("brokerName", BROKER),
    ("brokerClusterName", CLUSTER),
    ("enableLmq", "true"),
    ("enableMultiDispatch", "true"),
    ("enablePropertyFilter", "true"),
    ("recallMessageEnable", "true"),
    ("timerMaxDelaySec", "259200"),
];
/// What keeps the reference small, quick to start, and from refusing on a busy machine.
const REFERENCE: [(&str, &str); 17] = [
    ("brokerId", "0"),
    ("brokerRole", "ASYNC_MASTER"),
    ("flushDiskType", "ASYNC_FLUSH"),
    ("brokerIP1", "127.0.0.1"),
    ("autoCreateTopicEnable", "true"),
    ("brokerFastFailureEnable", "false"),
    ("osPageCacheBusyTimeOutMills", "30000"),
    ("mappedFileSizeCommitLog", "16777216"),
    ("mappedFileSizeConsumeQueue", "60000"),
    ("mappedFileSizeTimerLog", "1048576"),
    ("maxHashSlotNum", "10000"),
    ("maxIndexNum", "40000"),
    ("transientStorePoolEnable", "false"),
    ("warmMapedFileEnable", "false"),
    // What the disk of the machine holds is none of this test's business.
    ("diskMaxUsedSpaceRatio", "95"),
    ("haSendHeartbeatInterval", "5000"),
    (
        "messageDelayLevel",
        "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h",
    ),
];
/// What Java 17 must open up for netty, direct buffers and mapped files.
const MODULES: [&str; 7] = [
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED",
];

/// A broker and its name server.
pub struct Pair {
    pub broker: String,
    pub namesrv: String,
    _processes: Vec<Process>,
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free, as are the one two below and the one above.
fn free_port(taken: &mut Vec<u16>) -> u16 {
    let steps = (PORTS.end - PORTS.start) / PORT_STEP;
    let start = (std::process::id() as u16).wrapping_mul(53);
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let port = (0..steps)
        .map(|step| PORTS.start + 2 + start.wrapping_add(step) % steps * PORT_STEP)
        .find(|&port| !taken.contains(&port) && [port - 2, port, port + 1].into_iter().all(free))
        .expect("some ports are free");
    taken.push(port);
    port
}

/// Starts both at the same time, OrbitMQ last, and waits until both serve.
pub fn start(jars: &Path, directory: &Path) -> (Pair, Pair) {
    let mut taken = Vec::new();
    let mut ports = || [free_port(&mut taken), free_port(&mut taken)];
    let (theirs, ours) = (ports(), ports());
    let reference = start_reference(jars, &directory.join("reference"), theirs);
    let orbit = start_orbit(&directory.join("orbit"), ours);
    wait_registered(&orbit, &directory.join("orbit/server.log"));
    wait_registered(&reference, &directory.join("reference/broker.out"));
    (reference, orbit)
}

fn start_reference(jars: &Path, directory: &Path, [broker, namesrv]: [u16; 2]) -> Pair {
    std::fs::create_dir_all(directory.join("home")).expect("a directory");
    let inside = |name: &str| directory.join(name).display().to_string();
    let write = |name: &str, lines: Vec<(&str, String)>| {
        let lines: Vec<String> = lines
            .iter()
            .map(|(key, value)| format!("{key}={value}\n"))
            .collect();
        std::fs::write(directory.join(name), lines.concat()).expect("a configuration file");
    };
    write(
        "namesrv.conf",
        vec![
            ("listenPort", namesrv.to_string()),
            ("kvConfigPath", inside("kvConfig.json")),
            ("configStorePath", inside("namesrv.properties")),
        ],
    );
    let said = ALIKE.iter().chain(&REFERENCE);
    let mut lines: Vec<_> = said
        .map(|(key, value)| (*key, (*value).to_owned()))
        .collect();
    lines.extend([
        ("namesrvAddr", format!("127.0.0.1:{namesrv}")),
        ("listenPort", broker.to_string()),
        ("haListenPort", (broker + 1).to_string()),
        ("storePathRootDir", inside("store")),
        ("storePathCommitLog", inside("store/commitlog")),
    ]);
    write("broker.conf", lines);
    let run = |name: &str, class: &str| {
        let log = File::create(directory.join(format!("{name}.out"))).expect("a log");
        let errors = log.try_clone().expect("a log");
        let child = Command::new("java")
            .args([
                "-Xms512m",
                "-Xmx1g",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
            ])
            .args(MODULES)
            .arg(format!("-Duser.home={}", directory.display()))
            .arg("-cp")
            .arg(jars.join("*"))
            .args([class, "-c"])
            .arg(directory.join(format!("{name}.conf")))
            .env("ROCKETMQ_HOME", directory.join("home"))
            .env_remove("NAMESRV_ADDR")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn();
        Process(child.expect("java starts"))
    };
    let namesrv_process = run("namesrv", "org.apache.rocketmq.namesrv.NamesrvStartup");
    let namesrv = format!("127.0.0.1:{namesrv}");
    // A broker that does not find its name server tries again only after seconds.
    wait_until(&directory.join("namesrv.out"), || {
        TcpStream::connect(&namesrv).is_ok()
    });
    let broker_process = run("broker", "org.apache.rocketmq.broker.BrokerStartup");
    Pair {
        broker: format!("127.0.0.1:{broker}"),
        namesrv,
        _processes: vec![broker_process, namesrv_process],
    }
}

fn start_orbit(directory: &Path, [broker, namesrv]: [u16; 2]) -> Pair {
    std::fs::create_dir_all(directory).expect("a directory");
    let (broker, namesrv) = (
        format!("127.0.0.1:{broker}"),
        format!("127.0.0.1:{namesrv}"),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_orbitmq"));
    command.args([
        "standalone",
        "--listen",
        &broker,
        "--namesrv-listen",
        &namesrv,
        "--data",
    ]);
    command.arg(directory.join("data"));
    for (key, value) in ALIKE.iter().chain(&[("shards", "1")]) {
        command.args(["--set", &format!("{key}={value}")]);
    }
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ORBITMQ_")) {
        command.env_remove(name);
    }
    let log = directory.join("server.log");
    let child = command
        .env_remove("NAMESRV_ADDR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log).expect("a log"))
        .spawn();
    let mut process = Process(child.expect("orbitmq starts"));
    let stdout = process.0.stdout.take().expect("it is piped");
    let (ready, wait) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = ready.send(line);
        }
    });
    let line = wait.recv_timeout(READY_WITHIN).unwrap_or_default();
    assert!(
        line.starts_with(READY),
        "orbitmq is not ready: {line}\n{}",
        tail(&log)
    );
    Pair {
        broker,
        namesrv,
        _processes: vec![process],
    }
}

/// Waits until the name server names the broker and the broker accepts.
fn wait_registered(pair: &Pair, log: &Path) {
    wait_until(log, || {
        let Ok(mut link) = Link::connect(&pair.namesrv) else {
            return false;
        };
        link.wait_for(READY_WITHIN);
        let code = request::GET_BROKER_CLUSTER_INFO;
        let Outcome::Answer(answer) = link.ask(Codec::Json, code, &[], b"") else {
            return false;
        };
        let named = format!("\"{BROKER}\"");
        let body = String::from_utf8_lossy(&answer.body);
        body.contains(&named) && TcpStream::connect(&pair.broker).is_ok()
    });
}

fn wait_until(log: &Path, mut serves: impl FnMut() -> bool) {
    let until = Instant::now() + READY_WITHIN;
    while !serves() {
        let late = Instant::now() > until;
        assert!(!late, "not ready: {}\n{}", log.display(), tail(log));
        thread::park_timeout(POLL);
    }
}

fn tail(path: &Path) -> String {
    let content = std::fs::read(path).unwrap_or_default();
    let from = content.len().saturating_sub(4000);
    String::from_utf8_lossy(&content[from..]).into_owned()
}
