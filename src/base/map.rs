//! Hash tables with a fixed seed: the same history gives the same table, and iteration order, in
//! every run. Peers choose many of our keys, so tables are bounded by their owners.

/// A hash map whose order depends only on its history.
pub type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;
/// A hash set whose order depends only on its history.
pub type Set<K> = hashbrown::HashSet<K, foldhash::fast::FixedState>;
