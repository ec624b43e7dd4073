//! Order locks: lock (41), unlock (42).
//!
//! Source: `AdminBrokerProcessor`; spec page semantics §5.

use crate::broker::control::effects::Reject;
use crate::broker::control::{Call, Control, Reply};
use crate::broker::handle::{check_length, parse};
use crate::remoting::body::json;
use crate::remoting::body::lock::{LockBatch, LockedQueues};
use crate::remoting::code::response;

/// LOCK_BATCH_MQ 41: answers what the client holds of what it asked for.
pub fn lock(control: &mut Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let wanted: LockBatch = parse(call.command)?;
    check(&wanted)?;
    let (group, client) = (&wanted.consumer_group, &wanted.client_id);
    let locked = control
        .locks
        .lock(call.now.mono, group, client, &wanted.mq_set);
    let queues = locked.map_err(|most| {
        let remark = format!("no new order lock: the limit of this broker is {most}");
        Reject::new(response::SYSTEM_BUSY, remark)
    })?;
    control.scan_later(call.now);
    Ok(Reply::body(json::to_vec(&LockedQueues { queues })))
}

/// UNLOCK_BATCH_MQ 42: what the client does not hold stays as it is.
pub fn unlock(control: &mut Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let wanted: LockBatch = parse(call.command)?;
    control
        .locks
        .unlock(&wanted.consumer_group, &wanted.client_id, &wanted.mq_set);
    Ok(Reply::empty())
}

fn check(wanted: &LockBatch) -> Result<(), Reject> {
    check_length("group", &wanted.consumer_group)?;
    check_length("client id", &wanted.client_id)?;
    for queue in &wanted.mq_set {
        check_length("topic", &queue.topic)?;
        check_length("broker name", &queue.broker_name)?;
    }
    Ok(())
}
