package clients;

import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Messages that carry what is needed to check them wherever they arrive. */
final class Messages {
    static final int[] SIZES = {1, 100, 1000, 4095, 4096, 5000, 20_000};
    static final String[] TAGS = {"A", "B", "C"};
    static final String TEXT = "Grüße, 消息 = \uD83D\uDE00";

    static Message make(Options options, String id, int index) {
        return make(options, id, index, SIZES[index % SIZES.length]);
    }

    static Message make(Options options, String id, int index, int size) {
        byte[] body = body(options.seed(), index, size);
        String tag = TAGS[index % TAGS.length];
        Message message = new Message(options.topic(), tag, "key-" + id, body);
        message.putUserProperty("id", id);
        message.putUserProperty("index", Integer.toString(index));
        message.putUserProperty("crc", crc(body));
        message.putUserProperty("text", TEXT);
        return message;
    }

    /** Letters from a linear congruential generator, with two-byte UTF-8 letters in between. */
    static byte[] body(int seed, int index, int size) {
        int state = seed * 0x9E3779B1 + index;
        byte[] body = new byte[size];
        for (int at = 0; at < size; at++) {
            state = state * 1664525 + 1013904223;
            body[at] = (byte) ('a' + (state >>> 24) % 26);
        }
        byte[] accent = "é".getBytes(StandardCharsets.UTF_8);
        for (int at = 50; at + 1 < size; at += 100) {
            System.arraycopy(accent, 0, body, at, 2);
        }
        return body;
    }

    /** Checks everything a message carries and answers its id. */
    static String check(MessageExt message) {
        String id = message.getUserProperty("id");
        Main.check(id != null, "no property id in " + message);
        int index = Integer.parseInt(message.getUserProperty("index"));
        Main.same(crc(message.getBody()), message.getUserProperty("crc"), "crc of " + id);
        Main.same(TEXT, message.getUserProperty("text"), "property text of " + id);
        Main.same(TAGS[index % TAGS.length], message.getTags(), "tag of " + id);
        Main.same("key-" + id, message.getKeys(), "key of " + id);
        return id;
    }

    static String crc(byte[] body) {
        CRC32 crc = new CRC32();
        crc.update(body);
        return String.format("%08x", crc.getValue());
    }
}
