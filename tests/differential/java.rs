//! Runs one Java source file with classes of the reference from Maven.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What `java` and `mvn` are needed for. `None`, with a word, where they are missing and the run is
/// not that of CI.
pub fn tools() -> Option<()> {
    let missing = ["java", "mvn"].into_iter().find(|tool| {
        let found = Command::new(tool)
            .arg("-version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        !found.is_ok_and(|status| status.success())
    });
    let Some(tool) = missing else {
        return Some(());
    };
    assert!(
        !std::env::var("CI").is_ok_and(|value| value == "true"),
        "{tool} is needed to compare with the reference"
    );
    eprintln!("SKIP: {tool} is not installed");
    None
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/java")
}

/// The jars that `pom.xml` names, in cargo's folder for tests; fetched once for all tests.
pub fn jars() -> PathBuf {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(fetch).clone()
}

fn fetch() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("differential/lib");
    let status = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(folder().join("pom.xml"))
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", target.display()))
        .status()
        .expect("mvn starts");
    assert!(status.success(), "mvn does not fetch the reference");
    target
}

/// Runs a source file of the folder with these lines as its input; gives the lines it prints.
pub fn run(source: &str, jars: &Path, input: &str) -> Vec<String> {
    let mut child = Command::new("java")
        .arg("-cp")
        .arg(jars.join("*"))
        .arg(folder().join(source))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("java starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("java ends");
    writer.join().unwrap().expect("java reads its input");
    assert!(output.status.success(), "{source} ends badly");
    let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
    text.lines().map(str::to_owned).collect()
}
