"""Printers at their worst: no sale waits, no slip is lost, and none is an original twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.store import events, print_jobs
from hw_fakes.printer.peer import FakePrinter, Wire
from hw_fakes.vscu.unit import UnitControl
from tests.support.printers import (
    BLOCKED,
    PRINTED,
    UNCONFIRMED,
    WITHIN_S,
    begun,
    long_sale,
    one,
    originals,
    patience,
    printers,
    problem_is,
    settings_for,
    states,
    until,
)
from tests.support.shop import TOKENS, a_sale, open_shop


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience(monkeypatch)


async def test_paper_runs_out_in_mid_receipt_and_it_goes_on_with_a_new_roll(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter(roll_mm=60) as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            sale = await shop.till().sell("key", a_sale())
            assert sale.status == 201
            await problem_is(shop, "paper out")
            assert printer.paper.slips == []
            assert printer.paper.open.items
            assert (await shop.till().sell("next", a_sale())).status == 201
            printer.load_paper()
            await printer.wait_for_slips(2, WITHIN_S)
            await until(shop, PRINTED, PRINTED)
        numbers = originals(printer.paper.slips)
    assert len(set(numbers)) == len(numbers) == 2


async def test_the_cover_is_opened_before_and_in_mid_receipt(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as printer:
        printer.open_cover()
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            assert (await shop.till().sell("key", a_sale())).status == 201
            await problem_is(shop, "cover")
            await until(shop, BLOCKED)
            printer.close_cover()
            await until(shop, PRINTED)
        assert len(originals(printer.paper.slips)) == 1


@pytest.mark.parametrize("confirm", ["status", "process-id"])
async def test_a_cable_pulled_in_mid_receipt_and_put_back_on_another_port(
    unit: UnitControl, shop_dir: Path, tmp_path: Path, confirm: str
) -> None:
    """What had begun is asked about, what had not comes out; the name by id is what is opened."""
    link = tmp_path / "by-id"
    async with FakePrinter(wire=Wire(baud=9600), link=link) as printer:
        ports = {"counter": {"port": str(link), "confirm": confirm}}
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
            assert (await shop.till().sell("two", a_sale())).status == 201
            await begun(printer)
            printer.unplug()
            await until(shop, UNCONFIRMED, BLOCKED)
            printer.power_cut()
            printer.plug()
            await until(shop, UNCONFIRMED, PRINTED)
            asked = (await shop.till().request("GET", "/v1/print-jobs")).json["jobs"]
            assert [job["state"] for job in asked] == ["UNCONFIRMED"]
            # The cashier looks: it did not come out. What is printed now is a copy.
            path = f"/v1/print-jobs/{asked[0]['id']}/answer"
            answer = await shop.till().request("POST", path, json={"cameOut": False})
            assert answer.json["kind"] == "COPY"
            again = await shop.till().request("POST", path, json={"cameOut": False})
            assert (again.status, again.json["code"]) == (409, "PRINT_JOB_SETTLED")
            await until(shop, ("ORIGINAL", "DROPPED"), PRINTED, ("COPY", "PRINTED"))
            told = await shop.gateway.db.read(lambda c: events.of_kind(c, "print.decided"))
            assert [(event.data["said"], event.data["who"]) for event in told] == [
                ("lost", "till-1")
            ]
        assert len(originals(printer.paper.slips)) == 1
        assert len(printer.paper.slips) == 2


async def test_the_printers_power_is_cut_while_it_prints(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience(monkeypatch, confirm_s=1.0)
    async with FakePrinter(wire=Wire(baud=9600)) as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer, baud=9600))) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
            await begun(printer)
            printer.power_off()
            patience(monkeypatch, confirm_s=1.0, real_time_s=0.5)
            await until(shop, UNCONFIRMED)
            patience(monkeypatch)
            printer.power_on()
            assert (await shop.till().sell("two", a_sale())).status == 201
            await until(shop, UNCONFIRMED, PRINTED)
        assert len(originals(printer.paper.slips)) == 1


async def test_a_printer_that_answers_nothing_is_sent_nothing(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience(monkeypatch, real_time_s=0.5)
    async with FakePrinter() as printer:
        printer.silent = True
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            assert (await shop.till().sell("key", a_sale())).status == 201
            await problem_is(shop, "no answer")
            await until(shop, BLOCKED)
            assert printer.paper.slips == []
            patience(monkeypatch)
            printer.silent = False
            await until(shop, PRINTED)


async def test_a_slip_of_a_printer_without_answers_by_setting_is_sent_and_asked_of_nobody(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as printer:
        printer.silent = True
        ports = one(printer, confirm="none")
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            await shop.till().sell("key", a_sale())
            await until(shop, PRINTED)
            await printer.wait_for_slips(1, WITHIN_S)
            jobs = (await shop.till().request("GET", "/v1/print-jobs?state=SENT")).json["jobs"]
            assert [job["state"] for job in jobs] == ["SENT"]
            printed = await shop.till().request("GET", "/v1/print-jobs?state=PRINTED")
            assert printed.json["jobs"] == []


async def test_eight_tills_on_one_printer_at_9600_baud(unit: UnitControl, shop_dir: Path) -> None:
    """Paper lags behind; no sale does, and every slip comes out once and in order."""
    async with FakePrinter(wire=Wire(baud=9600)) as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer, baud=9600))) as shop:
            replies = await asyncio.gather(
                *(shop.till(till).sell(f"key-{till}", a_sale()) for till in TOKENS)
            )
            assert {reply.status for reply in replies} == {201}
            assert len(printer.paper.slips) < 8
            await printer.wait_for_slips(8, 90)
            await until(shop, *[PRINTED] * 8)
        numbers = originals(printer.paper.slips)
    assert len(set(numbers)) == 8
    assert numbers == sorted(numbers)


async def test_its_slips_come_out_at_the_next_printer_with_a_banner(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as two, FakePrinter() as three:
        two.remove_paper()
        ports = {
            "till 2": {"port": two.device_path, "failover": ["till 3"]},
            "till 3": {"port": three.device_path},
        }
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            assert (await shop.till().sell("key", a_sale())).status == 201
            (slip,) = await three.wait_for_slips(1, WITHIN_S)
            assert "FOR TILL 2" in slip.text()
            await until(shop, PRINTED)
            two.load_paper()
            async with asyncio.timeout(WITHIN_S):
                while not all(printer["ok"] for printer in await printers(shop)):
                    await asyncio.sleep(0.02)
            assert (await shop.till().sell("next", a_sale())).status == 201
            (own,) = await two.wait_for_slips(1, WITHIN_S)
        assert "FOR TILL" not in own.text()
        assert len(originals(two.paper.slips + three.paper.slips)) == 2


async def test_slips_of_an_outage_wait_for_a_tap(unit: UnitControl, shop_dir: Path) -> None:
    async with FakePrinter() as printer:
        printer.open_cover()
        rules = {"stale_minutes": 0.0001}
        settings = settings_for(shop_dir, unit, one(printer), printing=rules)
        async with open_shop(settings) as shop:
            for number in range(3):
                assert (await shop.till().sell(f"key-{number}", a_sale())).status == 201
            await problem_is(shop, "cover")
            printer.close_cover()
            await until(shop, *[("ORIGINAL", "HELD")] * 3)
            assert printer.paper.slips == []
            released = await shop.till().request("POST", "/v1/print-jobs/2/release")
            assert released.status == 200
            await until(shop, ("ORIGINAL", "HELD"), PRINTED, ("ORIGINAL", "HELD"))
            dropped = await shop.till().request("POST", "/v1/print-jobs/1/drop")
            assert dropped.json["state"] == "DROPPED"
        assert len(originals(printer.paper.slips)) == 1


@pytest.mark.parametrize(
    "wire",
    [Wire(one_byte=True), Wire(noise=0.3), Wire(delay_s=0.2)],
    ids=["bytes", "noise", "delay"],
)
async def test_a_bad_wire_still_prints_once(unit: UnitControl, shop_dir: Path, wire: Wire) -> None:
    async with FakePrinter(wire=wire) as printer:
        async with open_shop(settings_for(shop_dir, unit, one(printer))) as shop:
            assert (await shop.till().sell("key", a_sale())).status == 201
            await until(shop, PRINTED)
        assert len(originals(printer.paper.slips)) == 1


async def test_a_printer_with_a_small_buffer_says_not_so_fast(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter(buffer_bytes=512, xonxoff=True, wire=Wire(baud=115200)) as printer:
        ports = one(printer, flow="xonxoff", confirm="process-id")
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            assert (await shop.till().sell("long", long_sale())).status == 201
            await begun(printer)
            printer.stall()
            await problem_is(shop, "holds its line")
            printer.resume()
            await until(shop, PRINTED)
        assert printer.lost_bytes == 0
        (slip,) = printer.paper.slips
        assert "Item number 299" in slip.text()


async def test_a_gateway_that_ends_in_mid_print_asks_afterwards(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as printer:
        settings = settings_for(shop_dir, unit, one(printer))
        async with open_shop(settings) as shop:
            await shop.till().sell("key", a_sale())
            await until(shop, PRINTED)
            await shop.gateway.db.write(lambda conn: print_jobs.mark(conn, 1, "SENDING", at=0))
        async with open_shop(settings) as shop:
            assert await states(shop) == [UNCONFIRMED]
            path = "/v1/print-jobs/1/answer"
            answer = await shop.till().request("POST", path, json={"cameOut": True})
            assert answer.json["state"] == "PRINTED"
            await shop.till().sell("next", a_sale())
            await until(shop, PRINTED, PRINTED)
        assert len(originals(printer.paper.slips)) == len(printer.paper.slips) == 2
