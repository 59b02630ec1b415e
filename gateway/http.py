"""Reads an HTTP answer whole, up to a limit: `StreamReader.read(n)` gives what has arrived, not all."""

from __future__ import annotations

import aiohttp


async def read_whole(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body, in however many pieces it comes; None when it is larger than `limit` bytes."""
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > limit:
            return None
        pieces.append(piece)
    return b"".join(pieces)
