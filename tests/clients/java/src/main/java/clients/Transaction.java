package clients;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Committed ones arrive, rolled back ones never, undecided ones after the broker asked back. */
final class Transaction implements TransactionListener {
    private final Set<String> asked = ConcurrentHashMap.newKeySet();

    static void run(Options options) throws Exception {
        DefaultMQProducer plain = Clients.producer(options);
        Clients.createTopic(plain, options);
        plain.shutdown();
        Transaction listener = new Transaction();
        TransactionMQProducer producer = new TransactionMQProducer(options.group() + "-tx");
        producer.setNamesrvAddr(options.namesrv());
        producer.setInstanceName("tx");
        producer.setTransactionListener(listener);
        producer.start();
        Push push = new Push(options, options.group(), "*", false);
        int count = Math.min(options.count(), 30) / 6 * 6;
        for (int index = 0; index < count; index++) {
            Message message = Messages.make(options, kind(index) + index, index);
            producer.sendMessageInTransaction(message, null);
        }
        // A client whose rebalance met its own heartbeat pulls in vain until the next one, 30 s later;
        // by then the broker has asked back, too, and late ones may have come with these.
        Main.until(60, () -> push.seen + " arrived", () -> count(push, "commit-") == count / 3);
        Main.check(listener.asked.size() >= count(push, "late-"), "late ones came unasked");
        Main.mark("committed");
        // The broker asks back every 30 s for what is older than 6 s.
        Main.until(100, () -> push.seen + " arrived, asked for " + listener.asked, () ->
            push.seen.size() == count / 2 && listener.asked.size() == count / 3);
        push.seen.keySet().forEach(id ->
            Main.check(id.startsWith("commit") || id.startsWith("late"), "arrived: " + id));
        Main.fact("asked", listener.asked.size());
        push.stop();
        producer.shutdown();
    }

    private static long count(Push push, String kind) {
        return push.seen.keySet().stream().filter(id -> id.startsWith(kind)).count();
    }

    /** Two of six are committed, two rolled back, one committed and one rolled back when asked. */
    private static String kind(int index) {
        String[] kinds = {"commit-", "rollback-", "late-", "commit-", "rollback-", "never-"};
        return kinds[index % kinds.length];
    }

    @Override
    public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
        String id = message.getUserProperty("id");
        return id.startsWith("commit") ? LocalTransactionState.COMMIT_MESSAGE
            : id.startsWith("rollback") ? LocalTransactionState.ROLLBACK_MESSAGE
            : LocalTransactionState.UNKNOW;
    }

    @Override
    public LocalTransactionState checkLocalTransaction(MessageExt message) {
        String id = Messages.check(message);
        asked.add(id);
        return id.startsWith("late") ? LocalTransactionState.COMMIT_MESSAGE
            : LocalTransactionState.ROLLBACK_MESSAGE;
    }
}
