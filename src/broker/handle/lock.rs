//! Order locks: lock (41), unlock (42).
//!
//! Source: `AdminBrokerProcessor`; spec page semantics §5.

use crate::broker::control::effects::{Effects, Reject};
use crate::broker::control::{Call, Control, Reply};
use crate::broker::handle::{check_length, parse};
use crate::broker::locks::Locked;
use crate::broker::record::Record;
use crate::remoting::body::json;
use crate::remoting::body::lock::{LockBatch, LockedQueues};
use crate::remoting::body::queue::MessageQueue;
use crate::remoting::code::response;

/// LOCK_BATCH_MQ 41: answers what the client holds of what it asked for.
pub fn lock(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let wanted: LockBatch = parse(call.command)?;
    check(&wanted)?;
    let (group, client) = (&wanted.consumer_group, &wanted.client_id);
    let locked = control
        .locks
        .lock(call.now.mono, group, client, &wanted.mq_set);
    let Locked { queues, new } = locked.map_err(|most| {
        let remark = format!("no new order lock: the limit of this broker is {most}");
        Reject::new(response::SYSTEM_BUSY, remark)
    })?;
    note(control, group, new, Some(client), effects);
    control.scan_later(call.now);
    Ok(Reply::body(json::to_vec(&LockedQueues { queues })))
}

/// UNLOCK_BATCH_MQ 42: what the client does not hold stays as it is.
pub fn unlock(
    control: &mut Control,
    call: &Call<'_>,
    effects: &mut Effects,
) -> Result<Reply, Reject> {
    let wanted: LockBatch = parse(call.command)?;
    check(&wanted)?;
    let group = &wanted.consumer_group;
    let released = control
        .locks
        .unlock(group, &wanted.client_id, &wanted.mq_set);
    note(control, group, released, None, effects);
    Ok(Reply::empty())
}

/// Holders go to the log, renewals do not.
fn note(
    control: &mut Control,
    group: &str,
    queues: Vec<MessageQueue>,
    client: Option<&String>,
    effects: &mut Effects,
) {
    for queue in queues {
        let (group, client) = (group.to_owned(), client.cloned());
        let record = Record::Lock {
            group,
            queue,
            client,
        };
        control.commit(record, effects);
    }
}

/// Queues in one request: each may be a record of its own.
const QUEUES_MAX: usize = 16_384;

fn check(wanted: &LockBatch) -> Result<(), Reject> {
    let count = wanted.mq_set.len();
    if count > QUEUES_MAX {
        let remark = format!("{count} queues to lock or unlock at once, the limit is {QUEUES_MAX}");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
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
    use super::QUEUES_MAX;
    use crate::base::Now;
    use crate::broker::control::Control;
    use crate::broker::control::effects::Effects;
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
        let many: Vec<i32> = (0..=QUEUES_MAX as i32).collect();
        let refused = "29 16385 queues to lock or unlock at once, the limit is 16384";
        assert_eq!(ask(&mut rig, 41, "c1", &many), refused);
        assert_eq!(ask(&mut rig, 42, "c1", &many), refused);
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

    /// The table as a start finds it: from the records, or from a dump of it.
    fn restarted(rig: &Rig, records: &[Vec<u8>], now: Now) -> Rig {
        let mut again = Rig::new(ControlOptions::default());
        again.control = Control::new(ControlOptions::default());
        again.now = now;
        for record in records {
            again.control.apply(record).unwrap();
        }
        again.control.start(now, &mut Effects::default());
        assert_eq!(again.control.locks.is_empty(), rig.control.locks.is_empty());
        again
    }

    #[test]
    fn a_restart_leaves_holders_a_minute_to_come_back() {
        let mut rig = Rig::new(ControlOptions::default());
        let mut records = Vec::new();
        for (code, client, queues) in [
            (41, "c1", &[0, 1, 2][..]),
            (41, "c2", &[2, 3]),
            (41, "c1", &[0]),
            (42, "c1", &[1]),
        ] {
            ask(&mut rig, code, client, queues);
            records.append(&mut rig.effects.records);
        }
        assert_eq!(records.len(), 5, "renewals are not written down");
        let mut dumped = Vec::new();
        rig.control
            .dump(&mut |payload| dumped.push(payload.to_vec()));
        rig.pass_ms(50_000);
        for records in [records, dumped] {
            let mut again = restarted(&rig, &records, rig.now);
            again.pass_ms(60_000);
            assert_eq!(ask(&mut again, 41, "c3", &[0, 1, 2, 3]), "1");
            assert_eq!(ask(&mut again, 41, "c1", &[0]), "0", "it has come back");
            again.pass_ms(1);
            assert_eq!(ask(&mut again, 41, "c3", &[0, 1, 2, 3]), "1 2 3");
        }
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
