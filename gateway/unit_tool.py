"""`pos-gateway unit-test`: tries a sandbox control unit and prints which assumptions about its build hold.

The test signs about forty receipts and repeats numbers on purpose, so it refuses a unit that is not declared
a sandbox and one that a shop sells with. It runs without the daemon and without a store.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gateway.clock import Clock
from gateway.conformance import probes, reads, restarts
from gateway.conformance.findings import Assumption, Findings
from gateway.conformance.reads import Shown
from gateway.conformance.restarts import Restart, RestartCommand, UnitProcess
from gateway.conformance.trial import Trial, TrialFailed
from gateway.domain.tax import DEFAULT_RATES
from gateway.errors import GatewayError
from gateway.settings import Settings
from gateway.settings_file import Loaded, SettingsError, load
from gateway.store import marker
from gateway.store.database import FILE_NAME
from gateway.vscu.client import PATHS, NotInitialised, UnitClient
from gateway.vscu.sale import SaleEncoder
from gateway.vscu.unit_database import UnitDatabase
from gateway.vscu.wire import encode
from gateway.wiring import make_client, sale_form

DOMAIN = "api.external.domain"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class UnitTestRefused(GatewayError):
    """The test may not run on this unit, or cannot."""

    code = "UNIT_TEST_REFUSED"
    title = "The unit cannot be tested"


@dataclass(frozen=True, slots=True)
class Options:
    """`watch_s`: how long a restarted unit is watched; None: `unit.at_work_s`."""

    first_number: int | None = None
    restart_command: str | None = None
    watch_s: float | None = None
    initialise: bool = False


# --- may this unit be tested? ----------------------------------------------------------------------------


def read(path: Path, shop: Path | None = None) -> Settings:
    """Return the settings of a unit that may be tested. `shop`: the settings that this machine sells with.
    UnitTestRefused, SettingsError."""
    loaded = load(path, by_hand=True)
    for problem in (
        undeclared(loaded),
        not_a_sandbox(loaded.settings),
        in_use(loaded.settings, path),
    ):
        if problem is not None:
            raise UnitTestRefused(problem)
    if shop is not None and shop != path and shop.exists():
        try:
            selling = load(shop, by_hand=True).settings
        except SettingsError:
            return loaded.settings
        if same_unit(selling, loaded.settings) and _store_of(selling).exists():
            raise UnitTestRefused(
                f"The gateway of {shop} sells with this unit. Test a sandbox unit of the same build."
            )
    return loaded.settings


def undeclared(loaded: Loaded) -> str | None:
    """Return why the settings do not declare a sandbox; the default declares nothing."""
    if "branch.environment" not in loaded.sources:
        return (
            'The settings do not declare a sandbox. Write environment = "sandbox" under [branch].'
        )
    if loaded.settings.branch.environment != "sandbox":
        return 'branch.environment is "production". The test signs receipts, so it needs a sandbox unit.'
    return None


def not_a_sandbox(settings: Settings) -> str | None:
    """Return why the unit itself is not set up for KRA's sandbox (etims.md 1.1, 2.1)."""
    unit = settings.unit
    named = [each.partition("=")[2] for each in unit.arguments if each.startswith(f"--{DOMAIN}=")]
    if not named and unit.directory is not None:
        named = _domains(unit.directory / "config" / "application.properties")
    if not named:
        if unit.host == "external":
            return None
        return (
            f"The unit's config/application.properties names no {DOMAIN}, so it is not known whether this is "
            "KRA's sandbox."
        )
    for domain in named:
        host = (urlsplit(domain if "//" in domain else f"//{domain}").hostname or "").lower()
        is_sandbox = any("sbx" in part or "sandbox" in part for part in host.split("."))
        if host not in LOOPBACK and not is_sandbox:
            return f"The unit's {DOMAIN} is {domain}, which is not KRA's sandbox."
    return None


def _domains(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = [
        line.strip().partition("=") for line in lines if not line.strip().startswith(("#", "!"))
    ]
    return [value.strip() for name, _, value in pairs if name.strip() == DOMAIN]


def in_use(settings: Settings, path: Path) -> str | None:
    """Return why a shop sells with this unit."""
    if _store_of(settings).exists():
        return (
            f"{settings.store.directory} holds a store that sells with this unit. Test a sandbox unit, with settings "
            "of its own whose store.directory is empty."
        )
    folder = settings.unit.directory
    if folder is not None and (folder / marker.FILE).exists():
        return f"{folder / marker.FILE} says that a gateway sells with this unit. Test another one of the same build."
    return None


def _store_of(settings: Settings) -> Path:
    return settings.store.directory / FILE_NAME


def same_unit(one: Settings, other: Settings) -> bool:
    """Return whether two settings lead to the same unit."""
    a, b = one.unit, other.unit
    whose = (one.branch.pin, one.branch.branch_id, a.serial)
    folders = a.directory is not None and a.directory == b.directory
    return (
        folders
        or a.base_url == b.base_url
        or whose == (other.branch.pin, other.branch.branch_id, b.serial)
    )


# --- the test ---------------------------------------------------------------------------------------------


async def run(
    settings: Settings, options: Options, clock: Clock, say: Callable[[str], None]
) -> Findings:
    """Run every probe. UnitTestRefused when the unit cannot be used."""
    unit = settings.unit
    found = Findings()
    watch_s = unit.at_work_s if options.watch_s is None else options.watch_s
    try:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(make_client(settings, clock))
            restart: Restart | None = None
            if unit.host == "in-process":
                say(f"starting {unit.jar}")
                restart = await stack.enter_async_context(UnitProcess(unit, client, clock))
            elif options.restart_command is not None:
                restart = RestartCommand(
                    options.restart_command, client, clock, unit.start_timeout_s
                )
            await _ready(client, unit.serial, options)
            trial = await stack.enter_async_context(_trial(settings, client, clock, options))
            await _probe(
                trial, found, _shown(settings, client), restart, watch_s, unit.at_work_s, say
            )
    except TrialFailed as failed:
        raise UnitTestRefused(str(failed)) from failed
    return found


async def _ready(client: UnitClient, serial: str, options: Options) -> None:
    problem = await client.healthy()
    if problem is not None and options.initialise:
        done = await client.initialise(serial)
        problem = await client.healthy()
        if problem is not None and isinstance(done, NotInitialised):
            problem += f"; initialising: {done.reason}"
    if problem is not None:
        raise TrialFailed(
            f"The unit does not work: {problem}. A device that was never initialised needs --initialise, once."
        )


def _trial(settings: Settings, client: UnitClient, clock: Clock, options: Options) -> Trial:
    unit = settings.unit
    first = unit.first_invoice_no if options.first_number is None else options.first_number
    return Trial(
        client=client,
        url=unit.base_url + {**PATHS, **unit.paths}["saveSales"],
        encode=SaleEncoder(sale_form(settings), encode, lambda: 1),
        clock=clock,
        rates=DEFAULT_RATES,
        first_number=first,
        timeout_s=unit.answer_timeout_s,
        item_class=unit.item_class,
        units=(unit.package_unit, unit.quantity_unit),
    )


def _shown(settings: Settings, client: UnitClient) -> Shown:
    unit = settings.unit
    readers = [("unit.read_back", client.read_back)]
    counter = None
    if unit.database is not None:
        database = UnitDatabase(unit.database, unit.database_query, unit.database_counter_query)
        if unit.database_query is not None:
            readers.append(("unit.database_query", database.read_back))
        if unit.database_counter_query is not None:
            counter = database.last_counter
    return Shown(tuple(readers), counter)


async def _probe(
    trial: Trial,
    found: Findings,
    shown: Shown,
    restart: Restart | None,
    watch_s: float,
    at_work_s: float,
    say: Callable[[str], None],
) -> None:
    say("signing a few sales")
    await probes.baseline(trial, found)
    say("reading them back")
    shown = await reads.usable(trial, found, shown)
    await reads.all_receipts(trial, found, shown, "before a restart")
    await reads.while_signing(trial, found, shown, watch_s)
    say("sending the same number again, later and at once")
    await probes.same_number_later(trial, found)
    await probes.same_number_at_once(trial, found)
    say("sending sales that the unit must refuse")
    await probes.refused_twice(trial, found)
    if restart is None:
        found.not_shown(Assumption.A3, "give --restart-command, which kills and starts the unit")
        found.not_shown(Assumption.A8, "not looked at after a restart: give --restart-command")
    else:
        say("restarting the unit while it works on a sale")
        await restarts.cut_off_by_restart(trial, found, shown, restart, watch_s)
        await restart()
        await reads.all_receipts(trial, found, shown, "after a restart")
    await probes.codes_after_signing(trial, found)
    await probes.account(trial, found, at_work_s)
