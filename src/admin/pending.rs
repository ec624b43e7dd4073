//! QUERY_PENDING_MESSAGES 7001, asked: the one request that is not RocketMQ's.

use super::link::{Link, Trouble};
use crate::message::view::RecordView;
use crate::remoting::body::pending::PendingMessages;
use crate::remoting::code::{request, response};

/// Messages of other topics that are passed over when one is asked for.
pub const LOOKED_MAX: usize = 20_000;

/// Asks one broker.
pub fn ask(
    link: &mut Link,
    addr: &str,
    kind: &str,
    more: &[(&str, &str)],
    body: &[u8],
) -> Result<PendingMessages, Trouble> {
    let fields = [&[("kind", kind)], more].concat();
    let code = request::QUERY_PENDING_MESSAGES;
    match link.ask(addr, code, &fields, body) {
        Ok(answer) => answer.read(),
        Err(Trouble::Refused {
            code: response::REQUEST_CODE_NOT_SUPPORTED,
            ..
        }) => Err(Trouble::Wrong(unknown(addr))),
        Err(trouble) => Err(trouble),
    }
}

fn unknown(addr: &str) -> String {
    format!(
        "{addr} cannot list what is pending: RocketMQ has no request for it, and only OrbitMQ \
         brokers of this version on answer request {} of ours",
        request::QUERY_PENDING_MESSAGES
    )
}

/// What is done with the message at a physical offset; `None` if it is not there any more.
pub fn view<T>(
    link: &mut Link,
    addr: &str,
    physical: i64,
    look: impl FnOnce(&RecordView<'_>) -> T,
) -> Result<Option<T>, Trouble> {
    let physical = physical.to_string();
    let fields = [("offset", physical.as_str())];
    let answer = match link.ask(addr, request::VIEW_MESSAGE_BY_ID, &fields, b"") {
        Err(Trouble::Refused {
            code: response::SYSTEM_ERROR,
            ..
        }) => return Ok(None),
        other => other?,
    };
    let record = RecordView::iter(&answer.body).find_map(Result::ok);
    Ok(record.map(|record| look(&record)))
}
