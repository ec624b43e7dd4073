//! VIEW_MESSAGE_BY_ID 33: one record by its physical offset.

use crate::base::LogOffset;
use crate::broker::acks::ReplyTo;
use crate::broker::control::effects::Reject;
use crate::broker::handle::{Parked, Request, bad_header, disk_busy, reject_to};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::code::response;
use crate::remoting::header::query::ViewMessage;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;

pub struct View {
    pub(super) to: ReplyTo,
    at: LogOffset,
    physical: i64,
}

pub fn view(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = ViewMessage::decode(&request.command.ext).map_err(bad_header)?;
    let shards = broker.options.control.shards;
    match LogOffset::from_physical(header.offset) {
        Some((shard, at)) if shard == broker.me => {
            let view = View {
                to: request.reply_to(),
                at,
                physical: header.offset,
            };
            run(broker, view, out);
        }
        Some((shard, _)) if shard.0 < shards => broker.forward(shard, request, out),
        _ => return Err(not_found(header.offset)),
    }
    Ok(())
}

pub fn not_found(offset: i64) -> Reject {
    let remark = format!("can not find message by the offset, {offset}");
    Reject::new(response::SYSTEM_ERROR, remark)
}

pub fn run(broker: &mut Broker, view: View, out: &mut Outbox<Peer>) {
    let waiter = broker.next_waiter();
    match broker.store.record_at(view.at, WaiterId(waiter)) {
        Fetch::Ready(record) => {
            let to = view.to;
            out.write(to.conn, |bytes| to.success(bytes).finish(record.len()));
            out.share(to.conn, record);
        }
        Fetch::Wait => {
            broker.parked.insert(waiter, Parked::View(view));
        }
        Fetch::Missing => reject_to(view.to, &not_found(view.physical), out),
        Fetch::Damaged(place) => {
            broker.stats.damaged_reads += 1;
            reject_to(view.to, &Reject::new(response::SYSTEM_ERROR, place), out);
        }
        Fetch::Busy => reject_to(view.to, &disk_busy(), out),
    }
}
