//! When messages are due, and chance from a seed.
//!
//! What always holds: the schedule depends on the seed and the rate alone. A message that cannot be
//! sent in time keeps the moment it was due; nothing is skipped or moved.

const MS_NS: u64 = 1_000_000;

/// SplitMix64 (Steele, Lea, Flood 2014): every seed gives a full period of 2^64.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        Chance { state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly in `0 < x <= 1`.
    pub fn share(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// With mean 1.
    pub fn exponential(&mut self) -> f64 {
        -self.share().ln()
    }
}

/// The moments at which one thread's requests are due.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Of the next request, nanoseconds of the run's clock.
    next: f64,
    interval: f64,
    poisson: Option<Chance>,
}

impl Pacer {
    /// `per_second` requests from `start` on; `phase` (0 to 1) of an interval later, so that
    /// threads take turns.
    pub fn new(start: u64, per_second: f64, phase: f64, poisson: Option<Chance>) -> Self {
        let interval = 1e9 / per_second;
        let mut pacer = Pacer {
            next: start as f64,
            interval,
            poisson,
        };
        match pacer.poisson {
            Some(_) => pacer.advance(),
            None => pacer.next += interval * phase,
        }
        pacer
    }

    pub fn due(&self) -> u64 {
        self.next as u64
    }

    pub fn advance(&mut self) {
        let steps = self.poisson.as_mut().map_or(1.0, Chance::exponential);
        self.next += self.interval * steps;
    }
}

/// When messages for later are to be delivered, nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Later {
    /// So long after they were to be sent.
    After(u64),
    /// At this moment of the run's clock, or at once when it is over.
    At(u64),
}

impl Later {
    /// When a message that was to be sent at this moment is to be delivered; whole milliseconds, as
    /// brokers are told them.
    pub fn due(self, sent: u64) -> u64 {
        let due = match self {
            Later::After(nanos) => sent + nanos,
            Later::At(moment) => moment.max(sent),
        };
        due.next_multiple_of(MS_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests due in the first second.
    fn due_in_a_second(mut pacer: Pacer) -> Vec<u64> {
        let mut due = Vec::new();
        while pacer.due() < 1_000_000_000 {
            due.push(pacer.due());
            pacer.advance();
        }
        due
    }

    #[test]
    fn uniform_is_even() {
        let due = due_in_a_second(Pacer::new(0, 1000.0, 0.5, None));
        assert_eq!(due.len(), 1000);
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] == 1_000_000));
        assert_eq!(due[0], 500_000);
    }

    #[test]
    fn poisson_has_the_rate_and_the_spread() {
        let poisson = || Pacer::new(0, 10_000.0, 0.0, Some(Chance::new(7)));
        let due = due_in_a_second(poisson());
        assert!((9_600..10_400).contains(&due.len()), "{}", due.len());
        let gaps: Vec<f64> = due
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.95..1.05).contains(&(variance.sqrt() / mean)));
        assert_eq!(due, due_in_a_second(poisson()), "a seed repeats");
    }

    #[test]
    fn later_is_in_whole_milliseconds() {
        assert_eq!(Later::After(5 * MS_NS).due(2 * MS_NS), 7 * MS_NS);
        assert_eq!(Later::After(5 * MS_NS).due(2 * MS_NS + 1), 8 * MS_NS);
        assert_eq!(Later::At(9 * MS_NS).due(1), 9 * MS_NS);
        assert_eq!(Later::At(9 * MS_NS).due(10 * MS_NS), 10 * MS_NS);
    }
}
