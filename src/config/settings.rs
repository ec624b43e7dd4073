//! Values as they gather from the sources: each key once, with the place it was last said.
//!
//! Every stored text is canonical for its key, so a wrong value is refused where it stands, even
//! if a later source would have replaced it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::error::{ConfigError, Origin, Problem};
use super::foreign::{self, Foreign};
use super::keys::{self, Key, Start};
use super::{Notice, Role};

/// Canonical texts by key name.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    said: BTreeMap<&'static str, (String, Origin)>,
}

impl Settings {
    /// Takes one `name = value`: a key of the table, a RocketMQ name that is mapped to one, or a
    /// RocketMQ name without meaning here, which becomes a notice.
    pub fn say(
        &mut self,
        role: Role,
        name: &str,
        value: &str,
        origin: Origin,
        notices: &mut Vec<Notice>,
    ) -> Result<(), ConfigError> {
        if let Some(key) = keys::find(name) {
            return self.put(key, value, origin);
        }
        match foreign::find(name) {
            Some(Foreign::Host) => self.put_host(role, name, value, origin),
            Some(Foreign::Port) => self.put_port(role, name, value, origin),
            Some(Foreign::Renamed(key)) => self.say(role, key, value, origin, notices),
            Some(Foreign::NotNeeded(reason)) => {
                notices.push(Notice {
                    origin,
                    key: name.to_owned(),
                    reason,
                });
                Ok(())
            }
            Some(Foreign::NotYet { harmless, .. }) if harmless.contains(&value.trim()) => Ok(()),
            Some(Foreign::NotYet { missing, .. }) => {
                let (key, found) = (name.to_owned(), value.trim().to_owned());
                Err(ConfigError {
                    origin,
                    problem: Problem::NotYet {
                        key,
                        found,
                        missing,
                    },
                })
            }
            None => {
                let key = name.to_owned();
                Err(ConfigError {
                    origin,
                    problem: Problem::Unknown { key },
                })
            }
        }
    }

    fn put(&mut self, key: &Key, value: &str, origin: Origin) -> Result<(), ConfigError> {
        match key.shape.canonical(value) {
            Some(text) => {
                self.said.insert(key.name, (text, origin));
                Ok(())
            }
            None => Err(wrong(key.name, key.shape.to_string(), value, origin)),
        }
    }

    /// RocketMQ's `bindAddress`: the host half of a listening address.
    fn put_host(
        &mut self,
        role: Role,
        name: &str,
        value: &str,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let Ok(host) = value.trim().parse::<IpAddr>() else {
            return Err(wrong(name, "an IP address".to_owned(), value, origin));
        };
        let mut listen: SocketAddr = self.field(role.listen_key())?;
        listen.set_ip(host);
        self.said
            .insert(role.listen_key(), (listen.to_string(), origin));
        Ok(())
    }

    /// RocketMQ's `listenPort`: the port half of a listening address.
    fn put_port(
        &mut self,
        role: Role,
        name: &str,
        value: &str,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let Ok(port) = value.trim().parse::<u16>() else {
            return Err(wrong(
                name,
                "a port from 0 to 65535".to_owned(),
                value,
                origin,
            ));
        };
        let mut listen: SocketAddr = self.field(role.listen_key())?;
        listen.set_port(port);
        self.said
            .insert(role.listen_key(), (listen.to_string(), origin));
        Ok(())
    }

    /// Gives a derived key its value unless a source named the key.
    pub fn derive(&mut self, name: &'static str, value: String) -> Result<(), ConfigError> {
        match (self.said.contains_key(name), keys::find(name)) {
            (false, Some(key)) => self.put(key, &value, Origin::Default),
            _ => Ok(()),
        }
    }

    /// Replaces a value by what it means on this host; the place it was said stays.
    pub fn resolve(&mut self, name: &'static str, value: String) {
        let origin = self.origin(name);
        self.said.insert(name, (value, origin));
    }

    /// The canonical text of a key: as said, else its fixed default.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.said.get(name) {
            Some((text, _)) => Some(text),
            None => match keys::find(name)?.start {
                Start::Fixed(text) => Some(text),
                Start::Derived(_) => None,
            },
        }
    }

    /// Where the value of a key was said.
    pub fn origin(&self, name: &str) -> Origin {
        self.said
            .get(name)
            .map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// The typed value of a key.
    pub fn field<T: FromStr>(&self, name: &str) -> Result<T, ConfigError> {
        let text = self.text(name).unwrap_or_default();
        text.parse().map_err(|_| {
            let expected = keys::find(name).map_or(String::new(), |key| key.shape.to_string());
            wrong(name, expected, text, self.origin(name))
        })
    }
}

fn wrong(name: &str, expected: String, found: &str, origin: Origin) -> ConfigError {
    let (key, found) = (name.to_owned(), found.trim().to_owned());
    ConfigError {
        origin,
        problem: Problem::Value {
            key,
            expected,
            found,
        },
    }
}
