//! The grammar of `bench delay`, `transaction`, `pop` and `query`: loads of what brokers do besides
//! keeping messages.

use std::num::{NonZeroU32, NonZeroU64};

use clap::{Args, ValueEnum};

use super::bench::{BothArgs, PaceArgs, RunArgs};
use crate::loadgen::plan::{By, Delay, Due, LEVELS_MS, Plan, Pop, Query, Transaction, Workload};

/// Where nothing is said.
const DELAY_MS: u64 = 1000;

/// `bench delay`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct DelayArgs {
    #[command(flatten)]
    both: BothArgs,
    /// Deliver each so long after it was to be sent [default: 1000]
    #[arg(long, value_name = "MS", conflicts_with_all = ["delay_level", "due_at_once"])]
    delay_ms: Option<u64>,
    /// The same by a delay level of brokers as shipped, 1 to 18
    #[arg(long, value_name = "N", conflicts_with = "due_at_once",
          value_parser = clap::value_parser!(u64).range(1..=LEVELS_MS.len() as u64))]
    delay_level: Option<u64>,
    /// Deliver all together, so long after the load began
    #[arg(long, value_name = "MS")]
    due_at_once: Option<u64>,
    /// Only send
    #[arg(long)]
    no_consume: bool,
}

/// `bench transaction`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct TransactionArgs {
    #[command(flatten)]
    both: BothArgs,
    /// Roll back so many of a hundred, and commit the others
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    rollback: u32,
    /// End none; nothing is consumed then
    #[arg(long, conflicts_with = "rollback")]
    leave_open: bool,
    /// Only send and end
    #[arg(long)]
    no_consume: bool,
}

/// `bench pop`: --members connections pop, each with --in-flight pops [default: 8] of up to
/// --pull-batch messages.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct PopArgs {
    #[command(flatten)]
    both: BothArgs,
    /// Send meanwhile; otherwise what is there is popped
    #[arg(long)]
    send: bool,
    /// What is not acknowledged within this time comes again
    #[arg(long, value_name = "MS", default_value = "60000")]
    invisible_ms: NonZeroU64,
    /// Acknowledge so many of one pop in one request
    #[arg(long, value_name = "N", default_value = "1")]
    ack_batch: NonZeroU32,
    /// Acknowledge nothing
    #[arg(long, conflicts_with = "ack_batch")]
    no_ack: bool,
}

/// `bench query`: of messages drawn by chance before the load begins.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct QueryArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    pace: PaceArgs,
    /// What a query names: a key needs messages sent with --keys
    #[arg(long, value_enum, default_value_t = Name::Key)]
    by: Name,
    /// Messages of each broker that are asked for, one after the other and again
    #[arg(long, value_name = "N", default_value = "2000")]
    samples: NonZeroU32,
}

/// By what a message is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Key,
    UniqueKey,
    Id,
    /// Where its queue stood when it was stored.
    Time,
}

impl QueryArgs {
    pub fn plan(self) -> Plan {
        let by = match self.by {
            Name::Key => By::Key,
            Name::UniqueKey => By::UniqueKey,
            Name::Id => By::Id,
            Name::Time => By::Time,
        };
        let samples = self.samples.get() as usize;
        let mut plan = self.run.plan(Workload::Query(Query { by, samples }));
        plan.rate = self.pace.rate();
        plan
    }
}

impl DelayArgs {
    pub fn plan(self) -> Plan {
        let due = match (self.delay_level, self.due_at_once) {
            (Some(level), _) => Due::Level(level as usize),
            (None, Some(ms)) => Due::AtOnce(ms),
            (None, None) => Due::After(self.delay_ms.unwrap_or(DELAY_MS)),
        };
        let consume = !self.no_consume;
        self.both.plan(Workload::Delay(Delay { due, consume }))
    }
}

impl TransactionArgs {
    pub fn plan(self) -> Plan {
        self.both.plan(Workload::Transaction(Transaction {
            rollback_percent: (!self.leave_open).then_some(self.rollback),
            consume: !self.no_consume && !self.leave_open,
        }))
    }
}

impl PopArgs {
    pub fn plan(self) -> Plan {
        self.both.plan(Workload::Pop(Pop {
            invisible_ms: i64::try_from(self.invisible_ms.get()).unwrap_or(i64::MAX),
            ack_batch: match self.no_ack {
                true => 0,
                false => self.ack_batch.get() as usize,
            },
            sends: self.send,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::tests::plan;
    use super::super::tests::check_refused;
    use super::*;

    fn check(line: &str, expected: Workload) {
        let plan = plan(&format!("orbitmq bench {line}"));
        assert_eq!(plan.workload, expected, "{line}");
        assert_eq!(plan.check(), Ok(()), "{line}");
    }

    fn refused(line: &str, words: &str) {
        let error = plan(&format!("orbitmq bench {line}")).check().unwrap_err();
        assert!(error.contains(words), "{line}: {error}");
    }

    #[test]
    fn loads_are_told_apart() {
        let delay = |due, consume| Workload::Delay(Delay { due, consume });
        check("delay", delay(Due::After(1000), true));
        check("delay --delay-ms 5 --verify", delay(Due::After(5), true));
        check("delay --delay-level 18", delay(Due::Level(18), true));
        check(
            "delay --due-at-once 9 --no-consume --body-bytes 9",
            delay(Due::AtOnce(9), false),
        );
        let transaction = |rollback_percent, consume| {
            Workload::Transaction(Transaction {
                rollback_percent,
                consume,
            })
        };
        check("transaction --rate 5", transaction(Some(0), true));
        check(
            "transaction --rollback 100 --no-consume",
            transaction(Some(100), false),
        );
        check("transaction --leave-open", transaction(None, false));
        let pop = |ack_batch, sends| {
            Workload::Pop(Pop {
                invisible_ms: 60_000,
                ack_batch,
                sends,
            })
        };
        let query = |by, samples| Workload::Query(Query { by, samples });
        check("query --rate 9", query(By::Key, 2000));
        check("query --by unique-key", query(By::UniqueKey, 2000));
        check("query --by id --samples 5", query(By::Id, 5));
        check("query --by time --seconds 3", query(By::Time, 2000));
        check("pop", pop(1, false));
        check("pop --send --rate 5 --ack-batch 8 --verify", pop(8, true));
        check("pop --no-ack", pop(0, false));
    }

    #[test]
    fn contradictions_are_named() {
        check_refused("orbitmq bench delay --delay-level 19", "1..=18");
        check_refused(
            "orbitmq bench delay --delay-ms 1 --due-at-once 1",
            "cannot be used with",
        );
        check_refused(
            "orbitmq bench transaction --leave-open --rollback 1",
            "cannot be used with",
        );
        check_refused(
            "orbitmq bench pop --no-ack --ack-batch 2",
            "cannot be used with",
        );
        refused("delay --verify --no-consume", "does not do both");
        refused("transaction --verify --leave-open", "does not do both");
        refused("transaction --rollback 101", "0 to 100");
        refused("transaction --rollback 100", "--no-consume");
        refused("delay --batch 2", "one by one");
        refused("pop --verify", "does not do both");
        refused("pop --rate 5", "--send");
        refused("pop --pull-batch 33", "at most 32");
    }
}
