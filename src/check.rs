//! `store check`: takes the lock of a store that is not in use, reads all of it and says what a
//! broker would find. Never writes to the store.
//!
//! Not here: what is right and what is damage (`store::check`).

use crate::base::ShardId;
use crate::base::time::utc;
use crate::broker::offsets::Offsets;
use crate::broker::record::Record;
use crate::cli::{EXIT_CONFIG, EXIT_FAILED, StoreCheck};
use crate::serve::{Meta, read_meta};
use crate::shard::checks::hold;
use crate::shard::dir::FsDir;
use crate::store::check::{Damage, Fault, Identity, Summary, check, log_bytes};
use crate::store::record::Kind;
use crate::store::recovery::Replayed;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Why there is no table.
enum Failure {
    /// Something else has to be mended before the store can be looked at.
    Unreadable(String),
    Damaged(String),
}

/// Runs the subcommand; gives the exit code.
pub fn run(args: &StoreCheck) -> ExitCode {
    match check_store(&args.dir) {
        Ok(table) => crate::cli::say(&table),
        Err(Failure::Damaged(what)) => {
            eprintln!("orbitmq: {what}");
            ExitCode::from(EXIT_FAILED)
        }
        Err(Failure::Unreadable(why)) => {
            eprintln!("orbitmq: {why}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// A shard as the table shows it.
struct Checked {
    summary: Summary,
    offsets: usize,
}

fn check_store(data: &Path) -> Result<String, Failure> {
    let meta = read_meta(data).map_err(Failure::Unreadable)?;
    let place = data.display();
    let none = format!("{place} has no meta.toml, so it is no store: name what --data names");
    let meta = meta.ok_or(Failure::Unreadable(none))?;
    let _lock = hold(data).map_err(Failure::Unreadable)?;
    let dirs: Vec<_> = (0..meta.shards)
        .map(|shard| {
            (
                shard,
                FsDir::existing(&data.join(format!("shard-{shard:02}"))),
            )
        })
        .collect();
    let unreadable = |error: crate::base::DiskError| Failure::Unreadable(error.to_string());
    let mut bytes = 0;
    for (_, dir) in &dirs {
        bytes += log_bytes(dir).map_err(unreadable)?;
    }
    let bar = bar(bytes);
    let mut checked = Vec::new();
    for (shard, dir) in &dirs {
        checked.push(check_shard(*shard, dir, &meta, &bar)?);
    }
    bar.finish_and_clear();
    Ok(table(&checked))
}

/// Shown on a terminal only.
fn bar(bytes: u64) -> ProgressBar {
    let form = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(form).expect("a fixed template");
    ProgressBar::new(bytes).with_style(style)
}

fn check_shard(
    shard: u16,
    dir: &FsDir,
    meta: &Meta,
    bar: &ProgressBar,
) -> Result<Checked, Failure> {
    let identity = Identity {
        shard: ShardId(shard),
        store_id: meta.store_id,
        segment_bytes: meta.segment_bytes,
    };
    let mut offsets = Offsets::default();
    let mut apply = |replayed: Replayed<'_>| match replayed {
        Replayed::System {
            kind: Kind::ConsumerOffsets,
            version,
            payload,
        } => offsets.apply(version, payload),
        Replayed::System {
            kind: Kind::Control,
            payload,
            ..
        } => match Record::decode(payload) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
        _ => Ok(()),
    };
    let before = bar.position();
    let mut progress = |read| bar.set_position(before + read);
    match check(dir, identity, &mut apply, &mut progress) {
        Ok(summary) => Ok(Checked {
            summary,
            offsets: offsets.len(),
        }),
        Err(Fault::Disk(error)) => Err(Failure::Unreadable(format!("shard {shard}: {error}"))),
        Err(Fault::Damage(damage)) => Err(Failure::Damaged(describe(shard, &damage))),
    }
}

fn describe(shard: u16, damage: &Damage) -> String {
    let Damage {
        file,
        range,
        what,
        remedy,
    } = damage;
    let range = range.map_or(String::new(), |(from, to)| {
        format!(", log offsets {} to {}", from.0, to.0)
    });
    format!("shard {shard}: shard-{shard:02}/{file}{range}: {what}. {remedy}")
}

fn table(shards: &[Checked]) -> String {
    let mut out = format!(
        "{:>5} {:>14} {:>10} {:>12} {:>8} {:>8}  {:<23}  {:<23}\n",
        "shard",
        "log bytes",
        "batches",
        "messages",
        "queues",
        "offsets",
        "first stored",
        "last stored"
    );
    let mut notes = String::new();
    for (shard, checked) in shards.iter().enumerate() {
        let s = &checked.summary;
        let (first, last) = match s.times {
            Some((first, last)) => (utc(first), utc(last)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let (bytes, batches, messages, queues) = (s.bytes, s.batches, s.messages, s.queues);
        let offsets = checked.offsets;
        let row = writeln!(
            out,
            "{shard:>5} {bytes:>14} {batches:>10} {messages:>12} {queues:>8} {offsets:>8}  \
             {first:<23}  {last:<23}"
        );
        row.expect("a string takes all");
        for note in &s.notes {
            writeln!(notes, "shard {shard}: {note}").expect("a string takes all");
        }
    }
    out + &notes + "no damage found\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_store_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let Err(Failure::Unreadable(why)) = check_store(dir.path()) else {
            panic!("an empty directory is no store")
        };
        assert!(why.contains("no meta.toml"), "{why}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
