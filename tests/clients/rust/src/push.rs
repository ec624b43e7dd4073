//! A push consumer that counts, and the scenarios built of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rocketmq_client_rust::{
    ClientResult, ConsumeConcurrentlyContext, ConsumeConcurrentlyStatus, DefaultMQProducer,
    DefaultMQPushConsumer, MQPushConsumer, MessageListenerConcurrently,
};
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_protocol::protocol::heartbeat::message_model::MessageModel;

use crate::clients::{Clients, send};
use crate::messages::{TAGS, make, verify};
use crate::{Checked, Options, check, fact, mark, same, text, until};

/// What arrived; shared with the listener.
#[derive(Default)]
pub struct Seen {
    pub times: HashMap<String, usize>,
    pub failure: Option<String>,
}

#[derive(Clone, Default)]
pub struct Counting(Arc<Mutex<Seen>>);

impl Counting {
    pub fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().expect("no listener panics"))
    }

    pub fn different(&self) -> usize {
        self.with(|seen| seen.times.len())
    }

    pub fn total(&self) -> usize {
        self.with(|seen| seen.times.values().sum())
    }

    pub fn ids(&self) -> BTreeSet<String> {
        self.with(|seen| seen.times.keys().cloned().collect())
    }

    pub fn fine(&self) -> Checked {
        self.with(|seen| seen.failure.clone()).map_or(Ok(()), Err)
    }
}

impl MessageListenerConcurrently for Counting {
    fn consume_message(
        &self,
        messages: &[&MessageExt],
        _context: &ConsumeConcurrentlyContext,
    ) -> ClientResult<ConsumeConcurrentlyStatus> {
        for message in messages {
            match verify(message) {
                Ok((id, _)) => self.with(|seen| *seen.times.entry(id).or_default() += 1),
                Err(error) => self.with(|seen| seen.failure = Some(error)),
            }
        }
        Ok(ConsumeConcurrentlyStatus::ConsumeSuccess)
    }
}

pub async fn member(
    clients: &Clients,
    group: &str,
    tags: &str,
    model: MessageModel,
) -> Checked<(Counting, DefaultMQPushConsumer)> {
    let counting = Counting::default();
    let mut consumer = clients.push(group).message_model(model).build();
    consumer
        .subscribe(clients.options.topic.clone(), tags.to_owned())
        .await
        .map_err(text)?;
    consumer.register_message_listener_concurrently(counting.clone());
    consumer.start().await.map_err(text)?;
    Ok((counting, consumer))
}

#[derive(Default)]
struct Stream {
    sent: Vec<String>,
    ended: bool,
    failure: Option<String>,
}

/// Sends in the background until told to end.
async fn stream(options: Options, producer: DefaultMQProducer, state: Arc<Mutex<Stream>>) {
    for index in 0.. {
        if state.lock().expect("no sender panics").ended {
            return;
        }
        let id = format!("stream-{index}");
        let result = match make(&options, &id, index) {
            Ok(message) => send(&producer, message).await,
            Err(error) => Err(error),
        };
        {
            let mut state = state.lock().expect("no sender panics");
            match result {
                Ok(_) => state.sent.push(id),
                Err(error) => {
                    state.failure = Some(error);
                    return;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

/// A second member joins a group at work and leaves it again.
pub async fn rebalance(clients: &Clients) -> Checked {
    let options = &clients.options;
    let mut producer = clients.producer().await?;
    clients.create_topic(&mut producer, &options.topic).await?;
    let state: Arc<Mutex<Stream>> = Arc::default();
    let sending = tokio::spawn(stream(options.clone(), producer, state.clone()));
    let sent = || state.lock().expect("no sender panics").sent.clone();
    let (first, mut one) = member(clients, &options.group, "*", MessageModel::Clustering).await?;
    until(60, "the first member takes all", || {
        first.different() >= options.count
    })
    .await?;
    mark("alone");
    let (second, mut other) =
        member(clients, &options.group, "*", MessageModel::Clustering).await?;
    let enough = options.count / 4;
    until(60, "the second member gets a share", || {
        second.total() >= enough
    })
    .await?;
    let before = first.total();
    until(60, "the first member keeps a share", || {
        first.total() >= before + enough
    })
    .await?;
    mark("both");
    other.shutdown().await;
    let already = sent().len();
    until(60, "the first member takes over", || {
        let sent = sent();
        let arrived = first.ids();
        sent.len() >= already + enough
            && sent[already..already + enough]
                .iter()
                .all(|id| arrived.contains(id))
    })
    .await?;
    state.lock().expect("no sender panics").ended = true;
    sending.await.map_err(text)?;
    if let Some(failure) = state.lock().expect("no sender panics").failure.clone() {
        return Err(format!("background send: {failure}"));
    }
    until(60, "all messages arrive", || {
        let (first, second) = (first.ids(), second.ids());
        sent()
            .iter()
            .all(|id| first.contains(id) || second.contains(id))
    })
    .await?;
    one.shutdown().await;
    first.fine()?;
    second.fine()?;
    fact("sent", sent().len());
    fact("repeated", first.total() + second.total() - sent().len());
    Ok(())
}

pub async fn send_all(clients: &Clients, producer: &DefaultMQProducer) -> Checked {
    for index in 0..clients.options.count {
        send(
            producer,
            make(&clients.options, &format!("m-{index}"), index)?,
        )
        .await?;
    }
    Ok(())
}

pub async fn broadcast(clients: &Clients) -> Checked {
    let options = &clients.options;
    let mut producer = clients.producer().await?;
    clients.create_topic(&mut producer, &options.topic).await?;
    let (first, mut one) = member(clients, &options.group, "*", MessageModel::Broadcasting).await?;
    let (second, mut other) =
        member(clients, &options.group, "*", MessageModel::Broadcasting).await?;
    send_all(clients, &producer).await?;
    until(60, "both get all", || {
        first.different() == options.count && second.different() == options.count
    })
    .await?;
    same(options.count, first.total(), "first member")?;
    same(options.count, second.total(), "second member")?;
    one.shutdown().await;
    other.shutdown().await;
    first.fine()?;
    second.fine()?;
    producer.shutdown().await;
    Ok(())
}

/// Only the tags asked for arrive; a plain group sees the rest too.
pub async fn tags(clients: &Clients) -> Checked {
    let options = &clients.options;
    let mut producer = clients.producer().await?;
    clients.create_topic(&mut producer, &options.topic).await?;
    send_all(clients, &producer).await?;
    // Without blanks: this library hashes the tag with the blanks around it.
    let (some, mut one) = member(clients, &options.group, "A||C", MessageModel::Clustering).await?;
    let everything = format!("{}-all", options.group);
    let (all, mut other) = member(clients, &everything, "*", MessageModel::Clustering).await?;
    let wanted: BTreeSet<String> = (0..options.count)
        .filter(|index| TAGS[index % TAGS.len()] != "B")
        .map(|index| format!("m-{index}"))
        .collect();
    let result = until(60, "both groups get theirs", || {
        some.different() >= wanted.len() && all.different() >= options.count
    })
    .await;
    result.map_err(|text| format!("{text}: {}, {}", some.different(), all.different()))?;
    check(some.ids() == wanted, || {
        "other messages than those of two tags".to_owned()
    })?;
    one.shutdown().await;
    other.shutdown().await;
    some.fine()?;
    all.fine()?;
    producer.shutdown().await;
    Ok(())
}
