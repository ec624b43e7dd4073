//! The grammar of `bench ceiling`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::bench::Codec;
use crate::loadgen::ceiling::{Ceiling, Part};

/// `bench ceiling`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CeilingArgs {
    /// Measure one of the three only
    #[arg(long, value_enum, value_name = "PART")]
    pub only: Option<CeilingPart>,
    /// Directory on the disk to measure; nothing is left there
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub data: PathBuf,
    /// Cores of server and client [default: the first two, not pinned if there is one only]
    #[arg(long, value_name = "A,B", value_parser = core_pair)]
    pub cores: Option<(usize, usize)>,
    /// Seconds for each point; those of the disk take a fifth [default: 1.2, with --quick 0.4]
    #[arg(long, value_name = "S", value_parser = point_time)]
    pub seconds: Option<Duration>,
    /// Everything in 20 seconds
    #[arg(long)]
    pub quick: bool,
    /// Header codec of the frames
    #[arg(long, value_enum, default_value_t = Codec::Json)]
    pub codec: Codec,
    /// Report as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// One of the three things `bench ceiling` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CeilingPart {
    /// Sockets without a broker.
    Loopback,
    /// Block size, depth and sync.
    Disk,
    /// Receive, copy, CRC, group commit, reply.
    Pipeline,
}

impl CeilingArgs {
    /// What these arguments ask for.
    pub fn ceiling(self) -> Ceiling {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        let cores = match (self.cores, ids.as_slice()) {
            (Some((server, client)), _) => (Some(server), Some(client)),
            (None, [first, second, ..]) => (Some(first.id), Some(second.id)),
            (None, _) => (None, None),
        };
        let time = if self.quick {
            CEILING_QUICK_TIME
        } else {
            CEILING_TIME
        };
        Ceiling {
            only: self.only.map(|part| match part {
                CeilingPart::Loopback => Part::Loopback,
                CeilingPart::Disk => Part::Disk,
                CeilingPart::Pipeline => Part::Pipeline,
            }),
            data: self.data,
            cores,
            time: self.seconds.unwrap_or(time),
            codec: self.codec.into(),
            json: self.json,
        }
    }
}

const CEILING_TIME: Duration = Duration::from_millis(1200);
const CEILING_QUICK_TIME: Duration = Duration::from_millis(400);
/// An hour for each point is more than anybody means.
const POINT_SECONDS_MAX: f64 = 3600.0;

fn core_pair(text: &str) -> Result<(usize, usize), String> {
    let pair = text.split_once(',').and_then(|(server, client)| {
        let core = |text: &str| text.trim().parse().ok();
        Some((core(server)?, core(client)?))
    });
    pair.ok_or_else(|| format!("{text} is not two cores, as in 0,1"))
}

fn point_time(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=POINT_SECONDS_MAX).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!(
            "{text} is not between 0.01 and {POINT_SECONDS_MAX} seconds"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;
    use crate::cli::tests::{check_refused, run};

    #[test]
    fn the_ceiling_has_cores_and_times() {
        let line = "orbitmq bench ceiling --only disk --cores 3,1 --seconds 0.5 --codec binary";
        let Ok(Command::Ceiling(ceiling)) = run(line) else {
            panic!("{line}")
        };
        assert_eq!(
            (ceiling.only, ceiling.cores, ceiling.time),
            (
                Some(Part::Disk),
                (Some(3), Some(1)),
                Duration::from_millis(500)
            )
        );
        check_refused("orbitmq bench ceiling --cores 3", "two cores");
        check_refused("orbitmq bench ceiling --seconds 0", "--seconds");
        check_refused("orbitmq bench ceiling --only cpu", "--only");
    }
}
