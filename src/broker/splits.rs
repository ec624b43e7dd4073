//! Split groups: members of one consumer group that subscribe differently.
//!
//! A group has one subscription, that of its newest heartbeat, here as in the reference. If members
//! differ, what only some of them want is skipped for all of them, or waits in queues of members
//! that do not want it, and nobody hears of it. Here the heartbeat that splits a group is noticed:
//! a warning and a count, or, with `rejectDifferentSubscription`, a refusal.
//!
//! What counts: the topics, what is wanted of each, and the message model. What does not: versions,
//! which are clocks of clients; the group's retry topic; order and blanks of tags; the consume
//! type, for push and pull consumers with one subscription share a group well. A member that
//! subscribes to nothing differs from nobody: so do consumers that are given their queues by hand.
//! SQL92 expressions are compared as they were written.
//!
//! The reference compares nothing (`ConsumerGroupInfo.updateSubscription` logs each change).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::base::Mono;
use crate::broker::control::names::retry_topic;
use crate::broker::members::{Member, Subscription};
use crate::filter::tag;
use crate::machine::Note;
use crate::remoting::body::client::Wants;
use crate::remoting::body::heartbeat::MessageModel;

/// A group is warned about at most once in this time.
const QUIET_MS: u64 = 60_000;
/// Groups warned about in that time; the others follow when there is room.
const WARNED_MAX: usize = 256;
/// Topics that a warning names.
const TOPICS_NAMED: usize = 3;
/// Longer names and expressions are cut; expressions then get a hash, so that they still differ.
const SHOWN_CHARS: usize = 120;

/// Whether the members of a group subscribe alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unity {
    #[default]
    Whole,
    Split {
        /// There was a warning.
        told: bool,
    },
}

/// All groups' splits, and what is to be said of them.
#[derive(Default)]
pub struct Splits {
    /// Groups that are split now.
    groups: usize,
    noticed: u64,
    warned: VecDeque<(Mono, Arc<str>)>,
    notes: Vec<Note>,
}

impl Splits {
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Times that a group was split, or that a client was refused which would have done it.
    pub fn noticed(&self) -> u64 {
        self.noticed
    }

    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// After a heartbeat that changed what a member wants, or while a split is untold.
    pub fn look(&mut self, now: Mono, name: &str, members: &[Member], unity: &mut Unity) {
        let Some((one, other)) = differing(members) else {
            return self.mend(name, members, unity);
        };
        if *unity == Unity::Whole {
            *unity = Unity::Split { told: false };
            self.groups += 1;
            self.noticed += 1;
        }
        if *unity == (Unity::Split { told: false }) && self.may_warn(now, name) {
            *unity = Unity::Split { told: true };
            self.notes.push(Note::Warn(warning(name, one, other)));
        }
    }

    /// After a member left, or wants something else: whether those who stay are of one mind again.
    pub fn mend(&mut self, name: &str, members: &[Member], unity: &mut Unity) {
        let Unity::Split { told } = *unity else {
            return;
        };
        if differing(members).is_some() {
            return;
        }
        assert!(self.groups > 0, "split groups are counted");
        *unity = Unity::Whole;
        self.groups -= 1;
        if told {
            let name = shown(name);
            let over = format!("group {name} is not split any more: its members subscribe alike");
            self.notes.push(Note::Info(over));
        }
    }

    /// A client is refused that was not refused before.
    pub fn refused(&mut self, now: Mono, name: &str, remark: &str) {
        self.noticed += 1;
        if self.may_warn(now, name) {
            self.notes.push(Note::Warn(remark.to_owned()));
        }
    }

    fn may_warn(&mut self, now: Mono, name: &str) -> bool {
        let over = |(at, _): &(Mono, Arc<str>)| now.since_ms(*at) >= QUIET_MS;
        while self.warned.front().is_some_and(over) {
            self.warned.pop_front();
        }
        let told = self.warned.iter().any(|(_, told)| **told == *name);
        if told || self.warned.len() >= WARNED_MAX {
            return false;
        }
        self.warned.push_back((now, Arc::from(name)));
        true
    }
}

/// What a heartbeat says that a member of `group` wants.
pub fn wants(
    group: &str,
    model: Option<MessageModel>,
    topics: &BTreeMap<Arc<str>, Arc<Subscription>>,
) -> Wants {
    let retry = retry_topic(group);
    let counted = topics.iter().filter(|(topic, _)| ***topic != *retry);
    Wants {
        // Who says nothing gets its share, as in the reference.
        message_model: Some(model.unwrap_or(MessageModel::Clustering)),
        topics: counted
            .map(|(topic, subscription)| (topic.to_string(), wish(subscription)))
            .collect(),
    }
}

/// What is wanted of one topic: the same text for the same wish.
fn wish(subscription: &Subscription) -> String {
    let expression = subscription.expression.as_str();
    let mut text = match subscription.is_tag() {
        true if expression == tag::ALL => expression.to_owned(),
        true => {
            let tags: BTreeSet<&str> = tag::tags(expression).collect();
            tags.into_iter().collect::<Vec<_>>().join(" || ")
        }
        false => format!("{} {}", subscription.kind, expression.trim()),
    };
    if subscription.class_filter {
        text.insert_str(0, "class filter ");
    }
    if text.chars().nth(SHOWN_CHARS).is_some() {
        let hash = foldhash::fast::FixedState::default().hash_one(&text);
        text = format!("{} #{hash:016x}", shown(&text));
    }
    text
}

/// Why `new` may not join members that all subscribe alike.
pub fn misfit<'a>(
    group: &str,
    mut others: impl Iterator<Item = &'a Member>,
    new: &Member,
) -> Option<String> {
    let there = others.find(counts).filter(|_| counts(&new))?;
    (there.wants != new.wants).then(|| refusal(group, there, new))
}

/// Whether a member wants anything, as far as it has said.
fn counts(member: &&Member) -> bool {
    let wants = member.wants.as_ref();
    wants.is_some_and(|wants| !wants.topics.is_empty())
}

fn differing(members: &[Member]) -> Option<(&Member, &Member)> {
    let mut counted = members.iter().filter(counts);
    let first = counted.next()?;
    // Members that want the same share what they want, so this compares addresses mostly.
    let other = counted.find(|member| member.wants != first.wants)?;
    Some((first, other))
}

fn warning(group: &str, one: &Member, other: &Member) -> String {
    format!(
        "group {} is split: {} and {} subscribe differently: {}. The newest subscription counts \
         for all members: what only the others want is skipped or waits. Subscribe all members of \
         the group alike, or use one group per subscription",
        shown(group),
        client(one),
        client(other),
        difference(one, other),
    )
}

fn refusal(group: &str, there: &Member, new: &Member) -> String {
    format!(
        "{} is refused as a member of group {}, for it does not subscribe as {}, which is there: \
         {} (there and here). Subscribe all members of the group alike, or use another group; \
         when those who differ have left, the next heartbeat joins \
         (rejectDifferentSubscription=true)",
        client(new),
        shown(group),
        client(there),
        difference(there, new),
    )
}

fn client(member: &Member) -> String {
    format!("{} ({})", shown(&member.client_id), member.peer)
}

fn difference(one: &Member, other: &Member) -> String {
    let of = |member: &Member| member.wants.as_deref().cloned().unwrap_or_default();
    differences(&of(one), &of(other)).join("; ")
}

/// In what two members differ: the model, then each topic, up to a few.
pub fn differences(one: &Wants, other: &Wants) -> Vec<String> {
    let model = |wants: &Wants| wants.message_model.map_or("none", MessageModel::name);
    let mut parts = Vec::new();
    if one.message_model != other.message_model {
        parts.push(format!("{} and {}", model(one), model(other)));
    }
    let topics: BTreeSet<&String> = one.topics.keys().chain(other.topics.keys()).collect();
    let differs = |topic: &&String| one.topics.get(*topic) != other.topics.get(*topic);
    let topics: Vec<&String> = topics.into_iter().filter(differs).collect();
    for topic in topics.iter().take(TOPICS_NAMED) {
        let of = |wants: &Wants| match wants.topics.get(*topic) {
            Some(wish) => format!("`{}`", plain(wish)),
            None => "not at all".to_owned(),
        };
        parts.push(format!(
            "topic {} {} and {}",
            shown(topic),
            of(one),
            of(other)
        ));
    }
    if topics.len() > TOPICS_NAMED {
        parts.push(format!("{} more topics", topics.len() - TOPICS_NAMED));
    }
    parts
}

/// What a peer sent, on one line and not too long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => plain(&text[..end]) + "…",
        None => plain(text),
    }
}

fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::handle::rig::{Rig, conn};
    use super::*;
    use crate::broker::control::effects::Effects;
    use crate::broker::control::options::ControlOptions;

    fn rig(alike: bool) -> Rig {
        Rig::new(ControlOptions {
            reject_different_subscription: alike,
            ..ControlOptions::default()
        })
    }

    /// A heartbeat of client `c<slot>` in one group; `topics` as `topic:expression`, joined by `;`.
    fn beat(slot: u32, group: &str, model: &str, topics: &str, more: &str) -> String {
        let topics = topics.split(';').filter(|topic| !topic.is_empty());
        let topics = topics.map(|topic| {
            let (topic, expression) = topic.split_once(':').unwrap();
            let (kind, text) = match expression.strip_prefix("sql ") {
                Some(text) => ("SQL92", text),
                None => ("TAG", expression),
            };
            format!(
                r#"{{"topic":"{topic}","subString":"{text}","subVersion":{slot},"expressionType":"{kind}"}}"#
            )
        });
        let topics = topics.collect::<Vec<_>>().join(",");
        format!(
            r#"34 {{"clientID":"c{slot}","consumerDataSet":[{{"groupName":"{group}","consumeType":"CONSUME_PASSIVELY","messageModel":"{model}","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[{topics}]}}]{more}}}"#
        )
    }

    /// What the log says after a heartbeat.
    fn said(rig: &mut Rig, slot: u32, topics: &str) -> String {
        let answer = rig.ask(slot, &beat(slot, "g", "CLUSTERING", topics, ""));
        assert!(answer.starts_with('0'), "{answer}");
        notes(rig)
    }

    fn notes(rig: &mut Rig) -> String {
        let texts = rig.effects.notes.drain(..).map(|note| match note {
            Note::Info(text) => format!("INFO {text}"),
            Note::Warn(text) => format!("WARN {text}"),
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    fn counted(rig: &Rig) -> (usize, u64, usize) {
        let members = &rig.control.members;
        let splits = members.splits();
        (splits.groups(), splits.noticed(), members.refused_count())
    }

    const OVER: &str = "INFO group g is not split any more: its members subscribe alike";

    #[test]
    fn a_split_is_told_when_it_begins_and_when_it_ends() {
        let mut rig = rig(false);
        assert_eq!(said(&mut rig, 1, "t:a;u:*"), "");
        assert_eq!(said(&mut rig, 2, "t:a;u:*"), "");
        assert_eq!(counted(&rig), (0, 0, 0));
        assert_eq!(
            said(&mut rig, 3, "t:b;v:sql x > 1"),
            "WARN group g is split: c1 (127.0.0.1:1001) and c3 (127.0.0.1:1003) subscribe \
             differently: topic t `a` and `b`; topic u `*` and not at all; topic v not at all and \
             `SQL92 x > 1`. The newest subscription counts for all members: what only the others \
             want is skipped or waits. Subscribe all members of the group alike, or use one group \
             per subscription"
        );
        assert_eq!(counted(&rig), (1, 1, 0));
        assert_eq!(said(&mut rig, 1, "t:a;u:*"), "", "once");
        assert_eq!(said(&mut rig, 4, "t:c"), "", "it is split already");
        rig.ask(4, "35 clientID=c4 consumerGroup=g");
        assert_eq!(notes(&mut rig), "", "two subscriptions are left");
        assert_eq!(said(&mut rig, 3, "t:a;u:*"), OVER);
        assert_eq!(counted(&rig), (0, 1, 0));
    }

    #[test]
    fn who_leaves_ends_a_split() {
        for way in 0..3 {
            let mut rig = rig(false);
            said(&mut rig, 1, "t:a");
            rig.pass_ms(100_000);
            assert!(said(&mut rig, 2, "t:b").starts_with("WARN"));
            rig.effects = Effects::default();
            match way {
                0 => drop(rig.ask(1, "35 clientID=c1 consumerGroup=g")),
                1 => rig.control.closed(conn(1), &mut rig.effects),
                _ => {
                    rig.pass_ms(30_000);
                    rig.control.expire(rig.now, &mut rig.effects);
                }
            }
            assert_eq!(notes(&mut rig), OVER, "{way}");
            assert_eq!(counted(&rig), (0, 1, 0), "{way}");
        }
    }

    #[test]
    fn what_does_not_differ() {
        for (one, other) in [
            ("t:a || b;u:*", "u:;t:b||a||b"),
            ("t:a;%RETRY%g:*", "t:a"),
            ("t:a", ""),
            ("t:a", "%RETRY%g:*"),
            ("t:sql x > 1", "t:sql  x > 1 "),
        ] {
            let mut rig = rig(false);
            said(&mut rig, 1, one);
            assert_eq!(said(&mut rig, 2, other), "", "{one} and {other}");
            let active = beat(3, "g", "CLUSTERING", one, "").replace("PASSIVELY", "ACTIVELY");
            rig.ask(3, &active.replace(r#""messageModel":"CLUSTERING","#, ""));
            assert_eq!(counted(&rig), (0, 0, 0), "{one} and {other}");
        }
    }

    #[test]
    fn what_differs() {
        let long = |end: &str| format!("t:{}{end}", "0123456789".repeat(12));
        let (long, longer) = (long("x"), long("y"));
        for (one, other, words) in [
            ("t:a", "t:a||b", "topic t `a` and `a || b`."),
            ("t:*", "t:a", "topic t `*` and `a`."),
            ("t:x", "t:sql x", "topic t `x` and `SQL92 x`."),
            (
                "t:a",
                "u:a",
                "topic t `a` and not at all; topic u not at all and `a`.",
            ),
            (
                "t:a",
                "%RETRY%h:*;t:a",
                "topic %RETRY%h not at all and `*`.",
            ),
            ("t:a", "1:a;2:a;3:a;4:a;t:a", "; 1 more topics."),
            (&long, &longer, "0123456789… #"),
        ] {
            let mut rig = rig(false);
            said(&mut rig, 1, one);
            let warning = said(&mut rig, 2, other);
            assert!(warning.contains(words), "{one} and {other}: {warning}");
        }
        let mut rig = rig(false);
        said(&mut rig, 1, "t:a");
        rig.ask(2, &beat(2, "g", "BROADCASTING", "t:a", ""));
        let warning = notes(&mut rig);
        assert!(
            warning.contains("differently: CLUSTERING and BROADCASTING."),
            "{warning}"
        );
    }

    /// What a peer sends cannot begin a line of its own in the log, nor fill it.
    #[test]
    fn names_are_shown_plainly() {
        let mut rig = rig(false);
        let long = "n".repeat(200);
        said(&mut rig, 1, "t:a");
        let line = beat(2, "g", "CLUSTERING", "t:\\nb", "");
        rig.ask(2, &line.replace("c2", &format!("c\\n{long}")));
        let warning = notes(&mut rig);
        assert!(warning.contains(" and c?nnn"), "{warning}");
        assert!(!warning.contains('\n') && warning.len() < 600, "{warning}");
    }

    /// Heartbeats of version 2 leave subscriptions out.
    #[test]
    fn a_member_that_does_not_repeat_itself() {
        let mut rig = rig(false);
        let full = r#","heartbeatFingerprint":7"#;
        let bare = r#","heartbeatFingerprint":7,"withoutSub":true"#;
        let known = "0 IS_SUPPORT_HEART_BEAT_V2=true IS_SUB_CHANGE=false";
        let asked = "0 IS_SUPPORT_HEART_BEAT_V2=true IS_SUB_CHANGE=true";
        rig.ask(1, &beat(1, "g", "CLUSTERING", "t:a", full));
        let mut check = |slot: u32, topics: &str, more: &str, answer: &str, split: usize| {
            let line = beat(slot, "g", "CLUSTERING", topics, more);
            assert_eq!(rig.ask(slot, &line), answer, "{line}");
            assert_eq!(counted(&rig).0, split, "{line}");
        };
        check(1, "", bare, known, 0);
        check(2, "", bare, asked, 0);
        check(2, "t:b", full, known, 1);
        check(2, "", bare, known, 1);
        check(2, "t:a", full, known, 0);
        check(2, "", full, known, 0);
        check(2, "", bare, known, 0);
    }

    #[test]
    fn a_group_is_warned_about_once_a_minute() {
        let mut rig = rig(false);
        said(&mut rig, 1, "t:a");
        assert!(said(&mut rig, 2, "t:b").starts_with("WARN"));
        rig.pass_ms(QUIET_MS - 1);
        assert_eq!(said(&mut rig, 2, "t:a"), OVER);
        assert_eq!(said(&mut rig, 2, "t:b"), "", "too soon");
        assert_eq!(said(&mut rig, 2, "t:a"), "", "nobody heard that it began");
        assert_eq!(said(&mut rig, 2, "t:b"), "");
        rig.pass_ms(1);
        assert!(said(&mut rig, 1, "t:a").starts_with("WARN"), "it goes on");
        assert_eq!(counted(&rig), (1, 3, 0));
    }

    #[test]
    fn warnings_of_all_groups_are_limited() {
        let mut rig = rig(false);
        let mut warned = 0;
        for group in 0..=WARNED_MAX {
            let name = format!("g{group}");
            rig.ask(1, &beat(1, &name, "CLUSTERING", "t:a", ""));
            rig.ask(2, &beat(2, &name, "CLUSTERING", "t:b", ""));
            warned += rig.effects.notes.len();
        }
        assert_eq!(warned, WARNED_MAX);
        assert_eq!(counted(&rig).0, WARNED_MAX + 1);
        rig.pass_ms(QUIET_MS);
        let last = format!("g{WARNED_MAX}");
        rig.ask(1, &beat(1, &last, "CLUSTERING", "t:a", ""));
        assert_eq!(
            rig.effects.notes.len(),
            1,
            "it comes later, and is not lost"
        );
    }

    const REFUSED: &str = "c2 (127.0.0.1:1002) is refused as a member of group g, for it does not \
        subscribe as c1 (127.0.0.1:1001), which is there: topic t `a` and `b` (there and here). \
        Subscribe all members of the group alike, or use another group; when those who differ \
        have left, the next heartbeat joins (rejectDifferentSubscription=true)";

    #[test]
    fn a_client_that_differs_is_refused() {
        let mut rig = rig(true);
        said(&mut rig, 1, "t:a");
        let two = beat(2, "g", "CLUSTERING", "t:b", "").replace(
            r#""consumerDataSet":["#,
            r#""producerDataSet":[{"groupName":"p"}],"consumerDataSet":[{"groupName":"h","messageModel":"CLUSTERING","subscriptionDataSet":[{"topic":"t"}]},"#,
        );
        let version = rig.control.version();
        assert_eq!(rig.ask(2, &two), format!("16 {REFUSED}"));
        assert_eq!(notes(&mut rig), format!("WARN {REFUSED}"));
        assert!(rig.control.version() > version, "shards hear of it");
        assert_eq!(counted(&rig), (0, 1, 1));
        let ids = |rig: &mut Rig, group: &str| rig.ask(1, &format!("38 consumerGroup={group}"));
        assert_eq!(ids(&mut rig, "g"), r#"0 {"consumerIdList":["c1"]}"#);
        assert_eq!(ids(&mut rig, "h"), r#"0 {"consumerIdList":["c2"]}"#);
        assert!(rig.ask(2, "204 producerGroup=p").starts_with("0 "));
        let snapshot = rig.control.snapshot();
        assert_eq!(snapshot.refusal("g", conn(2)), Some(REFUSED));
        assert_eq!(snapshot.refusal("h", conn(2)), None);
        assert_eq!(snapshot.refusal("g", conn(1)), None);
        let version = rig.control.version();
        rig.ask(2, &two);
        assert_eq!((notes(&mut rig), counted(&rig).1), (String::new(), 1));
        assert_eq!(rig.control.version(), version, "nothing new");
        rig.ask(1, "35 clientID=c1 consumerGroup=g");
        assert!(rig.ask(2, &two).starts_with("0 "));
        assert_eq!(counted(&rig), (0, 1, 0));
        assert_eq!(rig.control.snapshot().refusal("g", conn(2)), None);
        let again = beat(1, "g", "CLUSTERING", "t:a", "");
        assert!(
            rig.ask(1, &again).starts_with("16 c1 "),
            "the other way round"
        );
    }

    /// All members of a group change what they want, one after the other, and all are in it again.
    #[test]
    fn a_member_that_changes_its_mind_leaves() {
        let mut rig = rig(true);
        (1..=3).for_each(|slot| drop(said(&mut rig, slot, "t:a")));
        let new = |rig: &mut Rig, slot| rig.ask(slot, &beat(slot, "g", "CLUSTERING", "t:b", ""));
        assert!(new(&mut rig, 1).starts_with("16 c1 "));
        assert_eq!(rig.notices(), "2:g 3:g", "who stays takes its queues");
        assert!(new(&mut rig, 2).starts_with("16 c2 "));
        assert_eq!(said(&mut rig, 3, "t:a"), "");
        assert_eq!(counted(&rig).2, 2);
        assert!(new(&mut rig, 3).starts_with("0 "));
        assert!(new(&mut rig, 1).starts_with("0 "));
        assert!(new(&mut rig, 2).starts_with("0 "));
        assert_eq!(counted(&rig), (0, 2, 0));
    }

    #[test]
    fn refusals_end_with_their_client_and_have_a_limit() {
        let mut rig = Rig::new(ControlOptions {
            reject_different_subscription: true,
            members_max: 2,
            ..ControlOptions::default()
        });
        said(&mut rig, 1, "t:a");
        let other = |rig: &mut Rig, slot| rig.ask(slot, &beat(slot, "g", "CLUSTERING", "t:b", ""));
        assert!(other(&mut rig, 2).starts_with("16 "));
        let full = "2 this broker has 2 clients in groups, which is the limit";
        assert_eq!(other(&mut rig, 3), full);
        rig.ask(2, "35 clientID=c2 consumerGroup=g");
        assert!(other(&mut rig, 3).starts_with("16 "));
        rig.control.closed(conn(3), &mut Effects::default());
        assert_eq!(counted(&rig).2, 0);
        assert!(rig.control.snapshot().refusals.is_empty());
        rig.control.closed(conn(1), &mut Effects::default());
        assert!(rig.control.members.is_empty());
    }

    #[test]
    fn what_each_wants_is_told_if_asked() {
        let mut rig = rig(true);
        said(&mut rig, 1, "t:b||a;%RETRY%g:*");
        rig.ask(2, &beat(2, "g", "BROADCASTING", "t:a||b", ""));
        let told = rig.ask(3, "203 consumerGroup=g wantsOfEach=true");
        let plain = rig.ask(3, "203 consumerGroup=g");
        let first =
            r#""version":513,"wants":{"messageModel":"CLUSTERING","topics":{"t":"a || b"}}}"#;
        assert!(told.contains(first), "{told}");
        let second = r#"(there and here)"#;
        assert!(
            told.contains(second) && told.contains("\"clientId\":\"c2\""),
            "{told}"
        );
        assert!(!plain.contains("wants") && !plain.contains("c2"), "{plain}");
    }

    const GROUPS: [&str; 2] = ["g", "h"];
    /// The last two are one wish, and the first none.
    const WISHES: [(&str, &str); 6] = [
        ("CLUSTERING", ""),
        ("CLUSTERING", "t:a"),
        ("CLUSTERING", "t:b;u:*"),
        ("BROADCASTING", "t:a"),
        ("CLUSTERING", "t:x||y"),
        ("CLUSTERING", "%RETRY%g:*;%RETRY%h:*;t:y || x"),
    ];

    #[derive(Clone, Debug)]
    enum Step {
        Beat {
            slot: u32,
            group: usize,
            wish: usize,
        },
        /// Version 2, without subscriptions.
        Bare {
            slot: u32,
            group: usize,
        },
        Leave {
            slot: u32,
            group: usize,
        },
        Close {
            slot: u32,
        },
        Pass {
            ms: u64,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let (slot, group) = (1u32..5, 0usize..2);
        prop_oneof![
            6 => (slot.clone(), group.clone(), 0usize..6)
                .prop_map(|(slot, group, wish)| Step::Beat { slot, group, wish }),
            1 => (slot.clone(), group.clone()).prop_map(|(slot, group)| Step::Bare { slot, group }),
            2 => (slot.clone(), group).prop_map(|(slot, group)| Step::Leave { slot, group }),
            1 => slot.prop_map(|slot| Step::Close { slot }),
            1 => (1u64..100_000).prop_map(|ms| Step::Pass { ms }),
        ]
    }

    /// One group, from scratch.
    #[derive(Clone, Default)]
    struct Model {
        /// Slot, last heartbeat, and the wish if it was said.
        members: Vec<(u32, u64, Option<usize>)>,
        refused: BTreeSet<u32>,
        split: bool,
        told: bool,
        noticed: u64,
        warned: Option<u64>,
    }

    fn same(one: usize, other: usize) -> bool {
        one.min(4) == other.min(4)
    }

    impl Model {
        fn wishes(&self) -> Vec<usize> {
            let said = self.members.iter().filter_map(|(_, _, wish)| *wish);
            said.filter(|wish| *wish > 0).collect()
        }

        fn warns(&mut self, now: u64) -> bool {
            let quiet = self.warned.is_some_and(|at| now - at < QUIET_MS);
            if !quiet {
                self.warned = Some(now);
            }
            !quiet
        }

        /// Gives whether it is refused and whether that warns; `wish` is `None` if it is not said.
        fn beat(&mut self, now: u64, slot: u32, wish: Option<usize>, alike: bool) -> (bool, bool) {
            let known = self.members.iter().position(|member| member.0 == slot);
            let wish = wish.or_else(|| known.and_then(|at| self.members[at].2));
            let mut others = self.members.iter().filter(|member| member.0 != slot);
            let other = others.find_map(|(_, _, wish)| wish.filter(|wish| *wish > 0));
            let differs = |wish| other.is_some_and(|other| !same(other, wish));
            if alike && wish.is_some_and(|wish| wish > 0 && differs(wish)) {
                self.members.retain(|member| member.0 != slot);
                if !self.refused.insert(slot) {
                    return (true, false);
                }
                self.noticed += 1;
                return (true, self.warns(now));
            }
            self.refused.remove(&slot);
            match known {
                Some(at) => self.members[at] = (slot, now, wish),
                None => self.members.push((slot, now, wish)),
            }
            (false, false)
        }

        /// What the log says after a step; `beat` if it was a heartbeat of this group.
        fn notes(&mut self, now: u64, beat: bool) -> (usize, usize) {
            let wishes = self.wishes();
            let split = wishes.iter().any(|wish| !same(*wish, wishes[0]));
            let over = self.split && !split && self.told;
            if split && !self.split {
                (self.told, self.noticed) = (false, self.noticed + 1);
            }
            self.split = split;
            let warns = beat && split && !self.told && self.warns(now);
            self.told |= warns;
            (usize::from(warns), usize::from(over))
        }
    }

    /// Does a step, and says whether it was refused.
    fn take(rig: &mut Rig, step: &Step) -> bool {
        rig.effects = Effects::default();
        match *step {
            Step::Beat { slot, group, wish } => {
                let (model, topics) = WISHES[wish];
                // A subscription to the group's own retry topic alone is none.
                let topics = topics.replace(&format!("%RETRY%{}:*;", GROUPS[1 - group]), "");
                let answer = rig.ask(slot, &beat(slot, GROUPS[group], model, &topics, ""));
                assert!(
                    answer.starts_with("0 ") || answer.starts_with("16 "),
                    "{answer}"
                );
                answer.starts_with("16 ")
            }
            Step::Bare { slot, group } => {
                let more = r#","heartbeatFingerprint":1,"withoutSub":true"#;
                let line = beat(slot, GROUPS[group], "CLUSTERING", "", more);
                !rig.ask(slot, &line).starts_with("0 ")
            }
            Step::Leave { slot, group } => {
                let line = format!("35 clientID=c{slot} consumerGroup={}", GROUPS[group]);
                !rig.ask(slot, &line).starts_with('0')
            }
            Step::Close { slot } => {
                rig.control.closed(conn(slot), &mut rig.effects);
                false
            }
            Step::Pass { ms } => {
                rig.pass_ms(ms);
                rig.control.expire(rig.now, &mut rig.effects);
                false
            }
        }
    }

    fn check(rig: &mut Rig, models: &[Model; 2], alike: bool) {
        let split = models.iter().filter(|model| model.split).count();
        let noticed = models.iter().map(|model| model.noticed).sum();
        let refused = models.iter().map(|model| model.refused.len()).sum();
        assert_eq!(counted(rig), (split, noticed, refused));
        let snapshot = rig.control.snapshot();
        for (model, group) in models.iter().zip(GROUPS) {
            let members = rig.control.members.consumers(group).iter();
            let slots: Vec<u32> = members.clone().map(|member| member.conn.slot).collect();
            let expected: Vec<u32> = model.members.iter().map(|member| member.0).collect();
            assert_eq!(slots, expected, "{group}");
            let wants: BTreeSet<String> = members
                .filter(counts)
                .map(|member| format!("{:?}", member.wants))
                .collect();
            assert_eq!(wants.len() > 1, model.split, "{group}: {wants:?}");
            assert!(!alike || wants.len() < 2, "{group}: {wants:?}");
            for slot in 1..5 {
                let refused = snapshot.refusal(group, conn(slot)).is_some();
                assert_eq!(refused, model.refused.contains(&slot), "{group} {slot}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        /// Whatever members do, what is counted and said is what a look at all of them shows.
        #[test]
        fn histories(steps in prop::collection::vec(step(), 1..40), alike: bool) {
            let mut rig = rig(alike);
            let mut models = [Model::default(), Model::default()];
            for step in &steps {
                let due = rig.control.deadline();
                let refused = take(&mut rig, step);
                let now = rig.now.mono.0;
                let (mut warnings, mut infos, mut expected) = (0, 0, false);
                match *step {
                    Step::Beat { slot, group, wish } => {
                        let (is_refused, warns) = models[group].beat(now, slot, Some(wish), alike);
                        (expected, warnings) = (is_refused, usize::from(warns));
                    }
                    Step::Bare { slot, group } => {
                        (expected, _) = models[group].beat(now, slot, None, alike);
                    }
                    Step::Leave { slot, group } => models[group].drop_slot(slot),
                    Step::Close { slot } => models.iter_mut().for_each(|m| m.drop_slot(slot)),
                    Step::Pass { .. } if due.is_some_and(|at| at <= rig.now.mono) => {
                        models.iter_mut().for_each(|model| model.expire(now));
                    }
                    Step::Pass { .. } => {}
                }
                prop_assert_eq!(refused, expected);
                let beat = match *step {
                    Step::Beat { group, .. } | Step::Bare { group, .. } => Some(group),
                    _ => None,
                };
                for (at, model) in models.iter_mut().enumerate() {
                    let (warns, over) = model.notes(now, beat == Some(at));
                    (warnings, infos) = (warnings + warns, infos + over);
                }
                // The driver ends a connection that was silent in one group, also for the other.
                for conn in std::mem::take(&mut rig.effects.closes) {
                    rig.control.closed(conn, &mut rig.effects);
                    models.iter_mut().for_each(|model| model.drop_slot(conn.slot));
                }
                for model in &mut models {
                    infos += model.notes(now, false).1;
                }
                let said = &rig.effects.notes;
                let warned = said.iter().filter(|note| matches!(note, Note::Warn(_))).count();
                prop_assert_eq!((warned, said.len() - warned), (warnings, infos), "{:?}", said);
                check(&mut rig, &models, alike);
            }
            (1..5).for_each(|slot| rig.control.closed(conn(slot), &mut rig.effects));
            prop_assert!(rig.control.members.is_empty());
            prop_assert!(rig.control.snapshot().refusals.is_empty());
        }
    }

    impl Model {
        fn drop_slot(&mut self, slot: u32) {
            self.members.retain(|member| member.0 != slot);
            self.refused.remove(&slot);
        }

        fn expire(&mut self, now: u64) {
            self.members.retain(|(_, seen, _)| now - seen <= 120_000);
        }
    }
}
