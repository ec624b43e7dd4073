//! Expressions that choose messages, and CHECK_CLIENT_CONFIG 46, by which a client asks about one
//! before it starts.
//!
//! Sources: `ClientManageProcessor.checkClientConfig`, `PullMessageProcessor`, `FilterAPI`.

use crate::broker::control::effects::Reject;
use crate::broker::handle::body::parse as parse_body;
use crate::broker::handle::{Request, succeed};
use crate::broker::members::{SQL92, TAG};
use crate::broker::{Broker, Peer};
use crate::filter::Filter;
use crate::filter::sql::SqlFilter;
use crate::filter::tag::TagFilter;
use crate::machine::Outbox;
use crate::remoting::body::client::CheckClient;
use crate::remoting::code::response;

pub fn check(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let body: CheckClient = parse_body(request.command)?;
    if let Some(subscription) = body.subscription_data
        && !["", TAG].contains(&subscription.expression_type.as_str())
    {
        check_kind(broker, &subscription.expression_type)?;
        parse(
            broker,
            &subscription.expression_type,
            &subscription.sub_string,
        )?;
    }
    succeed(request.reply_to(), out);
    Ok(())
}

/// The filter of a pull that brings its own expression.
pub fn parse(broker: &Broker, kind: &str, expression: &str) -> Result<Filter, Reject> {
    let refused = |reason: String| {
        let remark = format!("parse the consumer's subscription failed: {reason}");
        Reject::new(response::SUBSCRIPTION_PARSE_FAILED, remark)
    };
    match kind {
        TAG => TagFilter::parse(expression)
            .map(Filter::Tags)
            .map_err(|error| refused(error.to_string())),
        SQL92 => {
            let filter =
                SqlFilter::parse(expression).map_err(|error| refused(error.to_string()))?;
            check_kind(broker, kind)?;
            Ok(Filter::Sql(filter))
        }
        _ => Err(refused(format!(
            "{kind} is no kind of expression, only {TAG} and {SQL92} are"
        ))),
    }
}

/// Only tags, unless the configuration allows more.
pub fn check_kind(broker: &Broker, kind: &str) -> Result<(), Reject> {
    if kind == TAG || broker.options.property_filter {
        return Ok(());
    }
    let remark = format!(
        "The broker does not support consumer to filter message by {kind}: see enablePropertyFilter"
    );
    Err(Reject::new(response::SYSTEM_ERROR, remark))
}
