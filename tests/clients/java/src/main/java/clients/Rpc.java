package clients;

import java.nio.charset.StandardCharsets;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Request and reply between two clients through the broker. */
final class Rpc {
    static void run(Options options) throws Exception {
        DefaultMQProducer asking = Clients.producer(options);
        Clients.createTopic(asking, options);
        DefaultMQProducer answering = Clients.producer(options);
        AtomicReference<Throwable> failure = new AtomicReference<>();
        DefaultMQPushConsumer consumer = Clients.push(options, options.group());
        consumer.subscribe(options.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            try {
                for (MessageExt message : messages) {
                    String answer = "re: " + Messages.check(message);
                    answering.send(MessageUtil.createReplyMessage(message,
                        answer.getBytes(StandardCharsets.UTF_8)));
                }
            } catch (Throwable thrown) {
                failure.set(thrown);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        for (int index = 0; index < Math.min(options.count(), 20); index++) {
            Message question = Messages.make(options, "rpc-" + index, index);
            Message answer = asking.request(question, Clients.ARRIVES * 1000L);
            Main.same("re: rpc-" + index, new String(answer.getBody(), StandardCharsets.UTF_8),
                "answer");
        }
        Main.check(failure.get() == null, "listener: " + failure);
        consumer.shutdown();
        answering.shutdown();
        asking.shutdown();
    }
}
