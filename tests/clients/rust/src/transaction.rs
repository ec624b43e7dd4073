//! Committed messages arrive, rolled back ones never, undecided ones after the broker asked.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use rocketmq_client_rust::{LocalTransactionState, TransactionListener, TransactionMQProducer};
use rocketmq_model::common::message::MessageTrait;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_protocol::protocol::heartbeat::message_model::MessageModel;

use crate::clients::Clients;
use crate::messages::{make, property};
use crate::push::member;
use crate::{Checked, check, fact, mark, text, until};

const KINDS: [&str; 6] = ["commit", "rollback", "late", "commit", "rollback", "never"];

#[derive(Clone, Default)]
struct Deciding {
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl TransactionListener for Deciding {
    fn execute_local_transaction(
        &self,
        message: &dyn MessageTrait,
        _argument: Option<&(dyn Any + Send + Sync)>,
    ) -> LocalTransactionState {
        let id = message.get_properties().get("id").map(ToString::to_string);
        match id.unwrap_or_default() {
            id if id.starts_with("commit") => LocalTransactionState::CommitMessage,
            id if id.starts_with("rollback") => LocalTransactionState::RollbackMessage,
            _ => LocalTransactionState::Unknown,
        }
    }

    fn check_local_transaction(&self, message: &MessageExt) -> LocalTransactionState {
        let id = property(message, "id").unwrap_or_default();
        let late = id.starts_with("late");
        self.asked.lock().expect("no listener panics").insert(id);
        if late {
            LocalTransactionState::CommitMessage
        } else {
            LocalTransactionState::RollbackMessage
        }
    }
}

pub async fn run(clients: &Clients) -> Checked {
    let options = &clients.options;
    let mut plain = clients.producer().await?;
    clients.create_topic(&mut plain, &options.topic).await?;
    plain.shutdown().await;
    let deciding = Deciding::default();
    let mut producer = TransactionMQProducer::builder(clients.runtime())
        .client_config(clients.config())
        .producer_group(format!("{}-tx", options.group))
        .transaction_listener(deciding.clone())
        .build();
    producer.start().await.map_err(text)?;
    let (arrived, mut consumer) =
        member(clients, &options.group, "*", MessageModel::Clustering).await?;
    let count = options.count.min(30) / KINDS.len() * KINDS.len();
    for index in 0..count {
        let id = format!("{}-{index}", KINDS[index % KINDS.len()]);
        let message = make(options, &id, index)?;
        producer
            .send_message_in_transaction::<(), _>(message, None)
            .await
            .map_err(text)?;
    }
    until(40, "the committed ones", || {
        arrived.different() == count / 3
    })
    .await?;
    mark("committed");
    until(100, "the broker asks for the undecided ones", || {
        let asked = deciding.asked.lock().expect("no listener panics").len();
        asked == count / 3 && arrived.different() == count / 2
    })
    .await?;
    for id in arrived.ids() {
        let wanted = id.starts_with("commit") || id.starts_with("late");
        check(wanted, || format!("arrived: {id}"))?;
    }
    fact("asked", count / 3);
    arrived.fine()?;
    consumer.shutdown().await;
    producer.shutdown().await;
    Ok(())
}
