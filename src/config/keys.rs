//! The table of keys: one row per key, and from the row the field of [`Config`], the checks at
//! reading, `config explain` and the answer to request 26.
//!
//! A key that RocketMQ has too keeps its name and its unit (`BrokerConfig`, `MessageStoreConfig`,
//! `NettyServerConfig` and `NamesrvConfig` of 5.5.0). Deliberately not here: keys for what the
//! process measures or decides itself; `foreign.rs` says why for each of those.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::settings::Settings;
use super::value::Shape::{self, Bytes, Name, Number, OneOf};
use super::value::{AddressList, CoreList, FlushDiskType, LogFormat};
use super::{ConfigError, Notice, Role};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a key is when no source names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Always this text.
    Fixed(&'static str),
    /// Worked out from the host or from other keys; the text says how.
    Derived(&'static str),
}

use Start::{Derived, Fixed};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name in every source; RocketMQ's where one exists.
    pub name: &'static str,
    /// Form, range and unit of the value.
    pub shape: Shape,
    /// The value when nothing is said.
    pub start: Start,
    /// Which part of the process reads it.
    pub part: &'static str,
    /// What changes when it changes.
    pub effect: &'static str,
}

/// The row of a key, if there is such a key. Names are case-sensitive, as in RocketMQ.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

macro_rules! keys {
    ($(
        $field:ident: $type:ty = $name:literal, $shape:expr, $start:expr, $part:literal,
        $effect:literal;
    )*) => {
        /// Every key, in the order in which `config explain` lists them.
        pub const KEYS: &[Key] = &[
            $(Key { name: $name, shape: $shape, start: $start, part: $part, effect: $effect },)*
        ];

        /// The checked configuration of one process: plain values, no key unset.
        #[derive(Clone, Debug)]
        pub struct Config {
            /// What the process is started as.
            pub role: Role,
            /// RocketMQ keys that were given and mean nothing here; the log names them at start.
            pub notices: Vec<Notice>,
            pub(super) settings: Settings,
            $(#[doc = $effect] pub $field: $type,)*
        }

        impl Config {
            /// Reads every field from settings in which no key is missing any more.
            pub(super) fn read(
                role: Role,
                settings: Settings,
                notices: Vec<Notice>,
            ) -> Result<Config, ConfigError> {
                $(let $field = settings.field($name)?;)*
                Ok(Config { role, notices, settings, $($field,)* })
            }
        }
    };
}

keys! {
    store_path_root_dir: PathBuf = "storePathRootDir", Shape::Text, Derived("~/orbitmq, of a name server alone ~/orbitmq-namesrv"), "store",
        "Directory of everything on disk. One process at a time may use it.";
    shards: u64 = "shards", Number { min: 1, max: 64, unit: "" },
        Derived("one for each core in `cores`, at most 8"), "store",
        "Commit logs in the store. Counts when the store is created; later starts keep the \
         number that is on disk.";
    flush_disk_type: FlushDiskType = "flushDiskType", OneOf(&["ASYNC_FLUSH", "SYNC_FLUSH"]),
        Fixed("ASYNC_FLUSH"), "store",
        "When a send is acknowledged: ASYNC_FLUSH once the kernel has the write (survives a killed \
         process), SYNC_FLUSH after the sync (survives a power cut).";
    flush_interval_commit_log: u64 = "flushIntervalCommitLog",
        Number { min: 10, max: 60_000, unit: "ms" }, Fixed("500"), "store",
        "With ASYNC_FLUSH, the longest time between two syncs: what a power cut can take.";
    sync_flush_timeout: u64 = "syncFlushTimeout", Number { min: 100, max: 60_000, unit: "ms" },
        Fixed("5000"), "store",
        "With SYNC_FLUSH, how long a send waits before it answers FLUSH_DISK_TIMEOUT.";
    mapped_file_size_commit_log: u64 = "mappedFileSizeCommitLog",
        Bytes { min: 4 * MIB, max: 4 * GIB, step: MIB }, Fixed("1073741824"), "store",
        "Size of one segment of the commit log. Must hold a message of maxMessageSize.";
    max_message_size: u64 = "maxMessageSize", Bytes { min: KIB, max: 15 * MIB, step: 1 },
        Fixed("4194304"), "store",
        "Largest body of one message or batch; a larger one is answered MESSAGE_ILLEGAL.";
    file_reserved_time: u64 = "fileReservedTime", Number { min: 1, max: 87_600, unit: "hours" },
        Fixed("72"), "store",
        "How long messages are kept at least; a segment of the log is removed when all messages \
         in it are older.";
    disk_space_clean_forcibly_ratio: u64 = "diskSpaceCleanForciblyRatio",
        Number { min: 10, max: 95, unit: "percent" }, Fixed("85"), "store",
        "Disk usage from which the oldest segments are removed before their time, one by one.";
    flush_batch_bytes: u64 = "flushBatchBytes",
        Bytes { min: 64 * KIB, max: 16 * MIB, step: 4 * KIB }, Fixed("1048576"), "store",
        "Most bytes of one group commit; a single larger message travels alone.";
    writes_in_flight: u64 = "writesInFlight", Number { min: 1, max: 32, unit: "" }, Fixed("4"),
        "store", "Group commits one shard may have at the disk at the same time.";
    checkpoint_bytes: u64 = "checkpointBytes", Bytes { min: 4 * MIB, max: 16 * GIB, step: 1 },
        Fixed("268435456"), "store",
        "Log written between two checkpoints; recovery replays at most this much of each shard.";
    checkpoint_interval: u64 = "checkpointInterval",
        Number { min: 100, max: 3_600_000, unit: "ms" }, Fixed("30000"), "store",
        "Longest time between two checkpoints of a shard that is written to.";

    cores: CoreList = "cores", Shape::Cores, Derived("every core the process may use"), "shards",
        "Cores to run on: a count (`2`), a list (`0,2`) or a range (`1-3`; one core is `3-3`).";
    spin_before_park: u64 = "spinBeforePark", Number { min: 0, max: 10_000, unit: "us" },
        Fixed("0"), "shards",
        "How long an idle core polls before it sleeps. More than 0 only on cores of its own.";
    read_interval: u64 = "readInterval", Number { min: 0, max: 10_000, unit: "us" },
        Fixed("0"), "shards",
        "Requests of a connection are taken up at most once in this time: larger groups and fewer \
         wake-ups, for up to this much more latency. 0 takes each up at once.";
    memory_limit: u64 = "memoryLimit", Bytes { min: 64 * MIB, max: 1024 * GIB, step: 1 },
        Derived("256MiB and 128MiB for each further shard"), "shards",
        "Memory for buffers, caches and tables of all shards; at the limit requests are refused.";
    connections_max: u64 = "connectionsMax", Number { min: 1, max: 1_000_000, unit: "" },
        Fixed("10000"), "shards",
        "Open client connections; one more is closed at once.";
    server_channel_max_idle_time_seconds: u64 = "serverChannelMaxIdleTimeSeconds",
        Number { min: 1, max: 86_400, unit: "s" }, Fixed("120"), "shards",
        "A connection without traffic for this long is closed.";

    broker_cluster_name: String = "brokerClusterName", Name, Fixed("DefaultCluster"), "broker",
        "Cluster the broker registers under; also the name of a system topic.";
    broker_name: String = "brokerName", Name,
        Derived("the host's name; broker-a where that is no valid name"), "broker",
        "Name the broker registers under. Clients' queues carry it: keep it for the store's life.";
    broker_id: u64 = "brokerId", Number { min: 0, max: 0, unit: "" }, Fixed("0"), "broker",
        "0 is the master. Replicas (1 and above) are not there yet.";
    broker_ip1: IpAddr = "brokerIP1", Shape::Ip,
        Derived("the listening address if it is a specific one, else this host's address"),
        "broker", "Address that clients are told to connect to.";
    region_id: String = "regionId", Name, Fixed("DefaultRegion"), "broker",
        "Stored with every message as MSG_REGION and shown in message traces.";
    listen: SocketAddr = "listen", Shape::Socket, Fixed("127.0.0.1:10911"), "broker",
        "Address the broker listens on. Beyond loopback it needs `insecure`, there is no \
         authentication yet. RocketMQ's listenPort and bindAddress set the two halves.";
    namesrv_addr: AddressList = "namesrvAddr", Shape::Addresses,
        Derived("NAMESRV_ADDR of the environment; the own name server in `standalone`"), "broker",
        "Name servers to register with, host:port separated by `;`.";
    register_name_server_period: u64 = "registerNameServerPeriod",
        Number { min: 10_000, max: 60_000, unit: "ms" }, Fixed("30000"), "broker",
        "Time between two registrations with the name servers.";
    auto_create_topic_enable: bool = "autoCreateTopicEnable", Shape::Flag, Fixed("true"), "broker",
        "A send to an unknown topic creates it, from the template TBW102.";
    auto_create_subscription_group: bool = "autoCreateSubscriptionGroup", Shape::Flag,
        Fixed("true"), "broker",
        "The first use of an unknown consumer group creates it.";
    default_topic_queue_nums: u64 = "defaultTopicQueueNums",
        Number { min: 1, max: 1024, unit: "" }, Fixed("8"), "broker",
        "Most queues of an automatically created topic.";
    broker_permission: u64 = "brokerPermission", OneOf(&["2", "4", "6"]), Fixed("6"), "broker",
        "What the whole broker allows: 4 reading, 2 writing, 6 both.";
    trace_topic_enable: bool = "traceTopicEnable", Shape::Flag, Fixed("false"), "broker",
        "Creates RMQ_SYS_TRACE_TOPIC at start, for clients that trace messages.";
    trace_on: bool = "traceOn", Shape::Flag, Fixed("true"), "broker",
        "Tells clients in each send response that their message traces are wanted.";
    message_delay_level: String = "messageDelayLevel", Shape::DelayLevels,
        Fixed("1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"), "broker",
        "Delays of the levels 1, 2, 3 … of delayed messages and of consumer retries.";
    timer_max_delay_sec: u64 = "timerMaxDelaySec",
        Number { min: 0, max: 1_000_000_000, unit: "s" }, Fixed("0"), "broker",
        "Messages for a time further away than this are refused; 0 takes any time.";
    recall_message_enable: bool = "recallMessageEnable", Shape::Flag, Fixed("false"), "broker",
        "Whether producers may take back messages whose time has not come.";
    enable_lmq: bool = "enableLmq", Shape::Flag, Fixed("false"), "broker",
        "With enableMultiDispatch: messages may be in light queues besides their own (property \
         INNER_MULTI_DISPATCH), and topics may have lite topics.";
    enable_multi_dispatch: bool = "enableMultiDispatch", Shape::Flag, Fixed("false"), "broker",
        "With enableLmq: see there.";
    enable_lmq_quota: bool = "enableLmqQuota", Shape::Flag, Fixed("false"), "broker",
        "Whether maxLmqConsumeQueueNum counts. A shard holds 1,048,576 queues in any case.";
    max_lmq_consume_queue_num: u64 = "maxLmqConsumeQueueNum",
        Number { min: 1, max: 60_000_000, unit: "" }, Fixed("20000"), "broker",
        "With enableLmqQuota: light queues there may be, shared equally by the shards.";
    pop_from_retry_probability: u64 = "popFromRetryProbability",
        Number { min: 0, max: 100, unit: "percent" }, Fixed("20"), "broker",
        "In so many pops what was not acknowledged in time comes before new messages.";
    pop_from_retry_probability_for_priority: u64 = "popFromRetryProbabilityForPriority",
        Number { min: 0, max: 100, unit: "percent" }, Fixed("0"), "broker",
        "The same for pops in priority mode.";
    priority_order_asc: bool = "priorityOrderAsc", Shape::Flag, Fixed("true"), "broker",
        "A higher number is more urgent: pops begin with the highest queue, not with queue 0.";
    max_lite_subscription_count: u64 = "maxLiteSubscriptionCount",
        Number { min: 1, max: 1_000_000, unit: "" }, Fixed("100000"), "broker",
        "Subscriptions of clients to lite topics, about 200 bytes each, that one shard keeps; one \
         more is answered LITE_SUBSCRIPTION_QUOTA_EXCEEDED. All of one parent are in one shard.";
    transaction_time_out: u64 = "transactionTimeOut",
        Number { min: 1, max: 86_400_000, unit: "ms" }, Fixed("6000"), "broker",
        "A transaction that is open for longer has its producer asked how it ended.";
    transaction_check_interval: u64 = "transactionCheckInterval",
        Number { min: 100, max: 86_400_000, unit: "ms" }, Fixed("30000"), "broker",
        "The producer of an open transaction is asked again after this time.";
    transaction_check_max: u64 = "transactionCheckMax", Number { min: 1, max: 10_000, unit: "" },
        Fixed("15"), "broker",
        "After so many questions a transaction is parked in TRANS_CHECK_MAX_TIME_TOPIC.";
    reject_transaction_message: bool = "rejectTransactionMessage", Shape::Flag, Fixed("false"),
        "broker", "Refuses transactional messages.";
    enable_property_filter: bool = "enablePropertyFilter", Shape::Flag, Fixed("false"), "broker",
        "Whether consumers may filter by SQL92 expressions on message properties.";
    long_polling_enable: bool = "longPollingEnable", Shape::Flag, Fixed("true"), "broker",
        "A pull that finds nothing waits as long as the consumer asks for.";
    short_polling_time_mills: u64 = "shortPollingTimeMills",
        Number { min: 1, max: 60_000, unit: "ms" }, Fixed("1000"), "broker",
        "Without longPollingEnable, how long such a pull waits.";
    max_transfer_count_on_message_in_memory: u64 = "maxTransferCountOnMessageInMemory",
        Number { min: 1, max: 1024, unit: "" }, Fixed("32"), "broker",
        "Most messages in one pull response while reading from memory.";
    max_transfer_bytes_on_message_in_memory: u64 = "maxTransferBytesOnMessageInMemory",
        Bytes { min: KIB, max: 15 * MIB, step: 1 }, Fixed("262144"), "broker",
        "Most bytes in one pull response while reading from memory; one message always fits.";
    max_transfer_count_on_message_in_disk: u64 = "maxTransferCountOnMessageInDisk",
        Number { min: 1, max: 1024, unit: "" }, Fixed("8"), "broker",
        "Most messages in one pull response while reading from disk.";
    max_transfer_bytes_on_message_in_disk: u64 = "maxTransferBytesOnMessageInDisk",
        Bytes { min: KIB, max: 15 * MIB, step: 1 }, Fixed("65536"), "broker",
        "Most bytes in one pull response while reading from disk; one message always fits.";
    notify_consumer_ids_changed_enable: bool = "notifyConsumerIdsChangedEnable", Shape::Flag,
        Fixed("true"), "broker",
        "Members of a group are told at once when another joins or leaves.";
    reject_different_subscription: bool = "rejectDifferentSubscription", Shape::Flag,
        Fixed("false"), "broker",
        "Refuses a consumer that does not subscribe as the members of its group do. Otherwise it \
         joins, with a warning in the log: what only some members want may be skipped.";
    channel_expired_timeout: u64 = "channelExpiredTimeout",
        Number { min: 1_000, max: 3_600_000, unit: "ms" }, Fixed("120000"), "broker",
        "A client without a heartbeat for this long leaves its groups.";

    namesrv_listen: SocketAddr = "namesrvListen", Shape::Socket, Fixed("127.0.0.1:9876"),
        "name server",
        "Address the name server listens on; the same rule as for `listen`.";
    kv_config_path: PathBuf = "kvConfigPath", Shape::Text,
        Derived("<storePathRootDir>/namesrv/kvConfig.json"), "name server",
        "File of the name server's key-value table.";
    order_message_enable: bool = "orderMessageEnable", Shape::Flag, Fixed("false"), "name server",
        "Puts the order configuration of a topic into its route.";
    return_order_topic_config_to_broker: bool = "returnOrderTopicConfigToBroker", Shape::Flag,
        Fixed("true"), "name server",
        "Answers a registration with the order configuration of all topics.";
    scan_not_active_broker_interval: u64 = "scanNotActiveBrokerInterval",
        Number { min: 100, max: 60_000, unit: "ms" }, Fixed("5000"), "name server",
        "Time between two looks for brokers that stopped registering.";

    insecure: bool = "insecure", Shape::Flag, Fixed("false"), "process",
        "Allows listening beyond loopback although anyone who connects may do anything.";
    log_format: LogFormat = "logFormat", OneOf(&["human", "json"]), Fixed("human"), "process",
        "Form of the log lines on standard error.";
    log_level: String = "logLevel", OneOf(&["error", "warn", "info", "debug", "trace"]),
        Fixed("info"), "process",
        "Least urgent log lines that are written.";
}
