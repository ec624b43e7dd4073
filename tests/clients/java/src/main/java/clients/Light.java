package clients;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Messages that go to light queues besides their own. */
final class Light {
    private static final int LIGHTS = 6;
    private static final String NAMES = "INNER_MULTI_DISPATCH";
    private static final String OFFSETS = "INNER_MULTI_QUEUE_OFFSET";

    private final Options options;
    /** What each light queue of each broker should hold, in its order. */
    private final Map<MessageQueue, List<String>> expected = new TreeMap<>();

    private Light(Options options) {
        this.options = options;
    }

    static void run(Options options) throws Exception {
        Light light = new Light(options);
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        for (int index = 0; index < options.count(); index++) {
            light.send(producer, index);
        }
        light.readAll();
        light.goOn();
        producer.shutdown();
    }

    private String name(int number) {
        return "%LMQ%" + options.topic() + "." + number;
    }

    private void send(DefaultMQProducer producer, int index) throws Exception {
        String id = "l-" + index;
        Message message = Messages.make(options, id, index);
        List<String> names = new ArrayList<>();
        for (int number = 0; number < LIGHTS; number++) {
            if ((index * 7 + 1) % (number + 2) == 0) {
                names.add(name(number));
            }
        }
        if (!names.isEmpty()) {
            message.putUserProperty(NAMES, String.join(",", names));
        }
        SendResult result = producer.send(message, Send.BY_KEY, index);
        for (String name : names) {
            String broker = result.getMessageQueue().getBrokerName();
            MessageQueue queue = new MessageQueue(name, broker, 0);
            expected.computeIfAbsent(queue, absent -> new ArrayList<>()).add(id);
        }
    }

    /** Every light queue, and the topic, in whose messages the offsets of the light ones stand. */
    private void readAll() throws Exception {
        DefaultMQPullConsumer consumer = Clients.pull(options, options.group());
        TreeSet<String> all = new TreeSet<>();
        for (MessageQueue queue : Clients.queues(consumer, options.topic())) {
            for (MessageExt message : read(consumer, queue, 0, consumer.maxOffset(queue))) {
                all.add(message.getUserProperty("id"));
                for (MessageQueue light : lights(message, queue.getBrokerName())) {
                    int place = offset(message, light.getTopic());
                    Main.same(message.getUserProperty("id"), expected.get(light).get(place),
                        "the message at " + place + " of " + light);
                }
            }
        }
        Main.same(options.count(), all.size(), "messages of the topic");
        for (Map.Entry<MessageQueue, List<String>> entry : expected.entrySet()) {
            MessageQueue queue = entry.getKey();
            Main.same((long) entry.getValue().size(), consumer.maxOffset(queue), "end of " + queue);
            Main.same(0L, consumer.minOffset(queue), "begin of " + queue);
            int place = 0;
            for (MessageExt message : read(consumer, queue, 0, entry.getValue().size())) {
                Main.same(options.topic(), message.getTopic(), "topic in " + queue);
                Main.same(entry.getValue().get(place), message.getUserProperty("id"),
                    "message " + place + " of " + queue);
                Main.same(place, offset(message, queue.getTopic()), "offset in " + queue);
                place++;
            }
            consumer.updateConsumeOffset(queue, place / 2);
            consumer.getOffsetStore().persist(queue);
        }
        consumer.shutdown();
        Main.fact("lights", expected.size());
    }

    /** Another consumer of the group finds the offsets. */
    private void goOn() throws Exception {
        DefaultMQPullConsumer consumer = Clients.pull(options, options.group());
        // So it learns where the brokers are.
        for (MessageQueue queue : Clients.queues(consumer, options.topic())) {
            consumer.maxOffset(queue);
        }
        for (Map.Entry<MessageQueue, List<String>> entry : expected.entrySet()) {
            long half = entry.getValue().size() / 2;
            MessageQueue queue = entry.getKey();
            Main.same(half, consumer.fetchConsumeOffset(queue, true), "offset in " + queue);
            Main.same(PullStatus.NO_NEW_MSG,
                consumer.pull(queue, "*", entry.getValue().size(), 32).getPullStatus(),
                "pull at the end of " + queue);
        }
        consumer.shutdown();
    }

    private List<MessageExt> read(DefaultMQPullConsumer consumer, MessageQueue queue, long from,
            long end) throws Exception {
        List<MessageExt> found = new ArrayList<>();
        for (long offset = from; offset < end; ) {
            PullResult result = consumer.pull(queue, "*", offset, 32);
            Main.same(PullStatus.FOUND, result.getPullStatus(), "pull of " + queue);
            result.getMsgFoundList().forEach(Messages::check);
            found.addAll(result.getMsgFoundList());
            offset = result.getNextBeginOffset();
        }
        return found;
    }

    private static List<MessageQueue> lights(MessageExt message, String broker) {
        List<MessageQueue> lights = new ArrayList<>();
        String names = message.getProperty(NAMES);
        if (names != null) {
            for (String name : names.split(",")) {
                lights.add(new MessageQueue(name, broker, 0));
            }
        }
        return lights;
    }

    private static int offset(MessageExt message, String name) {
        int place = Arrays.asList(message.getProperty(NAMES).split(",")).indexOf(name);
        return Integer.parseInt(message.getProperty(OFFSETS).split(",")[place]);
    }
}
