import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import org.apache.rocketmq.filter.expression.EvaluationContext;
import org.apache.rocketmq.filter.expression.Expression;
import org.apache.rocketmq.filter.parser.SelectorParser;

/**
 * Each line of the input is an expression and, behind tabs, sets of properties (name 0x01 value
 * 0x02). Each line of the output is E for an expression that is refused, else for each set t, or f
 * for whatever is not true. A backslash and n stand for a line break.
 */
public class Sql {
    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (String line; (line = in.readLine()) != null; ) {
            String[] parts = line.split("\t", -1);
            out.println(answer(parts[0].replace("\\n", "\n"), parts));
        }
        out.flush();
    }

    private static String answer(String text, String[] parts) {
        Expression expression;
        try {
            expression = SelectorParser.parse(text);
        } catch (Throwable refused) {
            return "E";
        }
        StringBuilder answer = new StringBuilder();
        for (int i = 1; i < parts.length; i++) {
            answer.append(matches(expression, properties(parts[i])) ? 't' : 'f');
        }
        return answer.toString();
    }

    private static Map<String, String> properties(String text) {
        Map<String, String> properties = new HashMap<>();
        for (String item : text.split("\u0002")) {
            int at = item.indexOf('\u0001');
            if (at > 0) {
                properties.put(item.substring(0, at), item.substring(at + 1));
            }
        }
        return properties;
    }

    /** As ExpressionMessageFilter takes the result. */
    private static boolean matches(Expression expression, Map<String, String> properties) {
        try {
            Object result = expression.evaluate(new EvaluationContext() {
                @Override
                public Object get(String name) {
                    return properties.get(name);
                }

                @Override
                public Map<String, Object> keyValues() {
                    return new HashMap<>(properties);
                }
            });
            return Boolean.TRUE.equals(result);
        } catch (Throwable failed) {
            return false;
        }
    }
}
