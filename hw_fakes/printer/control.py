"""The fake printer's hands over HTTP: state, journal and knobs as of every fake, and its paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from hw_fakes.control import FLAG, NOTHING, NUMBER, ControlServer, Knob, attribute
from hw_fakes.printer.peer import ENDLESS_MM, FakePrinter
from hw_fakes.printer.render import to_png


def knobs(printer: FakePrinter) -> dict[str, Knob]:
    p, wire = printer, printer.wire

    def switch(on: Callable[[], None], off: Callable[[], None], get: Callable[[], Any]) -> Knob:
        return Knob(lambda value: on() if value else off(), FLAG, get)

    return {
        "paperOut": switch(p.remove_paper, p.load_paper, lambda: p.paper_out),
        "rollMm": Knob(
            lambda value: p.load_paper(value or ENDLESS_MM), (*NUMBER, *NOTHING), lambda: p.roll_mm
        ),
        "nearEndMm": attribute(p, "near_end_mm", NUMBER),
        "coverOpen": switch(p.open_cover, p.close_cover, lambda: p.cover_open),
        "cutterJammed": Knob(p.jam_cutter, FLAG, lambda: p.cutter_jammed),
        "offline": Knob(p.go_offline, FLAG, lambda: p.held_offline),
        "error": Knob(p.fail, FLAG, lambda: p.error),
        "powered": switch(p.power_on, p.power_off, lambda: p.powered),
        "plugged": switch(p.plug, p.unplug, lambda: p.plugged),
        "drawerOpen": switch(p.pull_drawer, p.close_drawer, lambda: p.drawer_open),
        "stalled": switch(p.stall, p.resume, lambda: p.stalled),
        "silent": attribute(p, "silent", FLAG),
        "confirms": attribute(p, "confirms", FLAG),
        "habit": attribute(p, "habit", (str,)),
        "questions": Knob(
            lambda value: setattr(p, "questions", set(value)), (list,), lambda: sorted(p.questions)
        ),
        "model": attribute(p, "model", (str, *NOTHING)),
        "shakenS": attribute(p, "shaken_s", NUMBER),
        "wrongIds": attribute(p, "wrong_ids", FLAG),
        "asb": attribute(p, "asb_switch", (int,)),
        "speedMmS": attribute(p, "speed_mm_s", (*NUMBER, *NOTHING)),
        "baud": attribute(wire, "baud", (int, *NOTHING)),
        "oneByte": attribute(wire, "one_byte", FLAG),
        "loseEvery": attribute(wire, "lose_every", (int,)),
        "loseAnswers": attribute(wire, "lose_answers", NUMBER),
        "noise": attribute(wire, "noise", NUMBER),
        "delayMs": Knob(
            lambda value: setattr(wire, "delay_s", value / 1000),
            NUMBER,
            lambda: round(wire.delay_s * 1000),
        ),
        "stuck": Knob(p.stick, FLAG, lambda: p.stuck),
    }


class PrinterControl(ControlServer):
    """Async context manager: the control surface on a loopback port (0: any)."""

    def __init__(self, printer: FakePrinter, port: int = 0) -> None:
        super().__init__(self, port)
        self._printer = printer
        self.knobs = knobs(printer)

    def state(self) -> dict[str, Any]:
        return state(self._printer)

    def journal(self) -> dict[str, Any]:
        return journal(self._printer)

    def routes(self, app: web.Application) -> None:
        super().routes(app)
        app.router.add_get("/_fake/paper.png", self._png)
        app.router.add_get("/_fake/paper.txt", self._text)

    async def _journal(self, request: web.Request) -> web.Response:
        return web.json_response(self.journal())

    async def _png(self, request: web.Request) -> web.Response:
        slips = self._printer.paper.slips
        if not slips:
            return web.json_response({"error": "no slip has come out yet"}, status=404)
        return web.Response(body=to_png(slips[-1]), content_type="image/png")

    async def _text(self, request: web.Request) -> web.Response:
        paper = self._printer.paper
        cut = "\n- - - - - - - - - - - 8<\n"
        return web.Response(text=cut.join(slip.text() for slip in [*paper.slips, paper.open]))


def state(printer: FakePrinter) -> dict[str, Any]:
    """Everything about it now; its knobs under their names."""
    return {
        "device": printer.device_path,
        "slips": len(printer.paper.slips),
        "scraps": len(printer.paper.scraps),
        "usedMm": round(printer.used_mm, 1),
        "nearEnd": printer.near_end,
        "offline": printer.offline,
        "heldBytes": printer.held_bytes,
        "lostBytes": printer.lost_bytes,
        "ignoredBytes": printer.ignored_bytes,
        "drawerKicks": printer.drawer_kicks,
        "problems": printer.problems,
        "knobs": {name: knob.get() for name, knob in knobs(printer).items()},
    }


def journal(printer: FakePrinter) -> dict[str, Any]:
    """Every slip that was cut, oldest first, and the beginnings that power cuts left. `began` and
    `ended` in seconds of the machine's monotonic clock."""
    return {
        "slips": [
            {"text": s.text(), "bytes": len(s.raw), "began": s.began, "ended": s.ended}
            for s in printer.paper.slips
        ],
        "scraps": [slip.text() for slip in printer.paper.scraps],
        "open": printer.paper.open.text(),
    }
