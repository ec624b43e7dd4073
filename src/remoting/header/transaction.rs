//! Transactions: 37, 39, 323.
//!
//! Sources: `EndTransactionRequestHeader`, `CheckTransactionStateRequestHeader`,
//! `ResumeCheckHalfMessageRequestHeader`; spec page request-codes §1.

header! {
    /// END_TRANSACTION 37, mostly one-way.
    struct EndTransaction<'a> {
        topic: opt_text "topic",
        producer_group: text "producerGroup",
        /// Queue offset of the half.
        tran_state_table_offset: i64 "tranStateTableOffset",
        /// Its physical offset.
        commit_log_offset: i64 "commitLogOffset",
        /// 0 not known, 8 commit, 12 roll back.
        commit_or_rollback: i32 "commitOrRollback",
        from_transaction_check: bool "fromTransactionCheck" or false,
        msg_id: opt_text "msgId",
        transaction_id: opt_text "transactionId",
    }
}

header! {
    /// CHECK_TRANSACTION_STATE 39, one-way, to producers.
    struct CheckTransaction<'a> {
        topic: opt_text "topic",
        tran_state_table_offset: i64 "tranStateTableOffset",
        commit_log_offset: i64 "commitLogOffset",
        /// The unique key, as is `transaction_id`.
        msg_id: opt_text "msgId",
        transaction_id: opt_text "transactionId",
        offset_msg_id: opt_text "offsetMsgId",
        broker_name: opt_text "bname",
    }
}

header! {
    /// RESUME_CHECK_HALF_MESSAGE 323.
    struct ResumeCheck<'a> {
        topic: opt_text "topic",
        /// Offset message id.
        msg_id: opt_text "msgId",
    }
}
