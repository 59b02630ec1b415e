"""`GET /v1/events`: what happened, as server-sent events, resumable with Last-Event-ID."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from aiohttp import web

from gateway.api.server import Services, services, till_of
from gateway.clock import from_micros, iso
from gateway.connection_guard import peer_key, stream_end
from gateway.errors import FieldError, RequestError
from gateway.store import events

# One read takes at most this many rows: a till that was away for a week must not fill the memory.
PAGE_ROWS = 200
# A comment line this often (seconds) keeps proxies and the till's own timeout quiet.
HEARTBEAT_S = 15.0
# A screen that acknowledges nothing for so long is gone. Without this the kernel goes on sending to a phone
# that walked off for a quarter of an hour, and each time it came back it would take another stream. Seconds.
GONE_S = 30.0


def register(app: web.Application) -> None:
    app.router.add_get("/v1/events", get_events)


async def get_events(request: web.Request) -> web.StreamResponse:
    """The till's own events and everybody's. Without Last-Event-ID: from now on. A till that comes back has
    its open payments looked at."""
    parts, till = services(request), till_of(request)
    last = _last_id(request)
    await parts.payments.look_at_open(till.id)
    return await stream(request, parts, till_id=till.id, last=last)


async def stream(
    request: web.Request,
    parts: Services,
    *,
    till_id: str | None,
    last: int | None,
    kinds_only: bool = False,
) -> web.StreamResponse:
    """Send events newer than `last` until the client or the gateway goes. `kinds_only`: that something
    happened, not what."""
    with parts.streams.place(till_id=till_id, address=peer_key(request)):
        _notice_the_end(request)
        return await _send(request, parts, till_id, last, kinds_only=kinds_only)


async def _send(
    request: web.Request,
    parts: Services,
    till_id: str | None,
    last: int | None,
    *,
    kinds_only: bool,
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    end = stream_end(request)
    try:
        await response.prepare(request)
        at = last if last is not None else await parts.db.read(events.newest_id)
        # With a number from the start: a till that has heard nothing yet and loses its connection asks for
        # what came after this, and misses nothing either.
        await response.write(f"retry: 1000\nid: {at}\n\n".encode())
        while not (parts.stop_streams() or end.done()):
            changed = asyncio.ensure_future(parts.db.changed())
            try:
                rows = await _newer(parts, at, till_id)
                for row in rows:
                    await response.write(_frame(row, kinds_only=kinds_only))
                    at = row.id
                if not rows:
                    await asyncio.wait(
                        {changed, end}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED
                    )
                    if not (changed.done() or end.done()):
                        await response.write(b": still here\n\n")
            finally:
                changed.cancel()
        return response
    except ConnectionError:
        return response


def _notice_the_end(request: web.Request) -> None:
    wire = request.transport.get_extra_info("socket") if request.transport is not None else None
    if wire is not None:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(GONE_S * 1000))


async def _newer(parts: Services, last: int, till_id: str | None) -> list[events.Event]:
    return await parts.db.read(lambda conn: events.after(conn, last, till_id, PAGE_ROWS))


def _frame(row: events.Event, *, kinds_only: bool) -> bytes:
    data: dict[str, Any] = {}
    if not kinds_only:
        data = {"at": iso(from_micros(row.at)), "subject": row.subject, **row.data}
    body = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return f"id: {row.id}\nevent: {row.kind}\ndata: {body}\n\n".encode()


def _last_id(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID") or request.query.get("after")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise RequestError(
            "Last-Event-ID must be the number of an event.",
            errors=[FieldError("/Last-Event-ID", "NOT_ALLOWED", "Not an event's number.")],
        )
    return int(text)
