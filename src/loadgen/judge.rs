//! What a phase gave, put into the outcome, and whether it may be believed: by what disturbed the
//! generator, and by what the broker refused, lost or did not manage.

use std::collections::BTreeMap;

use super::crew::{Done, Phase};
use super::hand::SECOND_NS;
use super::outcome::{GeneratorCost, Outcome};
use super::plan::{Due, Plan, Rate, Stop, Workload};
use super::progress::time;
use super::turn::LATE_NS_MAX;
use super::verify::{Ledger, complaint};
use crate::remoting::frame::Codec;

/// A thread busier than this is the limit itself.
const BUSY_MAX: f64 = 0.98;
const STEAL_MAX: f64 = 0.01;
/// A rate is reached from this share on; the noise of Poisson arrivals is allowed for.
const REACHED: f64 = 0.98;

/// Compares what was acknowledged with what came. With `interrupted` not everything that was stored
/// was waited for: then what is wrong with what came is said, and nothing is proved.
pub fn judge(plan: &Plan, outcome: &mut Outcome, ledger: &Ledger, interrupted: bool) {
    let mut verified = ledger.verdict(plan.allow_reorder || plan.workload.reorders());
    if interrupted {
        verified.lost = 0;
    }
    if outcome.broken.is_none() {
        outcome.broken = complaint(&verified);
    }
    let seen = verified.unacknowledged;
    // A half that is not committed is seen by nobody.
    if matches!(plan.workload, Workload::Transaction(_)) && seen > 0 && outcome.broken.is_none() {
        outcome.broken = Some(format!(
            "the broker broke its word: {seen} messages came that were not committed"
        ));
    }
    outcome.verified = (!interrupted).then_some(verified);
}

/// Puts what a phase gave into the outcome; gives what has to be compared yet.
pub fn take(plan: &Plan, outcome: &mut Outcome, phase: &Phase, mut done: Done) -> Option<Ledger> {
    let ledger = done.ledger.take();
    let broken = done.broken.take();
    outcome.broken = broken.map(|why| format!("after {}: {why}", lasted(phase, &done)));
    let timelines = std::mem::take(&mut done.timelines);
    let counts = done.counts.iter().zip(&done.seconds).zip(timelines);
    for (name, ((count, seconds), timeline)) in phase.parts.iter().zip(counts) {
        outcome.parts.push(count.part(name, *seconds, timeline));
    }
    if done.cost.is_some() {
        outcome.broker = done.cost.take();
    }
    let messages: u64 = done.counts.iter().map(|count| count.ever).sum();
    outcome.generator = GeneratorCost {
        us_per_message: done.cpu as f64 / 1e3 / messages.max(1) as f64,
        core_share: done.ran.max(outcome.generator.core_share),
        lag_p99: phase.send.filter(|rate| *rate != Rate::Closed).and(
            done.lag
                .as_ref()
                .and_then(|lag| lag.latency())
                .map(|lag| lag.p99),
        ),
        steal: done.steal.max(outcome.generator.steal),
    };
    disturb(plan, outcome, phase, &done);
    if outcome.broken.is_none() {
        outcome.broken = complain(phase, &done);
    }
    if outcome.broken.is_none() {
        compare_rate(outcome, phase, &done);
    }
    ledger
}

/// Why the figures may not be used.
fn disturb(plan: &Plan, outcome: &mut Outcome, phase: &Phase, done: &Done) {
    let (cost, wanted) = (&outcome.generator, done.wanted);
    let mut void = Vec::new();
    if done.interrupted {
        void.push(format!("interrupted after {}", lasted(phase, done)));
    }
    if let Some(lag) = cost.lag_p99.filter(|lag| *lag > plan.lag_max) {
        void.push(format!(
            "the generator was late: 1 of 100 messages by {} or more (bound {}); give it a core of \
             its own (--cores), or ask for less",
            time(lag),
            time(plan.lag_max)
        ));
    }
    if wanted >= BUSY_MAX {
        void.push(format!(
            "the generator, not the broker, was the limit: a thread wanted its core for {:.0} % of \
             the time and had it for {:.0} %; give it a core of its own or more of them (--cores), \
             or send more messages per request",
            100.0 * wanted,
            100.0 * cost.core_share
        ));
    }
    if cost.steal > STEAL_MAX {
        void.push(format!(
            "the hypervisor took {:.1} % of the machine's time: repeat on a quiet host",
            100.0 * cost.steal
        ));
    }
    for reason in void {
        let reason = format!("{}: {reason}", phase.name);
        if !outcome.void.contains(&reason) {
            outcome.void.push(reason);
        }
    }
}

/// How much of a phase was done, as `2.9 of 60 seconds`.
fn lasted(phase: &Phase, done: &Done) -> String {
    let seconds = done.seconds.iter().copied().fold(0.0, f64::max);
    match (phase.stop, done.counts.first()) {
        (Stop::Seconds(whole), _) => format!("{seconds:.1} of {whole} seconds"),
        (Stop::Messages(whole), Some(count)) if whole < u64::MAX => {
            let messages = count.messages;
            format!("{seconds:.1} seconds and {messages} of {whole} messages")
        }
        (Stop::Messages(_), _) => format!("{seconds:.1} seconds"),
    }
}

/// What the broker did wrong, or did not do.
fn complain(phase: &Phase, done: &Done) -> Option<String> {
    for (name, count) in phase.parts.iter().zip(&done.counts) {
        if let Some(remark) = &count.remark {
            let (failed, all) = (count.failed(), count.failed() + count.requests);
            return Some(format!(
                "{failed} of {all} {name} requests were refused, first with {remark}"
            ));
        }
        if count.gaps > 0 {
            let gaps = count.gaps;
            return Some(format!(
                "{gaps} times a queue offset did not follow its predecessor"
            ));
        }
    }
    if done.unanswered > 0 {
        return Some(format!(
            "{} requests had no answer {} s after the end: the broker is stuck or gone; look at \
             its log",
            done.unanswered,
            LATE_NS_MAX / SECOND_NS
        ));
    }
    if done.interrupted {
        return None;
    }
    let mut counted = phase.parts.iter().zip(&done.counts);
    let (name, _) = counted.find(|(_, count)| count.messages == 0)?;
    Some(format!("{name}: no message came through while measuring"))
}

/// Says if the rate that was asked for was not reached.
fn compare_rate(outcome: &mut Outcome, phase: &Phase, done: &Done) {
    let Some(Rate::Open { per_second, .. }) = phase.send else {
        return;
    };
    let name = phase.parts[phase.send_part];
    let part = outcome.parts.iter().rev().find(|part| part.name == name);
    let Some(part) = part.filter(|_| !done.interrupted) else {
        return;
    };
    let noise = 3.0 / (per_second * part.seconds).max(1.0).sqrt();
    let reached = part.messages_per_second >= per_second * (REACHED - noise);
    // What is over within a second says little about a rate.
    if done.unsent == 0 && (reached || part.seconds < 1.0) {
        return;
    }
    let what = format!(
        "the rate was not reached: {per_second:.0}/s were asked for, {:.0}/s came through, {} \
         requests waited for room in flight and {} were never sent",
        part.messages_per_second, done.held, done.unsent
    );
    if !outcome.void.is_empty() {
        let why = "who was too slow cannot be told";
        outcome.void.push(format!("{}: {what}: {why}", phase.name));
        return;
    }
    let by = if done.held > 0 {
        "the broker answers too slowly; ask for less, or raise --in-flight or --connections"
    } else {
        "ask for less, or give the generator more cores"
    };
    outcome.broken = Some(format!("{what}: {by}"));
}

/// What was asked for, as words.
pub fn settings(plan: &Plan) -> BTreeMap<String, String> {
    let style = &plan.style;
    let mut settings = BTreeMap::new();
    let mut put = |name: &str, value: String| {
        settings.insert(name.to_owned(), value);
    };
    put("topic", plan.topic.clone());
    put(
        "codec",
        if style.codec == Codec::Json {
            "json"
        } else {
            "binary"
        }
        .to_owned(),
    );
    put("nameServers", plan.name_servers.join(";"));
    if plan.workload.sends() {
        put("topics", plan.topics.to_string());
        put("bodyBytes", style.body.to_string());
        put("batch", style.batch.to_string());
        put("seed", style.seed.to_string());
        put("loop", plan.rate.to_string());
    }
    if plan.workload.sends() || plan.workload == Workload::Pull {
        put("connections", plan.connections.to_string());
        put("inFlight", plan.in_flight().to_string());
    }
    if !matches!(
        plan.workload,
        Workload::Send | Workload::Batch | Workload::Topics
    ) {
        put("group", plan.group.clone());
        put("members", plan.members.to_string());
        put("pullBatch", plan.pull_batch.to_string());
    }
    match plan.stop {
        Stop::Messages(count) => put("messages", count.to_string()),
        Stop::Seconds(seconds) => put("seconds", seconds.to_string()),
    };
    put("warmupSeconds", plan.warmup_seconds.to_string());
    put("threads", plan.cores.len().max(plan.threads).to_string());
    if !plan.cores.is_empty() {
        let cores: Vec<String> = plan.cores.iter().map(usize::to_string).collect();
        put("cores", cores.join(","));
    }
    if plan.spin {
        put("spin", "true".to_owned());
    }
    if plan.verify {
        put("verify", "true".to_owned());
    }
    features(plan.workload, put);
    settings
}

/// What was asked for of delays, transactions, pops and queries.
fn features(workload: Workload, mut put: impl FnMut(&str, String)) {
    match workload {
        Workload::Delay(delay) => {
            match delay.due {
                Due::After(ms) => put("delayMs", ms.to_string()),
                Due::Level(level) => put("delayLevel", level.to_string()),
                Due::AtOnce(ms) => put("dueAtOnceMs", ms.to_string()),
            }
            put("consume", delay.consume.to_string());
        }
        Workload::Transaction(transaction) => {
            match transaction.rollback_percent {
                Some(percent) => put("rollbackPercent", percent.to_string()),
                None => put("leaveOpen", "true".to_owned()),
            }
            put("consume", transaction.consume.to_string());
        }
        Workload::Pop(pop) => {
            put("invisibleMs", pop.invisible_ms.to_string());
            put("ackBatch", pop.ack_batch.to_string());
        }
        Workload::Query(query) => {
            put("by", query.by.name().to_owned());
            put("samples", query.samples.to_string());
        }
        _ => {}
    }
}
