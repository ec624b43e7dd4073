//! Who serves the topics: asks the name servers, and creates topics that nobody has on every
//! master, as an administrator would.

use std::sync::Arc;
use std::time::Duration;

use super::link::Link;
use super::plan::Plan;
use super::tally::named;
use crate::broker::control::names::AUTO_CREATE_TOPIC;
use crate::client::route::{self, BrokerRoute};
use crate::remoting::body::cluster::ClusterInfo;
use crate::remoting::body::json::{from_slice, to_vec};
use crate::remoting::body::topic::{TopicConfig, TopicConfigList};
use crate::remoting::code::{request, response};
use crate::remoting::command::FrameWriter;
use crate::remoting::header::offset::{MaxOffset, OffsetResponse, QueueHeader};
use crate::remoting::header::topic::CreateTopic;

/// A broker registers a new topic at once; a name server shows it a moment later.
const ROUTE_POLL: Duration = Duration::from_millis(50);
const ROUTE_POLLS_MAX: usize = 400;
/// Topics in one request.
const CREATE_MAX: usize = 500;
const MASTER: i64 = 0;

/// One queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Number of the topic.
    pub topic: u32,
    pub id: i32,
    /// Its number among all queues of the run.
    pub index: u32,
    pub writable: bool,
    pub readable: bool,
}

/// One broker and its queues of the run.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: Arc<str>,
    /// `host:port`.
    pub addr: String,
    /// Spread over the topics: the first queue of each, then the second of each.
    pub targets: Vec<Target>,
}

/// All queues of a run.
#[derive(Clone, Debug)]
pub struct Field {
    pub topics: Vec<Arc<str>>,
    pub places: Vec<Place>,
    pub queues: usize,
    /// Names of topics that were made for this run.
    pub created: Vec<String>,
}

/// Finds the queues, and makes the topics that are not there if something is to be sent.
///
/// # Errors
/// A sentence.
pub fn field(plan: &Plan) -> Result<Field, String> {
    let names = plan.topic_names();
    let mut name_server = reach(plan)?;
    let mut routes = Vec::with_capacity(names.len());
    let mut missing = Vec::new();
    for name in &names {
        let found = ask(&mut name_server, name)?;
        if found.is_none() {
            missing.push(name.clone());
        }
        routes.push(found);
    }
    if !missing.is_empty() {
        if !plan.workload.sends() {
            return Err(format!(
                "no route for topic {}: the name server knows no broker that has it; create it, or \
                 send to it first",
                missing[0]
            ));
        }
        create(plan, &mut name_server, &missing)?;
        for (name, found) in names.iter().zip(&mut routes) {
            if found.is_none() {
                *found = Some(await_route(&mut name_server, name)?);
            }
        }
    }
    let routes: Vec<Vec<BrokerRoute>> = routes.into_iter().flatten().collect();
    let mut field = lay_out(&names, &routes);
    field.created = missing;
    let (send, read) = (
        plan.workload.sends(),
        plan.workload != super::plan::Workload::Send,
    );
    let has = |fits: fn(&Target) -> bool| field.places.iter().any(|p| p.targets.iter().any(fits));
    if (send && !has(|target| target.writable)) || (!send && read && !has(|target| target.readable))
    {
        let what = if send { "write" } else { "read" };
        return Err(format!(
            "no route for topic {}: nobody lets us {what} it; look at its permission",
            plan.topic
        ));
    }
    Ok(field)
}

/// Numbers the queues of all topics.
fn lay_out(names: &[String], routes: &[Vec<BrokerRoute>]) -> Field {
    let mut places: Vec<Place> = Vec::new();
    let mut queues = 0;
    for (topic, brokers) in routes.iter().enumerate() {
        for broker in brokers {
            let known = places.iter().position(|place| place.addr == broker.addr);
            let at = known.unwrap_or_else(|| {
                let (name, addr) = (broker.name.as_str().into(), broker.addr.clone());
                places.push(Place {
                    name,
                    addr,
                    targets: Vec::new(),
                });
                places.len() - 1
            });
            for id in 0..broker.readable.max(broker.writable) {
                places[at].targets.push(Target {
                    topic: topic as u32,
                    id,
                    index: queues,
                    writable: id < broker.writable,
                    readable: id < broker.readable,
                });
                queues += 1;
            }
        }
    }
    for place in &mut places {
        place
            .targets
            .sort_by_key(|target| (target.id, target.topic));
    }
    let topics = names.iter().map(|name| name.as_str().into()).collect();
    Field {
        topics,
        places,
        queues: queues as usize,
        created: Vec::new(),
    }
}

/// The first name server that can be reached.
fn reach(plan: &Plan) -> Result<Link, String> {
    let mut failed = "none is given: pass --namesrv host:port".to_owned();
    for addr in &plan.name_servers {
        match Link::connect(addr, plan.style.codec) {
            Ok(link) => return Ok(link),
            Err(error) => failed = error,
        }
    }
    Err(format!(
        "name server: {failed}; pass --namesrv host:port of one that runs"
    ))
}

fn ask(name_server: &mut Link, topic: &str) -> Result<Option<Vec<BrokerRoute>>, String> {
    route::ask(&mut name_server.out, name_server.codec, 1, topic);
    route::read(&name_server.call()?).map_err(|error| format!("the name server {error}"))
}

fn await_route(name_server: &mut Link, topic: &str) -> Result<Vec<BrokerRoute>, String> {
    for _ in 0..ROUTE_POLLS_MAX {
        if let Some(brokers) = ask(name_server, topic)? {
            return Ok(brokers);
        }
        std::thread::sleep(ROUTE_POLL);
    }
    Err(format!(
        "topic {topic} was created, but the name server does not list it"
    ))
}

/// The masters a name server knows.
fn masters(name_server: &mut Link) -> Result<Vec<String>, String> {
    let code = request::GET_BROKER_CLUSTER_INFO;
    FrameWriter::request(&mut name_server.out, name_server.codec, 1, code, false).finish(0);
    let answer = name_server.call()?;
    if answer.code != response::SUCCESS {
        return Err(format!(
            "the name server refused its list of brokers: {}",
            named(answer.code)
        ));
    }
    let info: ClusterInfo =
        from_slice(answer.body).map_err(|error| format!("the list of brokers: {error}"))?;
    let mut brokers = info.broker_addr_table.into_values();
    Ok(brokers
        .by_ref()
        .filter_map(|mut broker| broker.broker_addrs.remove(&MASTER))
        .collect())
}

fn create(plan: &Plan, name_server: &mut Link, names: &[String]) -> Result<(), String> {
    let masters = masters(name_server)?;
    if masters.is_empty() {
        return Err(format!(
            "no route for topic {}: it does not exist, and the name server knows no broker; start \
             one that registers there",
            names[0]
        ));
    }
    for addr in &masters {
        let mut link = Link::connect(addr, plan.style.codec)?;
        for names in names.chunks(CREATE_MAX) {
            if names.len() == 1 || !create_list(&mut link, plan.queues, names)? {
                names
                    .iter()
                    .try_for_each(|name| create_one(&mut link, plan.queues, name))?;
            }
        }
    }
    Ok(())
}

/// False if the broker does not know how.
fn create_list(link: &mut Link, queues: u32, names: &[String]) -> Result<bool, String> {
    let topic = |name: &String| TopicConfig {
        read_queue_nums: queues as i32,
        write_queue_nums: queues as i32,
        topic_name: name.clone(),
        ..TopicConfig::default()
    };
    let list = TopicConfigList {
        topic_config_list: names.iter().map(topic).collect(),
    };
    let code = request::UPDATE_AND_CREATE_TOPIC_LIST;
    FrameWriter::request(&mut link.out, link.codec, 1, code, false)
        .finish_with_body(&to_vec(&list));
    let answer = link.call()?;
    match answer.code {
        response::SUCCESS => Ok(true),
        response::REQUEST_CODE_NOT_SUPPORTED => Ok(false),
        code => Err(refused(
            &names[0],
            code,
            answer.remark.map(|remark| remark.to_string()),
        )),
    }
}

fn create_one(link: &mut Link, queues: u32, name: &str) -> Result<(), String> {
    let code = request::UPDATE_AND_CREATE_TOPIC;
    let mut writer = FrameWriter::request(&mut link.out, link.codec, 1, code, false);
    CreateTopic {
        topic: name.into(),
        default_topic: AUTO_CREATE_TOPIC.into(),
        read_queue_nums: queues as i32,
        write_queue_nums: queues as i32,
        perm: 6,
        topic_filter_type: "SINGLE_TAG".into(),
        topic_sys_flag: Some(0),
        order: false,
        attributes: None,
        force: None,
    }
    .encode(&mut writer);
    writer.finish(0);
    let answer = link.call()?;
    match answer.code {
        response::SUCCESS => Ok(()),
        code => Err(refused(
            name,
            code,
            answer.remark.map(|remark| remark.to_string()),
        )),
    }
}

fn refused(topic: &str, code: i32, remark: Option<String>) -> String {
    format!(
        "topic {topic} cannot be created: {}: {}; create it yourself, or name one that is there",
        named(code),
        remark.unwrap_or_default()
    )
}

/// First and next offset of queues of a broker.
///
/// # Errors
/// A sentence.
pub fn offsets(
    link: &mut Link,
    field: &Field,
    targets: &[Target],
) -> Result<Vec<(i64, i64)>, String> {
    let mut found = Vec::with_capacity(targets.len());
    for target in targets {
        let (topic, queue_id) = (&*field.topics[target.topic as usize], target.id);
        let (codec, code) = (link.codec, request::GET_MIN_OFFSET);
        let mut writer = FrameWriter::request(&mut link.out, codec, 1, code, false);
        QueueHeader {
            topic: topic.into(),
            queue_id,
        }
        .encode(&mut writer);
        writer.finish(0);
        let first = offset(link, topic)?;
        let code = request::GET_MAX_OFFSET;
        let mut writer = FrameWriter::request(&mut link.out, codec, 1, code, false);
        MaxOffset {
            topic: topic.into(),
            queue_id,
            committed: true,
        }
        .encode(&mut writer);
        writer.finish(0);
        found.push((first, offset(link, topic)?));
    }
    Ok(found)
}

fn offset(link: &mut Link, topic: &str) -> Result<i64, String> {
    let answer = link.call()?;
    if answer.code != response::SUCCESS {
        return Err(format!(
            "the offsets of topic {topic} are refused: {}",
            named(answer.code)
        ));
    }
    let header = OffsetResponse::decode(&answer.ext).map_err(|error| error.to_string())?;
    Ok(header.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_numbered_and_spread() {
        let broker = |name: &str, readable, writable| BrokerRoute {
            name: name.to_owned(),
            addr: format!("{name}:1"),
            readable,
            writable,
        };
        let names = ["t-0".to_owned(), "t-1".to_owned()];
        let routes = [
            vec![broker("a", 2, 1), broker("b", 0, 1)],
            vec![broker("a", 2, 2)],
        ];
        let field = lay_out(&names, &routes);
        assert_eq!(field.queues, 5);
        let shown = |place: &Place| -> Vec<(u32, i32, u32, bool, bool)> {
            let show = |t: &Target| (t.topic, t.id, t.index, t.writable, t.readable);
            place.targets.iter().map(show).collect()
        };
        assert_eq!(
            shown(&field.places[0]),
            [
                (0, 0, 0, true, true),
                (1, 0, 3, true, true),
                (0, 1, 1, false, true),
                (1, 1, 4, true, true)
            ]
        );
        assert_eq!(shown(&field.places[1]), [(0, 0, 2, true, false)]);
    }
}
