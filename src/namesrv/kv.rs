//! Key-value configuration by namespace, kept in `kvConfig.json` in the reference's shape:
//! `{"configTable":{"NAMESPACE":{"key":"value"}}}`.
//!
//! What is visible is durable: a change is staged, written with the whole table to a new file that
//! replaces the old one, and only then shown and answered. One write is in flight; changes that
//! come meanwhile go together into the next. A write that fails answers its changes with the
//! reason and shows none of them.
//!
//! Namespaces stay when their last key is deleted, as in `KVConfigManager` (spec namesrv-ha §4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limits::{Limits, Refusal};
use crate::base::disk::{Dir, DiskError, Order, OrderId, read_file, replace_file};
use crate::remoting::body::json;
use crate::remoting::body::table::KvTable;

/// Where the table lies in the machine's directory.
pub const FILE: &str = "kvConfig.json";
/// Topics with a fixed order of queues, for brokers and clients (`NamesrvUtil`).
pub const ORDER_TOPICS: &str = "ORDER_TOPIC_CONFIG";

type Table = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct KvFile<'a> {
    #[serde(default)]
    config_table: std::borrow::Cow<'a, Table>,
}

/// One wish. `value` is `None` to delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KvChange {
    pub namespace: String,
    pub key: String,
    pub value: Option<String>,
}

struct Write<R> {
    id: OrderId,
    table: Table,
    repliers: Vec<R>,
}

/// The table. `R` names whom to answer when a change is durable.
pub struct Kv<R> {
    limits: Limits,
    visible: Table,
    write: Option<Write<R>>,
    waiting: Vec<(KvChange, R)>,
    orders: u64,
}

/// What became of a change.
pub type KvOutcome<R> = (R, Result<(), String>);

impl<R> Kv<R> {
    /// Reads the table of an earlier run. The error is a sentence that names the file.
    pub fn load(limits: Limits, dir: &dyn Dir) -> Result<Self, String> {
        let bytes = read_file(dir, FILE).map_err(|error| error.to_string())?;
        let visible = match bytes {
            Some(bytes) => parse(&bytes)?,
            None => Table::new(),
        };
        Ok(Kv {
            limits,
            visible,
            write: None,
            waiting: Vec::new(),
            orders: 0,
        })
    }

    pub fn value(&self, namespace: &str, key: &str) -> Option<&str> {
        Some(self.visible.get(namespace)?.get(key)?)
    }

    /// The body of request 219, `{"table":{…}}`; `None` for an unknown namespace.
    pub fn namespace_json(&self, namespace: &str) -> Option<Vec<u8>> {
        let table = self.visible.get(namespace)?.clone();
        Some(json::to_vec(&KvTable { table }))
    }

    /// Queues a change; its outcome comes from [`Kv::start`] or [`Kv::finish`].
    pub fn change(&mut self, change: KvChange, replier: R) -> Result<(), Refusal> {
        let max = self.limits.kv_waiting_max;
        if self.waiting.len() >= max {
            return Err(Refusal::KvWaiting { max });
        }
        self.limits.check_name(&change.namespace)?;
        self.limits.check_name(&change.key)?;
        let bytes = change.value.as_ref().map_or(0, String::len);
        let max = self.limits.kv_value_bytes_max;
        if bytes > max {
            return Err(Refusal::KvValueBytes { bytes, max });
        }
        self.waiting.push((change, replier));
        Ok(())
    }

    /// Starts the next write if none is in flight and something waits. Changes that would pass a
    /// limit are answered in `outcomes` at once.
    pub fn start(&mut self, outcomes: &mut Vec<KvOutcome<R>>) -> Option<(OrderId, Order)> {
        if self.write.is_some() || self.waiting.is_empty() {
            return None;
        }
        let mut table = self.visible.clone();
        let mut size = Size::of(&table);
        let mut repliers = Vec::new();
        for (change, replier) in self.waiting.drain(..) {
            match apply(&mut table, &mut size, change, &self.limits) {
                Ok(()) => repliers.push(replier),
                Err(refusal) => outcomes.push((replier, Err(refusal.to_string()))),
            }
        }
        if repliers.is_empty() {
            return None;
        }
        let file = KvFile {
            config_table: std::borrow::Cow::Borrowed(&table),
        };
        let bytes = serde_json::to_vec(&file).expect("strings are JSON");
        self.orders += 1;
        let id = OrderId(self.orders);
        self.write = Some(Write {
            id,
            table,
            repliers,
        });
        let work = move |dir: &dyn Dir| replace_file(dir, FILE, &[&bytes]).map(|()| Vec::new());
        Some((id, Order::Work(Box::new(work))))
    }

    /// The disk has answered: shows what is durable and says whom to tell.
    pub fn finish(
        &mut self,
        id: OrderId,
        result: Result<(), DiskError>,
        outcomes: &mut Vec<KvOutcome<R>>,
    ) {
        let write = self.write.take().expect("an answer follows an order");
        assert_eq!(write.id, id, "one write is in flight");
        let told = result.as_ref().map_err(DiskError::to_string).copied();
        if result.is_ok() {
            self.visible = write.table;
        }
        outcomes.extend(write.repliers.into_iter().map(|r| (r, told.clone())));
    }

    pub fn is_idle(&self) -> bool {
        self.write.is_none() && self.waiting.is_empty()
    }
}

fn parse(bytes: &[u8]) -> Result<Table, String> {
    let broken = |error| {
        format!("{FILE} is broken ({error}): repair it, or remove it to start without config items")
    };
    let file: KvFile<'_> = serde_json::from_slice(bytes).map_err(broken)?;
    Ok(file.config_table.into_owned())
}

/// What the limits count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Size {
    entries: usize,
    bytes: usize,
}

impl Size {
    fn of(table: &Table) -> Self {
        let mut size = Size::default();
        for (namespace, items) in table {
            size.entries += items.len().max(1);
            size.bytes += namespace.len();
            size.bytes += items.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        }
        size
    }
}

fn apply(
    table: &mut Table,
    size: &mut Size,
    change: KvChange,
    limits: &Limits,
) -> Result<(), Refusal> {
    let KvChange {
        namespace,
        key,
        value,
    } = change;
    let Some(value) = value else {
        if let Some(items) = table.get_mut(&namespace)
            && let Some(old) = items.remove(&key)
        {
            size.bytes -= key.len() + old.len();
            size.entries -= usize::from(!items.is_empty());
        }
        return Ok(());
    };
    let items = table.get(&namespace);
    let old = items.and_then(|items| items.get(&key));
    let new_namespace = items.map_or(namespace.len(), |_| 0);
    let replaced = old.map_or(0, |old| key.len() + old.len());
    let takes_entry = old.is_none() && items.is_none_or(|items| !items.is_empty());
    let next = Size {
        entries: size.entries + usize::from(takes_entry),
        bytes: size.bytes - replaced + new_namespace + key.len() + value.len(),
    };
    if next.entries > limits.kv_entries_max && takes_entry {
        let max = limits.kv_entries_max;
        return Err(Refusal::KvEntries { max });
    }
    if next.bytes > limits.kv_bytes_max && next.bytes > size.bytes {
        let max = limits.kv_bytes_max;
        return Err(Refusal::KvBytes { max });
    }
    *size = next;
    table.entry(namespace).or_default().insert(key, value);
    Ok(())
}
