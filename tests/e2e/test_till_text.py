"""What is normalised is signed in its normal form, and the till's own bytes stay its own."""

from __future__ import annotations

import json
from pathlib import Path

from hw_fakes.vscu.unit import UnitControl
from tests.support.shop import a_sale, make_settings, open_shop


async def test_harmless_text_is_signed_and_repeats_are_known_by_the_tills_bytes(
    unit: UnitControl, shop_dir: Path
) -> None:
    sale = a_sale(
        buyer={"pin": " p051234567x ", "name": ""}, cashier={"id": "7 ", "name": "Wanjiru\t"}
    )
    sale["lines"][0]["name"] = " Milk\n500ml "
    sale["lines"][0]["quantity"] = "2.000"
    raw = b"\xef\xbb\xbf" + json.dumps(sale).encode()
    headers = {"Content-Type": "application/json"}
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till = shop.till()
        first = await till.request("POST", "/v1/invoices", key="k", data=raw, headers=headers)
        assert first.status == 201, first.json
        again = await till.request("POST", "/v1/invoices", key="k", data=raw, headers=headers)
        assert again.body == first.body
        # Without the mark it is the same JSON; with other blanks it is another body.
        assert (await till.sell("k", sale)).body == first.body
        other = json.loads(json.dumps(sale))
        other["lines"][0]["name"] = "Milk 500ml"
        assert (await till.sell("k", other)).json["code"] == "IDEMPOTENCY_KEY_REUSED"
        row = await shop.gateway.db.read(
            lambda conn: conn.execute("SELECT document, request FROM invoice").fetchone()
        )
    document = json.loads(row[0])
    assert document["lines"][0]["name"] == "Milk 500ml"
    assert document["buyer"][:2] == ["P051234567X", None]
    assert document["cashier"] == ["7", "Wanjiru"]
    assert row[1] == raw


async def test_a_scales_three_decimals_are_signed_and_credited(
    unit: UnitControl, shop_dir: Path
) -> None:
    sale = a_sale(total="128.59")
    sale["lines"] = [
        {**sale["lines"][0], "quantity": "0.625", "unitPrice": "8.30"},
        {**sale["lines"][0], "quantity": "1.234", "unitPrice": "100.00", "total": "123.40"},
    ]
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        signed = await shop.till().sell("k", sale)
        assert (signed.status, signed.json["total"]) == (201, "128.59")
        path = f"/v1/invoices/{signed.json['invoiceId']}/credit-notes"
        note = await shop.till().request(
            "POST", path, key="c", json={"tillReceiptNo": "C", "reason": "06"}
        )
        assert note.status == 201
        wrong = await shop.till().sell("w", {**sale, "tillReceiptNo": "w", "total": "128.60"})
        assert wrong.json["errors"][0]["code"] == "TOTAL_DRIFTS"
