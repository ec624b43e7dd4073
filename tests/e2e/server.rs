//! Starts the binary and watches it.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything here may take, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Below the range from which the kernel takes ports for outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Listen, VIP two below, replication one above.
const PORT_STEP: u16 = 8;
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

pub fn binary() -> PathBuf {
    std::env::var_os("ORBITMQ_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_orbitmq").into(), PathBuf::from)
}

/// A port that is free, as is the one two below.
pub fn free_port() -> u16 {
    let steps = (PORTS.end - PORTS.start) / PORT_STEP;
    let start = (std::process::id() as u16).wrapping_mul(31);
    loop {
        let step = NEXT_PORT
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(start)
            % steps;
        let port = PORTS.start + step * PORT_STEP + 2;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port - 2) {
            return port;
        }
    }
}

/// The standard error of a process, line by line.
#[derive(Clone, Default)]
pub struct Log {
    shared: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Log {
    pub fn watch(&self, from: impl Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                log.shared.0.lock().unwrap().push(line);
                log.shared.1.notify_all();
            }
        });
    }

    pub fn text(&self) -> String {
        self.shared.0.lock().unwrap().join("\n")
    }

    pub fn count(&self, word: &str) -> usize {
        let lines = self.shared.0.lock().unwrap();
        lines.iter().filter(|line| line.contains(word)).count()
    }

    /// Waits for a line with all of `words`.
    pub fn wait_for(&self, words: &[&str]) -> String {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.shared.0.lock().unwrap();
        loop {
            let found = |line: &&String| words.iter().all(|word| line.contains(word));
            if let Some(line) = lines.iter().find(found) {
                return line.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {words:?} in:\n{}", lines.join("\n"));
            lines = self.shared.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// How to start a process.
#[derive(Clone)]
pub struct Launch {
    verb: &'static str,
    prefix: Vec<String>,
    binary: PathBuf,
    args: Vec<String>,
    pub data: PathBuf,
    pub broker: SocketAddr,
    pub namesrv: SocketAddr,
}

impl Launch {
    fn new(verb: &'static str, data: &Path) -> Launch {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Launch {
            verb,
            prefix: Vec::new(),
            binary: binary(),
            args: Vec::new(),
            data: data.to_owned(),
            broker: local(free_port()),
            namesrv: local(free_port()),
        }
    }

    /// Broker and name server in one, on two floating cores at most, with small segments.
    pub fn standalone(data: &Path) -> Launch {
        Launch::new("standalone", data).with_small_segments()
    }

    /// They stay, however full the disk of the test is.
    fn with_small_segments(self) -> Launch {
        self.set("mappedFileSizeCommitLog", 8 << 20)
            .set("diskSpaceCleanForciblyRatio", 95)
    }

    /// A broker that registers with `namesrv`.
    pub fn broker(data: &Path, namesrv: SocketAddr) -> Launch {
        let mut launch = Launch::new("broker", data).with_small_segments();
        launch.namesrv = namesrv;
        launch
    }

    pub fn namesrv(data: &Path) -> Launch {
        Launch::new("namesrv", data)
    }

    pub fn set(self, key: &str, value: impl std::fmt::Display) -> Launch {
        self.arg("--set").arg(&format!("{key}={value}"))
    }

    pub fn arg(mut self, arg: &str) -> Launch {
        self.args.push(arg.to_owned());
        self
    }

    /// Runs the binary through another program.
    pub fn through(mut self, prefix: &[&str]) -> Launch {
        self.prefix = prefix.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Runs a copy of the binary.
    pub fn binary(mut self, path: &Path) -> Launch {
        self.binary = path.to_owned();
        self
    }

    fn command(&self) -> Command {
        let mut command = match self.prefix.split_first() {
            None => Command::new(&self.binary),
            Some((program, args)) => {
                let mut command = Command::new(program);
                command.args(args).arg(&self.binary);
                command
            }
        };
        command.arg(self.verb).arg("--data").arg(&self.data);
        match self.verb {
            "standalone" => {
                command.arg("--listen").arg(self.broker.to_string());
                command
                    .arg("--namesrv-listen")
                    .arg(self.namesrv.to_string());
            }
            "broker" => {
                command.arg("--listen").arg(self.broker.to_string());
                command.arg("--namesrv").arg(self.namesrv.to_string());
            }
            _ => {
                command.arg("--listen").arg(self.namesrv.to_string());
            }
        }
        command.args(&self.args);
        let ours = |name: &String| name.starts_with("ORBITMQ_") || name == "NAMESRV_ADDR";
        for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        command
    }

    /// Starts and waits until clients can come.
    pub fn start(&self) -> Server {
        self.try_start()
            .unwrap_or_else(|(_, said)| panic!("not ready:\n{said}"))
    }

    /// As [`start`](Self::start); the exit code and standard error of what ended instead.
    pub fn try_start(&self) -> Result<Server, (Option<i32>, String)> {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let log = Log::default();
        log.watch(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        let out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Server {
            child,
            log,
            lines,
            ready: String::new(),
            launch: self.clone(),
        };
        match server.lines.recv_timeout(PATIENCE) {
            Ok(line) => server.ready = line,
            Err(_) => {
                let code = wait(&mut server.child, &server.log).code();
                return Err((code, server.log.text()));
            }
        }
        assert!(
            server.ready.starts_with("orbitmq ready "),
            "{}",
            server.ready
        );
        Ok(server)
    }

    /// Starts what must not start; gives what it says on standard error.
    pub fn refused(&self) -> String {
        let (code, said) = self.run();
        assert_eq!(code, Some(2), "{said}");
        said
    }

    /// Runs to the end; gives the exit code and standard error.
    pub fn run(&self) -> (Option<i32>, String) {
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let log = Log::default();
        let mut said = String::new();
        let mut stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let read = stderr.read_to_string(&mut said);
            read.map(|_| said).unwrap_or_default()
        });
        let status = wait(&mut child, &log);
        (status.code(), reader.join().unwrap())
    }
}

/// Sends a signal to a process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(sent.expect("kill is there").success());
}

fn wait(child: &mut Child, log: &Log) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("it does not end:\n{}", log.text());
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A running process. Killed when dropped.
pub struct Server {
    child: Child,
    pub log: Log,
    lines: Receiver<String>,
    pub ready: String,
    pub launch: Launch,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        wait(&mut self.child, &self.log);
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Sends a signal and waits for the end; gives exit code and how long it took.
    pub fn stop_by(mut self, signal: &str) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        self.signal(signal);
        let status = wait(&mut self.child, &self.log);
        (status.code(), begun.elapsed())
    }

    /// SIGTERM, which must end well.
    pub fn stop(self) {
        let log = self.log.clone();
        let (code, _) = self.stop_by("TERM");
        assert_eq!(code, Some(0), "{}", log.text());
    }

    /// Resident memory, bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
