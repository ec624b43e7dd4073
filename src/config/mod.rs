//! Configuration: every key once in one table, read from a file, the environment and flags into
//! plain fields, checked once at start.
//!
//! Defaults < file < environment (`ORBITMQ_<KEY>`) < flags. Reading is a pure function of
//! [`Sources`]; only [`Host::detect`] looks at the machine. What always holds: a [`Config`] that
//! exists is complete, in range, and does not open an unauthenticated port beyond loopback unless
//! told to. Deliberately not here: changing values while running, and a global configuration.

mod error;
mod explain;
mod foreign;
mod host;
mod keys;
mod settings;
mod source;
pub mod value;

use std::net::{IpAddr, SocketAddr};

pub use error::{ConfigError, Origin, Problem, nearest};
pub use explain::explain;
pub use host::Host;
pub use keys::{Config, KEYS, Key, Start};
use settings::Settings;
pub use value::{AddressList, CoreList, FlushDiskType, LogFormat, Shape};

/// What environment variables start with.
const ENVIRONMENT_PREFIX: &str = "ORBITMQ_";
/// Most shards a store gets by itself; more are for those who ask.
const SHARDS_DEFAULT_MAX: usize = 8;
/// What a record needs beyond its body: fixed fields, topic, properties (`spec/store.md`: at
/// most 32,767 bytes of properties) and the batch header, rounded up.
const RECORD_OVERHEAD_BYTES: u64 = 64 << 10;

/// What a process is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Name server and broker in one process.
    Standalone,
    /// A broker that registers with name servers elsewhere.
    Broker,
    /// A name server.
    Namesrv,
}

impl Role {
    /// The key that `--listen` and RocketMQ's `listenPort` and `bindAddress` speak of.
    pub fn listen_key(self) -> &'static str {
        match self {
            Role::Standalone | Role::Broker => "listen",
            Role::Namesrv => "namesrvListen",
        }
    }

    fn listens(self) -> &'static [&'static str] {
        match self {
            Role::Standalone => &["listen", "namesrvListen"],
            Role::Broker => &["listen"],
            Role::Namesrv => &["namesrvListen"],
        }
    }
}

/// A RocketMQ key that was given and is not needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Where it stands.
    pub origin: Origin,
    /// Its name.
    pub key: String,
    /// Why it is not needed, to follow the word "because".
    pub reason: &'static str,
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} is not needed because {}",
            self.origin, self.key, self.reason
        )
    }
}

/// One flag of the command line that sets a key.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As the user typed it, such as `--listen`.
    pub flag: &'static str,
    /// The key it sets.
    pub key: String,
    /// The text given for it.
    pub value: String,
}

/// Everything a configuration is made of.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What the process is started as.
    pub role: Role,
    /// Path and text of the configuration file.
    pub file: Option<(String, String)>,
    /// The environment, names and values; others' variables are passed over.
    pub environment: Vec<(String, String)>,
    /// The flags, in order.
    pub flags: Vec<Flag>,
    /// The machine.
    pub host: Host,
}

impl Sources {
    /// Sources that say nothing.
    pub fn new(role: Role, host: Host) -> Sources {
        Sources {
            role,
            file: None,
            environment: Vec::new(),
            flags: Vec::new(),
            host,
        }
    }
}

impl Config {
    /// Reads all sources in their order, fills in what they leave out and checks the whole.
    ///
    /// # Errors
    /// The first thing wrong: an unknown key, a value of the wrong form or range, a RocketMQ
    /// feature that is not there yet, or two values that do not go together.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let role = sources.role;
        let mut settings = Settings::default();
        let mut notices = Vec::new();
        if let Some((path, text)) = &sources.file {
            for entry in source::entries(path, text)? {
                let origin = Origin::File {
                    path: path.clone(),
                    line: entry.line,
                };
                settings.say(role, &entry.key, &entry.value, origin, &mut notices)?;
            }
        }
        for (name, value) in &sources.environment {
            if let Some(key) = environment_key(name) {
                let origin = Origin::Environment(name.clone());
                settings.say(role, &key, value, origin, &mut notices)?;
            }
        }
        for Flag { flag, key, value } in &sources.flags {
            settings.say(role, key, value, Origin::Flag(flag), &mut notices)?;
        }
        derive(&mut settings, sources)?;
        let config = Config::read(role, settings, notices)?;
        config.check()?;
        Ok(config)
    }

    /// Where the value of a key was said; what nobody said may give way to what a store on disk
    /// already is.
    pub fn origin(&self, key: &str) -> Origin {
        self.settings.origin(key)
    }

    /// The text that GET_BROKER_CONFIG (26) answers: `key=value` lines in RocketMQ's form
    /// (`MixAll.properties2String`), with the further names that mqadmin and the dashboard read.
    pub fn to_properties(&self) -> String {
        let root = self.store_path_root_dir.display();
        format!(
            "brokerRole=ASYNC_MASTER\ndeleteWhen=04\nstorePathCommitLog={root}\n\
             enableControllerMode=false\n{}",
            self.properties_of(self.listen)
        )
    }

    /// The text that GET_NAMESRV_CONFIG (319) answers.
    pub fn to_namesrv_properties(&self) -> String {
        self.properties_of(self.namesrv_listen)
    }

    /// All keys, and the listening address under RocketMQ's two names.
    fn properties_of(&self, listen: SocketAddr) -> String {
        let mut text = format!(
            "bindAddress={}\nlistenPort={}\n",
            listen.ip(),
            listen.port()
        );
        for key in KEYS {
            let value = self.settings.text(key.name).unwrap_or_default();
            text.push_str(key.name);
            text.push('=');
            text.push_str(value);
            text.push('\n');
        }
        text
    }

    /// Checks what one key cannot see alone.
    fn check(&self) -> Result<(), ConfigError> {
        let conflict = |key: &'static str, why: String| {
            let origin = self.origin(key);
            Err(ConfigError {
                origin,
                problem: Problem::Conflict { key, why },
            })
        };
        for &key in self.role.listens() {
            let listen = if key == "listen" {
                self.listen
            } else {
                self.namesrv_listen
            };
            if !listen.ip().is_loopback() && !self.insecure {
                return conflict(key, exposed(listen));
            }
        }
        if self.role == Role::Standalone
            && self.listen == self.namesrv_listen
            && self.listen.port() != 0
        {
            let why = format!(
                "broker and name server cannot both listen on {}",
                self.listen
            );
            return conflict("namesrvListen", why);
        }
        if self.role == Role::Broker && self.namesrv_addr.0.is_empty() {
            let why = "a broker needs a name server: `--namesrv host:9876`, or start \
                       `orbitmq standalone`, which has its own";
            return conflict("namesrvAddr", why.to_owned());
        }
        if self.role != Role::Namesrv && self.broker_ip1.is_unspecified() {
            let why = "no address of this host is known to clients; set the one they can reach";
            return conflict("brokerIP1", why.to_owned());
        }
        let record_bytes_max = self.max_message_size + RECORD_OVERHEAD_BYTES;
        if self.mapped_file_size_commit_log < record_bytes_max {
            let why = format!(
                "a segment of {} bytes cannot hold a message of maxMessageSize={}; \
                 it takes at least {record_bytes_max}",
                self.mapped_file_size_commit_log, self.max_message_size
            );
            return conflict("mappedFileSizeCommitLog", why);
        }
        Ok(())
    }
}

fn exposed(listen: SocketAddr) -> String {
    format!(
        "{listen} can be reached from other hosts and there is no authentication: anyone could \
         read and write everything. Add --insecure if that is meant, or listen on 127.0.0.1"
    )
}

/// The key an environment variable names: `ORBITMQ_FLUSH_DISK_TYPE`, `ORBITMQ_FLUSHDISKTYPE` and
/// `ORBITMQ_flushDiskType` are the same. Nothing for others' variables, among them those that
/// Kubernetes adds to every container when a service is called `orbitmq`.
fn environment_key(name: &str) -> Option<String> {
    let name = name.strip_prefix(ENVIRONMENT_PREFIX)?;
    if name.starts_with("SERVICE_") || name == "PORT" || name.starts_with("PORT_") {
        return None;
    }
    let plain = name.replace('_', "");
    let known = KEYS.iter().map(|key| key.name).chain(foreign::names());
    let known = known
        .into_iter()
        .find(|key| key.eq_ignore_ascii_case(&plain));
    Some(known.map_or(plain, str::to_owned))
}

/// Fills in the keys whose default depends on the host or on other keys.
fn derive(settings: &mut Settings, sources: &Sources) -> Result<(), ConfigError> {
    let host = &sources.host;
    let name = if value::is_name(&host.name) {
        host.name.as_str()
    } else {
        "broker-a"
    };
    settings.derive("brokerName", name.to_owned())?;
    // A name server beside a broker on one host has a directory, and a lock, of its own.
    let data = match sources.role {
        Role::Namesrv => "~/orbitmq-namesrv",
        Role::Standalone | Role::Broker => "~/orbitmq",
    };
    settings.derive("storePathRootDir", data.to_owned())?;
    expand_home(settings, "storePathRootDir", host);
    derive_cores(settings, host)?;
    let cores: CoreList = settings.field("cores")?;
    settings.derive(
        "shards",
        cores.0.len().clamp(1, SHARDS_DEFAULT_MAX).to_string(),
    )?;
    let shards: u64 = settings.field("shards")?;
    settings.derive(
        "memoryLimit",
        ((256 << 20) + (shards - 1) * (128 << 20)).to_string(),
    )?;
    let listen: SocketAddr = settings.field("listen")?;
    let first_ip = host.address.map_or(listen.ip(), IpAddr::V4);
    let ip = if listen.ip().is_unspecified() {
        first_ip
    } else {
        listen.ip()
    };
    settings.derive("brokerIP1", ip.to_string())?;
    settings.derive("namesrvAddr", default_name_servers(settings, sources)?)?;
    let root: String = settings.field("storePathRootDir")?;
    settings.derive("kvConfigPath", format!("{root}/namesrv/kvConfig.json"))?;
    expand_home(settings, "kvConfigPath", host);
    Ok(())
}

/// A shell expands `~` on the command line; nobody does in a file.
fn expand_home(settings: &mut Settings, key: &'static str, host: &Host) {
    let below = settings.text(key).and_then(|path| path.strip_prefix("~/"));
    if let Some(path) = below.map(|below| format!("{}/{below}", host.home)) {
        settings.resolve(key, path);
    }
}

/// Turns a count of cores into the first so many usable ones, and refuses cores that are not.
fn derive_cores(settings: &mut Settings, host: &Host) -> Result<(), ConfigError> {
    let Some(text) = settings.text("cores") else {
        return settings.derive("cores", CoreList(host.cores.clone()).to_string());
    };
    let usable = CoreList(host.cores.clone());
    let wanted = match text.parse::<usize>() {
        Ok(count) => host.cores.iter().copied().take(count).collect(),
        Err(_) => settings.field::<CoreList>("cores")?.0,
    };
    let counted = text
        .parse::<usize>()
        .is_ok_and(|count| count > wanted.len());
    if counted || wanted.iter().any(|core| !host.cores.contains(core)) {
        let why = format!("`{text}` is more than this process may use, which is {usable}");
        let problem = Problem::Conflict { key: "cores", why };
        return Err(ConfigError {
            origin: settings.origin("cores"),
            problem,
        });
    }
    settings.resolve("cores", CoreList(wanted).to_string());
    Ok(())
}

/// Java brokers and clients read `NAMESRV_ADDR` too (`BrokerConfig.namesrvAddr`).
fn default_name_servers(settings: &Settings, sources: &Sources) -> Result<String, ConfigError> {
    if sources.role == Role::Standalone {
        let mut own: SocketAddr = settings.field("namesrvListen")?;
        if own.ip().is_unspecified() {
            own.set_ip(IpAddr::from([127, 0, 0, 1]));
        }
        // Port 0 is known only once it is bound; the list then starts empty.
        return Ok(if own.port() == 0 {
            String::new()
        } else {
            own.to_string()
        });
    }
    let said = sources
        .environment
        .iter()
        .find(|(name, _)| name == "NAMESRV_ADDR");
    Ok(said.map_or(String::new(), |(_, value)| value.clone()))
}

#[cfg(test)]
mod tests;
