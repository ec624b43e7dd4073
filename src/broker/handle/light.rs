//! DELETE_TOPIC_IN_BROKER 215 of a light queue: it goes with its index and the offsets of its
//! groups. Other topics are shard 0's.

use crate::broker::acks::Ack;
use crate::broker::control::effects::Reject;
use crate::broker::handle::Request;
use crate::broker::light::is_light;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::header::topic::TopicName;

/// False if the request is about another topic. Success also if there is no such queue.
pub fn delete(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<bool, Reject> {
    let Ok(header) = TopicName::decode(&request.command.ext) else {
        return Ok(false);
    };
    if !is_light(&header.topic) || !broker.options.light {
        return Ok(false);
    }
    if let Some(home) = broker.light_home(&header.topic)
        && home != broker.me
    {
        broker.forward(home, request, out);
        return Ok(true);
    }
    let dropped = broker.store.check_append();
    dropped.map_err(|refused| broker.refuse(refused))?;
    broker.drop_light(request.now, &header.topic);
    if !request.command.is_oneway() {
        let to = request.reply_to();
        let (end, value) = (broker.log_end(), None);
        broker.acks.push(end, Ack::Offset { to, value });
    }
    Ok(true)
}
