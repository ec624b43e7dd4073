//! Bodies of answers, made from the tables.
//!
//! Where the reference follows the order of a hash map, names are in order here. Sources:
//! `RouteInfoManager.pickupTopicRouteData`, `ZoneRouteRPCHook`; spec namesrv-ha §3.

use std::collections::BTreeMap;

use super::routes::{BrokerSet, MASTER_ID, Routes, TopicRoute};
use super::share::{PERM_WRITE, TopicShare};
use crate::remoting::body::cluster::{BrokerMemberGroup, ClusterInfo, MemberGroupBody};
use crate::remoting::body::json;
use crate::remoting::body::route::{BrokerData, TopicRouteData};
use crate::remoting::body::table::TopicList;

/// One address that is shown as another: what the asker can reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    pub registered: String,
    pub instead: String,
}

/// How one asker sees a route.
#[derive(Clone, Copy, Default)]
pub struct RouteView<'a> {
    /// A slave that stands in is shown as the master.
    pub acting_master: bool,
    /// Only brokers of this zone, and those without a master.
    pub zone: Option<&'a str>,
    pub order_topic_conf: Option<&'a str>,
    pub shown: Option<&'a Shown>,
}

/// The answer to 105.
pub fn route_data(route: &TopicRoute<'_>, view: RouteView<'_>) -> TopicRouteData {
    let mut data = TopicRouteData {
        order_topic_conf: view.order_topic_conf.map(str::to_owned),
        ..TopicRouteData::default()
    };
    let mut mappings = BTreeMap::new();
    for ((name, set), share) in route.sets.iter().zip(route.shares.values()) {
        // A zone hides brokers, not where the queues of a static topic are.
        if let Some(mapping) = &share.mapping {
            mappings.insert((*name).to_owned(), mapping.clone());
        }
        let mut broker = broker_data(name, set, view.shown);
        if view.acting_master && stands_in(set, share) {
            let smallest = broker.broker_addrs.pop_first();
            let (_, addr) = smallest.expect("broker sets have addresses");
            broker.broker_addrs.insert(MASTER_ID, addr);
        }
        if view.zone.is_none_or(|zone| is_in_zone(&broker, zone)) {
            data.broker_datas.push(broker);
            data.queue_datas.push(share.queues.data(name));
        }
    }
    data.topic_queue_mapping_by_broker = Some(mappings).filter(|all| !all.is_empty());
    data
}

fn stands_in(set: &BrokerSet, share: &TopicShare) -> bool {
    set.acting_master && set.lacks_master() && share.queues.perm & PERM_WRITE == 0
}

fn is_in_zone(broker: &BrokerData, zone: &str) -> bool {
    let same = |own: &str| own.to_lowercase() == zone.to_lowercase();
    !broker.broker_addrs.contains_key(&MASTER_ID) || broker.zone_name.as_deref().is_some_and(same)
}

fn broker_data(name: &str, set: &BrokerSet, shown: Option<&Shown>) -> BrokerData {
    let addrs = set.addrs.iter();
    BrokerData {
        broker_addrs: addrs.map(|(id, addr)| (*id, show(addr, shown))).collect(),
        broker_name: name.to_owned(),
        cluster: set.cluster.clone(),
        enable_acting_master: set.acting_master,
        zone_name: set.zone.clone(),
    }
}

fn show(addr: &str, shown: Option<&Shown>) -> String {
    match shown {
        Some(shown) if shown.registered == addr => shown.instead.clone(),
        _ => addr.to_owned(),
    }
}

/// The answer to 106.
pub fn cluster_json(routes: &Routes, shown: Option<&Shown>) -> Vec<u8> {
    let brokers = routes.sets().iter();
    let mut info = ClusterInfo {
        broker_addr_table: brokers
            .map(|(name, set)| (name.clone(), broker_data(name, set, shown)))
            .collect(),
        ..ClusterInfo::default()
    };
    for (name, set) in routes.sets() {
        let names = info.cluster_addr_table.entry(set.cluster.clone());
        names.or_default().push(name.clone());
    }
    json::to_vec(&info)
}

/// The answer to 901.
pub fn members_json(cluster: &str, name: &str, set: Option<&BrokerSet>) -> Vec<u8> {
    let group = BrokerMemberGroup {
        broker_addrs: set.map(|set| set.addrs.clone()).unwrap_or_default(),
        broker_name: name.to_owned(),
        cluster: cluster.to_owned(),
    };
    json::to_vec(&MemberGroupBody {
        broker_member_group: Some(group),
    })
}

/// The answer to 206, 224, 311, 312 and 313.
pub fn topics_json<'a>(topics: impl Iterator<Item = &'a str>) -> Vec<u8> {
    json::to_vec(&TopicList {
        broker_addr: None,
        topic_list: topics.map(str::to_owned).collect(),
    })
}

/// The answer to 304: names of clusters and brokers, and one broker to ask on (305).
pub fn system_topics_json(routes: &Routes, shown: Option<&Shown>) -> Vec<u8> {
    let mut topic_list = Vec::new();
    for (name, set) in routes.sets() {
        if !topic_list.contains(&set.cluster) {
            topic_list.push(set.cluster.clone());
        }
        topic_list.push(name.clone());
    }
    let first = routes.sets().values().next();
    let addr = first.and_then(|set| set.addrs.values().next());
    json::to_vec(&TopicList {
        broker_addr: addr.map(|addr| show(addr, shown)),
        topic_list,
    })
}
