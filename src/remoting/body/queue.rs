//! A queue's full name, as bodies carry it.

use serde::{Deserialize, Deserializer, Serialize, de};

use super::json;

/// `MessageQueue`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageQueue {
    pub broker_name: String,
    pub queue_id: i32,
    pub topic: String,
}

/// For `deserialize_with`: a map keyed by queues, whose keys [`json::relax`] turned into strings.
pub(super) fn queue_map<'de, D, V>(deserializer: D) -> Result<Vec<(MessageQueue, V)>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Entries<V>(std::marker::PhantomData<V>);

    impl<'de, V: Deserialize<'de>> de::Visitor<'de> for Entries<V> {
        type Value = Vec<(MessageQueue, V)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map keyed by queues")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, V>()? {
                let queue = json::from_slice(key.as_bytes()).map_err(de::Error::custom)?;
                entries.push((queue, value));
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_map(Entries(std::marker::PhantomData))
}
