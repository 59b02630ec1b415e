"""Items, stock moves and stock levels as the exact bytes of their requests (etims.md 2.1, rows 11, 19, 20)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from gateway.domain.invoice import Cashier, InvoiceLine
from gateway.money import CENT, ZERO, round_amount
from gateway.vscu.sale import wire_quantity
from gateway.vscu.wire import encode

AUTOMATIC, MANUAL = "A", "M"


@dataclass(frozen=True, slots=True)
class Item:
    """An article of the shop as KRA wants it. `price` with tax; codes of classes 05, 24, 17, 10, 04."""

    code: str
    item_class: str
    item_type: str
    name: str
    origin: str
    package_unit: str
    quantity_unit: str
    tax_letter: str
    price: Decimal
    barcode: str | None
    active: bool


@dataclass(frozen=True, slots=True)
class Registrar:
    """Whose register: the branch, and the person KRA sees as having written it."""

    pin: str
    branch_id: str
    cashier: Cashier

    def head(self) -> dict[str, object]:
        return {"tin": self.pin, "bhfId": self.branch_id}

    def person(self) -> dict[str, object]:
        who = self.cashier
        return {"regrId": who.id, "regrNm": who.name, "modrId": who.id, "modrNm": who.name}


def item_body(by: Registrar, item: Item) -> bytes:
    """`/items/saveItems`; the same item code again replaces what is there."""
    return encode(
        {
            **by.head(),
            "itemCd": item.code,
            "itemClsCd": item.item_class,
            "itemTyCd": item.item_type,
            "itemNm": item.name,
            "itemStdNm": None,
            "orgnNatCd": item.origin,
            "pkgUnitCd": item.package_unit,
            "qtyUnitCd": item.quantity_unit,
            "taxTyCd": item.tax_letter,
            "btchNo": None,
            "bcd": item.barcode,
            "dftPrc": item.price,
            "addInfo": None,
            "sftyQty": ZERO,
            "isrcAplcbYn": "N",
            "useYn": "Y" if item.active else "N",
            **by.person(),
        }
    )


def stock_move_body(
    by: Registrar,
    *,
    number: int,
    move_type: str,
    day: date,
    lines: Sequence[InvoiceLine],
    remark: str | None,
) -> bytes:
    """`/stock/saveStockItems` under `number` (`sarNo`); `move_type` of code class 12."""
    return encode(
        {
            **by.head(),
            "sarNo": number,
            "orgSarNo": 0,
            "regTyCd": MANUAL,
            "custTin": None,
            "custNm": None,
            "custBhfId": None,
            "sarTyCd": move_type,
            "ocrnDt": f"{day:%Y%m%d}",
            "totItemCnt": len(lines),
            "totTaxblAmt": sum((line.net for line in lines), ZERO),
            "totTaxAmt": sum((line.tax for line in lines), ZERO),
            "totAmt": sum((line.total for line in lines), ZERO),
            "remark": remark,
            **by.person(),
            "itemList": [_stock_line(line) for line in lines],
        }
    )


def _stock_line(line: InvoiceLine) -> dict[str, object]:
    quantity, price = wire_quantity(line.quantity, line.unit_price, line.supply)
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
        "itemExprDt": None,
        "prc": price,
        "splyAmt": line.supply,
        "totDcAmt": line.discount,
        "taxblAmt": line.net,
        "taxTyCd": line.tax_letter,
        "taxAmt": line.tax,
        "totAmt": line.total,
    }


def stock_level_body(by: Registrar, *, item_code: str, remaining: Decimal) -> bytes:
    """`/stockMaster/saveStockMaster`: what is left on the shelf, as an absolute figure."""
    return encode(
        {**by.head(), "itemCd": item_code, "rsdQty": round_amount(remaining), **by.person()}
    )
