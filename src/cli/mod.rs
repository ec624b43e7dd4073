//! The command line: the grammar of every subcommand, and from the arguments one [`Command`].
//!
//! What always holds: a command that is returned has been checked, so whoever runs it meets only
//! run-time failures. Exit codes are 0 for success, [`EXIT_FAILED`], [`EXIT_CONFIG`],
//! and those of a [`Verdict`](crate::loadgen::Verdict).
//! Deliberately not here: doing what a command says.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::admin::Admin;
use crate::config::{Config, ConfigError, Flag, Host, Origin, Problem, Role, Sources};
use crate::loadgen::ceiling::Ceiling;
use crate::loadgen::plan::Plan;
use crate::loadgen::report::verb::{PlotArgs, ReportArgs};
use bench::Bench;

mod bench;
mod ceiling;
mod feature;

/// The command ran and failed.
pub const EXIT_FAILED: u8 = 1;
/// The arguments, the configuration or the machine do not allow the command to start.
pub const EXIT_CONFIG: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  orbitmq standalone                              name server on 9876, broker on 10911
  orbitmq standalone --data /var/lib/orbitmq --set flushDiskType=SYNC_FLUSH
  orbitmq namesrv --listen 0.0.0.0:9876 --insecure
  orbitmq broker --namesrv '10.0.0.1:9876;10.0.0.2:9876' --listen 10.0.0.5:10911 --insecure
  orbitmq broker --config broker.conf             a RocketMQ broker.conf, or TOML
  orbitmq config explain flushDiskType
  orbitmq bench send --topic T --body-bytes 1024 --seconds 30
  orbitmq admin progress my-group                 how far a group is, and how much it lags
  orbitmq store check /var/lib/orbitmq

Exit codes: 0 done, 1 failed while running, 2 bad arguments, configuration or environment,
3 a load whose figures are void, 4 what was asked for is not there.";

const SERVER_HELP: &str = "\
Keys come from defaults, then the file, then the environment (ORBITMQ_FLUSH_DISK_TYPE=SYNC_FLUSH),
then flags; the last one wins. `orbitmq config explain` lists all keys.";

#[derive(Debug, Parser)]
#[command(name = "orbitmq", version, about, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a name server and a broker in one process
    #[command(after_help = SERVER_HELP)]
    Standalone {
        #[command(flatten)]
        server: ServerFlags,
        /// Address the name server listens on [default: 127.0.0.1:9876]
        #[arg(long, value_name = "ADDR")]
        namesrv_listen: Option<String>,
        #[command(flatten)]
        damage: Damage,
    },
    /// Run a broker that registers with name servers
    #[command(after_help = SERVER_HELP)]
    Broker {
        #[command(flatten)]
        server: ServerFlags,
        /// Name servers, separated by `;` [default: $NAMESRV_ADDR]
        #[arg(long, short = 'n', value_name = "LIST")]
        namesrv: Option<String>,
        #[command(flatten)]
        damage: Damage,
    },
    /// Run a name server
    #[command(after_help = SERVER_HELP)]
    Namesrv {
        #[command(flatten)]
        server: ServerFlags,
        /// The same as --listen, as `standalone` calls it
        #[arg(long, value_name = "ADDR", conflicts_with = "listen")]
        namesrv_listen: Option<String>,
    },
    /// Look at a store while no broker uses it
    #[command(subcommand)]
    Store(StoreVerb),
    /// Ask about configuration keys
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Look at a cluster and change it: topics, groups, messages
    Admin(Box<Admin>),
    /// Put load on a cluster, this one or Java RocketMQ, and measure it
    #[command(subcommand)]
    Bench(Box<Bench>),
    /// Print a script that completes commands: `orbitmq completions bash >> ~/.bashrc`
    Completions { shell: clap_complete::Shell },
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
struct ServerFlags {
    /// Configuration: TOML if it ends in .toml, else RocketMQ properties
    #[arg(long, short = 'c', value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:10911, a name server 127.0.0.1:9876]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Directory of everything on disk [default: ~/orbitmq, a name server ~/orbitmq-namesrv]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Allow listening beyond loopback: there is no authentication yet
    #[arg(long)]
    insecure: bool,
    /// Cores to run on: a count (2), a list (0,2) or a range (1-3)
    #[arg(long, value_name = "CORES")]
    cores: Option<String>,
    /// Form of the log lines: human or json
    #[arg(long, value_name = "FORM")]
    log_format: Option<String>,
    /// Set any key; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct Damage {
    /// Start once behind damage in the log, and report every queue range that is lost
    #[arg(long)]
    salvage: bool,
}

#[derive(Debug, Subcommand)]
enum StoreVerb {
    /// Read the whole store, check every record and say what a broker would recover
    Check(StoreCheck),
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Print default, unit, range and effect of a key, or list all keys
    Explain {
        /// A key of ours or of RocketMQ
        key: Option<String>,
    },
}

/// `store check`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct StoreCheck {
    /// The store: what `--data` or storePathRootDir named
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// What the command line asks for, checked.
#[derive(Clone, Debug)]
pub enum Command {
    /// Run name server and broker; with true, behind damage.
    Standalone(Box<Config>, bool),
    /// Run a broker; with true, behind damage.
    Broker(Box<Config>, bool),
    /// Run a name server.
    Namesrv(Box<Config>),
    /// Check a store that is not in use.
    StoreCheck(StoreCheck),
    /// Explain one key or all.
    Explain(Option<String>),
    /// Ask a cluster, or change it.
    Admin(Box<Admin>),
    /// Put load on a cluster.
    Bench(Box<Plan>),
    /// Measure what the host allows.
    Ceiling(Ceiling),
    /// Turn recorded runs into a page.
    Report(ReportArgs),
    /// Draw a table as a chart.
    Plot(PlotArgs),
    /// Print this script for a shell.
    Completions(String),
    /// Print the version.
    Version,
}

/// Why there is no command to run.
#[derive(Debug)]
pub enum Refusal {
    /// Help was asked for, or the arguments are not in the grammar.
    Usage(clap::Error),
    /// The configuration is wrong.
    Config(ConfigError),
}

impl Refusal {
    /// Says it to the user and gives the exit code that goes with it.
    pub fn report(&self) -> ExitCode {
        match self {
            Refusal::Usage(error) => {
                // A closed pipe is the reader's choice, not our failure.
                let _ = error.print();
                if error.use_stderr() {
                    ExitCode::from(EXIT_CONFIG)
                } else {
                    ExitCode::SUCCESS
                }
            }
            Refusal::Config(error) => {
                eprintln!("orbitmq: {error}");
                ExitCode::from(EXIT_CONFIG)
            }
        }
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Refusal {
        Refusal::Config(error)
    }
}

fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "orbitmq", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The line `orbitmq version` prints.
pub fn version() -> String {
    format!(
        "orbitmq {} (speaks the protocol of RocketMQ 5.5.0)\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Prints an answer. A reader that has gone, as in `… | head`, is no failure of ours.
pub fn say(text: &str) -> ExitCode {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Reads the arguments and the environment of this process, and the file they name.
///
/// # Errors
/// Help was asked for, or something is wrong with what was given.
pub fn parse() -> Result<Command, Refusal> {
    let environment = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    parse_from(std::env::args_os(), environment, Host::detect())
}

/// As [`parse`], with the process's surroundings as arguments.
///
/// # Errors
/// As [`parse`].
pub fn parse_from(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(String, String)>,
    host: Host,
) -> Result<Command, Refusal> {
    let arguments = Arguments::try_parse_from(arguments).map_err(Refusal::Usage)?;
    let load = |role, server: ServerFlags, more: Option<Flag>| {
        let mut sources = Sources::new(role, host);
        sources.environment = environment;
        sources.file = server.config.as_ref().map(read_file).transpose()?;
        sources.flags = server.flags(role);
        sources.flags.extend(more);
        Ok::<_, ConfigError>(Box::new(Config::load(&sources)?))
    };
    Ok(match arguments.verb {
        Verb::Standalone {
            server,
            namesrv_listen,
            damage,
        } => {
            let more = namesrv_listen.map(|addr| set("--namesrv-listen", "namesrvListen", addr));
            Command::Standalone(load(Role::Standalone, server, more)?, damage.salvage)
        }
        Verb::Broker {
            server,
            namesrv,
            damage,
        } => {
            let more = namesrv.map(|list| set("--namesrv", "namesrvAddr", list));
            Command::Broker(load(Role::Broker, server, more)?, damage.salvage)
        }
        Verb::Namesrv {
            server,
            namesrv_listen,
        } => {
            let more = namesrv_listen.map(|addr| set("--namesrv-listen", "namesrvListen", addr));
            Command::Namesrv(load(Role::Namesrv, server, more)?)
        }
        Verb::Store(StoreVerb::Check(check)) => Command::StoreCheck(check),
        Verb::Config(ConfigVerb::Explain { key }) => Command::Explain(key),
        Verb::Admin(admin) => Command::Admin(admin),
        Verb::Bench(bench) => bench_command(*bench),
        Verb::Completions { shell } => Command::Completions(completions(shell)),
        Verb::Version => Command::Version,
    })
}

fn bench_command(bench: Bench) -> Command {
    match bench {
        Bench::Ceiling(args) => Command::Ceiling(args.ceiling()),
        Bench::Report(args) => Command::Report(args),
        Bench::Plot(args) => Command::Plot(args),
        load => {
            let plan = load.plan().expect("whatever draws is dealt with above");
            Command::Bench(Box::new(plan))
        }
    }
}

impl ServerFlags {
    /// The keys these flags set; `--set` first, because a flag with a name of its own says more.
    fn flags(self, role: Role) -> Vec<Flag> {
        let mut flags: Vec<Flag> = self
            .set
            .into_iter()
            .map(|(key, value)| set("--set", &key, value))
            .collect();
        let named = [
            ("--listen", role.listen_key(), self.listen),
            ("--data", "storePathRootDir", self.data),
            (
                "--insecure",
                "insecure",
                self.insecure.then(|| "true".to_owned()),
            ),
            ("--cores", "cores", self.cores),
            ("--log-format", "logFormat", self.log_format),
        ];
        for (flag, key, value) in named {
            flags.extend(value.map(|value| set(flag, key, value)));
        }
        flags
    }
}

fn set(flag: &'static str, key: &str, value: String) -> Flag {
    Flag {
        flag,
        key: key.to_owned(),
        value,
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn read_file(path: &PathBuf) -> Result<(String, String), ConfigError> {
    let shown = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((shown, text)),
        Err(error) => Err(ConfigError {
            origin: Origin::Flag("--config"),
            problem: Problem::Unreadable(format!("{shown}: {error}")),
        }),
    }
}

#[cfg(test)]
pub mod tests {
    use clap::CommandFactory;

    use super::*;

    pub fn run(line: &str) -> Result<Command, Refusal> {
        let host = Host {
            name: "mq1".to_owned(),
            home: "/home/a".to_owned(),
            cores: vec![0, 1],
            address: None,
        };
        let arguments = line.split(' ').map(OsString::from);
        parse_from(arguments, Vec::new(), host)
    }

    pub fn check_refused(line: &str, expected: &str) {
        let shown = match run(line) {
            Ok(command) => format!("{command:?}"),
            Err(Refusal::Usage(error)) => error.to_string(),
            Err(Refusal::Config(error)) => error.to_string(),
        };
        assert!(shown.contains(expected), "{line} gave {shown}");
    }

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_set_their_keys() {
        let line = "orbitmq standalone --listen 127.0.0.1:1 --namesrv-listen 127.0.0.1:2 \
                    --data /d --cores 1 --log-format json --set shards=3 --set listen=127.0.0.1:9";
        let Ok(Command::Standalone(config, false)) = run(line) else {
            panic!("{line}")
        };
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.namesrv_addr.0, ["127.0.0.1:2"]);
        assert_eq!(
            (config.shards, config.cores.0.as_slice()),
            (3, [0].as_slice())
        );
        assert_eq!(config.store_path_root_dir.to_str(), Some("/d"));

        let line = "orbitmq namesrv --listen 0.0.0.0:7 --insecure";
        let Ok(Command::Namesrv(config)) = run(line) else {
            panic!("{line}")
        };
        assert_eq!(config.namesrv_listen.to_string(), "0.0.0.0:7");

        let line = "orbitmq broker --namesrv a:1;b:2 --salvage";
        let Ok(Command::Broker(config, true)) = run(line) else {
            panic!("{line}")
        };
        assert_eq!(config.namesrv_addr.0, ["a:1", "b:2"]);
    }

    #[test]
    fn a_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.conf");
        std::fs::write(&path, "brokerName=x\nbogus=1\n").unwrap();
        let line = format!("orbitmq standalone --config {}", path.display());
        check_refused(&line, "b.conf:2: unknown key bogus");
        std::fs::write(&path, "brokerName=x\n").unwrap();
        let Ok(Command::Standalone(config, false)) = run(&line) else {
            panic!("{line}")
        };
        assert_eq!(config.broker_name, "x");
    }

    #[test]
    fn mistakes_are_named() {
        check_refused("orbitmq", "Usage");
        check_refused("orbitmq standalon", "standalone");
        check_refused("orbitmq standalone --set shards", "KEY=VALUE");
        check_refused(
            "orbitmq standalone --listen 0.0.0.0:1",
            "--listen: listen: 0.0.0.0:1",
        );
        check_refused("orbitmq standalone --listen 0.0.0.0:1", "--insecure");
        check_refused(
            "orbitmq standalone --config /nowhere.toml",
            "--config: cannot be read",
        );
        check_refused("orbitmq broker", "a broker needs a name server");
    }

    #[test]
    fn verbs_without_flags() {
        assert!(matches!(
            run("orbitmq store check /d"),
            Ok(Command::StoreCheck(_))
        ));
        assert!(matches!(
            run("orbitmq config explain"),
            Ok(Command::Explain(None))
        ));
    }
}
