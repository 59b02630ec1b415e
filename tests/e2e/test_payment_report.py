"""The day of M-Pesa over HTTP, on paper by itself behind the Z, and on the reports' page."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.unit import UnitControl
from tests.e2e.test_payment_pages import Story, everything
from tests.support.shop import TOKENS, a_sale, in_the_morning, make_settings, open_shop

ON: dict[str, Any] = {
    # Nothing listens there; nobody is asked for money here.
    "mpesa": {
        "environment": "sandbox",
        "base_url": "http://127.0.0.1:9",
        "shortcode": "174379",
        "callback_url": "https://relay.test/shop-1",
    },
    "mpesa_consumer_key": "key-of-the-app",
    "mpesa_consumer_secret": "secret-of-the-app",
    "mpesa_passkey": "passkey-of-the-shop",
}
PATH = "/v1/payments/report"


def with_printer(shop_dir: Path, unit: UnitControl, printer: FakePrinter, **more: Any) -> Any:
    return make_settings(
        shop_dir,
        unit.url,
        tills=[{"id": till, "printer": "counter"} for till in TOKENS],
        printers={"counter": {"port": printer.device_path, "baud": 115200}},
        reports={"printer": "counter"},
        **more,
    )


async def test_the_day_as_json_and_as_csv(unit: UnitControl, shop_dir: Path) -> None:
    clock = await in_the_morning(unit)
    async with open_shop(make_settings(shop_dir, unit.url), clock) as shop:
        await everything(Story(shop))
        till = shop.till()
        reply = await till.request("GET", PATH)
        assert reply.status == 200
        assert reply.json["tradeName"] == "TEST TRADERS LTD"
        figures = reply.json["shop"]
        assert figures["asked"] == {"number": 6, "amount": "2700.00"}
        assert figures["paid"] == {"number": 4, "amount": "2500.00"}
        assert figures["moneyWithoutReceipt"]["number"] == 4
        assert figures["refundDue"]["number"] == 1
        assert figures["notPaidBy"] == {"CANCELLED": {"number": 1, "amount": "450.00"}}
        assert [row["till"] for row in reply.json["tills"]] == [None, "till-1"]
        sheet = await till.request("GET", f"{PATH}?format=csv&day={reply.json['day']}")
        assert sheet.status == 200
        assert sheet.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert reply.json["day"] in sheet.headers["Content-Disposition"]
        lines = list(csv.DictReader(io.StringIO(sheet.body.decode(), newline="")))
        assert len(lines) == 7
        assert {line["mpesaReceipt"] for line in lines if line["paid"]} == {
            "UKP1AB2CD3", "UKP1AB2CD4", "UKP1AB2CD5", "UKP1AB2CD6",
        }  # fmt: skip
        assert b"25470837" not in sheet.body + reply.body
        other = await till.request("GET", f"{PATH}?day=2026-01-01")
        assert other.json["shop"]["asked"]["number"] == 0


@pytest.mark.parametrize(
    "query", ["day=yesterday", "day=2026-13-01", "day=0001-01-01", "day=9999-12-31", "format=xml"]
)
async def test_a_wrong_question_is_told(unit: UnitControl, shop_dir: Path, query: str) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        reply = await shop.till().request("GET", f"{PATH}?{query}")
        assert reply.status == 400
        assert reply.json["code"] == "QUERY_INVALID"
        nobody = await shop.till().request(
            "GET", PATH, headers={"Authorization": "Bearer somebody"}
        )
        assert nobody.status == 401


async def test_it_comes_out_behind_the_z_and_when_asked_for(
    unit: UnitControl, shop_dir: Path
) -> None:
    clock = await in_the_morning(unit)
    async with FakePrinter() as printer:
        async with open_shop(with_printer(shop_dir, unit, printer, **ON), clock) as shop:
            await everything(Story(shop))
            till = shop.till()
            assert (await till.sell("one", a_sale())).status == 201
            assert (await till.request("POST", "/v1/reports/z")).status == 201
            await printer.wait_for_slips(3, 60)
            asked = await till.request(
                "POST", "/v1/reports/print", json={"report": "MPESA", "day": "2026-01-01"}
            )
            assert asked.status == 202
            await printer.wait_for_slips(4, 60)
            wrong = await till.request(
                "POST", "/v1/reports/print", json={"report": "MPESA", "day": 7}
            )
            assert (wrong.status, wrong.json["code"]) == (400, "QUERY_INVALID")
            page = await till.request(
                "POST", "/reports", data={"do": "mpesa", "code": TOKENS["till-1"]}
            )
            assert page.status == 200
            assert b"Money, no receipt: 4" in page.body
        _, z, mpesa, empty = [slip.text() for slip in printer.paper.slips]
    assert "Z DAILY" in z
    assert "M-PESA DAILY" in mpesa
    assert "UKP1AB2CD5" in mpesa
    assert "REFUND DUE" in mpesa
    assert "UKP1AB2CD5" not in empty


async def test_a_shop_without_mpesa_gets_its_z_only(unit: UnitControl, shop_dir: Path) -> None:
    async with FakePrinter() as printer:
        async with open_shop(with_printer(shop_dir, unit, printer)) as shop:
            till = shop.till()
            assert (await till.sell("one", a_sale())).status == 201
            await till.request("POST", "/v1/reports/z")
            await till.request("POST", "/v1/reports/print", json={"report": "X"})
            await printer.wait_for_slips(3, 60)
            page = await till.request("GET", "/reports")
            assert b"M-Pesa: what came" not in page.body
        names = [slip.text() for slip in printer.paper.slips]
    assert ["Z DAILY" in names[1], "X DAILY" in names[2]] == [True, True]


async def test_nothing_of_mpesa_keeps_the_z_from_being_made(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as printer:
        async with open_shop(with_printer(shop_dir, unit, printer, **ON)) as shop:
            await everything(Story(shop))
            # A row that this version cannot read.
            await shop.gateway.db.write(
                lambda conn: (
                    conn.execute(
                        "UPDATE payment SET reason = 'OF_THE_FUTURE' WHERE money = 'NOT_PAID'"
                    ).rowcount
                )
            )
            till = shop.till()
            assert (await till.sell("one", a_sale())).status == 201
            assert (await till.request("POST", "/v1/reports/z")).status == 201
            await printer.wait_for_slips(2, 60)
            await till.request("POST", "/v1/reports/print", json={"report": "X"})
            await printer.wait_for_slips(3, 60)
        names = [slip.text() for slip in printer.paper.slips]
    assert "Z DAILY" in names[1]
    assert "X DAILY" in names[2]
