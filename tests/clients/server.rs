//! The server under test: started on free ports, killed, started again, ended with the run.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use orbitmq::remoting::code::request;
use orbitmq::remoting::command::FrameWriter;
use orbitmq::remoting::frame::Codec;

const READY: &str = "orbitmq ready ";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The brokers of the layout with two.
const BROKERS: [&str; 2] = ["broker-a", "broker-b"];
/// Below the ports that outgoing connections get, so that none of them takes a dead server's.
const PORTS: std::ops::Range<u16> = 12_000..31_000;

#[derive(Clone)]
pub enum Layout {
    Standalone {
        shards: u32,
    },
    TwoOfEach,
    /// Somebody else's server; `ORBITMQ_TEST_RESTART` names a program that restarts it.
    Given {
        namesrv: String,
    },
}

pub struct Server {
    namesrv: String,
    parts: Vec<Part>,
    /// Indexes of the parts to kill in the middle.
    victims: Vec<usize>,
    /// Names of brokers that every name server must know.
    brokers: Vec<&'static str>,
    given: bool,
}

/// One process.
struct Part {
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Server {
    pub fn start(layout: &Layout, directory: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        match layout {
            Layout::Standalone { shards } => Self::standalone(*shards, directory),
            Layout::TwoOfEach => Self::two_of_each(directory),
            Layout::Given { namesrv } => Ok(Self {
                namesrv: namesrv.clone(),
                parts: Vec::new(),
                victims: Vec::new(),
                brokers: Vec::new(),
                given: true,
            }),
        }
    }

    fn standalone(shards: u32, directory: &Path) -> Result<Self, String> {
        let mut ports = Ports::new();
        let (broker, namesrv) = (ports.pick(), ports.pick());
        let arguments = [
            "standalone",
            "--listen",
            &address(broker),
            "--namesrv-listen",
            &address(namesrv),
            "--data",
            &text(&directory.join("data")),
            "--set",
            &format!("shards={shards}"),
            "--set",
            "flushDiskType=SYNC_FLUSH",
            "--set",
            "enablePropertyFilter=true",
            "--set",
            "recallMessageEnable=true",
            "--set",
            "enableLmq=true",
            "--set",
            "enableMultiDispatch=true",
        ]
        .map(str::to_owned);
        let part = Part::start(arguments.to_vec(), directory.join("server.log"))?;
        Ok(Self {
            namesrv: address(namesrv),
            parts: vec![part],
            victims: vec![0],
            brokers: Vec::new(),
            given: false,
        })
    }

    fn two_of_each(directory: &Path) -> Result<Self, String> {
        let mut ports = Ports::new();
        let servers = [address(ports.pick()), address(ports.pick())];
        let mut parts = Vec::new();
        for (number, listen) in servers.iter().enumerate() {
            let data = text(&directory.join(format!("namesrv-{number}")));
            let arguments =
                ["namesrv", "--namesrv-listen", listen, "--data", &data].map(str::to_owned);
            let log = directory.join(format!("namesrv-{number}.log"));
            parts.push(Part::start(arguments.to_vec(), log)?);
        }
        let namesrv = servers.join(";");
        for name in BROKERS {
            let arguments = [
                "broker",
                "--listen",
                &address(ports.pick()),
                "--namesrv",
                &namesrv,
                "--data",
                &text(&directory.join(name)),
                "--set",
                &format!("brokerName={name}"),
                "--set",
                "flushDiskType=SYNC_FLUSH",
            ]
            .map(str::to_owned);
            let log = directory.join(format!("{name}.log"));
            parts.push(Part::start(arguments.to_vec(), log)?);
        }
        Ok(Self {
            namesrv,
            parts,
            victims: vec![0, 2],
            brokers: BROKERS.to_vec(),
            given: false,
        })
    }

    /// As clients want it: `host:port`, several separated by `;`.
    pub fn namesrv(&self) -> &str {
        &self.namesrv
    }

    pub fn can_restart(&self) -> Result<(), String> {
        if self.given && std::env::var("ORBITMQ_TEST_RESTART").is_err() {
            return Err("ORBITMQ_TEST_RESTART is not set".to_owned());
        }
        Ok(())
    }

    /// Kills what is to be killed, leaves it dead for `outage` where others go on, starts it.
    pub fn crash_and_restart(&mut self, outage: Duration) -> Result<(), String> {
        if self.given {
            return run_restart_program();
        }
        for victim in &self.victims {
            self.parts[*victim].kill();
        }
        if self.parts.len() > 1 {
            thread::sleep(outage);
        }
        for victim in &self.victims {
            self.parts[*victim].launch()?;
        }
        self.wait_for_routes()
    }

    /// A name server that came back hears of the brokers that lived on with their next try; a
    /// client that asks it before that misses half of the queues, as with the reference.
    fn wait_for_routes(&self) -> Result<(), String> {
        let end = Instant::now() + READY_WITHIN;
        for name_server in self.namesrv.split(';') {
            while !self.brokers.iter().all(|name| knows(name_server, name)) {
                if Instant::now() > end {
                    return Err(format!("{name_server} does not hear of all brokers"));
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// The log of a part that ended by itself.
    pub fn unexpected_end(&mut self) -> Option<String> {
        let ended = self.parts.iter_mut().find_map(|part| {
            let status = part.child.as_mut()?.try_wait().ok()??;
            Some((status, part.log.clone()))
        })?;
        Some(format!(
            "the server ended with {}:\n{}",
            ended.0,
            tail(&ended.1, 4000)
        ))
    }
}

/// Whether a name server lists a broker.
fn knows(name_server: &str, broker: &str) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(name_server)?;
        stream.set_read_timeout(Some(READY_WITHIN))?;
        let mut frame = Vec::new();
        let code = request::GET_BROKER_CLUSTER_INFO;
        FrameWriter::request(&mut frame, Codec::Json, 1, code, false).finish(0);
        stream.write_all(&frame)?;
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let mut answer = vec![0; u32::from_be_bytes(len) as usize];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    let named = format!("\"{broker}\"");
    ask().is_ok_and(|answer| {
        answer
            .windows(named.len())
            .any(|bytes| bytes == named.as_bytes())
    })
}

fn run_restart_program() -> Result<(), String> {
    let program = std::env::var("ORBITMQ_TEST_RESTART").map_err(|error| error.to_string())?;
    // Its server lives on and would hold a pipe open: no output is taken.
    let status = Command::new(&program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{program}: {status}"))
    }
}

impl Part {
    fn start(arguments: Vec<String>, log: PathBuf) -> Result<Self, String> {
        let mut part = Self {
            arguments,
            log,
            child: None,
        };
        part.launch()?;
        Ok(part)
    }

    /// Starts the process and waits for the line that says it serves.
    fn launch(&mut self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(&self.log);
        let mut log = log.map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_orbitmq"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|error| error.to_string())?;
        let stdout = child.stdout.take().expect("stdout is piped");
        self.child = Some(child);
        let (ready, wait) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
                if line.starts_with(READY) {
                    let _ = ready.send(());
                }
            }
        });
        if wait.recv_timeout(READY_WITHIN).is_err() {
            self.kill();
            let arguments = self.arguments.join(" ");
            return Err(format!(
                "orbitmq {arguments}: not ready\n{}",
                tail(&self.log, 4000)
            ));
        }
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that nobody listens on, each once.
struct Ports {
    next: u16,
}

impl Ports {
    fn new() -> Self {
        let spread = u32::from(PORTS.end - PORTS.start);
        let offset = std::process::id().wrapping_mul(37) % spread;
        Self {
            next: PORTS.start + u16::try_from(offset).unwrap_or(0),
        }
    }

    /// Clients with the VIP channel also connect two below the port.
    fn pick(&mut self) -> u16 {
        loop {
            let port = self.next;
            self.next = if port + 10 < PORTS.end {
                port + 10
            } else {
                PORTS.start
            };
            let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
            if free(port) && free(port - 2) && free(port + 1) {
                return port;
            }
        }
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The last bytes of a file, as text.
pub fn tail(path: &Path, bytes: usize) -> String {
    let content = std::fs::read(path).unwrap_or_default();
    let from = content.len().saturating_sub(bytes);
    String::from_utf8_lossy(&content[from..]).into_owned()
}
