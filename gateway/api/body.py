"""Reads a request's JSON body strictly: what two parsers could read differently is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from aiohttp import web

from gateway.errors import BodyNotJson, UnsupportedBody

# Deeper than any body we know, shallower than what troubles a recursive parser.
DEPTH_MAX = 20


async def read_json(request: web.Request) -> tuple[bytes, Any]:
    """(raw bytes, value). UnsupportedBody, BodyTooLarge (by the server's limit) or BodyNotJson.

    Numbers stay text-exact (`parse_float=str` is not used: a model that wants a string refuses any
    number), repeated members, NaN and lone surrogates are refused.
    """
    if request.content_type not in ("application/json", "application/octet-stream"):
        raise UnsupportedBody("Send the body as application/json.")
    raw = await request.read()
    return raw, parse(raw)


def parse(raw: bytes) -> Any:
    """Strict JSON of UTF-8 bytes. BodyNotJson otherwise."""
    try:
        text = raw.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
        _check(value, DEPTH_MAX)
    except UnicodeDecodeError:
        raise BodyNotJson("The body is not UTF-8 text.") from None
    except RecursionError:
        raise BodyNotJson("The body is nested too deeply.") from None
    except ValueError as error:
        raise BodyNotJson(f"The body is not JSON: {_short(error)}.") from None
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member appears twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check(value: Any, depth: int) -> None:
    if depth < 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("it has half a character (a lone surrogate)") from None
    elif isinstance(value, dict):
        for name, member in value.items():
            _check(name, depth)
            _check(member, depth - 1)
    elif isinstance(value, list):
        for member in value:
            _check(member, depth - 1)


def _short(error: ValueError) -> str:
    return str(error).splitlines()[0][:120].rstrip(".")
