package clients;

import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.MessageQueue;

/** Where the broker said it put a message. */
record Place(String broker, int queue, long offset) {
    static Place of(SendResult result) {
        Main.same(SendStatus.SEND_OK, result.getSendStatus(), "status of " + result);
        return of(result.getMessageQueue(), result.getQueueOffset());
    }

    static Place of(MessageQueue queue, long offset) {
        return new Place(queue.getBrokerName(), queue.getQueueId(), offset);
    }

    Place plus(int count) {
        return new Place(broker, queue, offset + count);
    }
}
