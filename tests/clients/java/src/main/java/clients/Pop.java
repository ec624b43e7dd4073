package clients;

import java.lang.reflect.Method;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Two members of a group pop, as the broker tells them to; what one refuses comes again. */
final class Pop {
    private static final int TIMEOUT_MS = 10_000;

    static void run(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        int count = options.count();
        for (int index = 0; index < count / 2; index++) {
            producer.send(Messages.make(options, "pop-" + index, index));
        }
        choose(producer, options);
        Member first = new Member(options);
        Member second = new Member(options);
        for (int index = count / 2; index < count; index++) {
            producer.send(Messages.make(options, "pop-" + index, index));
        }
        Main.until(90, () -> first.done.size() + " and " + second.done.size() + " of " + count, () ->
            first.failure.get() != null || second.failure.get() != null
                || first.done.size() + second.done.size() >= count);
        first.stop();
        second.stop();
        int refused = first.refused.size() + second.refused.size();
        Main.same((count + 2) / 3, refused, "refused once");
        Set<String> all = new HashSet<>(first.done.keySet());
        all.addAll(second.done.keySet());
        Main.same(count, all.size(), "taken in the end");
        Main.same(count, first.done.size() + second.done.size(), "taken once");
        Main.fact("first", first.done.size());
        Main.fact("second", second.done.size());
        producer.shutdown();
    }

    /** Tells every broker that the group pops the topic. 4.x clients do not know of it. */
    static void choose(DefaultMQProducer producer, Options options) throws Exception {
        MQClientInstance instance = producer.getDefaultMQProducerImpl().getMqClientFactory();
        Set<String> brokers = new HashSet<>();
        for (MessageQueue queue : producer.fetchPublishMessageQueues(options.topic())) {
            brokers.add(queue.getBrokerName());
        }
        Method set = method(MQClientAPIImpl.class, "setMessageRequestMode");
        Object pop = null;
        for (Object mode : set.getParameterTypes()[3].getEnumConstants()) {
            pop = mode.toString().equals("POP") ? mode : pop;
        }
        for (String broker : brokers) {
            set.invoke(instance.getMQClientAPIImpl(), instance.findBrokerAddressInPublish(broker),
                options.topic(), options.group(), pop, 0, TIMEOUT_MS);
        }
    }

    /** The broker says what is consumed, and how. */
    static void leaveRebalancing(DefaultMQPushConsumer consumer) throws Exception {
        method(DefaultMQPushConsumer.class, "setClientRebalance").invoke(consumer, false);
    }

    private static Method method(Class<?> type, String name) {
        for (Method method : type.getMethods()) {
            if (method.getName().equals(name)) {
                return method;
            }
        }
        throw new AssertionError("no " + name);
    }

    private static final class Member implements MessageListenerConcurrently {
        final Map<String, Integer> done = new ConcurrentHashMap<>();
        final Set<String> refused = ConcurrentHashMap.newKeySet();
        final AtomicReference<Throwable> failure = new AtomicReference<>();
        private final String topic;
        private final DefaultMQPushConsumer consumer;

        Member(Options options) throws Exception {
            topic = options.topic();
            consumer = Clients.push(options, options.group());
            leaveRebalancing(consumer);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener(this);
            consumer.start();
        }

        @Override
        public ConsumeConcurrentlyStatus consumeMessage(java.util.List<MessageExt> messages,
                org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext context) {
            try {
                Main.same(1, messages.size(), "messages at a time");
                MessageExt message = messages.get(0);
                String id = Messages.check(message);
                Main.same(topic, message.getTopic(), "topic");
                Main.check(message.getProperty("POP_CK") != null, "popped");
                int index = Integer.parseInt(id.substring("pop-".length()));
                if (index % 3 == 0 && message.getReconsumeTimes() == 0) {
                    Main.check(refused.add(id), id + " came twice for the first time");
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
                Main.same(index % 3 == 0 ? 1 : 0, message.getReconsumeTimes(), "attempts before");
                Main.check(done.merge(id, 1, Integer::sum) == 1, id + " came twice");
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
