//! Which messages a subscription wants: tag expressions on the hash that an index entry carries.

pub mod tag;
