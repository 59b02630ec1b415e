package fake.vscu;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** KRA's code lists, from the resource packed into the JAR; parsed once, off the starting thread. */
final class Codes {
    /** The lists' own date: a read with a later watermark finds nothing new (001). */
    static final String DATED = "20260101000000";
    private Map<String, Set<String>> known;
    private List<Object> classes;

    synchronized void load() {
        if (classes != null) {
            return;
        }
        try (InputStream in = Codes.class.getClassLoader().getResourceAsStream("codes.json")) {
            String text = new String(in.readAllBytes(), StandardCharsets.UTF_8);
            classes = Json.list(Json.map(Json.map(Json.parse(text)).get("data")).get("clsList"));
        } catch (IOException e) {
            throw new IllegalStateException("codes.json cannot be read", e);
        }
        known = new HashMap<>();
        for (Object each : classes) {
            Map<String, Object> one = Json.map(each);
            Set<String> values = known.computeIfAbsent((String) one.get("cdCls"), c -> new HashSet<>());
            for (Object row : Json.list(one.get("dtlList"))) {
                values.add((String) Json.map(row).get("cd"));
            }
        }
    }

    List<Object> classes() {
        load();
        return classes;
    }

    /** Whether a value is in a class; a class the lists do not carry takes anything. */
    boolean has(String cdCls, Object value) {
        load();
        Set<String> values = known.get(cdCls);
        return values == null || values.contains(value);
    }
}
