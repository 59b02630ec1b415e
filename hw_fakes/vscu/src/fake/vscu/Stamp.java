package fake.vscu;

/** 14-digit stamps YYYYMMDDhhmmss without java.time, whose loading would cost a quarter of the start. */
final class Stamp {
    static final long EAT_MS = 3 * 3_600_000L;

    private Stamp() {
    }

    /** Nairobi time (UTC+3, no summer time). */
    static String eat(long ms) {
        return utc(ms + EAT_MS);
    }

    static String utc(long ms) {
        long days = Math.floorDiv(ms, 86_400_000L);
        long rest = Math.floorMod(ms, 86_400_000L) / 1000;
        // Civil date from days, after the proleptic Gregorian calendar's 400-year era.
        long z = days + 719_468;
        long era = Math.floorDiv(z, 146_097);
        long doe = z - era * 146_097;
        long yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        long doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        long mp = (5 * doy + 2) / 153;
        long day = doy - (153 * mp + 2) / 5 + 1;
        long month = mp < 10 ? mp + 3 : mp - 9;
        long year = yoe + era * 400 + (month <= 2 ? 1 : 0);
        StringBuilder out = new StringBuilder(14);
        pad(out, year, 4);
        pad(out, month, 2);
        pad(out, day, 2);
        pad(out, rest / 3600, 2);
        pad(out, rest / 60 % 60, 2);
        pad(out, rest % 60, 2);
        return out.toString();
    }

    private static void pad(StringBuilder out, long value, int width) {
        String digits = Long.toString(value);
        for (int i = digits.length(); i < width; i++) {
            out.append('0');
        }
        out.append(digits);
    }
}
