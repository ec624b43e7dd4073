package clients;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/** Every tenth answer is lost, every send is repeated until one comes, and nothing is there twice. */
final class Again {
    private static final int THREADS = 32;
    private static final int TIMEOUT_MS = 300;
    private static final int TIMES = 10;

    private final Options options;
    private final DefaultMQProducer producer;
    private final int count;
    private final AtomicInteger next = new AtomicInteger();
    private final AtomicInteger tries = new AtomicInteger();
    private final Map<String, Place> placed = new ConcurrentHashMap<>();
    private volatile Throwable failure;

    private Again(Options options, Lossy lossy) throws Exception {
        this.options = options;
        this.count = options.count() * TIMES;
        producer = new DefaultMQProducer(options.group() + "-again");
        producer.setNamesrvAddr(options.namesrv());
        producer.setInstanceName("again");
        producer.setSendMsgTimeout(TIMEOUT_MS);
        // 4.x clients do not know of it.
        ClientConfig.class.getMethod("setSocksProxyConfig", String.class)
            .invoke(producer, lossy.config());
        producer.start();
    }

    static void run(Options options) throws Exception {
        // Without sizes, 5.5.0 sets buffers of 0 bytes when it connects through a proxy, and fails.
        System.setProperty("com.rocketmq.remoting.socket.sndbuf.size", "65535");
        System.setProperty("com.rocketmq.remoting.socket.rcvbuf.size", "65535");
        // It never gives back what it uses for connections that it closes while they come up.
        System.setProperty("com.rocketmq.remoting.client.closeSocketIfTimeout", "false");
        DefaultMQProducer plain = Clients.producer(options);
        Clients.createTopic(plain, options);
        Clients.setAttribute(plain, options, "dedup.window", "600000");
        plain.shutdown();
        Lossy lossy = new Lossy(options, 0.1);
        Again again = new Again(options, lossy);
        again.sendAll();
        again.readBack();
        Main.check(lossy.lost.get() > again.count / 20, "only " + lossy.lost + " were lost");
        Main.fact("messages", again.count);
        Main.fact("lost", lossy.lost.get());
        Main.fact("tries", again.tries.get());
        again.producer.shutdown();
    }

    private void sendAll() throws Exception {
        Thread[] threads = new Thread[THREADS];
        for (int at = 0; at < THREADS; at++) {
            threads[at] = new Thread(this::sendSome);
            threads[at].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        if (failure != null) {
            throw new AssertionError("a send failed", failure);
        }
    }

    private void sendSome() {
        try {
            for (int index = next.getAndIncrement(); index < count && failure == null;
                    index = next.getAndIncrement()) {
                String id = "again-" + index;
                SendResult result = sendOne(Messages.make(options, id, index, 100));
                placed.put(id, Place.of(result));
            }
        } catch (Throwable thrown) {
            failure = thrown;
        }
    }

    /** The same message object again: it keeps the unique key that its first try gave it. */
    private SendResult sendOne(Message message) throws Exception {
        long end = System.nanoTime() + 60_000_000_000L;
        while (true) {
            try {
                tries.incrementAndGet();
                return producer.send(message);
            } catch (Exception lost) {
                if (System.nanoTime() > end) {
                    throw lost;
                }
            }
        }
    }

    private void readBack() throws Exception {
        DefaultMQPullConsumer consumer = Clients.pull(options, options.group() + "-check");
        Map<String, Place> found = new ConcurrentHashMap<>();
        for (MessageQueue queue : Clients.queues(consumer, options.topic())) {
            Clients.readAll(consumer, queue, "*", (place, message) -> {
                String id = Messages.check(message);
                Main.check(found.put(id, place) == null, "twice: " + id);
            });
        }
        Main.same(count, found.size(), "messages stored");
        placed.forEach((id, place) -> Main.same(place, found.get(id), "place of " + id));
        consumer.shutdown();
    }
}
