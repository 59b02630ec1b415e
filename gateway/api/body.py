"""Reads a request's JSON body strictly: what two parsers could read differently is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from aiohttp import web

from gateway.errors import BodyLate, UnsupportedBody
from gateway.strict_json import parse, without_mark

# A till on the LAN sends the largest body within a second; what stands still for longer has lost its till.
BODY_MAX_S = 20.0
T = TypeVar("T")


async def in_time(body: Awaitable[T]) -> T:
    """What a request's body is read with. BodyLate when it does not come whole."""
    try:
        async with asyncio.timeout(BODY_MAX_S):
            return await body
    except asyncio.TimeoutError:
        raise BodyLate(
            f"The request did not come whole within {BODY_MAX_S:g} s, and nothing was done for it. Send it "
            "again with the same key.",
            # Whether an earlier sending was signed: the key, which would tell, is not looked up for half a sale.
            extra={"signed": "unknown"},
        ) from None


async def read_json(request: web.Request) -> tuple[bytes, Any]:
    """(raw bytes, value). UnsupportedBody, BodyTooLarge (by the server's limit), BodyLate or BodyNotJson.

    Numbers stay text-exact (`parse_float=str` is not used: a model that wants a string refuses any
    number).
    """
    if request.content_type not in ("application/json", "application/octet-stream"):
        raise UnsupportedBody("Send the body as application/json.")
    raw = await in_time(request.read())
    return raw, parse(without_mark(raw))
