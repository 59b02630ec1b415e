"""A till that only prints: what is certain is signed once, everything else is a person's to decide."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.store import events
from hw_fakes.legacy_till import slips
from hw_fakes.legacy_till.peer import FakeLegacyTill, NoPrinter
from hw_fakes.legacy_till.slips import TillItem, TillSale
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.unit import ExternalUnit, UnitControl
from tests.support.capture import (
    PATIENT_S,
    PATTERNS,
    old_till,
    settings_for,
    slips_of,
    toml,
    until_ready,
    until_slips,
)
from tests.support.clock import FakeClock
from tests.support.counter import until_event
from tests.support.daemon import Daemon
from tests.support.paid_shop import tell_the_unit
from tests.support.shop import OpenShop, a_sale, open_shop

SALE = TillSale()


async def paper(printer: FakePrinter, count: int) -> list[str]:
    return [slip.text() for slip in await printer.wait_for_slips(count, 60)]


@pytest.mark.parametrize("style", slips.STYLES)
async def test_a_certain_slip_is_signed_and_printed_with_the_fiscal_block(
    unit: UnitControl, shop_dir: Path, style: str
) -> None:
    sale = replace(SALE, paid=20000)
    # Without a cut a silence ends it, so it comes in one piece.
    rules: dict[str, Any] = {"capture": {"silence_s": 0.3 if style == "no-cut" else 0}}
    piece = 10_000 if style == "no-cut" else 64
    async with old_till(unit, shop_dir, **rules) as (shop, till, printer):
        await till.print_slip(slips.printed(style, sale), piece=piece)
        (slip,) = await until_slips(shop, "SIGNED")
        (text,) = await paper(printer, 1)
        for part in ("SODA 500ML", "BREAD 400G", "185.00", "SCU INFORMATION", "CU INVOICE NO."):
            assert part in text
        assert "NOT FISCALISED" not in text
        (signed,) = await unit.journal()
        assert signed["rcptNo"] == 1 or int(signed["rcptNo"]) == 1
        (row,) = (await shop.till().request("GET", "/v1/captures?state=SIGNED")).json["captures"]
        assert (row["id"], row["tillReceiptNo"], row["invoiceId"]) == (
            slip.id, "0001", slip.invoice_id,
        )  # fmt: skip
        answer = await shop.till().request("GET", f"/v1/invoices/{slip.invoice_id}")
        assert answer.json["total"] == "185.00"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (slips.plain(replace(SALE, extra=("YOU WERE SERVED BY JANE",))), "no pattern fits"),
        (slips.plain(SALE).replace(b"185.00\r\nCASH", b"186.00\r\nCASH"), "the items make 185.00"),
        (slips.plain(SALE).replace(b"RECEIPT NO 0001\r\n", b""), "there is no receipt number"),
        (slips.plain(SALE).replace(b"25/11/2026 10:15\r\n", b""), "there is no date"),
        (slips.plain(SALE).replace(b"CASH", b"TOTAL          184.00\r\nCASH"), "several totals"),
        (slips.plain(SALE).replace(b"65.00 Z", b"65,00 Z"), "no pattern fits"),
        (slips.plain(replace(SALE, items=(TillItem("TEA", 100, mark="Q"),))), "no pattern fits"),
        (slips.plain(replace(SALE, tender="CARD", paid=10000)), "are paid of"),
        (slips.plain(SALE).replace(b"  2 x", b"  3 x"), "price and quantity"),
        (slips.plain(SALE).replace(b"BREAD", b"BR\x00EAD"), "byte 00 is no text"),
        (slips.plain(SALE).replace(b"BREAD", b"BR\x1b\x7fEAD"), "ESC 7F is not known"),
        (slips.fancy(SALE).replace(b"BREAD", b"BR\x81AD"), "garbled"),
        (slips.plain(SALE)[:-4] + slips.plain(replace(SALE, number="0002")), "several receipt"),
        (slips.plain(replace(SALE, extra=("NO SALE",))), "a sale and as none"),
        (slips.garbled(slips.plain(SALE), share=0.08), ""),
        (slips.picture(2000), "it has no text that can be read"),
        (slips.plain(SALE).replace(b"BREAD 400G ", b"BALANCE B/F"), "'BALANCE' is no article"),
    ],
)
async def test_an_uncertain_slip_is_never_signed(
    unit: UnitControl, shop_dir: Path, data: bytes, reason: str
) -> None:
    async with old_till(unit, shop_dir) as (shop, till, printer):
        await till.print_slip(data)
        rows = await until_slips(shop, "UNREAD")
        assert reason in (rows[0].reason or "")
        (text,) = await paper(printer, 1)
        assert text.replace("\n", " ").split()[:2] == ["NOT", "FISCALISED"]
        (row,) = (await shop.till().request("GET", "/v1/captures")).json["captures"]
        assert (row["id"], row["state"], row["reason"]) == (rows[0].id, "UNREAD", rows[0].reason)
        told = await shop.gateway.db.read(lambda conn: events.of_kind(conn, "capture.unread"))
        assert [event.data["capture"] for event in told] == [rows[0].id]
        assert await unit.journal() == []


async def test_two_slips_in_one_go_are_two_sales(unit: UnitControl, shop_dir: Path) -> None:
    async with old_till(unit, shop_dir) as (shop, till, printer):
        both = slips.plain(SALE) + slips.fancy(replace(SALE, number="0002"))
        await till.print_slip(both, piece=10_000)
        rows = await until_slips(shop, "SIGNED", "SIGNED")
        assert [row.receipt_no for row in rows] == ["0001", "0002"]
        assert len(await paper(printer, 2)) == 2
        assert len(await unit.journal()) == 2


async def test_what_is_no_sale_is_printed_as_it_is_and_opens_the_drawer(
    unit: UnitControl, shop_dir: Path
) -> None:
    more: dict[str, Any] = {"printer_part": {"drawer_pin": 2}}
    async with old_till(unit, shop_dir, **more) as (shop, till, printer):
        await till.print_slip(slips.x_report())
        await until_slips(shop, "NOT_A_SALE")
        assert printer.drawer_kicks == 0
        await till.print_slip(slips.no_sale())
        await until_slips(shop, "NOT_A_SALE", "NOT_A_SALE")
        texts = await paper(printer, 2)
        assert texts[0].splitlines()[:2] == ["MAMA MBOGA STORES", "X REPORT"]
        assert "NO SALE" in texts[1]
        assert "NOT FISCALISED" not in "".join(texts)
        async with asyncio.timeout(20):
            while printer.drawer_kicks != 1:
                await asyncio.sleep(0.01)
        assert await unit.journal() == []


async def test_a_sale_that_looks_like_no_sale_is_asked_about(
    unit: UnitControl, shop_dir: Path
) -> None:
    loose: dict[str, Any] = {"capture": {"not_a_sale": ("NO SALE",)}}
    sale = replace(SALE, items=(TillItem("NO SALE BADGE", 5000),))
    async with old_till(unit, shop_dir, **loose) as (shop, till, _):
        await till.print_slip(slips.plain(sale))
        rows = await until_slips(shop, "UNREAD")
        assert rows[0].reason == "it reads as a sale and as none"


def resolved(number: str = "0001", total: str = "297.00") -> dict[str, Any]:
    return a_sale(tillReceiptNo=number, total=total)


async def test_a_person_resolves_a_slip_once_or_dismisses_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with old_till(unit, shop_dir) as (shop, till, printer):
        for number in ("0001", "0002"):
            odd = replace(SALE, number=number, extra=("PROMO WEEK",))
            await till.print_slip(slips.plain(odd))
        first, second = await until_slips(shop, "UNREAD", "UNREAD")
        person = shop.till("till-2")
        path = f"/v1/captures/{first.id}/resolve"
        bad = await person.request("POST", path, json=a_sale(total="1.00"))
        assert (bad.status, bad.json["code"]) == (422, "INVOICE_INVALID")
        both = await asyncio.gather(
            *(person.request("POST", path, json=resolved(n)) for n in ("0001", "0009"))
        )
        assert sorted(reply.status for reply in both) == [201, 409]
        again = await person.request("POST", path, json=resolved())
        assert (again.status, again.json["code"]) == (409, "CAPTURE_SETTLED")
        assert len(await unit.journal()) == 1
        path = f"/v1/captures/{second.id}/dismiss"
        vague = await person.request("POST", path, json={"reason": ""})
        assert vague.json["errors"][0]["pointer"] == "/reason"
        gone = await person.request("POST", path, json={"reason": "a test slip"})
        assert (gone.status, gone.json["state"]) == (200, "DISMISSED")
        for what, body in (("dismiss", {"reason": "again"}), ("resolve", resolved("0002"))):
            late = await person.request("POST", f"/v1/captures/{second.id}/{what}", json=body)
            assert (late.status, late.json["code"]) == (409, "CAPTURE_SETTLED")
        assert (await person.request("GET", "/v1/captures")).json["captures"] == []
        assert (await person.request("POST", "/v1/captures/99/dismiss", json={})).status == 404
        told = await shop.gateway.db.read(lambda conn: events.of_kind(conn, "capture.settled"))
        assert [event.data["state"] for event in told] == ["SIGNED", "DISMISSED"]
        texts = await paper(printer, 3)
        assert sum("CU INVOICE NO." in text for text in texts) == 1


async def test_what_the_unit_refuses_goes_to_the_list_and_is_sold_corrected(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with old_till(unit, shop_dir) as (shop, till, _):
        await unit.knobs(rejectNext=2)
        await till.print_slip(slips.plain(SALE))
        (row,) = await until_slips(shop, "UNREAD")
        assert (row.reason or "").startswith("UNIT_REFUSED")
        path = f"/v1/captures/{row.id}/resolve"
        refused = await shop.till().request("POST", path, json=resolved())
        assert (refused.status, refused.json["code"]) == (422, "UNIT_REFUSED")
        # Not signed is not settled: it still stands in the list, and what is corrected has a new key.
        corrected = a_sale(tillReceiptNo="0001", remark="corrected")
        assert (await shop.till().request("POST", path, json=corrected)).status == 201
        await until_slips(shop, "SIGNED")
        await till.print_slip(slips.plain(SALE))
        rows = await until_slips(shop, "SIGNED", "SIGNED")
        assert rows[0].invoice_id == rows[1].invoice_id
        assert len(await unit.journal()) == 1


async def test_a_lost_answer_of_the_unit_is_waited_for_and_signed_once(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In doubt meanwhile, and longer than an unsigned sale would be waited for."""
    async with old_till(unit, shop_dir) as (shop, till, printer):
        await unit.knobs(loseAnswers=1)
        await till.print_slip(slips.plain(SALE))
        invoice_id = str((await until_event(shop, "doubt.examined")).subject)
        (entry,) = await unit.journal()
        monkeypatch.setattr("gateway.counter.capture.PATIENCE_S", 0.5)
        # Nobody is kept waiting behind it: the next slip is not signed in time, and comes out so.
        await till.print_slip(slips.plain(replace(SALE, number="0002")))
        await until_slips(shop, "WAITING", "UNREAD")
        stamp = entry["vsdcRcptPbctDate"]
        scu_time = (
            f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[8:10]}:{stamp[10:12]}:{stamp[12:]}"
        )
        decided = await shop.technician().decide(
            invoice_id, choice="SIGNED", rcptNo=int(entry["rcptNo"]), total="185.00",
            totRcptNo=int(entry["totRcptNo"]), rcptSign=entry["rcptSign"], scuTime=scu_time,
        )  # fmt: skip
        assert decided.status < 300, decided
        await until_slips(shop, "SIGNED", "UNREAD")
        texts = await paper(printer, 2)
        assert "FISCALISED" in texts[0]
        assert "CU INVOICE NO." in texts[1]
        assert len(await unit.journal()) == 1


async def until_status(shop: OpenShop, state: str) -> None:
    async with asyncio.timeout(60):
        while (await shop.till().request("GET", "/v1/status")).json["state"] != state:
            pass


async def test_suspended_goes_to_the_list_and_only_a_reprint_signs_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    """Nothing is signed behind the till's back; what the till prints again, it asks for again."""
    clock = FakeClock()
    await tell_the_unit(unit, clock)
    async with old_till(unit, shop_dir, clock) as (shop, till, printer):
        await unit.knobs(upstream="offline", ceilingReading="off")
        clock.pass_time(hours=25)
        await tell_the_unit(unit, clock)
        assert shop.gateway.monitor.view().state == "SUSPENDED"
        await till.print_slip(slips.plain(SALE))
        (row,) = await until_slips(shop, "UNREAD")
        assert (row.reason or "").startswith("SUSPENDED")
        await unit.knobs(upstream="online")
        shop.gateway.monitor.contact_soon()
        await until_status(shop, "ONLINE")
        # The gateway has sold something else meanwhile, and looked at its slips.
        await till.print_slip(slips.plain(replace(SALE, number="0002")))
        await until_slips(shop, "UNREAD", "SIGNED")
        assert len(await unit.journal()) == 1
        await till.print_slip(slips.plain(SALE))
        rows = await until_slips(shop, "DISMISSED", "SIGNED", "SIGNED")
        assert rows[0].reason == f"printed again as slip {rows[2].id}"
        late = await shop.till().request("POST", f"/v1/captures/{row.id}/resolve", json=resolved())
        assert (late.status, late.json["code"]) == (409, "CAPTURE_SETTLED")
        assert len(await unit.journal()) == 2
        texts = await paper(printer, 3)
        assert sum(text.split()[:2] == ["NOT", "FISCALISED"] for text in texts) == 1


async def test_a_unit_that_is_away_for_longer_is_not_waited_for(
    shop_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ExternalUnit(tmp_path / "own-unit") as unit:
        async with old_till(unit, shop_dir) as (shop, till, printer):
            await till.print_slip(slips.plain(replace(SALE, number="0001")))
            await until_slips(shop, "SIGNED")
            unit.kill()
            monkeypatch.setattr("gateway.counter.capture.PATIENCE_S", 1.0)
            await till.print_slip(slips.plain(replace(SALE, number="0002")))
            rows = await until_slips(shop, "SIGNED", "UNREAD")
            assert rows[1].reason == "it was not signed within 1 seconds"
            texts = await paper(printer, 2)
            assert texts[1].split()[:2] == ["NOT", "FISCALISED"]
            monkeypatch.setattr("gateway.counter.capture.PATIENCE_S", 60.0)
            await unit.start()
            await till.print_slip(slips.plain(replace(SALE, number="0003")))
            await until_slips(shop, "SIGNED", "UNREAD", "SIGNED")
            assert [entry["invcNo"] for entry in await unit.journal()] == [1, 2]


async def test_killed_between_store_and_signature_there_is_one_receipt(shop_dir: Path) -> None:
    async with FakeLegacyTill(wait_s=PATIENT_S) as till:
        part = "\n".join(f"{name} = {toml(value)}" for name, value in PATTERNS.items())
        port = f'port = "{till.device_path}"\ntill = "till-1"\nsilence_s = 0\n'
        daemon = Daemon(shop_dir, f"[captures.old]\n{port}{part}\n")
        await daemon.start()
        try:
            await until_ready(till)
            await daemon.unit.knobs(latencyMs=10_000)
            await till.print_slip(slips.plain(SALE))
            async with asyncio.timeout(20):
                while not daemon.stored("SIGNING"):
                    await asyncio.sleep(0.005)
            await daemon.kill()
            await daemon.start()
            async with asyncio.timeout(60):
                while not daemon.stored("SIGNED"):
                    await asyncio.sleep(0.05)
            await until_ready(till)
            await till.print_slip(slips.plain(SALE))
            async with asyncio.timeout(60):
                while daemon.stored("SIGNED", "captured_slip") != 2:
                    await asyncio.sleep(0.05)
            assert daemon.stored("SIGNED") == 1
            assert len(await daemon.unit.journal()) == 1
        finally:
            await daemon.stop()


async def test_a_till_that_prints_line_by_line_ends_its_slip_with_its_last_line(
    unit: UnitControl, shop_dir: Path
) -> None:
    rules: dict[str, Any] = {"capture": {"silence_s": 0, "last_line": "^THANK YOU"}}
    async with old_till(unit, shop_dir, **rules) as (shop, till, _):
        data = slips.no_cut(SALE)
        await till.print_slip(data[:100])
        # Longer than the silence that would end a slip elsewhere: the till asks in between.
        for _ in range(3):
            await till.ready()
        assert await slips_of(shop) == []
        await till.print_slip(data[100:])
        await until_slips(shop, "SIGNED")


async def test_a_till_unplugged_in_mid_slip_and_a_printer_that_is_not_there(
    unit: UnitControl, shop_dir: Path, tmp_path: Path
) -> None:
    link = tmp_path / "by-id"
    async with FakeLegacyTill(link=link, wait_s=0.3) as till, FakePrinter() as printer:
        with pytest.raises(NoPrinter):
            await till.print_slip(slips.plain(SALE))
        till.wait_s = PATIENT_S
        settings = settings_for(shop_dir, unit.url, till, printer, capture={"silence_s": 0.3})
        async with open_shop(settings) as shop:
            await until_ready(till)
            await till.write(slips.plain(SALE)[:90])
            # The half slip is no sale, whatever comes after it.
            await until_slips(shop, "UNREAD")
            till.unplug()
            till.plug()
            await until_ready(till)
            await till.print_slip(slips.plain(SALE), piece=10_000)
            await until_slips(shop, "UNREAD", "SIGNED")
            assert len(await unit.journal()) == 1


async def test_the_fake_runs_alone(unit: UnitControl, shop_dir: Path, tmp_path: Path) -> None:
    link = tmp_path / "till"
    async with FakeLegacyTill() as other, FakePrinter() as printer:
        settings = settings_for(shop_dir, unit.url, other, printer, capture={"port": str(link)})
        async with open_shop(settings) as shop:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "hw_fakes.legacy_till", "--link", str(link), "--slip", "fancy",
                "--times", "2", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            out, _ = await asyncio.wait_for(process.communicate(), 60)
            assert out.count(b"printed") == 2
            await until_slips(shop, "SIGNED", "SIGNED")
            assert len(await unit.journal()) == 1
