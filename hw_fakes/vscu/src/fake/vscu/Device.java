package fake.vscu;

import java.io.IOException;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * One device's state under data/(tin)_(bhfId)/: its keys, and the journal of what it signed.
 * A journal line on the disk IS the commit; counters are what the journal says, so that none can be
 * ahead of the other after a kill at any moment.
 */
final class Device {
    static final String[] KEY_FILES = {"tin", "bhfId", "dvcSrlNo", "cmcKey", "intrlKey", "signKey"};
    final Path directory;
    final List<Map<String, Object>> journal = new ArrayList<>();
    final Map<String, Map<String, Object>> byInvcNo = new ConcurrentHashMap<>();
    /** How many of the journal's entries are from before this process. */
    private int earlier;
    private final Map<String, Long> counters = new HashMap<>();
    private FileChannel channel;
    private byte[] signKey;
    private long uploaded;
    long lastContactMs;

    Device(Path directory) {
        this.directory = directory;
    }

    boolean initialised() {
        return Files.exists(directory.resolve("dvcSrlNo"));
    }

    /** Whether every key file is there and holds something. */
    boolean hasKeys() {
        try {
            for (String name : KEY_FILES) {
                Path file = directory.resolve(name);
                if (!Files.exists(file) || Files.size(file) == 0) {
                    return false;
                }
            }
            return true;
        } catch (IOException e) {
            return false;
        }
    }

    void initialise(String tin, String bhfId, String serial, long nowMs)
            throws IOException, GeneralSecurityException {
        Files.createDirectories(directory);
        write("tin", tin);
        write("bhfId", bhfId);
        for (String name : new String[] {"cmcKey", "intrlKey", "signKey"}) {
            write(name, hex(hmac(serial.getBytes(StandardCharsets.UTF_8), name + tin + bhfId)));
        }
        lastContactMs = nowMs;
        saveContact();
        write("dvcSrlNo", serial);
        open();
    }

    /** Reads keys, journal and pointers; a torn last line of the journal is dropped. */
    void open() throws IOException {
        if (channel != null) {
            channel.close();
        }
        journal.clear();
        byInvcNo.clear();
        counters.clear();
        Files.createDirectories(directory);
        Path file = directory.resolve("journal.jsonl");
        byte[] bytes = Files.exists(file) ? Files.readAllBytes(file) : new byte[0];
        int good = 0;
        for (int i = 0; i < bytes.length; i++) {
            if (bytes[i] == '\n') {
                index(Json.map(Json.parse(new String(bytes, good, i - good, StandardCharsets.UTF_8))));
                good = i + 1;
            }
        }
        earlier = journal.size();
        channel = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        channel.truncate(good);
        channel.position(good);
        uploaded = readLong("uploaded");
        lastContactMs = readLong("contact");
        signKey = Files.exists(directory.resolve("signKey"))
            ? Files.readAllBytes(directory.resolve("signKey")) : new byte[0];
    }

    private void index(Map<String, Object> entry) {
        journal.add(entry);
        byInvcNo.put(entry.get("invcNo").toString(), entry);
        String group = (String) entry.get("counter");
        counters.merge(group, ((BigDecimal) entry.get("rcptNo")).longValue(), Math::max);
        counters.merge("total", ((BigDecimal) entry.get("totRcptNo")).longValue(), Math::max);
    }

    long counter(String group) {
        return counters.getOrDefault(group, 0L);
    }

    /** Counters pulled from KRA after the data was restored from an older copy. */
    void raise(String group, long least) {
        counters.merge(group, least, Math::max);
    }

    /** Signs: the entry is on the disk when this returns. */
    Map<String, Object> sign(Map<String, Object> sale, byte[] request, String group, long nowMs)
            throws IOException, GeneralSecurityException {
        long rcptNo = counter(group) + 1;
        long total = counter("total") + 1;
        String digest = hex(MessageDigest.getInstance("SHA-256").digest(request));
        byte[] key = signKey.length == 0 ? new byte[] {1} : signKey;
        Map<String, Object> entry = Json.of(
            "invcNo", sale.get("invcNo"),
            "orgInvcNo", sale.get("orgInvcNo"),
            "trdInvcNo", sale.get("trdInvcNo"),
            "rcptNo", BigDecimal.valueOf(rcptNo),
            "totRcptNo", BigDecimal.valueOf(total),
            "counter", group,
            "salesTyCd", sale.get("salesTyCd"),
            "rcptTyCd", sale.get("rcptTyCd"),
            "totAmt", sale.get("totAmt"),
            "totTaxAmt", sale.get("totTaxAmt"),
            "custTin", sale.get("custTin"),
            "cfmDt", sale.get("cfmDt"),
            "remark", sale.get("remark"),
            "items", CreditCheck.kept(sale),
            "intrlData", base32(hmac(key, "intrl" + total + digest), 26),
            "rcptSign", base32(hmac(key, "sign" + total + digest), 16),
            "vsdcRcptPbctDate", Stamp.eat(nowMs),
            "signedMs", BigDecimal.valueOf(nowMs),
            "requestSha256", digest);
        ByteBuffer line = ByteBuffer.wrap((Json.write(entry) + "\n").getBytes(StandardCharsets.UTF_8));
        while (line.hasRemaining()) {
            channel.write(line);
        }
        channel.force(false);
        index(entry);
        return entry;
    }

    /** Whether it was signed before this process was started. */
    boolean isEarlier(Map<String, Object> entry) {
        return journal.indexOf(entry) < earlier;
    }

    boolean isUploaded(Map<String, Object> entry) {
        return ((BigDecimal) entry.get("totRcptNo")).longValue() <= uploaded;
    }

    /** The oldest receipt KRA has not got yet, or null. */
    Map<String, Object> oldestUnsent() {
        for (int i = journal.size() - 1; i >= 0; i--) {
            if (isUploaded(journal.get(i))) {
                return i + 1 < journal.size() ? journal.get(i + 1) : null;
            }
        }
        return journal.isEmpty() ? null : journal.get(0);
    }

    long unsent() {
        long count = 0;
        for (int i = journal.size() - 1; i >= 0 && !isUploaded(journal.get(i)); i--) {
            count++;
        }
        return count;
    }

    void markUploaded(Map<String, Object> entry) throws IOException {
        uploaded = ((BigDecimal) entry.get("totRcptNo")).longValue();
        write("uploaded", Long.toString(uploaded));
    }

    void saveContact() throws IOException {
        write("contact", Long.toString(lastContactMs));
    }

    private void write(String name, String value) throws IOException {
        Files.writeString(directory.resolve(name), value);
    }

    private long readLong(String name) throws IOException {
        Path file = directory.resolve(name);
        String text = Files.exists(file) ? Files.readString(file).trim() : "";
        return text.isEmpty() ? 0 : Long.parseLong(text);
    }

    static byte[] hmac(byte[] key, String text) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        return mac.doFinal(text.getBytes(StandardCharsets.UTF_8));
    }

    static String hex(byte[] bytes) {
        StringBuilder out = new StringBuilder(bytes.length * 2);
        for (byte b : bytes) {
            out.append(Character.forDigit(b >> 4 & 15, 16)).append(Character.forDigit(b & 15, 16));
        }
        return out.toString();
    }

    /** The first `length` characters of RFC 4648 base32: 26 carry 130 bits, 16 carry 80. */
    static String base32(byte[] bytes, int length) {
        StringBuilder out = new StringBuilder(length);
        int buffer = 0;
        int bits = 0;
        int at = 0;
        while (out.length() < length) {
            if (bits < 5) {
                buffer = buffer << 8 | bytes[at++] & 255;
                bits += 8;
            }
            out.append("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".charAt(buffer >> bits - 5 & 31));
            bits -= 5;
        }
        return out.toString();
    }
}
