//! What people look at: an [`Outcome`](crate::loadgen::outcome::Outcome) as a table, as
//! comma-separated values, as pictures and as a page; recorded tables as charts.
//!
//! Always: whatever an outcome holds is shown or left out, never a panic; text that came from
//! outside is escaped for where it goes. Deliberately not here: measuring, and judging whether a
//! run counts (the outcome says so). `plotters` draws neither two themes nor text that a browser
//! sets in the reader's font, so charts are written as SVG directly.

mod bars;
pub mod chart;
mod compare;
mod csv;
mod graphs;
mod page;
mod scale;
mod table;
mod units;
pub mod verb;

pub use csv::csv;
pub use graphs::svg;
pub use page::{html, markdown};
pub use table::table;

#[cfg(test)]
mod tests;
