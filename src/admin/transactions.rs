//! Transactions that are open, and those that an operator has to end: by hand, or by having the
//! producers asked again.

use super::link::{Answer, Link, Trouble};
use super::messages::{self, stored};
use super::pending::{self, LOOKED_MAX};
use super::sheet::Sheet;
use crate::broker::control::names::{TRANS_CHECK_MAX_TIME_TOPIC, TRANS_HALF_TOPIC};
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::request;
use crate::remoting::header::pending::{PENDING_MAX, TRANSACTIONS};

/// `MessageSysFlag.TRANSACTION_COMMIT_TYPE` and `TRANSACTION_ROLLBACK_TYPE`.
const COMMIT: &str = "8";
const ROLLBACK: &str = "12";

/// Which ones to show.
#[derive(Clone, Debug, clap::Args)]
pub struct Wish {
    /// Only of messages for this topic
    #[arg(long)]
    topic: Option<String>,
    /// Only of this group of producers
    #[arg(long)]
    group: Option<String>,
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

/// An open transaction.
struct Open {
    stored_ms: i64,
    id: String,
    topic: String,
    group: String,
    checks: u32,
    parked: bool,
}

/// Open and parked halves, the oldest of each shard.
pub fn list(link: &mut Link, wish: &Wish) -> Result<Sheet, Trouble> {
    let columns = &["id", "topic", "producers", "age s", "checks", "state"];
    let mut sheet = Sheet::new(columns).or_absent("no transaction is open".to_owned());
    let (mut found, mut more) = (Vec::new(), false);
    for broker in link.brokers()? {
        more |= halves(link, &broker.addr, wish, &mut found)?;
    }
    found.sort_by_key(|half| half.stored_ms);
    more |= found.len() > wish.count as usize;
    found.truncate(wish.count as usize);
    let now_ms = link.now_ms();
    for half in found {
        sheet.push(vec![
            half.id.into(),
            half.topic.into(),
            half.group.into(),
            ((now_ms - half.stored_ms).max(0) / 1000).into(),
            half.checks.into(),
            if half.parked { "parked" } else { "open" }.into(),
        ]);
    }
    if more {
        let words = format!("there may be more than these {}: see --count", wish.count);
        sheet.note(words);
    }
    Ok(sheet)
}

/// The oldest halves of each shard of a broker; true if there may be more.
fn halves(
    link: &mut Link,
    addr: &str,
    wish: &Wish,
    found: &mut Vec<Open>,
) -> Result<bool, Trouble> {
    let (mut looked, mut from) = (0, None::<String>);
    let enough = found.len() + wish.count as usize;
    loop {
        let mut fields = Vec::new();
        fields.extend(from.as_deref().map(|from| ("from", from)));
        fields.extend(wish.group.as_deref().map(|group| ("producerGroup", group)));
        // Messages for one topic may be rare.
        let least = if wish.topic.is_some() { 64 } else { 1 };
        let most = wish.count.clamp(least, PENDING_MAX as u32).to_string();
        fields.push(("maxNum", &most));
        let page = pending::ask(link, addr, TRANSACTIONS, &fields, b"")?;
        for place in page.places {
            if looked >= LOOKED_MAX {
                return Ok(true);
            }
            looked += 1;
            let half = pending::view(link, addr, place.physical_offset, |record| {
                let topic = properties::find_str(record.properties(), names::REAL_TOPIC);
                Open {
                    stored_ms: record.store_timestamp(),
                    id: messages::id(record),
                    topic: topic.unwrap_or_default().to_owned(),
                    group: place.producer_group.unwrap_or_default(),
                    checks: place.checks,
                    parked: place.parked,
                }
            })?;
            let wanted = |half: &Open| wish.topic.as_ref().is_none_or(|one| *one == half.topic);
            found.extend(half.filter(wanted));
        }
        from = page.next;
        if from.is_none() || found.len() >= enough {
            return Ok(from.is_some());
        }
    }
}

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

/// Has the producers of a parked half asked again. The broker wants the id of its copy for
/// operators; that of the half does as well here.
pub fn resume(link: &mut Link, id: &str) -> Result<Sheet, Trouble> {
    let answer = stored(link, id)?;
    let parked = parked_copy(link, &answer)?.unwrap_or_else(|| id.to_owned());
    let fields = [("msgId", parked.as_str())];
    let code = request::RESUME_CHECK_HALF_MESSAGE;
    link.ask(&answer.addr, code, &fields, b"")?;
    let mut sheet = Sheet::new(&["id", "asked again"]);
    sheet.push(vec![id.into(), true.into()]);
    Ok(sheet)
}

/// The id of the copy for operators, if the message is a half that has one.
fn parked_copy(link: &mut Link, half: &Answer) -> Result<Option<String>, Trouble> {
    let record = RecordView::iter(&half.body).find_map(Result::ok);
    let record = record.filter(|record| record.topic() == TRANS_HALF_TOPIC);
    let key = record.and_then(|one| properties::find_str(one.properties(), names::UNIQUE_KEY));
    let Some(key) = key else {
        return Ok(None);
    };
    let topic = TRANS_CHECK_MAX_TIME_TOPIC;
    let copy = messages::query(link, &half.addr, topic, key, true, 1)?;
    let record = RecordView::iter(&copy.body).find_map(Result::ok);
    Ok(record.map(|record| messages::id(&record)))
}
