"""The control interface that serial fakes have in common: HTTP on the loopback, under `/_fake/`.

`GET state`, `GET journal[?since=N]`, `POST knobs` with a JSON object; 400 for an unknown knob or a value
it cannot take, and then nothing is turned. `GET picture` where the device can be photographed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Knob:
    """`put` may raise ValueError for a value of the right kind; `kinds` are JSON's as Python's. `get`
    tells how it stands, where the device's state does not."""

    put: Callable[[Any], object]
    kinds: tuple[type, ...]
    get: Callable[[], Any] = lambda: None

    def accepts(self, value: Any) -> bool:
        return type(value) in self.kinds


NUMBER = (int, float)
TEXT = (str,)
FLAG = (bool,)
NOTHING = (type(None),)


def attribute(owner: object, name: str, kinds: tuple[type, ...]) -> Knob:
    """A knob that sets an attribute."""
    return Knob(lambda value: setattr(owner, name, value), kinds, lambda: getattr(owner, name))


def action(do: Callable[[], None]) -> Knob:
    """A knob that is pressed: `true`."""
    return Knob(lambda value: do() if value else None, FLAG)


class Controlled(Protocol):
    """What a fake offers. `knobs`: name -> Knob."""

    @property
    def knobs(self) -> Mapping[str, Knob]: ...

    def state(self) -> dict[str, Any]: ...

    def journal(self) -> list[dict[str, Any]]: ...


class ControlServer:
    """Async context manager; `url` once it listens. Port 0 takes a free one."""

    def __init__(self, device: Controlled, port: int = 0) -> None:
        self._device = device
        self._port = port
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> ControlServer:
        app = web.Application()
        self.routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/_fake/state", self._state)
        app.router.add_get("/_fake/journal", self._journal)
        app.router.add_get("/_fake/picture", self._picture)
        app.router.add_post("/_fake/knobs", self._knobs)

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(self._device.state())

    async def _journal(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdigit()):
            return _refused("since must be a number")
        return web.json_response(self._device.journal()[int(since) :])

    async def _picture(self, request: web.Request) -> web.Response:
        picture = getattr(self._device, "picture", None)
        if picture is None:
            raise web.HTTPNotFound(text="there is nothing to see on this device")
        return web.Response(body=picture(), content_type="image/png")

    async def _knobs(self, request: web.Request) -> web.Response:
        try:
            wanted = json.loads(await request.text())
        except ValueError:
            return _refused("the body is not JSON")
        if not isinstance(wanted, dict):
            return _refused("the body must be an object of knobs")
        knobs = self._device.knobs
        for name, value in wanted.items():
            if name not in knobs:
                return _refused(f"unknown knob {name}", knobs=sorted(knobs))
            if not knobs[name].accepts(value):
                return _refused(f"{name} cannot be {json.dumps(value)}")
        try:
            for name, value in wanted.items():
                knobs[name].put(value)
        except ValueError as error:
            return _refused(str(error))
        return web.json_response(self._device.state())


def _refused(why: str, **more: Any) -> web.Response:
    return web.json_response({"error": why, **more}, status=400)


def alone(prog: str, what: str | None) -> argparse.ArgumentParser:
    """The options of every serial fake that runs on its own."""
    parser = argparse.ArgumentParser(prog=f"python -m hw_fakes.{prog}", description=what)
    parser.add_argument("--link", type=Path, help="a stable name for the pty")
    parser.add_argument("--control", type=int, metavar="PORT", help="HTTP control on 127.0.0.1")
    return parser


def run_alone(name: str, device: Any, control: int | None) -> None:
    """Until Ctrl-C: the device plugged in, and its control interface if a port is given."""

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(device)
            print(f"the {name} is on {device.device_path}", flush=True)
            if control is not None:
                server = await stack.enter_async_context(ControlServer(device, control))
                print(f"its control is on {server.url}/_fake/state", flush=True)
            await asyncio.Event().wait()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        pass
