//! How much a name server holds, and the refusal of what goes beyond.

use std::fmt;

/// Bounds of every table. Each has a refusal below that names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Registered addresses, masters and slaves of all clusters.
    pub brokers_max: usize,
    /// Topics of one broker name.
    pub topics_per_broker_max: usize,
    /// Bytes of a cluster, broker, topic, zone or namespace name, of a key, or of an address.
    pub name_bytes_max: usize,
    /// Queues in the mapping of one static topic.
    pub mapping_queues_max: usize,
    /// Key-value entries; namespaces without entries count as one.
    pub kv_entries_max: usize,
    /// Bytes of one value.
    pub kv_value_bytes_max: usize,
    /// Bytes of all names, keys and values together.
    pub kv_bytes_max: usize,
    /// Changes of the key-value table that wait for the disk.
    pub kv_waiting_max: usize,
    /// Bytes of encoded routes kept for the next asker.
    pub route_cache_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            brokers_max: 4096,
            topics_per_broker_max: 100_000,
            name_bytes_max: 512,
            mapping_queues_max: 65_536,
            kv_entries_max: 10_000,
            kv_value_bytes_max: 64 << 10,
            kv_bytes_max: 16 << 20,
            kv_waiting_max: 1024,
            route_cache_bytes_max: 64 << 20,
        }
    }
}

/// Why a change is not made; its text is the remark of the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// One topic alone, before the full registration of that broker id.
    NotRegistered,
    Brokers {
        max: usize,
    },
    Topics {
        broker: String,
        max: usize,
    },
    NameBytes {
        bytes: usize,
        max: usize,
    },
    MappingQueues {
        topic: String,
        max: usize,
    },
    KvEntries {
        max: usize,
    },
    KvValueBytes {
        bytes: usize,
        max: usize,
    },
    KvBytes {
        max: usize,
    },
    KvWaiting {
        max: usize,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotRegistered => write!(f, "register broker failed"),
            Refusal::Brokers { max } => {
                write!(f, "this name server holds at most {max} brokers")
            }
            Refusal::Topics { broker, max } => {
                write!(f, "broker {broker} may have at most {max} topics here")
            }
            Refusal::NameBytes { bytes, max } => {
                write!(f, "a name of {bytes} bytes passes the limit of {max}")
            }
            Refusal::MappingQueues { topic, max } => {
                write!(f, "topic {topic} maps more than {max} queues")
            }
            Refusal::KvEntries { max } => {
                write!(f, "this name server holds at most {max} config items")
            }
            Refusal::KvValueBytes { bytes, max } => {
                write!(f, "a value of {bytes} bytes passes the limit of {max}")
            }
            Refusal::KvBytes { max } => {
                write!(f, "all config items together may take {max} bytes")
            }
            Refusal::KvWaiting { max } => {
                write!(f, "{max} config changes wait for the disk already")
            }
        }
    }
}

impl Limits {
    pub(super) fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let max = self.name_bytes_max;
        let bytes = name.len();
        if bytes > max {
            return Err(Refusal::NameBytes { bytes, max });
        }
        Ok(())
    }
}
