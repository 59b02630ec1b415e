"""Reads a request's JSON body strictly: what two parsers could read differently is refused."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.errors import UnsupportedBody
from gateway.strict_json import parse


async def read_json(request: web.Request) -> tuple[bytes, Any]:
    """(raw bytes, value). UnsupportedBody, BodyTooLarge (by the server's limit) or BodyNotJson.

    Numbers stay text-exact (`parse_float=str` is not used: a model that wants a string refuses any
    number).
    """
    if request.content_type not in ("application/json", "application/octet-stream"):
        raise UnsupportedBody("Send the body as application/json.")
    raw = await request.read()
    return raw, parse(raw)
