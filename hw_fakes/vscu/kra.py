"""KRA's side of the fake unit's link, as a server that can be stopped: point `api.external.domain` at it.

The unit asks it before every read and upload. Stopped, the socket is refused; captive, everything is
answered 200 with a login page.
"""

from __future__ import annotations

from aiohttp import web

from hw_fakes.ports import free_port


class FakeKra:
    """`start` and `stop` as often as wanted, always on the same loopback port."""

    def __init__(self) -> None:
        self.captive = False
        self.asked = 0
        # Stopped, it must still be this one's: no port that the kernel gives to connections.
        self._port = free_port()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.captive:
            return web.Response(text="<html>Log in to the hotel</html>", content_type="text/html")
        return web.json_response({"resultCd": "000", "resultMsg": "It is succeeded"})
