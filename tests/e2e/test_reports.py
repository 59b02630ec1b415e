"""X, Z and PLU over HTTP and on paper: what stands on them, and a close once a day and never forgotten."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.store import events, invoices
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.unit import ExternalUnit, UnitControl
from tests.sim.test_week import Week
from tests.support.clock import FastClock
from tests.support.daemon import Daemon
from tests.support.shop import TOKENS, OpenShop, a_sale, make_settings, open_shop

TOLD = "/reports/saveZReports"
SODA = a_sale()["lines"][0]


def with_printer(printer: FakePrinter) -> dict[str, Any]:
    return {
        "tills": [{"id": till, "printer": "counter"} for till in TOKENS],
        "printers": {"counter": {"port": printer.device_path, "baud": 115200}},
        "reports": {"printer": "counter"},
    }


async def morning(unit: UnitControl) -> FastClock:
    """Nine o'clock in Nairobi for gateway and unit, so that no midnight comes into a day of a test."""
    clock = FastClock(1)
    await unit.knobs(clockOffsetSeconds=round(clock.now().timestamp() - time.time()))
    return clock


async def told(unit: UnitControl) -> int:
    """How often the unit was told of a close."""
    return int((await unit.state())["calls"].get(TOLD, 0))


async def report_numbers(shop: OpenShop) -> list[int]:
    """`rptNo` of every sale, as the unit got it."""
    rows = await shop.gateway.db.read(
        lambda conn: conn.execute("SELECT unit_request FROM invoice ORDER BY seq").fetchall()
    )
    return [json.loads(row[0])["receipt"]["rptNo"] for row in rows]


async def until(condition: Callable[[], Awaitable[bool]], within: float = 30) -> None:
    async with asyncio.timeout(within):
        while not await condition():
            await asyncio.sleep(0.01)


async def all_kinds(shop: OpenShop) -> None:
    """A sale with a discount, paid in two tenders with change; the same taken back; a plain one with a
    copy; a refused one; training and proforma."""
    till = shop.till()
    lines = [{**SODA, "discountAmount": "32.00"}, a_sale()["lines"][1]]
    payments = [
        {"method": "MOBILE_MONEY", "amount": "100.00"},
        {"method": "CASH", "amount": "200.00"},
    ]
    sold = await till.sell("one", a_sale(lines=lines, total="265.00", payments=payments))
    assert sold.status == 201, sold.body
    path = f"/v1/invoices/{sold.json['invoiceId']}/credit-notes"
    note = {"tillReceiptNo": "R-1", "reason": "06"}
    assert (await till.request("POST", path, key="back", json=note)).status == 201
    plain = await till.sell("two", a_sale())
    copies = f"/v1/invoices/{plain.json['invoiceId']}/copies"
    assert (await till.request("POST", copies)).status == 202
    assert (await till.sell("three", a_sale(type="TRAINING"))).status == 201
    assert (await till.sell("four", a_sale(type="PROFORMA"))).status == 201


async def test_x_has_the_twenty_fields_and_changes_nothing(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as printer:
        settings = make_settings(shop_dir, unit.url, **with_printer(printer))
        async with open_shop(settings, await morning(unit)) as shop:
            till = shop.till()
            deposit = await till.request("POST", "/v1/reports/deposit", json={"amount": "5000.00"})
            assert deposit.status == 200
            await all_kinds(shop)
            await unit.knobs(rejectNext=1, rejectCode="910")
            assert (await till.sell("bad", a_sale())).status == 422
            first = (await till.request("GET", "/v1/reports/x")).json
            again = (await till.request("GET", "/v1/reports/x")).json
            moments = ("madeAt", "to")
            assert {k: v for k, v in first.items() if k not in moments} == {
                k: v for k, v in again.items() if k not in moments
            }
            zero = {"A": "0.00", "B": "0.00", "C": "0.00", "D": "0.00", "E": "0.00"}
            del first["madeAt"], first["from"], first["to"]
            assert first == {
                "tradeName": "TEST TRADERS LTD",
                "pin": "A000123456B",
                "branchId": "00",
                "type": "X",
                "number": 1,
                "sales": {"number": 2, "amount": "562.00"},
                "creditNotes": {"number": 1, "amount": "265.00"},
                # 200.00 and 232.00 of B, tax inside: 27.59 and 32.00.
                "taxable": {**zero, "A": "130.00", "B": "372.41"},
                "tax": {**zero, "B": "59.59"},
                "creditNoteTaxable": {**zero, "A": "65.00", "B": "172.41"},
                "creditNoteTax": {**zero, "B": "27.59"},
                "openingDeposit": "5000.00",
                "itemsSold": "6",
                "itemsReturned": "3",
                "copies": {"number": 1, "amount": "297.00"},
                "training": {"number": 1, "amount": "297.00"},
                "proforma": {"number": 1, "amount": "297.00"},
                # Cash without the 35.00 of change.
                "payments": {"01": "462.00", "06": "100.00"},
                "creditNotePayments": {"01": "165.00", "06": "100.00"},
                "discounts": "32.00",
                "otherReductions": "0.00",
                "incompleteSales": 1,
            }
            plu = (await till.request("GET", "/v1/reports/plu")).json
            assert plu["total"] == "297.00"
            assert plu["items"] == [
                {
                    "itemCode": "KE2NTXU0000001", "name": "Bottled soda 500ml",
                    "unitPrice": "116.00", "taxCode": "B", "quantity": "2", "amount": "232.00",
                    "remaining": None,
                },
                {
                    "itemCode": "KE2NTXU0000002", "name": "Ordinary bread 400g",
                    "unitPrice": "65.00", "taxCode": "A", "quantity": "1", "amount": "65.00",
                    "remaining": None,
                },
            ]  # fmt: skip
            for kind in ("X", "PLU"):
                asked = await till.request("POST", "/v1/reports/print", json={"report": kind})
                assert asked.status == 202
            # Originals of all five, one copy, two reports.
            slips = await printer.wait_for_slips(8, 60)
        x, plu_paper = (slip.text() for slip in slips[-2:])
        for words in ("X DAILY REPORT", "562.00", "-265.00", "NC TAX B", "462.00", "5000.00"):
            assert words in x.replace(",", "")
        assert "PLU REPORT" in plu_paper
        assert "KE2NTXU0000001" in plu_paper


async def test_z_once_a_day_and_what_is_sold_after_it_is_the_next_days(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as printer:
        settings = make_settings(shop_dir, unit.url, **with_printer(printer))
        async with open_shop(settings, await morning(unit)) as shop:
            till = shop.till()
            assert (await till.sell("one", a_sale())).status == 201
            both = await asyncio.gather(
                till.request("POST", "/v1/reports/z"),
                shop.till("till-2").request("POST", "/v1/reports/z"),
            )
            assert sorted(reply.status for reply in both) == [201, 409]
            refused = next(reply.json for reply in both if reply.status == 409)
            assert (refused["code"], refused["number"]) == ("DAY_CLOSED", 1)
            made = next(reply.json for reply in both if reply.status == 201)
            assert (made["type"], made["how"], made["state"]) == ("Z", "PERSON", "DONE")
            assert made["sales"] == {"number": 1, "amount": "297.00"}
            assert (await till.sell("two", a_sale())).status == 201
            assert (await till.request("GET", "/v1/reports/z/1")).json == made
            assert (await till.request("GET", "/v1/reports/z/last")).json == made
            assert (await till.request("GET", "/v1/reports/z")).json["closes"] == [made]
            x = (await till.request("GET", "/v1/reports/x")).json
            assert (x["number"], x["sales"]["number"]) == (2, 1)
            assert await report_numbers(shop) == [1, 2]
            closed = await shop.gateway.db.read(lambda c: events.of_kind(c, "day.closed"))
            assert len(closed) == 1
            assert closed[0].data["who"] in ("till-1", "till-2")
            again = await till.request("POST", "/v1/reports/print", json={"report": "Z"})
            assert again.status == 202
            slips = await printer.wait_for_slips(4, 30)
        closes = [slip.text() for slip in slips if "Z DAILY REPORT" in slip.text()]
        assert len(closes) == 2
        assert all("297.00" in text for text in closes)


async def test_a_close_waits_for_paper_and_is_not_lost(unit: UnitControl, shop_dir: Path) -> None:
    async with FakePrinter() as printer:
        printer.remove_paper()
        settings = make_settings(shop_dir, unit.url, **with_printer(printer))
        async with open_shop(settings) as shop:
            assert (await shop.till().request("POST", "/v1/reports/z")).status == 201

            async def waits() -> bool:
                jobs = (await shop.till().request("GET", "/v1/print-jobs")).json["jobs"]
                return [job["state"] for job in jobs] == ["BLOCKED"]

            await until(waits)
        async with open_shop(settings):
            printer.load_paper()
            (slip,) = await printer.wait_for_slips(1, 30)
        assert "Z DAILY REPORT" in slip.text()
        assert len(printer.paper.slips) == 1


BAD = [
    ("GET", "/v1/reports/z/2", None, 404, "NOT_FOUND"),
    ("GET", "/v1/reports/z/none", None, 404, "NOT_FOUND"),
    ("GET", "/v1/reports/plu?from=today", None, 400, "QUERY_INVALID"),
    ("GET", "/v1/reports/plu?to=9999-12-31", None, 400, "QUERY_INVALID"),
    ("POST", "/v1/reports/print", {"report": "Y"}, 400, "REQUEST_INVALID"),
    ("POST", "/v1/reports/print", ["X"], 400, "REQUEST_INVALID"),
    ("POST", "/v1/reports/print", {"report": "X", "printer": 5}, 422, "INVOICE_INVALID"),
    ("POST", "/v1/reports/deposit", {"amount": -1}, 422, "INVOICE_INVALID"),
]


async def test_bad_questions_are_refused(unit: UnitControl, shop_dir: Path) -> None:
    settings = make_settings(
        shop_dir,
        unit.url,
        tills=[{"id": till, "printer": "counter"} for till in TOKENS],
        printers={"counter": {"port": str(shop_dir / "not plugged in")}},
    )
    async with open_shop(settings) as shop:
        for method, path, body, status, code in BAD:
            more = {} if body is None else {"json": body}
            reply = await shop.till().request(method, path, **more)
            assert (path, reply.status, reply.json["code"]) == (path, status, code)


# --- by itself, on an injected clock --------------------------------------------------------------


class Night(Week):
    """A shop before midnight of 23 November in Nairobi, or at another moment."""

    def __init__(
        self, unit: UnitControl, directory: Path, start: str = "23:50:00", **sections: Any
    ) -> None:
        super().__init__(unit, directory)
        hour, minute, second = (int(part) for part in start.split(":"))
        self.clock.step_wall(hours=hour - 9, minutes=minute, seconds=second)
        self.clock.true = self.clock.now()
        self.directory = directory
        self.with_(**sections)

    def with_(self, **sections: Any) -> None:
        self.settings = make_settings(self.directory, self.unit.url, api={"wait_s": 60}, **sections)

    async def closes(self) -> list[dict[str, Any]]:
        return list((await self.shop.till().request("GET", "/v1/reports/z")).json["closes"])

    async def closed(self, count: int) -> list[dict[str, Any]]:
        """Goes on second by second until there are so many closes; the oldest first."""
        async with asyncio.timeout(60):
            while len(found := await self.closes()) < count:
                await self.advance(seconds=1)
        return found[::-1]

    async def restart(self, **off: float) -> None:
        await self.end()
        self.clock.reboot(**off)
        await self.start()


def facts(closes: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(z["day"], z["how"], z["sales"]["number"]) for z in closes]


async def test_a_day_is_closed_at_midnight_with_the_sale_in_hand(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The unit dates a sale before midnight and answers after it: it is the old day's."""
    assert isinstance(unit, ExternalUnit)
    night = Night(unit, shop_dir, "23:58:00")
    await night.start()
    try:
        # Told once more: the unit's own clock goes on, and has two minutes for the sale.
        await night.tell_the_unit()
        os.kill(unit.pid, signal.SIGSTOP)
        try:
            sale = asyncio.ensure_future(night.shop.till().sell("in-hand", a_sale()))

            async def on_the_wire() -> bool:
                return await night.shop.gateway.db.read(invoices.open_row) is not None

            await until(on_the_wire)
            await night.clock.advance(seconds=127)
            assert await night.closes() == []
        finally:
            os.kill(unit.pid, signal.SIGCONT)
        assert (await sale).status == 201
        await night.tell_the_unit()
        # And one of the new day, before the close of the old.
        assert (await night.shop.till().sell("after-midnight", a_sale())).status == 201
        (z,) = await night.closed(1)
        assert facts([z]) == [("2026-11-23", "MIDNIGHT", 1)]
        assert z["to"] == "2026-11-24T00:00:00+03:00"
        assert z["incompleteSales"] == 0
        x = (await night.shop.till().request("GET", "/v1/reports/x")).json
        assert (x["number"], x["sales"]["number"]) == (2, 1)
        assert await report_numbers(night.shop) == [1, 2]
    finally:
        await night.end()


async def test_a_machine_that_was_off_closes_the_day_late_and_invents_none(
    unit: UnitControl, shop_dir: Path
) -> None:
    night = Night(unit, shop_dir, "12:00:00")
    await night.start()
    try:
        assert (await night.sell()).status == 201
        await night.restart(days=3)
        assert facts(await night.closes()) == [("2026-11-23", "LATE", 1)]
        assert (await night.sell()).status == 201
        # Sold after a close by hand: the next day's, which is missed while the machine is off.
        assert (await night.shop.till().request("POST", "/v1/reports/z")).status == 201
        assert (await night.sell()).status == 201
        await night.restart(days=3)
        assert facts((await night.closes())[::-1]) == [
            ("2026-11-23", "LATE", 1),
            ("2026-11-26", "PERSON", 1),
            ("2026-11-27", "LATE", 1),
        ]
        assert await report_numbers(night.shop) == [1, 2, 3]
    finally:
        await night.end()


async def test_each_missed_close_has_its_own_receipts(unit: UnitControl, shop_dir: Path) -> None:
    night = Night(unit, shop_dir, "12:00:00", reports={"by_itself": False})
    await night.start()
    try:
        for sales in (1, 2, 3):
            for _ in range(sales):
                assert (await night.sell()).status == 201
            await night.restart(days=1)
        assert await night.closes() == []
        night.with_()
        await night.restart(hours=1)
        assert facts((await night.closes())[::-1]) == [
            ("2026-11-23", "LATE", 1),
            ("2026-11-24", "LATE", 2),
            ("2026-11-25", "LATE", 3),
        ]
    finally:
        await night.end()


async def test_a_person_closes_yesterday_before_today(unit: UnitControl, shop_dir: Path) -> None:
    night = Night(unit, shop_dir, "22:00:00", reports={"by_itself": False})
    await night.start()
    try:
        assert (await night.sell()).status == 201
        await night.restart(hours=3)
        assert (await night.sell()).status == 201
        post = [await night.shop.till().request("POST", "/v1/reports/z") for _ in range(3)]
        assert [(reply.status, reply.json.get("day")) for reply in post] == [
            (201, "2026-11-23"),
            (201, "2026-11-24"),
            (409, None),
        ]
        assert [reply.json["sales"]["number"] for reply in post[:2]] == [1, 1]
    finally:
        await night.end()


async def test_a_clock_set_back_over_midnight_closes_no_day_twice(
    unit: UnitControl, shop_dir: Path
) -> None:
    night = Night(unit, shop_dir)
    await night.start()
    try:
        assert (await night.sell()).status == 201
        await night.advance(minutes=10)
        await night.closed(1)
        night.clock.step_wall(minutes=-30)
        # No sale is signed by a clock that has shown a later moment already.
        assert await night.told() == "CLOCK_FAULT"
        again = await night.shop.till().request("POST", "/v1/reports/z")
        assert (again.status, again.json["number"]) == (409, 1)
        await night.advance(minutes=31)
        night.clock.step_wall(minutes=30)
        assert await night.told() == "signed"
        await night.restart(days=1, hours=2)
        assert facts(await night.closed(2)) == [
            ("2026-11-23", "MIDNIGHT", 1),
            ("2026-11-24", "LATE", 1),
        ]
    finally:
        await night.end()


async def test_suspended_x_and_z_still_work(unit: UnitControl, shop_dir: Path) -> None:
    night = Night(unit, shop_dir, "23:30:00", ceiling={"limit_hours": 1})
    await night.start()
    try:
        assert (await night.sell()).status == 201
        await night.upstream("offline")
        await night.advance(hours=1, minutes=10)
        assert await night.told() == "SUSPENDED"
        # The one of midnight has its own time; asked for before it, a person's would take its place.
        await night.closed(1)
        x = await night.shop.till().request("GET", "/v1/reports/x")
        z = await night.shop.till().request("POST", "/v1/reports/z")
        assert (x.status, z.status) == (200, 201)
        assert facts((await night.closes())[::-1]) == [
            ("2026-11-23", "MIDNIGHT", 1),
            ("2026-11-24", "PERSON", 0),
        ]
    finally:
        await night.end()


# --- what the unit is told -------------------------------------------------------------------------


async def done(shop: OpenShop) -> bool:
    return (await shop.till().request("GET", "/v1/reports/z/last")).json["state"] == "DONE"


async def test_the_unit_is_told_of_a_close_once(unit: UnitControl, shop_dir: Path) -> None:
    before = await told(unit)
    settings = make_settings(shop_dir, unit.url, reports={"to_unit": True})
    async with open_shop(settings) as shop:
        assert (await shop.till().request("POST", "/v1/reports/z")).status == 201
        await until(lambda: done(shop))
        assert (await shop.till().request("GET", "/v1/reports/z/1")).json["unitSays"] == "taken"
    async with open_shop(settings):
        assert await told(unit) == before + 1


async def test_a_unit_that_refuses_leaves_the_day_closed(unit: UnitControl, shop_dir: Path) -> None:
    """A build that does not know the path, and one that wants other fields."""
    for folder, path in (("a", "/reports/none"), ("b", "/items/saveItems")):
        settings = make_settings(
            shop_dir / folder,
            unit.url,
            reports={"to_unit": True},
            unit={"paths": {"saveZReports": path}},
        )
        async with open_shop(settings) as shop:
            assert (await shop.till().request("POST", "/v1/reports/z")).status == 201
            await until(lambda: done(shop))
            z = (await shop.till().request("GET", "/v1/reports/z/1")).json
            assert z["unitSays"] not in (None, "taken")
            assert (await shop.till().request("POST", "/v1/reports/z")).status == 409


@pytest.mark.timeout(180)
async def test_a_close_that_a_crash_interrupted_is_finished_once_on_paper(tmp_path: Path) -> None:
    """Killed between the close and the unit's answer: the next start tells the unit, prints nothing more."""
    async with FakePrinter() as printer:
        extra = f"""
[printers.counter]
port = "{printer.device_path}"
baud = 115200
[reports]
printer = "counter"
to_unit = true
"""
        daemon = Daemon(tmp_path, extra)
        async with daemon, aiohttp.ClientSession() as session:
            till = daemon.till(session)
            assert (await till.sell("one", a_sale())).status == 201
            # KRA goes: the unit will not take the close now.
            await daemon.unit.knobs(upstream="offline")
            assert (await till.request("POST", "/v1/reports/z")).status == 201
            await printer.wait_for_slips(1, 30)

            async def refused_and_printed() -> bool:
                z = (await till.request("GET", "/v1/reports/z/1")).json
                # On paper is not yet in the store: killed between the two it would be UNCONFIRMED.
                jobs = (await till.request("GET", "/v1/print-jobs?state=PRINTED")).json["jobs"]
                told_of = z["state"] == "CLOSING" and z["unitSays"] is not None
                return told_of and [job["kind"] for job in jobs] == ["REPORT"]

            await until(refused_and_printed)
            await daemon.kill()
            await daemon.start()

            async def finished() -> bool:
                return (await till.request("GET", "/v1/reports/z/1")).json["state"] == "DONE"

            await until(finished)
            assert (await till.request("GET", "/v1/reports/z/1")).json["unitSays"] == "taken"
            assert await told(daemon.unit) == 1
            jobs = (await till.request("GET", "/v1/print-jobs?state=PRINTED")).json["jobs"]
            assert [job["kind"] for job in jobs] == ["REPORT"]
            assert await daemon.stop() == 0
        closes = [slip for slip in printer.paper.slips if "Z DAILY REPORT" in slip.text()]
        assert len(closes) == 1
