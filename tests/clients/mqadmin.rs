//! The official `mqadmin` of RocketMQ 5.5.0 against the server: each command's printed output.

use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::builds::{Missing, home};
use crate::job::{self, Context, Running};
use crate::matrix::{CLIENTS, Case};
use crate::report::Outcome;

const MESSAGES: u64 = 200;
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

struct Admin<'a> {
    context: &'a Context<'a>,
    directory: PathBuf,
    class_path: String,
}

type Checked<T> = Result<T, String>;

/// A broker as `clusterList` prints it.
struct Listed {
    cluster: String,
    broker: String,
    address: String,
}

pub fn run(context: &Context) {
    let member = Case {
        client: &CLIENTS[0],
        scenario: "member",
    };
    for program in [crate::builds::Program::Mqadmin, member.client.program] {
        let outcome = match context.builds.wait(program) {
            Ok(()) => continue,
            Err(Missing::Toolchain(reason)) => Outcome::Skip(reason),
            Err(Missing::Broken(output)) => Outcome::Fail(output),
        };
        context
            .report
            .add(context.phase, "mqadmin", Duration::ZERO, outcome);
        return;
    }
    let directory = context.directory.join("mqadmin");
    let _ = std::fs::create_dir_all(&directory);
    let class_path = format!("{}/*", home().join("java/mqadmin/target/lib").display());
    let admin = Admin {
        context,
        directory,
        class_path,
    };
    let listed = admin.row("clusterList", || admin.cluster_list());
    let Some(listed) = listed else { return };
    let topic = format!("{}-mqadmin-{}", context.phase, context.stamp);
    admin.row("brokerStatus", || admin.broker_status(&listed));
    admin.row("updateTopic", || admin.update_topic(&listed, &topic));
    admin.row("topicList", || admin.topic_list(&topic, true));
    admin.row("topicRoute", || admin.topic_route(&listed, &topic));
    admin.consumed(&listed, &member);
    admin.row("deleteTopic", || {
        admin.run(&["deleteTopic", "-c", &listed.cluster, "-t", &topic])?;
        admin.topic_list(&topic, false)
    });
}

impl Admin<'_> {
    /// Runs one check and reports it under the command's name.
    fn row<T>(&self, command: &str, check: impl FnOnce() -> Checked<T>) -> Option<T> {
        let begin = Instant::now();
        let (outcome, value) = match check() {
            Ok(value) => (Outcome::Pass, Some(value)),
            Err(text) => (Outcome::Fail(text), None),
        };
        let name = format!("mqadmin/{command}");
        self.context
            .report
            .add(self.context.phase, &name, begin.elapsed(), outcome);
        value
    }

    fn run(&self, arguments: &[&str]) -> Checked<String> {
        let output = job::jvm(&self.directory)
            .args([
                "-cp",
                &self.class_path,
                "org.apache.rocketmq.tools.command.MQAdminStartup",
            ])
            .args(arguments)
            .args(["-n", &self.context.namesrv])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // It prints an exception and still ends with 0.
        if errors.contains("Exception") || text.contains("Exception") {
            return Err(format!("{arguments:?}\n{text}\n{errors}"));
        }
        Ok(text)
    }

    /// Header, then: cluster, broker name, id, address, version, rates ...
    fn cluster_list(&self) -> Checked<Listed> {
        let text = self.run(&["clusterList"])?;
        let row = rows(&text)
            .into_iter()
            .find(|row| row.len() > 5 && row[2] == "0");
        let row = row.ok_or_else(|| unexpected("a master", &text))?;
        require(row[3].starts_with("127.0.0.1:"), "its address", &text)?;
        require(row[4].starts_with('V'), "its version", &text)?;
        Ok(Listed {
            cluster: row[0].clone(),
            broker: row[1].clone(),
            address: row[3].clone(),
        })
    }

    fn broker_status(&self, listed: &Listed) -> Checked<()> {
        let text = self.run(&["brokerStatus", "-b", &listed.address])?;
        for key in [
            "bootTimestamp",
            "brokerVersionDesc",
            "putTps",
            "msgPutTotalTodayNow",
        ] {
            let row = rows(&text)
                .into_iter()
                .find(|row| row.first().is_some_and(|at| at == key));
            require(row.is_some_and(|row| row.len() > 2), key, &text)?;
        }
        Ok(())
    }

    fn update_topic(&self, listed: &Listed, topic: &str) -> Checked<()> {
        let sizes = ["-r", "6", "-w", "6"];
        let command = ["updateTopic", "-c", &listed.cluster, "-t", topic];
        let text = self.run(&[&command[..], &sizes[..]].concat())?;
        require(
            text.contains(&format!("create topic to {} success", listed.address)),
            "success",
            &text,
        )?;
        require(
            text.contains(topic) && text.contains("readQueueNums=6"),
            "the topic",
            &text,
        )
    }

    fn topic_list(&self, topic: &str, there: bool) -> Checked<()> {
        let text = self.run(&["topicList"])?;
        require(
            text.lines().any(|line| line.trim() == topic) == there,
            topic,
            &text,
        )
    }

    fn topic_route(&self, listed: &Listed, topic: &str) -> Checked<()> {
        let text = self.run(&["topicRoute", "-t", topic])?;
        let start = text.find('{').ok_or_else(|| unexpected("a route", &text))?;
        // It prints the broker id as a bare number.
        let json = text[start..].trim().replace("0:\"", "\"0\":\"");
        let route: serde_json::Value =
            serde_json::from_str(&json).map_err(|error| unexpected(&error.to_string(), &text))?;
        let broker = &route["brokerDatas"][0];
        require(
            broker["brokerName"] == listed.broker.as_str(),
            "the broker",
            &text,
        )?;
        require(
            broker["brokerAddrs"]["0"] == listed.address.as_str(),
            "its address",
            &text,
        )?;
        let queue = &route["queueDatas"][0];
        require(
            queue["readQueueNums"] == 6 && queue["writeQueueNums"] == 6,
            "queues",
            &text,
        )?;
        require(queue["perm"] == 6, "readable and writable", &text)
    }

    /// What a group at work looks like, and the topic it consumed.
    fn consumed(&self, listed: &Listed, member: &Case) {
        let topic = job::topic(self.context, member);
        let started = self.row("a group at work", || {
            let mut running = Running::start(self.context, member)?;
            running.mark("consumed")?;
            Ok(running)
        });
        let Some(mut running) = started else { return };
        let client = member.client.name.replace('.', "_");
        let group = format!("{client}-{}-{}", member.scenario, self.context.stamp);
        self.row("topicStatus", || self.topic_status(&topic));
        self.row("consumerProgress", || {
            self.consumer_progress(&group, &topic)
        });
        self.row("consumerConnection", || {
            self.consumer_connection(&group, &topic)
        });
        self.row("statsAll", || self.stats_all(&topic, &group));
        self.row("brokerConsumeStats", || {
            self.broker_consume_stats(listed, &topic)
        });
        self.row("queryCq", || self.query_cq(listed, &topic));
        self.row("producer", || self.producers(listed));
        self.row("queryMsgById", || {
            self.consume_directly(listed, &group, &topic)
        });
        for command in ["cleanExpiredCQ", "cleanUnusedTopic"] {
            self.row(command, || {
                let text = self.run(&[command, "-b", &listed.address])?;
                require(text.contains("success"), "success", &text)
            });
        }
        running.say("end");
        self.row("the group ends", || running.finish());
    }

    /// Rows: broker, queue, smallest offset, largest offset, time.
    fn topic_status(&self, topic: &str) -> Checked<()> {
        let text = self.run(&["topicStatus", "-t", topic])?;
        let ends = rows(&text)
            .into_iter()
            .filter(|row| row.len() > 4 && row[2] == "0");
        let sum: u64 = ends.filter_map(|row| row[3].parse::<u64>().ok()).sum();
        require(sum == MESSAGES, "the sum of the largest offsets", &text)
    }

    /// Rows: topic, broker, queue, broker offset, consumer offset, ... A consumer reports its
    /// offsets every 5 s.
    fn consumer_progress(&self, group: &str, topic: &str) -> Checked<()> {
        let end = Instant::now() + SETTLED_WITHIN;
        loop {
            let text = self.run(&["consumerProgress", "-g", group])?;
            // Long names are shortened on the left or right, so the queue rows are told by shape.
            let queues: Vec<[u64; 2]> = rows(&text)
                .into_iter()
                .filter(|row| row.len() > 5 && topic.contains(row[0].as_str()))
                .filter_map(|row| Some([row[3].parse().ok()?, row[4].parse().ok()?]))
                .collect();
            let stored: u64 = queues.iter().map(|offsets| offsets[0]).sum();
            let consumed: u64 = queues.iter().map(|offsets| offsets[1]).sum();
            if stored == MESSAGES && consumed == MESSAGES {
                return require(text.contains("Diff Total: 0"), "no difference", &text);
            }
            require(Instant::now() < end, "all consumed", &text)?;
            thread::sleep(Duration::from_secs(1));
        }
    }

    fn consumer_connection(&self, group: &str, topic: &str) -> Checked<()> {
        let text = self.run(&["consumerConnection", "-g", group])?;
        require(
            text.contains("@push-") && text.contains("JAVA"),
            "the connection",
            &text,
        )?;
        require(text.contains(topic), "its subscription", &text)?;
        require(text.contains("CONSUME_PASSIVELY"), "its kind", &text)?;
        require(text.contains("CLUSTERING"), "its model", &text)?;
        require(
            text.contains("CONSUME_FROM_FIRST_OFFSET"),
            "its start",
            &text,
        )
    }
    /// Rows: topic, group, lag, messages in and out per second, in and out in 24 hours.
    fn stats_all(&self, topic: &str, group: &str) -> Checked<()> {
        let text = self.run(&["statsAll", "-t", topic])?;
        let row = rows(&text)
            .into_iter()
            .find(|row| row.len() > 6 && group.starts_with(row[1].trim_end_matches('.')));
        let row = row.ok_or_else(|| unexpected("a row of the group", &text))?;
        let count = MESSAGES.to_string();
        require(row[5] == count, "what came in", &text)?;
        require(row[6] == count, "what was given out", &text)
    }

    /// Rows: topic, group, broker, queue, broker offset, consumer offset, ...
    fn broker_consume_stats(&self, listed: &Listed, topic: &str) -> Checked<()> {
        let text = self.run(&["brokerConsumeStats", "-b", &listed.address])?;
        let queues = rows(&text).into_iter().filter(|row| {
            let shown = row.first().map(|name| name.trim_end_matches('.'));
            row.len() > 6 && shown.is_some_and(|shown| topic.starts_with(shown))
        });
        let consumed: u64 = queues.filter_map(|row| row[5].parse::<u64>().ok()).sum();
        require(consumed == MESSAGES, "all consumed", &text)?;
        require(text.contains("Diff Total: "), "a total", &text)
    }

    fn query_cq(&self, listed: &Listed, topic: &str) -> Checked<()> {
        let place = ["-q", "0", "-i", "0", "-c", "3", "-b", &listed.address];
        let text = self.run(&[&["queryCq", "-t", topic][..], &place[..]].concat())?;
        let entries = text.matches("physicOffset").count();
        require(entries == 3, "three entries", &text)
    }

    fn producers(&self, listed: &Listed) -> Checked<()> {
        let text = self.run(&["producer", "-b", &listed.address])?;
        require(text.contains("producer group"), "a group", &text)?;
        require(text.contains("language=JAVA"), "a producer", &text)
    }

    /// The consumer gets a message again because an operator says so.
    fn consume_directly(&self, listed: &Listed, group: &str, topic: &str) -> Checked<()> {
        let after = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.map(|rest| rest.trim_start_matches([':', ' ']).trim().to_owned());
            value.ok_or_else(|| unexpected(name, text))
        };
        let place = ["-b", &listed.broker, "-i", "0", "-o", "0"];
        let text = self.run(&[&["queryMsgByOffset", "-t", topic][..], &place[..]].concat())?;
        let id = after(&text, "OffsetID")?;
        let text = self.run(&["consumerConnection", "-g", group])?;
        let client = text.split_whitespace().find(|word| word.contains("@push-"));
        let client = client.ok_or_else(|| unexpected("a client", &text))?;
        let to = ["-i", &id, "-g", group, "-d", client];
        let text = self.run(&[&["queryMsgById", "-t", topic][..], &to[..]].concat())?;
        require(text.contains("consumeResult=CR_SUCCESS"), "consumed", &text)
    }
}

/// Lines cut at white space.
fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

fn require(holds: bool, what: &str, text: &str) -> Checked<()> {
    if holds {
        Ok(())
    } else {
        Err(unexpected(what, text))
    }
}

fn unexpected(what: &str, text: &str) -> String {
    format!("expected: {what}; printed:\n{text}")
}
