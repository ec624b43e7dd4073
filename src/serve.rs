//! Puts a process together: configuration in, machines on their cores, one line when they serve.
//!
//! What is decided here and nowhere else: how `memoryLimit` is divided, what `meta.toml` says, and
//! what a configured value means to the part that uses it.

use crate::base::disk::Dir;
use crate::base::id::SHARDS_MAX;
use crate::base::{Now, ShardId};
use crate::broker::control::options::ControlOptions;
use crate::broker::registry::RegistryOptions;
use crate::broker::{Broker, BrokerOptions};
use crate::config::value::{FlushDiskType, LogFormat};
use crate::config::{Config, Origin, Role};
use crate::namesrv::{LocalBroker, NameServer, NameServerOptions};
use crate::shard::{Cores, Fleet, Make, Options, Running, Stats};
use crate::store::recovery::{Report, StoreError};
use crate::store::{Flush, Sabotage, StoreOptions};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// For what small writes gather while the disk pauses: 8 ms at 200,000 messages of 1 KiB a second.
/// Small, because the processor's caches hold it.
const AHEAD_BYTES: usize = 2 * MIB;
/// Layout of the store directory, in `meta.toml`.
const FORMAT: u32 = 1;
const META: &str = "meta.toml";
/// Beside its body, a stored message has at most so much: header, names, 32 KiB of properties.
const RECORD_OVERHEAD_BYTES: usize = 64 * KIB;
/// Share of the memory in which a queue's first message counts as young: RocketMQ's
/// `accessMessageInMemoryMaxRatio`, percent.
const YOUNG_PERCENT: u64 = 40;

/// Written once, when a store is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    format: u32,
    pub store_id: u32,
    pub shards: u16,
    /// Segments are found by arithmetic, so their size is the store's for life.
    pub segment_bytes: u64,
}

/// Why a process ends badly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It never served: something about configuration, host or store has to be mended first.
    NotStarted(String),
    /// It served, and did not end well.
    Failed(String),
}

impl Failure {
    /// Says it and gives the exit code for it.
    pub fn report(&self) -> ExitCode {
        let (reason, code) = match self {
            Failure::NotStarted(reason) => (reason, crate::cli::EXIT_CONFIG),
            Failure::Failed(reason) => (reason, crate::cli::EXIT_FAILED),
        };
        eprintln!("orbitmq: {reason}");
        ExitCode::from(code)
    }
}

/// Runs what the configuration says until it is stopped. With `salvage` a damaged store is opened
/// behind the damage.
///
/// # Errors
/// See [`Failure`].
pub fn serve(config: &Config, salvage: bool) -> Result<(), Failure> {
    start_log(config);
    for notice in &config.notices {
        tracing::info!("{notice}");
    }
    let started = Cell::new(false);
    let stats = run(config, salvage, &started).map_err(|reason| match started.get() {
        false => Failure::NotStarted(reason),
        true => Failure::Failed(reason),
    })?;
    tracing::info!(?stats, "stopped");
    Ok(())
}

fn run(config: &Config, salvage: bool, started: &Cell<bool>) -> Result<Stats, String> {
    let data = &config.store_path_root_dir;
    let role = config.role;
    let found = match role {
        Role::Namesrv => None,
        Role::Standalone | Role::Broker => Some(find_meta(config, data)?),
    };
    let meta = found.as_ref().map(|found| &found.meta);
    let brokers = meta
        .map(|meta| broker_set(config, meta, salvage))
        .transpose()?;
    let namesrv = match role {
        Role::Broker => None,
        Role::Standalone | Role::Namesrv => Some(namesrv_set(config)?),
    };
    let shards = meta.map_or(0, |meta| meta.shards);
    let flush = config.flush_disk_type;
    let begin = || {
        found
            .as_ref()
            .map_or(Ok(()), |found| found.write_if_new(data))
    };
    let ready = |running: Running| {
        started.set(true);
        announce(&running, shards, flush);
    };
    crate::shard::run(
        options(config, shards),
        data,
        brokers,
        namesrv,
        begin,
        ready,
    )
}

/// The one line on standard output that says that clients can come.
fn announce(running: &Running, shards: u16, flush: FlushDiskType) {
    let list = |addrs: &[SocketAddr]| addrs.first().map_or("-".to_owned(), |a| a.to_string());
    let (broker, namesrv) = (list(&running.brokers), list(&running.namesrv));
    let flush = match flush {
        FlushDiskType::Async => "ASYNC_FLUSH",
        FlushDiskType::Sync => "SYNC_FLUSH",
    };
    let line =
        format!("orbitmq ready broker={broker} namesrv={namesrv} shards={shards} flush={flush}");
    // Whoever started us may have closed the pipe; serving goes on.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn start_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log_level);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second call in one process, as in tests, keeps the first log.
    let _ = match config.log_format {
        LogFormat::Human => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

fn options(config: &Config, shards: u16) -> Options {
    let cores = Cores::Pinned(config.cores.0.clone());
    Options {
        cores,
        spin: Duration::from_micros(config.spin_before_park),
        read_interval: Duration::from_micros(config.read_interval),
        writes_in_flight: config.writes_in_flight as usize + 1,
        connections_max: (config.connections_max as usize).div_ceil(usize::from(shards.max(1))),
        idle: Duration::from_secs(config.server_channel_max_idle_time_seconds),
        ..Options::default()
    }
}

/// What the store says about itself, or would say if it were made now.
struct Found {
    meta: Meta,
    is_new: bool,
}

/// Reads `meta.toml`; of a store that does not exist yet, what it will be. Creates nothing.
fn find_meta(config: &Config, data: &Path) -> Result<Found, String> {
    let Some(meta) = read_meta(data)? else {
        return new_meta(config, data);
    };
    let largest = config.max_message_size + RECORD_OVERHEAD_BYTES as u64;
    if largest > meta.segment_bytes {
        let (asked, has) = (config.max_message_size, meta.segment_bytes);
        return Err(format!(
            "maxMessageSize={asked} does not fit the store's segments of {has} bytes: take a \
             smaller size, or make a new store with a larger mappedFileSizeCommitLog"
        ));
    }
    let kept = [
        ("shards", config.shards, u64::from(meta.shards)),
        (
            "mappedFileSizeCommitLog",
            config.mapped_file_size_commit_log,
            meta.segment_bytes,
        ),
    ];
    for (key, asked, has) in kept {
        if config.origin(key) != Origin::Default && asked != has {
            tracing::warn!("{key}={asked} is not used: the store was made with {has} and keeps it");
        }
    }
    Ok(Found {
        meta,
        is_new: false,
    })
}

/// What `meta.toml` says; `None` if there is none.
pub fn read_meta(data: &Path) -> Result<Option<Meta>, String> {
    let path = data.join(META);
    let place = path.display();
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| format!("{place} cannot be read: {error}"))?,
    };
    let meta: Meta = toml::from_str(&text)
        .map_err(|error| format!("{place} is not readable as this version's: {error}"))?;
    if meta.format != FORMAT {
        let found = meta.format;
        return Err(format!(
            "{place}: store format {found}, this version knows {FORMAT}"
        ));
    }
    if meta.shards == 0 || meta.shards > SHARDS_MAX {
        let found = meta.shards;
        return Err(format!(
            "{place}: shards={found} is out of range 1 to {SHARDS_MAX}: restore the file"
        ));
    }
    let step = crate::base::disk::BLOCK_BYTES as u64;
    if meta.segment_bytes == 0 || !meta.segment_bytes.is_multiple_of(step) {
        let found = meta.segment_bytes;
        return Err(format!(
            "{place}: segment_bytes={found} is no number of blocks: restore the file"
        ));
    }
    Ok(Some(meta))
}

fn new_meta(config: &Config, data: &Path) -> Result<Found, String> {
    if data.join("shard-00").exists() {
        return Err(format!(
            "{} is missing beside a store: restore it, for it holds the store's id",
            data.join(META).display()
        ));
    }
    let now = crate::shard::clock::Clock::start().now();
    let store_id = crc32fast::hash(
        format!("{}-{}-{}", now.wall_ms, std::process::id(), data.display()).as_bytes(),
    );
    let meta = Meta {
        format: FORMAT,
        store_id,
        shards: config.shards as u16,
        segment_bytes: config.mapped_file_size_commit_log,
    };
    Ok(Found { meta, is_new: true })
}

impl Found {
    /// With the directory taken: makes the store's identity durable before anything else.
    fn write_if_new(&self, data: &Path) -> Result<(), String> {
        if !self.is_new {
            return Ok(());
        }
        if read_meta(data)?.is_some() {
            let place = data.display();
            return Err(format!(
                "another process just made a store in {place}: start again"
            ));
        }
        let text = toml::to_string(&self.meta).expect("plain numbers");
        let dir = crate::shard::dir::FsDir::open(data).map_err(|error| error.to_string())?;
        crate::base::disk::replace_file(&dir, META, &[text.as_bytes()])
            .map_err(|error| format!("{error}. Choose another directory with --data"))
    }
}

/// The broker listens on its port and on the VIP port two below.
fn broker_set(config: &Config, meta: &Meta, salvage: bool) -> Result<Fleet<Broker>, String> {
    let options = Arc::new(broker_options(config, meta, salvage)?);
    let data = config.store_path_root_dir.clone();
    let root = data.clone();
    let make: Make<Broker> = Arc::new(move |shard, dir, now| {
        open_shard(&options, shard, dir, now).map_err(|error| start_refused(&error, &root))
    });
    let mut listen = vec![config.listen];
    if let Some(vip) = config.listen.port().checked_sub(2).filter(|port| *port > 0) {
        listen.push(SocketAddr::new(config.listen.ip(), vip));
    }
    let dirs = (0..meta.shards)
        .map(|shard| data.join(format!("shard-{shard:02}")))
        .collect();
    Ok(Fleet {
        name: "broker",
        listen,
        dirs,
        make,
    })
}

/// Why a shard does not open, and what to do.
fn start_refused(error: &StoreError, data: &Path) -> String {
    match error {
        StoreError::Disk(disk) if disk.full => format!(
            "{}: {disk}. Each shard takes whole segments of mappedFileSizeCommitLog bytes ahead: \
             free some space, choose another directory with --data, or set smaller segments",
            data.display()
        ),
        StoreError::Disk(disk) => format!("{}: {disk}", data.display()),
        other => other.to_string(),
    }
}

fn open_shard(
    options: &Arc<BrokerOptions>,
    shard: ShardId,
    dir: &dyn Dir,
    now: Now,
) -> Result<Broker, StoreError> {
    let (broker, report) = Broker::open(dir, options.clone(), shard, now)?;
    let Report {
        from,
        end,
        batches,
        messages,
        put_back,
        notes,
    } = report;
    let shard = shard.0;
    tracing::info!(
        shard,
        from = from.0,
        end = end.0,
        batches,
        messages,
        put_back,
        "log recovered"
    );
    notes
        .iter()
        .for_each(|note| tracing::warn!(shard, "{note}"));
    Ok(broker)
}

fn namesrv_set(config: &Config) -> Result<Fleet<NameServer>, String> {
    let options = NameServerOptions {
        scan_interval_ms: config.scan_not_active_broker_interval,
        order_message: config.order_message_enable,
        return_order_topics: config.return_order_topic_config_to_broker,
        local_broker: (config.role == Role::Standalone).then(|| LocalBroker {
            registered: broker_addr(config).to_string(),
        }),
        ..NameServerOptions::default()
    };
    let kv = &config.kv_config_path;
    let dir: PathBuf = kv.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    if kv.file_name().is_none_or(|name| name != "kvConfig.json") {
        let place = kv.display();
        return Err(format!(
            "kvConfigPath={place}: the file's name must be kvConfig.json"
        ));
    }
    let make: Make<NameServer> =
        Arc::new(move |_, dir, now| NameServer::new(options.clone(), dir, now));
    Ok(Fleet {
        name: "name server",
        listen: vec![config.namesrv_listen],
        dirs: vec![dir],
        make,
    })
}

fn broker_addr(config: &Config) -> SocketAddr {
    SocketAddr::new(config.broker_ip1, config.listen.port())
}

fn broker_options(config: &Config, meta: &Meta, salvage: bool) -> Result<BrokerOptions, String> {
    let registry = RegistryOptions {
        name_servers: config.namesrv_addr.0.clone(),
        cluster: config.broker_cluster_name.clone(),
        broker_name: config.broker_name.clone(),
        broker_id: config.broker_id as i64,
        broker_addr: broker_addr(config).to_string(),
        ha_addr: SocketAddr::new(config.broker_ip1, config.listen.port().wrapping_add(1))
            .to_string(),
        period_ms: config.register_name_server_period,
        permission: config.broker_permission as i32,
    };
    let control = ControlOptions {
        cluster: config.broker_cluster_name.clone(),
        broker_name: config.broker_name.clone(),
        shards: meta.shards,
        auto_create_topic: config.auto_create_topic_enable,
        auto_create_group: config.auto_create_subscription_group,
        default_topic_queues: config.default_topic_queue_nums as u32,
        trace_topic: config
            .trace_topic_enable
            .then(|| "RMQ_SYS_TRACE_TOPIC".to_owned()),
        reject_different_subscription: config.reject_different_subscription,
        notify_consumer_ids_changed: config.notify_consumer_ids_changed_enable,
        channel_expired_ms: config.channel_expired_timeout,
        ..ControlOptions::default()
    };
    let instance = meta.store_id ^ std::process::id();
    Ok(BrokerOptions {
        store: store_options(config, meta, salvage),
        control,
        registry,
        store_host: broker_addr(config),
        region: config.region_id.clone(),
        trace_on: config.trace_on,
        body_bytes_max: config.max_message_size as usize,
        flush_timeout_ms: config.sync_flush_timeout,
        delay_levels_ms: delay_levels(&config.message_delay_level)?,
        timer_max_ms: config.timer_max_delay_sec as i64 * 1000,
        recall_enable: config.recall_message_enable,
        pop_retry_percent: config.pop_from_retry_probability as u32,
        pop_retry_percent_priority: config.pop_from_retry_probability_for_priority as u32,
        pop_highest_first: config.priority_order_asc,
        reject_transactions: config.reject_transaction_message,
        transaction_timeout_ms: config.transaction_time_out as i64,
        transaction_interval_ms: config.transaction_check_interval as i64,
        transaction_checks_max: config.transaction_check_max as u32,
        light: config.enable_lmq && config.enable_multi_dispatch,
        light_queues_max: config.enable_lmq_quota.then(|| {
            let share = config
                .max_lmq_consume_queue_num
                .div_ceil(u64::from(meta.shards));
            share as usize
        }),
        lite_subscriptions_max: config.max_lite_subscription_count as usize,
        permission: config.broker_permission as i32,
        long_polling: config.long_polling_enable,
        property_filter: config.enable_property_filter,
        short_polling_ms: config.short_polling_time_mills,
        transfer_messages_max: config.max_transfer_count_on_message_in_memory as usize,
        transfer_bytes_max: config.max_transfer_bytes_on_message_in_memory as usize,
        young_bytes: crate::shard::checks::memory_bytes() / 100 * YOUNG_PERCENT,
        properties: config.to_properties(),
        instance,
    })
}

/// One shard's part of `memoryLimit`, divided: an eighth waits for the disk, a quarter is the tail,
/// a quarter windows, a quarter indexes; the rest is for connections and tables.
fn store_options(config: &Config, meta: &Meta, salvage: bool) -> StoreOptions {
    let memory = config.memory_limit as usize / usize::from(meta.shards);
    let body = config.max_message_size as usize;
    StoreOptions {
        shard: ShardId(0),
        store_id: meta.store_id,
        segment_bytes: meta.segment_bytes,
        flush: match config.flush_disk_type {
            FlushDiskType::Async => Flush::Async,
            FlushDiskType::Sync => Flush::Sync,
        },
        flush_interval_ms: config.flush_interval_commit_log,
        batch_bytes_max: config.flush_batch_bytes as usize,
        writes_in_flight_max: config.writes_in_flight as usize,
        pending_bytes_max: (memory / 8).max(MIB),
        ahead_bytes: AHEAD_BYTES,
        tail_bytes_max: memory / 4,
        window_bytes_max: memory / 4,
        record_bytes_max: body + RECORD_OVERHEAD_BYTES,
        index_bytes_max: memory / 4,
        checkpoint_bytes: config.checkpoint_bytes,
        checkpoint_interval_ms: config.checkpoint_interval,
        retention_ms: config.file_reserved_time * 3_600_000,
        disk_percent_max: config.disk_space_clean_forcibly_ratio,
        salvage,
        sabotage: Sabotage::None,
    }
}

/// `1s 5s 10s …` in milliseconds.
fn delay_levels(text: &str) -> Result<Vec<i64>, String> {
    let level = |word: &str| -> Option<i64> {
        let unit = word.chars().last()?;
        let count: i64 = word.strip_suffix(unit)?.parse().ok()?;
        let ms = match unit {
            's' => 1000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            _ => return None,
        };
        count.checked_mul(ms)
    };
    let levels: Option<Vec<i64>> = text.split_whitespace().map(level).collect();
    levels.ok_or_else(|| format!("messageDelayLevel={text} is not a list such as `1s 5s 1m`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_levels_are_read() {
        assert_eq!(delay_levels("1s 2m 1h"), Ok(vec![1000, 120_000, 3_600_000]));
        assert!(delay_levels("1x").is_err());
    }
}
