package fake.vscu;

import java.io.IOException;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The 20 local paths besides init and sale: reference reads and the registers they write to. */
final class Reads {
    private static final String REGISTRAR = " regrId*C20 regrNm*C60 modrId*C20 modrNm*C60";
    private static final String SINCE = "lastReqDt C14";
    private static final Map<String, String> TABLES = new HashMap<>();
    private static final int PAGE = 500;
    private static final int ITEM_CLASSES = 1200;

    static {
        for (String path : new String[] {"/code/selectCodes", "/itemClass/selectItemsClass",
            "/branches/selectBranches", "/notices/selectNotices", "/items/selectItems",
            "/imports/selectImportItems", "/trnsPurchase/selectTrnsPurchaseSales",
            "/stock/selectStockItems"}) {
            TABLES.put(path, SINCE);
        }
        TABLES.put("/customers/selectCustomer", "custmTin*C11");
        TABLES.put("/branches/saveBrancheCustomers", "custNo*C9 custTin*C11 custNm*C60 adrs C300 "
            + "telNo C20 email C50 faxNo C20 useYn*C1 remark C1000" + REGISTRAR);
        TABLES.put("/branches/saveBrancheUsers", "userId*C20 userNm*C60 pwd*C255 adrs C200 cntc C20 "
            + "authCd C100 remark C2000 useYn*C1" + REGISTRAR);
        TABLES.put("/branches/saveBrancheInsurances",
            "isrccCd*C10 isrccNm*C100 isrcRt*I3 useYn*C1" + REGISTRAR);
        TABLES.put("/items/saveItems", "itemCd*C20 itemClsCd*C10 itemTyCd*C5 itemNm*C200 "
            + "itemStdNm C200 orgnNatCd*C5 pkgUnitCd*C5 qtyUnitCd*C5 taxTyCd*C5 btchNo C10 bcd C20 "
            + "dftPrc*N18 addInfo C7 sftyQty N13 isrcAplcbYn*C1 useYn*C1" + REGISTRAR);
        TABLES.put("/items/saveItemComposition",
            "itemCd*C20 cpstItemCd*C20 cpstQty*N13 regrId*C20 regrNm*C60");
        TABLES.put("/imports/updateImportItems", "taskCd*C50 dclDe*D8 itemSeq*I10 hsCd*C17 "
            + "itemClsCd*C10 itemCd*C20 imptItemSttsCd*C5 remark C400 modrId*C20 modrNm*C60");
        TABLES.put("/trnsPurchase/savePurchases", "invcNo*I38 orgInvcNo*I38 regTyCd*C5 pchsTyCd*C5 "
            + "rcptTyCd*C5 pmtTyCd*C5 pchsSttsCd*C5 pchsDt*D8 totItemCnt*I10 totTaxblAmt*N18 "
            + "totTaxAmt*N18 totAmt*N18" + REGISTRAR);
        TABLES.put("/stock/saveStockItems", "sarNo*I38 orgSarNo*I38 regTyCd*C5 sarTyCd*C5 ocrnDt*D8 "
            + "totItemCnt*I10 totTaxblAmt*N18 totTaxAmt*N18 totAmt*N18" + REGISTRAR);
        TABLES.put("/stockMaster/saveStockMaster", "itemCd*C20 rsdQty*N13" + REGISTRAR);
        TABLES.put("/reports/saveZReports", "rptDe*D14");
        TABLES.put("/reports/checkZReport", "rptDe*D8");
    }

    private final Unit unit;
    private final Map<String, List<Object>> saved = new HashMap<>();
    private final List<Object> notices = new ArrayList<>();

    Reads(Unit unit) {
        this.unit = unit;
        reset();
    }

    /** Nothing registered, and the one notice every branch has. */
    synchronized void reset() {
        saved.clear();
        notices.clear();
        notices.add(notice("Filing reminder", "20260105080000"));
    }

    private Map<String, Object> notice(String title, String stamp) {
        return Json.of("noticeNo", BigDecimal.valueOf(notices.size() + 1), "title", title,
            "cont", title, "dtlUrl", "http://localhost/notice", "regrNm", "KRA", "regDt", stamp);
    }

    synchronized void addNotice(String title) {
        notices.add(notice(title, Stamp.eat(unit.knobs.now())));
    }

    static boolean knows(String path) {
        return TABLES.containsKey(path);
    }

    synchronized Unit.Reply answer(String path, String device, Map<String, Object> body)
            throws IOException {
        String wrong = Fields.check(TABLES.get(path), body);
        if (wrong != null) {
            String[] why = SaleCheck.parameter(wrong);
            return Unit.fail(why[0], why[1]);
        }
        String since = (String) body.get("lastReqDt");
        if (TABLES.get(path).equals(SINCE)
                && (since == null || since.length() != 14 || !Fields.digits(since))) {
            return Unit.fail("E31", "lastReqDt must be 14 digits");
        }
        Unit.Reply offline = unit.readProblem(device);
        if (offline != null) {
            return offline;
        }
        if (path.contains("/save") || path.contains("/update")) {
            saved.computeIfAbsent(path, p -> new ArrayList<>()).add(stamped(body));
            return Unit.ok(null);
        }
        return select(path, body, since);
    }

    private Map<String, Object> stamped(Map<String, Object> body) {
        Map<String, Object> row = new LinkedHashMap<>(body);
        row.put("_at", Stamp.eat(unit.knobs.now()));
        return row;
    }

    private Unit.Reply select(String path, Map<String, Object> body, String since) {
        switch (path) {
            case "/code/selectCodes":
                return since.compareTo(Codes.DATED) >= 0 ? empty()
                    : Unit.ok(Json.of("clsList", unit.codes.classes(unit.knobs.text("taxRates"))));
            case "/itemClass/selectItemsClass":
                return itemClasses(since);
            case "/notices/selectNotices":
                return list("noticeList", notices, "regDt", since);
            case "/branches/selectBranches":
                return since.compareTo(Codes.DATED) >= 0 ? empty() : Unit.ok(Json.of("bhfList",
                    List.of(Json.of("tin", body.get("tin"), "bhfId", body.get("bhfId"), "bhfNm",
                        "Headquarter", "bhfSttsCd", "01", "prvncNm", "NAIROBI", "hqYn", "Y"))));
            case "/customers/selectCustomer":
                return Unit.ok(Json.of("custList", List.of(Json.of("tin", body.get("custmTin"),
                    "taxprNm", "BUYER " + body.get("custmTin"), "taxprSttsCd", "A",
                    "prvncNm", "NAIROBI"))));
            case "/items/selectItems":
                return list("itemList", rows("/items/saveItems"), "_at", since);
            case "/stock/selectStockItems":
                return list("stockList", rows("/stock/saveStockItems"), "_at", since);
            case "/imports/selectImportItems":
                return since.compareTo(Codes.DATED) >= 0 ? empty() : Unit.ok(Json.of("itemList",
                    List.of(Json.of("taskCd", "2231943", "dclDe", "20260104", "itemSeq",
                        BigDecimal.ONE, "dclNo", "C3460-2019-TZDL", "hsCd", "1231531231",
                        "itemNm", "OUTER PARTS", "imptItemsttsCd", "2", "orgnNatCd", "BR",
                        "exptNatCd", "BR", "pkg", BigDecimal.valueOf(2922), "qty",
                        BigDecimal.valueOf(19946), "qtyUnitCd", "KG"))));
            case "/trnsPurchase/selectTrnsPurchaseSales":
                return since.compareTo(Codes.DATED) >= 0 ? empty() : Unit.ok(Json.of("saleList",
                    List.of(Json.of("spplrTin", "A000999999Z", "spplrNm", "Supplier",
                        "spplrBhfId", "00", "spplrInvcNo", BigDecimal.ONE, "rcptTyCd", "S",
                        "pmtTyCd", "01", "cfmDt", "2026-01-05 08:00:00", "salesDt", "20260105",
                        "totItemCnt", BigDecimal.ZERO, "totAmt", BigDecimal.ZERO,
                        "itemList", List.of()))));
            default:
                return Unit.ok(Json.of("checkCode", "000"));
        }
    }

    private List<Object> rows(String path) {
        return saved.getOrDefault(path, List.of());
    }

    private static Unit.Reply empty() {
        return Unit.fail("001", "There is no search result");
    }

    private static Unit.Reply list(String name, List<Object> rows, String stamp, String since) {
        List<Object> found = new ArrayList<>();
        for (Object row : rows) {
            if (((String) Json.map(row).get(stamp)).compareTo(since) >= 0) {
                found.add(row);
            }
        }
        return found.isEmpty() ? empty() : Unit.ok(Json.of(name, found));
    }

    /** Paged as the real list is: an answer that is not the last bears the next page's watermark. */
    private Unit.Reply itemClasses(String since) {
        long from = since.startsWith(Codes.DATED.substring(0, 8))
            ? Long.parseLong(since.substring(8)) : 0;
        if (since.compareTo("20260102") >= 0 || from >= ITEM_CLASSES) {
            return empty();
        }
        List<Object> rows = new ArrayList<>();
        for (long i = from; i < Math.min(from + PAGE, ITEM_CLASSES); i++) {
            rows.add(Json.of("itemClsCd", Long.toString(50_000_000L + i), "itemClsNm",
                "Item class " + i, "itemClsLvl", BigDecimal.valueOf(i % 5 + 1), "taxTyCd", "B",
                "mjrTgYn", "N", "useYn", "Y"));
        }
        Unit.Reply page = Unit.ok(Json.of("itemClsList", rows));
        if (from + PAGE < ITEM_CLASSES) {
            page.resultDt = Codes.DATED.substring(0, 8) + String.format("%06d", from + PAGE);
        }
        return page;
    }
}
