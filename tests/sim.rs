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
use rng::Rng;
use world::{FAULTS, Fault, World};

#[path = "sim/asker.rs"]
mod asker;
#[path = "sim/clerk.rs"]
mod clerk;
#[path = "sim/client.rs"]
mod client;
#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/keyed.rs"]
mod keyed;
#[path = "sim/lite.rs"]
mod lite;
#[path = "sim/locker.rs"]
mod locker;
#[path = "sim/model.rs"]
mod model;
#[path = "sim/mover.rs"]
mod mover;
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
#[path = "sim/ranker.rs"]
mod ranker;
#[path = "sim/replies.rs"]
mod replies;
#[path = "sim/resets.rs"]
mod resets;
#[path = "sim/retention.rs"]
mod retention;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/seeker.rs"]
mod seeker;
#[path = "sim/set.rs"]
mod set;
#[path = "sim/sifter.rs"]
mod sifter;
#[path = "sim/splitter.rs"]
mod splitter;
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
    run_altered(seed, sabotage, trace, |_| {})
}

/// A run by another plan than the seed's.
fn run_altered(
    seed: u64,
    sabotage: Sabotage,
    trace: bool,
    alter: impl FnOnce(&mut options::Plan),
) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut plan = options::plan(&mut rng, sabotage);
    alter(&mut plan);
    let mut world = World::new(plan, rng, trace);
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
        Sabotage::AckBeforeKept,
        Sabotage::OverwriteKept,
        Sabotage::LeaveKept,
        Sabotage::AcceptStaleTail,
        Sabotage::SkipGap,
        Sabotage::ForgetResets,
        Sabotage::LoseResets,
        Sabotage::ReplyToSender,
        Sabotage::PassUnread,
        Sabotage::GiveUnwanted,
        Sabotage::ForgetKeys,
        Sabotage::SearchLate,
        Sabotage::LoseCounts,
        Sabotage::TellPulled,
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

/// So are brokers that do something else than they are told to.
#[test]
fn disobedience() {
    if number("ORBITMQ_SEED").is_some() {
        return;
    }
    type Case = (&'static str, &'static str, fn(&mut options::Plan));
    let cases: [Case; 3] = [
        ("the least urgent first", "priorities", |plan| {
            plan.broker.pop_highest_first = false;
        }),
        ("nobody is refused", "split group", |plan| {
            plan.broker.control.reject_different_subscription = false;
            plan.traffic.refuses = true;
        }),
        ("everybody else is refused", "split group", |plan| {
            plan.broker.control.reject_different_subscription = true;
            plan.traffic.refuses = false;
        }),
    ];
    for (name, place, alter) in cases {
        let fails = |seed| run_altered(seed, Sabotage::None, false, alter).result.err();
        let caught = (0..SEEDS).find_map(|seed| Some((seed, fails(seed)?)));
        let (seed, error) = caught.unwrap_or_else(|| panic!("{name}: not caught"));
        assert!(error.contains(place), "{name}: {error}");
        println!("{name}: caught by seed {seed}: {error}");
    }
}
