//! Disks that rot, fill up and fail, and `store check` beside them.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use orbitmq::remoting::code::request as ask;

use crate::server::{Launch, PATIENCE, binary};
use crate::wire::Client;

/// Runs `store check`; gives the exit code and what it says on both outputs.
pub fn check_store(dir: &Path) -> (Option<i32>, String) {
    let ran = Command::new(binary())
        .args(["store", "check"])
        .arg(dir)
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.code(), String::from_utf8(said).unwrap())
}

/// A store with 60 messages of 20,000 bytes in one queue, each a batch of its own, stopped cleanly
/// or killed.
fn filled(dir: &Path, clean: bool) -> Launch {
    let launch = Launch::standalone(dir)
        .set("shards", 1)
        .set("checkpointInterval", 3_600_000)
        // So that each batch says that the one before it is durable.
        .set("flushDiskType", "SYNC_FLUSH");
    let server = launch.start();
    let mut client = Client::connect(launch.broker);
    client.create_topic("rot", 1);
    // The first pull makes the group.
    client.messages("rot", 0, 0);
    for at in 0..60u8 {
        client.sent("rot", 0, &[at; 20_000]);
    }
    assert_eq!(client.try_commit("rot", 0, 17).unwrap().code, 0);
    match clean {
        true => server.stop(),
        false => server.kill(),
    }
    launch
}

/// Where message `at` lies in the log, all of which is in the first segment.
fn place(log: &[u8], at: u8) -> usize {
    let body = [at; 20_000];
    let found = log.windows(body.len()).position(|window| window == body);
    found.expect("the message is in the log")
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("shard-00/log").join("0".repeat(20))
}

/// Turns one byte of message `at`.
fn rot(dir: &Path, at: u8) {
    let path = log_file(dir);
    let log = std::fs::read(&path).unwrap();
    let place = place(&log, at) as u64 + 10_000;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[!at], place).unwrap();
}

/// All files with their bytes, but for the lock.
fn bytes_of(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(bytes_of(&path)),
            false => found.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn a_sound_store_is_summed_up_and_left_alone() {
    for clean in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), clean);
        let before = bytes_of(dir.path());
        let (code, said) = check_store(dir.path());
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("no damage found"), "{said}");
        let row: Vec<_> = said.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((row[0], row[3], row[5]), ("0", "60", "1"), "{said}");
        assert!(bytes_of(dir.path()) == before, "the store was written to");
    }
    let (code, said) = check_store(Path::new("/nowhere"));
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn rot_in_what_was_durable_is_found_and_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let launch = filled(dir.path(), true);
    rot(dir.path(), 30);
    let (code, said) = check_store(dir.path());
    assert_eq!(code, Some(1), "{said}");
    for word in ["shard 0: shard-00/log/0000", "log offsets", "--salvage"] {
        assert!(said.contains(word), "{said}");
    }
    // The checkpoint stands behind the damage, so a start does not meet it; without it, it does.
    for slot in ["checkpoint.a", "checkpoint.b"] {
        std::fs::remove_file(dir.path().join("shard-00").join(slot)).unwrap();
    }
    let refused = launch.refused();
    for word in ["the log is damaged between offsets", "0000", "--salvage"] {
        assert!(refused.contains(word), "{refused}");
    }
    salvaged(&launch, 1);
}

#[test]
fn rot_behind_the_checkpoint_is_found_by_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let launch = filled(dir.path(), false);
    let server = launch.start();
    Client::connect(launch.broker).sent("rot", 0, b"behind it");
    server.kill();
    rot(dir.path(), 30);
    let refused = launch.refused();
    assert!(
        refused.contains("the log is damaged between offsets"),
        "{refused}"
    );
    assert_eq!(check_store(dir.path()).0, Some(1));
    salvaged(&launch, 1);
}

/// Starts behind the damage: `lost` messages are gone from offset 30 on, and that is said.
fn salvaged(launch: &Launch, lost: u64) {
    let server = launch.clone().arg("--salvage").start();
    server.log.wait_for(&["nothing usable between log offsets"]);
    let range = format!("lost {lost} messages, offsets 30 to {}", 29 + lost);
    server.log.wait_for(&["topic rot, queue 0", &range]);
    let mut client = Client::connect(launch.broker);
    let rest = client.messages("rot", 0, 30 + lost);
    assert_eq!(rest[0].body, [30 + lost as u8; 20_000]);
    client.send("rot", 0, b"goes on");
    server.stop();
    // Once is enough.
    launch.start().stop();
}

#[test]
fn a_torn_end_is_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let launch = filled(dir.path(), false);
    let server = launch.start();
    Client::connect(launch.broker).sent("rot", 0, b"the last batch");
    server.kill();
    let path = log_file(dir.path());
    let mut log = std::fs::read(&path).unwrap();
    let last = log
        .windows(14)
        .rposition(|window| window == b"the last batch");
    log[last.expect("the message is in the log")] ^= 1;
    std::fs::write(&path, log).unwrap();
    let server = launch.start();
    let mut client = Client::connect(launch.broker);
    client.all_messages("rot", 0, 60);
    assert_eq!(client.sent("rot", 0, b"again"), 60);
    server.stop();
    assert_eq!(check_store(dir.path()).0, Some(0));
}

/// A process that is killed right after an answer under `ASYNC_FLUSH` often leaves the message in
/// the page cache only; a slow machine may have written it already.
#[test]
fn what_only_the_page_cache_has_is_seen_and_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::standalone(dir.path())
        .set("shards", 1)
        .set("flushDiskType", "ASYNC_FLUSH");
    let mut put_back = 0;
    for at in 0..30 {
        let server = launch.start();
        let mut client = Client::connect(launch.broker);
        if at == 0 {
            client.create_topic("kept", 1);
        }
        assert_eq!(client.sent("kept", 0, b"in memory"), at);
        server.kill();
        let (code, said) = check_store(dir.path());
        assert_eq!(code, Some(0), "{said}");
        put_back += u32::from(said.contains("are in ahead only: the next start puts them back"));
        if put_back == 2 {
            let server = launch.start();
            let mut client = Client::connect(launch.broker);
            client.all_messages("kept", 0, at as u64 + 1);
            server.stop();
            let (_, said) = check_store(dir.path());
            assert!(!said.contains("ahead"), "{said}");
            return;
        }
    }
    panic!("{put_back} of 30 kills came before the disk");
}

#[test]
fn damage_beside_the_log_is_named_and_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let launch = filled(dir.path(), true);
    let shard = dir.path().join("shard-00");
    let named = |prefix: &str, folder: &Path| {
        let entries = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut paths = entries.filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(prefix)
        });
        paths
            .next()
            .unwrap_or_else(|| panic!("no {prefix} in {}", folder.display()))
    };
    let runs = shard.join("index");
    for (prefix, folder, at) in [
        ("snapshot-", &shard, 20),
        ("queue-", &runs, 4100),
        ("key-", &runs, 4100),
    ] {
        let path = named(prefix, folder);
        let sound = std::fs::read(&path).unwrap();
        let mut rotten = sound.clone();
        rotten[at] ^= 1;
        std::fs::write(&path, &rotten).unwrap();
        let (code, said) = check_store(dir.path());
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(prefix) && said.contains("rebuilt from the log"),
            "{said}"
        );
        // As the advice says.
        std::fs::remove_file(&path).unwrap();
        let server = launch.start();
        let mut client = Client::connect(launch.broker);
        assert_eq!(client.messages("rot", 0, 42)[0].body, [42; 20_000]);
        assert_eq!(client.committed("rot", 0), Some(17));
        server.stop();
        let (code, said) = check_store(dir.path());
        assert_eq!(code, Some(0), "{said}");
    }
}

/// A small ext4 file system in a file; `None` where it cannot be mounted.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(megabytes: u64) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("disk"));
        std::fs::create_dir(&at).unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(megabytes << 20).unwrap();
        let ran = |command: &mut Command| command.output().is_ok_and(|ran| ran.status.success());
        let disk = SmallDisk { dir };
        let made = ran(Command::new("mkfs.ext4").arg("-q").arg(&image))
            && ran(Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&at));
        if !made {
            println!("skipped: no loop file system can be mounted here");
        }
        made.then_some(disk)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

/// Sends until a send fails; gives how many were acknowledged and the refusal.
fn send_until_refused(client: &mut Client, topic: &str) -> (u64, crate::wire::Answer) {
    let body = vec![b'x'; 100_000];
    for acknowledged in 0..10_000 {
        let answer = client.send(topic, 0, &body);
        if answer.code != 0 {
            return (acknowledged, answer);
        }
    }
    panic!("the disk never filled up")
}

#[test]
fn a_full_disk_stops_writes_and_not_reads() {
    let Some(disk) = SmallDisk::mount(64) else {
        return;
    };
    let launch = Launch::standalone(&disk.path().join("store")).set("shards", 1);
    let server = launch.start();
    let mut client = Client::connect(launch.broker);
    client.create_topic("full", 1);
    client.messages("full", 0, 0);
    // Somebody else takes all there is.
    let other = disk.path().join("other");
    let file = std::fs::File::create(&other).unwrap();
    (0..).find(|at| file.write_all_at(&[1; 4096], at * 4096).is_err());
    let (acknowledged, refusal) = send_until_refused(&mut client, "full");
    assert_eq!(refusal.code, 14, "{refusal:?}");
    assert!(refusal.remark.contains("is full"), "{refusal:?}");
    assert_eq!(client.send("full", 0, b"small").code, 14);
    assert_eq!(client.messages("full", 0, acknowledged - 1).len(), 1);
    drop(file);
    std::fs::remove_file(&other).unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = client.send("full", 0, b"small");
        if answer.code != 14 {
            break;
        }
        assert!(Instant::now() < until, "not taken again: {answer:?}");
    }
    assert_eq!(client.messages("full", 0, acknowledged).len(), 1);
    let (_, took) = server.stop_by("TERM");
    assert!(took.as_secs() <= 6, "{took:?}");
    let (code, said) = check_store(&disk.path().join("store"));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_disk_without_room_for_a_log_refuses_the_start() {
    let Some(disk) = SmallDisk::mount(64) else {
        return;
    };
    let data = disk.path().join("store");
    let launch = Launch::standalone(&data)
        .set("shards", 1)
        .set("mappedFileSizeCommitLog", 128 << 20);
    let said = launch.refused();
    let place = data.display().to_string();
    for word in [&place, "No space left", "--data", "mappedFileSizeCommitLog"] {
        assert!(said.contains(word), "{said}");
    }
}

/// Shuts an ext4 file system down (FS_IOC_SHUTDOWN, without flushing): every access fails.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

#[test]
fn a_dead_disk_ends_acknowledgements() {
    assert_eq!(acknowledged_by_a_dead_disk("SYNC_FLUSH"), 0);
    // What the page cache has is acknowledged until the disk is written to again, 10 ms later.
    acknowledged_by_a_dead_disk("ASYNC_FLUSH");
}

fn acknowledged_by_a_dead_disk(flush: &str) -> u64 {
    let Some(disk) = SmallDisk::mount(64) else {
        return 0;
    };
    let launch = Launch::standalone(&disk.path().join("store"))
        .set("shards", 1)
        .set("flushDiskType", flush);
    let server = launch.start();
    let mut client = Client::connect(launch.broker);
    client.create_topic("dead", 1);
    client.messages("dead", 0, 0);
    for at in 0..10 {
        assert_eq!(client.sent("dead", 0, b"alive"), at);
    }
    let dead = Command::new("python3")
        .args(["-c", SHUTDOWN])
        .arg(disk.path())
        .output();
    assert!(
        dead.is_ok_and(|dead| dead.status.success()),
        "the disk cannot be shut down"
    );
    let (until, mut acknowledged) = (Instant::now() + PATIENCE, 0);
    let refusal = loop {
        let answer = client.send("dead", 0, b"lost");
        if answer.code != 0 {
            break answer;
        }
        acknowledged += 1;
        assert!(
            Instant::now() < until,
            "{acknowledged} sends and no refusal"
        );
    };
    assert_eq!(refusal.code, 14, "{refusal:?}");
    assert!(refusal.remark.contains("Input/output error"), "{refusal:?}");
    server.log.wait_for(&["a disk order failed"]);
    assert_eq!(client.send("dead", 0, b"lost").code, 14);
    client.all_messages("dead", 0, 10 + acknowledged);
    // A group that the log cannot enter is answered, not kept waiting.
    let fields = [
        ("consumerGroup", "new-group"),
        ("topic", "dead"),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "1"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
    ];
    client.call(ask::PULL_MESSAGE, &fields, b"");
    client.call(ask::PULL_MESSAGE, &fields, b"");
    let (_, took) = server.stop_by("TERM");
    assert!(took.as_secs() <= 6, "{took:?}");
    acknowledged
}
