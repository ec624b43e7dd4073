//! What a case is, and playing the cases of a script to one pair of servers.
//!
//! Fields are written `key=value&key=value`; `!key` takes a default away. `${name}` in a field or a
//! body is what an earlier case bound to the name at the same server, or one of `now` (ms),
//! `broker`, `namesrv` (addresses) and `client` (the address of the connection).

use std::collections::{BTreeMap, HashMap};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use orbitmq::message::batch;
use orbitmq::remoting::frame::Codec;

use crate::brokers::Pair;
use crate::shape::{self, Form, Leaves};
use crate::wire::Link;

/// How long a case that waits for a state of the server asks for it.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Longer than any request of the script may be held.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an answer is waited for where none may come.
const SILENCE: Duration = Duration::from_millis(500);
/// A leaf of answers that never became what the case waits for.
pub const UNSETTLED: &str = "unsettled";
const POLL: Duration = Duration::from_millis(5);

/// Which connection a case uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    Broker,
    /// A second connection to the broker: another client.
    Other,
    NameServer,
}

#[derive(Clone, Copy, Debug)]
pub enum Body {
    None,
    Text(&'static str),
    Fill(usize),
    /// Bodies and properties of the messages of a batch.
    Batch(&'static [(&'static str, &'static str)]),
    /// Not a body: a whole frame.
    Frame(&'static [u8]),
    /// Not a body either: a header in JSON as it is, in a frame without a body.
    Header(&'static str),
}

/// One request of the script.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub at: At,
    pub code: i32,
    pub codec: Codec,
    pub oneway: bool,
    /// Fields that `fields` may override.
    pub defaults: &'static str,
    pub fields: &'static str,
    pub body: Body,
    /// Leaves that are not compared beyond being there.
    pub masks: &'static [&'static str],
    /// Variable and leaf.
    pub binds: &'static [(&'static str, &'static str)],
    /// `leaf=value`: the request is repeated until the answer has it. For what the server does
    /// after it has answered an earlier request.
    pub until: &'static str,
    /// Nobody is expected to answer.
    pub silent: bool,
}

pub const fn case(name: &'static str, code: i32, fields: &'static str) -> Case {
    Case {
        name,
        at: At::Broker,
        code,
        codec: Codec::Json,
        oneway: false,
        defaults: "",
        fields,
        body: Body::None,
        masks: &[],
        binds: &[],
        until: "",
        silent: false,
    }
}

impl Case {
    pub const fn at(mut self, at: At) -> Self {
        self.at = at;
        self
    }

    pub const fn over(mut self, defaults: &'static str) -> Self {
        self.defaults = defaults;
        self
    }

    pub const fn binary(mut self) -> Self {
        self.codec = Codec::Binary;
        self
    }

    pub const fn oneway(mut self) -> Self {
        self.oneway = true;
        self
    }

    pub const fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    pub const fn text(mut self, body: &'static str) -> Self {
        self.body = Body::Text(body);
        self
    }

    pub const fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub const fn mask(mut self, masks: &'static [&'static str]) -> Self {
        self.masks = masks;
        self
    }

    pub const fn bind(mut self, binds: &'static [(&'static str, &'static str)]) -> Self {
        self.binds = binds;
        self
    }

    pub const fn until(mut self, leaf: &'static str) -> Self {
        self.until = leaf;
        self
    }
}

/// One pair of servers, and what was learned from it.
struct Player<'p> {
    pair: &'p Pair,
    links: [Link; 3],
    variables: HashMap<&'static str, String>,
}

/// Plays the whole script; gives what each case was answered.
pub fn play(pair: &Pair, cases: &[Case]) -> Vec<Leaves> {
    let connect = |address: &str| Link::connect(address).expect("the server accepts");
    let mut player = Player {
        pair,
        links: [
            connect(&pair.broker),
            connect(&pair.broker),
            connect(&pair.namesrv),
        ],
        variables: HashMap::new(),
    };
    cases.iter().map(|case| player.play(case)).collect()
}

impl Player<'_> {
    fn play(&mut self, case: &Case) -> Leaves {
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let (raw, mut masked) = self.ask(case);
            let settled = case.until.is_empty() || {
                let (leaf, value) = case.until.split_once('=').expect("leaf=value");
                raw.get(leaf).is_some_and(|found| found == value)
            };
            if settled || Instant::now() > until {
                for (variable, leaf) in case.binds {
                    let value = raw.get(*leaf).cloned().unwrap_or_default();
                    self.variables.insert(variable, value);
                }
                if !settled {
                    masked.insert(UNSETTLED.to_owned(), case.until.to_owned());
                }
                return masked;
            }
            thread::park_timeout(POLL);
        }
    }

    fn ask(&mut self, case: &Case) -> (Leaves, Leaves) {
        let local = self.links[case.at as usize].local();
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        self.variables.insert("now", since.as_millis().to_string());
        self.variables.insert("broker", self.pair.broker.clone());
        self.variables.insert("namesrv", self.pair.namesrv.clone());
        self.variables.insert("client", local);
        let fields: Vec<(String, String)> = fields(case)
            .into_iter()
            .map(|(key, value)| (key, self.filled(&value)))
            .collect();
        let body = match case.body {
            Body::None => Vec::new(),
            Body::Text(text) => self.filled(text).into_bytes(),
            Body::Fill(len) => vec![b'x'; len],
            Body::Batch(messages) => batch(messages),
            Body::Frame(frame) => frame.to_vec(),
            Body::Header(header) => framed(&self.filled(header)),
        };
        let form = Form {
            code: case.code,
            masks: case.masks,
            broker: &self.pair.broker,
            namesrv: &self.pair.namesrv,
        };
        let link = &mut self.links[case.at as usize];
        if case.oneway {
            link.tell(case.code, &fields, &body);
            return (Leaves::new(), Leaves::new());
        }
        link.wait_for(if case.silent { SILENCE } else { PATIENCE });
        let outcome = match case.body {
            Body::Frame(_) | Body::Header(_) => link.exchange_raw(&body),
            _ => link.ask(case.codec, case.code, &fields, &body),
        };
        (shape::raw(&outcome, &form), shape::masked(&outcome, &form))
    }

    fn filled(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').expect("a closing brace");
            out.push_str(before);
            out.push_str(self.variables.get(name).expect("a bound variable"));
            rest = after;
        }
        out + rest
    }
}

fn fields(case: &Case) -> Vec<(String, String)> {
    let mut fields = BTreeMap::new();
    let both = case.defaults.split('&').chain(case.fields.split('&'));
    for item in both.filter(|item| !item.is_empty()) {
        match item.strip_prefix('!') {
            Some(key) => {
                fields.remove(key);
            }
            None => {
                let (key, value) = item.split_once('=').expect("key=value");
                fields.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    fields.into_iter().collect()
}

fn batch(messages: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (body, properties) in messages {
        let message = batch::SubMessage {
            flag: 0,
            body: body.as_bytes(),
            properties: properties.as_bytes(),
        };
        batch::append(&mut out, message);
    }
    out
}

fn framed(header: &str) -> Vec<u8> {
    let header_len = u32::try_from(header.len()).expect("a short header");
    let mut frame = (4 + header_len).to_be_bytes().to_vec();
    frame.extend_from_slice(&header_len.to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    frame
}
