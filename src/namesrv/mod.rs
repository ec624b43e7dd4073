//! The name server: a [`Machine`] that tells clients which brokers serve a topic.
//!
//! Brokers register with every name server and keep their connection; clients ask one of them.
//! Routes live in memory only (`routes`); the one file is the key-value configuration (`kv`).
//! What always holds: a request is answered once, in its own codec, and a one-way request never; a
//! change of the key-value table is answered after it is durable.
//!
//! Not here: sockets and closing idle connections (the driver's), the controller, telling brokers
//! of a changed smallest id (905), changing options at run time (318).

mod answer;
mod cache;
mod handle;
mod kv;
pub mod limits;
mod reply;
mod routes;
mod share;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

use std::convert::Infallible;

use crate::base::disk::{Dir, Done, Order, OrderId};
use crate::base::{DiskError, Mono, Now};
use crate::machine::{Event, Machine, Outbox};

use cache::RouteCache;
use kv::Kv;
use limits::Limits;
use reply::Replier;
use routes::Routes;

/// What a name server's owner may decide; defaults and effects are those of `NamesrvConfig`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameServerOptions {
    /// `scanNotActiveBrokerInterval`: how often silent brokers are looked for, at least 1.
    pub scan_interval_ms: u64,
    /// `orderMessageEnable`: routes carry the order configuration of their topic.
    pub order_message: bool,
    /// `returnOrderTopicConfigToBroker`: so do answers to registrations.
    pub return_order_topics: bool,
    /// `enableAllTopicList`: whether 206 is served.
    pub all_topic_list: bool,
    /// `enableTopicList`: whether 224, 311, 312 and 313 are served.
    pub topic_list: bool,
    /// `supportActingMaster`: routes show a slave that stands in as the master.
    pub acting_master: bool,
    /// `deleteTopicWithBrokerRegistration`: topics that a registration leaves out are removed.
    pub delete_topics_on_registration: bool,
    /// `needWaitForService` and `waitSecondsForService`: routes are refused for this long after
    /// the start, until brokers had time to register.
    pub wait_for_service_ms: Option<u64>,
    pub local_broker: Option<LocalBroker>,
    pub limits: Limits,
}

/// A broker in this process. Clients are told to reach it by the address at which they reached the
/// name server, which holds behind NAT, in containers and with several networks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalBroker {
    /// `ip:port` as it registers.
    pub registered: String,
}

impl Default for NameServerOptions {
    fn default() -> Self {
        NameServerOptions {
            scan_interval_ms: 5000,
            order_message: false,
            return_order_topics: true,
            all_topic_list: true,
            topic_list: true,
            acting_master: false,
            delete_topics_on_registration: false,
            wait_for_service_ms: None,
            local_broker: None,
            limits: Limits::default(),
        }
    }
}

/// The machine.
pub struct NameServer {
    options: NameServerOptions,
    started: Mono,
    routes: Routes,
    cache: RouteCache,
    kv: Kv<Replier>,
    next_scan: Mono,
    stopping: bool,
}

impl NameServer {
    /// Starts with the key-value table in `dir`. The error is a sentence that says what to do.
    pub fn new(options: NameServerOptions, dir: &dyn Dir, now: Now) -> Result<Self, String> {
        let limits = &options.limits;
        Ok(NameServer {
            started: now.mono,
            routes: Routes::new(limits.clone()),
            cache: RouteCache::new(limits.route_cache_bytes_max),
            kv: Kv::load(limits.clone(), dir)?,
            next_scan: now.mono.after_ms(options.scan_interval_ms.max(1)),
            stopping: false,
            options,
        })
    }

    fn scan(&mut self, now: Now, out: &mut Outbox<Infallible>) {
        if now.mono < self.next_scan {
            return;
        }
        self.next_scan = now.mono.after_ms(self.options.scan_interval_ms.max(1));
        out.closes.extend(self.routes.expire(now.mono));
    }

    fn finish_write(
        &mut self,
        id: OrderId,
        result: Result<Done, DiskError>,
        out: &mut Outbox<Infallible>,
    ) {
        let mut outcomes = Vec::new();
        self.kv.finish(id, result.map(|_| ()), &mut outcomes);
        // Routes show order configuration.
        self.cache.clear();
        reply::answer_changes(outcomes, out);
        self.start_write(out);
    }

    fn start_write(&mut self, out: &mut Outbox<Infallible>) {
        let mut outcomes = Vec::new();
        out.orders.extend(self.kv.start(&mut outcomes));
        reply::answer_changes(outcomes, out);
    }
}

impl Machine for NameServer {
    /// A name server is one shard.
    type Peer = Infallible;

    fn handle(&mut self, now: Now, event: Event<'_, Infallible>, out: &mut Outbox<Infallible>) {
        match event {
            Event::Frame { link, frame } => self.handle_frame(now, link, frame.bytes(), out),
            Event::Closed { conn } => self.routes.close(conn),
            Event::Disk { id, result } => self.finish_write(id, result, out),
            Event::Tick => self.scan(now, out),
            Event::Start => {}
            Event::Stop => self.stopping = true,
            Event::Opened { .. } | Event::DialFailed { .. } => {}
            Event::Peer { message, .. } => match message {},
        }
    }

    /// Every event is dealt with at once.
    fn settle(&mut self, _: Now, _: &mut Outbox<Infallible>) {}

    /// There is no log: the one file is replaced by work orders.
    fn poll_write(&mut self, _: Now) -> Option<(OrderId, Order)> {
        None
    }

    fn deadline(&self) -> Option<Mono> {
        Some(self.next_scan)
    }

    fn admits(&self) -> bool {
        true
    }

    fn ready(&self) -> bool {
        true
    }

    fn drained(&self) -> bool {
        self.stopping && self.kv.is_idle()
    }
}
