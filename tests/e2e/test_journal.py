"""The journal in an inspector's hands: exported by the command, checked by the shipped script alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import tools
from gateway.errors import StoreError
from gateway.settings import Settings
from gateway.store import events, invoices
from hw_fakes.vscu.unit import UnitControl
from tests.support.shop import a_sale, make_settings, open_shop


@pytest.fixture
async def sold(unit: UnitControl, shop_dir: Path) -> Settings:
    """A shop that sold, took one back, and has a gap in the unit's numbers."""
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings) as shop:
        till = shop.till()
        first = await till.sell("one", a_sale())
        credit = {"tillReceiptNo": "C-1", "reason": "06"}
        path = f"/v1/invoices/{first.json['invoiceId']}/credit-notes"
        assert (await till.request("POST", path, key="back", json=credit)).status == 201
        # Somebody else's sale on the same unit, past this gateway.
        row = await shop.gateway.db.read(lambda conn: invoices.by_id(conn, first.json["invoiceId"]))
        assert row is not None
        assert row.unit_request is not None
        body = json.loads(row.unit_request)
        await unit.post("/trnsSales/saveSales", {**body, "invcNo": 900, "trdInvcNo": "alien"})
        assert (await till.sell("two", a_sale())).status == 201
    return settings


def run_script(directory: Path) -> subprocess.CompletedProcess[str]:
    """As an inspector would: nothing but Python and the two files, and no package in reach."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "verify.py", "journal.jsonl"],
        cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip


async def test_the_export_is_checked_with_the_shipped_script(
    sold: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "journal"
    assert tools.journal_verify(sold).errors == []
    assert tools.journal_export(sold, out).errors == []
    result = run_script(out)
    assert result.returncode == 0, result.stdout
    assert "NC: 1 receipts, 297.00 KES" in result.stdout
    assert "NS: 2 receipts, 594.00 KES" in result.stdout
    assert "gap: totRcptNo 3 to 3 (unit.counter_gap" in result.stdout
    assert "the chain is whole" in result.stdout
    text = (out / "journal.txt").read_text()
    assert max(len(line) for line in text.splitlines() if "[QR" not in line) <= 40
    assert text.count("TEST TRADERS LTD") == 3
    assert "CREDIT NOTE" in text


def without_the_last_receipt(lines: list[str]) -> list[str]:
    last = max(n for n, line in enumerate(lines) if '"type":"receipt"' in line)
    return lines[:last] + lines[last + 1 :]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: [*lines[:1], *lines[2:]], "does not follow the receipt before it"),
        (lambda lines: [line.replace('"totalCents":29700', '"totalCents":9700') for line in lines],
         "its contents were changed"),
        (lambda lines: lines[:-1], "the end is missing"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "does not follow"),
        (without_the_last_receipt, "receipts are stated"),
        (lambda lines: [*lines, lines[1]], "something follows the end"),
        (lambda lines: [*lines[:1], "{half", *lines[1:]], "cannot be read"),
    ],
)  # fmt: skip
async def test_whatever_is_changed_is_found(
    sold: Settings, tmp_path: Path, change: object, says: str
) -> None:
    out = tmp_path / "journal"
    tools.journal_export(sold, out)
    lines = (out / "journal.jsonl").read_text().splitlines()
    changed = change(lines)  # type: ignore[operator]
    (out / "journal.jsonl").write_text("\n".join(changed) + "\n")
    result = run_script(out)
    assert result.returncode == 1
    assert says in result.stdout


async def test_the_gap_is_an_event_too(sold: Settings) -> None:
    with tools.read_only(sold) as conn:
        (gap,) = events.of_kind(conn, "unit.counter_gap")
    assert gap.data == {"after": 2, "got": 4}


def test_no_store_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store"):
        tools.journal_verify(make_settings(tmp_path / "nothing", "http://127.0.0.1:1"))
