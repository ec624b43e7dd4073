//! Requests to a name server: one function each, in the order of [`NameServer::serve`].
//!
//! Sources: `DefaultRequestProcessor`, `ClientRequestProcessor`; spec request-codes §5. A missing
//! field is refused by name, where the reference answers with a Java exception or goes on.

use std::convert::Infallible;

use bytes::Bytes;

use super::NameServer;
use super::answer::{self, RouteView, Shown};
use super::cache::Form;
use super::kv::{KvChange, ORDER_TOPICS};
use super::reply::{Answer, Reject, Replier, ResponseHeader, reply};
use super::routes::Registration;
use super::share::{self, FLAG_UNIT, FLAG_UNIT_SUB, Queues};
use crate::base::Now;
use crate::machine::{Link, Outbox};
use crate::remoting::body::json;
use crate::remoting::body::register::RegisterBrokerBody;
use crate::remoting::body::route::TopicRouteData;
use crate::remoting::body::topic::{DataVersion, TopicTable};
use crate::remoting::code::{request, response};
use crate::remoting::command::Command;
use crate::remoting::ext::ExtFields;
use crate::remoting::frame;
use crate::remoting::header::namesrv::{
    BrokerHeartbeat, BrokerIdentity, DataVersionResponse, MemberGroupHeader, RegisterBroker,
    RegisterBrokerResponse, RouteHeader,
};
use crate::remoting::header::namesrv_admin::{
    AddWriteResponse, BrokerName, ClusterName, DeleteTopic, KvKey, KvNamespace, KvValue, PutKv,
    WipeResponse,
};
use crate::remoting::header::topic::TopicName;

/// From this version (V4_9_4) clients read standard JSON.
const VERSION_STANDARD_JSON: i32 = 401;

/// `None` when the answer comes later.
type Served = Result<Option<Answer>, Reject>;

impl NameServer {
    /// Bytes that are no command end the connection, as in the reference.
    pub(super) fn handle_frame(
        &mut self,
        now: Now,
        link: &Link,
        bytes: &[u8],
        out: &mut Outbox<Infallible>,
    ) {
        let frame = frame::split(bytes).ok();
        let Some(command) = frame.and_then(|frame| Command::decode(frame).ok()) else {
            out.closes.push(link.conn);
            return;
        };
        if command.is_response() {
            return;
        }
        let to = Replier {
            conn: link.conn,
            codec: command.codec,
            opaque: command.opaque,
            oneway: command.is_oneway(),
        };
        match self.serve(now, link, &command, to, out) {
            Ok(Some(answer)) => reply(to, response::SUCCESS, None, answer, out),
            Ok(None) => {}
            Err(reject) => {
                let remark = Some(&*reject.remark);
                reply(to, reject.code, remark, Answer::default(), out);
            }
        }
    }

    fn serve(
        &mut self,
        now: Now,
        link: &Link,
        command: &Command<'_>,
        to: Replier,
        out: &mut Outbox<Infallible>,
    ) -> Served {
        let ext = &command.ext;
        match command.code {
            request::GET_ROUTEINFO_BY_TOPIC => self.route(now, link, command),
            request::REGISTER_BROKER => self.register_broker(now, link, command),
            request::UNREGISTER_BROKER => self.unregister_broker(ext),
            request::BROKER_HEARTBEAT => self.broker_heartbeat(now, ext),
            request::QUERY_DATA_VERSION => self.query_data_version(now, command),
            request::GET_BROKER_CLUSTER_INFO => self.cluster_info(link),
            request::GET_BROKER_MEMBER_GROUP => self.member_group(ext),
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => self.all_topics(),
            request::GET_TOPICS_BY_CLUSTER => self.cluster_topics(ext),
            request::GET_SYSTEM_TOPIC_LIST_FROM_NS => self.system_topics(link),
            request::GET_UNIT_TOPIC_LIST => self.flagged(|flags| flags & FLAG_UNIT != 0),
            request::GET_HAS_UNIT_SUB_TOPIC_LIST => {
                self.flagged(|flags| flags & FLAG_UNIT_SUB != 0)
            }
            request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => {
                self.flagged(|flags| flags & (FLAG_UNIT | FLAG_UNIT_SUB) == FLAG_UNIT_SUB)
            }
            request::WIPE_WRITE_PERM_OF_BROKER => self.wipe_write(ext),
            request::ADD_WRITE_PERM_OF_BROKER => self.add_write(ext),
            request::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(command),
            request::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(ext),
            request::PUT_KV_CONFIG => self.put_kv(ext, to, out),
            request::DELETE_KV_CONFIG => self.delete_kv(ext, to, out),
            request::GET_KV_CONFIG => self.kv_value(ext),
            request::GET_KVLIST_BY_NAMESPACE => self.kv_namespace(ext),
            request::GET_NAMESRV_CONFIG => self.config(),
            code => Err(not_supported(code)),
        }
    }

    fn route(&mut self, now: Now, link: &Link, command: &Command<'_>) -> Served {
        let waited = now.mono.since_ms(self.started);
        if self
            .options
            .wait_for_service_ms
            .is_some_and(|wait| waited < wait)
        {
            return Err(Reject::error("name server not ready"));
        }
        let asked = RouteHeader::decode(&command.ext)?;
        let topic = asked.topic;
        let standard = asked.accept_standard_json_only == Some(true)
            || command.version >= VERSION_STANDARD_JSON;
        let zone = asked.zone_name.filter(|_| asked.zone_mode == Some(true));
        let zone = zone.filter(|name| !name.trim().is_empty());
        let shown = self.shown(link);
        let NameServer {
            routes,
            kv,
            options,
            cache,
            ..
        } = self;
        let encode = || {
            let route = routes.route(&topic)?;
            let order = options
                .order_message
                .then(|| kv.value(ORDER_TOPICS, &topic));
            // Topics in which the slaves of one set look for each other.
            let members = topic.starts_with("rmq_sys_SYNC_BROKER_MEMBER_");
            let view = RouteView {
                acting_master: options.acting_master && !members,
                zone: zone.as_deref(),
                order_topic_conf: order.flatten(),
                shown: shown.as_ref(),
            };
            let data = answer::route_data(&route, view);
            Some(if standard {
                json::to_standard_vec(&data)
            } else {
                json::to_vec(&data)
            })
        };
        let form = Form {
            standard,
            shown: shown.as_ref().map(|_| link.local.ip()),
        };
        let body = match zone {
            Some(_) => encode().map(Bytes::from),
            None => cache.body(routes.revision(), form, &topic, encode),
        };
        let body = body.ok_or_else(|| {
            let remark = format!(
                "No topic route info in name server for the topic: {topic}\nSee \
                 https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
            );
            Reject::new(response::TOPIC_NOT_EXIST, remark)
        })?;
        let header = None;
        Ok(Some(Answer { header, body }))
    }

    /// How this asker reaches the broker of our process.
    fn shown(&self, link: &Link) -> Option<Shown> {
        let registered = &self.options.local_broker.as_ref()?.registered;
        let (_, port) = registered.rsplit_once(':')?;
        let reached = link.local.ip().to_canonical();
        reached.is_ipv4().then(|| Shown {
            registered: registered.clone(),
            instead: format!("{reached}:{port}"),
        })
    }

    fn register_broker(&mut self, now: Now, link: &Link, command: &Command<'_>) -> Served {
        let broker = RegisterBroker::decode(&command.ext)?;
        let body = command.body;
        let crc = || (crc32fast::hash(body) & 0x7FFF_FFFF) as i32;
        if broker.body_crc32 != 0 && broker.body_crc32 != crc() {
            return Err(Reject::error("crc32 not match"));
        }
        let table = match body {
            [] => TopicTable::default(),
            _ => RegisterBrokerBody::decode(body, command.version)?.topic_config_serialize_wrapper,
        };
        let registration = Registration {
            cluster: &broker.cluster_name,
            name: &broker.broker_name,
            addr: &broker.broker_addr,
            id: broker.broker_id,
            ha_addr: &broker.ha_server_addr,
            zone: broker.zone_name.as_deref(),
            timeout_ms: broker.heartbeat_timeout_ms,
            acting_master: broker.enable_acting_master,
            version: table.data_version,
            topics: share::registered(table, &broker.broker_name),
            conn: link.conn,
            delete_others: self.options.delete_topics_on_registration,
        };
        let master = self.routes.register(now.mono, registration)?;
        let header = master.map(|master| RegisterBrokerResponse {
            ha_server_addr: Some(master.ha_addr.into()),
            master_addr: Some(master.addr.into()),
        });
        let mut answer = Answer {
            header: header.map(ResponseHeader::Registered),
            body: Bytes::new(),
        };
        if self.options.return_order_topics {
            let order = self.kv.namespace_json(ORDER_TOPICS);
            answer.body = order.map(Bytes::from).unwrap_or_default();
        }
        Ok(Some(answer))
    }

    fn unregister_broker(&mut self, ext: &ExtFields<'_>) -> Served {
        let broker = BrokerIdentity::decode(ext)?;
        let (cluster, name) = (&broker.cluster_name, &broker.broker_name);
        self.routes.unregister(cluster, name, &broker.broker_addr);
        Ok(Some(Answer::default()))
    }

    fn broker_heartbeat(&mut self, now: Now, ext: &ExtFields<'_>) -> Served {
        let broker = BrokerHeartbeat::decode(ext)?;
        let (cluster, addr) = (&broker.cluster_name, &broker.broker_addr);
        self.routes.heard(now.mono, cluster, addr);
        Ok(Some(Answer::default()))
    }

    fn query_data_version(&mut self, now: Now, command: &Command<'_>) -> Served {
        let broker = BrokerIdentity::decode(&command.ext)?;
        let (cluster, addr) = (&broker.cluster_name, &broker.broker_addr);
        let asked = match command.body {
            [] => None,
            body => json::from_slice::<Option<DataVersion>>(body)?,
        };
        self.routes.heard(now.mono, cluster, addr);
        let known = self.routes.version(cluster, addr);
        let changed = known.is_none() || known != asked.as_ref();
        let header = DataVersionResponse { changed };
        let mut answer = Answer::header(ResponseHeader::Version(header));
        if let Some(known) = known {
            answer.body = json::to_vec(known).into();
        }
        Ok(Some(answer))
    }

    fn cluster_info(&mut self, link: &Link) -> Served {
        let body = answer::cluster_json(&self.routes, self.shown(link).as_ref());
        Ok(Some(Answer::body(body)))
    }

    fn member_group(&mut self, ext: &ExtFields<'_>) -> Served {
        let asked = MemberGroupHeader::decode(ext)?;
        let (cluster, name) = (&asked.cluster_name, &asked.broker_name);
        let set = self.routes.sets().get(&**name);
        let body = answer::members_json(cluster, name, set);
        Ok(Some(Answer::body(body)))
    }

    fn all_topics(&mut self) -> Served {
        allowed(self.options.all_topic_list)?;
        Ok(Some(Answer::body(answer::topics_json(
            self.routes.topics(),
        ))))
    }

    fn cluster_topics(&mut self, ext: &ExtFields<'_>) -> Served {
        allowed(self.options.topic_list)?;
        let asked = ClusterName::decode(ext)?;
        let topics = self.routes.topics_of_cluster(&asked.cluster);
        Ok(Some(Answer::body(answer::topics_json(topics))))
    }

    fn system_topics(&mut self, link: &Link) -> Served {
        let body = answer::system_topics_json(&self.routes, self.shown(link).as_ref());
        Ok(Some(Answer::body(body)))
    }

    fn flagged(&mut self, passes: impl Fn(i32) -> bool) -> Served {
        allowed(self.options.topic_list)?;
        let topics = self.routes.topics_flagged(passes);
        Ok(Some(Answer::body(answer::topics_json(topics))))
    }

    fn wipe_write(&mut self, ext: &ExtFields<'_>) -> Served {
        let broker = BrokerName::decode(ext)?;
        let wipe_topic_count = self.routes.wipe_write(&broker.broker_name) as i32;
        let header = WipeResponse { wipe_topic_count };
        Ok(Some(Answer::header(ResponseHeader::Wiped(header))))
    }

    fn add_write(&mut self, ext: &ExtFields<'_>) -> Served {
        let broker = BrokerName::decode(ext)?;
        let add_topic_count = self.routes.add_write(&broker.broker_name) as i32;
        let header = AddWriteResponse { add_topic_count };
        Ok(Some(Answer::header(ResponseHeader::Added(header))))
    }

    fn register_topic(&mut self, command: &Command<'_>) -> Served {
        let topic = TopicName::decode(&command.ext)?.topic;
        let route: TopicRouteData = match command.body {
            [] => TopicRouteData::default(),
            body => json::from_slice(body)?,
        };
        let datas = route.queue_datas.into_iter();
        let queues = datas
            .map(|data| (Queues::of(&data), data.broker_name))
            .collect();
        self.routes.register_topic(&topic, queues)?;
        Ok(Some(Answer::default()))
    }

    fn delete_topic(&mut self, ext: &ExtFields<'_>) -> Served {
        let asked = DeleteTopic::decode(ext)?;
        let cluster = asked.cluster_name.filter(|name| !name.is_empty());
        self.routes.delete_topic(&asked.topic, cluster.as_deref());
        Ok(Some(Answer::default()))
    }

    fn put_kv(&mut self, ext: &ExtFields<'_>, to: Replier, out: &mut Outbox<Infallible>) -> Served {
        let asked = PutKv::decode(ext)?;
        let change = KvChange {
            namespace: asked.namespace.into_owned(),
            key: asked.key.into_owned(),
            value: Some(asked.value.into_owned()),
        };
        self.kv.change(change, to)?;
        self.start_write(out);
        Ok(None)
    }

    fn delete_kv(
        &mut self,
        ext: &ExtFields<'_>,
        to: Replier,
        out: &mut Outbox<Infallible>,
    ) -> Served {
        let asked = KvKey::decode(ext)?;
        let change = KvChange {
            namespace: asked.namespace.into_owned(),
            key: asked.key.into_owned(),
            value: None,
        };
        self.kv.change(change, to)?;
        self.start_write(out);
        Ok(None)
    }

    fn kv_value(&mut self, ext: &ExtFields<'_>) -> Served {
        let KvKey { namespace, key } = KvKey::decode(ext)?;
        let value = self.kv.value(&namespace, &key).ok_or_else(|| {
            let remark = format!("No config item, Namespace: {namespace} Key: {key}");
            Reject::new(response::QUERY_NOT_FOUND, remark)
        })?;
        let value = Some(value.to_owned().into());
        Ok(Some(Answer::header(ResponseHeader::Value(KvValue {
            value,
        }))))
    }

    fn kv_namespace(&mut self, ext: &ExtFields<'_>) -> Served {
        let namespace = KvNamespace::decode(ext)?.namespace;
        let body = self.kv.namespace_json(&namespace).ok_or_else(|| {
            let remark = format!("No config item, Namespace: {namespace}");
            Reject::new(response::QUERY_NOT_FOUND, remark)
        })?;
        Ok(Some(Answer::body(body)))
    }

    /// Properties text under the reference's names.
    fn config(&mut self) -> Served {
        let options = &self.options;
        let wait_ms = options.wait_for_service_ms;
        let text = format!(
            "deleteTopicWithBrokerRegistration={}\nenableAllTopicList={}\nenableTopicList={}\n\
             needWaitForService={}\norderMessageEnable={}\nreturnOrderTopicConfigToBroker={}\n\
             scanNotActiveBrokerInterval={}\nsupportActingMaster={}\nwaitSecondsForService={}\n",
            options.delete_topics_on_registration,
            options.all_topic_list,
            options.topic_list,
            wait_ms.is_some(),
            options.order_message,
            options.return_order_topics,
            options.scan_interval_ms,
            options.acting_master,
            wait_ms.unwrap_or(45_000) / 1000,
        );
        Ok(Some(Answer::body(text.into_bytes())))
    }
}

fn allowed(enabled: bool) -> Result<(), Reject> {
    if enabled {
        return Ok(());
    }
    Err(Reject::error("disable"))
}

fn not_supported(code: i32) -> Reject {
    let mut remark = format!(" request type {code} not supported");
    if let Some(name) = request::name(code) {
        remark += &format!(" ({name})");
    }
    Reject::new(response::REQUEST_CODE_NOT_SUPPORTED, remark)
}
