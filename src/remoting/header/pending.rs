//! QUERY_PENDING_MESSAGES 7001, which is ours: RocketMQ has no request for it.

/// What [`QueryPending::kind`] may be: open and parked halves of transactions.
pub const TRANSACTIONS: &str = "TRANSACTIONS";
/// Messages for a time.
pub const TIMERS: &str = "TIMERS";
/// Delay levels.
pub const LEVELS: &str = "LEVELS";
/// Which messages for a time were taken back. Their hashes (`store::index::key_hash` of topic and
/// unique key) are the body, a JSON list of numbers.
pub const RECALLED: &str = "RECALLED";

/// Places of one answer, and hashes of one question.
pub const PENDING_MAX: usize = 1000;

header! {
    /// QUERY_PENDING_MESSAGES 7001.
    struct QueryPending<'a> {
        kind: text "kind",
        /// Places in the answer, 1 to [`PENDING_MAX`].
        max_num: i32 "maxNum" or 1000,
        /// `next` of the answer before; without it from the start.
        from: opt_text "from",
        /// Only halves of this one.
        producer_group: opt_text "producerGroup",
        /// Only timers due from here on, wall ms.
        due_from: opt_i64 "dueFrom",
        /// And before here.
        due_before: opt_i64 "dueBefore",
    }
}
