//! Picks the subcommand; nothing else.

use std::process::ExitCode;

use orbitmq::cli::{self, Command, EXIT_CONFIG, EXIT_FAILED, Refusal};
use orbitmq::loadgen::report::verb;
use orbitmq::serve::{self, Failure};
use orbitmq::{admin, check, config, loadgen};

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
        Command::Completions(script) => cli::say(&script),
        Command::Standalone(config, salvage) | Command::Broker(config, salvage) => {
            ended(serve::serve(&config, salvage))
        }
        Command::Namesrv(config) => ended(serve::serve(&config, false)),
        Command::StoreCheck(args) => check::run(&args),
        Command::Admin(args) => admin::run(&args),
        Command::Bench(plan) => ExitCode::from(loadgen::bench(&plan) as u8),
        Command::Ceiling(ceiling) => match loadgen::ceiling::run(&ceiling) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("orbitmq: {error}");
                ExitCode::from(EXIT_FAILED)
            }
        },
        Command::Report(args) => written(verb::report(&args)),
        Command::Plot(args) => written(verb::plot(&args)),
    }
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn written(result: Result<(), verb::Failure>) -> ExitCode {
    let (code, why) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(verb::Failure::Asked(why)) => (EXIT_CONFIG, why),
        Err(verb::Failure::File(why)) => (EXIT_FAILED, why),
    };
    eprintln!("orbitmq: {why}");
    ExitCode::from(code)
}
