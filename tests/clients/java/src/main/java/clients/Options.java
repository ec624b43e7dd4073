package clients;

import java.util.HashMap;
import java.util.Map;

/** The command line every client program takes; see tests/clients/README.md. */
record Options(String scenario, String namesrv, String topic, String group, int count, int seed) {
    static Options parse(String[] args) {
        if (args.length % 2 == 0) {
            throw new IllegalArgumentException(
                "usage: <scenario> --namesrv H:P --topic T --group G");
        }
        Map<String, String> values = new HashMap<>();
        for (int at = 1; at < args.length; at += 2) {
            values.put(args[at], args[at + 1]);
        }
        return new Options(args[0], values.get("--namesrv"), values.get("--topic"),
            values.get("--group"), Integer.parseInt(values.getOrDefault("--count", "100")),
            Integer.parseInt(values.getOrDefault("--seed", "1")));
    }
}
