//! Seeded runs of a whole broker with its name server and clients: virtual time, a network that
//! delays and cuts, disks that tear, forget and fail. What clients were told is checked against a
//! model; every seed runs twice and must give the same trace.
//!
//! `ORBITMQ_SEED=n` runs one seed and prints what happens; `ORBITMQ_SEEDS=n` says how many to run.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use orbitmq::store::Sabotage;
use world::{FAULTS, Fault, World};

#[path = "sim/client.rs"]
mod client;
#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/lite.rs"]
mod lite;
#[path = "sim/locker.rs"]
mod locker;
#[path = "sim/model.rs"]
mod model;
#[path = "sim/node.rs"]
mod node;
#[path = "sim/options.rs"]
mod options;
#[path = "sim/pending.rs"]
mod pending;
#[path = "sim/popper.rs"]
mod popper;
#[path = "sim/priority.rs"]
mod priority;
#[path = "sim/retention.rs"]
mod retention;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/set.rs"]
mod set;
#[path = "sim/world.rs"]
mod world;

const SEEDS: u64 = 2_000;
/// Seeds of a hundred that must meet each fault.
const PERCENT_MIN: u64 = 5;

/// What one run came to.
struct Outcome {
    hash: u64,
    faults: BTreeMap<Fault, u64>,
    acked: u64,
    pulled: u64,
    result: Result<(), String>,
}

fn run(seed: u64, sabotage: Sabotage, trace: bool) -> Outcome {
    let mut world = World::new(seed, sabotage, trace);
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    let result = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    let (acked, pulled) = (world.counts.acked, world.counts.pulled);
    Outcome {
        hash: world.hash,
        faults: std::mem::take(&mut world.faults),
        acked,
        pulled,
        result,
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[derive(Default)]
struct Tally {
    seeds: BTreeMap<Fault, u64>,
    acked: u64,
    pulled: u64,
    broken: Vec<(u64, String)>,
}

#[test]
fn seeds() {
    if let Some(seed) = number("ORBITMQ_SEED") {
        let outcome = run(seed, Sabotage::None, true);
        if let Err(error) = outcome.result {
            panic!("seed {seed}: {error}");
        }
        return;
    }
    let (began, count) = (Instant::now(), number("ORBITMQ_SEEDS").unwrap_or(SEEDS));
    let first = number("ORBITMQ_FIRST").unwrap_or(0);
    let (next, tally) = (AtomicU64::new(first), Mutex::new(Tally::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count || tally.lock().unwrap().broken.len() >= 10 {
                return;
            }
            let outcome = run(seed, Sabotage::None, false);
            let again = run(seed, Sabotage::None, false);
            let mut tally = tally.lock().unwrap();
            if let Err(error) = outcome.result {
                tally.broken.push((seed, error));
            } else if again.hash != outcome.hash {
                tally.broken.push((seed, "two runs differ".to_owned()));
            }
            for fault in outcome.faults.keys() {
                *tally.seeds.entry(*fault).or_default() += 1;
            }
            tally.acked += outcome.acked;
            tally.pulled += outcome.pulled;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let tally = tally.into_inner().unwrap();
    println!(
        "{count} seeds, twice each, in {:.1?} on {threads} threads",
        began.elapsed()
    );
    println!(
        "{} messages acknowledged, {} pulled",
        tally.acked, tally.pulled
    );
    for fault in FAULTS {
        let hit = tally.seeds.get(&fault).copied().unwrap_or(0);
        println!("{:<16} {hit:>6} seeds", format!("{fault:?}"));
    }
    for (seed, error) in &tally.broken {
        println!("ORBITMQ_SEED={seed}: {error}");
    }
    assert!(
        tally.broken.is_empty(),
        "seed {}: {}",
        tally.broken[0].0,
        tally.broken[0].1
    );
    for fault in FAULTS.into_iter().filter(|_| count >= 200) {
        let hit = tally.seeds.get(&fault).copied().unwrap_or(0);
        assert!(
            hit * 100 >= count * PERCENT_MIN,
            "{fault:?} in {hit} of {count} seeds only"
        );
    }
}

/// Bugs put in on purpose are found: else the checks above say nothing.
#[test]
fn mutants() {
    if number("ORBITMQ_SEED").is_some() {
        return;
    }
    for sabotage in [
        Sabotage::AckBeforeSync,
        Sabotage::AckBeforeHanded,
        Sabotage::AcceptStaleTail,
        Sabotage::SkipGap,
        Sabotage::UnlinkBeforeDurable,
    ] {
        let began = Instant::now();
        let caught =
            (0..SEEDS).find_map(|seed| Some((seed, run(seed, sabotage, false).result.err()?)));
        let (seed, error) = caught.unwrap_or_else(|| panic!("{sabotage:?} is not caught"));
        println!(
            "{sabotage:?} is caught by seed {seed} after {:.1?}: {error}",
            began.elapsed()
        );
    }
}
