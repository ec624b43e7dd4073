package clients;

import java.lang.reflect.Method;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Messages arrive when their delay is over: by level, and by milliseconds where the client can. */
final class Delay {
    private static final long LATE_MS = 5000;

    static void run(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        Map<String, Long> arrived = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = Clients.push(options, options.group());
        consumer.subscribe(options.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                arrived.putIfAbsent(Messages.check(message), System.currentTimeMillis());
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        // A first message without delay, so that the group has its queues when the clock matters.
        producer.send(Messages.make(options, "d-now", 0));
        Main.until(Clients.ARRIVES, () -> "the plain message", () -> arrived.containsKey("d-now"));
        Map<String, Long> due = new ConcurrentHashMap<>();
        for (int index = 0; index < 6; index++) {
            Message message = Messages.make(options, "d-" + index, index);
            int level = 1 + index % 2;
            message.setDelayTimeLevel(level);
            due.put("d-" + index, System.currentTimeMillis() + (level == 1 ? 1000 : 5000));
            producer.send(message);
        }
        boolean exact = sendTimed(options, producer, due);
        Main.until(30, () -> arrived.size() + " arrived", () -> arrived.size() == due.size() + 1);
        due.forEach((id, time) -> {
            long late = arrived.get(id) - time;
            Main.check(late >= -1 && late < LATE_MS,
                id + " arrived " + late + " ms after its time");
        });
        Main.fact("milliseconds", exact);
        consumer.shutdown();
        producer.shutdown();
    }

    private static boolean sendTimed(Options options, DefaultMQProducer producer,
            Map<String, Long> due) throws Exception {
        Method set;
        try {
            set = Message.class.getMethod("setDelayTimeMs", long.class);
        } catch (NoSuchMethodException old) {
            return false;
        }
        Message message = Messages.make(options, "d-timed", 1);
        set.invoke(message, 3000L);
        // The wheel turns once a second and may round down.
        due.put("d-timed", System.currentTimeMillis() + 2000);
        producer.send(message);
        return true;
    }
}
