//! Real, unmodified RocketMQ clients against a server: builds them, starts `orbitmq`, runs their
//! scenarios in parallel, kills and restarts the server under them, and prints a table.
//!
//! What always holds: every process started here is ended here; a client that cannot be built
//! because its toolchain is missing is a visible SKIP, and a failure when `CI=true`. What a
//! scenario proves is written in the client programs; the contract with them is in `README.md`.

mod builds;
mod docs;
mod job;
mod matrix;
mod mqadmin;
mod report;
mod server;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use builds::Builds;
use job::{Context, Gate};
use matrix::Case;
use report::{Outcome, Report};
use server::{Layout, Server};

/// Client processes at a time: most of them wait most of the time.
const SLOTS: usize = 6;
/// How long one of two brokers stays away.
const OUTAGE: Duration = Duration::from_secs(4);

/// One server and what is done to it.
struct Phase {
    name: &'static str,
    layout: Layout,
    /// The scenarios for it.
    cases: fn() -> Vec<Case>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<String> = arguments
        .iter()
        .filter(|text| !text.starts_with('-'))
        .cloned()
        .collect();
    let phases = phases();
    if arguments.iter().any(|text| text == "--list") {
        for phase in &phases {
            for case in chosen(phase, &filters) {
                println!("{}/{case}: test", phase.name);
            }
        }
        return;
    }
    let scratch = scratch();
    let report = Report::new(std::env::var("CI").is_ok_and(|value| value == "true"));
    let builds = Builds::start(
        phases
            .iter()
            .flat_map(|phase| chosen(phase, &filters))
            .map(|case| case.client.program),
    );
    for phase in &phases {
        let cases = chosen(phase, &filters);
        if !cases.is_empty() {
            run_phase(phase, cases, &scratch, &builds, &report);
        }
    }
    let failed = report.print();
    if failed {
        println!("server and client files are kept in {}", scratch.display());
    } else {
        let _ = std::fs::remove_dir_all(&scratch);
    }
    // The summary is the last line.
    println!("{}", report.summary());
    std::process::exit(i32::from(failed));
}

/// A server that already runs takes the place of all phases.
fn phases() -> Vec<Phase> {
    match std::env::var("ORBITMQ_TEST_NAMESRV") {
        Ok(namesrv) if namesrv.contains(';') => {
            vec![Phase {
                name: "given-cluster",
                layout: Layout::Given { namesrv },
                cases: matrix::cluster_cases,
            }]
        }
        Ok(namesrv) => {
            vec![Phase {
                name: "given",
                layout: Layout::Given { namesrv },
                cases: matrix::cases,
            }]
        }
        Err(_) => vec![
            Phase {
                name: "two-brokers",
                layout: Layout::TwoOfEach,
                cases: matrix::cluster_cases,
            },
            Phase {
                name: "refusing",
                layout: standalone(2, &["rejectDifferentSubscription=true"]),
                cases: matrix::refusing_cases,
            },
            Phase {
                name: "one-shard",
                layout: standalone(1, &[]),
                cases: matrix::cases,
            },
            Phase {
                name: "three-shards",
                layout: standalone(3, &[]),
                cases: matrix::cases,
            },
        ],
    }
}

fn standalone(shards: u32, settings: &'static [&'static str]) -> Layout {
    Layout::Standalone { shards, settings }
}

fn scratch() -> PathBuf {
    let stamp = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("clients-{stamp}"));
    std::fs::create_dir_all(&path).expect("a directory for this run");
    path
}

fn chosen(phase: &Phase, filters: &[String]) -> Vec<Case> {
    let mut cases = (phase.cases)();
    cases.retain(|case| {
        let name = format!("{}/{case}", phase.name);
        filters.iter().all(|filter| name.contains(filter.as_str()))
    });
    cases
}

fn run_phase(
    phase: &Phase,
    cases: Vec<Case>,
    scratch: &std::path::Path,
    builds: &Builds,
    report: &Report,
) {
    let directory = scratch.join(phase.name);
    let mut server = match Server::start(&phase.layout, &directory) {
        Ok(server) => server,
        Err(error) => {
            report.add(phase.name, "server", Duration::ZERO, Outcome::Fail(error));
            return;
        }
    };
    let stamp = std::process::id();
    let context = Context {
        phase: phase.name,
        namesrv: server.namesrv().to_owned(),
        directory,
        builds,
        report,
        stamp,
    };
    let (through, plain): (Vec<Case>, Vec<Case>) = cases
        .into_iter()
        .partition(|case| case.scenario == "restart");
    run_plain(&context, plain);
    if !through.is_empty() {
        run_through(&context, through, &mut server);
    }
    if let Some(text) = server.false_alarm() {
        report.add(phase.name, "warnings", Duration::ZERO, Outcome::Fail(text));
    }
    if let Some(text) = server.unexpected_end() {
        report.add(phase.name, "server", Duration::ZERO, Outcome::Fail(text));
    }
}

/// Runs the cases side by side, in the order given.
fn run_plain(context: &Context, cases: Vec<Case>) {
    let waiting = Mutex::new(cases.into_iter());
    thread::scope(|scope| {
        for _ in 0..SLOTS {
            scope.spawn(|| {
                while let Some(case) = next(&waiting) {
                    if case.client.name == "mqadmin" {
                        mqadmin::run(context);
                    } else if case.client.name == "docs" {
                        docs::run(context, &case);
                    } else {
                        job::run(context, &case, None);
                    }
                }
            });
        }
    });
}

fn next(waiting: &Mutex<std::vec::IntoIter<Case>>) -> Option<Case> {
    waiting.lock().expect("no client thread panics").next()
}

/// Runs all cases at once, restarts the server when each of them sends, and lets them end.
fn run_through(context: &Context, cases: Vec<Case>, server: &mut Server) {
    if let Err(reason) = server.can_restart() {
        for case in cases {
            let outcome = Outcome::Skip(reason.clone());
            context
                .report
                .add(context.phase, &case.to_string(), Duration::ZERO, outcome);
        }
        return;
    }
    // Clients must be ready together, or the first would wait for the last build. One that
    // cannot be built is reported as any other and takes no part.
    let (cases, absent): (Vec<Case>, Vec<Case>) = cases
        .into_iter()
        .partition(|case| context.builds.wait(case.client.program).is_ok());
    for case in absent {
        job::run(context, &case, None);
    }
    let (steady, arrivals) = mpsc::channel();
    let gate = Gate::new();
    thread::scope(|scope| {
        let count = cases.len();
        for case in cases {
            let (steady, gate) = (steady.clone(), &gate);
            scope.spawn(move || job::run(context, &case, Some((steady, gate))));
        }
        // A client that ends early says so on the same channel.
        for _ in 0..count {
            let _ = arrivals.recv();
        }
        if let Err(error) = server.crash_and_restart(OUTAGE) {
            context.report.add(
                context.phase,
                "server",
                Duration::ZERO,
                Outcome::Fail(error),
            );
        }
        gate.open();
    });
}
