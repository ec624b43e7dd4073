package clients;

import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Pulls with offsets of its own: commits half, starts again from what the broker kept. */
final class Pull {
    static void run(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        for (int index = 0; index < options.count(); index++) {
            producer.send(Messages.make(options, "p-" + index, index), Send.BY_KEY, index);
        }
        Map<MessageQueue, Long> committed = commitHalf(options);
        rest(options, committed);
        edges(options);
        lite(options);
        producer.shutdown();
    }

    /** Consumes half of every queue and commits that. */
    static Map<MessageQueue, Long> commitHalf(Options options) throws Exception {
        DefaultMQPullConsumer consumer = Clients.pull(options, options.group());
        Map<MessageQueue, Long> committed = new HashMap<>();
        for (MessageQueue queue : Clients.queues(consumer, options.topic())) {
            Main.check(consumer.fetchConsumeOffset(queue, true) <= 0, "a new group has no offset");
            long half = consumer.maxOffset(queue) / 2;
            for (long offset = 0; offset < half; ) {
                int most = (int) Math.min(32, half - offset);
                PullResult result = consumer.pull(queue, "*", offset, most);
                Main.same(PullStatus.FOUND, result.getPullStatus(), "pull below the end");
                offset = result.getNextBeginOffset();
            }
            consumer.updateConsumeOffset(queue, half);
            consumer.getOffsetStore().persist(queue);
            committed.put(queue, half);
        }
        consumer.shutdown();
        return committed;
    }

    /** What another instance finds committed, and that nothing is missing from there. */
    static void rest(Options options, Map<MessageQueue, Long> committed) throws Exception {
        DefaultMQPullConsumer consumer = Clients.pull(options, options.group());
        List<MessageQueue> queues = Clients.queues(consumer, options.topic());
        Main.same(committed.keySet(), new HashSet<>(queues), "queues");
        for (MessageQueue queue : queues) {
            long offset = consumer.fetchConsumeOffset(queue, true);
            Main.same(committed.get(queue), offset, "committed offset of " + queue);
            long end = consumer.maxOffset(queue);
            while (offset < end) {
                PullResult result = consumer.pull(queue, "*", offset, 32);
                Main.same(PullStatus.FOUND, result.getPullStatus(), "pull below the end");
                for (MessageExt message : result.getMsgFoundList()) {
                    Main.same(offset++, message.getQueueOffset(), "no gap in " + queue);
                    Messages.check(message);
                }
                Main.same(offset, result.getNextBeginOffset(), "next offset of " + queue);
            }
            Main.same(end, offset, "end of " + queue);
        }
        consumer.shutdown();
    }

    /** Answers outside of what is stored. */
    private static void edges(Options options) throws Exception {
        DefaultMQPullConsumer consumer = Clients.pull(options, options.group() + "-edges");
        MessageQueue queue = Clients.queues(consumer, options.topic()).get(0);
        long end = consumer.maxOffset(queue);
        Main.same(0L, consumer.minOffset(queue), "smallest offset");
        Main.same(PullStatus.NO_NEW_MSG, consumer.pull(queue, "*", end, 32).getPullStatus(),
            "pull at the end");
        PullResult beyond = consumer.pull(queue, "*", end + 100, 32);
        Main.same(PullStatus.OFFSET_ILLEGAL, beyond.getPullStatus(), "pull beyond the end");
        Main.same(end, beyond.getNextBeginOffset(), "offset to go on with");
        PullResult none = consumer.pull(queue, "no-such-tag", 0, 32);
        Main.same(PullStatus.NO_MATCHED_MSG, none.getPullStatus(), "pull of a tag nobody sent");
        Main.same(0L, consumer.searchOffset(queue, 1), "offset of an early time");
        Main.same(end, consumer.searchOffset(queue, System.currentTimeMillis() + 60_000),
            "offset of a late time");
        consumer.shutdown();
    }

    private static void lite(Options options) throws Exception {
        Set<String> seen = new HashSet<>();
        int half = options.count() / 2;
        take(options, seen, half, half);
        take(options, seen, options.count(), options.count() - half);
        Main.same(options.count(), seen.size(), "messages of the lite pull consumer");
    }

    /** Polls until enough is seen, commits and leaves; nothing committed may come again. */
    private static void take(Options options, Set<String> seen, int until, int atLeast)
            throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(options.group() + "-lite");
        consumer.setNamesrvAddr(options.namesrv());
        consumer.setInstanceName("lite-" + until);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setAutoCommit(false);
        consumer.setPullBatchSize(10);
        consumer.subscribe(options.topic(), "*");
        consumer.start();
        long end = System.nanoTime() + 60_000_000_000L;
        int taken = 0;
        while (seen.size() < until) {
            Main.check(System.nanoTime() < end, "lite: " + taken + " of " + atLeast);
            for (MessageExt message : consumer.poll(1000)) {
                String id = Messages.check(message);
                Main.check(seen.add(id), "committed, and polled again: " + id);
                taken++;
            }
            consumer.commitSync();
        }
        for (MessageQueue queue : consumer.fetchMessageQueues(options.topic())) {
            Main.check(consumer.committed(queue) >= 0, "committed offset of " + queue);
        }
        consumer.shutdown();
    }
}
