"""Serves what to do when the gateway cannot start: a till and a phone get an answer, not silence.

Nothing is signed, read or written. With a damaged store the process stays until it is stopped, because a restart would
only find the same; otherwise until the cause is gone, or a minute has passed.
"""

from __future__ import annotations

import asyncio
import html
import logging
from collections.abc import Callable

from aiohttp import web

from gateway.api import problem
from gateway.connection_guard import ConnectionGuard
from gateway.errors import GatewayError
from gateway.listen import listen_at
from gateway.settings import Settings

log = logging.getLogger(__name__)

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5"><title>POS gateway: stopped</title>
<body style="font:16px/1.5 sans-serif;margin:1rem;max-width:40rem">
<h1 style="background:#b3261e;color:#fff;padding:1rem;border-radius:.8rem">Nothing is signed</h1>
<p><b>{detail}</b></p>
<p>What to do, in this order:</p>
<ol><li>Do not delete anything in <code>{store}</code>: it holds the fiscal receipts of this shop.</li>
{advice}</ol>
<p>Code {code}. The tills get this code, too: a sale that was sent before may be signed, so
none is rung up again.</p></body></html>"""
STEPS = """<li>Stop the service: <code>systemctl stop pos-gateway</code></li>
<li>{step}</li>
<li>Start it again: <code>systemctl start pos-gateway</code></li>"""
RESTORE = STEPS.format(
    step="Put the last backup back: "
    "<code>pos-gateway restore {backups}/&lt;the newest file&gt;</code>"
)
UPGRADE = STEPS.format(
    step="Install the newer version of the gateway again; an older one cannot read its store."
)
ROOM = """<li>Free 16 MB or more: <code>journalctl --vacuum-size=50M</code>, <code>apt clean</code>, old
backups in <code>{backups}</code>.</li>
<li>The gateway goes on by itself within seconds.</li>"""
READ_ONLY = """<li>Look at the kernel's messages: <code>dmesg | tail -50</code>. A disk that fails is mounted read-only
by the kernel.</li>
<li>Check the disk (<code>fsck</code>), replace it if it is worn out, and mount it for writing.</li>
<li>The gateway goes on by itself within seconds.</li>"""
BUSY = """<li>Close the program that has the store open: <code>fuser -v {store}/gateway.db</code></li>
<li>The gateway goes on by itself within seconds.</li>"""
CAUSE = """<li>Mend what the sentence above names; the log has more: <code>journalctl -u pos-gateway -n 50</code></li>
<li>The gateway tries again by itself every minute.</li>"""
ADVICE = {
    "STORE_CORRUPT": RESTORE,
    "STORE_NEWER": UPGRADE,
    "DISK_FULL": ROOM,
    "STORE_READ_ONLY": READ_ONLY,
    "STORE_BUSY": BUSY,
}


async def serve(
    settings: Settings, error: GatewayError, stop: asyncio.Event, listening: Callable[[], None]
) -> None:
    """Answer everything with the problem until `stop`; calls `listening` once it does. OSError when
    the port is taken."""
    # Whether a sale that is sent again was signed before stands in the store that cannot be read.
    error.extra.setdefault("signed", "unknown")
    advice = ADVICE.get(error.code, CAUSE)
    store = html.escape(str(settings.store.directory))
    page = PAGE.format(
        detail=html.escape(error.detail),
        code=error.code,
        store=store,
        advice=advice.format(backups=html.escape(str(settings.backup_directory)), store=store),
    )

    async def answer(request: web.Request) -> web.Response:
        if "text/html" in request.headers.get("Accept", "") or request.path == "/":
            return web.Response(status=503, text=page, content_type="text/html")
        response = problem.response(error, request.path)
        # An open page goes to the one that explains (page.js).
        response.headers["Gateway-Stopped"] = error.code
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        guard = ConnectionGuard("emergency", settings.api.limits)
        await listen_at(runner, settings.api.host, settings.api.port, guard)
        log.critical("gateway.stopped code=%s detail=%s", error.code, error.detail)
        listening()
        await stop.wait()
    finally:
        await runner.cleanup()
