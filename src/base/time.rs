//! Time is an argument: the driver reads the clock once a turn and passes it in.

/// Milliseconds since the process (or the simulation) began; never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(pub u64);

/// One reading of both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    pub mono: Mono,
    /// Milliseconds since 1970, as messages carry them. May jump; the store never lets its own
    /// timestamps go back.
    pub wall_ms: i64,
}

impl Mono {
    pub fn after_ms(self, ms: u64) -> Mono {
        Mono(self.0.saturating_add(ms))
    }

    pub fn since_ms(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
