//! Requests: one function each, one family per file.

pub mod connection;
pub mod group;
pub mod lock;
pub mod member;
#[cfg(test)]
pub(in crate::broker) mod rig;
pub mod topic;

use serde::de::DeserializeOwned;

use crate::broker::control::effects::Reject;
use crate::broker::record::Stamp;
use crate::remoting::body::json;
use crate::remoting::body::topic::DataVersion;
use crate::remoting::code::response;
use crate::remoting::command::Command;

/// Reads the body of a request. A request that needs one and has none is refused.
fn parse<T: DeserializeOwned>(command: &Command<'_>) -> Result<T, Reject> {
    let refused = |error: json::BodyError| Reject::new(response::SYSTEM_ERROR, error.to_string());
    json::from_slice(command.body).map_err(refused)
}

/// Longest group, topic, broker or client name that is kept in memory for a peer. The reference has
/// no limit; its clients check shorter ones.
const NAME_BYTES_MAX: usize = 1024;

/// Refuses a name that is too long to be kept.
fn check_length(what: &str, name: &str) -> Result<(), Reject> {
    if name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let remark = format!(
        "the {what} has {} bytes, the limit is {NAME_BYTES_MAX}",
        name.len()
    );
    Err(Reject::new(response::INVALID_PARAMETER, remark))
}

/// Which part of a sorted table a request wants (codes 21 and 201).
struct Page<'a> {
    first: Option<i32>,
    /// JSON of the stamp that the earlier pages had.
    stamp: Option<&'a str>,
    count: Option<i32>,
}

impl Page<'_> {
    /// Entries to skip and to take. Everything without any field; the first page again if the table
    /// changed since the earlier pages.
    fn range(&self, stamp: Stamp, page_max: usize) -> (usize, usize) {
        if self.first.is_none() && self.stamp.is_none() && self.count.is_none() {
            return (0, usize::MAX);
        }
        let known = self
            .stamp
            .and_then(|text| json::from_slice(text.as_bytes()).ok());
        let same = known == Some(DataVersion::from(stamp));
        let first = self
            .first
            .filter(|_| same)
            .map_or(0, |first| usize::try_from(first).unwrap_or(0));
        let count = self
            .count
            .map_or(page_max, |count| usize::try_from(count).unwrap_or(0));
        (first, count.min(page_max))
    }
}
