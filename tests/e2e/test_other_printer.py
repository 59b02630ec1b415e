"""The gateway beside a printer that is not ours: it answers as Epson's reference says, not as our fake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hw_fakes.vscu.unit import UnitControl
from tests.conftest import need_tool
from tests.e2e.test_printers import problem_is, settings_for, until
from tests.support.emupos import Emupos, open_emupos
from tests.support.shop import a_sale, open_shop
from tests.support.slips import decoded


def at(emupos: Emupos) -> dict[str, dict[str, Any]]:
    return {"counter": {"port": emupos.port(80), "drawer_pin": 2}}


async def test_it_confirms_opens_the_drawer_and_its_qr_is_the_answers(
    unit: UnitControl, shop_dir: Path, tmp_path: Path
) -> None:
    zbarimg = need_tool("zbarimg")
    async with open_emupos(tmp_path) as emupos:
        async with open_shop(settings_for(shop_dir, unit, at(emupos))) as shop:
            sale = a_sale(payments=[{"method": "CASH", "amount": "300.00"}])
            reply = await shop.till().sell("key", sale)
            assert reply.status == 201, reply.json
            (receipt,) = await emupos.wait_for_receipts(1)
            await until(shop, ("ORIGINAL", "PRINTED"))
            status = await shop.till().request("GET", "/v1/status")
        assert decoded(zbarimg, emupos.picture(receipt), tmp_path) == [reply.json["qr"]]
        text = emupos.text(receipt)
        assert f"CU INVOICE NO.: {reply.json['cuInvoiceNo']}" in text
        assert "CHANGE" in "\n".join(text)
        assert [event["type"] for event in emupos.events].count("drawer.opened") == 1
        # It does not say its model, and names the zeros that end an open picture; both stand between slips.
        unknown = {event["data"]["bytes"] for event in emupos.not_understood()}
        assert unknown <= {"1d 49 43", "00"}
    # On a network line there is no baud rate; the slip's size is said all the same.
    last = status.json["printing"]["printers"][0]["lastSlip"]
    # With the QR as a picture, since it does not say its model.
    assert 3000 < last["bytes"] < 6000
    assert last["wireMs"] == 0


async def test_its_paper_out_and_cover_are_understood_and_nothing_is_printed_twice(
    unit: UnitControl, shop_dir: Path, tmp_path: Path
) -> None:
    async with open_emupos(tmp_path) as emupos:
        await emupos.fault("paper-out", active=True)
        async with open_shop(settings_for(shop_dir, unit, at(emupos))) as shop:
            for number in range(3):
                assert (await shop.till().sell(f"key-{number}", a_sale())).status == 201
            await problem_is(shop, "paper")
            await emupos.fault("paper-out", active=False)
            await until(shop, *[("ORIGINAL", "PRINTED")] * 3)
            await emupos.fault("cover-open", active=True)
            await problem_is(shop, "cover")
            assert (await shop.till().sell("key-3", a_sale())).status == 201
            await emupos.fault("cover-open", active=False)
            await until(shop, *[("ORIGINAL", "PRINTED")] * 4)
        receipts = await emupos.wait_for_receipts(4)
        numbers = [
            line for receipt in receipts for line in emupos.text(receipt) if "CU INVOICE" in line
        ]
        assert len(numbers) == len(set(numbers)) == 4
