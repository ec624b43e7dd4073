package clients;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyContext;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;

/** One message after the other per queue, also when one of them fails once. */
final class Orderly implements MessageListenerOrderly {
    private final Map<Integer, List<Integer>> taken = new ConcurrentHashMap<>();
    private final Map<Integer, AtomicInteger> busy = new ConcurrentHashMap<>();
    private final AtomicInteger total = new AtomicInteger();
    private final AtomicInteger refused = new AtomicInteger();
    private final AtomicReference<Throwable> failure = new AtomicReference<>();

    static void run(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        Orderly listener = new Orderly();
        DefaultMQPushConsumer consumer = Clients.push(options, options.group());
        consumer.subscribe(options.topic(), "*");
        consumer.registerMessageListener(listener);
        consumer.setSuspendCurrentQueueTimeMillis(100);
        consumer.start();
        for (int index = 0; index < options.count(); index++) {
            producer.send(Messages.make(options, "o-" + index, index), Send.BY_KEY,
                index % Clients.QUEUES);
        }
        Main.until(60, () -> listener.total + " arrived, " + listener.failure, () ->
            listener.failure.get() != null || listener.total.get() >= options.count());
        consumer.shutdown();
        Main.check(listener.failure.get() == null, "listener: " + listener.failure);
        listener.taken.forEach((queue, list) -> {
            for (int at = 0; at < list.size(); at++) {
                int expected = at * Clients.QUEUES + list.get(0);
                Main.same(expected, list.get(at), "order in queue " + queue);
            }
        });
        Main.same(Clients.QUEUES, listener.taken.size(), "queues used");
        Main.same(options.count(), listener.total.get(), "messages");
        Main.fact("refused", listener.refused.get());
        producer.shutdown();
    }

    @Override
    public ConsumeOrderlyStatus consumeMessage(List<MessageExt> messages,
            ConsumeOrderlyContext context) {
        try {
            return take(messages.get(0));
        } catch (Throwable thrown) {
            failure.set(thrown);
            return ConsumeOrderlyStatus.SUCCESS;
        }
    }

    private ConsumeOrderlyStatus take(MessageExt message) {
        Messages.check(message);
        int queue = message.getQueueId();
        AtomicInteger inside = busy.computeIfAbsent(queue, absent -> new AtomicInteger());
        Main.same(1, inside.incrementAndGet(), "listeners of one queue at a time");
        try {
            int index = Integer.parseInt(message.getUserProperty("index"));
            if (index % 50 == 7 && message.getReconsumeTimes() == 0) {
                refused.incrementAndGet();
                return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
            }
            taken.computeIfAbsent(queue, absent -> new ArrayList<>()).add(index);
            total.incrementAndGet();
            return ConsumeOrderlyStatus.SUCCESS;
        } finally {
            inside.decrementAndGet();
        }
    }
}
