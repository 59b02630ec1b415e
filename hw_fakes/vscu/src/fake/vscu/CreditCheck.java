package fake.vscu;

import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Checks a credit note against its original and the notes before it: codes 930 to 935 with ZRA's published texts. */
final class CreditCheck {
    private CreditCheck() {
    }

    /** Null when the sale may be signed, else {code, message}. */
    static String[] check(Device device, Map<String, Object> sale) {
        String number = sale.get("orgInvcNo").toString();
        if (sale.get("rcptTyCd").equals("S")) {
            return ((BigDecimal) sale.get("orgInvcNo")).signum() == 0
                ? null : SaleCheck.parameter("orgInvcNo");
        }
        Map<String, Object> original = device.byInvcNo.get(number);
        if (original == null || !original.get("rcptTyCd").equals("S")
                || !original.get("salesTyCd").equals(sale.get("salesTyCd"))) {
            return new String[] {"930",
                "The specified invoice could not be found. Please verify [orgInvcNo] and try again"};
        }
        List<Object> sold = Json.list(original.get("items"));
        if (sold == null) {
            return null;  // signed by an older fake, which kept no items
        }
        if (!same(original.get("custTin"), sale.get("custTin"))
                || Json.list(sale.get("itemList")).size() > sold.size()) {
            return new String[] {"935", "The credit note contains information that does not match the "
                + "original invoice data"};
        }
        Map<String, BigDecimal[]> left = new HashMap<>();
        add(left, sold, 1);
        for (Map<String, Object> entry : new ArrayList<>(device.journal)) {
            if (entry.get("rcptTyCd").equals("R") && entry.get("orgInvcNo").toString().equals(number)) {
                List<Object> taken = Json.list(entry.get("items"));
                add(left, taken == null ? List.of() : taken, -1);
            }
        }
        return items(left, Json.list(sale.get("itemList")));
    }

    private static String[] items(Map<String, BigDecimal[]> left, List<Object> items) {
        for (Object each : items) {
            String code = (String) Json.map(each).get("itemCd");
            if (!left.containsKey(code)) {
                return new String[] {"932", "The item specified in the credit note does not exist on the "
                    + "original invoice. [itemCd]"};
            }
        }
        add(left, items, -1);
        for (Map.Entry<String, BigDecimal[]> each : left.entrySet()) {
            if (each.getValue()[0].signum() < 0) {
                return new String[] {"934", "The quantity specified in the credit note exceeds the quantity "
                    + "in the original invoice."};
            }
        }
        for (Map.Entry<String, BigDecimal[]> each : left.entrySet()) {
            if (each.getValue()[1].signum() < 0) {
                return new String[] {"931", "The credit note amount exceeds the original invoice amount for "
                    + "item: " + each.getKey()};
            }
        }
        return null;
    }

    /** Adds quantity and amount of each item, or takes them away. */
    private static void add(Map<String, BigDecimal[]> sums, List<Object> items, int sign) {
        BigDecimal factor = BigDecimal.valueOf(sign);
        for (Object each : items) {
            Map<String, Object> item = Json.map(each);
            BigDecimal[] sum = sums.computeIfAbsent((String) item.get("itemCd"),
                c -> new BigDecimal[] {BigDecimal.ZERO, BigDecimal.ZERO});
            sum[0] = sum[0].add(((BigDecimal) item.get("qty")).multiply(factor));
            sum[1] = sum[1].add(((BigDecimal) item.get("totAmt")).multiply(factor));
        }
    }

    private static boolean same(Object one, Object other) {
        return one == null ? other == null : one.equals(other);
    }

    /** What the journal keeps of a sale's lines. */
    static List<Object> kept(Map<String, Object> sale) {
        List<Object> kept = new ArrayList<>();
        for (Object each : Json.list(sale.get("itemList"))) {
            Map<String, Object> item = Json.map(each);
            kept.add(Json.of("itemCd", item.get("itemCd"), "qty", item.get("qty"),
                "totAmt", item.get("totAmt")));
        }
        return kept;
    }
}
