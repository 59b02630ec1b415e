"""What every HTTP client of the gateway stands on: answers read whole, names looked up beside the loop's own
threads, and words for why there was no connection."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

NO_NAMES = "its name cannot be looked up (no name server answers)"
_Infos = list[tuple[Any, ...]]
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


async def read_whole(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body, in however many pieces it comes (`StreamReader.read(n)` gives what has arrived, not all);
    None when it is larger than `limit` bytes."""
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > limit:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def end_lookups_soon() -> None:
    """With a name server that swallows questions a look-up ends after 4 s for each server, not after 10. For
    the whole process, since KRA's JAR looks its server up before it signs; a RES_OPTIONS that is set stays.
    Before the first look-up of the process (resolv.conf(5))."""
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")


class Lookups(AbstractResolver):
    """The system's resolver, each look-up on a thread of its own that nobody waits for.

    With a dead name server getaddrinfo takes 10 s to minutes and cannot be stopped. On the loop's default
    executor a handful of those would keep backups and ports waiting, and a stop waits for all its threads.
    At most one look-up of a name runs at a time.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], asyncio.Future[_Infos]] = {}

    @property
    def hang(self) -> bool:
        """Whether a name is being looked up at this moment."""
        return bool(self._running)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """OSError (socket.gaierror) when there is no such name or nobody to ask."""
        key = (host, int(family))
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = _look(host, family)
            running.add_done_callback(lambda _: self._running.pop(key))
        # Waits without owning: one caller that gives up takes the answer from nobody.
        await asyncio.wait({running})
        return [
            ResolveResult(
                hostname=host, host=address[0], port=port, family=found, proto=proto, flags=_NUMERIC
            )
            for found, _, proto, _, address in running.result()
        ]

    async def close(self) -> None:
        return None


def _look(host: str, family: int) -> asyncio.Future[_Infos]:
    """Begins a look-up; its end comes over the loop, unless that is closed by then."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Infos] = loop.create_future()

    def done(say: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(say)

    def look() -> None:
        try:
            infos: _Infos = list(
                socket.getaddrinfo(host, 0, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            )
        except (OSError, UnicodeError) as error:
            problem = error if isinstance(error, OSError) else OSError(str(error))
            done(lambda: future.set_exception(problem))
        else:
            done(lambda: future.set_result(infos))

    # Whoever asked may be gone by then; that is no error.
    future.add_done_callback(lambda ended: ended.exception())
    threading.Thread(target=look, name=f"look-up {host}", daemon=True).start()
    return future


def why_not(error: BaseException, lookups: Lookups | None = None) -> str:
    """Why there was no connection, to be read after "no connection to the cloud: "."""
    if isinstance(error, asyncio.TimeoutError):
        return NO_NAMES if lookups is not None and lookups.hang else "nothing answers there"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        inner = error.os_error
        if isinstance(inner, socket.gaierror) and inner.errno == socket.EAI_AGAIN:
            return NO_NAMES
        return "there is no such name"
    if isinstance(error, aiohttp.ClientSSLError):
        return "its certificate is not believed, or something else answers in its place"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        if number == errno.ECONNREFUSED:
            return "it refuses the connection"
        if number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
            return "there is no way to it (is the network up?)"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "it hung up"
    return type(error).__name__
