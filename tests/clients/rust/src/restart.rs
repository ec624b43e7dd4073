//! Sends while the server is killed and started again; nothing acknowledged may be lost.

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rocketmq_client_rust::DefaultMQProducer;
use rocketmq_protocol::protocol::heartbeat::message_model::MessageModel;

use crate::clients::{Clients, Place, place_of, send};
use crate::messages::{make_sized, verify};
use crate::pull::{fill, take};
use crate::push::member;
use crate::{Checked, Options, check, fact, mark, same, text, until};

const TASKS: usize = 3;

#[derive(Default)]
struct Sending {
    acknowledged: HashMap<String, Place>,
    refused: usize,
    ended: bool,
}

pub async fn run(clients: &Clients) -> Checked {
    let options = &clients.options;
    let mut producer = clients.producer().await?;
    clients.create_topic(&mut producer, &options.topic).await?;
    let mut kept = options.clone();
    kept.topic.push_str("-kept");
    kept.group.push_str("-kept");
    clients.create_topic(&mut producer, &kept.topic).await?;
    fill(&producer, &kept).await?;
    let (first, committed) = take(clients, &kept, kept.count / 2, None).await?;
    through(clients, Arc::new(producer)).await?;
    let left = kept.count - first.len();
    let (rest, _) = take(clients, &kept, left, Some(&committed)).await?;
    check(first.is_disjoint(&rest), || {
        "committed, and polled again".to_owned()
    })?;
    same(kept.count, first.len() + rest.len(), "kept messages")
}

async fn through(clients: &Clients, producer: Arc<DefaultMQProducer>) -> Checked {
    let options = &clients.options;
    let (arrived, mut consumer) =
        member(clients, &options.group, "*", MessageModel::Clustering).await?;
    let state: Arc<Mutex<Sending>> = Arc::default();
    let size = || state.lock().expect("no sender panics").acknowledged.len();
    let begin = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            tokio::spawn(send_on(
                options.clone(),
                producer.clone(),
                number,
                state.clone(),
            ))
        })
        .collect();
    // The reference writes committed offsets to disk every 5 s.
    until(60, "enough acknowledged", || {
        size() >= options.count && begin.elapsed() > Duration::from_millis(6500)
    })
    .await?;
    mark("steady");
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = line.await.map_err(text)?.map_err(text)?;
    same("restarted", line.trim(), "line from the runner")?;
    let before = size();
    until(90, "enough acknowledged after the restart", || {
        size() >= before + options.count
    })
    .await?;
    state.lock().expect("no sender panics").ended = true;
    for task in tasks {
        task.await.map_err(text)?;
    }
    let acknowledged = state.lock().map_err(text)?.acknowledged.clone();
    fact("acknowledged", acknowledged.len());
    fact("refused", state.lock().map_err(text)?.refused);
    in_place(clients, &acknowledged).await?;
    until(90, "all acknowledged messages consumed", || {
        let arrived = arrived.ids();
        acknowledged.keys().all(|id| arrived.contains(id))
    })
    .await?;
    fact("repeated", arrived.total() - arrived.different());
    consumer.shutdown().await;
    arrived.fine()
}

async fn send_on(
    options: Options,
    producer: Arc<DefaultMQProducer>,
    number: usize,
    state: Arc<Mutex<Sending>>,
) {
    for index in (number..).step_by(TASKS) {
        let id = format!("t{number}-{index}");
        let result = match make_sized(&options, &id, index, 300) {
            Ok(message) => send(&producer, message).await,
            Err(error) => Err(error),
        };
        let pause = if result.is_ok() { 5 } else { 100 };
        {
            let mut state = state.lock().expect("no sender panics");
            match result {
                Ok(at) => drop(state.acknowledged.insert(id, at)),
                Err(_) => state.refused += 1,
            }
            if state.ended {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Every acknowledged message lies where its acknowledgement said, in the order sent.
async fn in_place(clients: &Clients, acknowledged: &HashMap<String, Place>) -> Checked {
    let mut stored: BTreeMap<Place, (String, usize)> = BTreeMap::new();
    for message in clients
        .read_all(&clients.options.topic, acknowledged.len())
        .await?
    {
        stored.insert(place_of(&message), verify(&message)?);
    }
    let mut last: HashMap<(i32, String), usize> = HashMap::new();
    for (at, (id, index)) in &stored {
        if acknowledged.get(id) == Some(at) {
            let earlier = last.insert((at.1, id[..2].to_owned()), *index);
            check(earlier.is_none_or(|earlier| earlier < *index), || {
                format!("order: {id}")
            })?;
        }
    }
    for (id, at) in acknowledged {
        let found = stored.get(at).map(|(id, _)| id);
        same(Some(id), found, &format!("acknowledged at {at:?}"))?;
    }
    fact("unacknowledged", stored.len() - acknowledged.len());
    Ok(())
}
