"""Random slips through lossy, slow, overflowing and unplugged printers; `make slips SLIPS=10000` plays more."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest

from gateway.devices import pace
from gateway.devices.printer import ReceiptPrinter
from tests.printer_sim.slips import Books, run

SLIPS = 240


@pytest.mark.timeout(300)
def test_no_slip_is_called_printed_that_is_not_whole_and_none_is_lost_without_a_question() -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    books = run(SLIPS, seed)
    assert not books.wrong, books.wrong[:5]
    ends = {name.partition("/")[2] for name in books.ends}
    assert {"PRINTED", "SENT", "UNCONFIRMED"} <= ends


def found_out(seeds: int = 40) -> Books:
    books = Books(Counter(), [])
    for seed in range(seeds):
        more = run(4, 1000 + seed)
        books.wrong += more.wrong
        if books.wrong:
            break
    return books


def _never_full(self: Any, size: int, room: int) -> bool:
    return False


def _never_wait(self: Any, size: int, room: int, now_s: float) -> float:
    return 0.0


def _last_only(self: Any, asked: list[int]) -> int:
    return len(asked) if self._talk.heard.papers else 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("owner", "name", "wrong", "sign"),
    [
        (pace.Window, "full", _never_full, "overflowed"),
        (pace.Reckoning, "wait_s", _never_wait, "overflowed"),
        (ReceiptPrinter, "_done", _last_only, "printed and not whole"),
        (ReceiptPrinter, "_pad", lambda self: True, "not whole"),
    ],
    ids=[
        "outruns the answers",
        "outruns the paper",
        "believes the first answer",
        "leaves pictures open",
    ],
)
def test_a_driver_that_does_it_wrong_is_found_out(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, wrong: Any, sign: str
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    assert any(sign in each for each in found_out().wrong)
