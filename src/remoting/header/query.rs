//! Single messages and the broker's own configuration: 26, 33. 25 carries properties text as its
//! body, 28 has no header.
//!
//! Sources: `ViewMessageRequestHeader`, `GetBrokerConfigResponseHeader`; spec page request-codes.

header! {
    /// VIEW_MESSAGE_BY_ID 33.
    struct ViewMessage<'a> {
        topic: opt_text "topic",
        /// Physical offset.
        offset: i64 "offset",
    }
}

header! {
    /// Response of GET_BROKER_CONFIG 26.
    struct BrokerConfigResponse<'a> {
        /// JSON of the configuration's data version.
        version: text "version",
    }
}
