"""Strict JSON: what two parsers could read differently is refused. For HTTP bodies and serial frames."""

from __future__ import annotations

import codecs
import json
from decimal import Decimal
from typing import Any, NoReturn

from gateway.errors import BodyNotJson

# Deeper than any body we know, shallower than what troubles a recursive parser.
DEPTH_MAX = 20


def without_mark(raw: bytes) -> bytes:
    """Return a till's body without a byte order mark, which says nothing in UTF-8; some tills begin with one."""
    return raw.removeprefix(codecs.BOM_UTF8)


def parse(raw: bytes, depth: int = DEPTH_MAX, *, decimals: bool = False) -> Any:
    """Strict JSON of UTF-8 bytes: repeated members, NaN and lone surrogates are refused. BodyNotJson.
    `decimals`: numbers with a point are Decimal, exact, instead of float."""
    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=no_repeats,
            parse_constant=no_constant,
            parse_float=Decimal if decimals else None,
        )
        _check(value, depth)
    except UnicodeDecodeError:
        raise BodyNotJson("The body is not UTF-8 text.") from None
    except RecursionError:
        raise BodyNotJson("The body is nested too deeply.") from None
    except ArithmeticError:
        raise BodyNotJson("The body has a number that is out of all bounds.") from None
    except ValueError as error:
        raise BodyNotJson(f"The body is not JSON: {_short(error)}.") from None
    return value


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member appears twice")
    return value


def no_constant(name: str) -> NoReturn:
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
