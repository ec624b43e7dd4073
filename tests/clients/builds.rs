//! Builds every client program once, in the background; a case waits only for its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// What a program is built into; several clients of the matrix may share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Program {
    Java5,
    Java4,
    Mqadmin,
    Proxy,
    Go,
    Python,
    Rust,
}

/// Why a program cannot run.
#[derive(Clone)]
pub enum Missing {
    Toolchain(String),
    Broken(String),
}

type Results = Arc<(Mutex<BTreeMap<Program, Result<(), Missing>>>, Condvar)>;

pub struct Builds {
    results: Results,
}

/// The directory of the client programs.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

impl Builds {
    /// Quick ones first and one after the other, the slow crate beside them.
    pub fn start(wanted: impl Iterator<Item = Program>) -> Self {
        let mut programs: Vec<Program> = wanted.collect();
        if programs.contains(&Program::Mqadmin) {
            // It looks at a group that this one keeps at work.
            programs.push(Program::Java5);
        }
        programs.sort();
        programs.dedup();
        let results: Results = Arc::default();
        let (slow, quick): (Vec<Program>, Vec<Program>) = programs
            .into_iter()
            .partition(|program| *program == Program::Rust);
        for list in [quick, slow] {
            let results = results.clone();
            thread::spawn(move || {
                for program in list {
                    let result = build(program);
                    results
                        .0
                        .lock()
                        .expect("no build panics")
                        .insert(program, result);
                    results.1.notify_all();
                }
            });
        }
        Self { results }
    }

    pub fn wait(&self, program: Program) -> Result<(), Missing> {
        let mut results = self.results.0.lock().expect("no build panics");
        loop {
            if let Some(result) = results.get(&program) {
                return result.clone();
            }
            results = self.results.1.wait(results).expect("no build panics");
        }
    }
}

fn build(program: Program) -> Result<(), Missing> {
    let home = home();
    match program {
        Program::Java5 => maven(&home.join("java"), "5.5.0"),
        Program::Java4 => maven(&home.join("java"), "4.9.8"),
        Program::Mqadmin => maven(&home.join("java/mqadmin"), "5.5.0"),
        Program::Proxy => maven(&home.join("java/proxy"), "5.5.0"),
        Program::Go => {
            let mut go = Command::new("go");
            go.args(["build", "-o", "target/go-client", "."]);
            finish(go.current_dir(home.join("go")))
        }
        Program::Python => python(&home.join("python")),
        Program::Rust => {
            let mut cargo = Command::new(std::env::var("CARGO").unwrap_or("cargo".to_owned()));
            cargo.args(["build", "--locked", "--target-dir", "target"]);
            finish(cargo.current_dir(home.join("rust")))
        }
    }
}

fn maven(directory: &Path, version: &str) -> Result<(), Missing> {
    if Command::new("java")
        .arg("-version")
        .stderr(Stdio::null())
        .status()
        .is_err()
    {
        return Err(Missing::Toolchain("java is not installed".to_owned()));
    }
    let mut maven = Command::new("mvn");
    maven.args([
        "-q",
        "-B",
        "package",
        &format!("-Drocketmq.version={version}"),
    ]);
    finish(maven.current_dir(directory))
}

/// The wheel carries its C++ library; nothing is compiled.
fn python(directory: &Path) -> Result<(), Missing> {
    if directory
        .join("target/site/rocketmq/librocketmq.so")
        .exists()
    {
        return Ok(());
    }
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "-q",
        "--target",
        "target/site",
        "-r",
        "requirements.txt",
    ]);
    finish(pip.current_dir(directory))
}

fn finish(command: &mut Command) -> Result<(), Missing> {
    let tool = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).output() {
        Err(error) => Err(Missing::Toolchain(format!("{tool}: {error}"))),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            // The crate may ask for a newer compiler than this repository does.
            if tool.contains("cargo") && text.contains("requires rustc") {
                return Err(Missing::Toolchain(text));
            }
            Err(Missing::Broken(format!(
                "build with {tool} failed:\n{text}"
            )))
        }
    }
}
