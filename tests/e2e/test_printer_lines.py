"""Printers on other lines than a serial one, and workers that must not stop for one slip or one printer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.store import events
from hw_fakes.printer.peer import FakePrinter, Wire
from hw_fakes.vscu.unit import UnitControl
from tests.support.printers import (
    BLOCKED,
    HELD,
    PRINTED,
    SENDING,
    UNCONFIRMED,
    WITHIN_S,
    begun,
    in_step,
    long_sale,
    one,
    originals,
    patience,
    problem_is,
    settings_for,
    so,
    the_job,
    until,
)
from tests.support.shop import TOKENS, a_sale, open_shop


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience(monkeypatch)


async def test_a_printer_on_the_network_confirms_too_and_is_not_outrun(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter(tcp_port=0, buffer_bytes=512, speed_mm_s=2000) as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            assert (await shop.till().sell("long", long_sale())).status == 201
            await until(shop, PRINTED)
        assert printer.lost_bytes == 0
        assert printer.problems == []
        assert "Item number 299" in printer.paper.slips[0].text()


async def test_a_printer_on_the_network_refuses_then_is_reset_in_mid_slip(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter(tcp_port=0, wire=Wire(baud=9600)) as printer:
        ports = one(printer)
        printer.unplug()
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
            await problem_is(shop, "refused")
            await until(shop, BLOCKED)
            printer.plug()
            await begun(printer)
            printer.power_off()
            await until(shop, UNCONFIRMED)
            job = await the_job(shop)
            assert "the line broke while printing" in job["reason"]
            printer.power_on()
            assert (await shop.till().sell("two", a_sale())).status == 201
            await until(shop, UNCONFIRMED, PRINTED)
        assert len(originals(printer.paper.slips)) == 1


async def test_a_printer_on_the_usb_printer_class_prints(
    unit: UnitControl, shop_dir: Path, tmp_path: Path
) -> None:
    """By its name it is opened as a file without a speed; here a pty stands behind the name."""
    async with FakePrinter() as printer:
        port = tmp_path / "usb" / "lp0"
        port.parent.mkdir()
        port.symlink_to(printer.device_path)
        async with open_shop(
            settings_for(shop_dir, unit, {"counter": {"port": str(port)}})
        ) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
            await until(shop, PRINTED)


@pytest.mark.parametrize("flow", ["rtscts", "dsrdtr"])
async def test_flow_by_wire_prints_where_the_wire_does_not_exist(
    unit: UnitControl, shop_dir: Path, flow: str
) -> None:
    """A pty has no modem lines: a printer that holds by wire can only be tried with a real one."""
    async with FakePrinter() as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer, flow=flow))) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
            await until(shop, PRINTED)


async def test_a_stuck_helper_does_not_keep_a_printer_that_is_well_again_from_printing(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as two, FakePrinter() as three:
        two.remove_paper()
        ports = {
            "two": {"port": two.device_path, "failover": ["three"]},
            "three": {"port": three.device_path},
        }
        tills = {till: "three" if till == "till-3" else "two" for till in TOKENS}
        async with open_shop(settings_for(shop_dir, unit, ports, tills=tills)) as shop:
            await in_step(shop, 1)
            three.stall()
            assert (await shop.till("till-3").sell("stuck", a_sale())).status == 201
            await until(shop, SENDING)
            assert (await shop.till("till-2").sell("two", a_sale())).status == 201
            await until(shop, SENDING, BLOCKED)
            two.load_paper()
            await until(shop, SENDING, PRINTED)
            assert len(two.paper.slips) == 1
            three.resume()
            await until(shop, PRINTED, PRINTED)


async def test_a_slip_that_cannot_be_encoded_is_held_and_stops_no_other(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakePrinter() as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            setup = shop.gateway.status.workers[0].printer
            monkeypatch.setattr(setup, "setup", replace(setup.setup, profile="NONSENSE"))
            assert (await shop.till().sell("one", a_sale())).status == 201
            await until(shop, HELD)
            job = await the_job(shop)
            assert job["reason"] == (
                "it cannot be put on this printer's paper: unknown printer profile 'NONSENSE'"
            )
            told = await shop.gateway.db.read(lambda conn: events.story(conn, job["invoiceId"]))
            held = [event.data["reason"] for event in told if event.kind == "print.held"]
            assert held == [job["reason"]]
            monkeypatch.undo()
            assert (await shop.till().sell("two", a_sale())).status == 201
            await until(shop, HELD, PRINTED)
            await shop.till().request("POST", "/v1/print-jobs/1/release")
            await until(shop, PRINTED, PRINTED)


async def test_a_worker_that_died_asks_about_its_slip_and_works_on(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The store fails between the paper and the mark: the slip is out, and nobody has written it down."""
    async with FakePrinter() as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            await in_step(shop)
            printer.stall()
            assert (await shop.till().sell("one", a_sale())).status == 201
            await until(shop, SENDING)
            await so(lambda: printer.held_bytes)
            shop.gateway.db.broken = "as after a failed fsync"
            printer.resume()
            await printer.wait_for_slips(1, WITHIN_S)
            worker = shop.gateway.status.workers[0]
            await so(lambda: worker._thread is None)
            shop.gateway.db.broken = None
            await until(shop, UNCONFIRMED)
            assert (await shop.till().sell("two", a_sale())).status == 201
            await until(shop, UNCONFIRMED, PRINTED)
        assert len(originals(printer.paper.slips)) == 2
