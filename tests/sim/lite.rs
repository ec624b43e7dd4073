//! Consumers of lite topics: each is handed out in order, to one of them at a time, without a gap,
//! and never again from where everything before was acknowledged in time.

use std::collections::{BTreeMap, BTreeSet};

use orbitmq::message::view::RecordView;
use orbitmq::remoting::command::{Command, FrameWriter};

use crate::client::{Asked, Client, Ctx, Role, light_offsets, number, remark_of};
use crate::model::Check;
use crate::options::WALL_MS;

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

/// The topic that has lite topics, and the group that consumes them.
pub const PARENT: &str = "p0";
pub const GROUP: &str = "lite";
/// Lite topics of it.
const LITES: u64 = 3;

const SUCCESS: i32 = 0;
const POLLING_FULL: i32 = 209;
const POLLING_TIMEOUT: i32 = 210;
/// How long a lease is that was changed, ms.
const CHANGED_MS: i64 = 300;

pub fn is_parent(topic: &str) -> bool {
    topic == PARENT
}

pub fn lite_of(uid: u64) -> String {
    format!("l{}", uid % LITES)
}

/// The light queue behind it.
pub fn light_of(uid: u64) -> String {
    format!("%LMQ%${PARENT}${}", lite_of(uid))
}

/// What the group knows.
#[derive(Default)]
pub struct Lites {
    /// By light queue, from offset 0 on.
    queues: BTreeMap<String, BTreeMap<i64, Place>>,
    /// Messages that came.
    pub seen: BTreeSet<u64>,
}

struct Place {
    uid: u64,
    /// Nobody may have it again before this, wall ms; 0 if that is not known.
    until_ms: i64,
    /// An acknowledgement is under way, or was answered.
    asked: bool,
    /// When one was answered that came in time, µs.
    acked: Option<u64>,
}

impl Place {
    fn held(uid: u64, until_ms: i64) -> Place {
        Place {
            uid,
            until_ms,
            asked: false,
            acked: None,
        }
    }
}

impl Lites {
    /// After a power cut under `ASYNC_FLUSH`. What was seen may come again or not: how far the
    /// group is may have been safe already.
    pub fn forget(&mut self) {
        self.queues.clear();
    }

    /// Whether a message may be handed out here and now.
    fn check(&self, light: &str, offset: i64, pop: (u64, i64), gaps: bool) -> Check {
        let (asked_at, pop_ms) = pop;
        let none = BTreeMap::new();
        let places = self.queues.get(light).unwrap_or(&none);
        let skipped = (0..offset).find(|before| places.get(before).is_none_or(|p| !p.asked));
        ensure!(
            gaps || skipped.is_none(),
            "{light}: {offset} before {skipped:?}, which nobody acknowledged"
        );
        let is_over = |at: i64| {
            let acked = places.get(&at).and_then(|place| place.acked);
            acked.is_some_and(|acked| acked < asked_at)
        };
        ensure!(
            !(0..=offset).all(is_over),
            "{light}: {offset} comes again, although it and all before was acknowledged"
        );
        let held = places.get(&offset).filter(|place| !place.asked);
        ensure!(
            held.is_none_or(|place| place.until_ms <= pop_ms),
            "{light}: {offset} was handed out at {pop_ms}, leased until {}",
            held.map_or(0, |place| place.until_ms)
        );
        Ok(())
    }
}

pub struct Liter {
    pub id: String,
    /// Acknowledges everything, for the end of a run.
    pub drains: bool,
    joined: bool,
}

impl Liter {
    pub fn new(id: String) -> Liter {
        Liter {
            id,
            drains: false,
            joined: false,
        }
    }
}

/// What was asked.
pub enum AskedLite {
    Join,
    Pop,
    Ack(Held),
}

/// A message in a consumer's hands.
pub struct Held {
    light: String,
    offset: i64,
    until_ms: i64,
}

impl Client {
    pub fn consume_lites(&mut self, ctx: &mut Ctx<'_>) {
        if ctx.model.generation(PARENT).is_none() || self.waiting_answers() >= 3 {
            return;
        }
        let due = self.is_beat_due(ctx);
        let Role::Liter(liter) = &mut self.role else {
            return;
        };
        let (id, drains) = (liter.id.clone(), liter.drains);
        if due || !liter.joined {
            return self.subscribe(ctx, &id);
        }
        let poll_ms = if drains { 0 } else { ctx.rng.below(400) as i64 };
        let (most, invisible_ms) = (ctx.rng.range(1, 9) as i64, ctx.rng.range(200, 1_500) as i64);
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("clientId", &id);
            w.field_str("consumerGroup", GROUP);
            w.field_str("topic", PARENT);
            w.field_i64("maxMsgNum", most);
            w.field_i64("invisibleTime", invisible_ms);
            w.field_i64("pollTime", poll_ms);
            w.field_i64("bornTime", 0);
        };
        self.ask(ctx, 200_070, Some(Asked::Lite(AskedLite::Pop)), fields, b"");
    }

    /// Makes the group, if need be, and says what this client wants.
    fn subscribe(&mut self, ctx: &mut Ctx<'_>, id: &str) {
        let group =
            format!(r#"{{"groupName":"{GROUP}","attributes":{{"+lite.bind.topic":"{PARENT}"}}}}"#);
        self.ask(ctx, 200, Some(Asked::Other), |_| {}, group.as_bytes());
        let names: Vec<String> = (0..LITES).map(|n| format!("\"l{n}\"")).collect();
        let names = names.join(",");
        let body = format!(
            r#"{{"subscriptionSet":[{{"action":"PARTIAL_ADD","clientId":"{id}","group":"{GROUP}","liteTopicSet":[{names}],"topic":"{PARENT}","version":1}}]}}"#
        );
        self.ask(
            ctx,
            200_071,
            Some(Asked::Lite(AskedLite::Join)),
            |_| {},
            body.as_bytes(),
        );
    }

    pub fn lite_answered(
        &mut self,
        ctx: &mut Ctx<'_>,
        asked: AskedLite,
        asked_at: u64,
        command: &Command<'_>,
    ) -> Check {
        match asked {
            AskedLite::Join => {
                if let Role::Liter(liter) = &mut self.role {
                    liter.joined = command.code == SUCCESS;
                }
                Ok(())
            }
            AskedLite::Pop => self.lite_popped(ctx, asked_at, command),
            AskedLite::Ack(held) => lite_acked(ctx, &held, command),
        }
    }

    fn lite_popped(&mut self, ctx: &mut Ctx<'_>, asked_at: u64, command: &Command<'_>) -> Check {
        let Role::Liter(liter) = &mut self.role else {
            return Err("popped, but nobody did".to_owned());
        };
        match command.code {
            SUCCESS => {}
            POLLING_FULL | POLLING_TIMEOUT => return Ok(()),
            _ if ctx.lossy => {
                liter.joined = false;
                return Ok(());
            }
            code => return Err(format!("lite: code {code}: {}", remark_of(command))),
        }
        let drains = liter.drains;
        let pop_ms = number(command, "popTime")?;
        let until_ms = pop_ms + number(command, "invisibleTime")?;
        let counts = command
            .ext
            .find("orderCountInfo")
            .map(|text| text.to_string());
        let (mut held, mut ends) = (Vec::new(), BTreeMap::new());
        for record in RecordView::iter(command.body) {
            let record = record.map_err(|error| format!("lite: {error}"))?;
            let uid = ctx.model.check_content(&record)?;
            let told = light_offsets(&record);
            let [(light, offset)] = &told[..] else {
                return Err(format!("u{uid}: in light queues {told:?}"));
            };
            ensure!(*light == light_of(uid), "u{uid}: came in {light}");
            match ends.insert(light.clone(), *offset) {
                Some(last) => ensure!(*offset == last + 1, "{light}: {offset} follows {last}"),
                None => {
                    // What is not there may have gone by its age.
                    let gaps = ctx.model.lossy || ctx.model.kept_us.is_some();
                    ctx.model
                        .lites
                        .check(light, *offset, (asked_at, pop_ms), gaps)?;
                }
            }
            let places = ctx.model.lites.queues.entry(light.clone()).or_default();
            let before = places.insert(*offset, Place::held(uid, until_ms));
            ensure!(
                before.is_none_or(|before| before.uid == uid),
                "{light}: another message at {offset} than before"
            );
            ctx.model.lites.seen.insert(uid);
            held.push(Held {
                light: light.clone(),
                offset: *offset,
                until_ms,
            });
        }
        ensure!(!held.is_empty(), "lite: popped, but nothing is there");
        let told = counts.unwrap_or_default().split(';').count();
        ensure!(
            told == held.len(),
            "{told} counts of {} messages",
            held.len()
        );
        ctx.counts.pulled += held.len() as u64;
        self.decide_lites(ctx, held, pop_ms, drains);
        Ok(())
    }

    fn decide_lites(&mut self, ctx: &mut Ctx<'_>, held: Vec<Held>, pop_ms: i64, drains: bool) {
        let dice = if drains { 0 } else { ctx.rng.below(100) };
        let most = match dice {
            0..60 => held.len(),
            60..75 => 1,
            // They come again.
            _ => 0,
        };
        for one in held.iter().take(most) {
            let asked = Asked::Lite(AskedLite::Ack(Held {
                light: one.light.clone(),
                ..*one
            }));
            let places = ctx.model.lites.queues.get_mut(&one.light);
            if let Some(place) = places.and_then(|places| places.get_mut(&one.offset)) {
                place.asked = true;
            }
            let fields = |w: &mut FrameWriter<'_>| name(w, one, pop_ms);
            self.ask(ctx, 200_051, Some(asked), fields, b"");
        }
        if (75..85).contains(&dice) {
            let one = &held[0];
            for other in &held {
                let places = ctx.model.lites.queues.get_mut(&other.light);
                if let Some(place) = places.and_then(|places| places.get_mut(&other.offset)) {
                    place.until_ms = 0;
                }
            }
            let suspend = dice >= 80;
            let fields = |w: &mut FrameWriter<'_>| {
                name(w, one, pop_ms);
                w.field_i64("invisibleTime", CHANGED_MS);
                w.field_bool("suspend", suspend);
            };
            self.ask(ctx, 200_053, Some(Asked::Other), fields, b"");
        }
    }
}

fn lite_acked(ctx: &mut Ctx<'_>, held: &Held, command: &Command<'_>) -> Check {
    let (code, remark) = (command.code, remark_of(command));
    ensure!(
        code == SUCCESS || ctx.lossy || ctx.model.kept_us.is_some(),
        "{}: {} not acknowledged, code {code}: {remark}",
        held.light,
        held.offset
    );
    let in_time = WALL_MS + ((ctx.now / 1000) as i64) < held.until_ms;
    let places = ctx.model.lites.queues.get_mut(&held.light);
    if let Some(place) = places.and_then(|places| places.get_mut(&held.offset))
        && code == SUCCESS
        && in_time
        && place.until_ms == held.until_ms
    {
        place.acked = Some(ctx.now);
    }
    Ok(())
}

/// The fields that name a message of a lite topic.
fn name(w: &mut FrameWriter<'_>, held: &Held, pop_ms: i64) {
    let (offset, invisible_ms) = (held.offset, held.until_ms - pop_ms);
    let lite = held.light.rsplit('$').next().unwrap_or_default();
    let handle = format!("0 {pop_ms} {invisible_ms} 999 0 broker-a 0 {offset}");
    w.field_str("consumerGroup", GROUP);
    w.field_str("topic", PARENT);
    w.field_i64("queueId", 0);
    w.field_i64("offset", offset);
    w.field_str("extraInfo", &handle);
    w.field_str("liteTopic", lite);
}
