"""Sections of the settings that are about the counter: printers, print queue, reports, devices."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0)]
Baud = Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200]
PaymentMethod = Literal[
    "CASH", "CREDIT", "CASH_CREDIT", "BANK_CHECK", "CARD", "MOBILE_MONEY", "OTHER"
]
Flow = Literal["none", "xonxoff", "rtscts", "dsrdtr"]
ScaleProtocol = Literal[
    "toledo",
    "and",
    "toledo-continuous",
    "sics",
    "nci",
    "cas",
    "dibal",
    "yaohua",
    "digi",
    "ohaus",
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PrinterSettings(Section):
    """One receipt printer. `port`: a serial device by id, or socket://host:9100."""

    port: str
    baud: Baud = 9600
    profile: str = "default"
    paper_mm: Literal[58, 80] = 80
    columns: Annotated[int, Field(ge=24, le=64)] | None = None
    cut: bool = True
    # How the printer says "not so fast": by characters or by a wire of its cable.
    flow: Flow = "none"
    # How it confirms a slip: as is found out when it is plugged in, GS r, GS ( H, or not at all (then every slip
    # ends as "sent").
    confirm: Literal["auto", "status", "process-id", "none"] = "auto"
    # Its own QR command, or a picture. By itself: its own where the profile or its answer to GS I says so.
    qr: Literal["auto", "native", "picture"] = "auto"
    # The cutter's command: as the profile says, GS V 0, GS V 1, GS V 66 (it feeds by itself), ESC i, ESC m.
    cut_command: Literal["profile", "full", "partial", "feed", "esc-i", "esc-m"] = "profile"
    # Without flow control no more than this is on its way, and a printer that answers nothing is taken to be no
    # faster than this. Raise them for a printer whose leaflet names more.
    buffer_bytes: Annotated[int, Field(ge=256, le=1_000_000)] = 1024
    speed_mm_s: Annotated[float, Field(ge=10, le=500)] = 50
    # The pin of the cash drawer's plug; without it none hangs on this printer.
    drawer_pin: Literal[2, 5] | None = None
    # How long the drawer's coil is switched on.
    drawer_pulse_ms: Annotated[int, Field(ge=2, le=510)] = 50
    # The printers that take over its slips while it fails, best first.
    failover: tuple[str, ...] = ()


class PrintingSettings(Section):
    """The print queue."""

    # Slips older than this when the printer is well again wait for a tap; 0: never.
    stale_minutes: Annotated[float, Field(ge=0)] = 15
    failover_s: Annotated[float, Field(ge=0)] = 10


class ReportSettings(Section):
    """The day's close."""

    # Close by itself at midnight (Nairobi) what nobody closed (TIS 16.1: mandatory, daily).
    by_itself: bool = True
    # Print each close on this printer.
    printer: str | None = None
    # Tell the unit (`/reports/saveZReports`); whether the Kenyan build knows it is not published.
    to_unit: bool = False


class ReceiptSettings(Section):
    # Without these two: the usual greeting and thanks, in the receipt's language.
    commercial_message: Annotated[str, Field(max_length=60)] | None = None
    footer_lines: tuple[str, ...] | None = None
    language: Literal["en", "sw"] = "en"
    # Not required by KRA's texts, expected by many shops (etims.md 4.4).
    legal_end_line: bool = True
    # KRA's logo stands on every receipt (TIS 6.28): a black and white PNG as KRA gives it, at most 384
    # dots wide for 58 mm paper and 576 for 80 mm. At 9600 baud 384 x 80 dots take four seconds.
    logo: Path | None = None


class DeviceSettings(Section):
    """What every serial device has. `port`: by id or by path, never ttyUSB0, which moves."""

    port: str
    baud: Baud = 9600
    till: str | None = None


class DisplaySettings(DeviceSettings):
    """A customer display: two lines that say item, total, change, and when nothing can be sold."""

    protocol: Literal["escpos", "cd5220"] = "cd5220"
    columns: Annotated[int, Field(ge=8, le=40)] = 20
    idle_text: Annotated[str, Field(max_length=40)] = "KARIBU"


class ScaleSettings(DeviceSettings):
    """A scale: `toledo` is asked by W (8217 and its kin), `and` sends lines (A&D, CAS); the others by
    maker, in docs/operating/devices.md."""

    protocol: ScaleProtocol = "toledo"
    # What the scale's format leaves out: the unit, and the digits behind the point.
    unit: Literal["kg", "g"] | None = None
    decimals: Annotated[int, Field(ge=0, le=4)] | None = None
    parity: Literal["N", "E", "O"] = "N"
    data_bits: Literal[7, 8] = 8


class ScannerSettings(DeviceSettings):
    """A barcode scanner; what it reads goes to the till's event stream."""

    # What ends a code: CR, LF, TAB, NUL or ETX; or, for a scanner without a suffix, a silence.
    suffix: Literal["auto", "none"] = "auto"
    # With suffix "none": a code ends after this silence.
    silence_s: Annotated[float, Field(ge=0.05, le=1.0)] = 0.2
    # The three characters before a code that name its kind, as ]E0: left out, or passed on.
    aim_prefix: Literal["strip", "keep"] = "strip"


class SerialTillSettings(DeviceSettings):
    """A till without a network: the framed protocol of docs/reference/serial-till.md."""

    till: str
    baud: Baud = 115200


def _codec(name: str) -> str:
    """Return Python's own name of a text encoding. ValueError when there is none of this name."""
    try:
        codec = codecs.lookup(name)
        if b"A".decode(codec.name) != "A":
            raise LookupError
    except (LookupError, UnicodeError):
        raise ValueError(f"{name} is no text encoding; cp437, cp1252 and utf-8 are some") from None
    return codec.name


class CaptureSettings(DeviceSettings):
    """A till that only knows how to print, and how its slips are read (docs/operating/capture.md).

    Patterns are regular expressions for one line each, with named groups: `item` has name, amount and
    optionally quantity, price, tax; `total` has amount; `receipt` has number and optionally date. Every
    other line must fit one of `ignore`, or the slip is not read with certainty.
    """

    till: str
    item: str
    total: str
    receipt: str
    # Quantity and price on a line of their own, below the item or (`detail_first`) above it.
    item_detail: str | None = None
    detail_first: bool = False
    # What tells one day's receipt 0001 from the next day's, as it stands on the slip.
    date: str | None = None
    payment: str | None = None
    # The till's words for tenders and the API's; without a word the one under "".
    payment_methods: dict[str, PaymentMethod] = {"": "CASH"}
    ignore: tuple[str, ...] = ()
    # A slip with one of these is no sale (an X report, "NO SALE"): printed as it is.
    not_a_sale: tuple[str, ...] = ()
    # A slip with one of these says that it was printed before.
    copies: tuple[str, ...] = ()
    # The discount of the item above, and the VAT that the slip shows: compared with its items.
    discount: str | None = None
    vat: str | None = None
    # Names that are goods although a word of them is a tax, a charge or the like; and more such words.
    goods: tuple[str, ...] = ()
    not_goods: tuple[str, ...] = ()
    # The till's tax marks and KRA's letters; without a mark the letter under "", and none by default.
    tax_letters: dict[str, Literal["A", "B", "C", "D", "E"]] = Field(default_factory=dict)
    # Item codes by the name on the slip; others get `item_code`.
    item_codes: dict[str, str] = Field(default_factory=dict)
    item_code: str = "KE2NTXU0000001"
    # A slip without a cut ends after so long without a byte; 0: only a cut ends it.
    silence_s: Annotated[float, Field(ge=0, le=600)] = 3
    # The line that ends a slip of a till that neither cuts nor prints in one go.
    last_line: str | None = None
    # A Python codec for letters above ASCII of a till that chooses no code page; without it such a slip
    # is not read with certainty.
    code_page: Annotated[str, AfterValidator(_codec)] | None = None

    def expressions(self) -> dict[str, tuple[str, ...]]:
        """Every pattern by its setting."""
        single = (
            "item",
            "total",
            "receipt",
            "item_detail",
            "date",
            "payment",
            "vat",
            "discount",
            "last_line",
        )
        found = {name: (value,) for name in single if (value := getattr(self, name)) is not None}
        return found | {
            name: getattr(self, name) for name in ("ignore", "not_a_sale", "copies", "goods")
        }


def ports_of(*groups: Mapping[str, DeviceSettings | PrinterSettings]) -> list[tuple[str, str]]:
    """(name, port) of every device."""
    return [(name, part.port) for group in groups for name, part in group.items()]


def check_printers(
    printers: Mapping[str, PrinterSettings],
    reports: ReportSettings,
    add: Callable[[str, str], None],
) -> None:
    """Names that lead nowhere."""
    for name, part in printers.items():
        for other in part.failover:
            if other not in printers or other == name:
                add(f"printers.{name}.failover", f"{other} is not another printer of [printers]")
    if reports.printer is not None and reports.printer not in printers:
        add("reports.printer", f"{reports.printer} is not a printer of [printers]")


# Dots that a head prints across the paper, at 203 dpi.
PAPER_DOTS = {58: 384, 80: 576}


def check_logo(
    logo: Path | None, printers: Mapping[str, PrinterSettings], add: Callable[[str, str], None]
) -> None:
    """A logo that a printer would leave out: KRA wants it on every receipt (TIS 6.28)."""
    if logo is None:
        return
    try:
        with logo.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        add("receipt.logo", f"{logo} cannot be read: {error.strerror}")
        return
    if not head.startswith(b"\x89PNG\r\n\x1a\n") or len(head) < 24:
        add("receipt.logo", f"{logo} is not a PNG picture")
        return
    width = int.from_bytes(head[16:20], "big")
    for name, part in printers.items():
        most = PAPER_DOTS[part.paper_mm]
        if width > most:
            add(
                "receipt.logo",
                f"{logo.name} is {width} dots wide, and printer {name} prints {most} on its"
                f" {part.paper_mm} mm paper; make the picture narrower",
            )


# The named groups a pattern must have, by its setting; others it may have.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "item": ("name", "amount"),
    "total": ("amount",),
    "receipt": ("number",),
    "date": ("date",),
    "payment": ("amount",),
    "vat": ("amount",),
    "discount": ("amount",),
}


def check_captures(
    captures: Mapping[str, CaptureSettings], add: Callable[[str, str], None]
) -> None:
    """Patterns that are none or lack a group, and tills that two captures would share."""
    owners: dict[str, str] = {}
    for name, part in captures.items():
        if part.till in owners:
            # Numbers of two tills would be taken for reprints of each other.
            add(f"captures.{name}.till", f"{part.till} is the till of {owners[part.till]} already")
        owners.setdefault(part.till, name)
        for setting, expressions in part.expressions().items():
            for expression in expressions:
                try:
                    groups = re.compile(expression).groupindex
                except re.error as error:
                    add(f"captures.{name}.{setting}", f"{expression!r} is no pattern: {error}")
                    continue
                missing = [group for group in GROUPS.get(setting, ()) if group not in groups]
                if missing:
                    add(f"captures.{name}.{setting}", f"has no group (?P<{missing[0]}>...)")


def check_devices(
    tills: set[str],
    captures: Mapping[str, CaptureSettings],
    others: Sequence[Mapping[str, DeviceSettings]],
    add: Callable[[str, str], None],
) -> None:
    """Devices of tills that are not there would speak without a token."""
    for group in (captures, *others):
        for name, part in group.items():
            if part.till is not None and part.till not in tills:
                add(f"{name}.till", f"{part.till} is not in [[tills]]")
    check_captures(captures, add)


def check_ports(
    devices: list[tuple[str, str]], excluded: tuple[str, ...], add: Callable[[str, str], None]
) -> None:
    """One owner per port, one name per device, and none on a port that is to be left alone.

    By name only: where two names lead to one device today, `pos-gateway check` says so, but a link that
    has moved must not keep a shop from selling.
    """
    owners: dict[str, str] = {}
    names: set[str] = set()
    for name, port in devices:
        if port in owners:
            add(name, f"has the same port as {owners[port]}; a port has one owner")
        if port in excluded:
            add(name, f"has the port {port}, which is one of excluded_ports")
        if name in names:
            add(name, "is the name of two devices; every device has its own")
        owners.setdefault(port, name)
        names.add(name)
