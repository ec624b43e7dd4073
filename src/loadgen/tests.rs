//! Runs against a broker of a few lines, which answers as it is told.

use std::net::TcpListener;

use fake::{Fake, Mood};

use super::interrupt::Interrupt;
use super::outcome::{Latency, Outcome};
use super::plan::{Delay, Due, From, Output, Plan, Pop, Ramp, Rate, Stop, Transaction, Workload};
use super::run::Verdict;
use super::{BodySize, Style};
use crate::remoting::frame::Codec;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

fn plan(addr: &str, workload: Workload) -> Plan {
    Plan {
        workload,
        name_servers: vec![addr.to_owned()],
        topic: "T".to_owned(),
        topics: 1,
        queues: 4,
        connections: 2,
        in_flight: Some(3),
        rate: Rate::Closed,
        stop: Stop::Messages(100),
        warmup_seconds: 0,
        style: Style {
            codec: Codec::Json,
            body: BodySize::Fixed(64),
            batch: 1,
            tags: Vec::new(),
            keys: false,
            properties: Vec::new(),
            seed: 1,
        },
        cores: Vec::new(),
        threads: 2,
        spin: false,
        group: "g".to_owned(),
        members: 2,
        pull_batch: 8,
        from: From::First,
        verify: false,
        allow_reorder: false,
        lag_max: SECOND,
        broker_pid: None,
        broker_data: None,
        drop_caches: false,
        ramp: Ramp {
            from: 100.0,
            to: 400.0,
            p99_max: SECOND,
        },
        output: Output {
            quiet: true,
            ..Output::default()
        },
    }
}

fn open(per_second: f64) -> Rate {
    Rate::Open {
        per_second,
        poisson: false,
    }
}

fn run(plan: &Plan) -> (Outcome, Verdict) {
    super::run::run(plan, &Interrupt::default())
}

/// A run that nothing is wrong with. Whether it is void depends on the machine it runs on.
fn sound(plan: &Plan) -> Outcome {
    let (outcome, verdict) = run(plan);
    assert_eq!(outcome.broken, None, "{plan:?}");
    assert!(
        matches!(verdict, Verdict::Sound | Verdict::Void),
        "{verdict:?}"
    );
    outcome
}

fn failed(plan: &Plan, expected: &str) -> Outcome {
    let (outcome, verdict) = run(plan);
    let broken = outcome.broken.clone().unwrap_or_default();
    assert!(broken.contains(expected), "{plan:?} gave {broken:?}");
    assert!(
        matches!(verdict, Verdict::Failed | Verdict::Refused),
        "{verdict:?}"
    );
    outcome
}

#[test]
fn sends_end_as_told() {
    let fake = Fake::start(Mood::Serving);
    let closed = plan(&fake.addr, Workload::Send);
    let outcome = sound(&closed);
    let part = &outcome.parts[0];
    assert_eq!((part.messages, part.requests, part.bytes), (100, 100, 6400));
    assert_eq!(part.latency.as_ref().unwrap().count, 100);
    assert!(outcome.closed_loop && outcome.generator.lag_p99.is_none());
    let timed = Plan {
        in_flight: None,
        rate: open(1000.0),
        stop: Stop::Seconds(1),
        warmup_seconds: 1,
        style: Style {
            codec: Codec::Binary,
            batch: 5,
            ..closed.style.clone()
        },
        ..closed.clone()
    };
    let outcome = sound(&timed);
    let part = &outcome.parts[0];
    assert_eq!(
        (part.messages, part.requests, part.seconds),
        (1000, 200, 1.0)
    );
    assert!(
        part.timeline.iter().any(|second| second.at == -1),
        "{:?}",
        part.timeline
    );
    assert!(!outcome.closed_loop && outcome.generator.lag_p99.is_some());
    let chance = Rate::Open {
        per_second: 2000.0,
        poisson: true,
    };
    let spread = BodySize::Between(50, 100);
    let style = Style {
        body: spread,
        keys: true,
        ..closed.style.clone()
    };
    sound(&Plan {
        in_flight: None,
        rate: chance,
        style,
        spin: true,
        threads: 1,
        ..closed
    });
}

#[test]
fn consumers_get_what_was_sent() {
    let fake = Fake::start(Mood::Serving);
    sound(&plan(&fake.addr, Workload::Send));
    let pulled = sound(&plan(&fake.addr, Workload::Pull));
    assert!(pulled.parts[0].messages >= 100);
    let pushed = sound(&plan(&fake.addr, Workload::Push));
    assert_eq!(
        (pushed.parts[0].name.as_str(), pushed.parts[0].messages),
        ("push", 100)
    );
    assert_eq!(
        fake.positions().values().sum::<i64>(),
        100,
        "members commit before they leave"
    );
    let stop = Stop::Seconds(1);
    let e2e = Plan {
        in_flight: None,
        rate: open(500.0),
        stop,
        verify: true,
        ..plan(&fake.addr, Workload::E2e)
    };
    let outcome = sound(&e2e);
    let names: Vec<&str> = outcome
        .parts
        .iter()
        .map(|part| part.name.as_str())
        .collect();
    assert_eq!(names, ["end to end", "send"]);
    assert_eq!(
        (outcome.parts[0].messages, outcome.parts[1].messages),
        (500, 500)
    );
    let verified = outcome.verified.unwrap();
    assert_eq!(
        (verified.acknowledged, verified.received, verified.lost),
        (500, 500, 0)
    );
    let mixed = sound(&Plan {
        workload: Workload::Mixed,
        verify: false,
        ..e2e
    });
    assert_eq!(mixed.parts[1].name, "pull");
    let backlog = Plan {
        verify: true,
        ..plan(&fake.addr, Workload::Backlog)
    };
    let outcome = sound(&backlog);
    assert_eq!(
        (outcome.parts[0].name.as_str(), outcome.parts[0].messages),
        ("drain", 100)
    );
    assert_eq!(outcome.verified.unwrap().received, 100);
}

fn names(outcome: &Outcome) -> Vec<&str> {
    let parts = outcome.parts.iter();
    parts.map(|part| part.name.as_str()).collect()
}

/// A run at a rate, verified.
fn checked(fake: &Fake, workload: Workload) -> Outcome {
    sound(&Plan {
        in_flight: None,
        rate: open(500.0),
        stop: Stop::Messages(250),
        verify: true,
        ..plan(&fake.addr, workload)
    })
}

#[test]
fn messages_for_later_are_timed_from_when_they_were_due() {
    one_of(3, || {
        let fake = Fake::start(Mood::Serving);
        for due in [Due::After(100), Due::AtOnce(4000)] {
            let outcome = checked(&fake, Workload::Delay(Delay { due, consume: true }));
            assert_eq!(names(&outcome), ["lateness", "send"]);
            assert_eq!(outcome.verified.as_ref().unwrap().received, 250);
            let lateness = outcome.parts[0].latency.clone().unwrap();
            assert_eq!(lateness.count, 250);
            // The fake holds a pull for 5 ms.
            near("p50", lateness.p50 as f64, 5.0 * MS as f64, 2.0)?;
        }
        Ok(())
    });
    let fake = Fake::start(Mood::Serving);
    let (due, consume) = (Due::After(3_600_000), false);
    let filled = sound(&plan(&fake.addr, Workload::Delay(Delay { due, consume })));
    assert_eq!(names(&filled), ["send"]);
    assert_eq!((fake.stored(), fake.hidden()), (0, 100));
}

#[test]
fn transactions_are_ended() {
    let transaction = |rollback_percent, consume| {
        Workload::Transaction(Transaction {
            rollback_percent,
            consume,
        })
    };
    let fake = Fake::start(Mood::Serving);
    let outcome = checked(&fake, transaction(Some(20), true));
    assert_eq!(names(&outcome), ["end to end", "send"]);
    let counts = (outcome.parts[0].messages, outcome.parts[1].messages);
    assert_eq!(counts, (200, 250));
    assert_eq!(outcome.verified.unwrap().acknowledged, 200);
    assert_eq!((fake.stored(), fake.hidden()), (200, 0));
    let fake = Fake::start(Mood::Serving);
    sound(&plan(&fake.addr, transaction(None, false)));
    assert_eq!((fake.stored(), fake.hidden()), (0, 100));
    let fake = Fake::start(Mood::CommitsAll);
    let plan = Plan {
        verify: true,
        ..plan(&fake.addr, transaction(Some(50), true))
    };
    failed(&plan, "the broker broke its word");
}

#[test]
fn what_is_popped_is_acknowledged() {
    let pop = |ack_batch, sends| {
        Workload::Pop(Pop {
            invisible_ms: 60_000,
            ack_batch,
            sends,
        })
    };
    for ack_batch in [1, 5] {
        let fake = Fake::start(Mood::Serving);
        sound(&plan(&fake.addr, Workload::Send));
        let outcome = sound(&plan(&fake.addr, pop(ack_batch, false)));
        assert_eq!(names(&outcome), ["pop", "ack"]);
        assert_eq!(outcome.parts[0].messages, 100);
        assert_eq!(outcome.parts[1].messages, 100);
        assert_eq!(fake.leased(), 0);
        let outcome = checked(&fake, pop(ack_batch, true));
        assert_eq!(names(&outcome), ["end to end", "ack", "send"]);
        assert_eq!(outcome.verified.unwrap().received, 250);
        assert_eq!(fake.leased(), 0);
    }
    let fake = Fake::start(Mood::Serving);
    sound(&plan(&fake.addr, Workload::Send));
    let outcome = sound(&plan(&fake.addr, pop(0, false)));
    assert_eq!((names(&outcome), fake.leased()), (vec!["pop"], 100));
    let fake = Fake::start(Mood::NoGroup);
    failed(
        &plan(&fake.addr, pop(1, false)),
        "a pop of T was refused with SUBSCRIPTION_GROUP_NOT_EXIST",
    );
}

#[test]
fn a_ramp_ends_at_its_bound() {
    let fake = Fake::start(Mood::Serving);
    let stop = Stop::Seconds(1);
    let outcome = sound(&Plan {
        stop,
        ..plan(&fake.addr, Workload::Ramp)
    });
    let asked: Vec<f64> = outcome
        .steps
        .iter()
        .map(|step| step.asked_per_second)
        .collect();
    assert!(asked.starts_with(&[100.0]), "{asked:?}");
    if outcome.void.is_empty() {
        assert_eq!(asked, [100.0, 200.0, 400.0]);
        assert_eq!(outcome.asked_per_second, Some(400.0));
    }
    let ramp = Ramp {
        from: 100.0,
        to: 400.0,
        p99_max: 1,
    };
    let (none, _) = run(&Plan {
        ramp,
        stop,
        ..plan(&fake.addr, Workload::Ramp)
    });
    let broken = none.broken.unwrap_or_default();
    assert!(
        !none.void.is_empty() || broken.contains("raise --p99-ms"),
        "{broken}"
    );
}

#[test]
fn failures_are_sentences() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let send = |addr: &str| plan(addr, Workload::Send);
    let mood = |mood| Fake::start(mood).addr;
    failed(&send(&closed), "cannot be reached");
    failed(&send(&closed), "pass --namesrv");
    failed(&send("nonsense"), "give host:port");
    failed(
        &send(&mood(Mood::NoTopic)),
        "the name server knows no broker",
    );
    let pull = plan(&mood(Mood::NoTopic), Workload::Pull);
    failed(&pull, "no route for topic T");
    let busy = failed(
        &send(&mood(Mood::Busy)),
        "refused, first with SYSTEM_BUSY 2: not now",
    );
    assert!(busy.parts[0].messages > 0 && busy.parts[0].failures["SYSTEM_BUSY 2"] > 0);
    failed(
        &send(&mood(Mood::Full)),
        "first with SERVICE_NOT_AVAILABLE 14",
    );
    failed(&send(&mood(Mood::Garbage)), "unreadable");
    let fake = Fake::start(Mood::Holes);
    sound(&send(&fake.addr));
    let stop = Stop::Seconds(1);
    let pull = plan(&fake.addr, Workload::Pull);
    failed(&Plan { stop, ..pull }, "did not follow its predecessor");
    let fake = Fake::start(Mood::NoGroup);
    failed(
        &plan(&fake.addr, Workload::Pull),
        "refused with SUBSCRIPTION_GROUP_NOT_EXIST",
    );
    let cores = Plan {
        cores: vec![100_000],
        ..send(&fake.addr)
    };
    failed(&cores, "core 100000 cannot be used");
    let short = Plan {
        verify: true,
        ..send(&fake.addr)
    };
    let style = Style {
        body: BodySize::Fixed(39),
        ..short.style.clone()
    };
    failed(&Plan { style, ..short }, "40 bytes");
}

#[test]
fn what_was_measured_until_the_broker_died_is_kept() {
    let fake = Fake::start(Mood::Hangup(50));
    let outcome = failed(&plan(&fake.addr, Workload::Send), "is gone or hung up");
    let messages = outcome.parts[0].messages;
    assert!((1..=50).contains(&messages), "{messages}");
    let text = serde_json::to_string(&outcome).unwrap();
    let when = format!("seconds and {messages} of 100 messages: the broker at");
    assert!(text.contains(&when), "{text}");
    let fake = Fake::start(Mood::Hangup(50));
    let stop = Stop::Seconds(1);
    let ramp = Plan {
        stop,
        ..plan(&fake.addr, Workload::Ramp)
    };
    let outcome = failed(&ramp, "of 1 seconds: the broker at");
    assert!(outcome.parts[0].messages > 0 && outcome.steps.is_empty());
}

#[test]
fn a_broker_that_falls_silent_is_said() {
    let (after, lasts) = (SECOND / 5, 3600 * SECOND);
    let fake = Fake::start(Mood::Stall { after, lasts });
    let silent = Plan {
        rate: open(500.0),
        in_flight: None,
        stop: Stop::Seconds(1),
        ..plan(&fake.addr, Workload::Send)
    };
    let outcome = failed(&silent, "requests had no answer 5 s after the end");
    assert!(outcome.parts[0].messages > 0);
}

/// Runs until the broker has stored as many messages as that, and is interrupted then.
fn interrupted(fake: &Fake, plan: &Plan, stored: usize) -> Outcome {
    let interrupt = Interrupt::default();
    let (outcome, verdict) = std::thread::scope(|scope| {
        let run = scope.spawn(|| super::run::run(plan, &interrupt));
        while (fake.stored() < stored || interrupt.ask().is_err()) && !run.is_finished() {
            std::thread::yield_now();
        }
        run.join().unwrap()
    });
    assert_eq!(outcome.broken, None, "{plan:?}");
    assert_eq!(verdict, Verdict::Void, "{plan:?}");
    let said = outcome.void.iter().any(|why| why.contains("interrupted"));
    assert!(said, "{:?}", outcome.void);
    outcome
}

#[test]
fn what_was_measured_until_an_interrupt_is_kept() {
    let fake = Fake::start(Mood::Serving);
    let stop = Stop::Seconds(3600);
    let check = |change: &dyn Fn(Plan) -> Plan, workload: Workload, parts: &[&str]| {
        let plan = change(Plan {
            stop,
            ..plan(&fake.addr, workload)
        });
        let outcome = interrupted(&fake, &plan, fake.stored() + 50);
        let names: Vec<&str> = outcome.parts.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, parts);
        assert!(outcome.parts[0].messages >= 50, "{outcome:?}");
        outcome
    };
    let closed = check(&|plan| plan, Workload::Send, &["send"]);
    assert!(
        closed.void[0].contains(" of 3600 seconds"),
        "{:?}",
        closed.void
    );
    let count = |plan| Plan {
        stop: Stop::Messages(1 << 40),
        verify: true,
        ..plan
    };
    let counted = check(&count, Workload::Send, &["send"]);
    assert!(counted.void[0].contains("of 1099511627776 messages"));
    assert!(counted.verified.is_none(), "nothing was read back");
    check(&count, Workload::Backlog, &["build"]);
    let timed = |plan| Plan {
        rate: open(2000.0),
        in_flight: None,
        verify: true,
        ..plan
    };
    check(&timed, Workload::E2e, &["end to end", "send"]);
    check(&timed, Workload::Mixed, &["send", "pull"]);
    let ramp = check(&|plan| plan, Workload::Ramp, &["send"]);
    assert!(ramp.steps.is_empty() && ramp.asked_per_second == Some(100.0));
    for workload in [Workload::Pull, Workload::Push] {
        for stop in [stop, Stop::Messages(u64::MAX - 1)] {
            let plan = Plan {
                stop,
                ..plan(&fake.addr, workload)
            };
            interrupted(&fake, &plan, 0);
        }
    }
}

#[test]
fn an_interrupt_while_warming_up_leaves_nothing_measured() {
    let fake = Fake::start(Mood::Serving);
    let warm = Plan {
        warmup_seconds: 3600,
        stop: Stop::Seconds(60),
        ..plan(&fake.addr, Workload::Send)
    };
    let outcome = interrupted(&fake, &warm, 1);
    assert_eq!(outcome.parts[0].messages, 0);
    assert_eq!(outcome.void[0], "send: interrupted after 0.0 of 60 seconds");
}

#[test]
fn a_rate_that_is_not_reached_is_said() {
    let fake = Fake::start(Mood::Late(100 * MS));
    let rate = open(100.0);
    let slow = Plan {
        rate,
        stop: Stop::Seconds(1),
        ..plan(&fake.addr, Workload::Send)
    };
    let (outcome, _) = run(&slow);
    let what = "the rate was not reached: 100/s were asked for";
    match outcome.broken {
        Some(broken) => assert!(broken.contains(what) && broken.contains("--in-flight")),
        None => assert!(outcome.void.last().unwrap().contains(what)),
    }
}

fn verified(mood: Mood, batch: usize) -> (Outcome, Verdict) {
    let fake = Fake::start(mood);
    let plan = Plan {
        verify: true,
        connections: 1,
        ..plan(&fake.addr, Workload::Send)
    };
    let style = Style {
        batch,
        ..plan.style.clone()
    };
    run(&Plan { style, ..plan })
}

#[test]
fn a_broker_that_breaks_its_word_is_caught() {
    let check = |mood, expected: [u64; 4]| {
        let (outcome, verdict) = verified(mood, 1);
        let seen = outcome.verified.unwrap();
        let wrong = [seen.lost, seen.duplicated, seen.reordered, seen.corrupt];
        assert_eq!((seen.acknowledged, wrong), (100, expected), "{mood:?}");
        let sound = expected == [0; 4];
        assert_eq!(
            verdict == Verdict::Failed,
            !sound,
            "{mood:?}: {:?}",
            outcome.broken
        );
    };
    check(Mood::Serving, [0; 4]);
    check(Mood::Dropped, [1, 0, 0, 0]);
    check(Mood::Doubled, [0, 1, 0, 0]);
    check(Mood::Swapped, [0, 0, 1, 0]);
    check(Mood::Spoiled, [1, 0, 0, 1]);
    let (outcome, _) = verified(Mood::Serving, 7);
    assert_eq!(outcome.verified.unwrap().received, 105);
}

/// A test that compares times may be disturbed by what else the machine does; once is enough.
fn one_of(attempts: usize, mut attempt: impl FnMut() -> Result<(), String>) {
    let mut last = String::new();
    for _ in 0..attempts {
        match attempt() {
            Ok(()) => return,
            Err(error) => last = error,
        }
    }
    panic!("{last}");
}

fn near(what: &str, got: f64, expected: f64, share: f64) -> Result<(), String> {
    if (got / expected - 1.0).abs() <= share {
        return Ok(());
    }
    Err(format!("{what}: {got} for {expected}"))
}

fn latency(fake: &Fake, per_second: f64, seconds: u32) -> Latency {
    let plan = Plan {
        rate: open(per_second),
        stop: Stop::Seconds(seconds),
        in_flight: Some(8192),
        ..plan(&fake.addr, Workload::Send)
    };
    let (outcome, _) = run(&plan);
    outcome.parts[0].latency.clone().unwrap()
}

#[test]
fn a_known_delay_is_measured() {
    one_of(3, || {
        let fake = Fake::start(Mood::Late(30 * MS));
        let seen = latency(&fake, 500.0, 1);
        let kept = fake.kept();
        let within = |share: f64| kept[(kept.len() as f64 * share) as usize] as f64;
        near("p50", seen.p50 as f64, within(0.5), 0.05)?;
        near("p90", seen.p90 as f64, within(0.9), 0.05)?;
        near("p99", seen.p99 as f64, within(0.99), 0.05)?;
        let mean = kept.iter().sum::<u64>() as f64 / kept.len() as f64;
        near("mean", seen.mean as f64, mean, 0.05)
    });
}

#[test]
fn a_stall_is_seen_by_all_that_were_due() {
    one_of(3, || {
        let (after, lasts) = (SECOND, SECOND);
        let fake = Fake::start(Mood::Stall { after, lasts });
        let seen = latency(&fake, 1000.0, 4);
        // A quarter of the messages was due in the stall, and waited from 1 s down to nothing.
        near("count", seen.count as f64, 4000.0, 0.0)?;
        near("p90", seen.p90 as f64, 0.6 * SECOND as f64, 0.05)?;
        near("p99", seen.p99 as f64, 0.96 * SECOND as f64, 0.05)?;
        near("p99.9", seen.p999 as f64, 0.996 * SECOND as f64, 0.05)?;
        if seen.p50 > 50 * MS {
            return Err(format!("half of all waited {} ns", seen.p50));
        }
        Ok(())
    });
}

/// A name server and broker: keeps messages in memory, answers as late and as badly as it is told,
/// and writes down how late that was.
mod fake {
    use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use crate::loadgen::pace::Chance;
    use crate::message::encode::{Draft, Placed, encode};
    use crate::message::id::OffsetId;
    use crate::message::layout::sys_flag;
    use crate::message::{batch, names, properties};
    use crate::remoting::body::pop::BatchAcks;
    use crate::remoting::code::{request, response};
    use crate::remoting::command::{Command, FrameWriter};
    use crate::remoting::frame::{frame_len, split};
    use crate::remoting::header::offset::{
        OffsetResponse, QueryConsumerOffset, UpdateConsumerOffset,
    };
    use crate::remoting::header::pop::{AckMessage, PopMessage, PopResponse};
    use crate::remoting::header::pull::{PullHeader, PullResponse};
    use crate::remoting::header::send::{SendHeader, SendResponse};
    use crate::remoting::header::transaction::EndTransaction;
    use crate::remoting::text::Text;
    use crate::shard::clock::Clock;

    /// How it behaves.
    #[derive(Clone, Copy, PartialEq, Debug)]
    pub enum Mood {
        Serving,
        /// Sends are answered this many nanoseconds late and, on average, as much again.
        Late(u64),
        /// Nothing is answered for as long, once, from so long after the first send on.
        Stall {
            after: u64,
            lasts: u64,
        },
        /// Every third send is refused.
        Busy,
        /// Sends are refused as brokers without room on their disk do.
        Full,
        /// Rolls nothing back.
        CommitsAll,
        /// Every second pulled message is left out.
        Holes,
        /// The connection ends with so many sends.
        Hangup(u64),
        Garbage,
        NoTopic,
        NoGroup,
        /// Of the messages of queue 0 the fifth is gone, comes twice, late, not as it was.
        Dropped,
        Doubled,
        Swapped,
        Spoiled,
    }

    pub const QUEUES: i32 = 4;
    /// A pull of an empty queue is held this long.
    const HOLD_NS: u64 = 5_000_000;

    #[derive(Default)]
    struct State {
        queues: BTreeMap<i32, Vec<Vec<u8>>>,
        positions: BTreeMap<i32, i64>,
        /// Halves by their number, and messages for later by their time: queue and body.
        halves: BTreeMap<i64, (i32, Vec<u8>)>,
        later: Vec<(i64, i32, Vec<u8>)>,
        /// By queue: what was popped, and what of it is not acknowledged.
        popped: BTreeMap<i32, usize>,
        leased: BTreeSet<(i32, i64)>,
        sends: u64,
        first_send: Option<u64>,
        /// How long answers to sends were kept, nanoseconds.
        kept: Vec<u64>,
        members: Vec<String>,
        /// A message was spoiled as the mood says.
        harmed: bool,
    }

    #[derive(Clone)]
    pub struct Fake {
        pub addr: String,
        mood: Mood,
        clock: Clock,
        state: Arc<Mutex<State>>,
    }

    /// An answer to be written at a moment; the latest first, as heaps have it.
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Reply {
        at: std::cmp::Reverse<(u64, u64)>,
        came: Option<u64>,
        bytes: Vec<u8>,
    }

    impl Fake {
        /// On a free port; its threads live as long as its connections.
        pub fn start(mood: Mood) -> Fake {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap().to_string();
            let fake = Fake {
                addr,
                mood,
                clock: Clock::start(),
                state: Arc::default(),
            };
            let shared = fake.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let fake = shared.clone();
                    std::thread::spawn(move || fake.serve(stream.unwrap()));
                }
            });
            fake
        }

        /// How long answers to sends were kept, sorted.
        pub fn kept(&self) -> Vec<u64> {
            let mut kept = self.state.lock().unwrap().kept.clone();
            kept.sort_unstable();
            kept
        }

        /// Where consumers have been told to go on, by queue.
        pub fn positions(&self) -> BTreeMap<i32, i64> {
            self.state.lock().unwrap().positions.clone()
        }

        fn serve(self, mut stream: TcpStream) {
            stream.set_nodelay(true).unwrap();
            let (replies, due) = mpsc::channel();
            let (writer, output) = (self.clone(), stream.try_clone().unwrap());
            std::thread::spawn(move || writer.reply(&due, output));
            let (mut bytes, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
            let mut chance = Chance::new(5);
            for number in 0.. {
                match stream.read(&mut chunk) {
                    Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
                    _ => return,
                }
                let mut at = 0;
                while let Ok(Some(len)) = frame_len(&bytes[at..]) {
                    let Some(whole) = bytes.get(at..at + len) else {
                        break;
                    };
                    let command = Command::decode(split(whole).unwrap()).unwrap();
                    let mut reply = Vec::new();
                    let now = self.clock.nanos();
                    let Some(late) = self.answer(&command, &mut reply, &mut chance) else {
                        return drop(stream.shutdown(std::net::Shutdown::Both));
                    };
                    let sent = [request::SEND_MESSAGE_V2, request::SEND_BATCH_MESSAGE];
                    let came = sent.contains(&command.code).then_some(now);
                    let moment = self.moment(now + late);
                    let order = (moment, number << 32 | at as u64);
                    let at_moment = std::cmp::Reverse(order);
                    if !command.is_oneway() {
                        let _ = replies.send(Reply {
                            at: at_moment,
                            came,
                            bytes: reply,
                        });
                    }
                    at += len;
                }
                bytes.drain(..at);
            }
        }

        /// Later if it would fall into the stall.
        fn moment(&self, at: u64) -> u64 {
            let Mood::Stall { after, lasts } = self.mood else {
                return at;
            };
            match self.state.lock().unwrap().first_send {
                Some(first) if (first + after..first + after + lasts).contains(&at) => {
                    first + after + lasts
                }
                _ => at,
            }
        }

        fn reply(self, due: &mpsc::Receiver<Reply>, mut output: TcpStream) {
            let mut heap: BinaryHeap<Reply> = BinaryHeap::new();
            loop {
                let now = self.clock.nanos();
                while let Some(reply) = heap.peek().filter(|reply| reply.at.0.0 <= now) {
                    if let Some(came) = reply.came {
                        self.state
                            .lock()
                            .unwrap()
                            .kept
                            .push(self.clock.nanos() - came);
                    }
                    if output.write_all(&reply.bytes).is_err() {
                        return;
                    }
                    heap.pop();
                }
                let wait = heap
                    .peek()
                    .map_or(1_000_000_000, |reply| reply.at.0.0.saturating_sub(now));
                match due.recv_timeout(Duration::from_nanos(wait)) {
                    Ok(reply) => heap.push(reply),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }

        /// How late the answer goes out; `None` ends the connection.
        fn answer(
            &self,
            command: &Command<'_>,
            out: &mut Vec<u8>,
            chance: &mut Chance,
        ) -> Option<u64> {
            let mut late = 0;
            let code = match command.code {
                request::GET_ROUTEINFO_BY_TOPIC if self.mood == Mood::NoTopic => {
                    response::TOPIC_NOT_EXIST
                }
                request::GET_ROUTEINFO_BY_TOPIC => return self.route(command, out),
                request::GET_BROKER_CLUSTER_INFO => return body(command, out, br#"{}"#),
                request::GET_MIN_OFFSET => return offset(command, out, 0),
                request::GET_MAX_OFFSET => {
                    let queue = command.ext.find("queueId").unwrap().parse_i32().unwrap();
                    return offset(command, out, self.len(queue) as i64);
                }
                request::PULL_MESSAGE | request::POP_MESSAGE if self.mood == Mood::NoGroup => {
                    response::SUBSCRIPTION_GROUP_NOT_EXIST
                }
                request::PULL_MESSAGE => return self.pull(command, out),
                request::POP_MESSAGE => return self.pop(command, out),
                request::ACK_MESSAGE | request::BATCH_ACK_MESSAGE => self.end_leases(command),
                request::END_TRANSACTION => self.end_transaction(command),
                request::HEART_BEAT => return self.join(command, out),
                request::GET_CONSUMER_LIST_BY_GROUP => {
                    let members = self.state.lock().unwrap().members.join("\",\"");
                    let list = format!(r#"{{"consumerIdList":["{members}"]}}"#);
                    return body(command, out, list.as_bytes());
                }
                request::QUERY_CONSUMER_OFFSET => {
                    let header = QueryConsumerOffset::decode(&command.ext).unwrap();
                    match self.positions().get(&header.queue_id) {
                        Some(position) => return offset(command, out, *position),
                        None => response::QUERY_NOT_FOUND,
                    }
                }
                request::UNREGISTER_CLIENT => {
                    let gone = command.ext.find("clientID").unwrap().to_string();
                    let members = &mut self.state.lock().unwrap().members;
                    members.retain(|member| *member != gone);
                    response::SUCCESS
                }
                request::UPDATE_CONSUMER_OFFSET => {
                    let header = UpdateConsumerOffset::decode(&command.ext).unwrap();
                    let positions = &mut self.state.lock().unwrap().positions;
                    positions.insert(header.queue_id, header.commit_offset);
                    response::SUCCESS
                }
                request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
                    if let Mood::Late(nanos) = self.mood {
                        late = nanos + (nanos as f64 * chance.exponential()) as u64;
                    }
                    let header = SendHeader::decode_short(&command.ext).unwrap();
                    if header.sys_flag == sys_flag::TRANSACTION_PREPARED {
                        return self.prepare(command, header.queue_id, out);
                    }
                    self.store(command)?
                }
                _ => response::SUCCESS,
            };
            if self.mood == Mood::Garbage && late == 0 && command.code == request::SEND_MESSAGE_V2 {
                out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                return Some(0);
            }
            let remark = (code != response::SUCCESS).then_some("not now");
            FrameWriter::response(out, command.codec, command.opaque, code, remark).finish(0);
            Some(late)
        }

        /// Messages in all queues.
        pub fn stored(&self) -> usize {
            let state = self.state.lock().unwrap();
            state.queues.values().map(Vec::len).sum()
        }

        /// Messages that nobody may see yet.
        pub fn hidden(&self) -> usize {
            let state = self.state.lock().unwrap();
            state.halves.len() + state.later.len()
        }

        /// Messages in consumers' hands.
        pub fn leased(&self) -> usize {
            self.state.lock().unwrap().leased.len()
        }

        /// Keeps a half, whose number is its queue offset and, times 7, its place.
        fn prepare(&self, command: &Command<'_>, queue: i32, out: &mut Vec<u8>) -> Option<u64> {
            let state = &mut *self.state.lock().unwrap();
            state.sends += 1;
            let number = state.sends as i64;
            state.halves.insert(number, (queue, command.body.to_vec()));
            let id = OffsetId {
                store_host: self.addr.parse().unwrap(),
                physical_offset: 7 * number,
            };
            let mut writer =
                FrameWriter::response(out, command.codec, command.opaque, response::SUCCESS, None);
            SendResponse {
                msg_id: Text::plain(id.to_text().as_str()),
                queue_id: queue,
                queue_offset: number,
                transaction_id: Some(Text::plain("key")),
                batch_uniq_id: None,
                recall_handle: None,
                region: None,
                trace_on: false,
            }
            .encode(&mut writer);
            writer.finish(0);
            Some(0)
        }

        fn end_transaction(&self, command: &Command<'_>) -> i32 {
            let end = EndTransaction::decode(&command.ext).unwrap();
            let state = &mut *self.state.lock().unwrap();
            assert_eq!(end.commit_log_offset, 7 * end.tran_state_table_offset);
            let half = state.halves.remove(&end.tran_state_table_offset);
            let (queue, body) = half.expect("each half ends once");
            let commits = end.commit_or_rollback == sys_flag::TRANSACTION_COMMIT;
            if commits || self.mood == Mood::CommitsAll {
                state.queues.entry(queue).or_default().push(body);
            }
            response::SUCCESS
        }

        fn end_leases(&self, command: &Command<'_>) -> i32 {
            let leased = &mut self.state.lock().unwrap().leased;
            let mut end = |queue, offset| assert!(leased.remove(&(queue, offset)));
            if command.code == request::ACK_MESSAGE {
                let ack = AckMessage::decode(&command.ext).unwrap();
                let place = format!(" 0 a {} {}", ack.queue_id, ack.offset);
                assert!(ack.extra_info.ends_with(&place), "{}", ack.extra_info);
                end(ack.queue_id, ack.offset);
                return response::SUCCESS;
            }
            let acks: BatchAcks = serde_json::from_slice(command.body).unwrap();
            for ack in acks.acks {
                let offsets = ack.offsets(64).unwrap();
                let offsets = offsets.iter().map(|offset| *offset as i64);
                offsets.for_each(|offset| end(ack.queue_id, offset));
            }
            response::SUCCESS
        }

        fn pop(&self, command: &Command<'_>, out: &mut Vec<u8>) -> Option<u64> {
            let header = PopMessage::decode(&command.ext).unwrap();
            let state = &mut *self.state.lock().unwrap();
            let mut records = Vec::new();
            let mut starts = Vec::new();
            let (mut left, mut rest) = (header.max_msg_nums as usize, 0);
            for (queue, messages) in &state.queues {
                let popped = state.popped.entry(*queue).or_default();
                let to = messages.len().min(*popped + left);
                if to > *popped {
                    starts.push(format!("0 {queue} {popped}"));
                }
                for (at, message) in messages.iter().enumerate().take(to).skip(*popped) {
                    assert!(state.leased.insert((*queue, at as i64)));
                    let placed = Placed {
                        queue_offset: at as i64,
                        physical_offset: 0,
                        store_timestamp: 0,
                    };
                    encode(&draft(message, *queue), placed, &mut records);
                }
                left -= to - *popped;
                rest += messages.len() - to;
                *popped = to;
            }
            let code = match records.is_empty() {
                true => response::POLLING_TIMEOUT,
                false => response::SUCCESS,
            };
            let mut writer = FrameWriter::response(out, command.codec, command.opaque, code, None);
            PopResponse {
                pop_time: header.born_time,
                invisible_time: header.invisible_time,
                revive_qid: 0,
                rest_num: rest as i64,
                start_offset_info: Some(starts.join(";").into()),
                msg_offset_info: None,
                order_count_info: None,
            }
            .encode(&mut writer);
            writer.finish_with_body(&records);
            Some(if records.is_empty() { HOLD_NS } else { 0 })
        }

        fn len(&self, queue: i32) -> usize {
            self.state
                .lock()
                .unwrap()
                .queues
                .get(&queue)
                .map_or(0, Vec::len)
        }

        /// The code of the answer; `None` ends the connection.
        fn store(&self, command: &Command<'_>) -> Option<i32> {
            let mut state = self.state.lock().unwrap();
            state.sends += 1;
            state.first_send.get_or_insert(self.clock.nanos());
            match self.mood {
                Mood::Busy if state.sends.is_multiple_of(3) => return Some(response::SYSTEM_BUSY),
                Mood::Full => return Some(response::SERVICE_NOT_AVAILABLE),
                Mood::Hangup(sends) if state.sends > sends => return None,
                _ => {}
            }
            let header = SendHeader::decode_short(&command.ext).unwrap();
            let properties = header.properties.to_cow();
            let time = properties::find_str(properties.as_bytes(), names::TIMER_DELIVER_MS);
            if let Some(time) = time {
                let later = (
                    time.parse().unwrap(),
                    header.queue_id,
                    command.body.to_vec(),
                );
                state.later.push(later);
                return Some(response::SUCCESS);
            }
            let mut harmed = state.harmed;
            let queue = state.queues.entry(header.queue_id).or_default();
            if header.batch {
                queue.extend(
                    batch::iter(command.body).map(|message| message.unwrap().body.to_vec()),
                );
            } else {
                queue.push(command.body.to_vec());
            }
            if header.queue_id == 0 && queue.len() == 6 && !std::mem::replace(&mut harmed, true) {
                match self.mood {
                    Mood::Dropped => drop(queue.remove(4)),
                    Mood::Doubled => queue.insert(5, queue[4].clone()),
                    Mood::Swapped => queue.swap(4, 5),
                    Mood::Spoiled => queue[4][45] ^= 1,
                    _ => {}
                }
            }
            state.harmed = harmed;
            Some(response::SUCCESS)
        }

        fn join(&self, command: &Command<'_>, out: &mut Vec<u8>) -> Option<u64> {
            // As brokers do when a group changes: a request of their own comes first.
            let code = request::NOTIFY_CONSUMER_IDS_CHANGED;
            FrameWriter::request(out, command.codec, 7, code, true).finish(0);
            let text = String::from_utf8(command.body.to_vec()).unwrap();
            let heartbeat: serde_json::Value = serde_json::from_str(&text).unwrap();
            let id = heartbeat["clientID"].as_str().unwrap().to_owned();
            let members = &mut self.state.lock().unwrap().members;
            let pushes = text.contains("CONSUME_PASSIVELY");
            if pushes && !members.contains(&id) {
                members.push(id);
            }
            body(command, out, b"")
        }

        fn route(&self, command: &Command<'_>, out: &mut Vec<u8>) -> Option<u64> {
            let route = format!(
                r#"{{"brokerDatas":[{{"brokerAddrs":{{"0":"{}"}},"brokerName":"a"}}],"queueDatas":
                [{{"brokerName":"a","perm":6,"readQueueNums":{QUEUES},"writeQueueNums":{QUEUES}}}]}}"#,
                self.addr
            );
            body(command, out, route.as_bytes())
        }

        fn pull(&self, command: &Command<'_>, out: &mut Vec<u8>) -> Option<u64> {
            let header = PullHeader::decode(&command.ext).unwrap();
            let state = &mut *self.state.lock().unwrap();
            let now = self.clock.now().wall_ms;
            for (_, queue, body) in state.later.extract_if(.., |later| later.0 <= now) {
                state.queues.entry(queue).or_default().push(body);
            }
            let stored = state
                .queues
                .get(&header.queue_id)
                .map_or(&[][..], Vec::as_slice);
            let from = header.queue_offset as usize;
            let messages = stored.get(from..).unwrap_or_default();
            let messages = &messages[..messages.len().min(header.max_msg_nums as usize)];
            let mut records = Vec::new();
            for (at, message) in messages.iter().enumerate() {
                if self.mood == Mood::Holes && at % 2 == 1 {
                    continue;
                }
                let placed = Placed {
                    queue_offset: (from + at) as i64,
                    physical_offset: 0,
                    store_timestamp: 0,
                };
                encode(&draft(message, header.queue_id), placed, &mut records);
            }
            let code = match messages.is_empty() {
                true => response::PULL_NOT_FOUND,
                false => response::SUCCESS,
            };
            let mut writer = FrameWriter::response(out, command.codec, command.opaque, code, None);
            let answer = PullResponse {
                suggest_which_broker_id: 0,
                next_begin_offset: header.queue_offset + messages.len() as i64,
                min_offset: 0,
                max_offset: stored.len() as i64,
                offset_delta: None,
                topic_sys_flag: None,
                group_sys_flag: None,
                forbidden_type: None,
            };
            answer.encode(&mut writer);
            writer.finish_with_body(&records);
            Some(if messages.is_empty() { HOLD_NS } else { 0 })
        }
    }

    fn draft(body: &[u8], queue_id: i32) -> Draft<'_> {
        let host = "127.0.0.1:1".parse().unwrap();
        Draft {
            topic: "T",
            queue_id,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties: b"",
        }
    }

    fn body(command: &Command<'_>, out: &mut Vec<u8>, body: &[u8]) -> Option<u64> {
        let writer = FrameWriter::response(out, command.codec, command.opaque, 0, None);
        writer.finish_with_body(body);
        Some(0)
    }

    fn offset(command: &Command<'_>, out: &mut Vec<u8>, offset: i64) -> Option<u64> {
        let mut writer = FrameWriter::response(out, command.codec, command.opaque, 0, None);
        OffsetResponse { offset }.encode(&mut writer);
        writer.finish(0);
        Some(0)
    }
}
