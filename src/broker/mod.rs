//! One shard of a broker: the machine that answers clients.
//!
//! A [`Broker`] owns the log of its shard and what belongs to the queues in it: consumer offsets,
//! parked pulls, delayed messages. Shard 0 owns control state besides (topics, groups, members,
//! locks; [`control`]) and gives every shard an immutable [`Snapshot`](snapshot::Snapshot) of it.
//!
//! A request is answered by the shard that owns what it names. It arrives at the shard that holds
//! its connection, which forwards it if need be ([`forward`]); the answer goes to the
//! connection directly. Nothing is answered before what it says is confirmed by the log: answers to
//! changes wait in [`Broker::acks`], in log order.

pub mod acks;
pub mod assignment;
pub mod calls;
pub mod carry;
pub mod control;
pub mod delay;
mod forward;
pub mod groups;
pub mod guard;
pub mod handle;
pub mod held;
pub mod holds;
pub mod leases;
pub mod light;
pub mod lite;
pub mod locks;
pub mod members;
pub mod offsets;
pub mod pending;
pub mod pops;
pub mod publish;
pub mod puts;
pub mod record;
pub mod registry;
mod routes;
pub mod snapshot;
pub mod splits;
pub mod stats;
pub mod survey;
pub mod tallies;
pub mod timers;
pub mod topics;
pub mod transactions;

use crate::base::disk::{Dir, Order};
use crate::base::{ConnId, LogOffset, Map, Mono, Now, OrderId, QueueOffset, ShardId};
use crate::broker::acks::{Ack, SendAnswers};
use crate::broker::calls::{Calls, Silence};
use crate::broker::control::Control;
use crate::broker::control::effects::Reject;
use crate::broker::control::options::ControlOptions;
use crate::broker::delay::Delays;
use crate::broker::forward::Forwarded;
use crate::broker::guard::Guard;
use crate::broker::handle::pull::Pull;
use crate::broker::handle::{Parked, Raw};
use crate::broker::holds::Holds;
use crate::broker::leases::Leases;
use crate::broker::light::Lights;
use crate::broker::lite::Lites;
use crate::broker::lite::expiry::Expiries;
use crate::broker::offsets::Offsets;
use crate::broker::pops::{Line, Pops, Visit};
use crate::broker::publish::Publication;
use crate::broker::puts::{Put, Puts, Stored};
use crate::broker::registry::{Registry, RegistryOptions};
use crate::broker::routes::Routes;
use crate::broker::snapshot::Snapshot;
use crate::broker::stats::Stats;
use crate::broker::survey::{Question, Row, Surveys};
use crate::broker::tallies::Tallies;
use crate::broker::timers::Timers;
use crate::broker::topics::Topic;
use crate::broker::transactions::Transactions;
use crate::machine::{Event, Link, Machine, Outbox};
use crate::message::id::UniqueKeys;
use crate::remoting::code::response;
use crate::remoting::layout::Layouts;
use crate::remoting::shape::Shapes;
use crate::store::durability::Waiting;
use crate::store::record::Kind;
use crate::store::recovery::{Replayed, Report, StoreError};
use crate::store::{Refused, Sabotage, Store, StoreOptions};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// What shards of a broker say to each other.
pub enum Peer {
    /// Clients' requests for what the receiver owns.
    Requests(Forwarded),
    /// A large one.
    Request {
        link: Link,
        frame: Bytes,
    },
    /// From shard 0: control state from now on, and what is no more.
    Snapshot {
        snapshot: Arc<Snapshot>,
        gone: Arc<Gone>,
    },
    /// To shard 0: the snapshot of this version is in use.
    SnapshotSeen {
        version: u64,
    },
    /// To shard 0: this whole one-way request goes to one producer of the group.
    AskProducer {
        group: Arc<str>,
        frame: Vec<u8>,
    },
    /// To shard 0: a client's answer to what it was asked.
    Response {
        conn: ConnId,
        frame: Bytes,
    },
    /// To shard 0, and where lite topics are popped: a client's connection ended.
    Closed {
        conn: ConnId,
    },
    /// Store a message that the broker itself makes.
    Put(Box<Put>),
    /// It is stored, or was refused.
    PutDone {
        ticket: u64,
        result: Result<Stored, Reject>,
    },
    /// Store a message for light queues of the receiver.
    LightCopy(Box<light::Copy>),
    LightCopied {
        ticket: u64,
        result: light::Copied,
    },
    /// A pop comes to look at the receiver's queues.
    PopVisit(Box<Visit>),
    /// It found nothing anywhere, and is home.
    PopEmpty {
        ticket: u64,
    },
    /// It was answered.
    PopDone {
        ticket: u64,
    },
    /// The sender may have something for pops that wait at the receiver.
    PopWake {
        line: Line,
        queue_id: i32,
    },
    /// No such pop waits there.
    PopForget {
        line: Line,
    },
    /// Shard 0 asks every shard about its queues.
    Question {
        ticket: u64,
        question: Arc<Question>,
    },
    Answer {
        ticket: u64,
        rows: Vec<Row>,
    },
}

/// Topics and groups whose queues and offsets are to be dropped.
#[derive(Default, Debug)]
pub struct Gone {
    pub topics: Vec<Arc<Topic>>,
    pub groups: Vec<Arc<str>>,
}

/// What a broker is told at its start; the same for all shards but for the store's shard.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    pub store: StoreOptions,
    pub control: ControlOptions,
    pub registry: RegistryOptions,
    /// `brokerIP1:listenPort`: stored in every message, and part of its offset id.
    pub store_host: SocketAddr,
    /// `regionId`, `traceOn`: told to every producer.
    pub region: String,
    pub trace_on: bool,
    /// `maxMessageSize`: bytes of a body.
    pub body_bytes_max: usize,
    /// `syncFlushTimeout`: a send that waits longer answers `FLUSH_DISK_TIMEOUT`.
    pub flush_timeout_ms: u64,
    /// `messageDelayLevel`, in milliseconds; level 1 first.
    pub delay_levels_ms: Vec<i64>,
    /// `timerMaxDelaySec`, in milliseconds; 0 for any time.
    pub timer_max_ms: i64,
    /// `recallMessageEnable`.
    pub recall_enable: bool,
    /// `rejectTransactionMessage`.
    pub reject_transactions: bool,
    /// `transactionTimeOut`: a half is asked about when it is older.
    pub transaction_timeout_ms: i64,
    /// `transactionCheckInterval`: and then again after this, `transactionCheckMax` times.
    pub transaction_interval_ms: i64,
    pub transaction_checks_max: u32,
    /// `enableLmq` and `enableMultiDispatch`: whether there are light queues; and how many of them
    /// in one shard, if that is limited (`maxLmqConsumeQueueNum`).
    pub light: bool,
    pub light_queues_max: Option<usize>,
    /// `popFromRetryProbability`, `popFromRetryProbabilityForPriority`: so many of a hundred pops
    /// look at the retry topic first.
    pub pop_retry_percent: u32,
    pub pop_retry_percent_priority: u32,
    /// `priorityOrderAsc`: a pop begins with the queue of the highest number.
    pub pop_highest_first: bool,
    /// `maxLiteSubscriptionCount`, in one shard.
    pub lite_subscriptions_max: usize,
    /// `brokerPermission`.
    pub permission: i32,
    pub long_polling: bool,
    /// Whether consumers may filter by SQL92 expressions.
    pub property_filter: bool,
    /// `shortPollingTimeMills`: how long a pull is held without long polling.
    pub short_polling_ms: u64,
    /// `maxTransferCountOnMessageInMemory`, `maxTransferBytesOnMessageInMemory`.
    pub transfer_messages_max: usize,
    pub transfer_bytes_max: usize,
    /// A group without an offset starts at 0 while message 0 of a queue is at most this far behind
    /// the log's end (`accessMessageInMemoryMaxRatio` of the memory).
    pub young_bytes: u64,
    /// What `GET_BROKER_CONFIG` answers.
    pub properties: String,
    /// Seeds for the unique keys this broker makes: process number and start time.
    pub instance: u32,
}

/// One shard.
pub struct Broker {
    options: Arc<BrokerOptions>,
    me: ShardId,
    store: Store,
    snapshot: Arc<Snapshot>,
    acks: Waiting<Ack>,
    /// Those that wait until the log is durable.
    firm_acks: Waiting<Ack>,
    offsets: Offsets,
    holds: Holds,
    pops: Pops,
    leases: Leases,
    delays: Delays,
    puts: Puts,
    transactions: Transactions,
    timers: Timers,
    guard: Guard,
    lights: Lights,
    lites: Lites,
    expiries: Expiries,
    surveys: Surveys,
    /// Requests that wait for bytes from the disk.
    parked: Map<u64, Parked>,
    parked_count: u64,
    stats: Stats,
    tallies: Tallies,
    unique_keys: UniqueKeys,
    keys_made: u16,
    /// Turns queues over for sends that name none.
    turn: u32,
    /// Shard 0 only.
    lead: Option<Box<Lead>>,
    stopping: bool,
    scratch: handle::send::Scratch,
    layouts: Layouts,
    shapes: Shapes,
    routes: Routes,
    /// Properties that every message gets.
    stamp: Box<[u8]>,
    send_answers: SendAnswers,
}

/// What only shard 0 has.
struct Lead {
    control: Control,
    publication: Publication,
    registry: Registry,
    calls: Calls,
}

/// What a replay of the log builds besides the store.
struct Tables {
    control: Control,
    offsets: Offsets,
    delays: Delays,
    transactions: Transactions,
    timers: Timers,
    leases: Leases,
}

impl Tables {
    fn new(options: &BrokerOptions) -> Self {
        Tables {
            control: Control::new(options.control.clone()),
            offsets: Offsets::default(),
            delays: Delays::new(options.delay_levels_ms.clone()),
            transactions: Transactions::default(),
            timers: Timers::default(),
            leases: Leases::default(),
        }
    }

    fn apply(&mut self, replayed: Replayed<'_>) -> Result<(), String> {
        let (kind, version, payload) = match replayed {
            Replayed::System {
                kind,
                version,
                payload,
            } => (kind, version, payload),
            Replayed::Timed {
                store_ms,
                properties,
            } => {
                self.timers.found(store_ms, properties);
                return Ok(());
            }
        };
        match kind {
            Kind::Control => self
                .control
                .apply(payload)
                .map_err(|error| error.to_string()),
            Kind::ConsumerOffsets => self.offsets.apply(version, payload),
            Kind::DelayProgress => self.delays.apply(version, payload),
            Kind::Transaction => self.transactions.apply(version, payload),
            Kind::Timer => self.timers.apply(version, payload),
            Kind::Lease => self.leases.apply(version, payload),
            Kind::QueueDropped => self
                .offsets
                .apply_drop(payload)
                .and_then(|()| self.leases.apply_drop(payload)),
            Kind::QueueOpened
            | Kind::QueuePosition
            | Kind::Light
            | Kind::LightCopy
            | Kind::Retained
            | Kind::Carried => Ok(()),
        }
    }
}

/// What makes the keys of messages that came without one.
fn unique_keys(options: &BrokerOptions, shard: ShardId) -> UniqueKeys {
    let instance = options.instance;
    let maker = instance ^ u32::from(shard.0);
    UniqueKeys::new(options.store_host.ip(), instance as u16, maker)
}

impl Broker {
    /// Recovers the shard in `dir`.
    pub fn open(
        dir: &dyn Dir,
        options: Arc<BrokerOptions>,
        shard: ShardId,
        now: Now,
    ) -> Result<(Broker, Report), StoreError> {
        let mut tables = Tables::new(&options);
        let mut store_options = options.store.clone();
        store_options.shard = shard;
        let (store, report) =
            Store::open(dir, store_options, &mut |replayed| tables.apply(replayed))?;
        let Tables {
            control,
            offsets,
            delays,
            mut transactions,
            timers,
            mut leases,
        } = tables;
        transactions.start(now);
        leases.start(now);
        let lead = (shard == ShardId(0)).then(|| {
            Box::new(Lead {
                control,
                publication: Publication::new(options.control.shards),
                registry: Registry::new(options.registry.clone(), now),
                calls: Calls::default(),
            })
        });
        let keys = unique_keys(&options, shard);
        let broker = Broker {
            me: shard,
            store,
            snapshot: Arc::new(Snapshot::empty()),
            acks: Waiting::default(),
            firm_acks: Waiting::default(),
            offsets,
            holds: Holds::default(),
            pops: Pops::default(),
            leases,
            delays,
            puts: Puts::default(),
            transactions,
            timers,
            guard: Guard::new(now.wall_ms),
            lights: Lights::default(),
            lites: Lites::default(),
            expiries: Expiries::default(),
            surveys: Surveys::default(),
            parked: Map::default(),
            parked_count: 0,
            stats: Stats::new(now),
            tallies: Tallies::new(now.mono),
            unique_keys: keys,
            keys_made: 0,
            turn: 0,
            lead,
            stopping: false,
            scratch: handle::send::Scratch::default(),
            layouts: Layouts::default(),
            shapes: Shapes::default(),
            routes: Routes::default(),
            stamp: handle::send::stamp(&options),
            send_answers: SendAnswers::new(&options),
            options,
        };
        Ok((broker, report))
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The owner of a queue that a request names.
    fn owner(&self, topic: &Topic, queue_id: i32) -> Option<ShardId> {
        topic.owner(u32::try_from(queue_id).ok()?)
    }

    /// Makes room for the answer to something that cannot be done now.
    fn refuse(&self, refused: Refused) -> Reject {
        match refused {
            Refused::Failed(error) => Reject::new(
                response::SERVICE_NOT_AVAILABLE,
                format!(
                    "shard {} is read-only since a disk error: {error}. Mend the disk and restart \
                     the broker",
                    self.me.0
                ),
            ),
            Refused::Busy { limit_bytes } => Reject::new(
                response::SYSTEM_BUSY,
                format!(
                    "[REJECTREQUEST]system busy, start flow control for a while: more than \
                     {limit_bytes} bytes wait to be written in shard {}",
                    self.me.0
                ),
            ),
            Refused::NoRoom { segment_bytes } => Reject::new(
                response::SERVICE_NOT_AVAILABLE,
                format!(
                    "the disk of shard {} is full: there is no room for the next {segment_bytes} \
                     bytes of its log. Free some space: sends are taken again by themselves, and \
                     messages can be read meanwhile",
                    self.me.0
                ),
            ),
            Refused::TooManyQueues => Reject::new(
                response::SYSTEM_ERROR,
                format!("shard {} holds as many queues as it can", self.me.0),
            ),
        }
    }

    /// Parks a request until the bytes it needs have come.
    fn next_waiter(&mut self) -> u64 {
        self.parked_count += 1;
        self.parked_count
    }

    fn visible_end(&self, slot: crate::store::consumequeue::QueueSlot) -> QueueOffset {
        self.store.visible_range(slot).1
    }

    /// Takes a new snapshot into use and drops what it says is gone.
    fn adopt(&mut self, now: Now, snapshot: Arc<Snapshot>, gone: &Gone, out: &mut Outbox<Peer>) {
        assert!(
            snapshot.version >= self.snapshot.version,
            "snapshots come in order"
        );
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        if !before.topics.is_same(&self.snapshot.topics) {
            self.routes.forget();
        }
        self.notice_topics(now, &before, out);
        if !gone.topics.is_empty() {
            // Else the total would lack what came into their queues last.
            self.count(now);
        }
        for topic in &gone.topics {
            self.tallies.drop_topic(topic.id);
            self.lites.drop_topic(now, &topic.name);
            let slots: Vec<_> = (0..topic.owners.len() as i32)
                .filter_map(|queue| self.store.queues().find(&topic.name, queue))
                .filter(|slot| {
                    self.store
                        .queues()
                        .queue(*slot)
                        .is_some_and(|q| q.topic_id == topic.id)
                })
                .collect();
            slots
                .into_iter()
                .for_each(|slot| self.drop_queue(now, slot));
        }
        if !gone.topics.is_empty() && self.light_count() > 0 {
            self.drop_light_strangers(now);
        }
        for group in &gone.groups {
            self.tallies.drop_group(group);
            self.offsets.drop_group(now, group, &mut self.store);
            self.leases.drop_group(group);
            self.lites.drop_group(now, group);
            self.log_leases(now);
        }
    }

    /// With the first snapshot it is known which queues there are.
    fn begin(&mut self, now: Now) {
        self.drop_strangers(now);
        self.start_lites(now);
        self.start_delays();
        self.start_timers(now);
    }

    /// After a start: queues whose topic went while this shard was away.
    fn drop_strangers(&mut self, now: Now) {
        let snapshot = &self.snapshot;
        let strangers: Vec<_> = self
            .store
            .queues()
            .iter()
            .filter(|(_, queue)| !light::is_light_id(queue.topic_id))
            .filter(|(_, queue)| {
                snapshot
                    .topics
                    .get(&queue.topic)
                    .is_none_or(|topic| topic.id != queue.topic_id)
            })
            .map(|(slot, _)| slot)
            .collect();
        strangers
            .into_iter()
            .for_each(|slot| self.drop_queue(now, slot));
        self.drop_light_strangers(now);
    }

    fn drop_queue(&mut self, now: Now, slot: crate::store::consumequeue::QueueSlot) {
        if self.store.drop_queue(now, slot).is_ok() {
            self.offsets.drop_queue(slot);
            self.leases.drop_queue(slot);
            self.lites.drop_queue(now, slot);
            self.expiries.drop_queue(slot);
        }
    }

    /// Wakes pulls that wait on queues with new visible messages.
    fn resume_readers(&mut self, now: Now, out: &mut Outbox<Peer>) {
        while let Some(slot) = self.store.poll_visible() {
            self.delays.notice(slot);
            self.notice_pops(slot, out);
            self.notice_lites(now, slot);
            if self.holds.is_empty() {
                continue;
            }
            let newest = QueueOffset(self.visible_end(slot).0 - 1);
            let store = &self.store;
            let wants = |pull: &Pull| pull.wants(newest, store);
            let woken = self.holds.resume(slot, wants);
            for pull in woken {
                handle::pull::run(self, now, pull, out);
            }
        }
    }

    /// What the broker does by itself when its time has come, each a write to the log: nothing is
    /// due any more once that has failed.
    fn work_off(&mut self, now: Now, out: &mut Outbox<Peer>) {
        if self.store.log().failed().is_some() {
            return;
        }
        let is_due = |deadline: Option<Mono>| deadline.is_some_and(|due| due <= now.mono);
        self.deliver_delayed(now, out);
        if is_due(self.leases.deadline()) {
            self.revive(now, out);
        }
        if is_due(self.transactions.deadline()) {
            self.check_transactions(now, out);
        }
        if is_due(self.timers.deadline()) {
            self.deliver_timers(now, out);
        }
        if is_due(self.expiries.deadline()) {
            self.expire_lite_topics(now);
        }
        if is_due(self.offsets.deadline()) {
            self.flush_offsets(now);
        }
        if is_due(self.store.retention().deadline()) {
            self.retain(now);
        }
    }

    /// Gathers what was counted.
    fn count(&mut self, now: Now) {
        for (topic, growth) in self.store.queues_mut().take_growth() {
            if self.options.store.sabotage != Sabotage::LoseCounts {
                self.tallies.put(topic, growth);
            }
        }
        self.tallies.sample(now.mono);
    }

    /// When there is something to do for that.
    fn due(&self) -> Option<Mono> {
        let deadlines = [
            self.leases.deadline(),
            self.offsets.deadline(),
            self.delays.deadline(),
            self.transactions.deadline(),
            self.timers.deadline(),
            self.expiries.deadline(),
            self.store.retention().deadline(),
        ];
        let works = self.store.log().failed().is_none();
        deadlines.into_iter().flatten().min().filter(|_| works)
    }

    fn flush_offsets(&mut self, now: Now) {
        // A failed log keeps offsets in memory: readers go on, nothing is promised.
        let _ = self.offsets.flush(now, &mut self.store);
    }

    fn checkpoint(&mut self, now: Now) {
        if self.stopping {
            // Even if nothing else has changed since the last checkpoint.
            self.flush_offsets(now);
        }
        if self.store.is_checkpointed() || !self.store.can_checkpoint() {
            return;
        }
        self.flush_offsets(now);
        let mut tables = Vec::new();
        if let Some(lead) = &self.lead {
            let version = u16::from(record::VERSION);
            lead.control.dump(&mut |payload| {
                crate::store::record::put_system(
                    &mut tables,
                    Kind::Control,
                    version,
                    now.wall_ms,
                    payload,
                );
            });
        }
        self.offsets.dump(now, &mut tables);
        self.delays.dump(now, &mut tables);
        self.transactions.dump(now, &mut tables);
        self.timers.dump(now, &mut tables);
        self.leases.dump(now, &mut tables);
        self.store.begin_checkpoint(now, tables);
    }

    fn tick(&mut self, now: Now, out: &mut Outbox<Peer>) {
        while let Some(pull) = self.holds.expire(now.mono) {
            handle::pull::run(self, now, pull.without_hold(), out);
        }
        while let Some(ask) = self.pops.expire(now.mono) {
            handle::pop::answer_nothing(now, &ask, false, out);
        }
        self.expire_lites(now, out);
        self.expire_acks(now, out);
        if let Some(lead) = &mut self.lead {
            if lead.control.deadline().is_some_and(|due| due <= now.mono) {
                lead.control.expire(now, lead.publication.effects());
            }
            lead.registry.tick(now, out);
            lead.registry.register_due(now, &lead.control, out);
        }
        while let Some(lead) = &mut self.lead
            && let Some(wish) = lead.calls.expire(now.mono)
        {
            handle::relay::ended(self, now, wish, Err(Silence::TimeIsUp), out);
        }
    }
}

impl Machine for Broker {
    type Peer = Peer;

    fn handle(&mut self, now: Now, event: Event<'_, Peer>, out: &mut Outbox<Peer>) {
        match event {
            Event::Frame { link, frame } => {
                handle::frame(self, now, link, Raw::In(frame), out);
            }
            Event::Peer { from, message } => self.peer(now, from, message, out),
            Event::Disk { id, result } => {
                let woken = self.store.handle_done(now, id, result);
                for woken in woken {
                    handle::resume(self, now, woken, out);
                }
            }
            Event::Opened { link, dialed } => self.opened(now, link, dialed, out),
            Event::Closed { conn } => self.closed(now, conn, out),
            Event::DialFailed { token, reason } => {
                if let Some(lead) = &mut self.lead {
                    lead.registry.dial_failed(now, token, &reason);
                }
            }
            Event::Tick => self.tick(now, out),
            Event::Start => self.start(now, out),
            Event::Stop => self.stop(out),
        }
    }

    /// Tells readers and senders what is confirmed now, and gathers orders.
    fn settle(&mut self, now: Now, out: &mut Outbox<Peer>) {
        loop {
            self.store.keep();
            self.publish_changes(now, out);
            self.resume_readers(now, out);
            self.resume_pops(now, out);
            self.resume_lites(now, out);
            self.answer_confirmed(now, out);
            self.work_off(now, out);
            if !self.store.has_to_keep() {
                break;
            }
        }
        if self.tallies.is_due(now.mono) {
            self.count(now);
        }
        if self.stopping || self.store.checkpoint_due(now) {
            self.checkpoint(now);
        }
        if let Some(until) = self.firm_acks.last() {
            self.store.want_durable(until);
        }
        while let Some(order) = self.store.poll_order(now) {
            out.orders.push(order);
        }
        self.tell_removed(out);
    }

    fn poll_write(&mut self, now: Now) -> Option<(OrderId, Order)> {
        self.stats.sample(now);
        self.store.poll_write(now)
    }

    fn deadline(&self) -> Option<Mono> {
        let lead = self.lead.as_ref();
        [
            self.store.deadline(),
            self.holds.deadline(),
            self.pops.deadline(),
            self.lites.deadline(),
            self.tallies.deadline(self.store.queues().has_grown()),
            self.due(),
            self.acks.front().and_then(Ack::deadline),
            lead.and_then(|lead| lead.control.deadline()),
            lead.and_then(|lead| lead.registry.deadline()),
            lead.and_then(|lead| lead.calls.deadline()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// A broker that stops takes nothing new: under load it would never come to rest.
    fn admits(&self) -> bool {
        self.store.admits() && !self.stopping
    }

    /// Every shard has control state, and every name server was told or has been found wanting.
    fn ready(&self) -> bool {
        match &self.lead {
            Some(lead) => lead.publication.published() > 0 && lead.registry.has_tried(),
            None => self.snapshot.version > 0,
        }
    }

    fn drained(&self) -> bool {
        let at_rest = self.store.is_checkpointed() || self.store.log().failed().is_some();
        self.stopping && self.acks.is_empty() && self.firm_acks.is_empty() && at_rest
    }
}

impl Broker {
    fn peer(&mut self, now: Now, from: ShardId, message: Peer, out: &mut Outbox<Peer>) {
        match message {
            Peer::Request { link, frame } => {
                handle::frame(self, now, &link, Raw::Shared(&frame), out);
            }
            Peer::Requests(batch) => self.take_forwarded(now, batch, out),
            Peer::Snapshot { snapshot, gone } => {
                let first = self.snapshot.version == 0;
                let version = snapshot.version;
                self.adopt(now, snapshot, &gone, out);
                if first {
                    self.begin(now);
                }
                out.peers.push((ShardId(0), Peer::SnapshotSeen { version }));
            }
            Peer::SnapshotSeen { version } => self.snapshot_seen(now, from, version, out),
            Peer::AskProducer { group, frame } => {
                handle::transaction::ask(self, &group, &frame, out);
            }
            Peer::Response { conn, frame } => {
                handle::answer_from_peer(self, now, conn, &frame, out);
            }
            Peer::Closed { conn } => {
                self.lites.closed(conn);
                self.member_gone(now, conn, out);
            }
            Peer::Put(put) => self.put(now, *put, out),
            Peer::PutDone { ticket, result } => self.put_done(now, ticket, result, out),
            Peer::LightCopy(copy) => self.light_copy(now, *copy, out),
            Peer::LightCopied { ticket, result } => self.light_copied(now, ticket, result, out),
            Peer::PopVisit(visit) => handle::pop::run(self, now, *visit, out),
            Peer::PopEmpty { ticket } => handle::pop::found_nothing(self, now, ticket, out),
            Peer::PopDone { ticket } => drop(self.pops.leave(ticket)),
            Peer::PopWake { line, queue_id } => {
                handle::pop::wake(self, now, from, line, queue_id, out);
            }
            Peer::PopForget { line } => self.pops.forget_interest(&line, from),
            Peer::Question { ticket, question } => {
                survey::answer(self, now, from, ticket, question, out);
            }
            Peer::Answer { ticket, rows } => survey::gather(self, ticket, rows, out),
        }
    }

    fn opened(&mut self, now: Now, link: Link, dialed: Option<u64>, out: &mut Outbox<Peer>) {
        if let (Some(token), Some(lead)) = (dialed, &mut self.lead) {
            lead.registry
                .opened(now, token, link.conn, &lead.control, out);
        }
    }

    fn closed(&mut self, now: Now, conn: ConnId, out: &mut Outbox<Peer>) {
        self.pops.closed(conn);
        self.lites.closed(conn);
        for shard in self.lites.came_by(conn) {
            if shard != ShardId(0) {
                out.peers.push((shard, Peer::Closed { conn }));
            }
        }
        if self.lead.is_none() {
            out.peers.push((ShardId(0), Peer::Closed { conn }));
            return;
        }
        if let Some(lead) = &mut self.lead {
            lead.registry.closed(now, conn);
        }
        self.member_gone(now, conn, out);
    }

    fn member_gone(&mut self, now: Now, conn: ConnId, out: &mut Outbox<Peer>) {
        let Some(lead) = &mut self.lead else {
            return;
        };
        lead.control.closed(conn, lead.publication.effects());
        for wish in lead.calls.closed(conn) {
            handle::relay::ended(self, now, wish, Err(Silence::Closed), out);
        }
    }

    /// Starts shard 0's part of the broker.
    fn start(&mut self, now: Now, out: &mut Outbox<Peer>) {
        if let Some(lead) = &mut self.lead {
            lead.control.start(now, lead.publication.effects());
            lead.publication.begin();
            lead.registry.start(now, out);
        }
    }

    fn stop(&mut self, out: &mut Outbox<Peer>) {
        self.stopping = true;
        self.store.close();
        if let Some(lead) = &mut self.lead {
            lead.registry.stop(out);
        }
    }

    /// For requests that only shard 0 answers.
    fn lead(&mut self) -> &mut Lead {
        self.lead.as_mut().expect("control requests are shard 0's")
    }

    /// The log offset that everything appended so far is confirmed by.
    fn log_end(&self) -> LogOffset {
        self.store.log().end()
    }
}
