package clients;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.BooleanSupplier;

/** Runs one scenario and ends with one line of JSON. */
public final class Main {
    /** What a scenario found out, printed with the result. */
    static final Map<String, Object> FACTS = new LinkedHashMap<>();

    interface Scenario {
        void run(Options options) throws Exception;
    }

    static final Map<String, Scenario> SCENARIOS = new LinkedHashMap<>();

    static {
        SCENARIOS.put("send", Send::run);
        SCENARIOS.put("push", Push::rebalance);
        SCENARIOS.put("broadcast", Push::broadcast);
        SCENARIOS.put("tags", Push::tags);
        SCENARIOS.put("sql", Push::sql);
        SCENARIOS.put("orderly", Orderly::run);
        SCENARIOS.put("retry", Retry::run);
        SCENARIOS.put("pull", Pull::run);
        SCENARIOS.put("light", Light::run);
        SCENARIOS.put("query", Query::run);
        SCENARIOS.put("delay", Delay::run);
        SCENARIOS.put("transaction", Transaction::run);
        SCENARIOS.put("rpc", Rpc::run);
        SCENARIOS.put("pop", Pop::run);
        SCENARIOS.put("again", Again::run);
        SCENARIOS.put("restart", Restart::run);
        SCENARIOS.put("member", Push::member);
    }

    public static void main(String[] args) {
        long begin = System.nanoTime();
        String error = null;
        try {
            Options options = Options.parse(args);
            Scenario scenario = SCENARIOS.get(options.scenario());
            check(scenario != null, "no scenario " + options.scenario());
            scenario.run(options);
        } catch (Throwable thrown) {
            thrown.printStackTrace();
            error = thrown.toString();
        }
        StringBuilder line = new StringBuilder("{\"scenario\":").append(quote(args[0]))
            .append(",\"ok\":").append(error == null)
            .append(",\"ms\":").append((System.nanoTime() - begin) / 1_000_000);
        FACTS.forEach((name, value) -> line.append(',').append(quote(name)).append(':')
            .append(value instanceof Number ? value : quote(String.valueOf(value))));
        if (error != null) {
            line.append(",\"error\":").append(quote(error));
        }
        System.out.println(line.append('}'));
        System.out.flush();
        // The client library keeps threads that are no daemons.
        Runtime.getRuntime().halt(error == null ? 0 : 1);
    }

    static synchronized void fact(String name, Object value) {
        FACTS.put(name, value);
    }

    static void mark(String text) {
        System.out.println("mark " + text);
        System.out.flush();
    }

    static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    static void same(Object expected, Object found, String what) {
        check(expected.equals(found), what + ": expected " + expected + ", found " + found);
    }

    interface Lines {
        String text();
    }

    static void until(int seconds, Lines what, BooleanSupplier holds) throws InterruptedException {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (!holds.getAsBoolean()) {
            check(System.nanoTime() < end, "not within " + seconds + " s: " + what.text());
            Thread.sleep(20);
        }
    }

    private static String quote(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        text.chars().forEach(unit -> {
            if (unit == '"' || unit == '\\') {
                quoted.append('\\').append((char) unit);
            } else if (unit < ' ') {
                quoted.append(String.format("\\u%04x", unit));
            } else {
                quoted.append((char) unit);
            }
        });
        return quoted.append('"').toString();
    }
}
