"""Where the gateway listens: also at an address that the machine does not have yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from gateway.check import check
from gateway.listen import is_here, listen_at
from hw_fakes.ports import free_port
from tests.unit.test_settings import GOOD, TOKEN, write

# For documentation (RFC 5737, RFC 3849): no machine has them.
NOWHERE, NOWHERE_6 = "192.0.2.77", "2001:db8::77"


@pytest.fixture
async def runner():
    made = web.AppRunner(web.Application())
    await made.setup()
    yield made
    await made.cleanup()


@pytest.mark.parametrize("host", [NOWHERE, NOWHERE_6, "127.0.0.1", "0.0.0.0", "localhost"])
async def test_an_address_is_listened_at_whether_it_is_here_or_not(
    runner: web.AppRunner, host: str
) -> None:
    await listen_at(runner, host, 0)
    assert runner.addresses[0][1] > 0
    assert is_here(host) is (host not in (NOWHERE, NOWHERE_6))


@pytest.mark.parametrize("host", [NOWHERE, "127.0.0.1"])
async def test_a_port_that_is_taken_is_said(runner: web.AppRunner, host: str) -> None:
    port = free_port()
    await listen_at(runner, host, port)
    with pytest.raises(OSError, match="in use"):
        await listen_at(runner, host, port)


def test_check_warns_of_an_address_that_is_not_here(tmp_path: Path) -> None:
    env = {"GATEWAY_TILL_TOKENS": f"till-1={TOKEN}", "GATEWAY_API__HOST": NOWHERE}
    report = check(write(tmp_path, GOOD), env)
    assert any(NOWHERE in warning for warning in report.warnings)
    assert not any("api.host" in problem.key for problem in report.problems)
