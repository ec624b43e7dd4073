//! Every way to send, to a topic that the first send creates; then all of it is read back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rocketmq_client_rust::DefaultMQProducer;
use rocketmq_model::message::MessageQueue;

use crate::clients::{Clients, Place, place, place_of, send};
use crate::messages::{make, make_sized, verify};
use crate::{Checked, check, fact, same, text, until};

const BATCH: usize = 10;

pub async fn run(clients: &Clients) -> Checked {
    let options = &clients.options;
    let mut producer = clients.producer().await?;
    let mut placed = HashMap::new();
    for index in 0..options.count {
        let id = format!("sync-{index}");
        placed.insert(
            id.clone(),
            send(&producer, make(options, &id, index)?).await?,
        );
    }
    asynchronous(clients, &producer, &mut placed).await?;
    for index in 0..options.count {
        let message = make(options, &format!("oneway-{index}"), index)?;
        producer.send_oneway(message).await.map_err(text)?;
    }
    batches(clients, &producer, &mut placed).await?;
    ordered(clients, &producer, &mut placed).await?;
    read_back(clients, &placed).await?;
    producer.shutdown().await;
    Ok(())
}

async fn asynchronous(
    clients: &Clients,
    producer: &DefaultMQProducer,
    placed: &mut HashMap<String, Place>,
) -> Checked {
    let answers: Arc<Mutex<Vec<(String, Checked<Place>)>>> = Arc::default();
    for index in 0..clients.options.count {
        let id = format!("async-{index}");
        let message = make(&clients.options, &id, index)?;
        let answers = answers.clone();
        producer
            .send_with_callback(message, move |result, error| {
                let answer = match (result, error) {
                    (Some(result), _) => place(result),
                    (None, error) => Err(format!("{error:?}")),
                };
                answers
                    .lock()
                    .expect("no callback panics")
                    .push((id.clone(), answer));
            })
            .await
            .map_err(text)?;
    }
    let count = clients.options.count;
    until(30, "all asynchronous answers", || {
        answers.lock().expect("no callback panics").len() >= count
    })
    .await?;
    for (id, answer) in answers.lock().expect("no callback panics").drain(..) {
        placed.insert(id, answer?);
    }
    Ok(())
}

async fn batches(
    clients: &Clients,
    producer: &DefaultMQProducer,
    placed: &mut HashMap<String, Place>,
) -> Checked {
    for first in (0..clients.options.count).step_by(BATCH) {
        let mut messages = Vec::new();
        for index in first..first + BATCH {
            let id = format!("batch-{index}");
            messages.push(make_sized(&clients.options, &id, index, 50 + index)?);
        }
        let result = producer.send_batch(messages).await.map_err(text)?;
        let (broker, queue, offset) = place(&result)?;
        for index in 0..BATCH {
            let at = (broker.clone(), queue, offset + index as i64);
            placed.insert(format!("batch-{}", first + index), at);
        }
    }
    Ok(())
}

async fn ordered(
    clients: &Clients,
    producer: &DefaultMQProducer,
    placed: &mut HashMap<String, Place>,
) -> Checked {
    let mut queue_of = HashMap::new();
    for index in 0..clients.options.count {
        let id = format!("ordered-{index}");
        let key = index % 7;
        let message = make(&clients.options, &id, index)?;
        let by_key =
            |queues: &[MessageQueue], _: &_, key: &usize| Some(queues[key % queues.len()].clone());
        let result = producer
            .send_with_selector(message, by_key, key)
            .await
            .map_err(text)?;
        let at = place(&result.ok_or("no result")?)?;
        same(*queue_of.entry(key).or_insert(at.1), at.1, "queue of a key")?;
        placed.insert(id, at);
    }
    Ok(())
}

async fn read_back(clients: &Clients, placed: &HashMap<String, Place>) -> Checked {
    let expected = placed.len() + clients.options.count;
    let mut found = HashMap::new();
    for message in clients.read_all(&clients.options.topic, expected).await? {
        let (id, _) = verify(&message)?;
        let size = message.body().unwrap_or_default().len();
        let deflated = (message.store_size() as usize) < size;
        same(size >= 4096, deflated, &format!("deflated: {id}"))?;
        check(
            found.insert(id.clone(), place_of(&message)).is_none(),
            || format!("twice: {id}"),
        )?;
    }
    same(expected, found.len(), "messages read")?;
    for (id, at) in placed {
        same(Some(at), found.get(id), &format!("place of {id}"))?;
    }
    for index in 0..clients.options.count {
        let id = format!("oneway-{index}");
        check(found.contains_key(&id), || format!("lost: {id}"))?;
    }
    fact("messages", expected);
    Ok(())
}
