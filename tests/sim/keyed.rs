//! Queries by key against a ledger: the newest messages of a time, whatever else has the key since,
//! of one and of several shards.

use orbitmq::message::view::RecordView;
use proptest::prelude::*;

use crate::set::{Set, decoded};

const SEND: i32 = 310;
const QUERY: i32 = 12;
const FOUND: i32 = 0;
const ERROR: i32 = 1;
const NOT_FOUND: i32 = 22;

fn create(set: &mut Set, topic: &str) {
    let fields = format!(
        "topic={topic}&defaultTopic=TBW102&readQueueNums=4&writeQueueNums=4&perm=6\
         &topicFilterType=SINGLE_TAG&topicSysFlag=0&order=false"
    );
    set.succeed(0, 17, &fields, b"");
}

/// Sends a message that is its number.
fn send(set: &mut Set, queue: u64, number: u32, keys: &str) {
    let fields = format!(
        "a=p&b=T&c=TBW102&d=4&e={}&f=0&g=1&h=0&j=0&k=false&m=false&i=KEYS\u{1}{keys}\u{2}",
        queue % 4
    );
    set.succeed(0, SEND, &fields, number.to_string().as_bytes());
}

/// Numbers of the messages with a key, of a time, in the order of their numbers; or the refusal.
fn query(set: &mut Set, key: &str, span: (i64, i64), most: usize) -> Result<Vec<u32>, i32> {
    let (from, to) = span;
    let fields = format!("topic=T&key={key}&maxNum={most}&beginTimestamp={from}&endTimestamp={to}");
    let frame = set.ask(0, QUERY, &fields, b"");
    let command = decoded(&frame);
    if command.code != FOUND {
        return Err(command.code);
    }
    let records = RecordView::iter(command.body).map(|record| record.expect("a record"));
    let numbers = records.map(|record| std::str::from_utf8(record.body()).unwrap().parse());
    let mut numbers: Vec<u32> = numbers.map(|number| number.unwrap()).collect();
    numbers.sort();
    Ok(numbers)
}

#[test]
fn a_message_is_found_however_many_newer_ones_have_its_key() {
    for (shards, cold) in [(1, false), (1, true), (3, false)] {
        let mut set = Set::new(shards, 4, cold);
        create(&mut set, "T");
        send(&mut set, 0, 0, "k");
        let first_ms = set.now().wall_ms;
        set.pass_ms(5);
        for number in 1..600 {
            send(&mut set, u64::from(number), number, "k other");
            set.pass_ms(u64::from(number % 2));
        }
        let last_ms = set.now().wall_ms;
        assert_eq!(query(&mut set, "k", (0, first_ms), 1), Ok(vec![0]));
        assert_eq!(query(&mut set, "k", (0, first_ms), 64), Ok(vec![0]));
        assert_eq!(query(&mut set, "k", (first_ms, first_ms), 1), Ok(vec![0]));
        let between = (first_ms + 1, first_ms + 4);
        assert_eq!(query(&mut set, "k", between, 1), Err(NOT_FOUND));
        assert_eq!(query(&mut set, "k", (0, last_ms), 1), Ok(vec![599]));
    }
}

#[test]
fn a_key_that_is_named_twice_is_found_once() {
    let mut set = Set::new(1, 4, false);
    create(&mut set, "T");
    send(&mut set, 0, 7, "k k other k");
    assert_eq!(query(&mut set, "k", (0, i64::MAX), 64), Ok(vec![7]));
}

/// A unique key is looked for where keys are; those of other messages cost a read each.
#[test]
fn so_many_messages_are_read_in_vain() {
    let mut set = Set::new(1, 4, false);
    create(&mut set, "T");
    let unique = |set: &mut Set| {
        let fields = "topic=T&key=k&maxNum=1&beginTimestamp=0&endTimestamp=9000000000000\
                      &indexType=U";
        let frame = set.ask(0, QUERY, fields, b"");
        let remark = decoded(&frame).remark.map(|text| text.to_string());
        (decoded(&frame).code, remark.unwrap_or_default())
    };
    (0..1024).for_each(|number| send(&mut set, 0, number, "k"));
    assert_eq!(unique(&mut set).0, NOT_FOUND);
    send(&mut set, 0, 1024, "k");
    let (code, remark) = unique(&mut set);
    assert_eq!(code, ERROR);
    assert!(
        remark.starts_with("too many messages have this key"),
        "{remark}"
    );
}

#[derive(Clone, Debug)]
enum Op {
    Send(u8, u64),
    Pass(u16),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0..3u8, any::<u64>()).prop_map(|(key, queue)| Op::Send(key, queue)),
        8 => (0..4u16).prop_map(Op::Pass),
        1 => (0..3_000u16).prop_map(Op::Pass),
        1 => Just(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn queries_find_what_the_ledger_has(
        shards in 1..4u16,
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..200),
        asked in prop::collection::vec((0..3u8, any::<[prop::sample::Index; 2]>(), 0..9usize), 20),
    ) {
        let mut set = Set::new(shards, seed, seed.is_multiple_of(2));
        create(&mut set, "T");
        let mut ledger: Vec<(u8, i64)> = vec![(9, 0)];
        for op in ops {
            match op {
                Op::Send(key, queue) => {
                    let number = ledger.len() as u32;
                    send(&mut set, queue, number, &format!("k{key}"));
                    ledger.push((key, set.now().wall_ms));
                }
                Op::Pass(ms) => set.pass_ms(ms.into()),
                Op::Restart => set.restart(),
            }
        }
        for (key, times, most) in asked {
            let [from, to] = times.map(|at| at.get(&ledger).1);
            let found = (1u32..).zip(&ledger[1..]);
            let found = found.filter(|(_, (k, ms))| *k == key && (from..=to).contains(ms));
            let found: Vec<(u32, i64)> = found.map(|(number, (_, ms))| (number, *ms)).collect();
            let given = query(&mut set, &format!("k{key}"), (from, to), most);
            if found.is_empty() || most == 0 {
                prop_assert_eq!(given, Err(NOT_FOUND));
                continue;
            }
            // Of one moment, any.
            let given = given.unwrap();
            let oldest = &found[found.len().saturating_sub(most)];
            let newer = found.iter().filter(|(_, ms)| *ms > oldest.1);
            prop_assert_eq!(given.len(), found.len().min(most));
            for (number, _) in newer {
                prop_assert!(given.contains(number), "{} of {:?}", number, given);
            }
            for number in given {
                let ms = found.iter().find(|(other, _)| *other == number);
                prop_assert!(ms.is_some_and(|(_, ms)| *ms >= oldest.1), "{}", number);
            }
        }
    }
}
