//! What `/proc` says: processor time of this thread, cost of the broker's process, what its disk
//! was told to write, time the hypervisor took.
//!
//! Sources: proc(5), `Documentation/admin-guide/iostats.rst`.

use std::fs::read_to_string;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::outcome::BrokerCost;

/// Of the times in `/proc/PID/stat` and `/proc/stat`: `USER_HZ`, 100 on every Linux of today.
const TICK_US: f64 = 10_000.0;
/// In `/proc/PID/statm`; every machine we run on has it.
const PAGE_BYTES: u64 = 4096;
/// In `/proc/diskstats`, whatever the device's own size.
const SECTOR_BYTES: u64 = 512;

/// Times of the calling thread, nanoseconds; 0 if the kernel does not say.
#[derive(Clone, Copy, Default, Debug)]
pub struct ThreadTime {
    /// On a core.
    pub ran: u64,
    /// Ready to run while another had the core.
    pub waited: u64,
}

impl ThreadTime {
    pub fn read() -> Self {
        thread_time(&read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
    }
}

fn thread_time(schedstat: &str) -> ThreadTime {
    let mut words = schedstat.split_whitespace().flat_map(str::parse);
    let mut next = || words.next().unwrap_or(0);
    ThreadTime {
        ran: next(),
        waited: next(),
    }
}

/// All time of the machine and that taken by the hypervisor, in ticks.
#[derive(Clone, Copy, Default, Debug)]
pub struct MachineTime {
    all: u64,
    stolen: u64,
}

impl MachineTime {
    pub fn read() -> Self {
        machine_time(&read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Share stolen since `before`, 0 to 1.
    pub fn steal_since(&self, before: &MachineTime) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let stolen = self.stolen.saturating_sub(before.stolen);
        if all == 0 {
            0.0
        } else {
            stolen as f64 / all as f64
        }
    }
}

fn machine_time(stat: &str) -> MachineTime {
    let line = stat
        .lines()
        .find(|line| line.starts_with("cpu "))
        .unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .flat_map(str::parse)
        .collect();
    MachineTime {
        all: ticks.iter().sum(),
        stolen: ticks.get(7).copied().unwrap_or(0),
    }
}

/// Counters of a process at one moment.
#[derive(Clone, Copy, Default, Debug)]
struct ProcessTime {
    user_ticks: u64,
    system_ticks: u64,
    rss_bytes: u64,
    /// System calls that read or write, if `/proc/PID/io` may be read.
    calls: Option<u64>,
}

/// Counters of a block device at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct DeviceTime {
    writes: u64,
    bytes: u64,
    /// `None` before Linux 5.5.
    syncs: Option<u64>,
}

/// Watches the broker's process from one moment to another.
#[derive(Debug)]
pub struct BrokerWatch {
    pid: u32,
    /// Major and minor number of the device under its data.
    device: Option<(u64, u64)>,
    began: Option<Moment>,
    rss_max_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    at: u64,
    process: ProcessTime,
    device: Option<DeviceTime>,
}

impl BrokerWatch {
    /// # Errors
    /// A sentence: there is no such process, or no such directory.
    pub fn new(pid: u32, data: Option<&Path>) -> Result<Self, String> {
        process_time(pid).ok_or(format!(
            "--broker-pid {pid}: there is no such process, or /proc may not be read"
        ))?;
        let device = match data {
            None => None,
            Some(dir) => Some(device_of(dir)?),
        };
        Ok(BrokerWatch {
            pid,
            device,
            began: None,
            rss_max_bytes: 0,
        })
    }

    fn moment(&self, at: u64) -> Option<Moment> {
        let device = self
            .device
            .and_then(|id| device_time(&read_to_string("/proc/diskstats").unwrap_or_default(), id));
        Some(Moment {
            at,
            process: process_time(self.pid)?,
            device,
        })
    }

    /// Begins to count; `at` in nanoseconds of the run's clock.
    pub fn begin(&mut self, at: u64) {
        self.began = self.moment(at);
        self.sample();
    }

    /// Looks at the memory.
    pub fn sample(&mut self) {
        let rss = process_time(self.pid).map_or(0, |process| process.rss_bytes);
        self.rss_max_bytes = self.rss_max_bytes.max(rss);
    }

    /// What was spent since it began, for so many messages; `None` if the process is gone.
    pub fn end(&mut self, at: u64, messages: u64) -> Option<BrokerCost> {
        let (began, ended) = (self.began?, self.moment(at)?);
        let per_message = |count: u64| count as f64 / messages.max(1) as f64;
        let us = |ticks: u64| ticks as f64 * TICK_US;
        let user = ended
            .process
            .user_ticks
            .saturating_sub(began.process.user_ticks);
        let system = ended
            .process
            .system_ticks
            .saturating_sub(began.process.system_ticks);
        let elapsed_us = (ended.at.saturating_sub(began.at).max(1)) as f64 / 1e3;
        let since = |now: u64, before: u64| per_message(now.saturating_sub(before));
        let device = began.device.zip(ended.device);
        Some(BrokerCost {
            user_us_per_message: us(user) / messages.max(1) as f64,
            system_us_per_message: us(system) / messages.max(1) as f64,
            cores: us(user + system) / elapsed_us,
            rss_bytes: ended.process.rss_bytes,
            rss_max_bytes: self.rss_max_bytes.max(ended.process.rss_bytes),
            calls_per_message: began
                .process
                .calls
                .zip(ended.process.calls)
                .map(|(before, now)| since(now, before)),
            device_bytes_per_message: device.map(|(before, now)| since(now.bytes, before.bytes)),
            device_writes_per_message: device.map(|(before, now)| since(now.writes, before.writes)),
            device_syncs_per_message: device
                .and_then(|(before, now)| Some(since(now.syncs?, before.syncs?))),
        })
    }
}

fn process_time(pid: u32) -> Option<ProcessTime> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (user_ticks, system_ticks) = cpu_ticks(&stat)?;
    let statm = read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())?;
    let io = read_to_string(format!("/proc/{pid}/io")).ok();
    Some(ProcessTime {
        user_ticks,
        system_ticks,
        rss_bytes: pages * PAGE_BYTES,
        calls: io.as_deref().and_then(calls),
    })
}

/// The name, which may hold anything, ends at the last parenthesis; 11 fields later the times.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn calls(io: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some(field("syscr:")? + field("syscw:")?)
}

/// The device under a directory.
fn device_of(dir: &Path) -> Result<(u64, u64), String> {
    let shown = dir.display();
    let meta = std::fs::metadata(dir)
        .map_err(|error| format!("--broker-data {shown} cannot be looked at: {error}"))?;
    let dev = meta.dev();
    let id = (
        (dev >> 8) & 0xFFF | (dev >> 32) & !0xFFF,
        dev & 0xFF | (dev >> 12) & 0xFFF_FF00,
    );
    let known = device_time(&read_to_string("/proc/diskstats").unwrap_or_default(), id);
    known.map(|_| id).ok_or(format!(
        "--broker-data {shown} lies on no block device of its own (overlay, tmpfs or network): \
         name a directory on a disk"
    ))
}

fn device_time(diskstats: &str, id: (u64, u64)) -> Option<DeviceTime> {
    let fields = diskstats.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        (number(0) == Some(id.0) && number(1) == Some(id.1)).then_some(fields)
    })?;
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    Some(DeviceTime {
        writes: number(7)?,
        bytes: number(9)? * SECTOR_BYTES,
        syncs: number(18),
    })
}

/// Tells the kernel to forget what it read and wrote: cold reads come from the disk.
///
/// # Errors
/// A sentence: only root may.
pub fn drop_caches() -> Result<(), String> {
    std::fs::write("/proc/sys/vm/drop_caches", "3").map_err(|error| {
        format!(
            "--drop-caches needs root ({error}): drop them yourself with \
             `sync; echo 3 > /proc/sys/vm/drop_caches` and pull, or leave the flag out"
        )
    })
}

/// Raises the soft limit of open files as far as `count` needs.
///
/// # Errors
/// A sentence: the hard limit is too low.
pub fn allow_files(count: u64) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let enough = |bound: Option<u64>| bound.is_none_or(|bound| bound >= count);
    if enough(limit.current) {
        return Ok(());
    }
    let raised = Rlimit {
        current: limit.maximum.map(|max| max.max(count)),
        ..limit
    };
    let raised = Rlimit {
        current: raised.current.or(Some(count)),
        ..raised
    };
    if enough(limit.maximum) && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    Err(format!(
        "{count} open files are needed and {} are allowed: raise the limit (`ulimit -n {count}`, \
         or LimitNOFILE of the service), or use fewer connections",
        limit.maximum.unwrap_or(0)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_and_steal() {
        let before = machine_time("cpu  10 0 10 70 0 0 5 5 9 9\ncpu0 1 1 1 1\n");
        let after = machine_time("cpu  20 0 20 140 0 0 10 10 9 9\n");
        assert_eq!((before.all, before.stolen), (100, 5));
        assert!((after.steal_since(&before) - 0.05).abs() < 1e-9);
        assert_eq!(MachineTime::default().steal_since(&after), 0.0);
    }

    #[test]
    fn fields_are_found() {
        let times = thread_time("7000 300 12\n");
        assert_eq!((times.ran, times.waited), (7000, 300));
        assert_eq!(thread_time("").ran, 0);
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0 20";
        assert_eq!(cpu_ticks(stat), Some((111, 222)));
        assert_eq!(
            calls("rchar: 1\nwchar: 2\nsyscr: 30\nsyscw: 12\n"),
            Some(42)
        );
        assert_eq!(calls("rchar: 1\n"), None);
        let disks = " 253 0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n 7 1 loop1 0\n";
        let device = device_time(disks, (253, 0)).unwrap();
        assert_eq!(
            (device.writes, device.bytes, device.syncs),
            (5, 7 * 512, Some(16))
        );
        assert_eq!(device_time(disks, (7, 1)), None);
        assert_eq!(device_time(disks, (8, 0)), None);
    }

    #[test]
    fn this_process_is_watched() {
        let mut watch = BrokerWatch::new(std::process::id(), None).unwrap();
        watch.begin(0);
        let cost = watch.end(1_000_000_000, 10).unwrap();
        assert!(cost.rss_max_bytes >= cost.rss_bytes && cost.rss_bytes > 0);
        assert!(cost.device_bytes_per_message.is_none());
        assert!(
            BrokerWatch::new(u32::MAX, None)
                .unwrap_err()
                .contains("no such process")
        );
        let nowhere = Some(Path::new("/nowhere"));
        assert!(BrokerWatch::new(std::process::id(), nowhere).is_err());
    }

    #[test]
    fn too_many_files_are_a_sentence() {
        allow_files(16).unwrap();
        let refused = allow_files(1 << 40).unwrap_err();
        assert!(refused.contains("ulimit -n"), "{refused}");
    }
}
