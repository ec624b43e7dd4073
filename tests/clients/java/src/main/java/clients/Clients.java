package clients;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.Collection;
import java.util.HashMap;
import java.util.function.BiConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Clients set up the way every scenario wants them, and what 4.x and 5.x spell differently. */
final class Clients {
    static final int QUEUES = 4;
    /**
     * Seconds a group may take until its first message. If the heartbeat one second after a client's
     * start overlaps its first rebalance, the client sends its newer subscription only with the next
     * heartbeat, 30 s later, and brokers answer its pulls with SUBSCRIPTION_NOT_LATEST until then.
     */
    static final int ARRIVES = 60;
    /** Generous: machines that run this are busy, and a timeout would be a failure. */
    private static final int TIMEOUT_MS = 10_000;
    private static int instances;

    private static synchronized String instance(String kind) {
        return kind + "-" + ProcessHandle.current().pid() + "-" + instances++;
    }

    static DefaultMQProducer producer(Options options) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(options.group() + "-producer");
        producer.setNamesrvAddr(options.namesrv());
        producer.setInstanceName(instance("producer"));
        producer.setSendMsgTimeout(TIMEOUT_MS);
        producer.setMqClientApiTimeout(TIMEOUT_MS);
        producer.start();
        return producer;
    }

    static DefaultMQPushConsumer push(Options options, String group) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(options.namesrv());
        consumer.setInstanceName(instance("push"));
        consumer.setMqClientApiTimeout(TIMEOUT_MS);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeThreadMin(4);
        consumer.setConsumeThreadMax(4);
        return consumer;
    }

    static DefaultMQPullConsumer pull(Options options, String group) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(group);
        consumer.setNamesrvAddr(options.namesrv());
        consumer.setInstanceName(instance("pull"));
        consumer.setMqClientApiTimeout(TIMEOUT_MS);
        consumer.start();
        return consumer;
    }

    /** MessageModel moved to another package in 5.x. */
    static void broadcasting(DefaultMQPushConsumer consumer) throws Exception {
        for (Method method : DefaultMQPushConsumer.class.getMethods()) {
            if (method.getName().equals("setMessageModel")) {
                Object[] models = method.getParameterTypes()[0].getEnumConstants();
                for (Object model : models) {
                    if (model.toString().equals("BROADCASTING")) {
                        method.invoke(consumer, model);
                        return;
                    }
                }
            }
        }
        throw new AssertionError("no setMessageModel");
    }

    /** Asks again when a busy name server did not answer in time: asking twice does no harm. */
    static void createTopic(DefaultMQProducer producer, Options options) throws Exception {
        long end = System.nanoTime() + 30_000_000_000L;
        while (true) {
            try {
                askForTopic(producer, options);
                break;
            } catch (InvocationTargetException refused) {
                if (System.nanoTime() > end) {
                    throw refused;
                }
            }
        }
        // The broker tells the name server by itself; a producer may use the route from then on.
        Main.until(30, () -> "a route of " + options.topic(), () -> {
            try {
                return producer.fetchPublishMessageQueues(options.topic()).size() >= QUEUES;
            } catch (Exception absent) {
                return false;
            }
        });
    }

    /** createTopic got a map of attributes in 5.x. */
    private static void askForTopic(DefaultMQProducer producer, Options options) throws Exception {
        try {
            DefaultMQProducer.class
                .getMethod("createTopic", String.class, String.class, int.class, Map.class)
                .invoke(producer, "TBW102", options.topic(), QUEUES, new HashMap<>());
        } catch (NoSuchMethodException old) {
            DefaultMQProducer.class
                .getMethod("createTopic", String.class, String.class, int.class)
                .invoke(producer, "TBW102", options.topic(), QUEUES);
        }
    }

    /** createTopic of 5.5.0 takes attributes, and does not send them. */
    static void setAttribute(DefaultMQProducer producer, Options options, String name, String value)
            throws Exception {
        TopicConfig config = new TopicConfig(options.topic());
        config.setReadQueueNums(QUEUES);
        config.setWriteQueueNums(QUEUES);
        TopicConfig.class.getMethod("setAttributes", Map.class)
            .invoke(config, Map.of("+" + name, value));
        MQClientInstance instance = producer.getDefaultMQProducerImpl().getMqClientFactory();
        instance.updateTopicRouteInfoFromNameServer(options.topic());
        String broker = producer.fetchPublishMessageQueues(options.topic()).get(0).getBrokerName();
        instance.getMQClientAPIImpl().createTopic(
            instance.findBrokerAddressInPublish(broker), "TBW102", config, 10_000);
    }

    static List<MessageQueue> queues(DefaultMQPullConsumer consumer, String topic)
            throws Exception {
        Collection<MessageQueue> found = consumer.fetchSubscribeMessageQueues(topic);
        return new ArrayList<>(new TreeSet<>(found));
    }

    /** Reads a queue from its smallest to its largest offset. */
    static long readAll(DefaultMQPullConsumer consumer, MessageQueue queue, String tags,
            BiConsumer<Place, MessageExt> each) throws Exception {
        long offset = consumer.minOffset(queue);
        long end = consumer.maxOffset(queue);
        while (offset < end) {
            PullResult result = consumer.pull(queue, tags, offset, 32);
            if (result.getPullStatus() == PullStatus.FOUND) {
                for (MessageExt message : result.getMsgFoundList()) {
                    Main.same(queue.getQueueId(), message.getQueueId(), "queue of " + message);
                    each.accept(Place.of(queue, message.getQueueOffset()), message);
                }
            } else {
                Main.same(PullStatus.NO_MATCHED_MSG, result.getPullStatus(), "pull " + queue
                    + " at " + offset + " of " + end);
            }
            Main.check(result.getNextBeginOffset() > offset, "pull stands still: " + result);
            offset = result.getNextBeginOffset();
        }
        return end;
    }
}
