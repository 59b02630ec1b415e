"""KRA's list of tax rates: each row is judged alone, and a change stays until a person has seen it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.tax import DEFAULT_RATES
from gateway.fiscal import rates as fiscal_rates
from gateway.fiscal.rates import RATES_EVERY_S, RETRY_S, TaxRates
from gateway.store import unit
from gateway.store.database import open_database
from gateway.vscu.tax_rates import RatesRead, tax_rates_of
from gateway.vscu.wire import decode
from tests.support.clock import FakeClock

PERCENT = {"A": "0", "B": "16", "C": "0", "D": "0", "E": "8"}


def row(letter: Any, percent: Any, **more: Any) -> dict[str, Any]:
    return {"cd": letter, "cdNm": f"Rate {letter}", "userDfnCd1": percent, "useYn": "Y", **more}


def answer(rows: list[Any]) -> dict[str, Any]:
    return {
        "clsList": [{"cdCls": "17", "dtlList": [row("NT", "")]}, {"cdCls": "04", "dtlList": rows}]
    }


def with_row(changed: dict[str, Any]) -> RatesRead:
    rows = [row(letter, percent) for letter, percent in PERCENT.items() if letter != "B"]
    read = tax_rates_of(answer([*rows, changed]))
    assert read is not None
    return read


@pytest.mark.parametrize(
    ("given", "percent"),
    [("16", 16), (" 16 ", 16), ("16.0", 16), ("16.50", "16.5"), (16, 16), (Decimal("8.5"), "8.5"),
     ("0", 0), ("100", 100), ("100.00", 100), ("016", 16), (Decimal("1E+1"), 10), ("14\u200b", 14)],
)  # fmt: skip
def test_a_plain_number_from_0_to_100_is_a_rate(given: Any, percent: Any) -> None:
    read = with_row(row("B", given))
    assert read.rates["B"].percent == Decimal(percent)
    assert read.problems == ()


@pytest.mark.parametrize(
    "given",
    [None, "", "-16", "+16", "-0", "16 %", "16%", "sixteen", "1e1", "100.01", "101", "1000", "16.123", "16,0",
     "N/A", "16 17", True, [], {}, Decimal("-1"), Decimal("NaN"), "\u0661\u0666"],
    ids=repr,
)  # fmt: skip
def test_an_odd_rate_is_refused_and_named_and_the_other_rows_count(given: Any) -> None:
    read = with_row(row("B", given))
    assert sorted(read.rates) == ["A", "C", "D", "E"]
    assert [text for text in read.problems if "letter B" in text] == list(read.problems)
    assert len(read.problems) == 1


def test_missing_unknown_retired_and_contradicting_letters_are_named() -> None:
    for changed, word in (
        (row("F", "3"), "letter F"),
        (row(None, "3"), "without a name"),
        (row("B", "16", useYn="N"), "letter B"),
        ({}, "without a name"),
    ):
        read = with_row(changed)
        assert "B" not in read.rates
        assert any(word in text for text in read.problems)
        assert any("letter B is not in the list" in text for text in read.problems)
    read = tax_rates_of(answer([row("B", "16"), row("B", "18"), row("A", "0"), "nonsense"]))
    assert read is not None
    assert set(read.rates) == {"A"}
    assert any("two different rates" in text for text in read.problems)
    same = tax_rates_of(answer([row("B", "16"), row("B", "16.0")]))
    assert same is not None
    assert same.rates["B"].percent == 16


def test_names_that_are_no_text_fall_back_and_control_characters_are_dropped() -> None:
    read = with_row(row("B", "16", cdNm=None, userDfnCd2="B-\x1b16%\n"))
    assert (read.rates["B"].name, read.rates["B"].short) == ("B", "B-16%")


@pytest.mark.parametrize(
    "data",
    [None, {}, [], "x", {"clsList": None}, {"clsList": [{"cdCls": "04"}]}, {"clsList": ["04"]}, answer([])],
    ids=str,
)  # fmt: skip
def test_an_answer_without_the_list_is_none(data: Any) -> None:
    assert tax_rates_of(data) is None


class Unit:
    """A unit that serves one answer after the other."""

    def __init__(self) -> None:
        self.served: RatesRead | None = None
        self.reads = 0

    async def tax_rates(self) -> RatesRead | None:
        self.reads += 1
        return self.served


def served(**percent: Any) -> RatesRead:
    read = tax_rates_of(
        answer([row(name, value) for name, value in {**PERCENT, **percent}.items()])
    )
    assert read is not None
    return read


async def test_a_change_is_applied_recorded_and_shown_until_it_is_seen(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    part = Unit()
    async with open_database(tmp_path, readers=1) as db:
        await db.write(lambda conn: unit.ensure(conn, first_invoice_no=1, at=0))
        rates = TaxRates(db=db, clock=clock, client=part)
        await rates.load()
        assert rates.table["B"].percent == DEFAULT_RATES["B"].percent
        part.served = served(B="14", E=None)
        await rates.refresh()
        assert rates.table["B"].percent == 14
        assert rates.table["E"].percent == 8  # the last good one
        assert any("letter E" in text for text in rates.problems)
        [change] = await db.read(fiscal_rates.changes)
        assert (change["letter"], change["before"], change["after"]) == ("B", "16", "14")
        again = TaxRates(db=db, clock=clock, client=part)
        await again.load()
        await again.refresh()
        assert again.table["B"].percent == 14
        assert len(await db.read(fiscal_rates.changes)) == 1
        assert await again.seen("wanjiru") == 1
        assert await again.seen("wanjiru") == 0
        assert await db.read(fiscal_rates.changes) == []
        kinds = await db.read(
            lambda conn: [r[0] for r in conn.execute("SELECT kind FROM event ORDER BY id")]
        )
        assert [kind for kind in kinds if kind.startswith("unit.rate")] == [
            "unit.rate_changed", "unit.rates_seen",
        ]  # fmt: skip


async def test_rates_are_read_every_hour_on_a_new_day_and_when_asked_for(tmp_path: Path) -> None:
    clock = FakeClock()
    part = Unit()
    part.served = served()
    async with open_database(tmp_path, readers=1) as db:
        await db.write(lambda conn: unit.ensure(conn, first_invoice_no=1, at=0))
        rates = TaxRates(db=db, clock=clock, client=part)
        await rates.load()

        async def reads_after(seconds: float) -> int:
            clock.pass_time(seconds=seconds)
            before = part.reads
            await rates.refresh()
            return part.reads - before

        assert await reads_after(0) == 1
        assert await reads_after(RETRY_S) == 0
        rates.read_soon()
        assert await reads_after(0) == 1
        assert await reads_after(RATES_EVERY_S + 1) == 1
        part.served = None
        assert await reads_after(RATES_EVERY_S + 1) == 1
        assert await reads_after(1) == 0
        assert await reads_after(RETRY_S) == 1


def test_the_wire_gives_rates_without_a_float() -> None:
    raw = b'{"resultCd":"000","data":{"clsList":[{"cdCls":"04","dtlList":[{"cd":"B","userDfnCd1":16.5}]}]}}'
    read = tax_rates_of(decode(200, raw).data)
    assert read is not None
    assert read.rates["B"].percent == Decimal("16.5")
