package fake.vscu;

import java.io.IOException;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashMap;
import java.util.Map;

/**
 * KRA as the unit sees it: takes uploads in order, serves reads, remembers the highest numbers it was
 * given in upstream/, outside the device's data, so that a restored older data folder is noticed.
 */
final class Upstream {
    private final Path directory;
    private final Knobs knobs;
    private final Map<String, Map<String, Long>> highest = new HashMap<>();
    private long received;

    Upstream(Path directory, Knobs knobs) throws IOException {
        this.directory = directory;
        this.knobs = knobs;
        Files.createDirectories(directory);
        Path file = directory.resolve("received.jsonl");
        if (Files.exists(file)) {
            for (String line : Files.readAllLines(file)) {
                if (line.endsWith("}")) {
                    Map<String, Object> entry = Json.map(Json.parse(line));
                    remember((String) entry.get("device"), entry);
                }
            }
        }
    }

    /** Waits as the link would and says whether KRA can be reached. */
    boolean reach() {
        String state = knobs.text("upstream");
        boolean up = state.equals("online") || state.equals("slow");
        long wait = up ? knobs.number("upstreamLatencyMs") : knobs.number("offlineLatencyMs");
        if (state.equals("slow")) {
            wait = Math.max(wait, 3000);
        }
        Application.sleep(wait);
        return up;
    }

    synchronized void take(String device, Map<String, Object> entry) throws IOException {
        Map<String, Object> line = Json.of("device", device, "counter", entry.get("counter"),
            "invcNo", entry.get("invcNo"), "rcptNo", entry.get("rcptNo"),
            "totRcptNo", entry.get("totRcptNo"), "rcptSign", entry.get("rcptSign"));
        Files.writeString(directory.resolve("received.jsonl"), Json.write(line) + "\n",
            StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        remember(device, line);
    }

    synchronized void forget() throws IOException {
        highest.clear();
        received = 0;
        Files.createDirectories(directory);
    }

    private void remember(String device, Map<String, Object> entry) {
        Map<String, Long> numbers = highest.computeIfAbsent(device, d -> new HashMap<>());
        numbers.merge((String) entry.get("counter"), number(entry, "rcptNo"), Math::max);
        numbers.merge("total", number(entry, "totRcptNo"), Math::max);
        received++;
    }

    private static long number(Map<String, Object> entry, String name) {
        return ((BigDecimal) entry.get(name)).longValue();
    }

    synchronized Map<String, Long> highest(String device) {
        return new HashMap<>(highest.getOrDefault(device, Map.of()));
    }

    synchronized long received() {
        return received;
    }
}
