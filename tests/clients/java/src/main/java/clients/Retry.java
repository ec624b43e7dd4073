package clients;

import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Refused messages come back with their attempts counted, or end as dead letters. */
final class Retry {
    private static final int REFUSALS = 2;

    static void run(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        int count = Math.min(options.count(), 12);
        for (int index = 0; index < count; index++) {
            producer.send(Messages.make(options, "r-" + index, index));
        }
        Refusing patient = new Refusing(options, options.group(), 16);
        Refusing strict = new Refusing(options, options.group() + "-strict", 1);
        Main.until(60, () -> patient.done + " of " + count + " taken", () ->
            patient.failure.get() != null || patient.done.get() >= count);
        deadLetters(options, count);
        patient.stop();
        strict.stop();
        Main.same(count, patient.done.get(), "taken after refusals");
        Main.same(0, strict.done.get(), "taken by the strict group");
        producer.shutdown();
    }

    private static void deadLetters(Options options, int count) throws Exception {
        DefaultMQPullConsumer consumer = Clients.pull(options, options.group() + "-check");
        String topic = "%DLQ%" + options.group() + "-strict";
        Set<String> dead = ConcurrentHashMap.newKeySet();
        Main.until(60, () -> dead.size() + " of " + count + " dead letters", () -> {
            try {
                for (MessageQueue queue : Clients.queues(consumer, topic)) {
                    Clients.readAll(consumer, queue, "*", (place, message) -> {
                        dead.add(Messages.check(message));
                        Main.same(options.topic(), message.getProperty("RETRY_TOPIC"), "origin");
                        Main.check(message.getProperty("ORIGIN_MESSAGE_ID") != null, "origin id");
                    });
                }
                return dead.size() == count;
            } catch (Exception absent) {
                return false;
            }
        });
        Main.fact("dead", dead.size());
        consumer.shutdown();
    }

    private static final class Refusing implements MessageListenerConcurrently {
        final AtomicInteger done = new AtomicInteger();
        final AtomicReference<Throwable> failure = new AtomicReference<>();
        private final Map<String, Integer> attempts = new ConcurrentHashMap<>();
        private final String topic;
        private final DefaultMQPushConsumer consumer;

        Refusing(Options options, String group, int reconsumeMax) throws Exception {
            topic = options.topic();
            consumer = Clients.push(options, group);
            consumer.setMaxReconsumeTimes(reconsumeMax);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener(this);
            consumer.start();
        }

        @Override
        public ConsumeConcurrentlyStatus consumeMessage(java.util.List<MessageExt> messages,
                org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext context) {
            try {
                context.setDelayLevelWhenNextConsume(1);
                MessageExt message = messages.get(0);
                String id = Messages.check(message);
                int attempt = attempts.merge(id, 1, Integer::sum) - 1;
                Main.same(attempt, message.getReconsumeTimes(), "attempts of " + id);
                Main.same(topic, message.getTopic(), "topic of " + id);
                if (attempt < REFUSALS) {
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
                done.incrementAndGet();
            } catch (Throwable thrown) {
                failure.set(thrown);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        }

        void stop() {
            consumer.shutdown();
            Main.check(failure.get() == null, "listener: " + failure);
        }
    }
}
