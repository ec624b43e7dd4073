//! Picks the subcommand; nothing else.

use std::process::ExitCode;

use orbitmq::cli::{self, Command, EXIT_FAILED, Refusal};
use orbitmq::serve::{self, Failure};
use orbitmq::{check, config, loadgen};

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
        Command::Standalone(config, salvage) | Command::Broker(config, salvage) => {
            ended(serve::serve(&config, salvage))
        }
        Command::Namesrv(config) => ended(serve::serve(&config, false)),
        Command::StoreCheck(args) => check::run(&args),
        Command::Bench(bench) => measured(loadgen::run(&bench.load())),
        Command::Ceiling(args) => measured(loadgen::ceiling::run(&args.ceiling())),
    }
}

fn measured(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orbitmq: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
