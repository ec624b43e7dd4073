package clients;

import java.io.File;
import java.io.IOException;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.FilterExpressionType;
import org.apache.rocketmq.client.apis.consumer.LitePushConsumer;
import org.apache.rocketmq.client.apis.consumer.MessageListener;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageBuilder;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;

/** The proxy of RocketMQ 5.5.0 in cluster mode, and what a client of gRPC does through it. */
public final class Proxy {
    private static final ClientServiceProvider PROVIDER = ClientServiceProvider.loadService();
    private static final Duration LEASE = Duration.ofSeconds(10);
    /** The proxy renews it 10 s before its end. It gives 60 s if it is not told otherwise. */
    private static final Duration LEASE_OF_PUSH = Duration.ofSeconds(15);

    private final Map<String, String> options = new HashMap<>();
    private final ClientConfiguration configuration;

    private Proxy(String[] args) throws Exception {
        for (int at = 1; at < args.length; at += 2) {
            options.put(args[at], args[at + 1]);
        }
        int port = start();
        configuration = ClientConfiguration.newBuilder().setEndpoints("127.0.0.1:" + port)
            .enableSsl(false).setRequestTimeout(Duration.ofSeconds(20)).build();
    }

    public static void main(String[] args) {
        long begin = System.nanoTime();
        String error = "";
        try {
            Proxy proxy = new Proxy(args);
            if (args[0].equals("lite")) {
                proxy.lite();
                proxy.exclusive();
            } else {
                proxy.simple();
                proxy.push();
                proxy.ordered();
                proxy.delayed();
                proxy.urgent();
                proxy.transactions();
            }
        } catch (Throwable thrown) {
            thrown.printStackTrace();
            error = ",\"error\":\"" + thrown.toString().replaceAll("[^ -~]|[\"\\\\]", " ") + "\"";
        }
        System.out.println("{\"scenario\":\"" + args[0] + "\",\"ok\":" + error.isEmpty() + ",\"ms\":"
            + (System.nanoTime() - begin) / 1_000_000 + error + "}");
        System.out.flush();
        Runtime.getRuntime().halt(error.isEmpty() ? 0 : 1);
    }

    /** Starts the proxy in this process; gives the port that speaks gRPC. */
    private int start() throws Exception {
        int grpc = freePort();
        Path home = Path.of("proxy").toAbsolutePath();
        Path file = home.resolve("rmq-proxy.json");
        Files.createDirectories(home);
        Files.writeString(file, "{\"rocketMQClusterName\":\"DefaultCluster\",\"proxyMode\":\"CLUSTER\","
            + "\"namesrvAddr\":\"" + options.get("--namesrv") + "\",\"grpcServerPort\":" + grpc
            + ",\"remotingListenPort\":" + freePort()
            + ",\"defaultInvisibleTimeMills\":" + LEASE_OF_PUSH.toMillis() + "}");
        System.setProperty("com.rocketmq.proxy.configPath", file.toString());
        startProxy(file.toString());
        until(60, "the proxy listens", () -> {
            try (Socket socket = new Socket("127.0.0.1", grpc)) {
                return true;
            } catch (IOException refused) {
                return false;
            }
        });
        return grpc;
    }

    /** Its classes of gRPC are not those of the client, so it has a class loader of its own. */
    private static void startProxy(String configuration) throws Exception {
        List<URL> jars = new ArrayList<>();
        for (String jar : System.getProperty("java.class.path").split(File.pathSeparator)) {
            if (!jar.contains("rocketmq-client-java")) {
                jars.add(new File(jar).toURI().toURL());
            }
        }
        ClassLoader loader = new URLClassLoader(jars.toArray(new URL[0]),
            ClassLoader.getPlatformClassLoader());
        ClassLoader own = Thread.currentThread().getContextClassLoader();
        Thread.currentThread().setContextClassLoader(loader);
        loader.loadClass("org.apache.rocketmq.proxy.ProxyStartup")
            .getMethod("main", String[].class)
            .invoke(null, (Object) new String[] {"-pc", configuration});
        Thread.currentThread().setContextClassLoader(own);
    }

    private static int freePort() throws IOException {
        try (ServerSocket socket = new ServerSocket(0)) {
            return socket.getLocalPort();
        }
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void until(int seconds, String what, Condition condition) throws Exception {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (!condition.holds()) {
            check(System.nanoTime() < end, "not within " + seconds + " s: " + what);
            Thread.sleep(20);
        }
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    private static void same(Object expected, Object found, String what) {
        check(expected.equals(found), what + ": expected " + expected + ", found " + found);
    }

    private interface Order {
        void carryOut(MQClientInstance instance, String address) throws Exception;
    }

    /** Has the broker of a topic, which is made if need be, carry out an order. */
    private void administer(String name, Order order) throws Exception {
        DefaultMQProducer admin = new DefaultMQProducer(name + "-admin");
        admin.setNamesrvAddr(options.get("--namesrv"));
        admin.start();
        admin.createTopic("TBW102", name, 4, Map.of());
        MQClientInstance instance = admin.getDefaultMQProducerImpl().getMqClientFactory();
        until(30, "a route of " + name, () ->
            instance.updateTopicRouteInfoFromNameServer(name)
                && admin.fetchPublishMessageQueues(name).size() == 4);
        String broker = admin.fetchPublishMessageQueues(name).get(0).getBrokerName();
        order.carryOut(instance, instance.findBrokerAddressInPublish(broker));
        admin.shutdown();
    }

    /** A topic for one type of message and a group for it; gives their common name. */
    private String prepare(String kind, String type, boolean ordered) throws Exception {
        return prepare(kind, type, ordered, Map.of());
    }

    private String prepare(String kind, String type, boolean ordered, Map<String, String> attributes)
        throws Exception {
        String name = options.get("--topic") + "-" + kind;
        administer(name, (instance, address) -> {
            TopicConfig topic = new TopicConfig(name, 4, 4);
            topic.setAttributes(Map.of("+message.type", type));
            instance.getMQClientAPIImpl().createTopic(address, "TBW102", topic, 10_000);
            SubscriptionGroupConfig group = new SubscriptionGroupConfig();
            group.setGroupName(name);
            group.setConsumeMessageOrderly(ordered);
            Map<String, String> all = new HashMap<>();
            attributes.forEach((key, value) -> all.put(key, value.replace("TOPIC", name)));
            group.setAttributes(all);
            instance.getMQClientAPIImpl().createSubscriptionGroup(address, group, 10_000);
        });
        return name;
    }

    private Producer producer(String topic) throws ClientException {
        return PROVIDER.newProducerBuilder().setClientConfiguration(configuration).setTopics(topic)
            .build();
    }

    private static MessageBuilder message(String topic, String text) {
        return PROVIDER.newMessageBuilder().setTopic(topic).setTag("A").addProperty("of", "v5")
            .setBody(text.getBytes());
    }

    private static String text(MessageView message) {
        byte[] body = new byte[message.getBody().remaining()];
        message.getBody().duplicate().get(body);
        same("v5", message.getProperties().get("of"), "property");
        return new String(body);
    }

    private SimpleConsumer consumer(String name) throws ClientException {
        return PROVIDER.newSimpleConsumerBuilder().setClientConfiguration(configuration)
            .setConsumerGroup(name).setAwaitDuration(Duration.ofSeconds(5))
            .setSubscriptionExpressions(Collections.singletonMap(name,
                new FilterExpression("A || B", FilterExpressionType.TAG))).build();
    }

    private PushConsumer push(String name, MessageListener listener) throws ClientException {
        return PROVIDER.newPushConsumerBuilder().setClientConfiguration(configuration)
            .setConsumerGroup(name).setSubscriptionExpressions(
                Collections.singletonMap(name, FilterExpression.SUB_ALL))
            .setMessageListener(listener).build();
    }

    /** Takes and acknowledges until so many different messages have come, one of them held back. */
    private static Set<String> take(SimpleConsumer consumer, int count) throws Exception {
        Set<String> taken = new HashSet<>();
        List<String> held = new ArrayList<>();
        until(90, count + " messages, taken " + taken, () -> {
            for (MessageView message : consumer.receive(16, LEASE)) {
                String text = text(message);
                if (held.isEmpty() && count > 2) {
                    held.add(text);
                    consumer.changeInvisibleDuration(message, Duration.ofSeconds(10));
                } else {
                    consumer.ack(message);
                    check(taken.add(text), "twice: " + text);
                }
            }
            return taken.size() >= count;
        });
        check(taken.containsAll(held), "what was held back came again: " + held);
        return taken;
    }

    private void simple() throws Exception {
        String name = prepare("simple", "NORMAL", false);
        Producer producer = producer(name);
        for (int index = 0; index < 20; index++) {
            producer.send(message(name, "simple-" + index).setKeys("key-" + index).build());
        }
        SimpleConsumer consumer = consumer(name);
        same(20, take(consumer, 20).size(), "messages");
        consumer.close();
        producer.close();
    }

    private void push() throws Exception {
        String name = prepare("push", "NORMAL", false);
        Map<String, Integer> attempts = new ConcurrentHashMap<>();
        Set<String> done = ConcurrentHashMap.newKeySet();
        PushConsumer consumer = push(name, message -> {
            String text = text(message);
            if (attempts.merge(text, 1, Integer::sum) == 1 && text.equals("push-3")) {
                return ConsumeResult.FAILURE;
            }
            done.add(text);
            return ConsumeResult.SUCCESS;
        });
        Producer producer = producer(name);
        for (int index = 0; index < 20; index++) {
            producer.send(message(name, "push-" + index).build());
        }
        until(90, "20 pushed, done " + done, () -> done.size() == 20);
        check(attempts.get("push-3") >= 2, "refused once, it comes again");
        consumer.close();
        producer.close();
    }

    private void ordered() throws Exception {
        String name = prepare("ordered", "FIFO", true);
        Map<String, List<Integer>> seen = new ConcurrentHashMap<>();
        PushConsumer consumer = push(name, message -> {
            String[] parts = text(message).split(" ");
            seen.computeIfAbsent(parts[0], group -> Collections.synchronizedList(new ArrayList<>()))
                .add(Integer.valueOf(parts[1]));
            return ConsumeResult.SUCCESS;
        });
        Producer producer = producer(name);
        Map<String, List<Integer>> sent = new HashMap<>();
        for (int index = 0; index < 30; index++) {
            String group = "group-" + index % 3;
            producer.send(message(name, group + " " + index).setMessageGroup(group).build());
            sent.computeIfAbsent(group, key -> new ArrayList<>()).add(index);
        }
        until(90, "order " + sent + ", seen " + seen, () -> sent.equals(seen));
        consumer.close();
        producer.close();
    }

    private void delayed() throws Exception {
        String name = prepare("delayed", "DELAY", false);
        Producer producer = producer(name);
        long due = System.currentTimeMillis() + 3_000;
        producer.send(message(name, "later").setDeliveryTimestamp(due).build());
        SimpleConsumer consumer = consumer(name);
        same(Set.of("later"), take(consumer, 1), "messages");
        check(System.currentTimeMillis() >= due, "too early");
        consumer.close();
        producer.close();
    }

    /** Taken from the most urgent down, and one urgency in the order it was sent. */
    private void urgent() throws Exception {
        String name = prepare("urgent", "PRIORITY", false);
        Producer producer = producer(name);
        List<String> expected = new ArrayList<>();
        for (int index = 0; index < 12; index++) {
            int priority = index * 5 % 4;
            String text = priority + " " + index;
            producer.send(message(name, text).setPriority(priority).build());
            expected.add(text);
        }
        expected.sort(Comparator.comparing((String text) -> -Integer.parseInt(text.split(" ")[0])));
        SimpleConsumer consumer = consumer(name);
        List<String> taken = new ArrayList<>();
        until(90, "12 urgent messages", () -> {
            for (MessageView message : consumer.receive(5, LEASE)) {
                consumer.ack(message);
                taken.add(text(message));
            }
            return taken.size() >= expected.size();
        });
        same(expected, taken, "order");
        consumer.close();
        producer.close();
    }

    /** One committed, one rolled back, one decided when the broker asks back. */
    private void transactions() throws Exception {
        String name = prepare("transactions", "TRANSACTION", false);
        Producer producer = PROVIDER.newProducerBuilder().setClientConfiguration(configuration)
            .setTopics(name).setTransactionChecker(message -> TransactionResolution.COMMIT).build();
        for (String end : new String[] {"commit", "rollback", "ask"}) {
            Transaction transaction = producer.beginTransaction();
            Message message = message(name, end).build();
            producer.send(message, transaction);
            if (end.equals("commit")) {
                transaction.commit();
            } else if (end.equals("rollback")) {
                transaction.rollback();
            }
        }
        SimpleConsumer consumer = consumer(name);
        same(Set.of("commit", "ask"), take(consumer, 2), "messages");
        consumer.close();
        producer.close();
    }

    /** A topic with lite topics, and a group that is bound to it; gives their common name. */
    private String prepareLite(String kind, String model) throws Exception {
        return prepare(kind, "LITE", false,
            Map.of("+lite.bind.topic", "TOPIC", "+lite.sub.model", model));
    }

    /** One thread: the client hands the messages of an answer to as many as it has. */
    private LitePushConsumer lite(String name, MessageListener listener) throws ClientException {
        return PROVIDER.newLitePushConsumerBuilder().setClientConfiguration(configuration)
            .setConsumerGroup(name).bindTopic(name).setConsumptionThreadCount(1)
            .setMessageListener(listener).build();
    }

    private static Message lite(String name, String lite, String text) {
        return message(name, text).setLiteTopic(lite).build();
    }

    /** Two consumers of one group: each lite topic in its order, and what failed comes again. */
    private void lite() throws Exception {
        String name = prepareLite("lite", "Shared");
        Map<String, Set<String>> seen = new ConcurrentHashMap<>();
        Map<String, Integer> attempts = new ConcurrentHashMap<>();
        // One for each consumer: what is behind it waits for a whole lease of the proxy, because
        // this client does not name the lite topic when it gives a message back.
        Set<String> failing = Set.of("session-0 3", "session-3 3");
        MessageListener listener = message -> {
            String text = text(message);
            if (attempts.merge(text, 1, Integer::sum) == 1 && failing.contains(text)) {
                return ConsumeResult.FAILURE;
            }
            seen.computeIfAbsent(message.getLiteTopic().orElse("none"),
                key -> Collections.synchronizedSet(new LinkedHashSet<>())).add(text);
            return ConsumeResult.SUCCESS;
        };
        LitePushConsumer first = lite(name, listener);
        LitePushConsumer second = lite(name, listener);
        Map<String, Set<String>> sent = new HashMap<>();
        for (int number = 0; number < 6; number++) {
            String lite = "session-" + number;
            (number % 2 == 0 ? first : second).subscribeLite(lite);
            sent.put(lite, new LinkedHashSet<>());
        }
        first.subscribeLite("session-5");
        Producer producer = producer(name);
        for (int index = 0; index < 8; index++) {
            for (String lite : sent.keySet()) {
                String text = lite + " " + index;
                producer.send(lite(name, lite, text));
                sent.get(lite).add(text);
            }
        }
        producer.send(lite(name, "nobodys", "nobodys 0"));
        until(180, "all that was sent", () -> sent.equals(seen));
        sent.keySet().forEach(lite -> {
            String failed = lite + " 3";
            check(attempts.get(failed) > (failing.contains(failed) ? 1 : 0), "tries of " + failed);
            List<String> inOrder = new ArrayList<>(sent.get(lite));
            List<String> came = new ArrayList<>(seen.get(lite));
            if (failing.contains(failed)) {
                inOrder.remove(failed);
                came.remove(failed);
            }
            same(inOrder, came, "order of " + lite);
        });
        second.unsubscribeLite("session-1");
        same(Set.of("session-3", "session-5"), second.getLiteTopicSet(), "of the second");
        producer.send(lite(name, "session-1", "session-1 late"));
        first.subscribeLite("session-1");
        until(60, "the late one", () -> seen.get("session-1").contains("session-1 late"));
        check(!seen.containsKey("nobodys"), "nobody is subscribed to it");
        first.close();
        second.close();
        producer.close();
    }

    /** The last consumer that subscribes gets a lite topic; the one before is told. */
    private void exclusive() throws Exception {
        String name = prepareLite("exclusive", "Exclusive");
        Set<String> old = ConcurrentHashMap.newKeySet();
        Set<String> young = ConcurrentHashMap.newKeySet();
        LitePushConsumer first = lite(name, message -> {
            old.add(text(message));
            return ConsumeResult.SUCCESS;
        });
        first.subscribeLite("mine");
        Producer producer = producer(name);
        producer.send(lite(name, "mine", "one"));
        until(60, "the first one, seen " + old, () -> old.contains("one"));
        LitePushConsumer second = lite(name, message -> {
            young.add(text(message));
            return ConsumeResult.SUCCESS;
        });
        second.subscribeLite("mine");
        until(60, "the older consumer is told", () -> first.getLiteTopicSet().isEmpty());
        producer.send(lite(name, "mine", "two"));
        until(60, "the second one, seen " + young, () -> young.contains("two"));
        same(Set.of("one"), old, "of the older consumer");
        first.close();
        second.close();
        producer.close();
    }
}
