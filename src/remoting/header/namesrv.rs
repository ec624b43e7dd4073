//! What brokers and clients ask a name server: 103, 104, 105, 322, 901, 904. The lists 106, 206 and
//! 304 have no header.
//!
//! Sources: the classes in `header.namesrv`; spec pages request-codes §5, namesrv-ha §2.

header! {
    /// REGISTER_BROKER 103.
    struct RegisterBroker<'a> {
        broker_name: text "brokerName",
        broker_addr: text "brokerAddr",
        cluster_name: text "clusterName",
        ha_server_addr: text "haServerAddr",
        broker_id: i64 "brokerId",
        heartbeat_timeout_ms: opt_i64 "heartbeatTimeoutMillis",
        enable_acting_master: opt_bool "enableActingMaster",
        /// Not to be trusted: Java compresses the body and says false.
        compressed: bool "compressed" or false,
        /// CRC-32 of the body with its top bit cleared; 0 = not checked.
        body_crc32: i32 "bodyCrc32" or 0,
        /// From the environment of the broker.
        zone_name: opt_text "__ZONE_NAME",
    }
}

header! {
    /// Response of 103: both only when a live master of the same name exists.
    struct RegisterBrokerResponse<'a> {
        ha_server_addr: opt_text "haServerAddr",
        master_addr: opt_text "masterAddr",
    }
}

header! {
    /// UNREGISTER_BROKER 104 and QUERY_DATA_VERSION 322.
    struct BrokerIdentity<'a> {
        broker_name: text "brokerName",
        broker_addr: text "brokerAddr",
        cluster_name: text "clusterName",
        broker_id: i64 "brokerId",
    }
}

header! {
    /// Response of 322.
    struct DataVersionResponse {
        changed: bool "changed",
    }
}

header! {
    /// GET_ROUTEINFO_BY_TOPIC 105.
    struct RouteHeader<'a> {
        topic: text "topic",
        accept_standard_json_only: opt_bool "acceptStandardJsonOnly",
        /// Set by the zone hook of a client.
        zone_name: opt_text "__ZONE_NAME",
        zone_mode: opt_bool "__ZONE_MODE",
    }
}

header! {
    /// BROKER_HEARTBEAT 904.
    struct BrokerHeartbeat<'a> {
        cluster_name: text "clusterName",
        broker_addr: text "brokerAddr",
        broker_name: text "brokerName",
        broker_id: opt_i64 "brokerId",
        epoch: opt_i32 "epoch",
        max_offset: opt_i64 "maxOffset",
        confirm_offset: opt_i64 "confirmOffset",
        heartbeat_timeout_ms: opt_i64 "heartbeatTimeoutMills",
        election_priority: opt_i32 "electionPriority",
    }
}

header! {
    /// GET_BROKER_MEMBER_GROUP 901.
    struct MemberGroupHeader<'a> {
        cluster_name: text "clusterName",
        broker_name: text "brokerName",
    }
}
