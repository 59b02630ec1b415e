"""An invoice as the exact bytes of a `/trnsSales/saveSales` request (VSCU spec 3.3.6, etims.md 2.2).

Where sources conflict (etims.md 2.3, 5.6, 5.7) the choice is a setting, read here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from gateway.clock import compact
from gateway.domain.invoice import Invoice, InvoiceLine, ReceiptType, SalesType
from gateway.money import CENT, ZERO, round_amount

APPROVED = "02"  # salesSttsCd, code class 11
CASH_AND_CREDIT = {"01", "02"}
# receipt.trdeNm, topMsg and btmMsg hold 20 characters, adrs 200 (etims.md 2.2).
SHORT_TEXT = 20
REMARK_MAX = 400
# How far the quantity on the wire may be from a weight with three decimals, in hundredths.
QUANTITY_STEPS = 5


@dataclass(frozen=True, slots=True)
class SaleForm:
    """How this branch's sales look on the wire; made from settings."""

    pin: str
    branch_id: str
    trade_name: str
    address: str
    top_message: str
    bottom_message: str
    taxable_amount: Literal["exclusive", "inclusive"]
    walk_in_pin: str | None
    walk_in_name: str | None
    credit_note_status: Literal["02", "05"]
    # Put the invoice's id into `remark`, so that a receipt read back is known to be this sale's.
    mark: bool = True


class SaleEncoder:
    """`encode(invoice, invc_no=…, at=…)` -> bytes; `report_no` gives the Z day's number."""

    def __init__(
        self,
        form: SaleForm,
        encode: Callable[[dict[str, Any]], bytes],
        report_no: Callable[[], int],
    ) -> None:
        self._form = form
        self._encode = encode
        self._report_no = report_no

    def __call__(
        self, invoice: Invoice, *, invc_no: int, at: datetime, invoice_id: str = ""
    ) -> bytes:
        body = sale_body(self._form, invoice, invc_no, at, self._report_no())
        if self._form.mark and invoice_id:
            body["remark"] = marked(invoice.remark, invoice_id)
        return self._encode(body)


def marked(remark: str | None, invoice_id: str) -> str:
    """Return the till's remark with this sale's mark behind it, within the field's 400 characters."""
    mark = f"[{invoice_id}]"
    return mark if not remark else f"{remark[: REMARK_MAX - len(mark) - 1]} {mark}"


def sale_body(
    form: SaleForm, invoice: Invoice, invc_no: int, at: datetime, report_no: int
) -> dict[str, Any]:
    """The request as a dict in the spec's order; amounts are Decimals with two places."""
    stamp = compact(at)
    refund = invoice.receipt_type is ReceiptType.REFUND
    exclusive = form.taxable_amount == "exclusive"
    body: dict[str, Any] = {
        "tin": form.pin,
        "bhfId": form.branch_id,
        "trdInvcNo": invoice.till_receipt_no,
        "invcNo": invc_no,
        "orgInvcNo": invoice.original_invc_no,
        "custTin": invoice.buyer.pin or form.walk_in_pin,
        # A walk-in's name beside a real PIN would be another taxpayer's.
        "custNm": invoice.buyer.name or (None if invoice.buyer.pin else form.walk_in_name),
        "salesTyCd": str(invoice.sales_type),
        "rcptTyCd": str(invoice.receipt_type),
        "pmtTyCd": payment_code(invoice),
        "salesSttsCd": form.credit_note_status if refund else APPROVED,
        "cfmDt": stamp,
        "salesDt": stamp[:8],
        "stockRlsDt": None if invoice.sales_type is SalesType.PROFORMA else stamp,
        "cnclReqDt": None,
        "cnclDt": None,
        "rfdDt": stamp if refund else None,
        "rfdRsnCd": invoice.refund_reason,
        "totItemCnt": len(invoice.lines),
    }
    letters = invoice.letters
    body.update({f"taxblAmt{r.letter}": r.net if exclusive else r.gross for r in letters})
    body.update({f"taxRt{r.letter}": r.percent.quantize(ZERO) for r in letters})
    body.update({f"taxAmt{r.letter}": r.tax for r in letters})
    person = {
        "regrId": invoice.cashier.id,
        "regrNm": invoice.cashier.name,
        "modrId": invoice.cashier.id,
        "modrNm": invoice.cashier.name,
    }
    body.update(
        {
            "totTaxblAmt": invoice.net if exclusive else invoice.total,
            "totTaxAmt": invoice.tax,
            "totAmt": invoice.total,
            "prchrAcptcYn": "N",
            "remark": invoice.remark,
            **person,
            "receipt": {
                "custTin": invoice.buyer.pin or form.walk_in_pin,
                "custMblNo": invoice.buyer.phone,
                "rptNo": report_no,
                "trdeNm": form.trade_name[:SHORT_TEXT],
                "adrs": form.address[:200],
                "topMsg": form.top_message[:SHORT_TEXT],
                "btmMsg": form.bottom_message[:SHORT_TEXT],
                "prchrAcptcYn": "N",
            },
            "itemList": [line_body(line, exclusive=exclusive) for line in invoice.lines],
        }
    )
    return body


def line_body(line: InvoiceLine, *, exclusive: bool) -> dict[str, Any]:
    """One item. A discount in shillings is folded into the unit price: the unit takes whole percents
    only (etims.md 5.6), and refuses an amount without a rate."""
    if line.discount and not line.discount_percent:
        price, supply, rate, discount = _folded(line)
    else:
        price, supply = line.unit_price, line.supply
        rate, discount = line.discount_percent, line.discount
    quantity, price = wire_quantity(line.quantity, price, supply)
    return {
        "itemSeq": line.seq,
        "itemCd": line.item_code,
        "itemClsCd": line.item_class,
        "itemNm": line.name,
        "bcd": line.barcode,
        "pkgUnitCd": line.package_unit,
        "pkg": round_amount(line.package_count) or CENT,
        "qtyUnitCd": line.quantity_unit,
        "qty": quantity,
        "prc": price,
        "splyAmt": supply,
        "dcRt": rate,
        "dcAmt": discount,
        "isrccCd": None,
        "isrccNm": None,
        "isrcRt": None,
        "isrcAmt": None,
        "taxTyCd": line.tax_letter,
        "taxblAmt": line.net if exclusive else line.total,
        "taxAmt": line.tax,
        "totAmt": line.total,
    }


def _folded(line: InvoiceLine) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    return round_amount(line.total / line.quantity), line.total, ZERO, ZERO


def wire_quantity(quantity: Decimal, price: Decimal, supply: Decimal) -> tuple[Decimal, Decimal]:
    """Return quantity and price with the two decimals that the wire has (13,2), such that their product is `supply`.

    A weight of three decimals is sent as the nearest one of two for which a price exists that makes the amount that the
    customer pays: the amounts are exact, quantity and price are as near as they can be. Where no such pair is
    near, the quantity is the rounded one and the price its quotient.
    """
    nearest = max(round_amount(quantity), CENT)
    if nearest == quantity:
        return quantity, price
    near = [nearest + CENT * step for step in range(-QUANTITY_STEPS, QUANTITY_STEPS + 1)]
    for tried in sorted((one for one in near if one > 0), key=lambda one: abs(one - quantity)):
        for asked in (price, round_amount(supply / tried)):
            if round_amount(tried * asked) == supply:
                return tried, asked
    return nearest, round_amount(supply / nearest)


def payment_code(invoice: Invoice) -> str:
    """One code for the whole sale (the wire has room for one): the largest tender, 03 for cash with
    credit (code class 07)."""
    codes = {payment.code for payment in invoice.payments}
    if codes == CASH_AND_CREDIT:
        return "03"
    return max(invoice.payments, key=lambda payment: payment.amount).code
