package fake.vscu;

import java.io.IOException;
import java.math.BigDecimal;
import java.net.HttpURLConnection;
import java.net.Proxy;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashMap;
import java.util.Map;

/**
 * KRA as the unit sees it: takes uploads in order, serves reads, remembers the highest numbers it was
 * given in upstream/, outside the device's data, so that a restored older data folder is noticed. With
 * an api.external.domain of plain http it is reached over a real connection (hw_fakes/vscu/kra.py), so
 * that it can be stopped for real; with KRA's own https address nothing ever leaves the machine.
 */
final class Upstream {
    private static final int CONNECT_MS = 1000;
    private static final int ANSWER_MS = 3000;
    private final Path directory;
    private final Knobs knobs;
    private final String domain;
    private final Map<String, Map<String, Long>> highest = new HashMap<>();
    private long received;

    Upstream(Path directory, Knobs knobs, String domain) throws IOException {
        this.directory = directory;
        this.knobs = knobs;
        this.domain = domain;
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
        return up && (!domain.startsWith("http://") || answers());
    }

    /** Whether what listens at the domain is KRA: a login page answers 200 as well. */
    private boolean answers() {
        try {
            HttpURLConnection call = (HttpURLConnection) URI.create(domain + "/selectNotices").toURL()
                .openConnection(Proxy.NO_PROXY);
            call.setConnectTimeout(CONNECT_MS);
            call.setReadTimeout(ANSWER_MS);
            call.setInstanceFollowRedirects(false);
            try (var in = call.getInputStream()) {
                String text = new String(in.readNBytes(4096), StandardCharsets.UTF_8);
                return call.getResponseCode() == 200 && text.contains("\"resultCd\"");
            }
        } catch (IOException e) {
            return false;
        }
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
