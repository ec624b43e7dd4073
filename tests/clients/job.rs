//! One client process: its command line, its marks, its time limit, its result.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::builds::{Builds, Missing, Program, home};
use crate::matrix::Case;
use crate::report::{Outcome, Report};
use crate::server::tail;

/// No scenario may take longer, waiting for a restart included.
const LIMIT: Duration = Duration::from_secs(240);
const COUNT: u32 = 200;
const SEED: u32 = 7;

/// What all cases of a phase share.
pub struct Context<'a> {
    pub phase: &'static str,
    pub namesrv: String,
    pub directory: PathBuf,
    pub builds: &'a Builds,
    pub report: &'a Report,
    /// Makes names of topics new on a server that runs longer than this test.
    pub stamp: u32,
}

/// Holds the clients of a restart back until the server is there again.
pub struct Gate {
    opened: Mutex<bool>,
    change: Condvar,
}

impl Gate {
    pub fn new() -> Self {
        Self {
            opened: Mutex::new(false),
            change: Condvar::new(),
        }
    }

    pub fn open(&self) {
        *self.opened.lock().expect("no client thread panics") = true;
        self.change.notify_all();
    }

    fn pass(&self) {
        let mut opened = self.opened.lock().expect("no client thread panics");
        while !*opened {
            opened = self.change.wait(opened).expect("no client thread panics");
        }
    }
}

/// A client program at work.
pub struct Running {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    errors: PathBuf,
    end: Instant,
}

impl Running {
    pub fn start(context: &Context, case: &Case) -> Result<Self, String> {
        let name = format!("{}-{}", case.client.name, case.scenario).replace('.', "_");
        let directory = context.directory.join(&name);
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let mut command = command(case, &directory);
        command
            .args([case.scenario, "--namesrv", &context.namesrv])
            .args([
                "--topic",
                &topic(context, case),
                "--group",
                &format!("{name}-{}", context.stamp),
            ])
            .args(["--count", &COUNT.to_string(), "--seed", &SEED.to_string()])
            .env("HOME", &directory);
        let log = context.directory.join("server.log");
        if log.exists() {
            command.env("SERVER_LOG", log);
        }
        Running::spawn(command, &directory)
    }

    /// Starts a program whose lines are read; what else it says goes to a file in the folder.
    pub fn spawn(mut command: Command, directory: &Path) -> Result<Self, String> {
        let errors = directory.join("stderr");
        let stderr = File::create(&errors).map_err(|error| error.to_string())?;
        command
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = command
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let input = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            input,
            lines,
            errors,
            end: Instant::now() + LIMIT,
        })
    }

    /// Waits for a mark; otherwise answers what the program said instead.
    pub fn mark(&mut self, wanted: &str) -> Result<(), String> {
        let mut last = String::new();
        loop {
            match self.line()? {
                Some(line) if line == format!("mark {wanted}") => return Ok(()),
                Some(line) => last = line,
                None => return Err(self.failure(&last)),
            }
        }
    }

    pub fn say(&mut self, line: &str) {
        // A program that is gone shows in its result.
        let _ = writeln!(self.input, "{line}").and_then(|()| self.input.flush());
    }

    /// Waits for the end; the last line is the result.
    pub fn finish(mut self) -> Result<(), String> {
        let mut last = String::new();
        while let Some(line) = self.line()? {
            last = line;
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        let result: serde_json::Value = serde_json::from_str(&last).unwrap_or_default();
        if status.success() && result["ok"] == true {
            Ok(())
        } else {
            Err(self.failure(&last))
        }
    }

    /// Waits for the end; all it printed, if it ends well.
    pub fn printed(mut self) -> Result<String, String> {
        let mut printed = String::new();
        while let Some(line) = self.line()? {
            printed += &line;
            printed.push('\n');
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        match status.success() {
            true => Ok(printed),
            false => Err(self.failure(&printed)),
        }
    }

    /// The next line, or nothing after the last.
    fn line(&mut self) -> Result<Option<String>, String> {
        let left = self.end.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                Err(self.failure(&format!("not finished in {} s", LIMIT.as_secs())))
            }
        }
    }

    fn failure(&self, last: &str) -> String {
        format!("{last}\n{}", tail(&self.errors, 3000))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of the topic of a case.
pub fn topic(context: &Context, case: &Case) -> String {
    let client = case.client.name.replace('.', "_");
    format!(
        "{}-{client}-{}-{}",
        context.phase, case.scenario, context.stamp
    )
}

/// Runs a case and reports it. With a channel and a gate it takes part in a restart.
pub fn run(context: &Context, case: &Case, through: Option<(Sender<()>, &Gate)>) {
    let built = context.builds.wait(case.client.program);
    let begin = Instant::now();
    let outcome = match (built, through) {
        (Err(Missing::Toolchain(reason)), _) => Outcome::Skip(reason),
        (Err(Missing::Broken(output)), _) => Outcome::Fail(output),
        (Ok(()), through) => match attempt(context, case, through) {
            Ok(()) => Outcome::Pass,
            Err(output) => Outcome::Fail(output),
        },
    };
    context
        .report
        .add(context.phase, &case.to_string(), begin.elapsed(), outcome);
}

fn attempt(
    context: &Context,
    case: &Case,
    through: Option<(Sender<()>, &Gate)>,
) -> Result<(), String> {
    let started = Running::start(context, case);
    let Some((steady, gate)) = through else {
        return started?.finish();
    };
    let ready = started.and_then(|mut running| running.mark("steady").map(|()| running));
    // Said also by those that failed before: the restart must not wait for them.
    let _ = steady.send(());
    let mut running = ready?;
    gate.pass();
    running.say("restarted");
    running.finish()
}

fn command(case: &Case, directory: &Path) -> Command {
    let home = home();
    match case.client.program {
        Program::Java5 => java(
            &home.join("java/target/5.5.0"),
            case.client.options,
            directory,
        ),
        Program::Java4 => java(
            &home.join("java/target/4.9.8"),
            case.client.options,
            directory,
        ),
        Program::Proxy => {
            let target = home.join("java/proxy/target");
            // The client's own classes of gRPC come before the proxy's.
            let class_path = format!(
                "{0}/proxy-client.jar:{0}/lib/rocketmq-client-java-5.2.0.jar:{0}/lib/*",
                target.display()
            );
            let mut java = jvm(directory);
            java.args(["-Xmx512m", "-cp", &class_path, "clients.Proxy"]);
            java
        }
        Program::Mqadmin => unreachable!("mqadmin.rs runs these"),
        Program::Go => Command::new(home.join("go/target/go-client")),
        Program::Python => {
            let mut python = Command::new("python3");
            python.arg("-B").arg(home.join("python/client.py"));
            python.env("PYTHONPATH", home.join("python/target/site"));
            python
        }
        Program::Rust => Command::new(home.join("rust/target/debug/rust-client")),
    }
}

fn java(target: &Path, options: &[&str], directory: &Path) -> Command {
    let class_path = format!("{0}/java-client.jar:{0}/lib/*", target.display());
    let mut java = jvm(directory);
    java.args(options)
        .args(["-cp", &class_path, "clients.Main"]);
    java
}

/// A small virtual machine that starts quickly.
pub fn jvm(directory: &Path) -> Command {
    let mut java = Command::new("java");
    java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"])
        .arg(format!("-Duser.home={}", directory.display()));
    java
}
