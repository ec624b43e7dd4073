//! JSON bodies of answers, written straight from the tables.
//!
//! The reference writes integer map keys without quotes, `{0:"addr"}`, except to askers of
//! standard JSON: version 4.9.4 and up, or `acceptStandardJsonOnly` (`ClientRequestProcessor`,
//! spec namesrv-ha §3). Members are in alphabetical order, absent ones are left out. Where the
//! reference follows the order of a hash map, names are in order here.

use std::collections::BTreeMap;

use serde::Serialize;

use super::registration::QueueMapping;
use super::routes::{BrokerSet, MASTER_ID, PERM_WRITE, Routes, TopicRoute, TopicShare};

/// One address that is shown as another: what the asker can reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    pub registered: String,
    pub instead: String,
}

/// How one asker sees a route.
#[derive(Clone, Copy, Default)]
pub struct RouteView<'a> {
    /// Quoted integer keys.
    pub standard: bool,
    /// A slave that stands in is shown as the master.
    pub acting_master: bool,
    /// Only brokers of this zone, and those without a master.
    pub zone: Option<&'a str>,
    pub order_topic_conf: Option<&'a str>,
    pub shown: Option<&'a Shown>,
}

type Addrs<'a> = BTreeMap<i64, &'a str>;

/// `TopicRouteData`.
pub fn route_json(route: &TopicRoute<'_>, view: RouteView<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + 256 * route.sets.len());
    let mut kept = Vec::with_capacity(route.sets.len());
    for ((name, set), share) in route.sets.iter().zip(route.shares.values()) {
        let addrs = visible_addrs(set, share, view);
        if is_in_zone(set, &addrs, view.zone) {
            kept.push((*name, *set, share, addrs));
        }
    }
    out.extend_from_slice(b"{\"brokerDatas\":");
    put_list(&mut out, &kept, |out, (name, set, _, addrs)| {
        put_broker(out, name, set, addrs, view.standard);
    });
    out.extend_from_slice(b",\"filterServerTable\":{}");
    if let Some(conf) = view.order_topic_conf {
        put_member(&mut out, ",\"orderTopicConf\":", conf);
    }
    out.extend_from_slice(b",\"queueDatas\":");
    put_list(&mut out, &kept, |out, (name, _, share, _)| {
        put_queues(out, name, share)
    });
    // A zone hides brokers, not where the queues of a static topic are.
    let shares = route.shares.iter();
    let mappings: Vec<_> = shares
        .filter_map(|(name, share)| Some((name, share.mapping.as_ref()?)))
        .collect();
    if !mappings.is_empty() {
        out.extend_from_slice(b",\"topicQueueMappingByBroker\":");
        put_braced(&mut out, &mappings, |out, (name, mapping)| {
            put_string(out, name);
            out.push(b':');
            put_mapping(out, mapping, view.standard);
        });
    }
    out.push(b'}');
    out
}

fn visible_addrs<'a>(set: &'a BrokerSet, share: &TopicShare, view: RouteView<'a>) -> Addrs<'a> {
    let mut addrs = reachable(set, view.shown);
    let read_only = share.queues.perm & PERM_WRITE == 0;
    if view.acting_master && set.acting_master && read_only && set.lacks_master() {
        let (_, stand_in) = addrs.pop_first().expect("broker sets have addresses");
        addrs.insert(MASTER_ID, stand_in);
    }
    addrs
}

fn reachable<'a>(set: &'a BrokerSet, shown: Option<&'a Shown>) -> Addrs<'a> {
    let addrs = set.addrs.iter();
    addrs.map(|(id, addr)| (*id, show(addr, shown))).collect()
}

fn show<'a>(addr: &'a str, shown: Option<&'a Shown>) -> &'a str {
    match shown {
        Some(shown) if shown.registered == addr => &shown.instead,
        _ => addr,
    }
}

/// `ZoneRouteRPCHook`.
fn is_in_zone(set: &BrokerSet, addrs: &Addrs<'_>, zone: Option<&str>) -> bool {
    let Some(zone) = zone else {
        return true;
    };
    let same = |own: &str| own.to_lowercase() == zone.to_lowercase();
    !addrs.contains_key(&MASTER_ID) || set.zone.as_deref().is_some_and(same)
}

/// `ClusterInfo`: integer keys are never quoted.
pub fn cluster_json(routes: &Routes, shown: Option<&Shown>) -> Vec<u8> {
    let mut out = b"{\"brokerAddrTable\":".to_vec();
    put_braced(&mut out, routes.sets(), |out, (name, set)| {
        put_string(out, name);
        out.push(b':');
        put_broker(out, name, set, &reachable(set, shown), false);
    });
    out.extend_from_slice(b",\"clusterAddrTable\":");
    serde_json::to_writer(&mut out, &routes.clusters()).expect("strings are JSON");
    out.push(b'}');
    out
}

/// `GetBrokerMemberGroupResponseBody`.
pub fn members_json(cluster: &str, name: &str, set: Option<&BrokerSet>) -> Vec<u8> {
    let mut out = b"{\"brokerMemberGroup\":{\"brokerAddrs\":".to_vec();
    let addrs = set.map(|set| reachable(set, None)).unwrap_or_default();
    put_addrs(&mut out, &addrs, false);
    put_member(&mut out, ",\"brokerName\":", name);
    put_member(&mut out, ",\"cluster\":", cluster);
    out.extend_from_slice(b"}}");
    out
}

/// `TopicList`.
pub fn topics_json<'a>(topics: impl Iterator<Item = &'a str>) -> Vec<u8> {
    topic_list(None, topics.collect())
}

/// `TopicList` of request 304: names of clusters and brokers, and one broker to ask on (305).
pub fn system_topics_json(routes: &Routes, shown: Option<&Shown>) -> Vec<u8> {
    let mut names = Vec::new();
    for (cluster, brokers) in routes.clusters() {
        names.push(cluster);
        names.extend(brokers);
    }
    let first = routes.sets().values().next();
    let addr = first.and_then(|set| set.addrs.values().next());
    topic_list(addr.map(|addr| show(addr, shown)), names)
}

fn topic_list(broker_addr: Option<&str>, topic_list: Vec<&str>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct TopicList<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        broker_addr: Option<&'a str>,
        topic_list: Vec<&'a str>,
    }
    let list = TopicList {
        broker_addr,
        topic_list,
    };
    serde_json::to_vec(&list).expect("strings are JSON")
}

fn put_broker(out: &mut Vec<u8>, name: &str, set: &BrokerSet, addrs: &Addrs<'_>, standard: bool) {
    out.extend_from_slice(b"{\"brokerAddrs\":");
    put_addrs(out, addrs, standard);
    put_member(out, ",\"brokerName\":", name);
    put_member(out, ",\"cluster\":", &set.cluster);
    out.extend_from_slice(b",\"enableActingMaster\":");
    out.extend_from_slice(if set.acting_master { b"true" } else { b"false" });
    if let Some(zone) = &set.zone {
        put_member(out, ",\"zoneName\":", zone);
    }
    out.push(b'}');
}

fn put_addrs(out: &mut Vec<u8>, addrs: &Addrs<'_>, standard: bool) {
    put_braced(out, addrs, |out, (id, addr)| {
        put_key(out, *id, standard);
        put_string(out, addr);
    });
}

fn put_queues(out: &mut Vec<u8>, name: &str, share: &TopicShare) {
    let queues = share.queues;
    put_member(out, "{\"brokerName\":", name);
    let rest = format!(
        ",\"perm\":{},\"readQueueNums\":{},\"topicSysFlag\":{},\"writeQueueNums\":{}}}",
        queues.perm, queues.read, queues.sys_flag, queues.write
    );
    out.extend_from_slice(rest.as_bytes());
}

fn put_mapping(out: &mut Vec<u8>, mapping: &QueueMapping, standard: bool) {
    out.push(b'{');
    if let Some(name) = &mapping.bname {
        put_member(out, "\"bname\":", name);
        out.push(b',');
    }
    out.extend_from_slice(b"\"currIdMap\":");
    put_braced(out, &mapping.curr_id_map, |out, (logical, physical)| {
        put_key(out, i64::from(*logical), standard);
        out.extend_from_slice(physical.to_string().as_bytes());
    });
    let middle = format!(",\"dirty\":{},\"epoch\":{}", mapping.dirty, mapping.epoch);
    out.extend_from_slice(middle.as_bytes());
    if let Some(scope) = &mapping.scope {
        put_member(out, ",\"scope\":", scope);
    }
    if let Some(topic) = &mapping.topic {
        put_member(out, ",\"topic\":", topic);
    }
    let end = format!(",\"totalQueues\":{}}}", mapping.total_queues);
    out.extend_from_slice(end.as_bytes());
}

fn put_key(out: &mut Vec<u8>, key: i64, standard: bool) {
    let text = if standard {
        format!("\"{key}\":")
    } else {
        format!("{key}:")
    };
    out.extend_from_slice(text.as_bytes());
}

/// `before` is the quoted member name with its comma and colon.
fn put_member(out: &mut Vec<u8>, before: &str, value: &str) {
    out.extend_from_slice(before.as_bytes());
    put_string(out, value);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("strings are JSON");
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    put_separated(out, items, put);
    out.push(b']');
}

fn put_braced<I: IntoIterator>(
    out: &mut Vec<u8>,
    items: I,
    put: impl FnMut(&mut Vec<u8>, I::Item),
) {
    out.push(b'{');
    put_separated(out, items, put);
    out.push(b'}');
}

fn put_separated<I: IntoIterator>(
    out: &mut Vec<u8>,
    items: I,
    mut put: impl FnMut(&mut Vec<u8>, I::Item),
) {
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put(out, item);
    }
}
