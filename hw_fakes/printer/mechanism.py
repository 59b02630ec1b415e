"""The printer's body: roll, sensors, cover, cutter, drawer, power. No bytes and no time in here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hw_fakes.printer.paper import DOTS_PER_MM

# A new 80 mm roll of the usual 80 mm diameter holds about this much paper.
ROLL_MM = 80_000.0
# Where the near-end switch closes: how much is left on the core then varies; some metres.
NEAR_END_MM = 3_000.0


@dataclass(slots=True)
class Mechanism:
    """State of the body. `changed` is called after every change from outside or by printing."""

    roll_mm: float = ROLL_MM
    near_end_mm: float = NEAR_END_MM
    has_cutter: bool = True
    # Between the print head and the cutter: what is printed last is still below the knife.
    cutter_gap_mm: float = 12.0
    cover_open: bool = False
    power: bool = True
    feed_button: bool = False
    cutter_jammed: bool = False
    # A cut was tried with the cutter jammed: stands still until DLE ENQ or power off.
    cutter_error: bool = False
    unrecoverable_error: bool = False
    head_hot: bool = False
    drawer_open: bool = False
    drawer_jammed: bool = False
    drawer_kicks: list[int] = field(default_factory=list)
    cuts: int = 0
    changed: Callable[[], None] = lambda: None

    @property
    def paper_end(self) -> bool:
        return self.roll_mm <= 0

    @property
    def near_end(self) -> bool:
        return self.roll_mm <= self.near_end_mm

    @property
    def error(self) -> bool:
        return self.cutter_error or self.unrecoverable_error or self.head_hot

    @property
    def offline(self) -> bool:
        """Not able to print: what Epson's status calls offline."""
        return (
            not self.power
            or self.cover_open
            or self.paper_end
            or self.feed_button
            or self.error
        )

    @property
    def gap_dots(self) -> int:
        return round(self.cutter_gap_mm * DOTS_PER_MM)

    def set(self, **values: object) -> None:
        """Changes fields and says so once."""
        for name, value in values.items():
            setattr(self, name, value)
        self.changed()

    def feed(self, dots: int) -> None:
        """The paper moves; the end of the roll may come with it."""
        before = (self.near_end, self.paper_end)
        self.roll_mm = max(0.0, self.roll_mm - dots / DOTS_PER_MM)
        if before != (self.near_end, self.paper_end):
            self.changed()

    def try_cut(self) -> bool:
        """False with the knife stuck: then the printer stands in a recoverable error."""
        if self.cutter_jammed:
            self.set(cutter_error=True)
            return False
        self.cuts += 1
        return True

    def kick(self, pin: int) -> None:
        """The drawer's solenoid gets its pulse, on connector pin 2 or 5."""
        self.drawer_kicks.append(pin)
        if not self.drawer_jammed:
            self.drawer_open = True
        self.changed()

    # --- status bytes (Epson's bit tables; bit 1 and 4 of DLE EOT answers are always set) ---------

    @property
    def drawer_bit(self) -> int:
        """Connector pin 3 is high while the drawer is shut, as with a switch that closes on open."""
        return 0 if self.drawer_open else 0x04

    def real_time_status(self, which: int) -> int | None:
        """The answer to DLE EOT 1 to 4; None where there is none."""
        if which == 1:
            return (
                0x12
                | self.drawer_bit
                | (0x08 if self.offline else 0)
                | (0x20 if self.cutter_error else 0)
                | (0x40 if self.feed_button else 0)
            )
        if which == 2:
            return (
                0x12
                | (0x04 if self.cover_open else 0)
                | (0x08 if self.feed_button else 0)
                | (0x20 if self.paper_end else 0)
                | (0x40 if self.error else 0)
            )
        if which == 3:
            return (
                0x12
                | (0x08 if self.cutter_error else 0)
                | (0x20 if self.unrecoverable_error else 0)
                | (0x40 if self.head_hot else 0)
            )
        if which == 4:
            return 0x12 | (0x0C if self.near_end else 0) | (0x60 if self.paper_end else 0)
        return None

    def paper_status(self) -> int:
        """The answer to GS r 1 and ESC v."""
        return (0x03 if self.near_end else 0) | (0x0C if self.paper_end else 0)

    def drawer_status(self) -> int:
        """The answer to GS r 2 and ESC u: bit 0 is connector pin 3."""
        return 0 if self.drawer_open else 1

    def automatic_status(self) -> bytes:
        """The four bytes of GS a."""
        first = (
            0x10
            | self.drawer_bit
            | (0x08 if self.offline else 0)
            | (0x20 if self.cover_open else 0)
            | (0x40 if self.feed_button else 0)
        )
        second = (
            (0x08 if self.cutter_error else 0)
            | (0x20 if self.unrecoverable_error else 0)
            | (0x40 if self.head_hot else 0)
        )
        return bytes([first, second, self.paper_status(), 0])
