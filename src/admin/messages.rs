//! Messages: find, look at, read, send.

use serde_json::Value;

use super::link::{Answer, Link, Trouble};
use super::sheet::{Sheet, time};
use crate::message::id::OffsetId;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::{request, response};

/// Characters of a body that a table shows.
const BODY_CHARS: usize = 60;
pub const COLUMNS: [&str; 9] = [
    "topic", "queue", "offset", "stored", "tag", "keys", "attempts", "id", "body",
];

/// A message to send.
pub struct Letter<'a> {
    pub topic: &'a str,
    pub body: &'a str,
    pub key: Option<&'a str>,
    pub tag: Option<&'a str>,
    pub delay_ms: Option<u64>,
    /// `NAME=VALUE` each.
    pub properties: &'a [String],
    pub priority: Option<u32>,
}

pub fn find(
    link: &mut Link,
    topic: &str,
    key: &str,
    unique: bool,
    most: u32,
) -> Result<Sheet, Trouble> {
    let mut sheet = Sheet::new(&COLUMNS).or_absent(format!("{topic} has no message with {key}"));
    for broker in link.route(topic)? {
        let answer = query(link, &broker.addr, topic, key, unique, most)?;
        show(&mut sheet, &answer, &broker.addr)?;
    }
    Ok(sheet)
}

/// Messages with a key on one broker; an empty body if there are none.
pub fn query(
    link: &mut Link,
    addr: &str,
    topic: &str,
    key: &str,
    unique: bool,
    most: u32,
) -> Result<Answer, Trouble> {
    let (most, end) = (most.to_string(), (link.now_ms() + 3_600_000).to_string());
    let kind = if unique { "U" } else { "K" };
    let fields = [
        ("topic", topic),
        ("key", key),
        ("maxNum", &most),
        ("beginTimestamp", "0"),
        ("endTimestamp", &end),
        ("indexType", kind),
        ("_UNIQUE_KEY_QUERY", if unique { "true" } else { "false" }),
    ];
    let is_good = |code| code == response::SUCCESS || code == response::QUERY_NOT_FOUND;
    link.ask_until(addr, request::QUERY_MESSAGE, &fields, b"", is_good)
}

pub fn view(link: &mut Link, id: &str) -> Result<Sheet, Trouble> {
    let answer = stored(link, id)?;
    let mut sheet = sheet();
    let addr = answer.addr.clone();
    show(&mut sheet, &answer, &addr)?;
    Ok(sheet)
}

/// An empty table of messages.
pub fn sheet() -> Sheet {
    Sheet::new(&COLUMNS)
}

/// The message with an offset id.
pub fn stored(link: &mut Link, id: &str) -> Result<Answer, Trouble> {
    let wrong = || Trouble::Wrong(format!("{id} is no offset id: 32 or 56 hexadecimal digits"));
    let place = OffsetId::parse(id).ok_or_else(wrong)?;
    let (addr, offset) = (
        place.store_host.to_string(),
        place.physical_offset.to_string(),
    );
    let absent = |remark| Trouble::Absent(format!("{addr} has no message at {id}: {remark}"));
    let fields = [("offset", offset.as_str())];
    match link.ask(&addr, request::VIEW_MESSAGE_BY_ID, &fields, b"") {
        Err(Trouble::Refused {
            code: response::SYSTEM_ERROR,
            remark,
            ..
        }) => Err(absent(remark)),
        other => other,
    }
}

/// Messages of one queue; an empty body if there are none.
pub fn pull(
    link: &mut Link,
    addr: &str,
    topic: &str,
    queue: i32,
    offset: i64,
    count: u32,
) -> Result<Answer, Trouble> {
    let wish = Pull {
        group: TOOLS_GROUP,
        topic,
        queue,
        offset,
        count,
        hold_ms: 0,
    };
    let asked = wish.fields();
    let fields: Vec<(&str, &str)> = asked.iter().map(|(key, value)| (*key, &**value)).collect();
    link.ask_until(addr, request::PULL_MESSAGE, &fields, b"", is_pulled)
}

/// A group that is there for tools, and commits nothing.
pub const TOOLS_GROUP: &str = "TOOLS_CONSUMER";
/// Bits of a pull: the broker holds it while there is nothing; its filter comes with it.
const SUSPENDS: u32 = 2;
const FILTERS: u32 = 4;

/// What is asked of one queue.
pub struct Pull<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    pub queue: i32,
    pub offset: i64,
    pub count: u32,
    /// How long the broker waits for a message.
    pub hold_ms: u32,
}

impl Pull<'_> {
    pub fn fields(&self) -> [(&'static str, String); 11] {
        let suspends = if self.hold_ms > 0 { SUSPENDS } else { 0 };
        [
            ("consumerGroup", self.group.to_owned()),
            ("topic", self.topic.to_owned()),
            ("queueId", self.queue.to_string()),
            ("queueOffset", self.offset.to_string()),
            ("maxMsgNums", self.count.to_string()),
            ("sysFlag", (FILTERS | suspends).to_string()),
            ("commitOffset", "0".to_owned()),
            ("suspendTimeoutMillis", self.hold_ms.to_string()),
            ("subscription", "*".to_owned()),
            ("subVersion", "0".to_owned()),
            ("expressionType", "TAG".to_owned()),
        ]
    }
}

/// Whether a pull was answered, if only with nothing.
pub fn is_pulled(code: i32) -> bool {
    let nothing = [
        response::PULL_NOT_FOUND,
        response::PULL_RETRY_IMMEDIATELY,
        response::PULL_OFFSET_MOVED,
    ];
    code == response::SUCCESS || nothing.contains(&code)
}

pub fn show(sheet: &mut Sheet, answer: &Answer, addr: &str) -> Result<(), Trouble> {
    for record in RecordView::iter(&answer.body) {
        sheet.push(row(&record.map_err(|error| strange(addr, &error))?));
    }
    Ok(())
}

pub fn strange(addr: &str, why: &impl std::fmt::Display) -> Trouble {
    Trouble::Strange {
        addr: addr.to_owned(),
        why: why.to_string(),
    }
}

/// What is shown of a message.
pub fn row(record: &RecordView<'_>) -> Vec<Value> {
    let property = |name| {
        let text = properties::find_str(record.properties(), name);
        text.map_or(Value::Null, Value::from)
    };
    let body = String::from_utf8_lossy(record.body());
    let mut shown: String = body.chars().take(BODY_CHARS).collect();
    if body.chars().nth(BODY_CHARS).is_some() {
        shown.push('…');
    }
    vec![
        record.topic().into(),
        record.queue_id().into(),
        record.queue_offset().into(),
        time(record.store_timestamp()),
        property("TAGS"),
        property("KEYS"),
        record.reconsume_times().into(),
        id(record).into(),
        shown.into(),
    ]
}

/// The offset id of a message.
pub fn id(record: &RecordView<'_>) -> String {
    let id = OffsetId {
        store_host: record.store_host(),
        physical_offset: record.physical_offset(),
    };
    id.to_text().as_str().to_owned()
}

pub fn send(link: &mut Link, letter: &Letter<'_>, queue: Option<i32>) -> Result<Sheet, Trouble> {
    let route = link.route(letter.topic)?;
    let writable = route.iter().find(|broker| broker.writable > 0);
    let absent = || Trouble::Absent(format!("no broker takes messages for {}", letter.topic));
    let broker = writable.ok_or_else(absent)?.clone();
    let mut stored = Vec::new();
    for (name, value) in [("KEYS", letter.key), ("TAGS", letter.tag)] {
        if let Some(value) = value {
            properties::append(&mut stored, name, value);
        }
    }
    for property in letter.properties {
        let pair = property
            .split_once('=')
            .filter(|(name, _)| !name.is_empty());
        let (name, value) = pair
            .filter(|_| !property.contains(['\u{1}', '\u{2}']))
            .ok_or_else(|| {
                let what = "is not NAME=VALUE, without control characters";
                Trouble::Wrong(format!("--property {property:?} {what}"))
            })?;
        properties::append(&mut stored, name, value);
    }
    if let Some(ms) = letter.delay_ms {
        properties::append(&mut stored, "TIMER_DELAY_MS", &ms.to_string());
    }
    if let Some(priority) = letter.priority {
        properties::append(&mut stored, names::PRIORITY, &priority.to_string());
    }
    let words = |_| Trouble::Wrong("keys and tags must be text".to_owned());
    let stored = String::from_utf8(stored).map_err(words)?;
    let (born, queue) = (link.now_ms().to_string(), queue.unwrap_or(-1).to_string());
    let fields = [
        ("producerGroup", "TOOLS_PRODUCER"),
        ("topic", letter.topic),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "8"),
        ("queueId", &queue),
        ("sysFlag", "0"),
        ("bornTimestamp", &born),
        ("flag", "0"),
        ("properties", &stored),
        ("reconsumeTimes", "0"),
        ("unitMode", "false"),
        ("batch", "false"),
    ];
    let code = request::SEND_MESSAGE;
    let answer = link.ask(&broker.addr, code, &fields, letter.body.as_bytes())?;
    let number = |name: &str| {
        answer
            .field(name)
            .parse::<i64>()
            .map_or(Value::Null, Value::from)
    };
    let mut sheet = Sheet::new(&["topic", "broker", "queue", "offset", "id"]);
    sheet.push(vec![
        letter.topic.into(),
        broker.name.into(),
        number("queueId"),
        number("queueOffset"),
        answer.field("msgId").into(),
    ]);
    Ok(sheet)
}
