"""What a printer says and does not say: only all of its own answers make a slip "printed"."""

from __future__ import annotations

from pathlib import Path

import pytest

from hw_fakes.printer.peer import FakePrinter, Wire
from hw_fakes.vscu.unit import UnitControl
from tests.support.printers import (
    BLOCKED,
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
    printers,
    problem_is,
    settings_for,
    so,
    states,
    the_job,
    until,
)
from tests.support.shop import a_sale, open_shop


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience(monkeypatch)


async def test_paper_near_its_end_is_a_warning_only(unit: UnitControl, shop_dir: Path) -> None:
    async with FakePrinter() as printer:
        printer.near_end_mm = 2e9
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            assert (await shop.till().sell("key", a_sale())).status == 201
            await until(shop, PRINTED)
            (status,) = await printers(shop)
            assert (status["ok"], status["paperNearEnd"]) == (True, True)


@pytest.mark.parametrize("fault", ["cutter", "offline", "error"])
async def test_a_printer_that_is_unwell_is_sent_nothing_until_it_is_well(
    unit: UnitControl, shop_dir: Path, fault: str
) -> None:
    def unwell(so: bool) -> None:
        match fault:
            case "cutter":
                printer.jam_cutter(so)
            case "offline":
                printer.go_offline(so)
            case _:
                printer.fail(so)

    async with FakePrinter() as printer:
        unwell(True)
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            assert (await shop.till().sell("key", a_sale())).status == 201
            await problem_is(shop, fault)
            await until(shop, BLOCKED)
            assert printer.paper.open.raw == b""
            unwell(False)
            await until(shop, PRINTED)
        assert len(originals(printer.paper.slips)) == 1


@pytest.mark.parametrize("confirm", ["status", "process-id"])
async def test_what_a_printer_tells_unasked_confirms_no_slip(
    unit: UnitControl, shop_dir: Path, confirm: str
) -> None:
    """Automatic status back, on by the printer's switches: three of its four bytes look like the
    answer that is awaited."""
    async with FakePrinter(asb=0x0F) as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer, confirm=confirm))) as shop:
            await in_step(shop)
            printer.stall()
            assert (await shop.till().sell("key", a_sale())).status == 201
            await so(lambda: printer.held_bytes)
            for _ in range(5):
                printer.open_cover()
                printer.close_cover()
            printer.open_cover()
            await problem_is(shop, "cover")
            assert await states(shop) == [SENDING]
            printer.close_cover()
            printer.resume()
            await until(shop, PRINTED)
        assert len(originals(printer.paper.slips)) == 1


async def test_a_stray_byte_that_looks_like_the_answer_confirms_no_slip(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter(roll_mm=60) as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            assert (await shop.till().sell("key", a_sale())).status == 201
            await so(lambda: printer.paper_out)
            printer._line.put(b"\x00")
            await problem_is(shop, "paper out")
            assert await states(shop) == [SENDING]
            printer.load_paper()
            await until(shop, PRINTED)
        assert len(originals(printer.paper.slips)) == 1


async def test_a_held_line_says_why_if_the_printer_tells_by_itself(
    unit: UnitControl, shop_dir: Path
) -> None:
    printer = FakePrinter(asb=0x0F, buffer_bytes=512, xonxoff=True, wire=Wire(baud=115200))
    async with printer:
        ports = one(printer, flow="xonxoff")
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            assert (await shop.till().sell("long", long_sale())).status == 201
            await begun(printer)
            printer.open_cover()
            await problem_is(shop, "the cover is open")
            printer.close_cover()
            await until(shop, PRINTED)
        assert printer.lost_bytes == 0


async def test_a_printer_with_another_process_id_has_not_confirmed(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience(monkeypatch, confirm_s=1.0)
    async with FakePrinter() as printer:
        printer.wrong_ids = True
        ports = one(printer, confirm="process-id")
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            assert (await shop.till().sell("key", a_sale())).status == 201
            await until(shop, UNCONFIRMED)
            job = await the_job(shop)
            assert job["reason"] == "the printer did not confirm"
            patience(monkeypatch)
            printer.wrong_ids = False
            await shop.till().sell("next", a_sale())
            await until(shop, UNCONFIRMED, PRINTED)


async def test_a_printer_that_falls_silent_after_the_last_byte_has_not_confirmed(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough for the slip to come out before.
    patience(monkeypatch, confirm_s=3.0, real_time_s=0.5)
    async with FakePrinter() as printer:
        printer._on_slip = lambda slip: setattr(printer, "silent", True)
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            assert (await shop.till().sell("key", a_sale())).status == 201
            await until(shop, UNCONFIRMED)
            job = await the_job(shop)
            assert job["reason"] == "the printer fell silent while printing"
            assert len(printer.paper.slips) == 1
            patience(monkeypatch)
            printer._on_slip, printer.silent = None, False
            await shop.till().sell("next", a_sale())
            await until(shop, UNCONFIRMED, PRINTED)
        assert len(originals(printer.paper.slips)) == 2


@pytest.mark.parametrize(("confirm", "state"), [("auto", PRINTED), ("status", UNCONFIRMED)])
async def test_a_printer_that_never_confirms_is_found_out_unless_it_is_set_to_confirm(
    unit: UnitControl,
    shop_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    confirm: str,
    state: tuple[str, str],
) -> None:
    """A cheap one: it knows DLE EOT and not GS r."""
    patience(monkeypatch, confirm_s=1.0)
    async with FakePrinter() as printer:
        printer.confirms = False
        async with open_shop(settings_for(shop_dir, unit, one(printer, confirm=confirm))) as shop:
            for key in ("one", "two"):
                assert (await shop.till().sell(key, a_sale())).status == 201
            await until(shop, state, state)
            # Given up, and perhaps not out yet.
            await printer.wait_for_slips(2, WITHIN_S)
            (status,) = await printers(shop)
            assert status["kind"] == ("ANSWERS" if confirm == "auto" else "CONFIRMS")
        assert len(originals(printer.paper.slips)) == 2


async def test_late_answers_to_one_slip_do_not_confirm_the_next(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience(monkeypatch, confirm_s=1.0)
    async with FakePrinter() as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            await in_step(shop)
            printer.stall()
            assert (await shop.till().sell("one", a_sale())).status == 201
            await until(shop, UNCONFIRMED)
            # It was asked again while idle and owes that answer, too.
            await in_step(shop)
            patience(monkeypatch)
            assert (await shop.till().sell("two", a_sale())).status == 201
            await until(shop, UNCONFIRMED, SENDING)
            printer.speed_mm_s = 300
            printer.resume()
            await until(shop, UNCONFIRMED, PRINTED)
            assert len(printer.paper.slips) == 2
        assert len(set(originals(printer.paper.slips))) == 2


async def test_a_bumped_plug_in_mid_receipt_does_not_confirm_half_a_slip(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printer is back before anybody has asked it, and prints the rest as if nothing had been."""
    patience(monkeypatch, confirm_s=1.0)
    async with FakePrinter(wire=Wire(baud=9600)) as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer, baud=9600))) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
            await begun(printer)
            printer.power_off()
            # What a printer misses while it starts: half a second's worth.
            await so(lambda: printer.ignored_bytes >= 480)
            printer.power_on()
            await until(shop, UNCONFIRMED)
            patience(monkeypatch)
            assert (await shop.till().sell("two", a_sale())).status == 201
            await until(shop, UNCONFIRMED, PRINTED)
        assert len(printer.paper.scraps) == 1
        assert len(originals(printer.paper.slips)) <= 2


async def test_a_line_that_stalls_in_mid_slip_ends_unconfirmed_and_the_next_slip_comes_out(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience(monkeypatch, confirm_s=1.0)
    async with FakePrinter(wire=Wire(baud=9600)) as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer, baud=9600))) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
            await begun(printer)
            printer.stick()
            patience(monkeypatch, confirm_s=1.0, real_time_s=0.5)
            await until(shop, UNCONFIRMED)
            patience(monkeypatch)
            printer.stick(False)
            assert (await shop.till().sell("two", a_sale())).status == 201
            await until(shop, UNCONFIRMED, PRINTED)
        numbers = originals(printer.paper.slips)
        assert len(set(numbers)) == len(numbers)
