"""The daemon as systemd runs it: ready, selling, refusing a second instance, ending in order."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import aiohttp

from hw_fakes.vscu.unit import JAR
from tests.support.daemon import Daemon
from tests.support.shop import TOKENS, a_sale


async def run(*args: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *args,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env,
    )  # fmt: skip
    async with asyncio.timeout(100):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_it_starts_sells_and_stops_with_the_unit_in_its_own_process(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    await daemon.start()
    async with aiohttp.ClientSession() as session:
        till = daemon.till(session)
        first = await till.sell("key", a_sale(tillReceiptNo="P"))
        assert first.status == 201, first.json
        status = (await till.request("GET", "/v1/status")).json
        assert status["unit"]["healthy"] is True
        assert status["unit"]["jvm"]["heapMaxMb"] <= 64
        assert status["unit"]["jvm"]["threads"] > 1
        assert status["gateway"]["lastStop"] is None
    # No door into the JVM for others of the same user.
    assert not Path(f"/tmp/.java_pid{daemon.pid}").exists()
    assert await daemon.stop() == 0
    # The JAR's own words are in the gateway's log; the tokens are in none.
    assert "Started Application" in daemon.log()
    # Everything the start made is out of the garbage collections that JPype asks for.
    settled = re.search(r"memory\.settled objects=(\d+)", daemon.log())
    assert settled is not None and int(settled[1]) > 50_000
    assert not any(token in daemon.log() for token in TOKENS.values())
    # What the JAR keeps stands in its directory, because the process works from there.
    assert (tmp_path / "unit/data").is_dir()
    await daemon.start()
    async with aiohttp.ClientSession() as session:
        again = await daemon.till(session).sell("key", a_sale(tillReceiptNo="P"))
        assert again.body == first.body
        status = (await daemon.till(session).request("GET", "/v1/status")).json
        assert status["gateway"]["lastStop"] is None
        await daemon.kill()
    await daemon.start()
    async with aiohttp.ClientSession() as session:
        status = (await daemon.till(session).request("GET", "/v1/status")).json
        assert status["gateway"]["lastStop"]["unclean"] is True
    await daemon.stop()


async def test_a_second_instance_on_the_same_store_is_refused(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    await daemon.start()
    second = Daemon(tmp_path / "second")
    text = second.config.read_text().replace(
        str(tmp_path / "second" / "store"), str(tmp_path / "store")
    )
    second.config.write_text(text)
    # It stays up, so that its page can name the cause; it signs nothing.
    await second.start()
    async with aiohttp.ClientSession() as session:
        reply = await second.till(session).sell("key", a_sale())
    assert (reply.status, reply.json["signed"]) == (503, "unknown")
    assert "already uses" in reply.json["detail"]
    # Nor is the unit's folder ever opened by two JVMs.
    assert "jvm.started" not in second.log()
    await second.stop()
    assert await daemon.stop() == 0


async def test_a_wrong_configuration_ends_with_78_and_names_every_key(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('[branch]\npin = "x"\n[unit]\nserial = "s"\njar = "nowhere.jar"\n')
    for command in ("run", "check"):
        code, out, err = await run(command, "--config", str(config))
        assert code == 78
        for key in ("branch.pin", "branch.trade_name", "store", "tills"):
            assert key in out + err
    code, _, err = await run("run", "--config", str(tmp_path / "missing.toml"))
    assert code == 78
    assert "does not exist" in err


async def test_check_says_what_is_in_force(tmp_path: Path) -> None:
    import os

    daemon = Daemon(tmp_path)
    tokens = ",".join(f"{till}={token}" for till, token in TOKENS.items())
    env = {**os.environ, "GATEWAY_TILL_TOKENS": tokens}
    code, out, _ = await run("check", "--config", str(daemon.config), env=env)
    assert code == 0, out
    assert f"unit.jar = {JAR}" in out
    assert "The configuration is good." in out
    assert "Java" in out
    assert next(iter(TOKENS.values())) not in out


async def test_the_demo_signs_prints_and_ends_with_one_line_of_json() -> None:
    code, out, err = await run("demo", "--once")
    assert code == 0, err
    last = json.loads(out.strip().splitlines()[-1])
    assert set(last) == {
        "invoiceId", "invcNo", "rcptNo", "totRcptNo", "cuInvoiceNo", "rcptSign", "intrlData", "qr",
    }  # fmt: skip
    assert last["qr"].endswith(last["rcptSign"])
    assert "TAX INVOICE" in out
    assert "█" in out
