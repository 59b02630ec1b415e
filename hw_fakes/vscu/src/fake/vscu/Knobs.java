package fake.vscu;

import java.math.BigDecimal;
import java.util.LinkedHashMap;
import java.util.Map;

/** What a test, a demo or a trainer can make the unit do; the names and defaults are the README's. */
final class Knobs {
    private final Map<String, Object> values = new LinkedHashMap<>();
    private long clockBaseReal;
    private long clockBaseFake;

    Knobs() {
        reset();
    }

    /** Every knob as it is in a new unit. */
    synchronized void reset() {
        values.clear();
        clockBaseReal = System.currentTimeMillis();
        clockBaseFake = clockBaseReal;
        number("latencyMs", 0);
        number("latencyJitterMs", 0);
        text("upstream", "online");
        number("upstreamLatencyMs", 0);
        number("offlineLatencyMs", 0);
        number("loseAnswers", 0);
        number("swallowAnswers", 0);
        number("lateAnswers", 0);
        number("lateAnswersMs", 31000);
        flag("dieAfterCommit");
        flag("dieBeforeCommit");
        text("duplicateAnswer", "899");
        text("guard", "signing");
        flag("remembers");
        number("signThenEvery", 0);
        text("signThenCode", "836");
        number("precedingEvery", 0);
        text("keys", "ok");
        flag("diskFull");
        flag("memoryFull");
        number("unsentMax", 100000);
        flag("html404");
        text("offlineRead", "894");
        text("ceilingReading", "both");
        text("ceilingAnswer", "894");
        values.put("ceilingHours", new BigDecimal(24));
        number("clockOffsetSeconds", 0);
        values.put("clockRate", BigDecimal.ONE);
        flag("utcCompare");
        number("malformedAnswers", 0);
        number("rejectNext", 0);
        text("rejectCode", "910");
        text("rejectMessage", "Request parameter error");
        text("taxblAmt", "accept");
        text("splyAmt", "loose");
        text("creditCheck", "after");
        text("notReady", "");
        text("taxRates", "");
        text("answerForm", "plain");
        flag("initInfoNulls");
        flag("noIds");
        flag("readBack");
        number("readBackLagMs", 0);
        flag("readBackWaits");
        flag("readBackForgets");
        text("successCode", "000");
        flag("separateCounters");
    }

    private void number(String name, long value) {
        values.put(name, BigDecimal.valueOf(value));
    }

    private void text(String name, String value) {
        values.put(name, value);
    }

    private void flag(String name) {
        values.put(name, Boolean.FALSE);
    }

    /** Sets one knob; a message when there is no such knob or the value is of another type. */
    synchronized String set(String name, Object value) {
        Object known = values.get(name);
        if (known == null) {
            return "unknown knob " + name;
        }
        if (value instanceof String s && !(known instanceof String)) {
            try {
                value = known instanceof Boolean ? (Object) Boolean.valueOf(s) : new BigDecimal(s);
            } catch (NumberFormatException e) {
                return name + " takes a number";
            }
        }
        if (known.getClass() != value.getClass()) {
            return name + " takes a " + known.getClass().getSimpleName();
        }
        if (name.equals("clockRate")) {
            long now = now();
            clockBaseFake = now - number("clockOffsetSeconds") * 1000;
            clockBaseReal = System.currentTimeMillis();
        }
        if (name.equals("answerForm") && !AnswerForms.knows((String) value)) {
            return "answerForm takes one of " + AnswerForms.NAMES;
        }
        values.put(name, value);
        return null;
    }

    synchronized long number(String name) {
        return ((BigDecimal) values.get(name)).longValue();
    }

    synchronized BigDecimal decimal(String name) {
        return (BigDecimal) values.get(name);
    }

    synchronized String text(String name) {
        return (String) values.get(name);
    }

    synchronized boolean on(String name) {
        return (Boolean) values.get(name);
    }

    /** True, and one less left, while a counting knob has something left. */
    synchronized boolean take(String name) {
        long left = number(name);
        if (left > 0) {
            values.put(name, BigDecimal.valueOf(left - 1));
        }
        return left > 0;
    }

    synchronized Map<String, Object> all() {
        return new LinkedHashMap<>(values);
    }

    /** The unit's clock, milliseconds since 1970, as the clock knobs have it. */
    synchronized long now() {
        double elapsed = (System.currentTimeMillis() - clockBaseReal)
            * decimal("clockRate").doubleValue();
        return clockBaseFake + (long) elapsed + number("clockOffsetSeconds") * 1000;
    }
}
