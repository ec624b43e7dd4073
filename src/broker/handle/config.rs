//! GET_BROKER_CONFIG 26.

use crate::broker::control::effects::Reject;
use crate::broker::handle::Request;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;

pub fn config(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let to = request.reply_to();
    let properties = broker.options.properties.as_bytes();
    // The configuration changes only by a restart, so its version says nothing but that.
    let version = r#"{"counter":0,"stateVersion":0,"timestamp":0}"#;
    out.write(to.conn, |bytes| {
        let mut w = to.success(bytes);
        w.field_str("version", version);
        w.finish_with_body(properties);
    });
    Ok(())
}
