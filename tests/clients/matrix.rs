//! Which client runs which scenario.

use std::fmt;

use crate::builds::Program;

/// A client library in one of its settings.
#[derive(Clone, Copy)]
pub struct Client {
    pub name: &'static str,
    pub program: Program,
    /// JVM options.
    pub options: &'static [&'static str],
    pub scenarios: &'static [&'static str],
}

#[derive(Clone, Copy)]
pub struct Case {
    pub client: &'static Client,
    pub scenario: &'static str,
}

impl fmt::Display for Case {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.client.name, self.scenario)
    }
}

// What waits longest comes first, so that it runs beside the rest.
const JAVA: &[&str] = &[
    "transaction",
    "retry",
    "delay",
    "push",
    "orderly",
    "pull",
    "light",
    "send",
    "broadcast",
    "tags",
    "sql",
    "query",
    "rpc",
    "split",
    "restart",
];
const JAVA5: &[&str] = &[
    "transaction",
    "pop",
    "priority",
    "again",
    "retry",
    "delay",
    "push",
    "orderly",
    "pull",
    "light",
    "send",
    "broadcast",
    "tags",
    "sql",
    "query",
    "rpc",
    "split",
    "restart",
];
const JAVA_BINARY: &[&str] = &[
    "transaction",
    "retry",
    "push",
    "orderly",
    "pull",
    "send",
    "query",
    "rpc",
    "restart",
];
const JAVA_VIP: &[&str] = &["push", "send", "pull"];
const GO: &[&str] = &[
    "transaction",
    "retry",
    "delay",
    "push",
    "orderly",
    "pull",
    "send",
    "broadcast",
    "tags",
    "restart",
];
const PYTHON: &[&str] = &[
    "retry",
    "delay",
    "push",
    "orderly",
    "pull",
    "send",
    "broadcast",
    "tags",
    "restart",
];
const RUST: &[&str] = &[
    "pull",
    "send",
    "transaction",
    "retry",
    "delay",
    "push",
    "orderly",
    "broadcast",
    "tags",
    "restart",
];

const BINARY: &[&str] = &["-Drocketmq.serialize.type=ROCKETMQ"];
const VIP: &[&str] = &["-Dcom.rocketmq.sendMessageWithVIPChannel=true"];

/// Pages of `docs/` with a program.
const DOCS: &[&str] = &[
    "delays.md",
    "duplicates.md",
    "filters.md",
    "groups.md",
    "light-queues.md",
    "offsets.md",
    "order.md",
    "pop.md",
    "priority.md",
    "queries.md",
    "request-reply.md",
    "retries.md",
    "transactions.md",
];

pub static CLIENTS: [Client; 12] = [
    Client {
        name: "java-5.5.0",
        program: Program::Java5,
        options: &[],
        scenarios: JAVA5,
    },
    Client {
        name: "java-4.9.8",
        program: Program::Java4,
        options: &[],
        scenarios: JAVA,
    },
    Client {
        name: "go",
        program: Program::Go,
        options: &[],
        scenarios: GO,
    },
    Client {
        name: "python",
        program: Program::Python,
        options: &[],
        scenarios: PYTHON,
    },
    Client {
        name: "java-5.5.0-binary",
        program: Program::Java5,
        options: BINARY,
        scenarios: JAVA_BINARY,
    },
    Client {
        name: "java-4.9.8-binary",
        program: Program::Java4,
        options: BINARY,
        scenarios: JAVA_BINARY,
    },
    Client {
        name: "java-5.5.0-vip",
        program: Program::Java5,
        options: VIP,
        scenarios: JAVA_VIP,
    },
    Client {
        name: "java-4.9.8-vip",
        program: Program::Java4,
        options: VIP,
        scenarios: JAVA_VIP,
    },
    Client {
        name: "mqadmin",
        program: Program::Mqadmin,
        options: &[],
        scenarios: &["commands"],
    },
    Client {
        name: "proxy-5.5.0",
        program: Program::Proxy,
        options: &[],
        scenarios: &["grpc", "lite"],
    },
    Client {
        name: "docs",
        program: Program::Java5,
        options: &[],
        scenarios: DOCS,
    },
    Client {
        name: "rust",
        program: Program::Rust,
        options: &[],
        scenarios: RUST,
    },
];

/// Everything, scenario by scenario.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, scenarios) in CLIENTS.iter().map(|client| client.scenarios).enumerate() {
        let client = &CLIENTS[place];
        cases.extend(scenarios.iter().map(|scenario| Case { client, scenario }));
    }
    // The clients in turn; the slow build of the crate leaves it to the end.
    cases.sort_by_key(|case| {
        let place = case
            .client
            .scenarios
            .iter()
            .position(|name| *name == case.scenario);
        (case.client.program == Program::Rust, place)
    });
    cases
}

/// What runs against a server that lets the members of a group subscribe alike only.
pub fn refusing_cases() -> Vec<Case> {
    let clients = CLIENTS.iter();
    clients
        .filter(|client| client.scenarios.contains(&"split"))
        .map(|client| Case {
            client,
            scenario: "refused",
        })
        .collect()
}

/// What runs against two name servers and two brokers.
pub fn cluster_cases() -> Vec<Case> {
    CLIENTS
        .iter()
        .filter(|client| client.name.starts_with("java") && client.scenarios.contains(&"restart"))
        .map(|client| Case {
            client,
            scenario: "restart",
        })
        .collect()
}
