//! Resets of groups where nothing can be read, or nothing was ever stored.

use orbitmq::base::disk::Order;
use orbitmq::remoting::body::json;
use orbitmq::remoting::body::stats::ResetOffsets;

use crate::client::{number, remark_of};
use crate::set::{Set, decoded};

const SUCCESS: i32 = 0;
const SYSTEM_ERROR: i32 = 1;
const NOT_AVAILABLE: i32 = 14;
const PULL_NOT_FOUND: i32 = 19;
const PULL_MOVED: i32 = 21;

/// A set of shards with a topic and a group.
fn prepared(shards: u16, cold: bool) -> Set {
    let mut set = Set::new(shards, 1, cold);
    let fields = "topic=T&defaultTopic=TBW102&readQueueNums=3&writeQueueNums=3&perm=6\
                  &topicFilterType=SINGLE_TAG&topicSysFlag=0&order=false";
    set.succeed(0, 17, fields, b"");
    set.succeed(0, 200, "", br#"{"groupName":"g"}"#);
    set
}

const TO_THE_END: &str = "topic=T&group=g&timestamp=-1&isForce=true";

fn told(frame: &[u8]) -> (i32, String) {
    let command = decoded(frame);
    (command.code, remark_of(&command))
}

#[test]
fn a_group_is_moved_also_where_no_message_was_ever_stored() {
    for shards in [1, 3] {
        let mut set = prepared(shards, false);
        set.succeed(0, 222, TO_THE_END, b"");
        for queue in 0..3 {
            let place = format!("consumerGroup=g&topic=T&queueId={queue}");
            let query = format!("{place}&setZeroIfNotFound=false");
            let late = set.ask(0, 15, &format!("{place}&commitOffset=7"), b"");
            let said = (SUCCESS, "Offset has been previously reset".to_owned());
            assert_eq!(told(&late), said, "{shards} {queue}");
            let pull = format!(
                "{place}&queueOffset=0&maxMsgNums=1&sysFlag=4&commitOffset=0&subscription=*\
                 &suspendTimeoutMillis=0&subVersion=0"
            );
            for code in [PULL_MOVED, PULL_NOT_FOUND] {
                let moved = set.ask(0, 11, &pull, b"");
                assert_eq!(told(&moved).0, code);
                assert_eq!(number(&decoded(&moved), "nextBeginOffset"), Ok(0));
            }
            let offset = set.succeed(0, 14, &query, b"");
            assert_eq!(number(&decoded(&offset), "offset"), Ok(0));
        }
        set.restart();
        for queue in 0..3 {
            let query = format!("consumerGroup=g&topic=T&queueId={queue}&setZeroIfNotFound=false");
            let offset = set.succeed(0, 14, &query, b"");
            assert_eq!(number(&decoded(&offset), "offset"), Ok(0));
        }
    }
}

fn send_one(set: &mut Set, queue: i32, body: &[u8]) -> Vec<u8> {
    let fields = format!("a=p&b=T&c=TBW102&d=4&e={queue}&f=0&g=1&h=0&i=&j=0&k=false&m=false");
    set.ask(0, 310, &fields, body)
}

#[test]
fn on_a_broken_disk_no_group_is_moved() {
    for shards in [1, 3] {
        let mut set = prepared(shards, false);
        set.fails = Some(|order| matches!(order, Order::Write { .. }));
        let frame = send_one(&mut set, 0, b"x");
        assert_eq!(told(&frame).0, NOT_AVAILABLE);
        for (code, fields) in [
            (222, TO_THE_END),
            (314, "srcGroup=g&destGroup=h&topic=T"),
            (43, ""),
        ] {
            let (answer, remark) = told(&set.ask(0, code, fields, b""));
            assert_eq!(answer, NOT_AVAILABLE, "{shards} {code}: {remark}");
        }
    }
}

#[test]
fn a_time_that_cannot_be_read_moves_nobody() {
    for shards in [1, 3] {
        let mut set = prepared(shards, true);
        for n in 0..60 {
            set.pass_ms(10);
            assert_eq!(told(&send_one(&mut set, n % 3, &[7; 2_000])).0, SUCCESS);
        }
        let at = set.now().wall_ms - 400;
        let fields = format!("topic=T&group=g&timestamp={at}&isForce=true");
        set.fails = Some(|order| matches!(order, Order::Read { .. }));
        let (code, remark) = told(&set.ask(0, 222, &fields, b""));
        assert!(set.fails.is_none(), "times are on the disk");
        assert_eq!(code, SYSTEM_ERROR);
        assert!(remark.contains("input/output error"), "{remark}");
        let reset = set.succeed(0, 222, &fields, b"");
        let reset: ResetOffsets = json::from_slice(decoded(&reset).body).expect("a table");
        assert_eq!(reset.offset_table.len(), 3);
    }
}

/// The read windows hold a few of the places that are asked for.
#[test]
fn an_answer_about_more_queues_than_windows_comes_to_an_end() {
    let mut set = Set::new(1, 1, true);
    let queues = 48;
    let fields = format!(
        "topic=T&defaultTopic=TBW102&readQueueNums={queues}&writeQueueNums={queues}&perm=6\
         &topicFilterType=SINGLE_TAG&topicSysFlag=0&order=false"
    );
    set.succeed(0, 17, &fields, b"");
    set.succeed(0, 200, "", br#"{"groupName":"g"}"#);
    for n in 0..queues * 7 {
        set.pass_ms(10);
        assert_eq!(
            told(&send_one(&mut set, n % queues, &[7; 40_000])).0,
            SUCCESS
        );
    }
    let at = set.now().wall_ms - i64::from(queues) * 35;
    let by_time = format!("topic=T&group=g&timestamp={at}&isForce=true");
    let reset = set.succeed(0, 222, &by_time, b"");
    let reset: ResetOffsets = json::from_slice(decoded(&reset).body).expect("a table");
    assert_eq!(reset.offset_table.len(), queues as usize);
    for (code, fields) in [
        (202, "topic=T"),
        (208, "consumerGroup=g&topic=T"),
        (303, "topic=T&group=g"),
    ] {
        let frame = set.succeed(0, code, fields, b"");
        let body = String::from_utf8_lossy(decoded(&frame).body).into_owned();
        assert_eq!(body.matches("queueId").count(), queues as usize, "{code}");
    }
}
