//! Ctrl-C and SIGTERM while a load runs: the first ends it early, and what was measured until then
//! is shown and saved; before there is anything to save, and at the second, the process ends at
//! once.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::progress::say;
use super::run::Verdict;
use crate::shard::signals;

const PREPARING: u8 = 0;
const MEASURING: u8 = 1;
const ASKED: u8 = 2;

/// Whether somebody wants the run to end.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// Asked by the signals that this process gets.
    ///
    /// # Errors
    /// A sentence.
    pub fn by_signals() -> Result<Interrupt, String> {
        let interrupt = Interrupt::default();
        let asked = interrupt.clone();
        signals::watch(move || {
            match asked.ask() {
                Ok(()) => {
                    say("interrupted: ends with what is on its way; a second signal ends at once")
                }
                Err(why) => {
                    say(&format!("orbitmq: {why}"));
                    exit(Verdict::Void as i32);
                }
            }
            true
        })?;
        Ok(interrupt)
    }

    /// From here on there is something to save.
    pub fn measuring(&self) {
        let states = (Ordering::AcqRel, Ordering::Acquire);
        let _ = (self.0).compare_exchange(PREPARING, MEASURING, states.0, states.1);
    }

    /// Asks for the end.
    ///
    /// # Errors
    /// Why there is nothing to wait for.
    pub fn ask(&self) -> Result<(), &'static str> {
        let states = (Ordering::AcqRel, Ordering::Acquire);
        let before = (self.0).compare_exchange(MEASURING, ASKED, states.0, states.1);
        match before {
            Ok(_) => Ok(()),
            Err(PREPARING) => Err("interrupted before anything was measured"),
            Err(_) => Err("ended at once by a second signal: not everything is saved"),
        }
    }

    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire) == ASKED
    }
}
