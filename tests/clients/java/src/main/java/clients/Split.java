package clients;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** Two members of a group with different subscriptions: told, or kept apart. */
final class Split {
    /** The time between two heartbeats of a client. */
    private static final int HEARTBEAT_SECONDS = 30;

    /** The server says so in its log and counts it, within a heartbeat, and when it is over. */
    static void noticed(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        Push first = new Push(options, options.group(), "A", false);
        Main.until(HEARTBEAT_SECONDS, () -> "the first one arrives", () -> knows(first, 1));
        Map<String, String> before = counters(first);
        Push second = new Push(options, options.group(), "B || C", false);
        Main.until(HEARTBEAT_SECONDS, () -> "the split is counted", () ->
            number(counters(first), "splitGroupsTotal")
                > number(before, "splitGroupsTotal")
                && number(counters(first), "splitGroups") > 0);
        server(options, "is split", id(first), id(second), options.topic(), "`A` and `B || C`");
        second.stop();
        server(options, "is not split any more");
        first.stop();
        producer.shutdown();
    }

    /** With rejectDifferentSubscription: the second one gets nothing and is told why. */
    static void refused(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        Clients.createTopic(producer, options);
        Push first = new Push(options, options.group(), "A", false);
        Main.until(HEARTBEAT_SECONDS, () -> "the first one arrives", () -> knows(first, 1));
        Push second = new Push(options, options.group(), "B || C", false);
        String log = System.getProperty("user.home") + "/logs/rocketmqlogs/rocketmq_client.log";
        Main.until(HEARTBEAT_SECONDS, () -> "the client logs its refusal in " + log, () ->
            lineWith(log, "is refused as a member", options.group(), id(first), id(second)));
        Main.check(number(counters(first), "splitGroupsRefusedClients") > 0, "counted");
        // All of both tags is sent when the first one alone has queues.
        int wanted = 0;
        for (int index = 0; index < options.count(); index++) {
            producer.send(Messages.make(options, "kept-" + index, index));
            wanted += Messages.TAGS[index % 3].equals("A") ? 1 : 0;
        }
        int all = wanted;
        Main.until(60, () -> first.seen.size() + " of " + all + " arrived", () ->
            first.seen.size() == all);
        Main.same(0, second.total.get(), "what the refused one got");
        Main.check(knows(first, 1), "one member");
        server(options, "is refused as a member", id(first), id(second));
        first.stop();
        // Its next heartbeat joins.
        Main.until(2 * HEARTBEAT_SECONDS, () -> "it is let in", () -> knows(second, 1));
        for (int index = 0; index < options.count(); index++) {
            producer.send(Messages.make(options, "later-" + index, index));
        }
        int rest = options.count() - wanted;
        Main.until(60, () -> second.seen.size() + " of " + rest + " arrived", () ->
            second.seen.keySet().stream().filter(id -> id.startsWith("later-")).count() == rest);
        second.stop();
        producer.shutdown();
    }

    private static MQClientInstance client(Push push) {
        return push.consumer.getDefaultMQPushConsumerImpl().getmQClientFactory();
    }

    private static String id(Push push) {
        return client(push).getClientId();
    }

    private static String broker(Push push) {
        String name = client(push).getTopicRouteTable().values().iterator().next()
            .getBrokerDatas().get(0).getBrokerName();
        return client(push).findBrokerAddressInPublish(name);
    }

    /** Whether the server knows so many members of the group, this one among them. */
    private static boolean knows(Push push, int members) {
        try {
            var ids = client(push).getMQClientAPIImpl().getConsumerIdListByGroup(broker(push),
                push.consumer.getConsumerGroup(), 10_000);
            return ids.size() == members && ids.contains(id(push));
        } catch (Exception nobody) {
            return false;
        }
    }

    private static Map<String, String> counters(Push push) {
        try {
            return client(push).getMQClientAPIImpl().getBrokerRuntimeInfo(broker(push), 10_000)
                .getTable();
        } catch (Exception error) {
            throw new AssertionError(error);
        }
    }

    private static long number(Map<String, String> counters, String name) {
        return Long.parseLong(counters.get(name));
    }

    /** The server's log, if it is ours, has a line about the group with all these words. */
    private static void server(Options options, String... words) throws Exception {
        String log = System.getenv("SERVER_LOG");
        if (log != null) {
            String[] all = new String[words.length + 1];
            System.arraycopy(words, 0, all, 0, words.length);
            all[words.length] = options.group();
            Main.until(HEARTBEAT_SECONDS, () -> log + " says " + String.join(", ", all), () ->
                lineWith(log, all));
        }
    }

    private static boolean lineWith(String file, String... words) {
        try {
            String text = new String(Files.readAllBytes(Path.of(file)), StandardCharsets.UTF_8);
            return text.lines().anyMatch(line -> {
                for (String word : words) {
                    if (!line.contains(word)) {
                        return false;
                    }
                }
                return true;
            });
        } catch (IOException absent) {
            return false;
        }
    }
}
