//! Consumers that want a part of a topic, said in SQL92: what they want comes, all of it and in the
//! order of the queue, and nothing else does.
//!
//! Messages carry properties that follow from their number. What an expression says of them is
//! written down here a second time, in plain Rust: the broker's evaluator has no part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use orbitmq::message::view::RecordView;
use orbitmq::remoting::command::Command;
use orbitmq::remoting::header::pull::{FLAG_SUBSCRIPTION, PullHeader};
use orbitmq::remoting::text::Text;

use crate::asker::QUESTIONS;
use crate::client::{Client, Consumer, Ctx, Role, number, uid_of};
use crate::model::{Check, Model};
use crate::ranker::URGENT;
use crate::rng::Rng;

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

const SUCCESS: i32 = 0;
const PULL: i32 = 11;
const LITE_PULL: i32 = 361;
/// `PullSysFlag.FLAG_LITE_PULL_MESSAGE`.
const FLAG_LITE: i32 = 16;

/// What the expressions ask for: a number that may be missing or be none, a text that may be
/// missing, and the tag.
pub struct Traits {
    n: Option<Result<i32, &'static str>>,
    s: Option<&'static str>,
    tag: &'static str,
}

impl Traits {
    pub fn of(uid: u64) -> Traits {
        let mut rng = Rng::new(uid.wrapping_mul(0x51F7_E201));
        let n = match rng.below(10) {
            0..3 => None,
            3 => Some(Err("many")),
            _ => Some(Ok(rng.below(10) as i32 - 1)),
        };
        let s = *rng.pick(&[None, None, Some("x"), Some("xy"), Some("it's"), Some("é")]);
        Traits {
            n,
            s,
            tag: tag(uid),
        }
    }

    /// As properties text; the tag is not among them.
    pub fn properties(&self) -> String {
        let mut text = String::new();
        match self.n {
            None => {}
            Some(Ok(number)) => text.push_str(&format!("n\u{1}{number}\u{2}")),
            Some(Err(word)) => text.push_str(&format!("n\u{1}{word}\u{2}")),
        }
        if let Some(s) = self.s {
            text.push_str(&format!("s\u{1}{s}\u{2}"));
        }
        text
    }

    /// `n` compared with a number: `None` is null, and `Err` a word, beside which no other part of
    /// the expression counts.
    fn n_is(&self, holds: impl Fn(i32) -> bool) -> Result<Option<bool>, ()> {
        match self.n {
            None => Ok(None),
            Some(Ok(n)) => Ok(Some(holds(n))),
            Some(Err(_)) => Err(()),
        }
    }

    fn s_is(&self, text: &str) -> Option<bool> {
        self.s.map(|s| s == text)
    }
}

pub fn tag(uid: u64) -> &'static str {
    ["a", "b", "c"][(uid % 3) as usize]
}

/// The topics there may be.
pub const TOPICS: [&str; 8] = ["t0", "t1", "t2", "t3", "g0", "p0", QUESTIONS, URGENT];

type Judge = fn(&Traits) -> bool;

/// Expressions and what is wanted by them.
const EXPRESSIONS: [(&str, Judge); 12] = [
    ("n > 5", |t| t.n_is(|n| n > 5) == Ok(Some(true))),
    ("NOT (n > 5)", |t| t.n_is(|n| n > 5) == Ok(Some(false))),
    ("n <> 3", |t| t.n_is(|n| n != 3) == Ok(Some(true))),
    ("n BETWEEN 2 AND 6 AND s = 'x'", |t| {
        t.n_is(|n| (2..=6).contains(&n)) == Ok(Some(true)) && t.s_is("x") == Some(true)
    }),
    ("s IS NULL OR n < 0", |t| {
        t.s.is_none() || t.n_is(|n| n < 0) == Ok(Some(true))
    }),
    // A word for a number spoils all, so far as it is looked at.
    ("n = 4 OR s = 'xy'", |t| match t.n_is(|n| n == 4) {
        Ok(known) => known == Some(true) || t.s_is("xy") == Some(true),
        Err(()) => false,
    }),
    ("s = 'xy' OR n = 4", |t| {
        t.s_is("xy") == Some(true) || t.n_is(|n| n == 4) == Ok(Some(true))
    }),
    ("s NOT IN ('x', 'it''s')", |t| {
        t.s.is_some_and(|s| !["x", "it's"].contains(&s))
    }),
    // Null, unless the left side is false.
    ("NOT (s = 'x' AND n > 2)", |t| match t.s_is("x") {
        Some(false) => true,
        Some(true) => t.n_is(|n| n > 2) == Ok(Some(false)),
        // Then only a false right side decides.
        None => t.n_is(|n| n > 2) == Ok(Some(false)),
    }),
    ("TAGS = 'a' AND n IS NOT NULL", |t| {
        t.tag == "a" && t.n.is_some()
    }),
    ("s STARTSWITH 'x' OR s = 'é'", |t| {
        t.s.is_some_and(|s| s.starts_with('x') || s == "é")
    }),
    ("none IS NOT NULL", |_| false),
];

/// What a consumer wants, and what it got.
pub struct Sieve {
    pub expression: &'static str,
    wants: Judge,
    /// It says so in its heartbeats, not in each pull.
    registered: bool,
    /// Of the subscription.
    version: i64,
    stretches: BTreeMap<(String, i32), Stretch>,
    /// Messages that came.
    pub came: BTreeSet<u64>,
}

/// A part of a queue that was read without a gap.
struct Stretch {
    generation: Option<u64>,
    range: Range<i64>,
    got: BTreeMap<i64, u64>,
}

impl Sieve {
    pub fn new(rng: &mut Rng) -> Sieve {
        let (expression, wants) = *rng.pick(&EXPRESSIONS);
        Sieve {
            expression,
            wants,
            registered: rng.percent(50),
            version: 1,
            stretches: BTreeMap::new(),
            came: BTreeSet::new(),
        }
    }

    pub fn wants(&self, uid: u64) -> bool {
        (self.wants)(&Traits::of(uid))
    }

    /// The connection is gone. Every other time the consumer goes on from where it had committed.
    pub fn begins_again(&mut self) -> bool {
        self.version += 1;
        self.version % 2 == 0
    }

    /// After an allowed loss.
    pub fn forget(&mut self) {
        self.stretches.clear();
    }

    /// Subscriptions of a heartbeat.
    pub fn subscriptions(&self) -> String {
        let (expression, version) = (self.expression, self.version);
        let one = |topic| {
            format!(
                r#"{{"topic":"{topic}","subString":"{expression}","subVersion":{version},"expressionType":"SQL92"}}"#
            )
        };
        TOPICS.map(one).join(",")
    }

    /// Makes a pull ask for what is wanted; gives its code.
    pub fn dress(&self, header: &mut PullHeader<'_>, rng: &mut Rng) -> i32 {
        header.sub_version = self.version;
        header.expression_type = Some(Text::plain("SQL92"));
        header.subscription = Some(Text::plain(self.expression));
        if self.registered {
            header.sys_flag &= !FLAG_SUBSCRIPTION;
            header.subscription = None;
        }
        if rng.percent(30) {
            header.sys_flag |= FLAG_LITE;
            return LITE_PULL;
        }
        PULL
    }

    /// A queue was read from here to there.
    fn note(
        &mut self,
        model: &Model,
        queue: &(String, i32),
        range: Range<i64>,
        got: &[(i64, u64)],
    ) {
        let generation = model.generation(&queue.0);
        let fits =
            |known: &Stretch| known.generation == generation && range.start <= known.range.end;
        if !self.stretches.get(queue).is_some_and(fits) {
            let (range, got) = (range.clone(), BTreeMap::new());
            let stretch = Stretch {
                generation,
                range,
                got,
            };
            self.stretches.insert(queue.clone(), stretch);
        }
        let known = self.stretches.get_mut(queue).expect("just entered");
        known.range.start = known.range.start.min(range.start);
        known.range.end = known.range.end.max(range.end);
        known.got.extend(got.iter().copied());
        self.came.extend(got.iter().map(|(_, uid)| uid));
    }

    /// What is wanted, known to lie in a stretch that was read, and did not come.
    fn check(&self, model: &Model, queue: &(String, i32), range: Range<i64>) -> Check {
        let Some(known) = self.stretches.get(queue) else {
            return Ok(());
        };
        for (offset, uid) in model.places(queue, range) {
            ensure!(
                !self.wants(uid) || known.got.contains_key(&offset),
                "{queue:?}: u{uid} at {offset} was passed over by [{}]",
                self.expression
            );
        }
        Ok(())
    }

    /// The same of all that was ever read.
    pub fn check_all(&self, model: &Model) -> Check {
        for (queue, known) in &self.stretches {
            if known.generation.is_some() && model.generation(&queue.0) == known.generation {
                self.check(model, queue, known.range.clone())?;
            }
        }
        Ok(())
    }
}

/// What was acknowledged and did not come to those who want it. Pops need disks that work.
pub fn missing(
    clients: &[Client],
    model: &Model,
    failed: bool,
    live: impl Fn(&str) -> bool,
) -> Option<String> {
    for client in clients {
        let (sieve, popper) = match &client.role {
            Role::Consumer(consumer) => (consumer.sieve.as_ref(), None),
            Role::Popper(popper) => (popper.sieve.as_ref(), Some(popper)),
            _ => (None, None),
        };
        let Some(sieve) = sieve else {
            continue;
        };
        if let Err(error) = sieve.check_all(model) {
            return Some(error);
        }
        let came = |uid| match popper {
            None => sieve.came.contains(&uid),
            Some(popper) => failed || model.popped.has_seen(&popper.group, uid),
        };
        let mut due = model
            .sent
            .iter()
            .filter(|(uid, sent)| sent.acked.is_some() && live(&sent.topic) && sieve.wants(**uid));
        let lost = due.find(|(uid, _)| client.is_fresh() && !came(**uid));
        if let Some((uid, sent)) = lost {
            let (topic, expression) = (&sent.topic, sieve.expression);
            return Some(format!("u{uid} of {topic} never passed [{expression}]"));
        }
    }
    None
}

impl Client {
    /// What it wants of this topic, if that is not all.
    pub fn sieve(&self, topic: &str) -> Option<&Sieve> {
        match &self.role {
            Role::Consumer(consumer) if !topic.starts_with('%') => consumer.sieve.as_ref(),
            _ => None,
        }
    }

    /// A pull was answered that chooses; gives what came.
    pub fn sifted(
        &mut self,
        ctx: &mut Ctx<'_>,
        queue: &(String, i32),
        (from, floor): (i64, i64),
        group: &str,
        command: &Command<'_>,
    ) -> Result<Vec<(u64, i64, i32)>, String> {
        let (min, max) = (number(command, "minOffset")?, number(command, "maxOffset")?);
        let said = number(command, "nextBeginOffset")?;
        ensure!(min == 0, "{queue:?} begins at {min}");
        ensure!(
            from < said && said <= max,
            "{queue:?} from {from}: next {said}, end {max}"
        );
        ctx.model.check_end(queue, floor, max, ctx.now)?;
        let Role::Consumer(Consumer {
            sieve: Some(sieve), ..
        }) = &mut self.role
        else {
            return Err("sifted, but by nobody".to_owned());
        };
        let (mut next, mut got, mut physicals) = (from, Vec::new(), Vec::new());
        for record in RecordView::iter(command.body) {
            let record = record.map_err(|error| format!("{queue:?}: {error}"))?;
            let offset = record.queue_offset();
            ensure!(
                (next..said).contains(&offset),
                "{queue:?}: {offset} comes where {next} to {said} was read"
            );
            ctx.model.seen(queue, &record, ctx.now)?;
            let uid = uid_of(&record).ok_or("a message without a key")?;
            ensure!(
                sieve.wants(uid),
                "{queue:?}: u{uid} came, which [{}] does not want",
                sieve.expression
            );
            got.push((offset, uid));
            physicals.push((uid, record.physical_offset(), record.reconsume_times()));
            next = offset + 1;
        }
        let found = command.code == SUCCESS;
        ensure!(found != got.is_empty(), "{queue:?}: {} came", got.len());
        ctx.counts.pulled += got.len() as u64;
        let generation = ctx.model.generation(&queue.0);
        ctx.model
            .ledger
            .note_got(&queue.0, generation, group, got.len());
        sieve.note(ctx.model, queue, from..said, &got);
        sieve.check(ctx.model, queue, from..said)?;
        Ok(physicals)
    }
}
