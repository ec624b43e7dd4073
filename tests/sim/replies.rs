//! Answers to clients that asked, where nothing can be stored.

use orbitmq::base::disk::Order;

use crate::client::remark_of;
use crate::set::{Set, decoded};

const SYSTEM_ERROR: i32 = 1;
const REPLIES: &str = "c_REPLY_TOPIC";

#[test]
fn an_answer_that_cannot_be_stored_is_told_all_the_same() {
    let mut set = Set::new(1, 1, false);
    set.fails = Some(|order| matches!(order, Order::Write { .. }));
    let fields = |topic: &str| {
        let properties = "REPLY_TO_CLIENT\u{1}gone\u{2}";
        format!("a=p&b={topic}&c=TBW102&d=4&e=0&f=0&g=1&h=0&i={properties}&j=0&k=false&m=false")
    };
    let channel = "push reply message fail, channel of <gone> not found.";
    for tail in ["its write fails", "the log has failed before"] {
        let frame = set.ask(0, 325, &fields(REPLIES), b"yes");
        let command = decoded(&frame);
        assert_eq!(command.code, SYSTEM_ERROR, "{tail}");
        assert_eq!(remark_of(&command), channel, "{tail}");
        let id = command.ext.find("msgId").map(|id| id.to_string());
        assert_eq!(id.as_deref(), Some("0"), "{tail}");
    }
}
