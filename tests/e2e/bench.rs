//! `orbitmq bench` as its users run it: against the broker, with exit codes and files.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use orbitmq::loadgen::outcome::Outcome;

use crate::server::{Launch, Log, Server, binary, signal};

const SOUND: i32 = 0;
const FAILED: i32 = 1;
const REFUSED: i32 = 2;
const VOID: i32 = 3;

/// Exit code, standard output and standard error.
fn bench(server: &Server, line: &str) -> (i32, String, String) {
    let mut command = Command::new(binary());
    command.arg("bench").args(line.split_whitespace());
    command
        .arg("--namesrv")
        .arg(server.launch.namesrv.to_string());
    let output = command.output().expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    let code = output.status.code().expect("it ends by itself");
    (code, text(output.stdout), text(output.stderr))
}

/// The outcome of a run that nothing but this machine may be wrong with.
fn sound(server: &Server, line: &str) -> Outcome {
    let (code, out, said) = bench(server, &format!("{line} --json"));
    assert!(
        [SOUND, VOID].contains(&code),
        "{line} ended with {code}:\n{said}"
    );
    let outcome: Outcome = serde_json::from_str(&out).expect("standard output is the outcome");
    assert_eq!(
        (&outcome.broken, outcome.void.is_empty()),
        (&None, code == SOUND)
    );
    outcome
}

#[test]
fn every_load_runs_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).set("shards", 2).start();
    let verified = |line: &str, count: u64| {
        let outcome = sound(&server, &format!("{line} --verify --count {count}"));
        let seen = outcome.verified.clone().unwrap();
        assert!(seen.acknowledged >= count, "{line}: {seen:?}");
        let wrong = (seen.lost, seen.duplicated, seen.reordered, seen.corrupt);
        assert_eq!(wrong, (0, 0, 0, 0), "{line}: {seen:?}");
        outcome
    };
    let sent = verified(
        "send -t one --connections 3 --body-bytes 64-2048 --keys --tags a,b",
        3000,
    );
    assert_eq!(sent.parts[0].messages, 3000);
    verified("batch -t two --codec binary --connections 2", 3200);
    verified("topics -t many --topics 50 --body-bytes exp:200", 2000);
    verified("e2e -t three --members 3 --rate 2000 --threads 2", 3000);
    verified("mixed -t four --members 2", 2000);
    let backlog = verified("backlog -t five --members 2", 3000);
    assert_eq!(backlog.parts[0].messages, 3000);
    let late = verified("delay -t later --rate 1000 --delay-ms 300", 500);
    assert_eq!(late.parts[0].name, "lateness");
    assert!(late.parts[0].latency.as_ref().unwrap().count >= 500);
    verified("delay -t together --due-at-once 700", 2000);
    verified("delay -t level --delay-level 1 --members 2", 500);
    let popped = verified(
        "pop -t popped --send --rate 1000 --members 2 --ack-batch 16",
        1000,
    );
    assert_eq!(popped.parts[1].messages, 1000, "all is acknowledged");
    for by in ["key", "unique-key", "id", "time"] {
        let line = format!("query -t one --by {by} --samples 100 --rate 1000 --count 300");
        let asked = sound(&server, &line);
        assert_eq!(
            (asked.parts[0].name.as_str(), asked.parts[0].messages),
            ("query", 300)
        );
    }
    let (code, _, said) = bench(&server, "query -t two --by key --count 10");
    assert_eq!(code, FAILED);
    assert!(said.contains("has no key: send with --keys"), "{said}");
    let pulled = sound(&server, "pull -t one --count 3000 --batch 32");
    assert!(pulled.parts[0].messages >= 3000);
    let pushed = sound(&server, "push -t one --count 3000 --members 2");
    assert_eq!(pushed.parts[0].messages, 3000);
    server.stop();
}

#[test]
fn transactions_end_as_they_were_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).set("shards", 2).start();
    let line = "transaction -t t --rollback 25 --count 1000 --verify";
    let ended = sound(&server, line);
    let seen = ended.verified.unwrap();
    assert_eq!((seen.acknowledged, seen.received), (750, 750), "{seen:?}");
    sound(&server, "transaction -t t --leave-open --count 100");
    server.stop();
}

#[test]
fn leases_that_are_left_keep_messages_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).start();
    sound(&server, "send -t t --count 1000");
    let left = "pop -t t --no-ack --invisible-ms 600000 --in-flight 1 --count 500";
    let first = sound(&server, left);
    let taken = first.parts[0].messages;
    assert!((500..1000).contains(&taken), "{taken}");
    let rest = 1000 - taken - 32;
    let popped = sound(&server, &format!("pop -t t --in-flight 1 --count {rest}"));
    assert!(popped.parts[0].messages <= 1000 - taken);
    server.stop();
}

#[test]
fn the_brokers_process_is_measured_and_files_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(&dir.path().join("data")).start();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (json, csv, svg) = (file("a.json"), file("a.csv"), file("a.svg"));
    let pid = server.pid();
    let line = format!(
        "send -t t --rate 500 --seconds 1 --broker-pid {pid} --label x --json {json} --csv {csv} \
         --plot {svg}"
    );
    let (code, out, said) = bench(&server, &line);
    assert!([SOUND, VOID].contains(&code), "{said}");
    assert!(out.contains("send"), "a table for people: {out}");
    assert!(
        said.contains("msg/s") && said.contains("made 1 topics, t first"),
        "{said}"
    );
    let text = std::fs::read_to_string(&json).unwrap();
    let outcome: Outcome = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (outcome.label.as_str(), outcome.workload.as_str()),
        ("x", "send")
    );
    let cost = outcome.broker.unwrap();
    assert!(
        cost.rss_max_bytes > 1 << 20 && cost.user_us_per_message + cost.system_us_per_message > 0.0
    );
    assert!(std::fs::read_to_string(&svg).unwrap().contains("<svg"));
    assert!(std::fs::read_to_string(&csv).unwrap().lines().count() > 1);
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["a.csv", "a.json", "a.svg", "data"].map(Path::new),
        "nothing else"
    );
}

#[test]
fn what_goes_wrong_is_a_sentence_and_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).start();
    let check = |line: &str, code: i32, words: &str| {
        let (ended, _, said) = bench(&server, line);
        assert!(
            ended == code && said.contains(words),
            "{line} ended with {ended}:\n{said}"
        );
    };
    check(
        "send --body-bytes 10 --verify",
        REFUSED,
        "at least that long",
    );
    check("pull -t nowhere", FAILED, "no route for topic nowhere");
    check("send --broker-pid 4194304 -t t", FAILED, "no such process");
    check(
        "send -t t --json /nowhere/x --count 10",
        FAILED,
        "cannot be written",
    );
    let check = |mut command: Command, words: &str| {
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(FAILED) && said.contains(words),
            "{said}"
        );
    };
    let mut nobody = Command::new(binary());
    nobody.args(["bench", "send", "-n", "127.0.0.1:1"]);
    check(nobody, "cannot be reached");
    let mut few = Command::new("sh");
    let namesrv = server.launch.namesrv.to_string();
    few.args([
        "-c",
        "ulimit -n 200; exec \"$0\" bench send -t t --connections 300 -n \"$1\"",
    ]);
    few.arg(binary()).arg(namesrv);
    check(few, "open files are needed");
}

/// A load under way. Killed when dropped.
struct Running {
    child: Child,
    log: Log,
    dir: tempfile::TempDir,
}

impl Running {
    /// Sends for an hour, if nobody ends it.
    fn start(namesrv: SocketAddr) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let mut command = Command::new(binary());
        command.args(["bench", "send", "-t", "t", "--rate", "500"]);
        command.args(["--seconds", "3600", "-n", &namesrv.to_string()]);
        for (flag, name) in [("--json", "j"), ("--csv", "c"), ("--plot", "p.svg")] {
            command.arg(flag).arg(file(name));
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let log = Log::default();
        log.watch(child.stderr.take().unwrap());
        Running { child, log, dir }
    }

    /// Until a second of it is over.
    fn measuring(namesrv: SocketAddr) -> Running {
        let running = Running::start(namesrv);
        running.log.wait_for(&["send", "msg/s"]);
        running
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the end; gives the exit code and standard output.
    fn ended(&mut self) -> (Option<i32>, String) {
        let mut out = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        std::io::Read::read_to_string(&mut stdout, &mut out).unwrap();
        (self.child.wait().unwrap().code(), out)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What was saved, which is something.
    fn saved(&self) -> Outcome {
        let text = std::fs::read_to_string(self.file("j")).unwrap();
        let outcome: Outcome = serde_json::from_str(&text).unwrap();
        assert!(outcome.parts[0].messages > 0, "{text}");
        let svg = std::fs::read_to_string(self.file("p.svg")).unwrap();
        assert!(svg.contains("<svg"), "{svg}");
        assert!(std::fs::metadata(self.file("c")).unwrap().len() > 0);
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_ends_a_load_and_what_was_measured_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).start();
    for name in ["INT", "TERM"] {
        let mut load = Running::measuring(server.launch.namesrv);
        load.signal(name);
        let (code, out) = load.ended();
        assert_eq!(code, Some(VOID), "{}", load.log.text());
        assert!(out.contains("VOID:") && out.contains("msg/s"), "{out}");
        let saved = load.saved();
        assert_eq!(saved.broken, None);
        let why = &saved.void[0];
        let said = why.contains("interrupted after") && why.contains("of 3600 seconds");
        assert!(said, "{why}");
    }
    // A broker that gives no answers keeps the load from its end.
    let mut load = Running::measuring(server.launch.namesrv);
    server.signal("STOP");
    load.signal("INT");
    load.log.wait_for(&["interrupted:"]);
    load.signal("INT");
    let (code, out) = load.ended();
    server.signal("CONT");
    assert_eq!((code, out.as_str()), (Some(VOID), ""));
    load.log.wait_for(&["orbitmq: ended at once"]);
    assert!(!load.file("j").exists());
    server.stop();
}

#[test]
fn a_signal_before_the_load_ends_it_at_once() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut load = Running::start(silent.local_addr().unwrap());
    let asked = silent.accept().unwrap();
    load.signal("TERM");
    assert_eq!(load.ended(), (Some(VOID), String::new()));
    load.log.wait_for(&["before anything was measured"]);
    drop(asked);
}

#[test]
fn what_was_measured_until_the_broker_died_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).start();
    let mut load = Running::measuring(server.launch.namesrv);
    server.kill();
    let (code, out) = load.ended();
    assert_eq!(code, Some(FAILED), "{}", load.log.text());
    assert!(out.contains("BROKEN:"), "{out}");
    let broken = load.saved().broken.unwrap();
    let said = broken.contains("of 3600 seconds: the broker at") && broken.contains("is gone");
    assert!(said, "{broken}");
}

#[test]
fn a_broker_under_load_stops_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).start();
    let mut load = Running::measuring(server.launch.namesrv);
    server.stop();
    assert_eq!(load.ended().0, Some(FAILED), "{}", load.log.text());
}
