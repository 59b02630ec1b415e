"""Plug in any printer: with default settings the first receipt comes out whole, or one sentence names the choice.

Thirty behaviours of public reports on each of three lines, all at once in one shop; the table is printed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hw_fakes.printer.paper import Picture, QrMark, Slip
from hw_fakes.printer.peer import FakePrinter, Wire
from hw_fakes.vscu.unit import UnitControl
from tests.support.printers import printers as shown
from tests.support.printers import settings_for
from tests.support.shop import OpenShop, a_sale, open_shop

LINES = ("RS-232", "USB", "TCP")
# A machine that is busy with other tests; a shop waits for seconds.
WITHIN_S = 240.0
ROWS = ("PRINTED", "SENT")


def sets(**values: Any) -> Callable[[FakePrinter], None]:
    def apply(printer: FakePrinter) -> None:
        for name, value in values.items():
            setattr(printer, name, value)

    return apply


@dataclass(frozen=True, slots=True)
class Kind:
    """A behaviour. `ends`: what its slip ends as; None: a sentence with `says` in it, and nothing printed."""

    name: str
    apply: Callable[[FakePrinter], None]
    ends: str | None = "PRINTED"
    says: str = ""
    made: dict[str, Any] | None = None
    wire: dict[str, Any] | None = None


CLONE: dict[str, Any] = {"model": None}
KINDS = (
    Kind("an Epson of today", sets()),
    Kind("an Epson that does not name itself", sets(model=None)),
    Kind("a clone with another name", sets(model="POS-80C")),
    Kind("answers DLE EOT, not GS r", sets(confirms=False, **CLONE), "SENT"),
    Kind("answers nothing", sets(silent=True, **CLONE), "SENT"),
    Kind("answers 1 and 4 only", sets(questions={1, 4}, **CLONE)),
    Kind("answers 1 only", sets(questions={1}, **CLONE)),
    Kind("answers 4 only", sets(questions={4}, **CLONE)),
    Kind("answers 2, 3, 4", sets(questions={2, 3, 4}, **CLONE)),
    Kind("answers 1 and 4, not GS r", sets(questions={1, 4}, confirms=False, **CLONE), "SENT"),
    Kind("answers twice", sets(habit="twice", **CLONE)),
    Kind("answers twice, not GS r", sets(habit="twice", confirms=False, **CLONE), "SENT"),
    Kind("answers one late", sets(habit="late", **CLONE)),
    Kind("answers one late, not GS r", sets(habit="late", confirms=False, **CLONE), "SENT"),
    Kind("answers 00 always", sets(habit="zero", **CLONE), "SENT"),
    Kind("answers after 0.6 s", sets(**CLONE), wire={"delay_s": 0.6}),
    Kind("answers after 1.0 s", sets(**CLONE), wire={"delay_s": 1.0}),
    Kind("answers after 1.8 s", sets(**CLONE), wire={"delay_s": 1.8}),
    Kind("answers in single bytes", sets(**CLONE), wire={"one_byte": True}),
    Kind("noise before its answers", sets(**CLONE), wire={"noise": 0.2}),
    Kind("tells by itself (ASB)", sets(), made={"asb": 0x0F}),
    Kind("tells by itself, paper near its end", sets(near_end_mm=2e9), made={"asb": 0x0F}),
    Kind("the drawer's wire is reversed", sets(drawer_open=True, **CLONE)),
    Kind("a buffer of 1 kB, slow paper", sets(**CLONE), made={"buffer_bytes": 1024, "speed_mm_s": 55}),
    Kind("the same, without answers", sets(silent=True, **CLONE), "SENT",
         made={"buffer_bytes": 1024, "speed_mm_s": 55}),
    Kind("starts in Chinese mode", sets(**CLONE), made={"chinese": True}),
    Kind("knows no QR command", sets(**CLONE), made={"native_qr": False}),
    Kind("reads 255 rows of a picture", sets(**CLONE), made={"native_qr": False, "rows_max": 0xFF}),
    Kind("sends everything back", sets(habit="echo"), None, "sends back"),
    Kind("another device", sets(habit="nonsense"), None, "no receipt printer"),
    Kind("the cover is open", lambda printer: printer.open_cover(), None, "cover"),
    Kind("without paper", lambda printer: printer.remove_paper(), None, "paper out"),
)  # fmt: skip


@dataclass(slots=True)
class Case:
    kind: Kind
    line: str
    printer: FakePrinter
    name: str
    port: str = ""
    state: str = ""
    says: str = ""
    seconds: float = 0.0


def made(kind: Kind, line: str) -> FakePrinter:
    """9600 baud on RS-232; the other two push back when they are full."""
    more = dict(kind.made or {})
    wire = Wire(**{"baud": 9600 if line == "RS-232" else None, **(kind.wire or {})})
    if line == "TCP":
        more["tcp_port"] = 0
    elif line == "USB":
        # A pty stands for /dev/usb/lp: what its line takes is not lost.
        more.pop("buffer_bytes", None)
    printer = FakePrinter(wire=wire, **more)
    kind.apply(printer)
    return printer


def is_whole(slip: Slip) -> bool:
    """Every line, and KRA's QR as a square: its own or a picture of 25 mm and more."""
    text = slip.text()
    lines = ("TAX INVOICE", "TOTAL ", "Brookside’s", "Receipt Signature:", "END OF LEGAL RECEIPT")
    square = any(isinstance(item, QrMark) for item in slip.items) or (
        sum(len(item.rows) for item in slip.items if isinstance(item, Picture)) > 25 * 8
    )
    plain = text.replace("'", "’")
    return square and all(line in plain for line in lines)


def the_sale(name: str) -> dict[str, Any]:
    sale = a_sale(printer=name)
    sale["lines"][0]["name"] = "Brookside’s café 500ml"
    return sale


async def outcome(shop: OpenShop, case: Case, begun: float) -> None:
    """Wait until the first slip is whole and its job has ended, or the status says what is to be done."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WITHIN_S):
        while not case.state:
            if case.kind.ends is None:
                status = {part["name"]: part for part in await shown(shop)}[case.name]
                if case.kind.says in (status["reason"] or ""):
                    case.state, case.says = "waits", status["reason"]
            elif any(is_whole(slip) for slip in case.printer.paper.slips):
                for state in ROWS:
                    path = f"/v1/print-jobs?state={state}"
                    jobs = (await shop.till().request("GET", path)).json["jobs"]
                    if case.name in {job["printer"] for job in jobs}:
                        case.state = state
            if not case.state:
                await asyncio.sleep(0.2)
    case.seconds = loop.time() - begun


@pytest.mark.timeout(600)
@pytest.mark.parametrize("line", LINES)
async def test_the_first_receipt_of_any_printer_is_whole_or_one_sentence_says_why(
    unit: UnitControl, shop_dir: Path, line: str
) -> None:
    cases = [Case(kind, line, made(kind, line), f"p{number}") for number, kind in enumerate(KINDS)]
    async with contextlib.AsyncExitStack() as stack:
        for case in cases:
            await stack.enter_async_context(case.printer)
            case.port = case.printer.device_path
            if line == "USB":
                link = shop_dir / case.name / "usb" / "lp0"
                link.parent.mkdir(parents=True)
                link.symlink_to(case.port)
                case.port = str(link)
        ports = {case.name: {"port": case.port, "baud": 9600} for case in cases}
        settings = settings_for(shop_dir, unit, ports, printing={"stale_minutes": 15})
        async with open_shop(settings) as shop:
            begun = asyncio.get_running_loop().time()
            for case in cases:
                assert (await shop.till().sell(case.name, the_sale(case.name))).status == 201
            await asyncio.gather(*(outcome(shop, case, begun) for case in cases))
    print(f"\n{'line':<7} {'behaviour':<38} {'ends as':<8} {'seconds':>7}  the page says")
    for case in cases:
        print(f"{line:<7} {case.kind.name:<38} {case.state:<8} {case.seconds:7.1f}  {case.says}")
    for case in cases:
        assert case.state == (case.kind.ends or "waits"), case.kind.name
        assert case.printer.lost_bytes == 0, case.kind.name
        whole = [slip for slip in case.printer.paper.slips if is_whole(slip)]
        assert len(whole) == (case.kind.ends is not None), case.kind.name
