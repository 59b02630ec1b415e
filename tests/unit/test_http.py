"""Names are looked up on threads that nobody waits for, and what went wrong has words."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from gateway.http import NO_NAMES, Lookups, why_not
from tests.support.relay import until


async def test_a_name_is_looked_up() -> None:
    lookups = Lookups()
    found = await lookups.resolve("localhost", 8080)
    assert ("127.0.0.1", 8080) in [(each["host"], each["port"]) for each in found]
    assert not lookups.hang
    with pytest.raises(OSError, match="label"):
        await lookups.resolve("a" * 64 + ".test")


def test_one_look_up_of_a_name_hangs_at_a_time_and_outlives_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system's own call is held: the loop ends while it hangs."""
    answered = threading.Event()
    asked: list[str] = []

    def held(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        answered.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", held)

    async def main() -> None:
        lookups = Lookups()
        for host in ("one.test", "two.test", "one.test"):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(lookups.resolve(host), 0.01)
        await until(lambda: sorted(asked) == ["one.test", "two.test"])
        assert lookups.hang
        assert why_not(asyncio.TimeoutError(), lookups) == NO_NAMES
        # What other parts need a thread for is not kept waiting.
        assert await asyncio.to_thread(lambda: "free") == "free"

    asyncio.run(main())
    assert not answered.is_set()
    threads = [each for each in threading.enumerate() if each.name.startswith("look-up ")]
    assert len(threads) == 2
    answered.set()
    for thread in threads:
        thread.join(30)


KEY = ConnectionKey("cloud.test", 443, True, True, None, None, None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (aiohttp.ClientConnectorError(KEY, OSError(errno.ECONNREFUSED, "")), "refuses"),
        (aiohttp.ClientConnectorError(KEY, OSError(errno.ENETUNREACH, "")), "no way to it"),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_NONAME, "")), "no such"),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_AGAIN, "")), NO_NAMES),
        (aiohttp.ServerDisconnectedError(), "hung up"),
        (asyncio.TimeoutError(), "nothing answers"),
        (aiohttp.ClientPayloadError(), "ClientPayloadError"),
    ],
)
def test_why_there_is_no_connection(error: Exception, words: str) -> None:
    assert words in why_not(error)
