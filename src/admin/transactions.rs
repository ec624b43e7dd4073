//! Transactions that an operator has to end: by hand, or by having the producers asked again.

use super::link::{Link, Trouble};
use super::messages::stored;
use super::sheet::Sheet;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::request;

/// `MessageSysFlag.TRANSACTION_COMMIT_TYPE` and `TRANSACTION_ROLLBACK_TYPE`.
const COMMIT: &str = "8";
const ROLLBACK: &str = "12";

/// Commits or rolls back an open half, named by its offset id.
pub fn end(link: &mut Link, id: &str, commits: bool) -> Result<Sheet, Trouble> {
    let answer = stored(link, id)?;
    let record = RecordView::iter(&answer.body).find_map(Result::ok);
    let half = record.filter(|record| {
        properties::find_str(record.properties(), names::TRANSACTION_PREPARED).is_some()
    });
    let Some(half) = half else {
        return Err(Trouble::Absent(format!("{id} is no half of a transaction")));
    };
    let property = |name| properties::find_str(half.properties(), name).unwrap_or_default();
    let (table, place) = (
        half.queue_offset().to_string(),
        half.physical_offset().to_string(),
    );
    let fields = [
        ("producerGroup", property(names::PRODUCER_GROUP)),
        ("tranStateTableOffset", &table),
        ("commitLogOffset", &place),
        ("commitOrRollback", if commits { COMMIT } else { ROLLBACK }),
        ("fromTransactionCheck", "false"),
        ("msgId", property(names::UNIQUE_KEY)),
        ("transactionId", property(names::UNIQUE_KEY)),
    ];
    link.ask(&answer.addr, request::END_TRANSACTION, &fields, b"")?;
    let mut sheet = Sheet::new(&["id", "topic", "producers", "ended"]);
    sheet.push(vec![
        id.into(),
        property(names::REAL_TOPIC).into(),
        property(names::PRODUCER_GROUP).into(),
        if commits { "committed" } else { "rolled back" }.into(),
    ]);
    Ok(sheet)
}

/// Has the producers of a parked half asked again.
pub fn resume(link: &mut Link, id: &str) -> Result<Sheet, Trouble> {
    let answer = stored(link, id)?;
    let fields = [("msgId", id)];
    let code = request::RESUME_CHECK_HALF_MESSAGE;
    link.ask(&answer.addr, code, &fields, b"")?;
    let mut sheet = Sheet::new(&["id", "asked again"]);
    sheet.push(vec![id.into(), true.into()]);
    Ok(sheet)
}
