"""Receipts on a virtual printer: a real pty, and a QR that an independent decoder reads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from hw_fakes.printer.peer import FakePrinter
from hw_fakes.printer.render import to_png
from hw_fakes.vscu.unit import UnitControl
from tests.conftest import need_tool
from tests.support.printers import (
    BLOCKED,
    PRINTED,
    WITHIN_S,
    one,
    patience,
    settings_for,
    until,
)
from tests.support.shop import a_sale, open_shop


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience(monkeypatch)


async def test_the_qr_on_paper_decodes_to_the_kra_address(
    unit: UnitControl, shop_dir: Path, tmp_path: Path
) -> None:
    zbarimg = need_tool("zbarimg")
    async with FakePrinter() as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            reply = await shop.till().sell("key", a_sale())
            (slip,) = await printer.wait_for_slips(1, WITHIN_S)
            await until(shop, PRINTED)
        assert printer.problems == []
        picture = tmp_path / "slip.png"
        picture.write_bytes(to_png(slip))
        decoded = subprocess.run(
            [zbarimg, "--quiet", "--raw", str(picture)], capture_output=True, check=True, text=True
        ).stdout.strip()
    assert decoded == reply.json["qr"]
    assert decoded == (
        "https://etims-sbx.kra.go.ke/common/link/etims/receipt/indexEtimsReceiptData?Data="
        f"A000123456B00{reply.json['rcptSign']}"
    )
    text = slip.text()
    assert reply.json["cuInvoiceNo"] in text
    assert "TAX INVOICE" in text
    assert text.index("ITEMS NUMBER") < text.index("Rate%") < text.index("SCU INFORMATION")


async def test_a_second_print_is_a_copy_and_says_so(unit: UnitControl, shop_dir: Path) -> None:
    async with FakePrinter() as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            sale = await shop.till().sell("key", a_sale())
            path = f"/v1/invoices/{sale.json['invoiceId']}/copies"
            first = await shop.till().request("POST", path)
            assert first.status == 202
            await shop.till().request("POST", path)
            slips = await printer.wait_for_slips(3, WITHIN_S)
    texts = [slip.text() for slip in slips]
    assert "COPY" not in texts[0]
    assert "1/1 NS" in texts[0]
    for text in texts[1:]:
        assert "THIS IS NOT AN" in text
        assert "1/1 CS" in text
    assert "(copy no. 2)" in texts[2]
    assert len(await unit.journal()) == 1


async def test_paper_does_not_hold_up_a_sale(unit: UnitControl, shop_dir: Path) -> None:
    async with FakePrinter() as printer:
        printer.open_cover()
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            for number in range(3):
                assert (await shop.till().sell(f"key-{number}", a_sale())).status == 201
            printer.close_cover()
            await printer.wait_for_slips(3, WITHIN_S)
            await until(shop, PRINTED, PRINTED, PRINTED)


async def test_a_printer_that_is_not_there_waits_and_heals(
    unit: UnitControl, shop_dir: Path, tmp_path: Path
) -> None:
    link = tmp_path / "printer"
    async with FakePrinter() as printer:
        settings = settings_for(shop_dir, unit, {"counter": {"port": str(link)}})
        async with open_shop(settings) as shop:
            assert (await shop.till().sell("key", a_sale())).status == 201
            await until(shop, BLOCKED)
            status = await shop.till().request("GET", "/v1/status")
            assert status.json["printing"]["printers"][0]["ok"] is False
            link.symlink_to(printer.device_path)
            await printer.wait_for_slips(1, WITHIN_S)


async def test_the_time_on_the_wire_is_known_and_shown(unit: UnitControl, shop_dir: Path) -> None:
    """Ten bits a byte at 9600 baud: in the event, the status and on the page."""
    async with FakePrinter() as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer, baud=9600))) as shop:
            await shop.till().sell("key", a_sale())
            (slip,) = await printer.wait_for_slips(1, WITHIN_S)
            await until(shop, PRINTED)
            status = await shop.till().request("GET", "/v1/status")
            said = await shop.gateway.db.read(
                lambda conn: conn.execute(
                    "SELECT data FROM event WHERE kind = 'print.printed'"
                ).fetchone()
            )
            page = await shop.till().request("GET", "/")
    (last,) = [part["lastSlip"] for part in status.json["printing"]["printers"]]
    event = json.loads(said[0])
    # From ESC @ on; two questions behind the cut, three bytes each, ask the printer to confirm.
    size = len(slip.raw) - slip.raw.index(b"\x1b@") + 6
    assert last["bytes"] == event["bytes"] == size
    assert last["wireMs"] == event["wireMs"] == round(last["bytes"] * 10 / 9600 * 1000)
    assert 1500 < last["wireMs"] < 2200
    assert f"{last['bytes']} bytes, {last['wireMs'] / 1000:.1f} s on the wire" in page.body.decode()
