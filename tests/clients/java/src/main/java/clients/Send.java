package clients;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.MessageQueueSelector;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Every way to send, to a topic that the first send creates; then all of it is read back. */
final class Send {
    static final int BATCH = 10;
    static final MessageQueueSelector BY_KEY =
        (queues, message, key) -> queues.get((Integer) key % queues.size());

    private final Options options;
    private final Map<String, Place> placed = new ConcurrentHashMap<>();
    private final Set<String> oneway = ConcurrentHashMap.newKeySet();

    private Send(Options options) {
        this.options = options;
    }

    static void run(Options options) throws Exception {
        Send send = new Send(options);
        DefaultMQProducer producer = Clients.producer(options);
        send.sync(producer);
        send.async(producer);
        send.oneway(producer);
        send.batch(producer);
        send.ordered(producer);
        send.readBack();
        producer.shutdown();
    }

    private void sync(DefaultMQProducer producer) throws Exception {
        for (int index = 0; index < options.count(); index++) {
            String id = "sync-" + index;
            placed.put(id, Place.of(producer.send(Messages.make(options, id, index))));
        }
    }

    private void async(DefaultMQProducer producer) throws Exception {
        AtomicReference<Throwable> failure = new AtomicReference<>();
        int before = placed.size();
        for (int index = 0; index < options.count(); index++) {
            String id = "async-" + index;
            producer.send(Messages.make(options, id, index), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    placed.put(id, Place.of(result));
                }

                @Override
                public void onException(Throwable thrown) {
                    failure.set(thrown);
                }
            });
        }
        Main.until(30, () -> "asynchronous answers, " + failure, () ->
            failure.get() != null || placed.size() == before + options.count());
        Main.check(failure.get() == null, "asynchronous send: " + failure);
    }

    private void oneway(DefaultMQProducer producer) throws Exception {
        for (int index = 0; index < options.count(); index++) {
            String id = "oneway-" + index;
            producer.sendOneway(Messages.make(options, id, index));
            oneway.add(id);
        }
    }

    private void batch(DefaultMQProducer producer) throws Exception {
        for (int index = 0; index < options.count(); index += BATCH) {
            List<Message> messages = new ArrayList<>();
            for (int at = index; at < index + BATCH; at++) {
                messages.add(Messages.make(options, "batch-" + at, at, 50 + at));
            }
            SendResult result = producer.send(messages);
            Main.same(BATCH, result.getMsgId().split(",").length, "ids of a batch");
            for (int at = 0; at < BATCH; at++) {
                placed.put("batch-" + (index + at), Place.of(result).plus(at));
            }
        }
    }

    private void ordered(DefaultMQProducer producer) throws Exception {
        Map<Integer, Integer> queueOfKey = new HashMap<>();
        for (int index = 0; index < options.count(); index++) {
            String id = "ordered-" + index;
            int key = index % 7;
            Place place = Place.of(producer.send(Messages.make(options, id, index), BY_KEY, key));
            placed.put(id, place);
            Integer queue = queueOfKey.putIfAbsent(key, place.queue());
            Main.check(queue == null || queue == place.queue(), "key " + key + " moved");
        }
    }

    private void readBack() throws Exception {
        DefaultMQPullConsumer consumer = Clients.pull(options, options.group() + "-check");
        int expected = placed.size() + oneway.size();
        List<MessageQueue> queues = Clients.queues(consumer, options.topic());
        Main.until(30, () -> expected + " messages in the queues", () -> {
            try {
                long sum = 0;
                for (MessageQueue queue : queues) {
                    sum += consumer.maxOffset(queue);
                }
                return sum >= expected;
            } catch (Exception thrown) {
                throw new IllegalStateException(thrown);
            }
        });
        Map<String, Place> found = new HashMap<>();
        for (MessageQueue queue : queues) {
            Clients.readAll(consumer, queue, "*", (place, message) -> {
                String id = Messages.check(message);
                checkForm(id, message);
                Main.check(found.put(id, place) == null, "twice: " + id);
            });
        }
        Main.same(expected, found.size(), "messages read");
        placed.forEach((id, place) -> Main.same(place, found.get(id), "place of " + id));
        oneway.forEach(id -> Main.check(found.containsKey(id), "lost: " + id));
        Main.fact("messages", expected);
        Main.fact("queues", queues.size());
        consumer.shutdown();
    }

    private void checkForm(String id, MessageExt message) {
        // 5.x clears the flag when it inflates, so only the stored size tells.
        boolean large = message.getBody().length >= 4096;
        Main.same(large, message.getStoreSize() < message.getBody().length, "deflated: " + id);
        long stored = message.getStoreTimestamp() + 5000;
        Main.check(stored >= message.getBornTimestamp(), "times of " + id);
        boolean hosts = message.getStoreHost() != null && message.getBornHost() != null;
        Main.check(hosts, "hosts of " + id);
        Main.same(0, message.getReconsumeTimes(), "attempts of " + id);
    }
}
