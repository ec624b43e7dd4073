package clients;

import java.util.List;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.MessageExt;

/** Finds stored messages by offset id, unique id and key. */
final class Query {
    static void run(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        int count = Math.min(options.count(), 14);
        for (int index = 0; index < count; index++) {
            String id = options.group() + "-q-" + index;
            SendResult result = producer.send(Messages.make(options, id, index));
            found(id, producer.viewMessage(options.topic(), result.getOffsetMsgId()));
            Main.until(10, () -> "an index entry of " + id, () -> byKey(producer, options, id));
            found(id, producer.viewMessage(options.topic(), result.getMsgId()));
        }
        Main.check(!byKey(producer, options, "absent"), "found a message nobody sent");
        producer.shutdown();
    }

    private static void found(String id, MessageExt message) {
        Main.same(id, Messages.check(message), "message by id");
    }

    private static boolean byKey(DefaultMQProducer producer, Options options, String id) {
        try {
            QueryResult result = producer.queryMessage(options.topic(), "key-" + id, 8, 0,
                System.currentTimeMillis() + 60_000);
            List<MessageExt> list = result.getMessageList();
            list.forEach(message -> found(id, message));
            return !list.isEmpty();
        } catch (Exception absent) {
            return false;
        }
    }
}
