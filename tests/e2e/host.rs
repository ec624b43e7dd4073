//! What the host or the configuration does not give: exit code 2, one sentence, nothing made.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::server::{Launch, binary, free_port};
use crate::wire::Client;

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id is there");
    id.stdout.starts_with(b"0\n")
}

/// Refused with one sentence that has all of `words`, and nothing is left in `data`.
fn check_refused(launch: &Launch, words: &[&str]) {
    let before = entries(&launch.data);
    let said = launch.refused();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("orbitmq: "), "{said}");
    for word in words {
        assert!(last.contains(word), "no {word:?} in: {said}");
    }
    assert_eq!(entries(&launch.data), before, "something was left behind");
}

/// Names below a directory; `None` if it is not there.
fn entries(dir: &Path) -> Option<Vec<String>> {
    let found = std::fs::read_dir(dir).ok()?;
    let mut names: Vec<_> = found
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Some(names)
}

#[test]
fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut launch = Launch::standalone(&dir.path().join("new/store"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    launch.broker = taken.local_addr().unwrap();
    let addr = launch.broker.to_string();
    check_refused(&launch, &["broker", &addr, "another process listens there"]);
    assert!(!dir.path().join("new").exists(), "folders were left behind");
    launch.broker.set_port(free_port());
    launch.namesrv = taken.local_addr().unwrap();
    check_refused(&launch, &["name server", &addr, "another port"]);
}

#[test]
fn a_store_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).set("shards", 1).start();
    let pid = format!("process {}", server.pid());
    check_refused(
        &Launch::standalone(dir.path()),
        &["in use by", &pid, "choose another"],
    );
    let check = Command::new(binary())
        .args(["store", "check"])
        .arg(dir.path())
        .output();
    let check = check.unwrap();
    assert_eq!(check.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&check.stderr).contains(&pid));
    assert_eq!(
        Client::connect(server.launch.broker).sent("in-use", 0, b"unharmed"),
        0
    );
    server.stop();
}

#[test]
fn a_store_that_may_not_be_written_is_refused() {
    if !is_root() {
        return println!("skipped: only root can become somebody else");
    }
    let dir = tempfile::tempdir().unwrap();
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let program = dir.path().join("orbitmq");
    std::fs::copy(binary(), &program).unwrap();
    let open = |path: &Path, mode: &str| {
        assert!(
            Command::new("chmod")
                .arg(mode)
                .arg(path)
                .status()
                .unwrap()
                .success()
        );
    };
    open(dir.path(), "755");
    let data = dir.path().join("data");
    let launch = Launch::standalone(&data).through(&nobody).binary(&program);
    check_refused(
        &launch,
        &["cannot create the data directory", "for this user"],
    );
    std::fs::create_dir(&data).unwrap();
    check_refused(&launch, &["not writable", "give it to this user"]);
    // Once it is given, the same start works.
    open(&data, "777");
    launch.start().stop();
}

#[test]
fn a_file_system_without_direct_io_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        Command::new(args[0])
            .args(&args[1..])
            .arg(dir.path())
            .output()
    };
    let mounted = mount(&["mount", "-t", "ramfs", "none"]);
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        return println!("skipped: no memory file system can be mounted here");
    }
    let store = dir.path().join("store");
    let (code, said) = Launch::standalone(&store).run();
    let left = store.exists();
    mount(&["umount", "-l"]).unwrap();
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("cannot do direct I/O: use ext4 or XFS on a local disk"),
        "{said}"
    );
    assert!(!left, "the store was left behind");
}

#[test]
fn little_lockable_memory_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::standalone(&dir.path().join("store"));
    let launch = launch.through(&["prlimit", "--memlock=65536:65536"]);
    let server = launch.start();
    let mut client = Client::connect(server.launch.broker);
    assert_eq!(client.sent("memlock", 0, b"x"), 0);
    server.stop();
}

#[test]
fn a_host_without_io_uring_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let python = Command::new("python3").arg("--version").output();
    if python.is_err() {
        return println!("skipped: python3 installs the seccomp filter");
    }
    let script = dir.path().join("no_uring.py");
    std::fs::write(&script, NO_IO_URING).unwrap();
    let script = script.to_str().unwrap();
    let launch = Launch::standalone(&dir.path().join("store")).through(&["python3", script]);
    check_refused(&launch, &["io_uring", "seccomp"]);
}

/// Forbids io_uring_setup (425) with a seccomp filter, then becomes its arguments. x86-64 and
/// arm64 number the call alike.
const NO_IO_URING: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
ins = lambda code, jt, jf, k: struct.pack("HBBI", code, jt, jf, k)
program = (ins(0x20, 0, 0, 0) + ins(0x15, 0, 1, 425)
           + ins(0x06, 0, 0, 0x00050001) + ins(0x06, 0, 0, 0x7fff0000))
buffer = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
filter = Filter(4, ctypes.cast(buffer, ctypes.c_void_p))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn configuration_mistakes_are_placed() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str, words: &[&str]| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let launch = Launch::standalone(&dir.path().join("store"));
        check_refused(&launch.arg("--config").arg(file.to_str().unwrap()), words);
    };
    let toml = "brokerName = \"x\"\nflushDiskTyp = \"SYNC_FLUSH\"\n";
    check(
        "a.toml",
        toml,
        &["a.toml:2", "flushDiskTyp", "flushDiskType"],
    );
    check("b.toml", "\nshards = \"two\"\n", &["b.toml:2", "shards"]);
    check("c.toml", "shards = 0\n", &["c.toml:1", "shards", "64"]);
    check("d.toml", "shards = = 1\n", &["d.toml:1"]);
    let properties = "# Java's\nbrokerName=x\nfileReservedTim=1\n";
    check(
        "e.conf",
        properties,
        &["e.conf:3", "fileReservedTim", "fileReservedTime"],
    );
    check(
        "f.conf",
        "flushDiskType=MAYBE\n",
        &["f.conf:1", "SYNC_FLUSH"],
    );
    let launch = Launch::standalone(&dir.path().join("store"));
    let launch = launch.set("mappedFileSizeCommitLog", 4 << 20);
    check_refused(&launch, &["segment", "maxMessageSize"]);
}
