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

#[cfg(test)]
mod tests {
    use super::super::rig::Rig;
    use crate::broker::control::options::ControlOptions;

    /// Asks for queues; gives those held, or the whole answer if it is no success.
    fn ask(rig: &mut Rig, code: i32, client: &str, queues: &[i32]) -> String {
        let set = queues
            .iter()
            .map(|queue| format!(r#"{{"topic":"t","brokerName":"b","queueId":{queue}}}"#));
        let set = set.collect::<Vec<_>>().join(",");
        let request =
            format!(r#"{code} {{"clientId":"{client}","consumerGroup":"g","mqSet":[{set}]}}"#);
        let answer = rig.ask(1, &request);
        let Some(held) = answer.strip_prefix(r#"0 {"lockOKMQSet":["#) else {
            return answer;
        };
        let ids = held.split("\"queueId\":").skip(1);
        ids.map(|rest| &rest[..rest.find(',').unwrap()])
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_queue_has_one_holder() {
        let mut rig = Rig::new(ControlOptions::default());
        assert_eq!(ask(&mut rig, 41, "c1", &[0, 1, 1]), "0 1");
        assert_eq!(ask(&mut rig, 41, "c2", &[1, 2]), "2");
        assert_eq!(ask(&mut rig, 42, "c2", &[1]), "0", "not the holder");
        assert_eq!(ask(&mut rig, 41, "c2", &[1]), "");
        assert_eq!(ask(&mut rig, 42, "c1", &[1, 7]), "0");
        assert_eq!(ask(&mut rig, 41, "c2", &[1]), "1");
        assert_eq!(rig.ask(1, "41"), "1 the body is empty");
        assert_eq!(rig.ask(1, "42"), "1 the body is empty");
    }

    #[test]
    fn locks_are_taken_over_after_a_minute() {
        let mut rig = Rig::new(ControlOptions::default());
        ask(&mut rig, 41, "c1", &[0, 1]);
        rig.pass_ms(30_000);
        ask(&mut rig, 41, "c1", &[1]);
        rig.pass_ms(30_000);
        assert_eq!(
            ask(&mut rig, 41, "c2", &[0, 1]),
            "",
            "60 s to the millisecond"
        );
        rig.pass_ms(1);
        assert_eq!(
            ask(&mut rig, 41, "c2", &[0, 1]),
            "0",
            "the other one was renewed"
        );
        assert_eq!(ask(&mut rig, 41, "c1", &[0, 1]), "1");
    }

    #[test]
    fn shards_know_which_groups_are_locked() {
        let mut rig = Rig::new(ControlOptions::default());
        let locked = |rig: &mut Rig| rig.control.snapshot().order_locked("g", rig.now.mono);
        assert!(!locked(&mut rig));
        ask(&mut rig, 41, "c1", &[0, 1]);
        assert!(locked(&mut rig));
        let version = rig.control.version();
        rig.pass_ms(20_000);
        ask(&mut rig, 41, "c1", &[0, 1]);
        assert_eq!(
            rig.control.version(),
            version,
            "not every renewal is shared"
        );
        for _ in 0..6 {
            rig.pass_ms(20_000);
            ask(&mut rig, 41, "c1", &[0, 1]);
            assert!(locked(&mut rig), "but enough of them");
        }
        ask(&mut rig, 42, "c1", &[0]);
        assert!(locked(&mut rig));
        ask(&mut rig, 42, "c1", &[1]);
        assert!(!locked(&mut rig));
    }

    #[test]
    fn dead_locks_make_room() {
        let mut rig = Rig::new(ControlOptions {
            locks_max: 2,
            ..ControlOptions::default()
        });
        assert_eq!(ask(&mut rig, 41, "c1", &[0, 1]), "0 1");
        let full = "2 no new order lock: the limit of this broker is 2";
        assert_eq!(ask(&mut rig, 41, "c2", &[1, 2]), full);
        assert_eq!(ask(&mut rig, 41, "c1", &[1, 0]), "1 0");
        rig.pass_ms(70_000);
        rig.control.expire(rig.now, &mut rig.effects);
        assert_eq!(rig.control.deadline(), None);
        assert!(rig.control.snapshot().order_locks.is_empty());
        assert_eq!(ask(&mut rig, 41, "c2", &[1, 2]), "1 2");
    }
}
