//! RECALL_MESSAGE 370. Source: `RecallMessageRequestHeader`; spec page request-codes §1.

header! {
    /// RECALL_MESSAGE 370.
    struct RecallMessage<'a> {
        producer_group: opt_text "producerGroup",
        topic: text "topic",
        /// From the response of the send.
        recall_handle: text "recallHandle",
    }
}
