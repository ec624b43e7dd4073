//! Clients set up the way every scenario wants them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rocketmq_client_rust::{
    ClientConfig, ClientRuntime, ClientRuntimeConfig, DefaultLitePullConsumer, DefaultMQProducer,
    DefaultMQPushConsumer, DefaultMQPushConsumerBuilder,
};
use rocketmq_model::common::consumer::consume_from_where::ConsumeFromWhere;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::message::MessageQueue;
use rocketmq_model::result::{SendResult, SendStatus};
use rocketmq_observability::TelemetryRuntimeGuard;
use rocketmq_runtime::{RuntimeConfig, RuntimeOwner};

use crate::{Checked, Options, check, same, text};

pub const QUEUES: usize = 4;

/// Broker, queue and offset.
pub type Place = (String, i32, i64);

pub struct Clients {
    pub options: Options,
    runtime: Arc<ClientRuntime>,
    // The runtime lives as long as its owner.
    _owner: RuntimeOwner,
    _telemetry: TelemetryRuntimeGuard,
    instances: AtomicUsize,
}

impl Clients {
    pub fn new(options: Options) -> Checked<Self> {
        let config = RuntimeConfig {
            thread_name: "rust-client".to_owned(),
            ..RuntimeConfig::default()
        };
        let owner = RuntimeOwner::plan(config)
            .map_err(text)?
            .build()
            .map_err(text)?;
        let telemetry = TelemetryRuntimeGuard::noop();
        let runtime = ClientRuntime::try_new(
            owner.root_context().component("client"),
            ClientRuntimeConfig::default(),
            telemetry.handle(),
        )
        .map_err(text)?;
        Ok(Self {
            options,
            runtime,
            _owner: owner,
            _telemetry: telemetry,
            instances: AtomicUsize::new(0),
        })
    }

    pub fn runtime(&self) -> Arc<ClientRuntime> {
        self.runtime.clone()
    }

    pub fn config(&self) -> ClientConfig {
        let number = self.instances.fetch_add(1, Ordering::Relaxed);
        ClientConfig {
            namesrv_addr: Some(self.options.namesrv.clone().into()),
            instance_name: format!("rust-{}-{number}", std::process::id()).into(),
            ..ClientConfig::default()
        }
    }

    pub async fn producer(&self) -> Checked<DefaultMQProducer> {
        let mut producer = DefaultMQProducer::builder(self.runtime())
            .client_config(self.config())
            .producer_group(format!("{}-producer", self.options.group))
            .send_msg_timeout(10_000)
            .build();
        producer.start().await.map_err(text)?;
        Ok(producer)
    }

    pub async fn create_topic(&self, producer: &mut DefaultMQProducer, topic: &str) -> Checked {
        let queues = QUEUES as i32;
        producer
            .create_topic("TBW102", topic, queues, HashMap::new())
            .await
            .map_err(text)?;
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            match producer.fetch_publish_message_queues(topic).await {
                Ok(found) if found.len() >= QUEUES => return Ok(()),
                _ => check(std::time::Instant::now() < end, || {
                    format!("no route of {topic}")
                })?,
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    pub fn push(&self, group: &str) -> DefaultMQPushConsumerBuilder {
        DefaultMQPushConsumer::builder(self.runtime())
            .client_config(self.config())
            .consumer_group(group.to_owned())
            .consume_from_where(ConsumeFromWhere::ConsumeFromFirstOffset)
            .consume_message_batch_max_size(1)
            .consume_thread_min(4)
            .consume_thread_max(4)
    }

    pub fn lite(&self, group: &str) -> Checked<DefaultLitePullConsumer> {
        DefaultLitePullConsumer::builder(self.runtime())
            .name_server_addr(self.options.namesrv.clone())
            .instance_name(self.config().instance_name)
            .consumer_group(group.to_owned())
            .consume_from_where(ConsumeFromWhere::ConsumeFromFirstOffset)
            .auto_commit(false)
            .pull_batch_size(32)
            .build()
            .map_err(text)
    }

    /// Reads at least `expected` messages: all there are in the topic's queues.
    pub async fn read_all(&self, topic: &str, expected: usize) -> Checked<Vec<MessageExt>> {
        let consumer = self.lite(&format!("{}-check", self.options.group))?;
        consumer.start().await.map_err(text)?;
        let queues = consumer.fetch_message_queues(topic).await.map_err(text)?;
        consumer.assign(queues.clone()).await.map_err(text)?;
        for queue in &queues {
            let begin = consumer.min_offset(queue).await.map_err(text)?;
            consumer.seek(queue, begin).await.map_err(text)?;
        }
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut found = Vec::new();
        loop {
            let mut stored = 0;
            for queue in &queues {
                stored += consumer.max_offset(queue).await.map_err(text)?;
            }
            if found.len() >= expected && found.len() as i64 >= stored {
                break;
            }
            check(std::time::Instant::now() < end, || {
                format!("read {} of {expected}, stored {stored}", found.len())
            })?;
            found.extend(consumer.poll_with_timeout(500).await);
        }
        consumer.shutdown().await;
        Ok(found)
    }
}

pub fn place(result: &SendResult) -> Checked<Place> {
    same(SendStatus::SendOk, result.send_status, "status")?;
    let queue: &MessageQueue = result
        .message_queue
        .as_ref()
        .ok_or("no queue in a result")?;
    Ok((
        queue.broker_name().to_string(),
        queue.queue_id(),
        result.queue_offset as i64,
    ))
}

pub fn place_of(message: &MessageExt) -> Place {
    (
        message.broker_name().to_owned(),
        message.queue_id(),
        message.queue_offset(),
    )
}

/// Sends and checks the answer.
pub async fn send(
    producer: &DefaultMQProducer,
    message: rocketmq_model::common::message::message_single::Message,
) -> Checked<Place> {
    let result = producer.send(message).await.map_err(text)?;
    place(&result.ok_or("no result")?)
}
