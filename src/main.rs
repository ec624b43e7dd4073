//! Picks the subcommand; nothing else.

use std::process::ExitCode;

use orbitmq::cli::{self, Command, EXIT_FAILED, Refusal};
use orbitmq::config;

fn main() -> ExitCode {
    let command = match cli::parse() {
        Ok(command) => command,
        Err(refusal) => return refusal.report(),
    };
    match command {
        Command::Explain(key) => match config::explain(key.as_deref()) {
            Ok(text) => cli::say(&text),
            Err(error) => Refusal::Config(error).report(),
        },
        Command::Version => cli::say(&cli::version()),
        Command::Standalone(_)
        | Command::Broker(_)
        | Command::Namesrv(_)
        | Command::StoreCheck(_)
        | Command::Bench(_) => {
            eprintln!("orbitmq: this build has only `config explain` and `version`");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
