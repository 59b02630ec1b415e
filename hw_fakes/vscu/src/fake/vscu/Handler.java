package fake.vscu;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import java.io.IOException;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** HTTP of the unit: the envelope for the local paths, and the control paths under /_fake/. */
final class Handler implements HttpHandler {
    private static final int BODY_MAX = 16 * 1024 * 1024;
    private final Unit unit;
    private final Reads reads;
    private final Map<String, Long> calls = new ConcurrentHashMap<>();

    Handler(Unit unit) {
        this.unit = unit;
        this.reads = new Reads(unit);
    }

    @Override
    public void handle(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        byte[] body = exchange.getRequestBody().readNBytes(BODY_MAX);
        try {
            if (path.startsWith("/_fake/")) {
                control(exchange, path, body);
            } else {
                serve(exchange, path, body);
            }
        } catch (RuntimeException | GeneralSecurityException e) {
            e.printStackTrace();
            send(exchange, 500, "application/json", spring(500, "Internal Server Error", path));
        }
    }

    private void serve(HttpExchange exchange, String path, byte[] raw)
            throws IOException, GeneralSecurityException {
        calls.merge(path, 1L, Long::sum);
        if (unit.knobs.on("html404")) {
            send(exchange, 404, "text/html;charset=utf-8", "<!doctype html><html><head><title>HTTP "
                + "Status 404</title></head><body><h1>HTTP Status 404 - Not Found</h1></body></html>");
            return;
        }
        boolean readBack = path.equals("/trnsSales/selectInvoice") && unit.knobs.on("readBack");
        boolean init = path.equals("/initializer/selectInitInfo");
        boolean sale = path.equals("/trnsSales/saveSales");
        if (!readBack && !init && !sale && !Reads.knows(path)) {
            send(exchange, 404, "application/json", spring(404, "Not Found", path));
            return;
        }
        if (!exchange.getRequestMethod().equals("POST")) {
            send(exchange, 405, "application/json", spring(405, "Method Not Allowed", path));
            return;
        }
        if (raw.length == 0) {
            envelope(exchange, Unit.fail("911", "There is no request full text"));
            return;
        }
        Map<String, Object> body;
        try {
            body = Json.map(Json.parse(new String(raw, StandardCharsets.UTF_8)));
        } catch (IllegalArgumentException e) {
            body = null;
        }
        if (body == null) {
            send(exchange, 400, "application/json", spring(400, "Bad Request", path));
            return;
        }
        String wrong = Fields.check(init ? "tin*C11 bhfId*C2 dvcSrlNo*C100" : "tin*C11 bhfId*C2", body);
        if (wrong != null) {
            String[] why = SaleCheck.parameter(wrong);
            envelope(exchange, Unit.fail(why[0], why[1]));
            return;
        }
        if (init) {
            envelope(exchange, unit.init(body));
            return;
        }
        String device = body.get("tin") + "_" + body.get("bhfId");
        Unit.Reply problem = unit.keysProblem(device);
        if (problem != null) {
            envelope(exchange, problem);
        } else if (sale) {
            Unit.Reply reply = unit.sale(device, body, raw);
            reply.form = unit.knobs.text("answerForm");
            swallowed(exchange, reply);
        } else if (readBack) {
            swallowed(exchange, stored(device, body));
        } else {
            envelope(exchange, reads.answer(path, device, body));
        }
    }

    /** Whatever was to be said about a sale: while the knob counts, nobody hears it. */
    private void swallowed(HttpExchange exchange, Unit.Reply reply) throws IOException {
        if (unit.knobs.take("swallowAnswers")) {
            exchange.close();
            return;
        }
        envelope(exchange, reply);
    }

    private Unit.Reply stored(String name, Map<String, Object> body) {
        if (unit.knobs.on("readBackWaits")) {
            unit.awaitSigning();
        }
        Device device = unit.device(name);
        Map<String, Object> entry = device.byInvcNo.get(String.valueOf(body.get("invcNo")));
        if (entry == null || isHidden(device, entry)) {
            return Unit.fail("001", "There is no search result");
        }
        Map<String, Object> found = unit.receipt(device, entry);
        for (String field : new String[] {"invcNo", "trdInvcNo", "orgInvcNo", "totAmt", "custTin",
            "cfmDt", "salesTyCd", "rcptTyCd", "remark"}) {
            found.put(field, entry.get(field));
        }
        return Unit.ok(found);
    }

    private boolean isHidden(Device device, Map<String, Object> entry) {
        long age = unit.knobs.now() - ((BigDecimal) entry.get("signedMs")).longValue();
        long lag = unit.knobs.number("readBackLagMs");
        return lag > 0 && age < lag
            || unit.knobs.on("readBackForgets") && device.isEarlier(entry);
    }

    private void envelope(HttpExchange exchange, Unit.Reply reply) throws IOException {
        if ("lose".equals(reply.special)) {
            exchange.close();
            return;
        }
        if ("503".equals(reply.special)) {
            send(exchange, 503, "text/plain", "Service Unavailable");
            return;
        }
        if ("late".equals(reply.special)) {
            Application.sleep(unit.knobs.number("lateAnswersMs"));
        }
        String text = Json.write(Json.of("resultCd", reply.code, "resultMsg", reply.message,
            "resultDt", reply.resultDt != null ? reply.resultDt : Stamp.eat(unit.knobs.now()),
            "data", reply.data));
        if ("malformed".equals(reply.special)) {
            text = text.substring(0, text.length() / 2);
        }
        send(exchange, 200, "application/json", AnswerForms.bytes(reply.form, text));
    }

    private String spring(int status, String error, String path) {
        return Json.write(Json.of("timestamp", Stamp.eat(unit.knobs.now()), "status",
            BigDecimal.valueOf(status), "error", error, "path", path));
    }

    private static void send(HttpExchange exchange, int status, String type, String text)
            throws IOException {
        send(exchange, status, type, text.getBytes(StandardCharsets.UTF_8));
    }

    private static void send(HttpExchange exchange, int status, String type, byte[] bytes)
            throws IOException {
        exchange.getResponseHeaders().set("Content-Type", type);
        exchange.sendResponseHeaders(status, bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }

    // --- /_fake/ ---------------------------------------------------------------------------------

    private void control(HttpExchange exchange, String path, byte[] raw) throws IOException {
        switch (path) {
            case "/_fake/journal":
                send(exchange, 200, "application/json", Json.write(journal(exchange)));
                return;
            case "/_fake/state":
                send(exchange, 200, "application/json", Json.write(state()));
                return;
            case "/_fake/knobs":
                knobs(exchange, raw);
                return;
            case "/_fake/reset":
                unit.reset();
                reads.reset();
                send(exchange, 200, "application/json", "{}");
                return;
            default:
                send(exchange, 404, "application/json", spring(404, "Not Found", path));
        }
    }

    private List<Object> journal(HttpExchange exchange) {
        String query = exchange.getRequestURI().getQuery();
        long since = query != null && query.startsWith("since=")
            ? Long.parseLong(query.substring(6)) : 0;
        List<Object> all = new ArrayList<>();
        for (Device device : unit.devices().values()) {
            for (Map<String, Object> entry : List.copyOf(device.journal)) {
                if (((BigDecimal) entry.get("totRcptNo")).longValue() > since) {
                    Map<String, Object> row = new java.util.LinkedHashMap<>(entry);
                    row.put("uploaded", device.isUploaded(entry));
                    all.add(row);
                }
            }
        }
        return all;
    }

    private Map<String, Object> state() {
        Map<String, Object> devices = Json.of();
        unit.devices().forEach((name, device) -> devices.put(name, Json.of(
            "initialised", device.initialised(), "keys", device.hasKeys(),
            "totRcptNo", BigDecimal.valueOf(device.counter("total")),
            "rcptNo", BigDecimal.valueOf(device.counter("N")),
            "unsent", BigDecimal.valueOf(device.unsent()),
            "lastContact", Stamp.eat(device.lastContactMs))));
        Map<String, Object> counted = Json.of();
        calls.forEach((path, count) -> counted.put(path, BigDecimal.valueOf(count)));
        return Json.of("devices", devices, "received", BigDecimal.valueOf(unit.upstream.received()),
            "now", Stamp.eat(unit.knobs.now()), "knobs", unit.knobs.all(), "calls", counted);
    }

    private void knobs(HttpExchange exchange, byte[] raw) throws IOException {
        Map<String, Object> wanted;
        try {
            wanted = Json.map(Json.parse(new String(raw, StandardCharsets.UTF_8)));
        } catch (IllegalArgumentException e) {
            wanted = null;
        }
        String wrong = wanted == null ? "a JSON object is needed" : null;
        if (wanted != null) {
            for (Map.Entry<String, Object> entry : wanted.entrySet()) {
                if (entry.getKey().equals("notice")) {
                    reads.addNotice(String.valueOf(entry.getValue()));
                } else if (wrong == null) {
                    wrong = unit.knobs.set(entry.getKey(), entry.getValue());
                }
                if (wrong == null && entry.getKey().equals("keys")) {
                    unit.applyKeys((String) entry.getValue());
                }
            }
        }
        if (wrong != null) {
            send(exchange, 400, "application/json", Json.write(Json.of("error", wrong)));
            return;
        }
        unit.retransmit();
        send(exchange, 200, "application/json", Json.write(unit.knobs.all()));
    }
}
