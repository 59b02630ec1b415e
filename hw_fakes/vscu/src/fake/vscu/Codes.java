package fake.vscu;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
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

    /**
     * The classes with other tax rates: `B=14,C=null,D=-16,E=` makes the percent of B 14, of C null, of D -16,
     * and leaves E out. Other letters are added.
     */
    List<Object> classes(String rates) {
        if (rates.isEmpty()) {
            return classes();
        }
        Map<String, String> wanted = new LinkedHashMap<>();
        for (String each : rates.split(",")) {
            String[] parts = each.split("=", 2);
            wanted.put(parts[0].trim(), parts.length > 1 ? parts[1] : "");
        }
        List<Object> changed = new ArrayList<>();
        for (Object each : classes()) {
            Map<String, Object> one = Json.map(each);
            if (one.get("cdCls").equals("04")) {
                one = new LinkedHashMap<>(one);
                one.put("dtlList", rows(Json.list(one.get("dtlList")), wanted));
            }
            changed.add(one);
        }
        return changed;
    }

    private static List<Object> rows(List<Object> rows, Map<String, String> wanted) {
        List<Object> changed = new ArrayList<>();
        for (Object each : rows) {
            Map<String, Object> row = new LinkedHashMap<>(Json.map(each));
            String rate = wanted.remove(row.get("cd"));
            if (rate != null) {
                row.put("userDfnCd1", rate.equals("null") ? null : rate);
            }
            if (rate == null || !rate.isEmpty()) {
                changed.add(row);
            }
        }
        wanted.forEach((cd, rate) -> changed.add(Json.of("cd", cd, "cdNm", cd, "userDfnCd1", rate,
            "useYn", "Y")));
        return changed;
    }

    /** Whether a value is in a class; a class the lists do not carry takes anything. */
    boolean has(String cdCls, Object value) {
        load();
        Set<String> values = known.get(cdCls);
        return values == null || values.contains(value);
    }
}
