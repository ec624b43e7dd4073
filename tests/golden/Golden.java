import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.*;
import java.util.concurrent.ConcurrentHashMap;
import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONWriter;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.MQVersion;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.entity.ClientGroup;
import org.apache.rocketmq.common.lite.*;
import org.apache.rocketmq.common.message.*;
import org.apache.rocketmq.common.utils.MessageUtils;
import org.apache.rocketmq.remoting.CommandCustomHeader;
import org.apache.rocketmq.remoting.protocol.*;
import org.apache.rocketmq.remoting.protocol.admin.*;
import org.apache.rocketmq.remoting.protocol.body.*;
import org.apache.rocketmq.remoting.protocol.filter.FilterAPI;
import org.apache.rocketmq.remoting.protocol.header.*;
import org.apache.rocketmq.remoting.protocol.heartbeat.*;
import org.apache.rocketmq.remoting.protocol.route.*;
import org.apache.rocketmq.remoting.protocol.statictopic.TopicQueueMappingInfo;
import org.apache.rocketmq.remoting.protocol.subscription.*;
import org.apache.rocketmq.store.MessageExtEncoder;
import org.apache.rocketmq.store.config.MessageStoreConfig;

/** Prints the reference's bytes: `java Golden.java DIRECTORY` with the class path of RocketMQ 5.5.0. */
public class Golden {
    static Path dir;

    public static void main(String[] args) throws Exception {
        dir = Path.of(args[0]);
        System.setProperty(RemotingCommand.REMOTING_VERSION_KEY, Integer.toString(MQVersion.CURRENT_VERSION));
        frames();
        records();
        bodies();
        registration();
    }

    static void text(String name, String text) throws Exception {
        Files.writeString(dir.resolve(name + ".json"), text);
    }

    static void hex(String name, byte[] bytes) throws Exception {
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < bytes.length; i++) {
            out.append(String.format("%02x", bytes[i])).append(i % 32 == 31 ? "\n" : "");
        }
        Files.writeString(dir.resolve(name + ".hex"), out.append("\n").toString());
    }

    static void frame(String name, RemotingCommand command, byte[] body) throws Exception {
        for (SerializeType type : SerializeType.values()) {
            command.setSerializeTypeCurrentRPC(type);
            command.setOpaque(1234);
            command.setBody(body);
            command.setExtFields(null);
            ByteBuf out = Unpooled.buffer();
            command.fastEncodeHeader(out);
            if (body != null) out.writeBytes(body);
            byte[] bytes = new byte[out.readableBytes()];
            out.readBytes(bytes);
            hex(name + "_" + type.name().toLowerCase(), bytes);
        }
    }

    static void frames() throws Exception {
        String properties = "KEYS\u0001k1 k2\u0002TAGS\u0001tagA\u0002UNIQ_KEY\u00017F000001000018B4AAC2123456780000\u0002é\u0001中😀\"\\\u0002";
        SendMessageRequestHeader send = new SendMessageRequestHeader();
        send.setProducerGroup("PG");
        send.setTopic("TopicTest");
        send.setDefaultTopic("TBW102");
        send.setDefaultTopicQueueNums(4);
        send.setQueueId(2);
        send.setSysFlag(0);
        send.setBornTimestamp(1700000000000L);
        send.setFlag(-1);
        send.setProperties(properties);
        send.setReconsumeTimes(0);
        send.setUnitMode(false);
        send.setBatch(false);
        send.setBrokerName("broker-a");
        byte[] body = "hello".getBytes(StandardCharsets.UTF_8);
        frame("send_long", RemotingCommand.createRequestCommand(10, send), body);
        SendMessageRequestHeaderV2 v2 = SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(send);
        frame("send_short", RemotingCommand.createRequestCommand(310, v2), body);
        PullMessageRequestHeader pull = new PullMessageRequestHeader();
        pull.setConsumerGroup("CG");
        pull.setTopic("TopicTest");
        pull.setQueueId(1);
        pull.setQueueOffset(42L);
        pull.setMaxMsgNums(32);
        pull.setSysFlag(7);
        pull.setCommitOffset(41L);
        pull.setSuspendTimeoutMillis(15000L);
        pull.setSubscription("a || b");
        pull.setSubVersion(1700000000000L);
        pull.setExpressionType("TAG");
        pull.setMaxMsgBytes(262144);
        frame("pull", RemotingCommand.createRequestCommand(11, pull), null);
        sendResponse();
        pullResponse();
        RemotingCommand refused = RemotingCommand.createResponseCommand(17, "no \"topic\"\n中 \u0007");
        frame("refused", refused, null);
        frame("pop_request", RemotingCommand.createRequestCommand(200050, null), null);
    }

    static RemotingCommand response(Class<? extends CommandCustomHeader> type) {
        RemotingCommand response = RemotingCommand.createResponseCommand(type);
        response.setCode(0);
        response.setRemark(null);
        return response;
    }

    static void sendResponse() throws Exception {
        RemotingCommand response = response(SendMessageResponseHeader.class);
        SendMessageResponseHeader header = (SendMessageResponseHeader) response.readCustomHeader();
        header.setMsgId("7F00000100002A9F0000000000001234");
        header.setQueueId(2);
        header.setQueueOffset(77L);
        header.setTransactionId("7F000001000018B4AAC2123456780000");
        frame("send_response", response, null);
    }

    static void pullResponse() throws Exception {
        RemotingCommand response = response(PullMessageResponseHeader.class);
        response.setRemark("FOUND");
        PullMessageResponseHeader header = (PullMessageResponseHeader) response.readCustomHeader();
        header.setSuggestWhichBrokerId(0L);
        header.setNextBeginOffset(43L);
        header.setMinOffset(0L);
        header.setMaxOffset(100L);
        header.setTopicSysFlag(0);
        header.setGroupSysFlag(0);
        frame("pull_response", response, new byte[] {1, 2, 3});
    }

    static void record(String name, String topic, String born, String stored) throws Exception {
        MessageExtBrokerInner message = new MessageExtBrokerInner();
        message.setTopic(topic);
        message.setVersion(topic.length() > 127 ? MessageVersion.MESSAGE_VERSION_V2 : MessageVersion.MESSAGE_VERSION_V1);
        message.setQueueId(3);
        message.setFlag(-9);
        message.setSysFlag(1);
        message.setBornTimestamp(1700000000000L);
        message.setBornHost(new InetSocketAddress(InetAddress.getByName(born), 40000));
        message.setStoreHost(new InetSocketAddress(InetAddress.getByName(stored), 10911));
        if (born.contains(":")) message.setBornHostV6Flag();
        if (stored.contains(":")) message.setStoreHostAddressV6Flag();
        message.setReconsumeTimes(2);
        message.setPreparedTransactionOffset(11);
        message.setBody("hello record".getBytes(StandardCharsets.UTF_8));
        message.setBodyCRC(org.apache.rocketmq.common.UtilAll.crc32(message.getBody()));
        message.setPropertiesString("KEYS\u0001k\u0002TAGS\u0001a\u0002");
        message.setQueueOffset(7);
        message.setStoreTimestamp(1700000000001L);
        MessageExtEncoder encoder = new MessageExtEncoder(4 << 20, new MessageStoreConfig());
        encoder.encode(message);
        java.nio.ByteBuffer buffer = encoder.getEncoderBuffer();
        byte[] bytes = new byte[buffer.getInt(0)];
        buffer.putLong(28, 1L << 40);
        for (int i = 0; i < bytes.length; i++) bytes[i] = buffer.get(i);
        hex(name, bytes);
        System.out.println(name + " " + MessageDecoder.createMessageId(
            (InetSocketAddress) message.getStoreHost(), 1L << 40));
    }

    static void records() throws Exception {
        String longTopic = "%RETRY%" + "g".repeat(130);
        record("record_v1", "TopicTest", "10.0.0.1", "10.0.0.2");
        record("record_v2", longTopic, "10.0.0.1", "10.0.0.2");
        record("record_v6", "TopicTest", "fe80::1", "2001:db8::2");
        record("record_mixed", "TopicTest", "fe80::1", "10.0.0.2");
        Message one = new Message("TopicTest", "tagA", "k", "one".getBytes());
        one.setFlag(5);
        Message two = new Message("TopicTest", "two".getBytes());
        hex("batch", MessageDecoder.encodeMessages(List.of(one, two)));
    }

    static void body(String name, Object value) throws Exception {
        text(name, new String(RemotingSerializable.encode(value), StandardCharsets.UTF_8));
    }

    static DataVersion version(long state) {
        DataVersion version = new DataVersion();
        version.setStateVersion(state);
        version.setTimestamp(1700000000000L);
        version.setCounter(new java.util.concurrent.atomic.AtomicLong(5));
        return version;
    }

    static TopicConfig topic(String name) {
        TopicConfig topic = new TopicConfig(name, 4, 8, 6);
        topic.getAttributes().put("message.type", "FIFO");
        return topic;
    }

    static SubscriptionData subscription() throws Exception {
        SubscriptionData data = FilterAPI.buildSubscriptionData("TopicTest", "a||b");
        data.setSubVersion(1700000000000L);
        return data;
    }

    static BrokerData broker() {
        HashMap<Long, String> addrs = new HashMap<>();
        addrs.put(0L, "10.0.0.1:10911");
        addrs.put(1L, "10.0.0.2:10911");
        return new BrokerData("DefaultCluster", "broker-a", addrs);
    }

    static void bodies() throws Exception {
        route();
        ClusterInfo cluster = new ClusterInfo();
        cluster.setBrokerAddrTable(new HashMap<>(Map.of("broker-a", broker())));
        cluster.setClusterAddrTable(new HashMap<>(Map.of("DefaultCluster", new HashSet<>(Set.of("broker-a")))));
        body("cluster_info", cluster);
        body("data_version", version(3));
        KVTable kv = new KVTable();
        kv.getTable().put("a", "quote\" back\\ line\n tab\t bell\u0007 del\u007f é中😀 \u2028 / <>&'");
        body("kv_table", kv);
        TopicList topics = new TopicList();
        topics.setTopicList(new TreeSet<>(List.of("a", "b")));
        body("topic_list", topics);
        topics.setBrokerAddr("10.0.0.1:10911");
        body("topic_list_addr", topics);
        body("topic_config", topic("TopicTest"));
        groups();
        locks();
        GetConsumerListByGroupResponseBody consumers = new GetConsumerListByGroupResponseBody();
        consumers.setConsumerIdList(List.of("10.0.0.9@1", "10.0.0.9@2"));
        body("consumer_list", consumers);
        BrokerMemberGroup members = new BrokerMemberGroup("DefaultCluster", "broker-a");
        members.getBrokerAddrs().putAll(broker().getBrokerAddrs());
        GetBrokerMemberGroupResponseBody group = new GetBrokerMemberGroupResponseBody();
        group.setBrokerMemberGroup(members);
        body("member_group", group);
        connections();
        stats();
        heartbeat();
        lite();
    }

    static void route() throws Exception {
        TopicRouteData route = new TopicRouteData();
        QueueData queue = new QueueData();
        queue.setBrokerName("broker-a");
        queue.setPerm(6);
        queue.setReadQueueNums(4);
        queue.setWriteQueueNums(8);
        route.setBrokerDatas(new ArrayList<>(List.of(broker())));
        route.setQueueDatas(new ArrayList<>(List.of(queue)));
        body("route_bare", route);
        text("route_standard", new String(JSON.toJSONBytes(route,
            JSONWriter.Feature.BrowserCompatible, JSONWriter.Feature.MapSortField), StandardCharsets.UTF_8));
        route.getBrokerDatas().get(0).setZoneName("zoné");
        route.getBrokerDatas().get(0).setEnableActingMaster(true);
        route.setOrderTopicConf("broker-a:8");
        body("route_full", route);
    }

    static void groups() throws Exception {
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName("CG");
        body("group_config", config);
        config.getAttributes().put("priority.factor", "10");
        config.getGroupRetryPolicy().setType(GroupRetryPolicyType.EXPONENTIAL);
        config.getGroupRetryPolicy().setExponentialRetryPolicy(new ExponentialRetryPolicy());
        config.getGroupRetryPolicy().setCustomizedRetryPolicy(new CustomizedRetryPolicy(new long[] {1, 2}));
        SimpleSubscriptionData simple = new SimpleSubscriptionData("TopicTest", "TAG", "*", 9);
        config.setSubscriptionDataSet(new HashSet<>(Set.of(simple)));
        body("group_config_full", config);
        SubscriptionGroupWrapper wrapper = new SubscriptionGroupWrapper();
        wrapper.getSubscriptionGroupTable().put("CG", config);
        wrapper.getForbiddenTable().put("CG", new ConcurrentHashMap<>(Map.of("TopicTest", 4)));
        wrapper.setDataVersion(version(1));
        body("group_table", wrapper);
    }

    static void locks() throws Exception {
        LockBatchRequestBody lock = new LockBatchRequestBody();
        lock.setClientId("c");
        lock.setConsumerGroup("CG");
        lock.getMqSet().add(new MessageQueue("TopicTest", "broker-a", 3));
        body("lock_request", lock);
        LockBatchResponseBody locked = new LockBatchResponseBody();
        locked.getLockOKMQSet().add(new MessageQueue("TopicTest", "broker-a", 3));
        body("lock_response", locked);
    }

    static Connection connection() {
        Connection connection = new Connection();
        connection.setClientId("c@1");
        connection.setClientAddr("10.0.0.9:5555");
        connection.setLanguage(LanguageCode.GO);
        connection.setVersion(317);
        return connection;
    }

    static void connections() throws Exception {
        ConsumerConnection consumers = new ConsumerConnection();
        consumers.getConnectionSet().add(connection());
        consumers.getSubscriptionTable().put("TopicTest", subscription());
        consumers.setConsumeType(ConsumeType.CONSUME_PASSIVELY);
        consumers.setMessageModel(MessageModel.CLUSTERING);
        consumers.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        body("consumer_connection", consumers);
        ProducerConnection producers = new ProducerConnection();
        producers.getConnectionSet().add(connection());
        body("producer_connection", producers);
    }

    static void stats() throws Exception {
        MessageQueue queue = new MessageQueue("TopicTest", "broker-a", 3);
        TopicStatsTable topics = new TopicStatsTable();
        TopicOffset offset = new TopicOffset();
        offset.setMaxOffset(10);
        offset.setLastUpdateTimestamp(1700000000000L);
        topics.getOffsetTable().put(queue, offset);
        body("topic_stats", topics);
        ConsumeStats stats = new ConsumeStats();
        body("consume_stats_empty", stats);
        OffsetWrapper wrapper = new OffsetWrapper();
        wrapper.setBrokerOffset(5);
        wrapper.setConsumerOffset(3);
        wrapper.setPullOffset(4);
        wrapper.setLastTimestamp(1700000000000L);
        stats.getOffsetTable().put(queue, wrapper);
        stats.setConsumeTps(123456789.125);
        body("consume_stats", stats);
    }

    static void heartbeat() throws Exception {
        HeartbeatData heartbeat = new HeartbeatData();
        heartbeat.setClientID("10.0.0.9@1");
        ProducerData producer = new ProducerData();
        producer.setGroupName("PG");
        heartbeat.getProducerDataSet().add(producer);
        ConsumerData consumer = new ConsumerData();
        consumer.setGroupName("CG");
        consumer.setConsumeType(ConsumeType.CONSUME_PASSIVELY);
        consumer.setMessageModel(MessageModel.CLUSTERING);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        consumer.getSubscriptionDataSet().add(subscription());
        heartbeat.getConsumerDataSet().add(consumer);
        body("heartbeat", heartbeat);
        System.out.println("heartbeat fingerprint " + heartbeat.computeHeartbeatFingerprint());
    }

    static void lite() throws Exception {
        LiteSubscriptionDTO add = new LiteSubscriptionDTO().setAction(LiteSubscriptionAction.PARTIAL_ADD)
            .setClientId("c").setGroup("CG").setTopic("p").setLiteTopicSet(Set.of("l")).setVersion(7);
        add.setOffsetOption(new OffsetOption(OffsetOption.Type.TAIL_N, 3));
        LiteSubscriptionCtlRequestBody subscriptions = new LiteSubscriptionCtlRequestBody();
        subscriptions.setSubscriptionSet(Set.of(add));
        body("lite_subscriptions", subscriptions);
        GetBrokerLiteInfoResponseBody broker = new GetBrokerLiteInfoResponseBody();
        broker.setStoreType("default");
        broker.setMaxLmqNum(20000);
        broker.setTopicMeta(Map.of("p", 30));
        broker.setGroupMeta(Map.of("p", Set.of("CG")));
        body("lite_broker", broker);
        GetParentTopicInfoResponseBody parent = new GetParentTopicInfoResponseBody();
        parent.setTopic("p");
        parent.setTtl(-1);
        body("lite_parent", parent);
        parent.setGroups(Set.of("CG"));
        body("lite_parent_groups", parent);
        GetLiteTopicInfoResponseBody topic = new GetLiteTopicInfoResponseBody();
        topic.setParentTopic("p");
        topic.setLiteTopic("l");
        topic.setSubscriber(Set.of(new ClientGroup("c", "CG")));
        topic.setTopicOffset(new TopicOffset());
        body("lite_topic", topic);
        GetLiteClientInfoResponseBody client = new GetLiteClientInfoResponseBody();
        client.setParentTopic("p");
        client.setGroup("CG");
        client.setClientId("c");
        client.setLiteTopicCount(-1);
        client.setLastAccessTime(-1);
        body("lite_client_gone", client);
        client.setLiteTopicSet(Set.of("%LMQ%$p$l"));
        body("lite_client", client);
        GetLiteGroupInfoResponseBody group = new GetLiteGroupInfoResponseBody();
        group.setGroup("CG");
        group.setParentTopic("p");
        LiteLagInfo lag = new LiteLagInfo();
        lag.setLiteTopic("%LMQ%$p$l");
        lag.setLagCount(2);
        group.setLagCountTopK(List.of(lag));
        group.setLagTimestampTopK(List.of());
        body("lite_group", group);
        group.setLagCountTopK(null);
        group.setLagTimestampTopK(null);
        group.setLiteTopic("l");
        group.setLiteTopicOffsetWrapper(new OffsetWrapper());
        body("lite_group_topic", group);
    }

    static void registration() throws Exception {
        RegisterBrokerBody body = new RegisterBrokerBody();
        TopicConfigAndMappingSerializeWrapper wrapper = body.getTopicConfigSerializeWrapper();
        wrapper.setDataVersion(version(2));
        wrapper.setMappingDataVersion(version(0));
        wrapper.getTopicConfigTable().put("TopicTest", topic("TopicTest"));
        body("register", body);
        TopicQueueMappingInfo mapping = new TopicQueueMappingInfo("TopicTest", 8, "broker-a", 1);
        mapping.getCurrIdMap().put(0, 3);
        wrapper.getTopicQueueMappingInfoMap().put("TopicTest", mapping);
        body("register_mapping", body);
        hex("register_compressed", body.encode(true));
        TopicConfigSerializeWrapper old = new TopicConfigSerializeWrapper();
        old.setDataVersion(version(2));
        old.getTopicConfigTable().put("TopicTest", topic("TopicTest"));
        body("topic_table", old);
    }
}
