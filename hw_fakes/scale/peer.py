"""The scale as a peer on a pty: a pan, what lies on it, how it comes to rest; asked by W, or sending.

Answers as the makers' manuals have them: Mettler Toledo's 8217 protocol (Diva service manual 6.1.4), A&D's
standard format (AD-4329A 12.1), CAS's 22 bytes (NT-200 14), Toledo's continuous output, the last digit first
of Yaohua's XK3190, the lines of Ohaus, and the answers of MT-SICS, NCI, CAS and Dibal. Shares nothing with any reader of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any, Literal, get_args

from hw_fakes.control import FLAG, NUMBER, TEXT, Knob, action, attribute
from hw_fakes.line import Wire
from hw_fakes.serial_device import SerialDevice

Protocol = Literal[
    "toledo", "and", "cas", "continuous", "yaohua", "ohaus", "sics", "nci", "cas-asked", "dibal"
]
# As its display shows it, or not at all.
Unit = Literal["kg", "KG", "Kg", "g", "lb", ""]
DIVISION = Decimal("0.005")
# Above the capacity by more than so many divisions: too much.
OVER_DIVISIONS = 9
POUND = Decimal("2.20462262")
# While it moves it shows something between: this part of the way, alternating.
SWING = (Decimal("0.6"), Decimal("0.9"))


class FakeScale(SerialDevice):
    """Async context manager. Weights in kg; `put` lays a load on the pan, `lift` takes it off."""

    def __init__(
        self,
        protocol: Protocol = "toledo",
        *,
        link: Path | None = None,
        wire: Wire | None = None,
        capacity_kg: Decimal = Decimal(15),
        settle_s: float = 0.0,
        interval_s: float = 0.05,
    ) -> None:
        super().__init__(link=link, wire=wire)
        self.protocol = protocol
        self.capacity_kg = capacity_kg
        self.settle_s = settle_s
        self.interval_s = interval_s
        self.unit: Unit = "kg"
        # Whether its 8217 answer has a point: some models leave it out.
        self.point = True
        # It hears the question and gives no answer.
        self.silent = False
        # It never comes to rest (somebody leans on the counter).
        self.restless = False
        self._load = Decimal(0)
        self._before = Decimal(0)
        self._zero = Decimal(0)
        self._tare = Decimal(0)
        self._moved_at = float("-inf")
        self._swings = 0
        self._heard = b""
        self._sending: asyncio.TimerHandle | None = None

    # --- the pan -------------------------------------------------------------------------------------

    def put(self, kg: Decimal | str) -> None:
        """So much lies on the pan now, instead of what lay there."""
        self._before, self._load = self._load, Decimal(kg)
        self._moved_at = asyncio.get_running_loop().time()
        self.note("load", kg=str(self._load))

    def lift(self) -> None:
        self.put(Decimal(0))

    @property
    def stable(self) -> bool:
        rested = asyncio.get_running_loop().time() - self._moved_at >= self.settle_s
        return rested and not self.restless

    @property
    def gross_kg(self) -> Decimal:
        """What it feels now, in divisions, from its zero."""
        felt = self._load
        if not self.stable:
            self._swings += 1
            felt = self._before + (self._load - self._before) * SWING[self._swings % 2]
        return _step(felt - self._zero)

    def press_zero(self) -> None:
        """Within 2 % of the capacity, at rest, and without a tare; otherwise it does nothing."""
        if self.stable and not self._tare and abs(self._load) <= self.capacity_kg / 50:
            self._zero = self._load
            self.note("zero", kg=str(self._zero))

    def press_tare(self) -> None:
        """What lies there is the container; nothing lying there, no tare."""
        if self.stable and self.gross_kg >= 0:
            self._tare = self.gross_kg
            self.note("tare", kg=str(self._tare))

    def clear_tare(self) -> None:
        if self.stable:
            self._tare = Decimal(0)

    def _felt(self) -> tuple[Decimal, bool, bool, bool]:
        """(net weight, at rest, too much, below zero)."""
        stable, gross = self.stable, self.gross_kg
        net = gross - self._tare
        over = gross > self.capacity_kg + OVER_DIVISIONS * DIVISION
        return net, stable, over, net < 0

    # --- asked by W ----------------------------------------------------------------------------------

    def hear(self, data: bytes) -> None:
        if self.protocol in ASKED:
            question, answer = ASKED[self.protocol]
            self._heard += data
            while question in self._heard:
                self._heard = self._heard.partition(question)[2]
                if not self.silent:
                    self._tell(answer(self))
        if self.protocol != "toledo":
            return
        for byte in data:
            match chr(byte):
                case "W":
                    self._answer()
                case "Z":
                    self.press_zero()
                    self._status()
                case "T":
                    self.press_tare()
                    self._status()
                case "C":
                    self.clear_tare()
                    self._status()

    def _answer(self) -> None:
        if self.silent:
            self.note("asked", answer=None)
            return
        net, stable, over, under = self._felt()
        if not stable or over or under:
            self._status()
            return
        shown = f"{net * POUND:06.2f}" if self.unit == "lb" else f"{net:06.3f}"
        if not self.point:
            shown = shown.replace(".", "")
        self._tell(f"\x02{shown}{'N' if self._tare else ''}\r".encode())

    def _status(self) -> None:
        net, stable, over, under = self._felt()
        status = 0x40 | (0 if stable else 1) | (2 if over else 0) | (4 if under else 0)
        if abs(self._load) > self.capacity_kg / 50:
            status |= 0x08
        if not net:
            status |= 0x10
        if self._tare:
            status |= 0x20
        self._tell(b"\x02?" + bytes([status]) + b"\r")

    def _tell(self, data: bytes) -> None:
        self.note("asked", answer=data.hex(" "))
        self.say(data)

    # --- sending by itself ---------------------------------------------------------------------------

    def plug(self) -> None:
        super().plug()
        if self.protocol not in ("toledo", *ASKED) and self._sending is None:
            self._send_on()

    def close(self) -> None:
        super().close()
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _send_on(self) -> None:
        if not self.silent:
            self.say(self.a_line())
        self._sending = asyncio.get_running_loop().call_later(self.interval_s, self._send_on)

    def a_line(self) -> bytes:
        """One line of the continuous output, for what it feels now."""
        if self.protocol in OTHER_LINES:
            return OTHER_LINES[self.protocol](self)
        net, stable, over, under = self._felt()
        state = "OL" if over else "ST" if stable else "US"
        kind = "NT" if self._tare else "GS"
        shown = Decimal("9999.999") if over else abs(net)
        if self.unit == "g":
            shown *= 1000
        elif self.unit == "lb":
            shown *= POUND
        digits = f"{shown:08.1f}"[:8] if self.unit == "g" else f"{shown:08.3f}"[:8]
        sign = "-" if under and not over else "+"
        if self.protocol == "cas":
            lamps = 0x80 | (0x40 if stable else 0) | (0 if self._tare else 4) | (0 if net else 1)
            head = f"{state},{kind},1".encode() + bytes([lamps]) + b","
            return (
                head
                + (sign if sign == "-" else "0").encode()
                + digits[1:].encode()
                + (f" {self.unit:>2}\r\n".encode())
            )
        return f"{state},{kind},{sign}{digits}{self.unit:>2}\r\n".encode()

    def continuous_line(self) -> bytes:
        """Toledo's continuous output, with its checksum."""
        net, stable, over, under = self._felt()
        b = 0x20 | (0x10 if self.unit.lower() == "kg" else 0) | (1 if self._tare else 0)
        b |= (2 if under else 0) | (4 if over else 0) | (0 if stable else 8)
        grams = f"{int(abs(net) * 1000):06d}{int(self._tare * 1000):06d}"
        frame = bytes((2, 0x2D, b, 0x20)) + grams.encode() + b"\r"
        return frame + bytes((-sum(frame) & 0x7F,))

    def last_digit_first_line(self) -> bytes:
        """Yaohua's format 1: the display read backwards, then its sign."""
        net, _, over, under = self._felt()
        shown = "9999999." if over else f"{abs(net):08.3f}"
        return b"=" + (shown[::-1][:7] + ("-" if under else shown[0])).encode()

    def ohaus_line(self) -> bytes:
        net, stable, over, _ = self._felt()
        if over:
            return b"  Err8.3\r\n"
        mark = " " if stable else "?"
        kind = "NET" if self._tare else "G"
        return f"{net:10.3f} {self.unit:5} {mark} {kind}\r\n".encode()

    # --- asked by another question -------------------------------------------------------------------

    def sics_answer(self) -> bytes:
        net, stable, over, under = self._felt()
        if over or under:
            return b"S +\r\n" if over else b"S -\r\n"
        return f"S {'S' if stable else 'D'} {net:10.3f} {self.unit}\r\n".encode()

    def nci_answer(self) -> bytes:
        net, stable, over, under = self._felt()
        status = bytes((0x30 | (0 if stable else 1), 0x30 | (2 if over else 0) | under)) + b"\r\x03"
        return f"\n{abs(net):08.3f}{self.unit.upper()}\r\n".encode() + status

    def cas_answer(self) -> bytes:
        net, stable, over, under = self._felt()
        state = "F" if over else "S" if stable else "U"
        body = f"{state}{'-' if under else ' '}{abs(net):06.3f}{self.unit:>2}".encode()
        check = 0
        for byte in body:
            check ^= byte
        return b"\x01\x02" + body + bytes((check,)) + b"\x03\x04"

    def dibal_answer(self) -> bytes:
        net, _, over, under = self._felt()
        status = 1 if over or under else 0
        digits = f"99{status}{int(abs(net) * 1000):05d}0000000"
        check = 0
        for digit in digits:
            check ^= int(digit)
        return f"{digits}{chr(0x30 + check)}\r\n".encode()

    # --- control -------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        net, stable, over, under = self._felt()
        return super().state() | {
            "protocol": self.protocol,
            "loadKg": str(self._load),
            "tareKg": str(self._tare),
            "zeroKg": str(self._zero),
            "netKg": str(net),
            "stable": stable,
            "overload": over,
            "belowZero": under,
        }

    @property
    def knobs(self) -> dict[str, Knob]:
        return super().knobs | {
            "loadKg": Knob(self._put_text, TEXT),
            "settleS": attribute(self, "settle_s", NUMBER),
            "restless": attribute(self, "restless", FLAG),
            "silent": attribute(self, "silent", FLAG),
            "unit": Knob(self._set_unit, TEXT),
            "point": attribute(self, "point", FLAG),
            "zero": action(self.press_zero),
            "tare": action(self.press_tare),
            "clearTare": action(self.clear_tare),
        }

    def _put_text(self, kg: str) -> None:
        try:
            value = Decimal(kg)
        except ArithmeticError:
            raise ValueError("loadKg must be a weight in kg, as text") from None
        if not value.is_finite() or abs(value) > 1000:
            raise ValueError("loadKg must be a weight a pan can carry")
        self.put(value)

    def _set_unit(self, unit: str) -> None:
        if unit not in get_args(Unit):
            raise ValueError("unit must be kg, KG, Kg, g, lb or empty")
        self.unit = unit  # type: ignore[assignment]


OTHER_LINES: dict[str, Callable[[FakeScale], bytes]] = {
    "continuous": FakeScale.continuous_line,
    "yaohua": FakeScale.last_digit_first_line,
    "ohaus": FakeScale.ohaus_line,
}


ASKED: dict[str, tuple[bytes, Callable[[FakeScale], bytes]]] = {
    "sics": (b"SI\r\n", FakeScale.sics_answer),
    "nci": (b"W\r", FakeScale.nci_answer),
    "cas-asked": (b"\x05\x11", FakeScale.cas_answer),
    "dibal": (b"98000001\r\n", FakeScale.dibal_answer),
}


def _step(kg: Decimal) -> Decimal:
    """In whole divisions, as it is shown."""
    return (kg / DIVISION).quantize(Decimal(1), ROUND_HALF_EVEN) * DIVISION
