//! A run from plan to outcome: its phases in order, what they gave in one form, and whether it may
//! be believed.

use super::crew::{Consume, Crew, Phase};
use super::find;
use super::hand::Until;
use super::haul::Timing;
use super::interrupt::Interrupt;
use super::judge::{judge, settings, take};
use super::link::Link;
use super::outcome::{FORMAT, Outcome, Step};
use super::plan::{From, Plan, Pop, Rate, Stop, Workload};
use super::proc::{BrokerWatch, allow_files, drop_caches};
use super::progress::{say, time};
use super::verify::Ledger;
use crate::shard::clock::Clock;

/// Connections that read when a run is verified.
const CHECKERS: usize = 4;
/// Rates that a ramp tries between the last that held and the first that did not.
const BISECTIONS: usize = 5;
/// Files a process has open besides connections.
const OTHER_FILES: u64 = 64;

/// How a run ended, and what the process says of it by its exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Sound = 0,
    Failed = 1,
    /// It could not begin because of its arguments.
    Refused = 2,
    /// Its figures may not be used.
    Void = 3,
}

/// Runs a plan. What was measured until something failed is in the outcome all the same.
pub fn run(plan: &Plan, interrupt: &Interrupt) -> (Outcome, Verdict) {
    let clock = Clock::start();
    let wall = clock.now().wall_ms;
    let mut outcome = Outcome {
        format: FORMAT,
        workload: plan.workload.name().to_owned(),
        label: plan.output.label.clone(),
        started_ms: wall,
        settings: settings(plan),
        closed_loop: plan.rate == Rate::Closed,
        asked_per_second: match plan.rate {
            Rate::Closed => None,
            Rate::Open { per_second, .. } => Some(per_second),
        },
        ..Outcome::default()
    };
    if let Err(error) = plan.check().and_then(|()| check_cores(plan)) {
        outcome.broken = Some(error);
        return (outcome, Verdict::Refused);
    }
    let worked =
        begin(plan, interrupt, clock, wall).and_then(|mut crew| work(&mut crew, &mut outcome));
    if let Err(error) = worked {
        outcome.broken.get_or_insert(error);
    }
    let verdict = match (&outcome.broken, outcome.void.is_empty()) {
        (Some(_), _) => Verdict::Failed,
        (None, false) => Verdict::Void,
        (None, true) => Verdict::Sound,
    };
    (outcome, verdict)
}

fn check_cores(plan: &Plan) -> Result<(), String> {
    let usable = core_affinity::get_core_ids().unwrap_or_default();
    let known = |id: &&usize| !usable.iter().any(|core| core.id == **id);
    match plan.cores.iter().find(known) {
        Some(id) => Err(format!(
            "core {id} cannot be used: it is not there or not allowed"
        )),
        None => Ok(()),
    }
}

fn begin<'a>(
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    clock: Clock,
    wall: i64,
) -> Result<Crew<'a>, String> {
    if let Some(id) = plan.cores.first() {
        // This thread too: the broker's core is not ours to use.
        core_affinity::set_for_current(core_affinity::CoreId { id: *id });
    }
    let data = plan.broker_data.as_deref();
    let watch = plan
        .broker_pid
        .map(|pid| BrokerWatch::new(pid, data))
        .transpose()?;
    let field = find::field(plan)?;
    if !field.created.is_empty() && !plan.output.quiet {
        let count = field.created.len();
        say(&format!(
            "made {count} topics, {} first; they stay until you delete them",
            field.created[0]
        ));
    }
    let places = field.places.len().max(1) as u64;
    let connections = (plan.connections + plan.members.max(CHECKERS)) as u64 * places;
    allow_files(connections + OTHER_FILES)?;
    // Runs differ in time or, started together, in their process.
    let run = (wall as u32) ^ std::process::id().rotate_left(16);
    let now = clock.now();
    Ok(Crew {
        plan,
        field,
        clock,
        wall_zero_ms: now.wall_ms - now.mono.0 as i64,
        run,
        watch,
        version: wall,
        interrupt,
    })
}

/// First and next offset of every queue, by its number.
fn survey(crew: &Crew<'_>) -> Result<(Vec<i64>, Vec<i64>), String> {
    let mut first = vec![0; crew.field.queues];
    let mut next = vec![0; crew.field.queues];
    for place in &crew.field.places {
        let mut link = Link::connect(&place.addr, crew.plan.style.codec)?;
        let found = find::offsets(&mut link, &crew.field, &place.targets)?;
        for (target, offsets) in place.targets.iter().zip(found) {
            (first[target.index as usize], next[target.index as usize]) = offsets;
        }
    }
    Ok((first, next))
}

fn phase(plan: &Plan, name: &'static str) -> Phase {
    Phase {
        name,
        parts: vec!["send"],
        warmup_seconds: plan.warmup_seconds,
        stop: plan.stop,
        send: Some(plan.rate),
        send_part: 0,
        consume: Consume::Nobody,
        consume_part: None,
        timing: Timing::Pull,
        until: Until::Time,
        begin: Vec::new(),
        end: Vec::new(),
        ignore_stored: false,
        verify: plan.verify,
    }
}

fn work(crew: &mut Crew<'_>, outcome: &mut Outcome) -> Result<(), String> {
    let plan = crew.plan;
    match plan.workload {
        Workload::Send | Workload::Batch | Workload::Topics => sends(crew, outcome),
        Workload::Pull | Workload::Push => reads(crew, outcome),
        Workload::E2e | Workload::Mixed => both(crew, outcome),
        Workload::Backlog => backlog(crew, outcome),
        Workload::Ramp => ramp(crew, outcome),
        Workload::Pop(pop) => pops(crew, outcome, pop),
        Workload::Query(_) => queries(crew, outcome),
        Workload::Delay(_) | Workload::Transaction(_) if !plan.workload.times_arrival() => {
            sends(crew, outcome)
        }
        Workload::Delay(_) | Workload::Transaction(_) => both(crew, outcome),
    }
}

fn sends(crew: &mut Crew<'_>, outcome: &mut Outcome) -> Result<(), String> {
    let phase = phase(crew.plan, "send");
    let begin = match crew.plan.verify {
        true => survey(crew)?.1,
        false => Vec::new(),
    };
    let done = crew.run(&phase)?;
    let interrupted = done.interrupted;
    let ledger = take(crew.plan, outcome, &phase, done);
    match ledger {
        Some(ledger) if outcome.broken.is_none() && !interrupted => {
            prove(crew, outcome, ledger, begin)
        }
        _ => Ok(()),
    }
}

/// Reads what was sent since `begin`, and compares.
fn prove(
    crew: &mut Crew<'_>,
    outcome: &mut Outcome,
    mut ledger: Ledger,
    begin: Vec<i64>,
) -> Result<(), String> {
    let (_, end) = survey(crew)?;
    let count: i64 = end.iter().zip(&begin).map(|(end, begin)| end - begin).sum();
    if !crew.plan.output.quiet {
        say(&format!(
            "verify   reading {count} messages back as group {}",
            crew.plan.group
        ));
    }
    let phase = Phase {
        parts: Vec::new(),
        send: None,
        consume: Consume::Pull(CHECKERS),
        until: Until::Drained,
        begin,
        end,
        warmup_seconds: 0,
        ..phase(crew.plan, "verify")
    };
    let done = crew.run(&phase)?;
    if let Some(read) = &done.ledger {
        ledger.merge(read);
    }
    outcome.broken = done.broken.map(|why| format!("verify: {why}"));
    if done.interrupted {
        let reason = "verify: interrupted before everything was read back";
        outcome.void.push(reason.to_owned());
    }
    judge(crew.plan, outcome, &ledger, done.interrupted);
    Ok(())
}

fn reads(crew: &mut Crew<'_>, outcome: &mut Outcome) -> Result<(), String> {
    let plan = crew.plan;
    let (first, next) = survey(crew)?;
    let push = plan.workload == Workload::Push;
    let phase = Phase {
        parts: vec![plan.workload.name()],
        send: None,
        consume: match push {
            true => Consume::Push(plan.members),
            false => Consume::Pull(plan.connections),
        },
        consume_part: Some(0),
        until: match plan.stop {
            Stop::Messages(count) => Until::Arrived(count),
            Stop::Seconds(_) => Until::Time,
        },
        begin: if plan.from == From::First {
            first
        } else {
            next
        },
        ..phase(plan, plan.workload.name())
    };
    let done = crew.run(&phase)?;
    take(plan, outcome, &phase, done);
    Ok(())
}

fn both(crew: &mut Crew<'_>, outcome: &mut Outcome) -> Result<(), String> {
    let plan = crew.plan;
    let (_, next) = survey(crew)?;
    let e2e = plan.workload.times_arrival();
    let phase = Phase {
        parts: match plan.workload {
            Workload::Delay(_) => vec!["lateness", "send"],
            _ if e2e => vec!["end to end", "send"],
            _ => vec!["send", "pull"],
        },
        send_part: usize::from(e2e),
        consume: match e2e {
            true => Consume::Push(plan.members),
            false => Consume::Pull(plan.members),
        },
        consume_part: Some(usize::from(!e2e)),
        timing: if e2e { Timing::Stamp } else { Timing::Pull },
        until: if e2e || plan.verify {
            Until::Chased
        } else {
            Until::Time
        },
        begin: next,
        ignore_stored: true,
        ..phase(plan, plan.workload.name())
    };
    let mixed_by_count = !e2e && matches!(plan.stop, Stop::Messages(_));
    let until = if mixed_by_count {
        Until::Chased
    } else {
        phase.until
    };
    let phase = Phase { until, ..phase };
    let done = crew.run(&phase)?;
    let interrupted = done.interrupted;
    if let Some(ledger) = take(plan, outcome, &phase, done) {
        judge(plan, outcome, &ledger, interrupted);
    }
    Ok(())
}

fn queries(crew: &mut Crew<'_>, outcome: &mut Outcome) -> Result<(), String> {
    let (begin, end) = survey(crew)?;
    let phase = Phase {
        parts: vec!["query"],
        begin,
        end,
        ..phase(crew.plan, "query")
    };
    let done = crew.run(&phase)?;
    take(crew.plan, outcome, &phase, done);
    Ok(())
}

/// Of what is there or, with producers, beside them.
fn pops(crew: &mut Crew<'_>, outcome: &mut Outcome, pop: Pop) -> Result<(), String> {
    let plan = crew.plan;
    let mut phase = Phase {
        parts: vec![if pop.sends { "end to end" } else { "pop" }],
        send: pop.sends.then_some(plan.rate),
        consume: Consume::Pop(plan.members, pop),
        timing: match pop.sends {
            true => Timing::Stamp,
            false => Timing::Pull,
        },
        until: match plan.stop {
            _ if pop.sends => Until::Chased,
            Stop::Messages(count) => Until::Arrived(count),
            Stop::Seconds(_) => Until::Time,
        },
        ..phase(plan, "pop")
    };
    if pop.ack_batch > 0 {
        phase.parts.push("ack");
    }
    if pop.sends {
        phase.send_part = phase.parts.len();
        phase.parts.push("send");
    }
    let done = crew.run(&phase)?;
    let interrupted = done.interrupted;
    if let Some(ledger) = take(plan, outcome, &phase, done) {
        judge(plan, outcome, &ledger, interrupted);
    }
    Ok(())
}

fn backlog(crew: &mut Crew<'_>, outcome: &mut Outcome) -> Result<(), String> {
    let plan = crew.plan;
    let (_, begin) = survey(crew)?;
    let build = phase(plan, "build");
    let build = Phase {
        parts: vec!["build"],
        ..build
    };
    let built = crew.run(&build)?;
    let interrupted = built.interrupted;
    let ledger = take(plan, outcome, &build, built);
    if outcome.broken.is_some() || interrupted {
        return Ok(());
    }
    if plan.drop_caches {
        drop_caches()?;
    }
    let (_, end) = survey(crew)?;
    let drain = Phase {
        parts: vec!["drain"],
        send: None,
        consume: Consume::Pull(plan.members),
        consume_part: Some(0),
        until: Until::Drained,
        stop: Stop::Messages(u64::MAX),
        warmup_seconds: 0,
        begin,
        end,
        ..phase(plan, "drain")
    };
    let drained = crew.run(&drain)?;
    let interrupted = drained.interrupted;
    let read = take(plan, outcome, &drain, drained);
    // The workload's main part stands first.
    outcome.parts.rotate_right(1);
    if let (Some(mut ledger), Some(read)) = (ledger, read) {
        ledger.merge(&read);
        judge(plan, outcome, &ledger, interrupted);
    }
    Ok(())
}

/// Doubles the rate until it does not hold, then halves the gap.
fn ramp(crew: &mut Crew<'_>, outcome: &mut Outcome) -> Result<(), String> {
    let ramp = crew.plan.ramp;
    let (mut held, mut failed): (f64, Option<f64>) = (0.0, None);
    let mut best: Option<(f64, Outcome)> = None;
    let mut rate = ramp.from;
    let mut bisections = 0;
    loop {
        let (trial, step) = attempt(crew, outcome, rate)?;
        let Some(step) = step else {
            outcome.void.clone_from(&trial.void);
            outcome.broken.clone_from(&trial.broken);
            best.get_or_insert((rate, trial));
            break;
        };
        outcome.steps.push(step.clone());
        if !step.held && !trial.void.is_empty() {
            // What stopped it is this process or the machine, so the broker may do more.
            outcome.void.clone_from(&trial.void);
            best.get_or_insert((rate, trial));
            break;
        }
        if step.held {
            held = rate;
            best = Some((rate, trial));
        } else {
            failed = Some(rate);
        }
        rate = match failed {
            None if held >= ramp.to => break,
            None => (2.0 * held).min(ramp.to),
            Some(_) if held == 0.0 => break,
            Some(above) => {
                bisections += 1;
                (held + above) / 2.0
            }
        };
        if bisections > BISECTIONS {
            break;
        }
    }
    match best {
        Some((rate, best)) => {
            outcome.parts = best.parts;
            outcome.generator = best.generator;
            outcome.broker = best.broker;
            outcome.asked_per_second = Some(rate);
        }
        None if outcome.broken.is_none() && outcome.void.is_empty() => {
            outcome.broken = Some(format!(
                "not even {:.0}/s held p99 within {}: lower --from-rate or raise --p99-ms",
                ramp.from,
                time(ramp.p99_max)
            ));
        }
        None => {}
    }
    Ok(())
}

/// One rate of a ramp. Without a step, which would judge it, if it was cut short.
fn attempt(
    crew: &mut Crew<'_>,
    outcome: &Outcome,
    rate: f64,
) -> Result<(Outcome, Option<Step>), String> {
    let ramp = crew.plan.ramp;
    let phase = Phase {
        send: Some(Rate::Open {
            per_second: rate,
            poisson: poisson(crew.plan),
        }),
        ..phase(crew.plan, "ramp")
    };
    let done = crew.run(&phase)?;
    let (broke, interrupted) = (done.broken.is_some(), done.interrupted);
    let mut trial = outcome.clone();
    take(crew.plan, &mut trial, &phase, done);
    if broke || interrupted {
        return Ok((trial, None));
    }
    let step = step(&trial, rate, ramp.p99_max);
    if !crew.plan.output.quiet {
        let word = if step.held { "holds" } else { "does not hold" };
        say(&format!(
            "ramp     {rate:.0}/s {word}: p99 {}",
            time(step.p99)
        ));
    }
    Ok((trial, Some(step)))
}

fn poisson(plan: &Plan) -> bool {
    matches!(plan.rate, Rate::Open { poisson: true, .. })
}

fn step(trial: &Outcome, asked: f64, p99_max: u64) -> Step {
    let part = trial.parts.first();
    let latency = part
        .and_then(|part| part.latency.clone())
        .unwrap_or_default();
    let failed = part.is_none_or(|part| !part.failures.is_empty());
    Step {
        asked_per_second: asked,
        messages_per_second: part.map_or(0.0, |part| part.messages_per_second),
        p50: latency.p50,
        p99: latency.p99,
        p999: latency.p999,
        held: trial.broken.is_none()
            && trial.void.is_empty()
            && !failed
            && latency.count > 0
            && latency.p99 <= p99_max,
    }
}
