package fake.vscu;

import java.io.IOException;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

/** The control unit itself: initialisation, signing one at a time, uploading, its own ceiling. */
final class Unit {
    final Knobs knobs;
    final Upstream upstream;
    final Codes codes = new Codes();
    private final Map<String, String> registered = new HashMap<>();
    private final Map<String, Device> devices = new HashMap<>();
    private final Path data;
    private final SaleCheck check;
    private final Object signing = new Object();
    private final Accepted accepted = new Accepted();
    private final CountDownLatch acceptedSigned = new CountDownLatch(1);

    Unit(Path home, Knobs knobs, Map<String, String> config) throws IOException {
        this.knobs = knobs;
        this.data = home.resolve("data");
        this.upstream = new Upstream(home.resolve("upstream"), knobs,
            config.getOrDefault("api.external.domain", ""));
        this.check = new SaleCheck(codes, knobs);
        String list = config.getOrDefault("fake.devices", "A000123456B:00:dvc-test-0001");
        for (String each : list.split(",")) {
            String[] parts = each.split(":", 3);
            registered.put(parts[0].trim() + "_" + parts[1], parts[2].trim());
        }
        if (Files.isDirectory(data)) {
            try (var folders = Files.newDirectoryStream(data)) {
                for (Path folder : folders) {
                    Device device = new Device(folder);
                    device.open();
                    devices.put(folder.getFileName().toString(), device);
                }
            }
        }
    }

    /** An answer of the envelope, or an instruction to the HTTP side. */
    static final class Reply {
        final String code;
        final String message;
        final Object data;
        final String special;
        /** Set where the answer's time is not now: the page of a long list. */
        String resultDt;
        /** The knob `answerForm`, on answers to sales. */
        String form = "plain";

        Reply(String code, String message, Object data, String special) {
            this.code = code;
            this.message = message;
            this.data = data;
            this.special = special;
        }
    }

    static Reply ok(Object data) {
        return new Reply("000", "It is succeeded", data, null);
    }

    static Reply fail(String code, String message) {
        return new Reply(code, message, null, null);
    }

    static Reply clientError() {
        return fail("899", "An error regarding Client occurred.");
    }

    synchronized Device device(String name) {
        return devices.get(name);
    }

    synchronized Map<String, Device> devices() {
        return new HashMap<>(devices);
    }

    Reply init(Map<String, Object> body) throws IOException, GeneralSecurityException {
        String tin = (String) body.get("tin");
        String bhfId = (String) body.get("bhfId");
        String name = tin + "_" + bhfId;
        if (!body.get("dvcSrlNo").equals(registered.get(name))) {
            return fail("901", "It is not valid device");
        }
        if (!upstream.reach()) {
            return fail("894", "An error regarding server communication occurred.");
        }
        Device device;
        synchronized (this) {
            if (devices.containsKey(name) && devices.get(name).initialised()
                    || Files.exists(data.resolve("../upstream/installed_" + name))) {
                return fail("902", "This device is installed");
            }
            device = new Device(data.resolve(name));
            device.initialise(tin, bhfId, (String) body.get("dvcSrlNo"), knobs.now());
            devices.put(name, device);
            Files.writeString(data.resolve("../upstream/installed_" + name), "");
        }
        boolean nulls = knobs.on("initInfoNulls") || knobs.on("noIds");
        return ok(Json.of("info", Json.of(
            "tin", tin, "taxprNm", "TEST TRADERS LTD", "bsnsActv", "Retail", "bhfId", bhfId,
            "bhfNm", "Headquarter", "bhfOpenDt", "20230101", "prvncNm", "NAIROBI",
            "dstrtNm", "WESTLANDS", "sctrNm", "WESTLANDS", "locDesc", "TEST PLAZA", "hqYn", "Y",
            "mgrNm", "Test Manager", "mgrTelNo", "0700000000", "mgrEmail", "manager@example.test",
            "sdcId", nulls ? null : sdcId(bhfId), "mrcNo", nulls ? null : "WIS01000150",
            "dvcId", "9990000000000001", "intrlKey", null, "signKey", null, "cmcKey", null,
            "lastPchsInvcNo", BigDecimal.ZERO, "lastSaleRcptNo", BigDecimal.ZERO,
            "lastInvcNo", null, "lastSaleInvcNo", BigDecimal.ZERO, "lastTrainInvcNo", null,
            "lastProfrmInvcNo", null, "lastCopyInvcNo", null)));
    }

    private static String sdcId(String bhfId) {
        return "KRACU03" + "0000000" + (Integer.parseInt(bhfId) + 1);
    }

    /** Null when the device may work; else why not. Every call but init asks this first. */
    Reply keysProblem(String name) {
        Device device = device(name);
        if (device == null || !device.initialised() && !knobs.text("keys").equals("deleted")) {
            return fail("901", "It is not valid device");
        }
        return device.hasKeys() ? null : clientError();
    }

    /** A read that KRA must serve: null when it can, else the unit's answer without KRA. */
    Reply readProblem(String name) throws IOException {
        if (!upstream.reach()) {
            String code = knobs.text("offlineRead");
            return fail(code, code.equals("838")
                ? "Connection to API is not established: check connection."
                : "An error regarding server communication occurred.");
        }
        contact(device(name));
        return null;
    }

    private void contact(Device device) throws IOException {
        device.lastContactMs = knobs.now();
        device.saveContact();
    }

    Reply sale(String name, Map<String, Object> sale, byte[] request)
            throws IOException, GeneralSecurityException {
        boolean seen = device(name).byInvcNo.containsKey(String.valueOf(sale.get("invcNo")));
        try {
            acceptedSigned.await();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        Path kept = knobs.on("remembers") ? accepted.keep(device(name), request) : null;
        Reply reply = sign(name, sale, request, seen);
        if (kept != null) {
            Files.deleteIfExists(kept);
        }
        return reply;
    }

    /** Signs what an earlier process had accepted under the knob `remembers`; new sales wait for that. */
    void signAccepted() {
        try {
            for (Map.Entry<String, Device> each : devices().entrySet()) {
                for (Path file : Accepted.left(each.getValue())) {
                    byte[] request = Files.readAllBytes(file);
                    String text = new String(request, StandardCharsets.UTF_8);
                    sign(each.getKey(), Json.map(Json.parse(text)), request, false);
                    Files.deleteIfExists(file);
                }
            }
        } catch (IOException | GeneralSecurityException | RuntimeException e) {
            System.err.println("an accepted request failed: " + e);
        } finally {
            acceptedSigned.countDown();
        }
    }

    /** Returns once no sale is being signed. */
    void awaitSigning() {
        synchronized (signing) {
            return;
        }
    }

    /** Whether the guard finds the number used; `seen`: it was used when the request was accepted. */
    private boolean isKnown(Device device, Object invcNo, boolean seen) {
        switch (knobs.text("guard")) {
            case "none":
                return false;
            case "accept":
                return seen;
            default:
                return device.byInvcNo.containsKey(String.valueOf(invcNo));
        }
    }

    private Reply sign(String name, Map<String, Object> sale, byte[] request, boolean seen)
            throws IOException, GeneralSecurityException {
        synchronized (signing) {
            long jitter = knobs.number("latencyJitterMs");
            Application.sleep(knobs.number("latencyMs") + (long) (Math.random() * jitter));
            Device device = device(name);
            if (knobs.take("rejectNext")) {
                return fail(knobs.text("rejectCode"), knobs.text("rejectMessage"));
            }
            String[] wrong = check.check(sale, knobs.now());
            if (wrong != null) {
                return fail(wrong[0], wrong[1]);
            }
            String when = knobs.text("creditCheck");
            String[] credit = when.equals("off") ? null : CreditCheck.check(device, sale);
            boolean known = isKnown(device, sale.get("invcNo"), seen);
            if (credit != null && (when.equals("before") || !known)) {
                return fail(credit[0], credit[1]);
            }
            if (known) {
                return duplicate(device, sale.get("invcNo"));
            }
            if (knobs.on("diskFull")) {
                return clientError();
            }
            if (!knobs.text("notReady").isEmpty()) {
                return notReady(knobs.text("notReady"));
            }
            if (knobs.on("memoryFull") || device.unsent() >= knobs.number("unsentMax")) {
                return fail("E11", "VSCU memory full");
            }
            boolean online = upstream.reach();
            if (online) {
                drain(name, device);
                contact(device);
            }
            Reply altered = altered(name, device, online);
            if (altered != null) {
                return altered;
            }
            if (!online && overCeiling(device)) {
                return ceilingAnswer();
            }
            if (knobs.on("dieBeforeCommit")) {
                Runtime.getRuntime().halt(137);
            }
            Map<String, Object> entry = device.sign(sale, request, group(sale), knobs.now());
            if (knobs.on("dieAfterCommit")) {
                Runtime.getRuntime().halt(137);
            }
            if (online) {
                upload(name, device, entry);
            }
            return signed(device, entry);
        }
    }

    private Reply signed(Device device, Map<String, Object> entry) {
        long total = device.counter("total");
        if (isDue("signThenEvery", total)) {
            String code = knobs.text("signThenCode");
            return code.equals("910") ? fail(code, "Request parameter error") : notReady(code);
        }
        int before = device.journal.size() - 2;
        if (isDue("precedingEvery", total) && before >= 0) {
            entry = device.journal.get(before);
        }
        String special = knobs.take("loseAnswers") ? "lose" : knobs.take("lateAnswers") ? "late"
            : knobs.take("malformedAnswers") ? "malformed" : null;
        return new Reply(knobs.text("successCode"), "It is succeeded", receipt(device, entry), special);
    }

    private boolean isDue(String knob, long total) {
        return knobs.number(knob) > 0 && total % knobs.number(knob) == 0;
    }

    Map<String, Object> receipt(Device device, Map<String, Object> entry) {
        return Json.of("rcptNo", entry.get("rcptNo"), "intrlData", entry.get("intrlData"),
            "rcptSign", entry.get("rcptSign"), "totRcptNo", entry.get("totRcptNo"),
            "vsdcRcptPbctDate", entry.get("vsdcRcptPbctDate"),
            "sdcId", knobs.on("noIds") ? null
                : sdcId(device.directory.getFileName().toString().split("_")[1]),
            "mrcNo", knobs.on("noIds") ? null : "WIS01000150");
    }

    /** A unit that cannot sign says so to sales only; its reads go on. */
    private static Reply notReady(String code) {
        switch (code) {
            case "836":
                return fail(code, "Your Sequences have been altered, Connect to API to get Sequences.");
            case "891":
                return fail(code, "An error occurred while Request URL is created.");
            case "892":
                return fail(code, "An error occurred while Request Header data is created.");
            case "11":
            case "E11":
                return fail(code, "VSCU memory full");
            case "900":
                return fail(code, "There is no Header information");
            case "901":
                return fail(code, "It is not valid device");
            case "903":
                return fail(code, "Only VSCU device can be verified.");
            case "905":
                return fail(code, "Only OSCU device can be verified");
            case "E04":
                return fail(code, "Device/Branch not found");
            default:
                return fail(code, "");
        }
    }

    private Reply duplicate(Device device, Object invcNo) {
        switch (knobs.text("duplicateAnswer")) {
            case "924":
                return fail("924", "CIS Invoice number already exists.");
            case "994":
                return fail("994", "There is an overlapped Data");
            case "910":
                return fail("910", "Request parameter error");
            case "replay":
                Map<String, Object> stored = device.byInvcNo.get(invcNo.toString());
                return new Reply(knobs.text("successCode"), "It is succeeded",
                    receipt(device, stored), null);
            case "expected":
                long most = 0;
                for (Map<String, Object> entry : device.journal) {
                    most = Math.max(most, ((BigDecimal) entry.get("invcNo")).longValue());
                }
                return fail("910", "Invc No: " + invcNo + " is invalid, use the expected value: " + (most + 1));
            default:
                return clientError();
        }
    }

    /** NS and NC draw from one counter (live evidence); training and proforma where the knob says so. */
    private String group(Map<String, Object> sale) {
        String type = (String) sale.get("salesTyCd");
        return knobs.on("separateCounters") ? type : "N";
    }

    private Reply altered(String name, Device device, boolean online) {
        Map<String, Long> known = upstream.highest(name);
        if (known.getOrDefault("total", 0L) <= device.counter("total")) {
            return null;
        }
        if (!online) {
            return fail("836",
                "Your Sequences have been altered, Connect to API to get Sequences.");
        }
        known.forEach(device::raise);
        return null;
    }

    private boolean overCeiling(Device device) {
        long limit = knobs.decimal("ceilingHours").multiply(BigDecimal.valueOf(3_600_000)).longValue();
        String reading = knobs.text("ceilingReading");
        long now = knobs.now();
        if (!reading.equals("B") && !reading.equals("off") && now - device.lastContactMs >= limit) {
            return true;
        }
        Map<String, Object> oldest = device.oldestUnsent();
        return oldest != null && !reading.equals("A") && !reading.equals("off")
            && now - ((BigDecimal) oldest.get("signedMs")).longValue() >= limit;
    }

    private Reply ceilingAnswer() {
        switch (knobs.text("ceilingAnswer")) {
            case "838":
                return fail("838", "Connection to API is not established: check connection.");
            case "refused":
                return new Reply(null, null, null, "lose");
            case "503":
                return new Reply(null, null, null, "503");
            default:
                return fail("894", "An error regarding server communication occurred.");
        }
    }

    /** Sends what was signed offline, in order; called under the signing lock. */
    private void drain(String name, Device device) throws IOException {
        Map<String, Object> oldest;
        while ((oldest = device.oldestUnsent()) != null) {
            upload(name, device, oldest);
        }
    }

    private void upload(String name, Device device, Map<String, Object> entry) throws IOException {
        upstream.take(name, entry);
        device.markUploaded(entry);
    }

    /** The retransmission by itself: on a timer, and at once when the link knob changes. */
    void retransmit() {
        for (Map.Entry<String, Device> each : devices().entrySet()) {
            synchronized (signing) {
                try {
                    Device device = each.getValue();
                    if (device.hasKeys() && device.oldestUnsent() != null && upstream.reach()) {
                        drain(each.getKey(), device);
                        contact(device);
                    }
                } catch (IOException e) {
                    System.err.println("retransmission failed: " + e);
                }
            }
        }
    }

    /** The keys knob acts on the files, as a careless hand or a broken disk would. */
    void applyKeys(String how) throws IOException {
        for (Device device : devices().values()) {
            for (String file : Device.KEY_FILES) {
                Path path = device.directory.resolve(file);
                Path kept = device.directory.resolve(file + ".kept");
                if (how.equals("ok")) {
                    if (Files.exists(kept)) {
                        Files.write(path, Files.readAllBytes(kept));
                        Files.delete(kept);
                    }
                } else {
                    if (!Files.exists(kept) && Files.exists(path)) {
                        Files.copy(path, kept);
                    }
                    if (how.equals("deleted")) {
                        Files.deleteIfExists(path);
                    } else {
                        Files.write(path, new byte[0]);
                    }
                }
            }
        }
    }

    /** A new device in a new shop: everything on disk goes. */
    synchronized void reset() throws IOException {
        synchronized (signing) {
            for (Path folder : List.of(data, data.resolve("../upstream"))) {
                if (Files.isDirectory(folder)) {
                    try (var walk = Files.walk(folder)) {
                        for (Path path : walk.sorted(java.util.Comparator.reverseOrder()).toList()) {
                            Files.deleteIfExists(path);
                        }
                    }
                }
            }
            upstream.forget();
            devices.clear();
            knobs.reset();
        }
    }
}
