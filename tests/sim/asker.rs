//! Clients that ask by a message and wait for its answer, and one that answers: an answer comes to
//! the client that asked and to no other, who answers is told whether it came, and a question that
//! a crash swallowed is asked again.

use std::collections::{BTreeMap, VecDeque};

use orbitmq::message::properties;
use orbitmq::message::view::RecordView;
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::header::pull::{FLAG_SUBSCRIPTION, PullHeader};
use orbitmq::remoting::header::send::SendHeader;
use orbitmq::remoting::text::Text;

use crate::client::{Asked, Client, Ctx, Role, number, remark_of};
use crate::model::{Check, Model};

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

/// The topic of questions.
pub const QUESTIONS: &str = "q0";
/// The group of those who ask.
pub const GROUP: &str = "askers";
const REPLIES: &str = "c_REPLY_TOPIC";
pub const ASKERS: u64 = 2;
/// Nobody has this name.
const GONE: &str = "asker-gone";

const SUCCESS: i32 = 0;
const SYSTEM_ERROR: i32 = 1;
const PULL_NOT_FOUND: i32 = 19;
const PULL_MOVED: i32 = 21;
const NO_GROUP: i32 = 26;
/// An answer that is not there by then is asked for again, µs.
const WAIT_US: u64 = 400_000;
const BEAT_US: u64 = 1_000_000;

/// What is known of answers.
#[derive(Default)]
pub struct Answers {
    /// By number.
    sent: BTreeMap<u64, Answer>,
    /// Clients that wait, and since when they are known.
    online: BTreeMap<String, u64>,
}

struct Answer {
    to: String,
    uid: u64,
    /// The client has it, and what it said to that.
    came: Option<i32>,
}

pub struct Asker {
    id: String,
    joined: bool,
    next_beat: u64,
    /// The message that asks, and when it was sent last.
    question: Option<(u64, u64)>,
    /// Asks nothing new, for the end of a run.
    pub drains: bool,
}

impl Asker {
    pub fn new(n: u64) -> Asker {
        Asker {
            id: format!("asker-{n}"),
            joined: false,
            next_beat: 0,
            question: None,
            drains: false,
        }
    }

    /// What makes a message a question.
    pub fn properties(&self, uid: u64) -> String {
        let id = &self.id;
        format!("REPLY_TO_CLIENT\u{1}{id}\u{2}CORRELATION_ID\u{1}{uid}\u{2}TTL\u{1}3000\u{2}")
    }

    /// What it waits for at the end.
    pub fn missing(&self) -> Option<String> {
        let uid = self.question?.0;
        Some(format!("u{uid} asked and had no answer"))
    }
}

#[derive(Default)]
pub struct Answerer {
    next: i64,
    /// Who asked, and by which message.
    open: VecDeque<(String, u64)>,
    pub drains: bool,
}

impl Answerer {
    /// After an allowed loss offsets mean other messages.
    pub fn forget(&mut self) {
        self.next = 0;
    }
}

pub enum AskedReply {
    Join,
    Pull,
    Answer(u64),
}

fn asker(client: &mut Client) -> &mut Asker {
    match &mut client.role {
        Role::Asker(asker) => asker,
        _ => unreachable!("only askers wait"),
    }
}

fn answerer(client: &mut Client) -> &mut Answerer {
    match &mut client.role {
        Role::Answerer(answerer) => answerer,
        _ => unreachable!("only one answers"),
    }
}

impl Client {
    pub fn ask_questions(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let me = asker(self);
        if !me.joined || now >= me.next_beat {
            me.next_beat = now + BEAT_US;
            let id = &me.id;
            let body = format!(
                r#"{{"clientID":"{id}","consumerDataSet":[],"producerDataSet":[{{"groupName":"{GROUP}"}}]}}"#
            );
            let asked = Asked::Reply(AskedReply::Join);
            return self.ask(ctx, 34, Some(asked), |_| {}, body.as_bytes());
        }
        if self.waiting_answers() > 0 || ctx.model.generation(QUESTIONS) != Some(1) {
            return;
        }
        let me = asker(self);
        let uid = match me.question {
            Some((_, at)) if now < at + WAIT_US => return,
            Some((uid, _)) => uid,
            None if me.drains => return,
            None => match ctx.question(QUESTIONS) {
                Some(uid) => uid,
                None => return,
            },
        };
        asker(self).question = Some((uid, now));
        self.send_one(ctx, QUESTIONS, uid);
    }

    pub fn answer_questions(&mut self, ctx: &mut Ctx<'_>) {
        if self.waiting_answers() > 0 || ctx.model.generation(QUESTIONS) != Some(1) {
            return;
        }
        if let Some((to, uid)) = answerer(self).open.pop_front() {
            return self.send_answer(ctx, to, uid);
        }
        if ctx.rng.percent(3) && !answerer(self).drains {
            return self.send_answer(ctx, GONE.to_owned(), 0);
        }
        let header = PullHeader {
            consumer_group: Text::plain("answerers"),
            topic: Text::plain(QUESTIONS),
            queue_id: 0,
            queue_offset: answerer(self).next,
            max_msg_nums: 8,
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
        let asked = Asked::Reply(AskedReply::Pull);
        self.ask(ctx, 11, Some(asked), |w| header.encode(w), b"");
    }

    fn send_answer(&mut self, ctx: &mut Ctx<'_>, to: String, uid: u64) {
        *ctx.opaque += 1;
        let number = *ctx.opaque as u64;
        let properties = format!(
            "REPLY_TO_CLIENT\u{1}{to}\u{2}CORRELATION_ID\u{1}{uid}\u{2}MSG_TYPE\u{1}reply\u{2}"
        );
        let answer = Answer {
            to,
            uid,
            came: None,
        };
        ctx.model.answers.sent.insert(number, answer);
        let header = SendHeader {
            producer_group: Text::plain("answerers"),
            topic: Text::plain(REPLIES),
            default_topic: Text::plain("TBW102"),
            default_topic_queue_nums: 4,
            queue_id: 0,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            flag: 0,
            properties: Text::plain(&properties),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: None,
        };
        let long = ctx.rng.percent(50);
        let fields = |w: &mut FrameWriter<'_>| match long {
            true => header.encode_long(w),
            false => header.encode_short(w),
        };
        let asked = Asked::Reply(AskedReply::Answer(number));
        let body = number.to_string();
        let code = if long { 324 } else { 325 };
        self.ask(ctx, code, Some(asked), fields, body.as_bytes());
    }

    /// PUSH_REPLY_MESSAGE_TO_CLIENT 326.
    pub fn answer_pushed(&mut self, ctx: &mut Ctx<'_>, command: &Command<'_>) -> Check {
        let id = match &self.role {
            Role::Asker(asker) => asker.id.clone(),
            _ => String::new(),
        };
        let number = std::str::from_utf8(command.body).ok();
        let number = number.and_then(|number| number.parse::<u64>().ok());
        let answer = number.and_then(|number| ctx.model.answers.sent.get_mut(&number));
        let answer = answer.ok_or("an answer was pushed that nobody gave")?;
        let (to, uid) = (answer.to.clone(), answer.uid);
        ensure!(to == id, "an answer for {to} came to {id:?}");
        ensure!(answer.came.is_none(), "the answer to u{uid} came twice");
        let text = command.ext.find("properties").map(|text| text.to_string());
        let text = text.unwrap_or_default();
        let told = properties::find_str(text.as_bytes(), "CORRELATION_ID");
        ensure!(
            told == Some(&uid.to_string()),
            "the answer to u{uid} names {told:?}"
        );
        // A client may have no room for it.
        let code = if ctx.rng.percent(90) {
            SUCCESS
        } else {
            SYSTEM_ERROR
        };
        answer.came = Some(code);
        let me = asker(self);
        if code == SUCCESS && me.question.is_some_and(|(waits, _)| waits == uid) {
            me.question = None;
        }
        ctx.reply(command, code, b"");
        Ok(())
    }

    pub fn reply_answered(
        &mut self,
        ctx: &mut Ctx<'_>,
        asked: AskedReply,
        asked_at: u64,
        command: &Command<'_>,
    ) -> Check {
        let code = command.code;
        match asked {
            AskedReply::Join => {
                ensure!(code == SUCCESS, "code {code}: {}", remark_of(command));
                let me = asker(self);
                me.joined = true;
                let online = &mut ctx.model.answers.online;
                online.entry(me.id.clone()).or_insert(ctx.now);
                Ok(())
            }
            AskedReply::Pull => self.questions_came(ctx, command),
            AskedReply::Answer(number) => answer_told(ctx, number, asked_at, command),
        }
    }

    fn questions_came(&mut self, ctx: &mut Ctx<'_>, command: &Command<'_>) -> Check {
        let next = answerer(self).next;
        match command.code {
            SUCCESS => {}
            PULL_NOT_FOUND => return Ok(()),
            NO_GROUP | PULL_MOVED if ctx.lossy => {
                answerer(self).next = 0;
                return Ok(());
            }
            code => return Err(format!("from {next}: code {code}: {}", remark_of(command))),
        }
        for record in RecordView::iter(command.body) {
            let record = record.map_err(|error| error.to_string())?;
            ctx.model
                .seen(&(QUESTIONS.to_owned(), 0), &record, ctx.now)?;
            let text = |name| properties::find_str(record.properties(), name);
            if let (Some(to), Some(uid)) = (text("REPLY_TO_CLIENT"), text("CORRELATION_ID")) {
                let uid = uid.parse().map_err(|_| format!("a question {uid}"))?;
                answerer(self).open.push_back((to.to_owned(), uid));
            }
        }
        answerer(self).next = number(command, "nextBeginOffset")?;
        Ok(())
    }

    /// The connection is gone.
    pub fn asker_left(&mut self, model: &mut Model) {
        let me = asker(self);
        me.joined = false;
        model.answers.online.remove(&me.id);
    }
}

/// Who answers hears whether the one who asked has it.
fn answer_told(ctx: &mut Ctx<'_>, number: u64, asked_at: u64, command: &Command<'_>) -> Check {
    let answer = &ctx.model.answers.sent[&number];
    let (code, remark) = (command.code, remark_of(command));
    let Answer { to, uid, came } = answer;
    if to == GONE {
        let said = format!("push reply message fail, channel of <{GONE}> not found.");
        ensure!(
            code == SYSTEM_ERROR && remark == said,
            "an answer to nobody: code {code}: {remark}"
        );
        return Ok(());
    }
    let since = ctx.model.answers.online.get(to);
    let sure = since.is_some_and(|since| *since < asked_at);
    match (code, came) {
        (SUCCESS, Some(SUCCESS)) => Ok(()),
        (SUCCESS, came) => Err(format!("u{uid}: {to} has its answer, but {came:?}")),
        (SYSTEM_ERROR, Some(SYSTEM_ERROR)) => Ok(()),
        (SYSTEM_ERROR, came) if sure => Err(format!("u{uid}: {to} waits, {came:?}: {remark}")),
        (SYSTEM_ERROR, _) => Ok(()),
        _ => Err(format!("u{uid}: code {code}: {remark}")),
    }
}
