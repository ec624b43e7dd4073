package clients;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;

/** A push consumer that counts, and the scenarios built of it. */
final class Push {
    final Map<String, Integer> seen = new ConcurrentHashMap<>();
    final AtomicInteger total = new AtomicInteger();
    final AtomicReference<Throwable> failure = new AtomicReference<>();
    final DefaultMQPushConsumer consumer;

    Push(Options options, String group, String tags, boolean broadcasting) throws Exception {
        this(options, group, MessageSelector.byTag(tags), broadcasting);
    }

    Push(Options options, String group, MessageSelector selector, boolean broadcasting)
        throws Exception {
        consumer = Clients.push(options, group);
        if (broadcasting) {
            Clients.broadcasting(consumer);
        }
        consumer.subscribe(options.topic(), selector);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                take(message);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
    }

    private void take(MessageExt message) {
        try {
            seen.merge(Messages.check(message), 1, Integer::sum);
            total.incrementAndGet();
        } catch (Throwable thrown) {
            failure.set(thrown);
        }
    }

    void stop() {
        consumer.shutdown();
        Main.check(failure.get() == null, "listener: " + failure);
    }

    /** A second member joins a group at work and leaves it again. */
    static void rebalance(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        Stream stream = new Stream(options, producer);
        Push first = new Push(options, options.group(), "*", false);
        Main.until(60, () -> "the first member takes all, " + first.seen.size(), () ->
            first.seen.size() >= options.count());
        Main.mark("alone");
        Push second = new Push(options, options.group(), "*", false);
        int enough = options.count() / 4;
        Main.until(60, () -> "the second member gets a share, " + second.total, () ->
            second.total.get() >= enough);
        int before = first.total.get();
        Main.until(60, () -> "the first member keeps a share", () ->
            first.total.get() >= before + enough);
        Main.mark("both");
        second.stop();
        int sentBefore = stream.sent().size();
        Main.until(60, () -> "the first member takes over", () -> {
            List<String> sent = stream.sent();
            return sent.size() >= sentBefore + enough
                && first.seen.keySet().containsAll(sent.subList(sentBefore, sentBefore + enough));
        });
        List<String> sent = stream.end();
        Main.until(60, () -> missing(sent, first, second) + " messages arrive nowhere", () ->
            missing(sent, first, second) == 0);
        first.stop();
        Main.fact("sent", sent.size());
        Main.fact("repeated", first.total.get() + second.total.get() - sent.size());
        producer.shutdown();
    }

    private static long missing(List<String> sent, Push first, Push second) {
        return sent.stream()
            .filter(id -> !first.seen.containsKey(id) && !second.seen.containsKey(id)).count();
    }

    static void broadcast(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        Push first = new Push(options, options.group(), "*", true);
        Push second = new Push(options, options.group(), "*", true);
        for (int index = 0; index < options.count(); index++) {
            producer.send(Messages.make(options, "all-" + index, index));
        }
        Main.until(Clients.ARRIVES,
            () -> first.seen.size() + " and " + second.seen.size() + " arrived", () ->
            first.seen.size() == options.count() && second.seen.size() == options.count());
        Main.same(options.count(), first.total.get(), "first member");
        Main.same(options.count(), second.total.get(), "second member");
        first.stop();
        second.stop();
        producer.shutdown();
    }

    /** Only the tags asked for arrive; a plain group sees the rest too. */
    static void tags(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        List<String> wanted = new ArrayList<>();
        for (int index = 0; index < options.count(); index++) {
            producer.send(Messages.make(options, "tag-" + index, index));
            if (!Messages.TAGS[index % 3].equals("B")) {
                wanted.add("tag-" + index);
            }
        }
        Push some = new Push(options, options.group(), "A || C", false);
        Push all = new Push(options, options.group() + "-all", "*", false);
        Main.until(Clients.ARRIVES,
            () -> some.seen.size() + " of " + wanted.size() + " and " + all.seen.size(),
            () -> some.seen.size() >= wanted.size() && all.seen.size() >= options.count());
        Main.same(Set.copyOf(wanted), Set.copyOf(some.seen.keySet()), "messages of two tags");
        some.stop();
        all.stop();
        producer.shutdown();
    }

    /** Only what an expression on properties holds for arrives, also what is sent while it waits. */
    static void sql(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        String low = "index < 10 OR (TAGS = 'B' AND index BETWEEN 20 AND 39)";
        Push some = new Push(options, options.group(), MessageSelector.bySql(low), false);
        List<String> wanted = new ArrayList<>();
        for (int index = 0; index < options.count(); index++) {
            producer.send(Messages.make(options, "sql-" + index, index));
            boolean inside = index >= 20 && index <= 39 && Messages.TAGS[index % 3].equals("B");
            if (index < 10 || inside) {
                wanted.add("sql-" + index);
            }
        }
        Push all = new Push(options, options.group() + "-all", "*", false);
        Main.until(Clients.ARRIVES,
            () -> some.seen.size() + " of " + wanted.size() + " and " + all.seen.size(),
            () -> some.seen.size() >= wanted.size() && all.seen.size() >= options.count());
        Main.same(Set.copyOf(wanted), Set.copyOf(some.seen.keySet()), "messages of an expression");
        some.stop();
        all.stop();
        refused(options);
        producer.shutdown();
    }

    /** A client learns at its start that its expression is none. */
    private static void refused(Options options) {
        try {
            MessageSelector wrong = MessageSelector.bySql("index >");
            new Push(options, options.group() + "-wrong", wrong, false).stop();
        } catch (Exception expected) {
            return;
        }
        Main.check(false, "an expression that is none was taken");
    }

    /** Sends and consumes until it is told to end: someone for mqadmin to look at. */
    static void member(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        for (int index = 0; index < options.count(); index++) {
            producer.send(Messages.make(options, "member-" + index, index));
        }
        Push push = new Push(options, options.group(), "*", false);
        Main.until(60, () -> push.seen.size() + " arrived", () ->
            push.seen.size() == options.count());
        Main.mark("consumed");
        Restart.awaitLine("end");
        push.stop();
        producer.shutdown();
    }

    /** Sends in the background until told to end. */
    static final class Stream {
        private final List<String> sent = new CopyOnWriteArrayList<>();
        private final AtomicBoolean ended = new AtomicBoolean();
        private final AtomicReference<Throwable> failure = new AtomicReference<>();
        private final Thread thread;

        Stream(Options options, DefaultMQProducer producer) {
            thread = new Thread(() -> {
                try {
                    for (int index = 0; !ended.get(); index++) {
                        String id = "stream-" + index;
                        Place.of(producer.send(Messages.make(options, id, index)));
                        sent.add(id);
                        Thread.sleep(4);
                    }
                } catch (Throwable thrown) {
                    failure.set(thrown);
                }
            });
            thread.start();
        }

        List<String> sent() {
            return List.copyOf(sent);
        }

        List<String> end() throws Exception {
            ended.set(true);
            thread.join();
            Main.check(failure.get() == null, "background send: " + failure);
            return sent();
        }
    }
}
