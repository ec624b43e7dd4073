//! The lite pull consumer: commits half, and another instance goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rocketmq_client_rust::DefaultMQProducer;
use rocketmq_model::message::MessageQueue;

use crate::clients::{Clients, send};
use crate::messages::{make, verify};
use crate::{Checked, Options, check, same, text};

/// Queue to committed offset.
pub type Committed = BTreeMap<i32, i64>;

pub async fn run(clients: &Clients) -> Checked {
    let options = &clients.options;
    let mut producer = clients.producer().await?;
    clients.create_topic(&mut producer, &options.topic).await?;
    fill(&producer, options).await?;
    let (first, committed) = take(clients, options, options.count / 2, None).await?;
    let (rest, _) = take(
        clients,
        options,
        options.count - first.len(),
        Some(&committed),
    )
    .await?;
    check(first.is_disjoint(&rest), || {
        "committed, and polled again".to_owned()
    })?;
    same(options.count, first.len() + rest.len(), "messages")?;
    producer.shutdown().await;
    Ok(())
}

pub async fn fill(producer: &DefaultMQProducer, options: &Options) -> Checked {
    for index in 0..options.count {
        send(producer, make(options, &format!("p-{index}"), index)?).await?;
    }
    Ok(())
}

/// Polls at least `count` messages and commits exactly those; before, checks what the broker
/// kept of an earlier instance.
pub async fn take(
    clients: &Clients,
    options: &Options,
    count: usize,
    before: Option<&Committed>,
) -> Checked<(BTreeSet<String>, Committed)> {
    let consumer = clients.lite(&options.group)?;
    consumer.subscribe(&options.topic).await.map_err(text)?;
    consumer.start().await.map_err(text)?;
    let queues = consumer
        .fetch_message_queues(&options.topic)
        .await
        .map_err(text)?;
    if let Some(before) = before {
        for queue in &queues {
            let offset = consumer.committed(queue).await.map_err(text)?;
            if let Some(expected) = before.get(&queue.queue_id()) {
                same(*expected, offset, &format!("committed offset of {queue}"))?;
            }
        }
    }
    let end = Instant::now() + Duration::from_secs(90);
    let mut taken = BTreeSet::new();
    let mut next = Committed::new();
    while taken.len() < count {
        check(Instant::now() < end, || {
            format!("polled {} of {count}", taken.len())
        })?;
        for message in consumer.poll_with_timeout(1000).await {
            let (id, _) = verify(&message)?;
            check(taken.insert(id.clone()), || format!("twice: {id}"))?;
            next.insert(message.queue_id(), message.queue_offset() + 1);
        }
    }
    let offsets = queues
        .iter()
        .filter_map(|queue| Some((queue.clone(), *next.get(&queue.queue_id())?)))
        .collect::<std::collections::HashMap<MessageQueue, i64>>();
    consumer.commit_with_map(offsets, true).await;
    consumer.shutdown().await;
    Ok((taken, next))
}
