package clients;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/** Sends while the server is killed and started again; nothing acknowledged may be lost. */
final class Restart {
    private static final int THREADS = 3;
    private static final BufferedReader INPUT =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    private final Options options;
    private final DefaultMQProducer producer;
    private final Map<String, Place> acknowledged = new ConcurrentHashMap<>();
    private final AtomicInteger refused = new AtomicInteger();
    private final AtomicBoolean ended = new AtomicBoolean();

    private Restart(Options options, DefaultMQProducer producer) {
        this.options = options;
        this.producer = producer;
    }

    static void awaitLine(String expected) throws Exception {
        Main.same(expected, String.valueOf(INPUT.readLine()), "line from the runner");
    }

    static void run(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        Options kept = new Options(options.scenario(), options.namesrv(), options.topic() + "-kept",
            options.group() + "-kept", options.count(), options.seed());
        Clients.createTopic(producer, kept);
        for (int index = 0; index < kept.count(); index++) {
            producer.send(Messages.make(kept, "kept-" + index, index), Send.BY_KEY, index);
        }
        Map<MessageQueue, Long> committed = Pull.commitHalf(kept);
        new Restart(options, producer).through(() -> Pull.rest(kept, committed));
        producer.shutdown();
    }

    interface Check {
        void run() throws Exception;
    }

    private void through(Check afterRestart) throws Exception {
        Push push = new Push(options, options.group(), "*", false);
        List<Thread> threads = new ArrayList<>();
        long begin = System.nanoTime();
        for (int number = 0; number < THREADS; number++) {
            int mine = number;
            Thread thread = new Thread(() -> sendOn(mine));
            thread.start();
            threads.add(thread);
        }
        // The reference writes committed offsets to disk every 5 s.
        Main.until(60, () -> acknowledged.size() + " acknowledged", () ->
            acknowledged.size() >= options.count() && System.nanoTime() - begin > 6_500_000_000L);
        Main.mark("steady");
        awaitLine("restarted");
        int before = acknowledged.size();
        Main.until(90, () -> acknowledged.size() - before + " acknowledged after the restart", () ->
            acknowledged.size() >= before + options.count());
        ended.set(true);
        for (Thread thread : threads) {
            thread.join();
        }
        Main.fact("acknowledged", acknowledged.size());
        Main.fact("refused", refused.get());
        afterRestart.run();
        inPlace();
        Main.until(90, () -> missing(push) + " acknowledged messages not consumed", () ->
            missing(push) == 0);
        Main.fact("repeated", push.total.get() - push.seen.size());
        push.stop();
    }

    private long missing(Push push) {
        return acknowledged.keySet().stream().filter(id -> !push.seen.containsKey(id)).count();
    }

    /** Sends until the end; within a thread the offsets acknowledged by one queue must grow. */
    private void sendOn(int number) {
        for (int index = number; !ended.get(); index += THREADS) {
            String id = "t" + number + "-" + index;
            try {
                Message message = Messages.make(options, id, index, 300);
                acknowledged.put(id, Place.of(producer.send(message)));
                Thread.sleep(5);
            } catch (Throwable thrown) {
                refused.incrementAndGet();
                try {
                    Thread.sleep(100);
                } catch (InterruptedException interrupted) {
                    return;
                }
            }
        }
    }

    /** Every acknowledged message lies where its acknowledgement said, in the order sent. */
    private void inPlace() throws Exception {
        DefaultMQPullConsumer consumer = Clients.pull(options, options.group() + "-check");
        Map<Place, String> stored = new HashMap<>();
        for (MessageQueue queue : Clients.queues(consumer, options.topic())) {
            Map<String, Integer> last = new HashMap<>();
            Clients.readAll(consumer, queue, "*", (place, message) -> {
                String id = Messages.check(message);
                stored.put(place, id);
                int index = Integer.parseInt(message.getUserProperty("index"));
                if (acknowledged.containsKey(id) && place.equals(acknowledged.get(id))) {
                    Integer earlier = last.put(id.substring(0, 2), index);
                    Main.check(earlier == null || earlier < index, "order in " + queue);
                }
            });
        }
        acknowledged.forEach((id, place) -> Main.same(id, stored.getOrDefault(place, "nothing"),
            "acknowledged at " + place));
        Main.fact("unacknowledged", stored.size() - acknowledged.size());
        consumer.shutdown();
    }
}
