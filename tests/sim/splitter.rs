//! Members of one group that subscribe alike or differently, and somebody who looks: a split group
//! is noticed with the heartbeat that splits it, also after a restart, and no other one is; where
//! the broker refuses, who came later is refused, and let in when the others have left.

use std::collections::{BTreeMap, BTreeSet};

use orbitmq::remoting::body::client::ConsumerConnection;
use orbitmq::remoting::body::json;
use orbitmq::remoting::body::table::KvTable;
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::header::pull::{FLAG_SUBSCRIPTION, PullHeader};
use orbitmq::remoting::text::Text;

use crate::client::{Asked, Client, Ctx, Role, remark_of};
use crate::model::{Check, Model};

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

const GROUP: &str = "split";
const TOPIC: &str = "t0";
/// The last one looks.
pub const SPLITTERS: u64 = 3;
const LOOKER: u64 = SPLITTERS - 1;

const SUCCESS: i32 = 0;
const NO_PERMISSION: i32 = 16;
/// Within this the shards have told each other who came and left, µs.
const NEWS_US: u64 = 5_000;

/// What members were told.
#[derive(Default)]
pub struct Splits {
    members: BTreeMap<u64, Standing>,
    /// A heartbeat is under way: the next one waits, so that their order is known.
    beats: bool,
    /// Wishes that were sent in this life of the broker.
    wishes: BTreeSet<usize>,
    life: u64,
    /// Somebody left or came: until then not all shards may know.
    changed: bool,
    known_from: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// By a wish.
    In(usize),
    Refused,
    /// The answer was lost.
    Unsure,
}

impl Splits {
    fn change(&mut self) {
        self.changed = true;
    }

    /// Whether everybody has known what is known here since `at`.
    fn is_settled(&mut self, at: u64, now: u64) -> bool {
        if std::mem::take(&mut self.changed) {
            self.known_from = now + NEWS_US;
        }
        let unsure = self.members.values().any(|one| *one == Standing::Unsure);
        at >= self.known_from && !self.beats && !unsure
    }

    fn wishes_of_others(&self, number: u64) -> Vec<usize> {
        let others = self.members.iter().filter(|(other, _)| **other != number);
        let wishes = others.filter_map(|(_, standing)| match standing {
            Standing::In(wish) => Some(*wish),
            _ => None,
        });
        wishes.collect()
    }
}

pub struct Splitter {
    number: u64,
    wish: usize,
    next_beat: u64,
}

impl Splitter {
    pub fn new(number: u64) -> Splitter {
        Splitter {
            number,
            wish: 0,
            next_beat: 0,
        }
    }
}

pub enum AskedSplit {
    /// A heartbeat with a wish; whether it was clear then how it must be answered.
    Beat(usize, Option<bool>),
    /// Whether the client is refused.
    Pull(bool),
    Counts,
    Members,
}

impl Client {
    fn splitter(&mut self) -> &mut Splitter {
        match &mut self.role {
            Role::Splitter(splitter) => splitter,
            _ => unreachable!("only members of this group ask so"),
        }
    }

    pub fn split(&mut self, ctx: &mut Ctx<'_>) {
        if ctx.model.splits.life != ctx.life {
            ctx.model.splits.life = ctx.life;
            ctx.model.splits.wishes.clear();
        }
        let live = ctx.model.generation(TOPIC) == Some(1);
        if self.waiting_answers() > 0 || !live {
            return;
        }
        let now = ctx.now;
        let settled = ctx.model.splits.is_settled(now, now);
        let (number, due) = (self.splitter().number, now >= self.splitter().next_beat);
        if number == LOOKER {
            if due {
                self.splitter().next_beat = now + 20_000;
                self.look(ctx);
            }
            return;
        }
        if due && !ctx.model.splits.beats {
            return self.beat(ctx, settled);
        }
        let standing = ctx.model.splits.members.get(&number);
        let refused = standing == Some(&Standing::Refused);
        if settled && standing.is_some() && ctx.rng.percent(20) {
            self.pull_split(ctx, refused);
        }
    }

    fn beat(&mut self, ctx: &mut Ctx<'_>, settled: bool) {
        let flips = ctx.config.wishes > 1 && ctx.rng.percent(30);
        let other = ctx.rng.below(ctx.config.wishes) as usize;
        let now = ctx.now;
        let me = self.splitter();
        me.next_beat = now + 100_000;
        if flips {
            me.wish = other;
        }
        let (number, wish) = (me.number, me.wish);
        let others = ctx.model.splits.wishes_of_others(number);
        let refused = ctx.config.refuses && others.iter().any(|other| *other != wish);
        ctx.model.splits.beats = true;
        ctx.model.splits.wishes.insert(wish);
        let tag = ["a", "b"][wish];
        let body = format!(
            r#"{{"clientID":"split-{number}","consumerDataSet":[{{"groupName":"{GROUP}","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[{{"topic":"{TOPIC}","subString":"{tag}","subVersion":{now},"expressionType":"TAG"}}]}}],"producerDataSet":[]}}"#
        );
        let asked = AskedSplit::Beat(wish, settled.then_some(refused));
        self.ask(ctx, 34, Some(Asked::Split(asked)), |_| {}, body.as_bytes());
    }

    fn pull_split(&mut self, ctx: &mut Ctx<'_>, refused: bool) {
        let header = PullHeader {
            consumer_group: Text::plain(GROUP),
            topic: Text::plain(TOPIC),
            queue_id: 0,
            queue_offset: 0,
            max_msg_nums: 1,
            sys_flag: FLAG_SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_ms: 0,
            subscription: Some(Text::plain("*")),
            sub_version: 1,
            expression_type: None,
            max_msg_bytes: None,
            request_source: None,
            proxy_forward_client_id: None,
            lite_topic: None,
        };
        let asked = Asked::Split(AskedSplit::Pull(refused));
        self.ask(ctx, 11, Some(asked), |w| header.encode(w), b"");
    }

    fn look(&mut self, ctx: &mut Ctx<'_>) {
        if ctx.rng.percent(50) {
            let asked = Asked::Split(AskedSplit::Counts);
            return self.ask(ctx, 28, Some(asked), |_| {}, b"");
        }
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("consumerGroup", GROUP);
            w.field_bool("wantsOfEach", true);
        };
        let asked = Asked::Split(AskedSplit::Members);
        self.ask(ctx, 203, Some(asked), fields, b"");
    }

    pub fn split_failed(&mut self, asked: &AskedSplit, model: &mut Model) {
        if matches!(asked, AskedSplit::Beat(..)) {
            let number = self.splitter().number;
            model.splits.beats = false;
            model.splits.members.insert(number, Standing::Unsure);
            model.splits.change();
        }
    }

    /// The connection is gone.
    pub fn splitter_left(&mut self, model: &mut Model) {
        let me = self.splitter();
        me.next_beat = 0;
        model.splits.members.remove(&me.number);
        model.splits.change();
    }

    pub fn split_answered(
        &mut self,
        ctx: &mut Ctx<'_>,
        asked: AskedSplit,
        asked_at: u64,
        command: &Command<'_>,
    ) -> Check {
        let (code, now) = (command.code, ctx.now);
        match asked {
            AskedSplit::Beat(wish, expected) => {
                let number = self.splitter().number;
                ensure!(
                    code == SUCCESS || ctx.config.refuses && code == NO_PERMISSION,
                    "code {code}: {}",
                    remark_of(command)
                );
                let splits = &mut ctx.model.splits;
                splits.beats = false;
                // Nobody has left meanwhile.
                let settled = splits.is_settled(asked_at, now);
                let refused = code == NO_PERMISSION;
                ensure!(
                    !settled || expected.is_none_or(|expected| expected == refused),
                    "split-{number} wants {wish}, others {:?}: code {code}: {}",
                    splits.wishes_of_others(number),
                    remark_of(command)
                );
                let standing = match refused {
                    true => Standing::Refused,
                    false => Standing::In(wish),
                };
                if splits.members.insert(number, standing) != Some(standing) {
                    splits.change();
                }
                Ok(())
            }
            AskedSplit::Pull(refused) => {
                ensure!(
                    refused == (code == NO_PERMISSION),
                    "a pull of a client that is refused ({refused}): code {code}: {}",
                    remark_of(command)
                );
                Ok(())
            }
            AskedSplit::Counts => counted(ctx, asked_at, command),
            AskedSplit::Members => listed(ctx, asked_at, command),
        }
    }
}

fn counted(ctx: &mut Ctx<'_>, asked_at: u64, command: &Command<'_>) -> Check {
    let (code, now) = (command.code, ctx.now);
    ensure!(code == SUCCESS, "code {code}: {}", remark_of(command));
    let told: KvTable = json::from_slice(command.body).map_err(|error| error.to_string())?;
    let count = |name: &str| {
        told.table
            .get(name)
            .and_then(|text| text.parse::<usize>().ok())
    };
    let splits = &mut ctx.model.splits;
    let total = count("splitGroupsTotal");
    ensure!(
        splits.wishes.len() > 1 || total == Some(0),
        "{total:?} splits, but all have asked for {:?}",
        splits.wishes
    );
    if !splits.is_settled(asked_at, now) {
        return Ok(());
    }
    let wishes: BTreeSet<usize> = splits.wishes_of_others(LOOKER).into_iter().collect();
    let refused = splits.members.values();
    let refused = refused.filter(|one| **one == Standing::Refused).count();
    let expected = (Some(usize::from(wishes.len() > 1)), Some(refused));
    let said = (count("splitGroups"), count("splitGroupsRefusedClients"));
    ensure!(
        said == expected,
        "{said:?} groups are split and clients refused, should be {expected:?}: {:?}",
        splits.members
    );
    Ok(())
}

/// The members, and what each wants.
fn listed(ctx: &mut Ctx<'_>, asked_at: u64, command: &Command<'_>) -> Check {
    let now = ctx.now;
    let splits = &mut ctx.model.splits;
    if !splits.is_settled(asked_at, now) {
        return Ok(());
    }
    let members = splits.wishes_of_others(LOOKER);
    let told: ConsumerConnection = match command.code {
        SUCCESS => json::from_slice(command.body).map_err(|error| error.to_string())?,
        // Nobody is there.
        _ => ConsumerConnection::default(),
    };
    let clients = told.connection_set.into_iter();
    let there = clients.filter(|client| client.refused.is_none());
    let wants = there.filter_map(|client| client.wants?.topics.get(TOPIC).cloned());
    let (mut wants, mut wished): (Vec<String>, Vec<String>) = (
        wants.collect(),
        members
            .iter()
            .map(|wish| ["a", "b"][*wish].to_owned())
            .collect(),
    );
    wants.sort();
    wished.sort();
    ensure!(
        wants == wished,
        "members want {wants:?}, have asked for {wished:?}"
    );
    Ok(())
}
