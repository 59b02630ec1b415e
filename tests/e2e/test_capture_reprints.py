"""One captured sale, one receipt: reprints, numbers that start again, slips a person sold, a crash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.clock import micros
from gateway.counter import slip_identity
from gateway.store import captures
from gateway.store.captures import NewSlip
from hw_fakes.legacy_till import slips
from hw_fakes.legacy_till.slips import TillItem, TillSale
from hw_fakes.vscu.unit import UnitControl
from tests.support.capture import UNDATED, a_template, old_till, until_slips
from tests.support.shop import OpenShop, a_sale, in_the_morning, open_shop

SALE = TillSale()


async def test_the_same_slip_again_is_a_copy_and_no_second_sale(
    unit: UnitControl, shop_dir: Path
) -> None:
    """Also with a line more that says so, at once, and while the first is still being signed."""
    async with old_till(unit, shop_dir) as (shop, till, printer):
        await unit.knobs(latencyMs=500)
        twice = slips.plain(SALE)
        await till.print_slip(twice + twice)
        await until_slips(shop, "SIGNED", "SIGNED")
        await unit.knobs(latencyMs=0)
        await till.print_slip(slips.plain(SALE))
        await till.print_slip(slips.plain(SALE, banner="*** DUPLICATE ***"))
        rows = await until_slips(shop, *["SIGNED"] * 4)
        assert len({row.invoice_id for row in rows}) == 1
        texts = [slip.text() for slip in await printer.wait_for_slips(4, 30)]
        assert [("COPY" in text) for text in texts] == [False, True, True, True]
        assert len(await unit.journal()) == 1


async def test_what_a_person_sold_is_not_sold_again_by_a_reprint_nor_by_another_slip(
    unit: UnitControl, shop_dir: Path
) -> None:
    odd = slips.plain(replace(SALE, extra=("PROMO WEEK",)))
    async with old_till(unit, shop_dir) as (shop, till, _):
        await till.print_slip(odd)
        (first,) = await until_slips(shop, "UNREAD")
        body = a_sale(
            tillReceiptNo="0001", total="185.00",
            lines=[{**a_sale()["lines"][0], "quantity": "1", "unitPrice": "185.00"}],
        )  # fmt: skip
        sold = await shop.till().request("POST", f"/v1/captures/{first.id}/resolve", json=body)
        assert sold.status == 201
        # The till prints it well this time, then badly once more.
        await till.print_slip(slips.plain(SALE))
        await till.print_slip(odd)
        _, second, third = await until_slips(shop, "SIGNED", "UNREAD", "UNREAD")
        assert "a person sold slip 1" in (second.reason or "")
        for slip in (second, third):
            path = f"/v1/captures/{slip.id}/resolve"
            warned = await shop.till().request("POST", path, json=body)
            assert (warned.status, warned.json["code"]) == (409, "LIKELY_REPEAT")
            assert warned.json["invoiceId"] == sold.json["invoiceId"]
        assert len(await unit.journal()) == 1
        confirmed = {"Confirm-New-Sale": sold.json["invoiceId"]}
        meant = await shop.till().request("POST", path, json=body, headers=confirmed)
        assert meant.status == 201
        assert len(await unit.journal()) == 2


async def sold_yesterday(shop: OpenShop, sale: TillSale, **more: Any) -> str:
    """As a slip that was captured and signed a day ago left it; the invoice's id."""
    lines = slips.lines_of(sale, **more)
    dated = more.get("dated", True)
    reading = a_template(**({} if dated else UNDATED)).read(lines)
    at = micros(shop.gateway.clock.now()) - 86_400_000_000
    key = slip_identity.key_of(sale.number, reading.dated, at)
    reply = await shop.till().sell(key, dict(reading.invoice or {}))
    assert reply.status == 201
    slip = NewSlip(
        device="old", till_id="till-1", raw=b"", text="\n".join(lines), state="SIGNED", reason=None,
        at=at, receipt_no=sale.number, dated=reading.dated, total_cents=sale.total,
        content=slip_identity.content_of(reading), idem_key=key,
        invoice_id=reply.json["invoiceId"],
    )  # fmt: skip
    await shop.gateway.db.write(lambda conn: captures.add(conn, slip))
    return str(reply.json["invoiceId"])


async def test_a_number_that_starts_again_each_day(unit: UnitControl, shop_dir: Path) -> None:
    """The same text but for the date is another day's sale; the old date's reprint is a copy."""
    async with old_till(unit, shop_dir, await in_the_morning(unit)) as (shop, till, _):
        first = await sold_yesterday(shop, SALE)
        today = replace(SALE, date="26/11/2026 08:01")
        await till.print_slip(slips.plain(today))
        await till.print_slip(slips.plain(SALE))
        rows = await until_slips(shop, *["SIGNED"] * 3)
        assert rows[2].invoice_id == first != rows[1].invoice_id
        # On one day, the same number and items with another time: a reprint that prints its own time?
        await till.print_slip(slips.plain(replace(today, date="26/11/2026 08:30")))
        last = (await until_slips(shop, *["SIGNED"] * 3, "UNREAD"))[-1]
        assert "but for its date or time" in (last.reason or "")
        # The same number and time with other items cannot be.
        await till.print_slip(slips.plain(replace(today, items=(TillItem("TEA", 1000),))))
        last = (await until_slips(shop, *["SIGNED"] * 3, "UNREAD", "UNREAD"))[-1]
        assert "the same number with other items" in (last.reason or "")
        assert len(await unit.journal()) == 2


async def test_without_a_date_a_reprint_after_midnight_is_asked_about(
    unit: UnitControl, shop_dir: Path
) -> None:
    undated: dict[str, Any] = {"capture": UNDATED}
    async with old_till(unit, shop_dir, await in_the_morning(unit), **undated) as (shop, till, _):
        first = await sold_yesterday(shop, SALE, dated=False)
        await till.print_slip(slips.plain(SALE, dated=False))
        rows = await until_slips(shop, "SIGNED", "UNREAD")
        assert "a reprint, or another sale" in (rows[1].reason or "")
        # A reprint that says so is one, on whatever day.
        await till.print_slip(slips.plain(SALE, dated=False, banner="** REPRINT **"))
        rows = await until_slips(shop, "SIGNED", "UNREAD", "SIGNED")
        assert rows[2].invoice_id == first
        assert len(await unit.journal()) == 1


async def test_without_a_date_another_days_other_items_are_another_sale(
    unit: UnitControl, shop_dir: Path
) -> None:
    undated: dict[str, Any] = {"capture": UNDATED}
    other = replace(SALE, items=(TillItem("MILK 500ML", 6000),))
    async with old_till(unit, shop_dir, await in_the_morning(unit), **undated) as (shop, till, _):
        await sold_yesterday(shop, SALE, dated=False)
        await till.print_slip(slips.plain(other, dated=False))
        await until_slips(shop, "SIGNED", "SIGNED")
        # Within a day a number is one sale, whatever stands on the slip.
        third = replace(SALE, items=(TillItem("TEA 250G", 9900),))
        await till.print_slip(slips.plain(third, dated=False))
        rows = await until_slips(shop, "SIGNED", "SIGNED", "UNREAD")
        assert "the same number with other items" in (rows[2].reason or "")
        await till.print_slip(
            slips.plain(replace(SALE, number="77"), banner="* REPRINT", dated=False)
        )
        rows = await until_slips(shop, "SIGNED", "SIGNED", "UNREAD", "UNREAD")
        assert "a copy, of a sale that is not known" in (rows[3].reason or "")
        assert len(await unit.journal()) == 2


async def test_slips_that_a_crash_left_are_signed_once_if_they_are_fresh(
    unit: UnitControl, shop_dir: Path
) -> None:
    """In the store, and not yet asked about: as a gateway that is killed right after that leaves it."""
    async with old_till(unit, shop_dir) as (shop, till, _):
        settings, now = shop.gateway.settings, micros(shop.gateway.clock.now())
        await till.print_slip(slips.plain(replace(SALE, number="0009")))
        await until_slips(shop, "SIGNED")

        def leave(conn: Any) -> None:
            for number, age_s in (("0001", 5), ("0002", 3600)):
                lines = slips.lines_of(replace(SALE, number=number))
                reading = a_template().read(lines)
                at = now - age_s * 1_000_000
                captures.add(
                    conn,
                    NewSlip(
                        device="old", till_id="till-1", raw=b"", text="\n".join(lines),
                        state="WAITING", reason=None, at=at, receipt_no=number,
                        dated=reading.dated, total_cents=18500,
                        content=slip_identity.content_of(reading),
                        idem_key=slip_identity.key_of(number, reading.dated, at),
                    ),
                )  # fmt: skip

        await shop.gateway.db.write(leave)
    async with open_shop(settings) as shop:
        rows = await until_slips(shop, "SIGNED", "SIGNED", "UNREAD")
        assert "not signed within 60 seconds" in (rows[2].reason or "")
        assert len(await unit.journal()) == 2
