//! `orbitmq admin`: what an application team asks a cluster every day, ours or Java RocketMQ, in
//! one process without a virtual machine.
//!
//! One file per family of commands; each asks over [`link`], one request at a time, and answers
//! with a [`sheet`], which is printed as a table or as JSON. Only [`tail`] goes on by itself.

mod groups;
mod letters;
mod link;
mod messages;
mod pending;
mod read;
mod sheet;
mod tail;
mod timers;
mod topics;
mod transactions;
mod why;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use link::{Link, Trouble};
use sheet::Sheet;

/// The cluster could not be asked, or refused.
const EXIT_FAILED: u8 = 1;
/// What was asked for is not there.
const EXIT_ABSENT: u8 = 4;

#[derive(Clone, Debug, Args)]
pub struct Admin {
    /// Name servers, separated by `;`
    #[arg(
        long,
        short = 'n',
        env = "NAMESRV_ADDR",
        default_value = "127.0.0.1:9876",
        global = true
    )]
    namesrv: String,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Longest wait for one answer
    #[arg(long, value_name = "MS", default_value_t = 3_000, global = true)]
    timeout_ms: u64,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Brokers of the cluster
    Brokers,
    /// Topics, and how many queues they have on each broker
    Topics {
        /// Only names that contain this
        part: Option<String>,
        /// The system's own topics too
        #[arg(long)]
        all: bool,
    },
    /// Queues of a topic: first offset, end, last message
    Topic { topic: String },
    /// Make a topic, or change how many queues it has
    CreateTopic {
        topic: String,
        #[arg(long, default_value_t = 8)]
        queues: u32,
        /// Key=value, as `message.type=DELAY`; may be given several times
        #[arg(long, value_name = "KEY=VALUE")]
        attribute: Vec<String>,
    },
    /// Delete a topic with its messages
    DeleteTopic { topic: String },
    /// Consumer groups and how they are configured
    Groups {
        /// Only names that contain this
        part: Option<String>,
    },
    /// How far a group is in each queue, and how much it lags
    Progress {
        group: String,
        /// Only this topic
        topic: Option<String>,
    },
    /// Who is connected as a group, and what they subscribe to
    Members { group: String },
    /// Move a group in a topic: to oldest, newest, a time or an offset
    Reset {
        group: String,
        topic: String,
        /// `oldest`, `newest`, milliseconds since 1970, or `offset:N` with --queue
        #[arg(long)]
        to: String,
        #[arg(long)]
        queue: Option<i32>,
    },
    /// Why a group does not get a message, or nothing of a topic: one reason, and what shows it
    Why {
        #[command(subcommand)]
        question: Question,
    },
    /// Messages with a key or unique id
    Find {
        topic: String,
        key: String,
        /// The key is a unique id
        #[arg(long)]
        unique: bool,
        #[arg(long, default_value_t = 32)]
        most: u32,
    },
    /// One message by its offset id
    View { id: String },
    /// Messages of a topic in the order they were stored; nothing is committed
    Read(read::Read),
    /// Take what a group has not consumed yet: print it, then commit the group's offsets
    Consume(read::Consume),
    /// Dead letters of a group that were not sent again
    DeadLetters {
        group: String,
        #[arg(long, default_value_t = 32)]
        most: u32,
    },
    /// Send dead letters to their group again, from the oldest on
    Redrive(letters::Redrive),
    /// Transactions that are open, or parked for an operator: the oldest of each shard
    Transactions(transactions::Wish),
    /// Commit the half of a transaction by hand, by its offset id
    Commit { id: String },
    /// Roll the half of a transaction back by hand
    Rollback { id: String },
    /// Have the producers of a parked half asked again how it ended
    Resume { id: String },
    /// Messages that wait for their time or delay level, the next due first
    Timers(timers::Wish),
    /// Take a message back that waits for its time, by its recall handle
    Recall { topic: String, handle: String },
    /// Send one message
    Send {
        topic: String,
        body: String,
        #[arg(long)]
        key: Option<String>,
        #[arg(long)]
        tag: Option<String>,
        #[arg(long)]
        queue: Option<i32>,
        /// Milliseconds from now
        #[arg(long)]
        delay_ms: Option<u64>,
        /// A property of the message; may be given several times
        #[arg(long, value_name = "NAME=VALUE")]
        property: Vec<String>,
        /// A higher number is more urgent; it chooses the queue
        #[arg(long)]
        priority: Option<u32>,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum Question {
    /// About one message, by its offset id
    Msg {
        id: String,
        /// The group that misses it
        #[arg(long)]
        group: Option<String>,
    },
    /// About all messages of a topic
    Group { group: String, topic: String },
}

/// What came of a command.
enum Done {
    Sheet(Sheet),
    /// Everything that is to be printed was.
    Printed,
}

/// Does what was asked, and says how it went.
pub fn run(admin: &Admin) -> ExitCode {
    let timeout = Duration::from_millis(admin.timeout_ms.max(1));
    let mut link = Link::new(&admin.namesrv, timeout);
    let done = match &admin.verb {
        Verb::Read(wish) => read::read(&mut link, wish, admin.json),
        Verb::Consume(wish) => read::consume(&mut link, wish, admin.json),
        verb => answer(&mut link, verb).map(Done::Sheet),
    };
    match done {
        Ok(Done::Printed) => ExitCode::SUCCESS,
        Ok(Done::Sheet(sheet)) => {
            let text = if admin.json {
                sheet.json()
            } else {
                sheet.text()
            };
            sheet::print(&text);
            for note in sheet.notes() {
                eprintln!("orbitmq: {note}");
            }
            match sheet.is_absent() {
                true => ExitCode::from(EXIT_ABSENT),
                false => ExitCode::SUCCESS,
            }
        }
        Err(trouble) => {
            eprintln!("orbitmq: {trouble}");
            ExitCode::from(match trouble.is_absent() {
                true => EXIT_ABSENT,
                false => EXIT_FAILED,
            })
        }
    }
}

fn answer(link: &mut Link, verb: &Verb) -> Result<Sheet, Trouble> {
    match verb {
        Verb::Brokers => topics::brokers(link),
        Verb::Topics { part, all } => topics::list(link, part.as_deref(), *all),
        Verb::Topic { topic } => topics::queues(link, topic),
        Verb::CreateTopic {
            topic,
            queues,
            attribute,
        } => topics::create(link, topic, *queues, attribute),
        Verb::DeleteTopic { topic } => topics::delete(link, topic),
        Verb::Groups { part } => groups::list(link, part.as_deref()),
        Verb::Progress { group, topic } => groups::progress(link, group, topic.as_deref()),
        Verb::Members { group } => groups::members(link, group),
        Verb::Reset {
            group,
            topic,
            to,
            queue,
        } => groups::reset(link, group, topic, to, *queue),
        Verb::Why {
            question: Question::Msg { id, group },
        } => why::message(link, id, group.as_deref()),
        Verb::Why {
            question: Question::Group { group, topic },
        } => why::group(link, group, topic),
        Verb::Find {
            topic,
            key,
            unique,
            most,
        } => messages::find(link, topic, key, *unique, *most),
        Verb::View { id } => messages::view(link, id),
        Verb::Read(_) | Verb::Consume(_) => unreachable!("they print by themselves"),
        Verb::DeadLetters { group, most } => letters::list(link, group, *most),
        Verb::Redrive(wish) => letters::redrive(link, wish),
        Verb::Transactions(wish) => transactions::list(link, wish),
        Verb::Timers(wish) => timers::list(link, wish),
        Verb::Recall { topic, handle } => timers::recall(link, topic, handle),
        Verb::Commit { id } => transactions::end(link, id, true),
        Verb::Rollback { id } => transactions::end(link, id, false),
        Verb::Resume { id } => transactions::resume(link, id),
        Verb::Send {
            topic,
            body,
            key,
            tag,
            queue,
            delay_ms,
            property,
            priority,
        } => {
            let letter = messages::Letter {
                topic,
                body,
                key: key.as_deref(),
                tag: tag.as_deref(),
                delay_ms: *delay_ms,
                properties: property,
                priority: *priority,
            };
            messages::send(link, &letter, *queue)
        }
    }
}
