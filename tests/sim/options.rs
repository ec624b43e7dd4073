//! What a seed makes of the broker and its clients: everything small, so that little traffic
//! reaches every corner.

use orbitmq::base::ShardId;
use orbitmq::broker::BrokerOptions;
use orbitmq::broker::control::options::ControlOptions;
use orbitmq::broker::registry::RegistryOptions;
use orbitmq::remoting::command::Command;
use orbitmq::remoting::frame::{frame_len, split};
use orbitmq::store::{Flush, Sabotage, StoreOptions};

use crate::client::Traffic;
use crate::rng::Rng;

pub const BROKER: &str = "127.0.0.1:10911";
pub const WALL_MS: i64 = 1_700_000_000_000;
const KIB: usize = 1024;

pub struct Plan {
    pub broker: BrokerOptions,
    pub traffic: Traffic,
    pub shards: u16,
    /// Large messages of one size, slow disks, one crash after the other: what lies behind the end
    /// of the log then fits where the next life writes.
    pub violent: bool,
}

pub fn plan(rng: &mut Rng, sabotage: Sabotage) -> Plan {
    let shards = *rng.pick(&[1, 1, 2, 3]);
    let flush = if rng.percent(60) {
        Flush::Sync
    } else {
        Flush::Async
    };
    let flush = match sabotage {
        Sabotage::AckBeforeSync => Flush::Sync,
        Sabotage::AckBeforeKept
        | Sabotage::OverwriteKept
        | Sabotage::LeaveKept
        | Sabotage::UnlinkBeforeDurable => Flush::Async,
        _ => flush,
    };
    let big = rng.percent(50);
    let even = rng.percent(40);
    let violent = rng.percent(15);
    let mut traffic = Traffic {
        body_bytes: if even {
            (700, 701)
        } else {
            (1, *rng.pick(&[200, 2_000, 6_000]))
        },
        big_percent: if big { *rng.pick(&[10, 40, 90]) } else { 0 },
        big_bytes: *rng.pick(&[20_000, 36_000, 40_000]),
        think_us: *rng.pick(&[2_000, 8_000, 30_000]),
        topics: rng.range(1, 4),
        delays: rng.percent(60),
        deletes: rng.percent(30),
        transactions: rng.percent(50),
        guards: rng.percent(40),
        poppers: if rng.percent(50) { rng.range(1, 3) } else { 0 },
        lights: rng.percent(40),
        lites: rng.percent(40),
        seeks: rng.percent(35),
        counts: rng.percent(35),
        sifters: if rng.percent(35) { rng.range(1, 3) } else { 0 },
        lockers: if rng.percent(40) { 2 } else { 0 },
        moves: rng.percent(25),
        questions: rng.percent(25),
        ranks: rng.percent(25),
        wishes: *rng.pick(&[0, 0, 0, 0, 1, 2, 2]),
        refuses: rng.percent(50),
    };
    if violent {
        traffic = rolling(traffic);
    }
    let store = store(rng, flush, violent, sabotage);
    if store.retention_ms < i64::MAX as u64 {
        traffic = forgetful(traffic);
    }
    let mut broker = broker(rng, store, shards, traffic.deletes);
    broker.control.reject_different_subscription = traffic.refuses;
    Plan {
        broker,
        traffic,
        shards,
        violent,
    }
}

/// Large messages and little else.
fn rolling(traffic: Traffic) -> Traffic {
    Traffic {
        big_percent: 100,
        big_bytes: 36_000,
        think_us: 2_000,
        topics: 1,
        delays: false,
        deletes: false,
        ..traffic
    }
}

/// Without those who expect that nothing goes.
fn forgetful(traffic: Traffic) -> Traffic {
    Traffic {
        seeks: false,
        counts: false,
        sifters: 0,
        moves: false,
        questions: false,
        ranks: false,
        ..traffic
    }
}

fn store(rng: &mut Rng, flush: Flush, violent: bool, sabotage: Sabotage) -> StoreOptions {
    let expires = rng.percent(25) || sabotage == Sabotage::UnlinkBeforeDurable;
    StoreOptions {
        shard: ShardId(0),
        store_id: 0x51D0,
        segment_bytes: (*rng.pick(&[128, 128, 256, 1024]) * KIB) as u64,
        flush,
        flush_interval_ms: *rng.pick(&[50, 200]),
        batch_bytes_max: *rng.pick(&[48, 64]) * KIB,
        writes_in_flight_max: if violent { 4 } else { *rng.pick(&[1, 2, 4]) },
        pending_bytes_max: *rng.pick(&[128, 512]) * KIB,
        ahead_bytes: *rng.pick(&[4, 16, 64]) * KIB,
        tail_bytes_max: *rng.pick(&[8, 64, 512]) * KIB,
        window_bytes_max: *rng.pick(&[4, 8]) * 1024 * KIB,
        record_bytes_max: 112 * KIB,
        index_bytes_max: *rng.pick(&[8, 32, 256]) * KIB,
        checkpoint_bytes: (*rng.pick(&[16, 64, 256]) * KIB) as u64,
        checkpoint_interval_ms: *rng.pick(&[300, 2_000]),
        retention_ms: if expires {
            *rng.pick(&[300, 700, 1_500])
        } else {
            i64::MAX as u64
        },
        disk_percent_max: 101,
        salvage: false,
        sabotage,
    }
}

fn broker(rng: &mut Rng, store: StoreOptions, shards: u16, deletes: bool) -> BrokerOptions {
    let (cluster, broker_name) = ("c".to_owned(), "broker-a".to_owned());
    let control = ControlOptions {
        cluster: cluster.clone(),
        broker_name: broker_name.clone(),
        shards,
        // A late send would make a deleted topic again.
        auto_create_topic: !deletes,
        ..ControlOptions::default()
    };
    let registry = RegistryOptions {
        name_servers: vec!["127.0.0.1:9876".to_owned()],
        cluster,
        broker_name,
        broker_id: 0,
        broker_addr: BROKER.to_owned(),
        ha_addr: "127.0.0.1:10912".to_owned(),
        period_ms: 1_000,
        permission: 6,
    };
    BrokerOptions {
        store,
        control,
        registry,
        store_host: BROKER.parse().expect("an address"),
        region: "DefaultRegion".to_owned(),
        trace_on: true,
        body_bytes_max: 96 * KIB,
        flush_timeout_ms: *rng.pick(&[100, 5_000]),
        delay_levels_ms: vec![100, 300],
        timer_max_ms: 0,
        light: true,
        light_queues_max: None,
        lite_subscriptions_max: 100_000,
        recall_enable: true,
        pop_retry_percent: 20,
        pop_retry_percent_priority: 0,
        pop_highest_first: true,
        reject_transactions: false,
        transaction_timeout_ms: 200,
        transaction_interval_ms: 300,
        transaction_checks_max: 3,
        permission: 6,
        property_filter: true,
        long_polling: true,
        short_polling_ms: 100,
        transfer_messages_max: 32,
        transfer_bytes_max: 256 * KIB,
        young_bytes: 1 << 30,
        properties: String::new(),
        instance: 7,
    }
}

/// The first frame in words, for the trace.
pub fn describe(bytes: &[u8]) -> String {
    let first = frame_len(bytes)
        .ok()
        .flatten()
        .and_then(|len| bytes.get(..len));
    let Some(Ok(command)) = first
        .and_then(|first| split(first).ok())
        .map(Command::decode)
    else {
        return format!("{} bytes", bytes.len());
    };
    let fields = command
        .ext
        .iter()
        .filter(|(_, value)| value.wire_len() < 80);
    let fields: Vec<String> = fields
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let remark = command
        .remark
        .map(|text| text.to_string())
        .unwrap_or_default();
    let kind = if command.is_response() {
        "answer"
    } else {
        "request"
    };
    format!(
        "{kind} {} code {} {} [{}] +{}",
        command.opaque,
        command.code,
        remark,
        fields.join(" "),
        command.body.len()
    )
}
