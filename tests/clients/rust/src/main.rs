//! Runs one scenario with the Rust client and ends with one line of JSON.
//! The contract is in `tests/clients/README.md`.

#![recursion_limit = "512"]

mod clients;
mod listen;
mod messages;
mod pull;
mod push;
mod restart;
mod send;
mod transaction;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use clients::Clients;

/// What went wrong, as text.
pub type Checked<T = ()> = Result<T, String>;

static FACTS: Mutex<BTreeMap<String, Value>> = Mutex::new(BTreeMap::new());

#[derive(Clone)]
pub struct Options {
    pub scenario: String,
    pub namesrv: String,
    pub topic: String,
    pub group: String,
    pub count: usize,
    pub seed: u32,
}

#[tokio::main]
async fn main() {
    let begin = Instant::now();
    let options = parse();
    let scenario = options.scenario.clone();
    // A panic of a task of the library must not pass unseen.
    let result = match tokio::spawn(run(options)).await {
        Ok(result) => result,
        Err(error) => Err(error.to_string()),
    };
    let mut facts = FACTS.lock().map(|facts| facts.clone()).unwrap_or_default();
    facts.insert("scenario".to_owned(), json!(scenario));
    facts.insert("ok".to_owned(), json!(result.is_ok()));
    facts.insert("ms".to_owned(), json!(begin.elapsed().as_millis() as u64));
    if let Err(error) = &result {
        facts.insert("error".to_owned(), json!(error));
    }
    println!("{}", json!(facts));
    std::process::exit(i32::from(result.is_err()));
}

async fn run(options: Options) -> Checked {
    let clients = Clients::new(options.clone())?;
    match options.scenario.as_str() {
        "send" => send::run(&clients).await,
        "push" => push::rebalance(&clients).await,
        "broadcast" => push::broadcast(&clients).await,
        "tags" => push::tags(&clients).await,
        "orderly" => listen::orderly(&clients).await,
        "retry" => listen::retry(&clients).await,
        "delay" => listen::delay(&clients).await,
        "pull" => pull::run(&clients).await,
        "transaction" => transaction::run(&clients).await,
        "restart" => restart::run(&clients).await,
        other => Err(format!("no scenario {other}")),
    }
}

fn parse() -> Options {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|text| text == name);
        at.and_then(|at| arguments.get(at + 1)).cloned()
    };
    Options {
        scenario: arguments.first().cloned().unwrap_or_default(),
        namesrv: value("--namesrv").unwrap_or_default(),
        topic: value("--topic").unwrap_or_default(),
        group: value("--group").unwrap_or_default(),
        count: value("--count")
            .and_then(|text| text.parse().ok())
            .unwrap_or(100),
        seed: value("--seed")
            .and_then(|text| text.parse().ok())
            .unwrap_or(1),
    }
}

pub fn fact(name: &str, value: impl Into<Value>) {
    if let Ok(mut facts) = FACTS.lock() {
        facts.insert(name.to_owned(), value.into());
    }
}

pub fn mark(text: &str) {
    println!("mark {text}");
}

pub fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}

pub fn same<T: PartialEq + Debug>(expected: T, found: T, what: &str) -> Checked {
    check(expected == found, || {
        format!("{what}: expected {expected:?}, found {found:?}")
    })
}

pub fn text<E: ToString>(error: E) -> String {
    error.to_string()
}

pub async fn until(seconds: u64, what: &str, mut holds: impl FnMut() -> bool) -> Checked {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        check(Instant::now() < end, || {
            format!("not within {seconds} s: {what}")
        })?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
