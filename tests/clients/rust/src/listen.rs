//! Listeners that refuse, keep order or look at the time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rocketmq_client_rust::{
    ClientResult, ConsumeConcurrentlyContext, ConsumeConcurrentlyStatus, ConsumeOrderlyContext,
    ConsumeOrderlyStatus, MQPushConsumer, MessageListenerConcurrently, MessageListenerOrderly,
};
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::message::MessageQueue;

use crate::clients::{Clients, QUEUES, send};
use crate::messages::{make, make_delayed, verify};
use crate::{Checked, check, fact, same, text, until};

#[derive(Default)]
struct Taken {
    by_queue: HashMap<i32, Vec<usize>>,
    total: usize,
    refused: usize,
    failure: Option<String>,
}

#[derive(Clone, Default)]
struct InOrder(Arc<Mutex<Taken>>);

impl InOrder {
    /// Answers whether the message is taken.
    fn take(&self, message: &MessageExt) -> Checked<bool> {
        let (_, index) = verify(message)?;
        let mut taken = self.0.lock().map_err(text)?;
        if index % 50 == 7 && message.reconsume_times() == 0 {
            taken.refused += 1;
            return Ok(false);
        }
        taken
            .by_queue
            .entry(message.queue_id())
            .or_default()
            .push(index);
        taken.total += 1;
        Ok(true)
    }
}

impl MessageListenerOrderly for InOrder {
    fn consume_message(
        &self,
        messages: &[&MessageExt],
        context: &mut ConsumeOrderlyContext,
    ) -> ClientResult<ConsumeOrderlyStatus> {
        match self.take(messages[0]) {
            Ok(true) => return Ok(ConsumeOrderlyStatus::Success),
            Ok(false) => context.set_suspend_current_queue_time_millis(100),
            Err(error) => {
                self.0.lock().expect("no listener panics").failure = Some(error);
                return Ok(ConsumeOrderlyStatus::Success);
            }
        }
        Ok(ConsumeOrderlyStatus::SuspendCurrentQueueAMoment)
    }
}

/// One message after the other per queue, also when one of them fails once.
pub async fn orderly(clients: &Clients) -> Checked {
    let options = &clients.options;
    let mut producer = clients.producer().await?;
    clients.create_topic(&mut producer, &options.topic).await?;
    let listener = InOrder::default();
    let mut consumer = clients.push(&options.group).build();
    consumer
        .subscribe(options.topic.clone(), "*")
        .await
        .map_err(text)?;
    consumer.register_message_listener_orderly(listener.clone());
    consumer.start().await.map_err(text)?;
    for index in 0..options.count {
        let message = make(options, &format!("o-{index}"), index)?;
        let in_turn = |queues: &[MessageQueue], _: &_, index: &usize| {
            Some(queues[index % queues.len()].clone())
        };
        producer
            .send_with_selector(message, in_turn, index)
            .await
            .map_err(text)?;
    }
    until(90, "all arrive", || {
        let taken = listener.0.lock().expect("no listener panics");
        taken.failure.is_some() || taken.total >= options.count
    })
    .await?;
    consumer.shutdown().await;
    let taken = listener.0.lock().map_err(text)?;
    check(taken.failure.is_none(), || {
        format!("listener: {:?}", taken.failure)
    })?;
    same(options.count, taken.total, "messages")?;
    same(QUEUES, taken.by_queue.len(), "queues used")?;
    for (queue, indexes) in &taken.by_queue {
        for (at, index) in indexes.iter().enumerate() {
            same(
                indexes[0] + at * QUEUES,
                *index,
                &format!("order in queue {queue}"),
            )?;
        }
    }
    fact("refused", taken.refused);
    Ok(())
}

#[derive(Default)]
struct Attempts {
    of: HashMap<String, i32>,
    done: usize,
    failure: Option<String>,
}

/// Takes a message at the second attempt only.
#[derive(Clone)]
struct Refusing {
    attempts: Arc<Mutex<Attempts>>,
    topic: String,
}

impl Refusing {
    fn take(&self, message: &MessageExt) -> Checked<bool> {
        let (id, _) = verify(message)?;
        let mut attempts = self.attempts.lock().map_err(text)?;
        let attempt = attempts.of.entry(id.clone()).or_default();
        same(
            *attempt,
            message.reconsume_times(),
            &format!("attempts of {id}"),
        )?;
        same(
            self.topic.as_str(),
            message.topic().as_str(),
            &format!("topic of {id}"),
        )?;
        *attempt += 1;
        if *attempt == 1 {
            return Ok(false);
        }
        attempts.done += 1;
        Ok(true)
    }
}

impl MessageListenerConcurrently for Refusing {
    fn consume_message(
        &self,
        messages: &[&MessageExt],
        _context: &ConsumeConcurrentlyContext,
    ) -> ClientResult<ConsumeConcurrentlyStatus> {
        match self.take(messages[0]) {
            Ok(true) => return Ok(ConsumeConcurrentlyStatus::ConsumeSuccess),
            Ok(false) => {}
            Err(error) => {
                self.attempts.lock().expect("no listener panics").failure = Some(error);
                return Ok(ConsumeConcurrentlyStatus::ConsumeSuccess);
            }
        }
        Ok(ConsumeConcurrentlyStatus::ReconsumeLater)
    }
}

/// A refused message comes back; this library gives no way to choose the delay of 10 s.
pub async fn retry(clients: &Clients) -> Checked {
    let options = &clients.options;
    let mut producer = clients.producer().await?;
    clients.create_topic(&mut producer, &options.topic).await?;
    let count = options.count.min(12);
    for index in 0..count {
        send(&producer, make(options, &format!("r-{index}"), index)?).await?;
    }
    let listener = Refusing {
        attempts: Arc::default(),
        topic: options.topic.clone(),
    };
    let mut consumer = clients.push(&options.group).build();
    consumer
        .subscribe(options.topic.clone(), "*")
        .await
        .map_err(text)?;
    consumer.register_message_listener_concurrently(listener.clone());
    consumer.start().await.map_err(text)?;
    until(90, "all taken after a refusal", || {
        let attempts = listener.attempts.lock().expect("no listener panics");
        attempts.failure.is_some() || attempts.done >= count
    })
    .await?;
    consumer.shutdown().await;
    let attempts = listener.attempts.lock().map_err(text)?;
    check(attempts.failure.is_none(), || {
        format!("listener: {:?}", attempts.failure)
    })?;
    same(count, attempts.done, "taken after a refusal")
}

#[derive(Clone, Default)]
struct Clock(Arc<Mutex<HashMap<String, Instant>>>);

impl MessageListenerConcurrently for Clock {
    fn consume_message(
        &self,
        messages: &[&MessageExt],
        _context: &ConsumeConcurrentlyContext,
    ) -> ClientResult<ConsumeConcurrentlyStatus> {
        for message in messages {
            let id = verify(message).map_or_else(|error| error, |(id, _)| id);
            self.0
                .lock()
                .expect("no listener panics")
                .entry(id)
                .or_insert_with(Instant::now);
        }
        Ok(ConsumeConcurrentlyStatus::ConsumeSuccess)
    }
}

/// Messages arrive when the delay of their level is over.
pub async fn delay(clients: &Clients) -> Checked {
    let options = &clients.options;
    let mut producer = clients.producer().await?;
    clients.create_topic(&mut producer, &options.topic).await?;
    let clock = Clock::default();
    let mut consumer = clients.push(&options.group).build();
    consumer
        .subscribe(options.topic.clone(), "*")
        .await
        .map_err(text)?;
    consumer.register_message_listener_concurrently(clock.clone());
    consumer.start().await.map_err(text)?;
    let arrived = || clock.0.lock().expect("no listener panics").len();
    // A first message without delay: the group has its queues when the clock matters.
    send(&producer, make(options, "d-now", 0)?).await?;
    until(60, "the plain message", || arrived() == 1).await?;
    let mut due = HashMap::new();
    for index in 0..6 {
        let id = format!("d-{index}");
        let level = 1 + (index % 2) as i32;
        let seconds = if level == 1 { 1 } else { 5 };
        due.insert(id.clone(), Instant::now() + Duration::from_secs(seconds));
        send(&producer, make_delayed(options, &id, index, 100, level)?).await?;
    }
    until(40, "all delayed messages", || arrived() == 7).await?;
    consumer.shutdown().await;
    let clock = clock.0.lock().map_err(text)?;
    for (id, time) in due {
        let at = *clock
            .get(&id)
            .ok_or_else(|| format!("{id} among {:?}", clock.keys()))?;
        let early = time.saturating_duration_since(at) > Duration::from_millis(1);
        let late = at.saturating_duration_since(time) > Duration::from_secs(5);
        check(!early && !late, || format!("{id} arrived early or late"))?;
    }
    Ok(())
}
