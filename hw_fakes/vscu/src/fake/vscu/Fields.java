package fake.vscu;

import java.math.BigDecimal;
import java.util.Map;

/**
 * Field tables as short text: name, * when required, type and length. C characters, D digits of exactly
 * that length, I whole number, N number with two decimals; as the spec's tables have them.
 */
final class Fields {
    private Fields() {
    }

    /** The name of the first wrong field, or null. */
    static String check(String table, Map<String, Object> body) {
        String[] words = table.split(" ");
        for (int i = 0; i < words.length; i++) {
            String word = words[i];
            int star = word.indexOf('*');
            String name = star > 0 ? word.substring(0, star) : word;
            String type = star > 0 ? word.substring(star + 1) : words[++i];
            Object value = body.get(name);
            if (value == null) {
                if (star > 0) {
                    return name;
                }
                continue;
            }
            if (!fits(type.charAt(0), Integer.parseInt(type.substring(1)), value)) {
                return name;
            }
        }
        return null;
    }

    private static boolean fits(char type, int length, Object value) {
        switch (type) {
            case 'C':
                return value instanceof String s && s.length() <= length;
            case 'D':
                return value instanceof String s && s.length() == length && digits(s);
            case 'I':
                return value instanceof BigDecimal d && d.stripTrailingZeros().scale() <= 0
                    && d.precision() - d.scale() <= length;
            default:
                return value instanceof BigDecimal d && d.signum() >= 0
                    && d.stripTrailingZeros().scale() <= 2 && d.precision() - d.scale() <= length - 2;
        }
    }

    static boolean digits(String text) {
        for (int i = 0; i < text.length(); i++) {
            if (text.charAt(i) < '0' || text.charAt(i) > '9') {
                return false;
            }
        }
        return true;
    }
}
