//! Registration with name servers: all topics on start and every period, what changed at once, and
//! a farewell on a clean stop. Every name server is told by a connection of its own.
//!
//! Source: `BrokerController.registerBrokerAll`, `BrokerOuterAPI`; `spec/namesrv-ha.md` §2.

use crate::base::{ConnId, Mono, Now};
use crate::broker::Peer;
use crate::broker::control::Control;
use crate::broker::record::Stamp;
use crate::broker::topics::Topic;
use crate::machine::{Dial, Outbox};
use crate::remoting::body::register::RegisterBrokerBody;
use crate::remoting::body::topic::{DataVersion, TopicTable};
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;
use crate::remoting::header::namesrv::{BrokerIdentity, RegisterBroker};
use std::sync::Arc;

/// A name server that cannot be reached, or refuses, is tried again after this.
const RETRY_MS: u64 = 1_000;

#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// `namesrvAddr`: `host:port` each.
    pub name_servers: Vec<String>,
    pub cluster: String,
    pub broker_name: String,
    pub broker_id: i64,
    /// `brokerIP1:listenPort`, what clients connect to.
    pub broker_addr: String,
    pub ha_addr: String,
    /// `registerNameServerPeriod`.
    pub period_ms: u64,
    /// `brokerPermission`: topics are registered with no more than this.
    pub permission: i32,
}

struct NameServer {
    addr: String,
    conn: Option<ConnId>,
    dialing: bool,
    next: Mono,
    /// The full registration was answered on this connection.
    registered: bool,
    /// What went wrong last, once.
    trouble: Option<String>,
}

pub struct Registry {
    options: RegistryOptions,
    servers: Vec<NameServer>,
    opaque: i32,
    started: bool,
    stopping: bool,
    due: bool,
}

impl Registry {
    pub fn new(options: RegistryOptions, now: Now) -> Self {
        let server = |addr: &String| NameServer {
            addr: addr.clone(),
            conn: None,
            dialing: false,
            next: now.mono,
            registered: false,
            trouble: None,
        };
        let servers = options.name_servers.iter().map(server).collect();
        Registry {
            options,
            servers,
            opaque: 0,
            started: false,
            stopping: false,
            due: false,
        }
    }

    pub fn start(&mut self, now: Now, out: &mut Outbox<Peer>) {
        self.started = true;
        self.tick(now, out);
    }

    /// Whether every name server has this broker's topics, or could not be told.
    pub fn has_tried(&self) -> bool {
        self.servers
            .iter()
            .all(|server| server.registered || server.trouble.is_some())
    }

    /// A name server that can be asked.
    pub fn reachable(&self) -> Option<ConnId> {
        let known = self.servers.iter().filter(|server| server.registered);
        known.filter_map(|server| server.conn).next()
    }

    /// What keeps name servers from knowing this broker, one sentence each.
    pub fn troubles(&self) -> impl Iterator<Item = &str> {
        self.servers
            .iter()
            .filter_map(|server| server.trouble.as_deref())
    }

    pub fn deadline(&self) -> Option<Mono> {
        if !self.started || self.stopping {
            return None;
        }
        self.servers
            .iter()
            .filter(|server| !server.dialing)
            .map(|server| server.next)
            .min()
    }

    /// Dials who is not connected; marks who is due to be told everything again.
    pub fn tick(&mut self, now: Now, out: &mut Outbox<Peer>) {
        if !self.started || self.stopping {
            return;
        }
        for (token, server) in self.servers.iter_mut().enumerate() {
            if server.next > now.mono || server.dialing {
                continue;
            }
            match server.conn {
                None => {
                    server.dialing = true;
                    out.dials.push(Dial {
                        token: token as u64,
                        addr: server.addr.clone(),
                    });
                }
                Some(_) => self.due = true,
            }
        }
    }

    /// Registers everything with the servers that are due.
    pub fn register_due(&mut self, now: Now, control: &Control, out: &mut Outbox<Peer>) {
        if !std::mem::take(&mut self.due) {
            return;
        }
        for at in 0..self.servers.len() {
            if self.servers[at].next <= now.mono && self.servers[at].conn.is_some() {
                self.register(now, at, control, out);
            }
        }
    }

    pub fn opened(
        &mut self,
        now: Now,
        token: u64,
        conn: ConnId,
        control: &Control,
        out: &mut Outbox<Peer>,
    ) {
        let Some(server) = self.servers.get_mut(token as usize) else {
            return;
        };
        server.conn = Some(conn);
        server.dialing = false;
        server.registered = false;
        self.register(now, token as usize, control, out);
    }

    pub fn dial_failed(&mut self, now: Now, token: u64, reason: &str) {
        let Some(server) = self.servers.get_mut(token as usize) else {
            return;
        };
        server.dialing = false;
        server.next = now.mono.after_ms(RETRY_MS);
        server.trouble = Some(format!("name server {}: {reason}", server.addr));
    }

    pub fn closed(&mut self, now: Now, conn: ConnId) {
        for server in self
            .servers
            .iter_mut()
            .filter(|server| server.conn == Some(conn))
        {
            server.conn = None;
            server.registered = false;
            server.next = now.mono.after_ms(RETRY_MS);
        }
    }

    /// A name server's answer.
    pub fn answered(&mut self, now: Now, conn: ConnId, command: &Command<'_>) {
        for server in self
            .servers
            .iter_mut()
            .filter(|server| server.conn == Some(conn))
        {
            if command.code == response::SUCCESS {
                server.registered = true;
                server.trouble = None;
            } else {
                let remark = command.remark.map(|text| text.to_cow().into_owned());
                let remark = remark.unwrap_or_default();
                server.trouble = Some(format!("name server {} refused: {remark}", server.addr));
                server.next = now.mono.after_ms(RETRY_MS);
            }
        }
    }

    /// Tells every connected name server of new or changed topics.
    pub fn topics_changed(
        &mut self,
        now: Now,
        control: &Control,
        names: &[Arc<str>],
        out: &mut Outbox<Peer>,
    ) {
        let topics: Vec<_> = names
            .iter()
            .filter_map(|name| control.topics.get(name))
            .cloned()
            .collect();
        let body = self.body(control.topics.stamp(), topics.iter());
        for at in 0..self.servers.len() {
            let Some(conn) = self.servers[at].conn else {
                continue;
            };
            if self.servers[at].registered {
                self.send(conn, &body, out);
            } else {
                self.register(now, at, control, out);
            }
        }
    }

    fn register(&mut self, now: Now, at: usize, control: &Control, out: &mut Outbox<Peer>) {
        let Some(conn) = self.servers[at].conn else {
            return;
        };
        let body = self.body(control.topics.stamp(), control.topics.sorted());
        self.servers[at].next = now.mono.after_ms(self.options.period_ms);
        self.send(conn, &body, out);
    }

    fn body<'t>(&self, stamp: Stamp, topics: impl Iterator<Item = &'t Arc<Topic>>) -> Vec<u8> {
        let mut table = TopicTable {
            data_version: DataVersion::from(stamp),
            ..TopicTable::default()
        };
        for topic in topics {
            let mut config = topic.config.clone();
            config.perm &= self.options.permission | !6;
            table
                .topic_config_table
                .insert(topic.name.to_string(), config);
        }
        let body = RegisterBrokerBody {
            filter_server_list: Vec::new(),
            topic_config_serialize_wrapper: table,
        };
        body.encode()
    }

    fn send(&mut self, conn: ConnId, body: &[u8], out: &mut Outbox<Peer>) {
        self.opaque = self.opaque.wrapping_add(1);
        let (options, opaque) = (&self.options, self.opaque);
        let header = RegisterBroker {
            broker_name: options.broker_name.as_str().into(),
            broker_addr: options.broker_addr.as_str().into(),
            cluster_name: options.cluster.as_str().into(),
            ha_server_addr: options.ha_addr.as_str().into(),
            broker_id: options.broker_id,
            heartbeat_timeout_ms: None,
            enable_acting_master: Some(false),
            compressed: false,
            body_crc32: (crc32fast::hash(body) & 0x7FFF_FFFF) as i32,
            zone_name: None,
        };
        out.write(conn, |bytes| {
            let code = request::REGISTER_BROKER;
            let mut w = FrameWriter::request(bytes, Codec::Json, opaque, code, false);
            header.encode(&mut w);
            w.finish_with_body(body);
        });
    }

    /// Says goodbye; the driver sends it before it closes.
    pub fn stop(&mut self, out: &mut Outbox<Peer>) {
        self.stopping = true;
        for conn in self.servers.iter().filter_map(|server| server.conn) {
            self.opaque = self.opaque.wrapping_add(1);
            let (options, opaque) = (&self.options, self.opaque);
            let header = BrokerIdentity {
                broker_name: options.broker_name.as_str().into(),
                broker_addr: options.broker_addr.as_str().into(),
                cluster_name: options.cluster.as_str().into(),
                broker_id: options.broker_id,
            };
            out.write(conn, |bytes| {
                let code = request::UNREGISTER_BROKER;
                let mut w = FrameWriter::request(bytes, Codec::Json, opaque, code, false);
                header.encode(&mut w);
                w.finish(0);
            });
        }
    }
}
