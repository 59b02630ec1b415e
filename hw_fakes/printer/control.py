"""The fake printer's hands over HTTP: `/_fake/state`, `/_fake/journal`, `/_fake/knobs`, `/_fake/paper.png`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from hw_fakes.printer.peer import ENDLESS_MM, FakePrinter
from hw_fakes.printer.render import to_png

# Knob -> (what sets it, what reads it).
Knob = tuple[Callable[[FakePrinter, Any], object], Callable[[FakePrinter], Any]]


def _attribute(name: str) -> Knob:
    return (lambda p, value: setattr(p, name, value)), (lambda p: getattr(p, name))


def _wire(name: str) -> Knob:
    return (lambda p, value: setattr(p.wire, name, value)), (lambda p: getattr(p.wire, name))


def _switch(on: str, off: str, read: Callable[[FakePrinter], Any]) -> Knob:
    return (lambda p, value: getattr(p, on if value else off)()), read


KNOBS: dict[str, Knob] = {
    "paperOut": _switch("remove_paper", "load_paper", lambda p: p.paper_out),
    "rollMm": (lambda p, value: p.load_paper(value or ENDLESS_MM), lambda p: p.roll_mm),
    "nearEndMm": _attribute("near_end_mm"),
    "coverOpen": _switch("open_cover", "close_cover", lambda p: p.cover_open),
    "cutterJammed": (lambda p, value: p.jam_cutter(value), lambda p: p.cutter_jammed),
    "offline": (lambda p, value: p.go_offline(value), lambda p: p.held_offline),
    "error": (lambda p, value: p.fail(value), lambda p: p.error),
    "powered": _switch("power_on", "power_off", lambda p: p.powered),
    "plugged": _switch("plug", "unplug", lambda p: p.plugged),
    "drawerOpen": _switch("pull_drawer", "close_drawer", lambda p: p.drawer_open),
    "stalled": _switch("stall", "resume", lambda p: p.stalled),
    "silent": _attribute("silent"),
    "confirms": _attribute("confirms"),
    "wrongIds": _attribute("wrong_ids"),
    "asb": _attribute("asb_switch"),
    "speedMmS": _attribute("speed_mm_s"),
    "baud": _wire("baud"),
    "oneByte": _wire("one_byte"),
    "loseEvery": _wire("lose_every"),
    "loseAnswers": _wire("lose_answers"),
    "noise": _wire("noise"),
    "delayMs": (
        lambda p, value: setattr(p.wire, "delay_s", value / 1000),
        lambda p: round(p.wire.delay_s * 1000),
    ),
    "stuck": (lambda p, value: p.stick(value), lambda p: p.stuck),
}


class PrinterControl:
    """Async context manager: the control surface on a loopback port (0: any)."""

    def __init__(self, printer: FakePrinter, port: int = 0) -> None:
        self._printer = printer
        self._port = port
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> PrinterControl:
        app = web.Application()
        app.router.add_get("/_fake/state", self._state)
        app.router.add_get("/_fake/journal", self._journal)
        app.router.add_post("/_fake/knobs", self._knobs)
        app.router.add_get("/_fake/paper.png", self._png)
        app.router.add_get("/_fake/paper.txt", self._text)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(state(self._printer))

    async def _journal(self, request: web.Request) -> web.Response:
        return web.json_response(journal(self._printer))

    async def _knobs(self, request: web.Request) -> web.Response:
        try:
            wanted = json.loads(await request.read())
            unknown = sorted(set(wanted) - set(KNOBS))
        except (ValueError, TypeError):
            return web.json_response({"error": "a JSON object of knobs is wanted"}, status=400)
        if unknown:
            error = {"error": f"unknown: {', '.join(unknown)}", "knobs": sorted(KNOBS)}
            return web.json_response(error, status=400)
        for name, value in wanted.items():
            KNOBS[name][0](self._printer, value)
        return web.json_response(state(self._printer))

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
    """Everything about it now; `knobs` with the names that /_fake/knobs takes."""
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
        "knobs": {name: read(printer) for name, (_, read) in KNOBS.items()},
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
