//! Who serves the topic: asks the name servers, and creates a topic that nobody has by sending to
//! it, as a producer would.

use std::time::Duration;

use super::link::Link;
use super::send::{Message, UNTIMED};
use super::{SendLoad, Target};
use crate::broker::control::names::AUTO_CREATE_TOPIC;
use crate::client::route::{self, BrokerRoute};
use crate::remoting::code::response;

/// A broker registers a new topic at once; a name server shows it a moment later.
const ROUTE_POLL: Duration = Duration::from_millis(50);
const ROUTE_POLLS_MAX: usize = 200;

/// Brokers that take sends to the topic, which is created if it is not there.
pub fn writable(load: &SendLoad) -> Result<Vec<BrokerRoute>, String> {
    let target = &load.target;
    let mut name_server = reach(target)?;
    if let Some(brokers) = ask(&mut name_server, &target.topic)? {
        return keep(target, brokers, |broker| broker.writable > 0, "write");
    }
    create(load, &mut name_server)?;
    for _ in 0..ROUTE_POLLS_MAX {
        if let Some(brokers) = ask(&mut name_server, &target.topic)? {
            return keep(target, brokers, |broker| broker.writable > 0, "write");
        }
        std::thread::sleep(ROUTE_POLL);
    }
    Err(format!(
        "topic {} was created, but the name server does not list it",
        target.topic
    ))
}

/// Brokers that have the topic to pull from.
pub fn readable(target: &Target) -> Result<Vec<BrokerRoute>, String> {
    match ask(&mut reach(target)?, &target.topic)? {
        Some(brokers) => keep(target, brokers, |broker| broker.readable > 0, "read"),
        None => Err(format!(
            "no route for topic {}: the name server knows no broker that has it",
            target.topic
        )),
    }
}

fn keep(
    target: &Target,
    mut brokers: Vec<BrokerRoute>,
    fits: impl Fn(&BrokerRoute) -> bool,
    what: &str,
) -> Result<Vec<BrokerRoute>, String> {
    brokers.retain(fits);
    if brokers.is_empty() {
        return Err(format!(
            "no route for topic {}: nobody lets us {what} it",
            target.topic
        ));
    }
    Ok(brokers)
}

/// The first name server that can be reached.
fn reach(target: &Target) -> Result<Link, String> {
    let mut failed = "no name server is given".to_owned();
    for addr in &target.name_servers {
        match Link::connect(addr, target.codec) {
            Ok(link) => return Ok(link),
            Err(error) => failed = error,
        }
    }
    Err(format!("name server: {failed}"))
}

fn ask(name_server: &mut Link, topic: &str) -> Result<Option<Vec<BrokerRoute>>, String> {
    route::ask(&mut name_server.out, name_server.codec, 1, topic);
    route::read(&name_server.call()?).map_err(|error| format!("the name server {error}"))
}

/// One message to the first broker that creates topics.
fn create(load: &SendLoad, name_server: &mut Link) -> Result<(), String> {
    let topic = &load.target.topic;
    let brokers = ask(name_server, AUTO_CREATE_TOPIC)?.unwrap_or_default();
    let broker = brokers
        .iter()
        .find(|broker| broker.writable > 0)
        .ok_or(format!(
            "no route for topic {topic}: it does not exist, and no broker creates topics \
         (autoCreateTopicEnable)"
        ))?;
    let mut link = Link::connect(&broker.addr, load.target.codec)?;
    Message::new(load).encode(&mut link.out, link.codec, 1, 0, UNTIMED);
    let answer = link.call()?;
    if answer.code != response::SUCCESS {
        let remark = answer
            .remark
            .map_or_else(String::new, |remark| remark.to_string());
        let code = answer.code;
        return Err(format!(
            "topic {topic} cannot be created: code {code}: {remark}"
        ));
    }
    Ok(())
}
