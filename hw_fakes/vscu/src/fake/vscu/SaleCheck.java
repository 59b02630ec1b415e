package fake.vscu;

import java.math.BigDecimal;
import java.util.List;
import java.util.Map;

/** Validation of a saveSales request, before anything is signed (etims.md 2.2, 2.3, 3.2, 5.6). */
final class SaleCheck {
    private static final String HEADER =
        "trdInvcNo*C50 invcNo*I38 orgInvcNo*I38 custTin C11 custNm C60 salesTyCd*C5 rcptTyCd*C5 "
        + "pmtTyCd C5 salesSttsCd*C5 cfmDt*D14 salesDt*D8 stockRlsDt D14 cnclReqDt D14 cnclDt D14 "
        + "rfdDt D14 rfdRsnCd C5 totItemCnt*I10 "
        + "taxblAmtA*N18 taxblAmtB*N18 taxblAmtC*N18 taxblAmtD*N18 taxblAmtE*N18 "
        + "taxRtA*N7 taxRtB*N7 taxRtC*N7 taxRtD*N7 taxRtE*N7 "
        + "taxAmtA*N18 taxAmtB*N18 taxAmtC*N18 taxAmtD*N18 taxAmtE*N18 "
        + "totTaxblAmt*N18 totTaxAmt*N18 totAmt*N18 prchrAcptcYn*C1 remark C400 "
        + "regrId*C20 regrNm*C60 modrId*C20 modrNm*C60";
    private static final String RECEIPT =
        "custTin C11 custMblNo C20 rptNo I38 trdeNm C20 adrs C200 topMsg C20 btmMsg C20 "
        + "prchrAcptcYn*C1";
    private static final String ITEM =
        "itemSeq*I3 itemCd*C20 itemClsCd C10 itemNm*C200 bcd C20 pkgUnitCd*C5 pkg*N13 qtyUnitCd*C5 "
        + "qty*N13 prc*N18 splyAmt*N18 dcRt*N5 dcAmt*N18 isrccCd C10 isrccNm C100 isrcRt N3 "
        + "isrcAmt N18 taxTyCd*C5 taxblAmt*N18 taxAmt*N18 totAmt*N18";
    private static final long DAY_MS = 86_400_000L;

    private final Codes codes;
    private final Knobs knobs;

    SaleCheck(Codes codes, Knobs knobs) {
        this.codes = codes;
        this.knobs = knobs;
    }

    /** Null when the sale can be signed, else {code, message}. */
    String[] check(Map<String, Object> sale, long nowMs) {
        String wrong = Fields.check(HEADER, sale);
        if (wrong != null) {
            return parameter(wrong);
        }
        Map<String, Object> receipt = Json.map(sale.get("receipt"));
        List<Object> items = Json.list(sale.get("itemList"));
        if (receipt == null) {
            return parameter("receipt");
        }
        wrong = Fields.check(RECEIPT, receipt);
        if (wrong != null) {
            return parameter("receipt><" + wrong);
        }
        if (items == null || items.isEmpty()) {
            return parameter("itemList");
        }
        String kind = "" + sale.get("salesTyCd") + sale.get("rcptTyCd");
        if (!List.of("NS", "NR", "CS", "CR", "TS", "TR", "PS").contains(kind)) {
            return new String[] {"834",
                "SalesType and ReceiptType must be NS-NR-TS-TR-CS-CR-PS check your inputs"};
        }
        if (sale.get("pmtTyCd") != null && !codes.has("07", sale.get("pmtTyCd"))) {
            return code("pmtTyCd");
        }
        if (!codes.has("11", sale.get("salesSttsCd"))) {
            return code("salesSttsCd");
        }
        if (kind.endsWith("R") && (sale.get("rfdRsnCd") == null
                || !codes.has("32", sale.get("rfdRsnCd")))) {
            return code("rfdRsnCd");
        }
        String[] answer = dates(sale, nowMs);
        return answer != null ? answer : items(sale, items);
    }

    private String[] dates(Map<String, Object> sale, long nowMs) {
        String day = (String) sale.get("salesDt");
        String today = knobs.on("utcCompare")
            ? Stamp.utc(nowMs).substring(0, 8) : Stamp.eat(nowMs).substring(0, 8);
        String oldest = Stamp.eat(nowMs - 180 * DAY_MS).substring(0, 8);
        if (day.compareTo(today) > 0 || day.compareTo(oldest) < 0) {
            return new String[] {"910", "[<salesDt>] must be a valid date and should not exceeding "
                + "180 days behind or future dates."};
        }
        return null;
    }

    private String[] items(Map<String, Object> sale, List<Object> items) {
        if (number(sale, "totItemCnt").intValue() != items.size()) {
            return parameter("totItemCnt");
        }
        BigDecimal[][] sums = new BigDecimal[5][2];
        BigDecimal total = BigDecimal.ZERO;
        for (BigDecimal[] row : sums) {
            row[0] = BigDecimal.ZERO;
            row[1] = BigDecimal.ZERO;
        }
        for (int i = 0; i < items.size(); i++) {
            Map<String, Object> item = Json.map(items.get(i));
            String wrong = item == null ? "itemSeq" : Fields.check(ITEM, item);
            if (wrong != null) {
                return parameter("itemList><" + wrong);
            }
            if (number(item, "itemSeq").intValue() != i + 1) {
                return parameter("itemList><itemSeq");
            }
            String[] answer = item(item);
            if (answer != null) {
                return answer;
            }
            int letter = "ABCDE".indexOf((String) item.get("taxTyCd"));
            sums[letter][0] = sums[letter][0].add(number(item, "taxblAmt"));
            sums[letter][1] = sums[letter][1].add(number(item, "taxAmt"));
            total = total.add(number(item, "totAmt"));
        }
        return sums(sale, sums, total);
    }

    private String[] item(Map<String, Object> item) {
        if (!codes.has("17", item.get("pkgUnitCd"))) {
            return code("itemList><pkgUnitCd");
        }
        if (!codes.has("10", item.get("qtyUnitCd"))) {
            return code("itemList><qtyUnitCd");
        }
        if (!codes.has("04", item.get("taxTyCd"))) {
            return code("itemList><taxTyCd");
        }
        BigDecimal rate = number(item, "dcRt");
        BigDecimal discount = number(item, "dcAmt");
        if (rate.stripTrailingZeros().scale() > 0) {
            return parameter("itemList><dcRt");
        }
        if (discount.signum() > 0 && rate.signum() == 0) {
            return parameter("itemList><dcAmt");
        }
        BigDecimal supply = number(item, "splyAmt");
        BigDecimal total = number(item, "totAmt");
        // "loose": half a cent of the unit price may hide in every unit of quantity. "exact": half a cent in all.
        BigDecimal slack = knobs.text("splyAmt").equals("exact") ? new BigDecimal("0.005")
            : number(item, "qty").multiply(new BigDecimal("0.005")).add(new BigDecimal("0.01"));
        BigDecimal product = number(item, "qty").multiply(number(item, "prc"));
        if (product.subtract(supply).abs().compareTo(slack) > 0) {
            return parameter("itemList><splyAmt");
        }
        if (supply.subtract(discount).compareTo(total) != 0) {
            return parameter("itemList><totAmt");
        }
        BigDecimal taxable = number(item, "taxblAmt");
        BigDecimal tax = number(item, "taxAmt");
        String convention = knobs.text("taxblAmt");
        boolean inclusive = taxable.compareTo(total) == 0;
        boolean exclusive = taxable.add(tax).compareTo(total) == 0;
        boolean good = convention.equals("inclusive") ? inclusive
            : convention.equals("exclusive") ? exclusive : inclusive || exclusive;
        return good ? null : parameter("itemList><taxblAmt");
    }

    private String[] sums(Map<String, Object> sale, BigDecimal[][] sums, BigDecimal total) {
        BigDecimal taxable = BigDecimal.ZERO;
        BigDecimal tax = BigDecimal.ZERO;
        for (int i = 0; i < 5; i++) {
            char letter = "ABCDE".charAt(i);
            if (number(sale, "taxblAmt" + letter).compareTo(sums[i][0]) != 0) {
                return parameter("taxblAmt" + letter);
            }
            if (number(sale, "taxAmt" + letter).compareTo(sums[i][1]) != 0) {
                return parameter("taxAmt" + letter);
            }
            taxable = taxable.add(sums[i][0]);
            tax = tax.add(sums[i][1]);
        }
        if (number(sale, "totTaxblAmt").compareTo(taxable) != 0) {
            return parameter("totTaxblAmt");
        }
        if (number(sale, "totTaxAmt").compareTo(tax) != 0) {
            return parameter("totTaxAmt");
        }
        return number(sale, "totAmt").compareTo(total) == 0 ? null : parameter("totAmt");
    }

    private static BigDecimal number(Map<String, Object> map, String name) {
        return (BigDecimal) map.get(name);
    }

    static String[] parameter(String field) {
        return new String[] {"910", "Request parameter error [<" + field + ">]"};
    }

    private static String[] code(String field) {
        return new String[] {"913", "Code value error [<" + field + ">]"};
    }
}
