"""`pos-gateway unit-test` on the fake unit: each behaviour of a build that it has to find."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import unit_tool
from gateway.clock import SystemClock
from gateway.conformance import probes, reads, restarts
from gateway.conformance.findings import Assumption, Findings, Result, settings_of
from gateway.conformance.reads import Shown
from gateway.conformance.restarts import RestartCommand, UnitProcess
from gateway.conformance.trial import Trial
from gateway.settings import Settings
from gateway.store.database import FILE_NAME
from gateway.wiring import make_client
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import (
    BRANCH,
    JAR,
    PIN,
    SERIAL,
    ExternalUnit,
    UnitControl,
    find_java,
    prepare,
)
from tests.support.shop import make_settings
from tests.support.unit_database import COUNTER_QUERY, write

A = Assumption
# Time to sign in which the requests of a test certainly meet, in milliseconds.
SLOW_MS = 250
WHO = {"tin": PIN, "bhfId": BRANCH}


@pytest.fixture(autouse=True)
async def new_unit(unit: UnitControl) -> None:
    await unit.post("/initializer/selectInitInfo", {**WHO, "dvcSrlNo": SERIAL})


@asynccontextmanager
async def a_trial(settings: Settings) -> AsyncIterator[tuple[Trial, Findings, Shown]]:
    """The parts of the test on an external unit, without the baseline."""
    clock = SystemClock()
    async with (
        make_client(settings, clock) as client,
        unit_tool._trial(settings, client, clock, unit_tool.Options()) as trial,
    ):
        yield trial, Findings(), unit_tool._shown(settings, client)


def texts(found: Findings, about: Assumption) -> str:
    return " | ".join(found.texts(about))


# --- A1: a number again -------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["899", "924", "994", "expected", "910", "replay"])
async def test_a_unit_that_refuses_a_used_number_in_its_own_words_is_taken_for_what_it_is(
    unit: UnitControl, shop_dir: Path, answer: str
) -> None:
    await unit.knobs(duplicateAnswer=answer)
    async with a_trial(make_settings(shop_dir, unit.url)) as (trial, found, _):
        await probes.baseline(trial, found)
        await probes.same_number_later(trial, found)
        assert found.result(A.A1) is Result.HOLDS, texts(found, A.A1)
        assert ("stored receipt" in texts(found, A.A2)) == (answer == "replay")


@pytest.mark.parametrize("answer", ["924", "replay"])
async def test_a_unit_that_looks_when_it_signs_may_be_sent_a_number_again(
    unit: UnitControl, shop_dir: Path, answer: str
) -> None:
    await unit.knobs(latencyMs=SLOW_MS, duplicateAnswer=answer)
    settings = make_settings(shop_dir, unit.url)
    async with a_trial(settings) as (trial, found, _):
        await probes.baseline(trial, found)
        await probes.same_number_at_once(trial, found)
        await probes.account(trial, found, 90)
        assert found.result(A.A1) is Result.HOLDS, texts(found, A.A1)
        assert settings_of(found, settings.unit)["resend"] is True
    numbers = [entry["invcNo"] for entry in await unit.journal()]
    assert len(numbers) == len(set(numbers))


async def test_a_unit_that_signs_a_number_again_is_found(unit: UnitControl, shop_dir: Path) -> None:
    await unit.knobs(guard="none")
    async with a_trial(make_settings(shop_dir, unit.url)) as (trial, found, _):
        await probes.baseline(trial, found)
        await probes.same_number_later(trial, found)
        assert found.result(A.A1) is Result.FAILS
        assert "the same sale under a used number got a second receipt" in texts(found, A.A1)
        assert "another sale under a used number got a second receipt" in texts(found, A.A1)


@pytest.mark.parametrize("answer", ["899", "924"])
async def test_a_unit_that_looks_for_duplicates_when_it_accepts_is_found(
    unit: UnitControl, shop_dir: Path, answer: str
) -> None:
    await unit.knobs(guard="accept", latencyMs=SLOW_MS, duplicateAnswer=answer)
    async with a_trial(make_settings(shop_dir, unit.url)) as (trial, found, _):
        await probes.baseline(trial, found)
        await probes.same_number_later(trial, found)
        # One after the other it looks right.
        assert found.result(A.A1) is Result.HOLDS, texts(found, A.A1)
        await probes.same_number_at_once(trial, found)
        assert found.result(A.A1) is Result.FAILS, texts(found, A.A1)
        assert settings_of(found, make_settings(shop_dir, unit.url).unit)["resend"] is False


async def test_a_cut_off_sale_that_is_signed_beside_its_repeat_is_found(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the requests at once, so that the second part of the probe is what finds it."""
    await unit.knobs(guard="accept", latencyMs=SLOW_MS)
    monkeypatch.setattr(probes, "AT_ONCE", 1)
    async with a_trial(make_settings(shop_dir, unit.url)) as (trial, found, _):
        await probes.baseline(trial, found)
        await probes.same_number_at_once(trial, found)
        assert found.result(A.A1) is Result.FAILS
        assert "sent again after a cut-off: the unit signed 2 receipts" in texts(found, A.A1)


# --- A2, A4, A10: the account of all receipts -------------------------------------------------------------


async def test_a_second_writer_is_found(unit: UnitControl, shop_dir: Path) -> None:
    await unit.knobs(latencyMs=30)
    ended = asyncio.Event()

    async def write_beside(trial: Trial) -> None:
        number = 5000
        while not ended.is_set():
            number += 1
            await unit.post("/trnsSales/saveSales", json.loads(trial.body(number)))

    async def baseline(trial: Trial, found: Findings) -> None:
        while not await unit.journal():
            await asyncio.sleep(0.01)
        try:
            await probes.baseline(trial, found)
        finally:
            ended.set()

    async with a_trial(make_settings(shop_dir, unit.url)) as (trial, found, _):
        await asyncio.gather(write_beside(trial), baseline(trial, found))
        assert found.result(A.A2) is Result.FAILS
        assert "something else signs with this unit" in texts(found, A.A2)


@pytest.mark.parametrize(
    ("code", "name"),
    [("836", "not_ready_codes"), ("E11", "not_ready_codes"), ("910", "refused_codes")],
)
@pytest.mark.parametrize("duplicate", ["924", "replay"])
async def test_a_code_that_is_given_after_signing_is_found(
    unit: UnitControl, shop_dir: Path, code: str, name: str, duplicate: str
) -> None:
    await unit.knobs(signThenEvery=3, signThenCode=code, duplicateAnswer=duplicate)
    settings = make_settings(shop_dir, unit.url)
    async with a_trial(settings) as (trial, found, _):
        await probes.baseline(trial, found)
        await unit.knobs(signThenEvery=0)
        await probes.codes_after_signing(trial, found)
        assert found.result(A.A4) is Result.FAILS, texts(found, A.A4)
        assert code not in settings_of(found, settings.unit)[name]
        assert "836" in settings.unit.not_ready_codes


async def test_a_refusal_before_signing_leaves_the_number_free(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url)
    async with a_trial(settings) as (trial, found, _):
        await probes.baseline(trial, found)
        await probes.refused_twice(trial, found)
        await unit.knobs(notReady="836")
        await trial.fresh()
        await unit.knobs(notReady="")
        await probes.codes_after_signing(trial, found)
        assert found.result(A.A4) is Result.HOLDS, texts(found, A.A4)
        assert "code 836: the sale had not been signed" in texts(found, A.A4)
        assert set(settings_of(found, settings.unit)) == {
            "resend",
            "forgets_on_restart",
            "read_back",
        }


async def test_an_answer_with_the_receipt_before_it_is_found(
    unit: UnitControl, shop_dir: Path
) -> None:
    await unit.knobs(precedingEvery=3)
    async with a_trial(make_settings(shop_dir, unit.url)) as (trial, found, _):
        await probes.baseline(trial, found)
        await probes.same_number_later(trial, found)
        await probes.account(trial, found, 90)
        assert found.result(A.A10) is Result.FAILS
        assert settings_of(found, make_settings(shop_dir, unit.url).unit)["resend"] is False


# --- A8: what the unit shows ------------------------------------------------------------------------------


async def test_a_build_without_read_back_gets_none(unit: UnitControl, shop_dir: Path) -> None:
    settings = make_settings(shop_dir, unit.url)
    async with a_trial(settings) as (trial, found, shown):
        await probes.baseline(trial, found)
        assert (await reads.usable(trial, found, shown)).readers == ()
        assert found.result(A.A8) is Result.NOT_SHOWN
        assert settings_of(found, settings.unit)["read_back"] is False


@pytest.mark.parametrize("waits", [False, True])
async def test_a_read_back_is_looked_at_while_a_sale_is_signed(
    unit: UnitControl, shop_dir: Path, waits: bool
) -> None:
    await unit.knobs(readBack=True, latencyMs=SLOW_MS, readBackWaits=waits)
    async with a_trial(make_settings(shop_dir, unit.url)) as (trial, found, shown):
        await probes.baseline(trial, found)
        shown = await reads.usable(trial, found, shown)
        await reads.all_receipts(trial, found, shown, "before a restart")
        await reads.while_signing(trial, found, shown, 5)
        assert found.result(A.A8) is Result.HOLDS, texts(found, A.A8)
        assert ("it waits for a sale" in texts(found, A.A8)) == waits


async def test_a_read_back_that_is_late_is_found(unit: UnitControl, shop_dir: Path) -> None:
    await unit.knobs(readBack=True)
    async with a_trial(make_settings(shop_dir, unit.url)) as (trial, found, shown):
        await probes.baseline(trial, found)
        await unit.knobs(readBackLagMs=700)
        await reads.while_signing(trial, found, shown, 60)
        assert found.result(A.A8) is Result.FAILS
        assert "only" in texts(found, A.A8)
        await unit.knobs(readBackLagMs=600_000)
        await reads.while_signing(trial, found, shown, 0.1)
        assert "does not show a signed sale" in texts(found, A.A8)


async def test_a_read_back_and_an_answer_that_differ_are_found(
    unit: UnitControl, shop_dir: Path
) -> None:
    """A foreign receipt with a higher counter cannot be seen in the answers alone."""
    await unit.knobs(readBack=True)
    async with a_trial(make_settings(shop_dir, unit.url)) as (trial, found, shown):
        await probes.baseline(trial, found)
        one, two = list(trial.account.receipts)[:2]
        trial.account.receipts[one] = trial.account.receipts[two]
        await reads.all_receipts(trial, found, shown, "before a restart")
        assert found.result(A.A10) is Result.FAILS


async def test_a_counter_that_is_late_is_found(unit: UnitControl, shop_dir: Path) -> None:
    file = shop_dir / "unit.sqlite"
    more = {"database": file, "database_counter_query": COUNTER_QUERY}
    settings = make_settings(shop_dir, unit.url, unit=more)
    async with a_trial(settings) as (trial, found, shown):
        await probes.baseline(trial, found)
        journal = await unit.journal()
        write(file, journal)
        await reads.all_receipts(trial, found, Shown((), shown.counter), "now")
        assert found.result(A.A8) is Result.HOLDS, texts(found, A.A8)
        await trial.signed()
        await reads.all_receipts(trial, found, Shown((), shown.counter), "now")
        assert found.result(A.A8) is Result.FAILS


# --- A3: restarts, each with a unit of its own --------------------------------------------------------------


def own_unit(directory: Path, *arguments: str) -> Settings:
    port = free_port()
    prepare(directory / "unit", port=port)
    unit = {
        "host": "in-process", "url": None, "jar": JAR, "directory": directory / "unit", "port": port,
        "arguments": (f"--fake.latencyMs={2 * SLOW_MS}", *arguments),
    }  # fmt: skip
    return make_settings(directory, "", unit=unit)


async def with_restarts(
    settings: Settings, run: Callable[[Trial, Findings, Shown, UnitProcess], Awaitable[None]]
) -> Findings:
    clock, found = SystemClock(), Findings()
    async with (
        make_client(settings, clock) as client,
        UnitProcess(settings.unit, client, clock) as process,
        unit_tool._trial(settings, client, clock, unit_tool.Options()) as trial,
    ):
        await client.initialise(SERIAL)
        await probes.baseline(trial, found)
        await run(trial, found, unit_tool._shown(settings, client), process)
    return found


async def test_a_unit_that_signs_after_a_restart_what_it_had_accepted_is_found(
    shop_dir: Path,
) -> None:
    arguments = ("remembers=true", "readBack=true", "readBackForgets=true")
    settings = own_unit(shop_dir, *(f"--fake.{each}" for each in arguments))

    async def run(trial: Trial, found: Findings, shown: Shown, process: UnitProcess) -> None:
        await restarts.cut_off_by_restart(trial, found, shown, process, watch_s=2)
        # This read-back shows only what was signed since the start.
        await reads.all_receipts(trial, found, shown, "after a restart")

    found = await with_restarts(settings, run)
    assert found.result(A.A3) is Result.FAILS, texts(found, A.A3)
    assert "was signed after the restart that cut it off" in texts(found, A.A3)
    assert found.result(A.A8) is Result.FAILS
    assert "shows nothing for sale" in texts(found, A.A8)


async def test_without_a_read_back_a_receipt_from_around_the_restart_proves_nothing(
    shop_dir: Path,
) -> None:
    settings = own_unit(shop_dir, "--fake.remembers=true")

    async def run(trial: Trial, found: Findings, shown: Shown, process: UnitProcess) -> None:
        await restarts.cut_off_by_restart(trial, found, Shown(()), process, watch_s=2)

    found = await with_restarts(settings, run)
    assert found.result(A.A3) is Result.NOT_SHOWN, texts(found, A.A3)
    assert settings_of(found, settings.unit)["forgets_on_restart"] is False


# --- the command -------------------------------------------------------------------------------------------


async def command(*words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "unit-test", *words,
        env={**os.environ, "GATEWAY_TILL_TOKENS": "till-1=token-of-till-number-1", **(env or {})},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def config(folder: Path, unit: str, environment: str = 'environment = "sandbox"') -> Path:
    path = folder / "sandbox.toml"
    path.write_text(
        f"""[branch]
pin = "{PIN}"
trade_name = "TEST"
{environment}
[unit]
serial = "{SERIAL}"
{unit}
# resend = false                  # see docs

[store]
directory = "{folder / "no-store"}"
[[tills]]
id = "till-1"
""",
        encoding="utf-8",
    )
    return path


def in_process(folder: Path, *arguments: str, **properties: str) -> str:
    port = free_port()
    prepare(folder / "unit", port=port, **properties)
    return (
        f'jar = "{JAR}"\ndirectory = "{folder / "unit"}"\nport = {port}\n'
        f"arguments = {json.dumps([f'--fake.{each}' for each in arguments])}"
    )


@pytest.mark.timeout(300)
async def test_the_whole_test_shows_what_the_fake_promises_and_writes_it(shop_dir: Path) -> None:
    path = config(
        shop_dir,
        in_process(shop_dir, "latencyMs=300", "readBack=true", "duplicateAnswer=924"),
    )
    words = ("--config", str(path), "--json", "--initialise", "--watch", "1", "--write", str(path))
    code, out, err = await command(*words)
    assert code == 0, err
    report = json.loads(out)
    results = {each["id"]: each["result"] for each in report["assumptions"]}
    shown = {"A1", "A2", "A3", "A4", "A8", "A10"}
    assert {each for each, result in results.items() if result == "HOLDS"} == shown, report
    assert {each for each, result in results.items() if result == "NOT_SHOWN"} == {
        "A5",
        "A6",
        "A7",
        "A9",
    }
    settings = {"unit.resend": True, "unit.forgets_on_restart": True, "unit.read_back": True}
    assert report["settings"] == settings
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    assert written["unit"]["resend"] is written["unit"]["read_back"] is True
    assert "resend = true   # see docs" in path.read_text(encoding="utf-8")
    assert written["store"] == {"directory": str(shop_dir / "no-store")}
    assert not (shop_dir / "no-store").exists()


async def test_without_a_command_a_restart_of_an_external_unit_is_not_shown(
    unit: UnitControl, shop_dir: Path
) -> None:
    await unit.knobs(readBack=True)
    path = config(shop_dir, f'host = "external"\nurl = "{unit.url}"')
    code, out, err = await command("--config", str(path))
    assert code == 0, err
    assert "forgets_on_restart = false" in out and "read_back = false" in out
    assert "resend = true" in out
    assert "A3  not shown" in out and "--restart-command" in out
    # A number that is used is passed over.
    code, out, err = await command("--config", str(path), "--json")
    assert code == 0, err
    assert json.loads(out)["settings"]["unit.resend"] is True


async def test_an_external_unit_is_restarted_by_the_technicians_command(shop_dir: Path) -> None:
    unit = ExternalUnit(shop_dir / "unit", latencyMs=str(2 * SLOW_MS))
    async with unit:
        pid = shop_dir / "pid"
        pid.write_text(str(unit.pid))
        script = shop_dir / "restart.sh"
        script.write_text(
            f"kill -9 $(cat {pid})\ncd {unit.directory}\n"
            f"{find_java()} -jar {JAR} --server.address=127.0.0.1 >/dev/null 2>&1 &\necho $! > {pid}\n"
        )
        settings = make_settings(shop_dir, unit.url)
        async with a_trial(settings) as (trial, found, _):
            await trial.client.initialise(SERIAL)
            restart = RestartCommand(f"sh {script}", trial.client, SystemClock(), 60)
            try:
                await probes.baseline(trial, found)
                await restart()
                moved = await trial.marker()
                assert moved is not None and moved.extra == 0
            finally:
                os.kill(int(pid.read_text()), 9)


@pytest.mark.parametrize(
    ("environment", "properties", "arguments", "said"),
    [
        ("", {}, (), "do not declare a sandbox"),
        ('environment = "production"', {}, (), "branch.environment is"),
        (
            'environment = "sandbox"',
            {"api.external.domain": "https://etims-api.kra.go.ke"},
            (),
            "not KRA's sandbox",
        ),
        (
            'environment = "sandbox"',
            {},
            ("--api.external.domain=https://etims-api.kra.go.ke",),
            "not KRA's sandbox",
        ),
    ],
)
async def test_what_is_not_a_sandbox_is_refused(
    shop_dir: Path, environment: str, properties: Any, arguments: tuple[str, ...], said: str
) -> None:
    unit = in_process(shop_dir, **properties)
    unit = unit[: unit.index("arguments")] + f"arguments = {json.dumps(arguments)}"
    code, out, err = await command("--config", str(config(shop_dir, unit, environment)))
    assert code == 1 and out == ""
    assert said in err and "UNIT_TEST_REFUSED" in err


async def test_a_unit_whose_sandbox_is_not_named_is_refused(shop_dir: Path) -> None:
    unit = in_process(shop_dir)
    (shop_dir / "unit/config/application.properties").write_text("server.port=8088\n")
    code, _, err = await command("--config", str(config(shop_dir, unit)))
    assert code == 1 and "names no api.external.domain" in err


async def test_a_unit_that_a_store_sells_with_is_refused(shop_dir: Path) -> None:
    unit = in_process(shop_dir)
    path = config(shop_dir, unit)
    (shop_dir / "no-store").mkdir()
    (shop_dir / "no-store" / FILE_NAME).touch()
    code, _, err = await command("--config", str(path))
    assert code == 1 and "holds a store that sells with this unit" in err
    (shop_dir / "no-store" / FILE_NAME).unlink()
    (shop_dir / "unit/pos-gateway.store").touch()
    code, _, err = await command("--config", str(path))
    assert code == 1 and "a gateway sells with this unit" in err


async def test_the_unit_of_this_machines_shop_is_refused(
    shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_TILL_TOKENS", "till-1=token-of-till-number-1")
    path = config(shop_dir, in_process(shop_dir))
    shop = shop_dir / "shop.toml"
    store = shop_dir / "shop-store"
    shop.write_text(path.read_text().replace(str(shop_dir / "no-store"), str(store)))
    unit_tool.read(path, shop)
    store.mkdir()
    (store / FILE_NAME).touch()
    with pytest.raises(unit_tool.UnitTestRefused, match="sells with this unit"):
        unit_tool.read(path, shop)


async def test_a_program_on_the_units_port_is_not_taken_for_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    await unit.reset()
    calls = (await unit.state())["calls"]
    port = unit.url.rpartition(":")[2]
    block = in_process(shop_dir)
    block = "\n".join(
        f"port = {port}" if line.startswith("port") else line for line in block.splitlines()
    )
    code, _, err = await command("--config", str(config(shop_dir, block)), "--initialise")
    assert code == 1 and f"Another program listens on port {port}" in err
    assert (await unit.state())["calls"] == calls
    assert await unit.journal() == []


async def test_a_unit_that_is_silent_or_not_initialised_is_said(
    unit: UnitControl, shop_dir: Path
) -> None:
    await unit.reset()
    path = config(shop_dir, f'host = "external"\nurl = "{unit.url}"')
    code, _, err = await command("--config", str(path))
    assert code == 1 and "needs --initialise" in err
    path = config(shop_dir, f'host = "external"\nurl = "http://127.0.0.1:{free_port()}"')
    code, _, err = await command("--config", str(path))
    assert code == 1 and "no connection" in err
