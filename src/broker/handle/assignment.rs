//! QUERY_ASSIGNMENT 400, SET_MESSAGE_REQUEST_MODE 401 and GET_ALL_MESSAGE_REQUEST_MODE 402: the
//! broker shares out queues, for clients that do not do it themselves, and says which groups pop.
//!
//! A topic's queues are those of all brokers: a name server is asked for the route.
//!
//! Source: `QueryAssignmentProcessor`, `TopicRouteInfoManager`.

use crate::broker::acks::ReplyTo;
use crate::broker::assignment::{self, MODES_MAX, Mode};
use crate::broker::calls::{CALL_MS, Silence, Wish};
use crate::broker::control::effects::{Effects, Reject};
use crate::broker::control::names::RETRY_PREFIX;
use crate::broker::control::{Call, Control, Reply};
use crate::broker::handle::{Request, parse, succeed_with};
use crate::broker::light::is_light;
use crate::broker::record::Record;
use crate::broker::survey::queue_name;
use crate::broker::topics::perm;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::body::assignment::{
    Assignment, Assignments, QueryAssignment, RequestMode, RequestModes, SetRequestMode,
};
use crate::remoting::body::json;
use crate::remoting::body::queue::MessageQueue;
use crate::remoting::body::route::TopicRouteData;
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;

/// SET_MESSAGE_REQUEST_MODE.
pub fn set_mode(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let body: SetRequestMode = parse(call.command)?;
    let (topic, group) = (body.topic, body.consumer_group);
    if topic.starts_with(RETRY_PREFIX) {
        let remark = "retry topic is not allowed to set mode";
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    if control.topics.get(&topic).is_none() {
        let remark = format!("topic[{topic}] not exist");
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
    }
    if control.ensure_group(call.now, &group, effects)?.is_none() {
        let remark = format!("subscription group [{group}] does not exist");
        return Err(Reject::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    if control.modes.len() >= MODES_MAX {
        let remark =
            format!("{MODES_MAX} pairs of topic and group have a mode, which is the limit");
        return Err(Reject::new(response::SYSTEM_ERROR, remark));
    }
    let mode = Mode {
        pops: body.mode == RequestMode::Pop,
        share: body.pop_share_queue_num,
    };
    control.commit(Record::Mode { topic, group, mode }, effects);
    Ok(Reply::empty())
}

/// GET_ALL_MESSAGE_REQUEST_MODE.
pub fn all_modes(control: &Control) -> Result<Reply, Reject> {
    let mut modes = RequestModes::default();
    for (topic, group, mode) in control.modes.iter() {
        let of_topic = modes.message_request_mode_map.entry(topic.to_owned());
        let mode = SetRequestMode {
            consumer_group: group.to_owned(),
            mode: mode.request_mode(),
            pop_share_queue_num: mode.share,
            topic: topic.to_owned(),
        };
        of_topic.or_default().insert(group.to_owned(), mode);
    }
    Ok(Reply::body(json::to_vec(&modes)))
}

/// QUERY_ASSIGNMENT.
pub fn query(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let ask: QueryAssignment = parse(request.command)?;
    let to = request.reply_to();
    if is_light(&ask.topic) && broker.options.light {
        let queue = MessageQueue {
            topic: ask.topic.clone(),
            broker_name: broker.options.control.broker_name.clone(),
            queue_id: 0,
        };
        answer(broker, to, &ask, Some(vec![queue]), out);
        return Ok(());
    }
    let lead = broker.lead();
    let Some(conn) = lead.registry.reachable() else {
        let own = own_queues(broker, &ask.topic);
        answer(broker, to, &ask, own, out);
        return Ok(());
    };
    if lead.calls.is_full() {
        let remark = "[OVERLOAD]system busy: too many requests to name servers are open";
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    }
    let topic = ask.topic.clone();
    let ask = Box::new(ask);
    let opaque = lead
        .calls
        .begin(request.now.mono, CALL_MS, conn, Wish::Route { to, ask });
    out.write(conn, |bytes| {
        let code = request::GET_ROUTEINFO_BY_TOPIC;
        let mut w = FrameWriter::request(bytes, Codec::Json, opaque, code, false);
        w.field_str("topic", &topic);
        w.finish(0);
    });
    Ok(())
}

/// A name server has answered where the topic is, or will not.
pub fn routed(
    broker: &Broker,
    to: ReplyTo,
    ask: &QueryAssignment,
    told: Result<&Command<'_>, Silence>,
    out: &mut Outbox<Peer>,
) {
    let route = told
        .ok()
        .filter(|command| command.code == response::SUCCESS);
    let route = route.and_then(|command| json::from_slice::<TopicRouteData>(command.body).ok());
    let queues = route.map(|route| queues_of(&ask.topic, &route));
    answer(broker, to, ask, queues, out);
}

fn queues_of(topic: &str, route: &TopicRouteData) -> Vec<MessageQueue> {
    let readable = route
        .queue_datas
        .iter()
        .filter(|data| data.perm & perm::READ != 0);
    readable
        .flat_map(|data| {
            (0..data.read_queue_nums.clamp(0, i32::from(u16::MAX))).map(|queue_id| MessageQueue {
                broker_name: data.broker_name.clone(),
                queue_id,
                topic: topic.to_owned(),
            })
        })
        .collect()
}

fn own_queues(broker: &Broker, topic: &str) -> Option<Vec<MessageQueue>> {
    let known = broker
        .snapshot
        .topics
        .get(topic)
        .filter(|topic| topic.is_readable())?;
    let queues = 0..known.config.read_queue_nums;
    Some(
        queues
            .map(|queue_id| queue_name(broker, topic, queue_id))
            .collect(),
    )
}

fn answer(
    broker: &Broker,
    to: ReplyTo,
    ask: &QueryAssignment,
    queues: Option<Vec<MessageQueue>>,
    out: &mut Outbox<Peer>,
) {
    let lead = broker
        .lead
        .as_ref()
        .expect("control requests are shard 0's");
    let mode = lead.control.modes.of(&ask.topic, &ask.consumer_group);
    let mine = queues.and_then(|mut queues| {
        if ask.message_model == "BROADCASTING" {
            return Some(queues);
        }
        queues.sort_by(|a, b| (&a.broker_name, a.queue_id).cmp(&(&b.broker_name, b.queue_id)));
        let mut clients = lead.control.members.client_ids(&ask.consumer_group);
        clients.sort();
        if clients.is_empty() {
            return None;
        }
        let (strategy, client) = (&ask.strategy_name, &ask.client_id);
        assignment::allocate(strategy, mode, client, &queues, &clients)
    });
    let assignments = mine.map(|queues| {
        let of = |message_queue| Assignment {
            message_queue,
            mode: mode.request_mode(),
        };
        queues.into_iter().map(of).collect()
    });
    let body = json::to_vec(&Assignments {
        message_queue_assignments: assignments,
    });
    succeed_with(to, &body, out);
}
