//! The pieces of the message path, each alone: `cargo bench --bench micro -- --quick`.
//!
//! Before a piece is timed it is checked for allocations: a message must cause none
//! on its way. Deliberately not here: the mesh, whose channels live inside the executors; its cost
//! shows in a run with two shards.

use criterion::{Criterion, criterion_group, criterion_main};

mod count;
mod header;
mod index;
mod record;
mod way;

#[global_allocator]
static ALLOCATOR: count::Counting = count::Counting;

fn pieces(c: &mut Criterion) {
    header::benches(c);
    record::benches(c);
    index::benches(c);
    way::benches(c);
}

criterion_group!(benches, pieces);
criterion_main!(benches);
