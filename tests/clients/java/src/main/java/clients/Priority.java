package clients;

import java.lang.reflect.InvocationTargetException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** A group that pops gets the most urgent message first, and one urgency in the order it was sent. */
final class Priority {
    private static final int[] PRIORITIES = {2, 0, 3, 1, 99, 0, 2};

    static void run(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        Clients.setAttribute(producer, options, "message.type", "PRIORITY");
        Pop.choose(producer, options);
        List<List<String>> levels = new ArrayList<>();
        for (int level = 0; level < Clients.QUEUES; level++) {
            levels.add(new ArrayList<>());
        }
        int count = options.count();
        for (int index = 0; index < count; index++) {
            int priority = PRIORITIES[index % PRIORITIES.length];
            int level = Math.min(priority, Clients.QUEUES - 1);
            Message message = Messages.make(options, "urgent-" + index, index, 100);
            prioritize(message, priority);
            SendResult result = producer.send(message);
            Main.same(level, result.getMessageQueue().getQueueId(), "queue of " + priority);
            levels.get(level).add("urgent-" + index);
        }
        List<String> expected = new ArrayList<>();
        for (int level = Clients.QUEUES - 1; level >= 0; level--) {
            expected.addAll(levels.get(level));
        }
        Main.same(expected, consume(options, count), "order");
        producer.shutdown();
    }

    /** 4.x clients do not know of it. */
    private static void prioritize(Message message, int priority) throws Exception {
        try {
            Message.class.getMethod("setPriority", int.class).invoke(message, priority);
        } catch (InvocationTargetException refused) {
            throw new AssertionError("priority " + priority, refused.getCause());
        }
    }

    /** With one thread, what is popped first is consumed first. */
    private static List<String> consume(Options options, int count) throws Exception {
        List<String> found = new ArrayList<>();
        AtomicReference<Throwable> failure = new AtomicReference<>();
        DefaultMQPushConsumer consumer = Clients.push(options, options.group());
        Pop.leaveRebalancing(consumer);
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        consumer.subscribe(options.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            try {
                for (MessageExt message : messages) {
                    String id = Messages.check(message);
                    synchronized (found) {
                        found.add(id);
                    }
                }
            } catch (Throwable thrown) {
                failure.set(thrown);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        Main.until(90, () -> found.size() + " of " + count, () -> {
            synchronized (found) {
                return failure.get() != null || found.size() >= count;
            }
        });
        consumer.shutdown();
        Main.check(failure.get() == null, "listener: " + failure);
        return found;
    }
}
