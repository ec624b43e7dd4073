//! Order locks: lock (41), unlock (42).
//!
//! Source: `AdminBrokerProcessor`; spec page semantics §5.

use crate::broker::control::effects::Reject;
use crate::broker::control::{Call, Control, Reply};
use crate::broker::handle::{bytes_of, check_length, parse};
use crate::remoting::body::{LockBatch, LockBatchResult, MessageQueue};
use crate::remoting::code::response;

/// LOCK_BATCH_MQ 41: answers what the client holds of what it asked for.
pub fn lock(control: &mut Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let wanted: LockBatch = parse(call.command)?;
    check(&wanted)?;
    let (group, client) = (&wanted.consumer_group, &wanted.client_id);
    let queues: Vec<MessageQueue> = wanted.mq_set.into_iter().collect();
    let locked = control.locks.lock(call.now.mono, group, client, &queues).map_err(|most| {
        let remark = format!("no new order lock: the limit of this broker is {most}");
        Reject::new(response::SYSTEM_BUSY, remark)
    })?;
    control.scan_later(call.now);
    let result = LockBatchResult {
        lock_ok_mq_set: locked,
    };
    Ok(Reply::body(bytes_of(&result)))
}

/// UNLOCK_BATCH_MQ 42: what the client does not hold stays as it is.
pub fn unlock(control: &mut Control, call: &Call<'_>) -> Result<Reply, Reject> {
    let wanted: LockBatch = parse(call.command)?;
    let queues: Vec<MessageQueue> = wanted.mq_set.into_iter().collect();
    control.locks.unlock(&wanted.consumer_group, &wanted.client_id, &queues);
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
