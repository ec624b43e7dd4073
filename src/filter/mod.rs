//! Which messages a subscription wants: tag expressions on the hash that an index entry carries,
//! SQL92 expressions on the properties of the stored message.

pub mod sql;
pub mod tag;

use self::sql::SqlFilter;
use self::tag::TagFilter;

/// What of a queue a consumer wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filter {
    Tags(TagFilter),
    Sql(SqlFilter),
}

impl Filter {
    pub const ALL: Filter = Filter::Tags(TagFilter::All);

    /// Whether a message with this tag hash may be wanted.
    #[inline]
    pub fn may_want(&self, tag_hash: i64) -> bool {
        match self {
            Filter::Tags(tags) => tags.matches(tag_hash),
            Filter::Sql(_) => true,
        }
    }

    /// The expression on properties, if there is one: then a message must be looked at itself.
    #[inline]
    pub fn sql(&self) -> Option<&SqlFilter> {
        match self {
            Filter::Tags(_) => None,
            Filter::Sql(sql) => Some(sql),
        }
    }
}

impl From<TagFilter> for Filter {
    fn from(tags: TagFilter) -> Self {
        Filter::Tags(tags)
    }
}
