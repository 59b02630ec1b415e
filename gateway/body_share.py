"""Bound what is read of bodies before it is known who sends them: their size, their number and their time."""

from __future__ import annotations

import asyncio
from collections import Counter

from aiohttp import web
from aiohttp.http import HttpProcessingError

from gateway.connection_guard import peer_key
from gateway.errors import BodyLate, BodyTooLarge, RequestError, TooBusy

# Whether an earlier sending was signed is looked up by the key, which is not done for half a request.
UNKNOWN = {"signed": "unknown"}


class BodyShare:
    """Bodies of at most `size_max` bytes, `at_once` of them at a time, each within `within_s` seconds.

    A sender that holds more of the places than a newcomer makes room for it. A body that has come whole with
    its head needs no place.
    """

    def __init__(self, *, size_max: int, at_once: int, within_s: float) -> None:
        self.size_max = size_max
        self.at_once = at_once
        self.within_s = within_s
        # Who is being waited for, oldest first.
        self._awaited: dict[asyncio.Timeout, str] = {}

    async def read(self, request: web.Request, sender: str | None = None) -> bytes:
        """Return the whole body. Raise BodyTooLarge, BodyLate, TooBusy, or RequestError when it cannot be
        decoded. `sender`: default the peer's address."""
        if request.content_length is not None and request.content_length > self.size_max:
            raise self._too_large()
        if request.content.is_eof():
            return await self._whole(request)
        sender = peer_key(request) if sender is None else sender
        self._make_room(sender)
        deadline = asyncio.timeout(self.within_s)
        try:
            async with deadline:
                self._awaited[deadline] = sender
                return await self._whole(request)
        except asyncio.TimeoutError:
            raise BodyLate(
                "The request did not come whole in time, and nothing was done for it. Send it again.",
                extra=dict(UNKNOWN),
            ) from None
        finally:
            self._awaited.pop(deadline, None)

    async def _whole(self, request: web.Request) -> bytes:
        pieces, size = [], 0
        try:
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > self.size_max:
                    raise self._too_large()
                pieces.append(piece)
        except (HttpProcessingError, web.RequestPayloadError) as error:
            raise RequestError(
                "The request's body cannot be read, and nothing was done for it.",
                extra=dict(UNKNOWN),
            ) from error
        return b"".join(pieces)

    def _make_room(self, sender: str) -> None:
        if len(self._awaited) < self.at_once:
            return
        held = Counter(self._awaited.values())
        most = max(held.values())
        if most <= held[sender]:
            raise TooBusy(
                "The gateway is reading too many requests at this moment, and nothing was done for this "
                "one. Send it again in a few seconds.",
                retry_after_s=5,
                extra=dict(UNKNOWN),
            )
        deadline = next(one for one, of in self._awaited.items() if held[of] == most)
        del self._awaited[deadline]
        deadline.reschedule(asyncio.get_running_loop().time())

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The request is longer than {self.size_max // 1024} KiB, and nothing was done for it. "
            "Write less and send it again.",
            extra=dict(UNKNOWN),
        )
