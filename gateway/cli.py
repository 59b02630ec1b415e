"""The command line: `pos-gateway run | check | status | ...`; `--help` lists all."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.errors import GatewayError
from gateway.settings import Settings
from gateway.settings_file import SettingsError, load

CONFIG = Path("/etc/pos-gateway/gateway.toml")
RELAY_CONFIG = Path("/etc/pos-gateway/relay.toml")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 well, 1 failed, 2 wrong use, 78 the configuration cannot be used."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except SettingsError as error:
        for problem in error.problems:
            print(f"{problem.key}: {problem.message}", file=sys.stderr)
        print(f"{len(error.problems)} problem(s) in {options.config}", file=sys.stderr)
        return error.exit_code
    except GatewayError as error:
        print(f"{error.code}: {error.detail}", file=sys.stderr)
        return int(getattr(error, "exit_code", 1))
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pos-gateway", description="Edge POS gateway for Kenya.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    run = commands.add_parser("run", help="the daemon (what systemd starts)")
    run.set_defaults(run=_run)
    check = commands.add_parser("check", help="validate the configuration; every problem at once")
    check.set_defaults(run=_check)
    for command in (run, check):
        command.add_argument("--config", type=Path, default=CONFIG, help="default: %(default)s")

    status = commands.add_parser("status", help="what the running gateway says of itself")
    status.add_argument("--json", action="store_true", help="the whole of it")
    status.set_defaults(run=_status)
    devices = _devices_command(commands)
    journal = commands.add_parser("journal", help="the signed receipts: verify or export them")
    parts = journal.add_subparsers(required=True, metavar="what")
    verify = parts.add_parser("verify", help="check chain, counts and gaps in the store")
    verify.set_defaults(run=_journal_verify)
    export = parts.add_parser("export", help="JSON lines, 40-column text, and the checking script")
    export.add_argument("--to", type=Path, required=True, help="a directory")
    export.set_defaults(run=_journal_export)
    backup = commands.add_parser("backup", help="copy store and unit keys now, beside the daemon")
    backup.add_argument("--to", type=Path, help="a directory; default: the configured one")
    backup.set_defaults(run=_backup)
    restore = commands.add_parser("restore", help="put a backup back (the daemon must be stopped)")
    restore.add_argument("file", type=Path)
    restore.add_argument(
        "--unit-keys",
        action="store_true",
        help="the unit's folder, too: its counters go back with it; only into an empty folder",
    )
    restore.set_defaults(run=_restore)
    unit_test = _unit_test_command(commands)
    for command in (
        unit_test,
        status,
        devices,
        verify,
        export,
        _capture_command(commands),
        *_mpesa_commands(commands),
        backup,
        restore,
    ):
        command.add_argument("--config", type=Path, default=CONFIG, help="default: %(default)s")

    relay = commands.add_parser("relay", help="the public server that keeps M-Pesa's messages")
    relay.add_argument("--config", type=Path, default=RELAY_CONFIG, help="default: %(default)s")
    relay.set_defaults(run=_relay)

    demo = commands.add_parser("demo", help="a whole shop of fakes, and one sale through it")
    demo.add_argument(
        "--once", action="store_true", help="one sale, then exit; JSON in the last line"
    )
    demo.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    demo.add_argument("--directory", type=Path, help="keep the demo's data here")
    demo.set_defaults(run=_demo)
    return parser


def _devices_command(commands: Any) -> argparse.ArgumentParser:
    devices: argparse.ArgumentParser = commands.add_parser(
        "devices", help="what is plugged in, whose it is, what it says"
    )
    what = devices.add_mutually_exclusive_group()
    what.add_argument("--find", action="store_true", help="unplug it, plug it in again: its name")
    what.add_argument("--tap", metavar="NAME", help="the traffic of a device of the settings")
    what.add_argument(
        "--network", action="store_true", help="printers on this machine's own network"
    )
    devices.add_argument("--once", action="store_true", help="with --tap: what there is, then end")
    devices.add_argument("--json", action="store_true", help="the list for scripts")
    # Other folders than /dev and /sys, for containers and tests.
    devices.add_argument("--dev", type=Path, default=Path("/dev"), help=argparse.SUPPRESS)
    devices.add_argument("--sys", type=Path, default=Path("/sys"), help=argparse.SUPPRESS)
    devices.set_defaults(run=_devices)
    return devices


def _capture_command(commands: Any) -> argparse.ArgumentParser:
    capture: argparse.ArgumentParser = commands.add_parser(
        "capture", help="slips of a till that only prints, and how the template reads each line"
    )
    capture.add_argument(
        "slip", nargs="*", help="one slip by its number; or: learn, and up to three"
    )
    capture.add_argument("--device", help="a name of [captures]; default: all of them")
    capture.add_argument("--file", type=Path, help="try the template on a slip in a file")
    capture.add_argument(
        "--last", type=int, default=5, help="number of slips; default: %(default)s"
    )
    capture.add_argument(
        "--mark", action="append", default=[], metavar="LINE=ROLE", help="learn: what a line is"
    )
    capture.add_argument(
        "--tax",
        action="append",
        default=[],
        metavar="MARK=LETTER",
        help="learn: KRA's letter of a mark",
    )
    capture.set_defaults(run=_capture)
    return capture


def _unit_test_command(commands: Any) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = commands.add_parser(
        "unit-test", help="what may be assumed of a control unit's build; a sandbox unit only"
    )
    found.add_argument("--json", action="store_true", help="the report for scripts")
    found.add_argument("--write", type=Path, metavar="FILE", help="settings file for the results")
    found.add_argument("--first-number", type=int, metavar="N", help="an unused invoice number")
    found.add_argument(
        "--restart-command", metavar="COMMAND", help="kills and starts an external unit"
    )
    found.add_argument(
        "--watch", type=float, metavar="SECONDS", help="after a restart; default: unit.at_work_s"
    )
    found.add_argument(
        "--initialise", action="store_true", help="initialise the sandbox device, once in its life"
    )
    found.set_defaults(run=_unit_test)
    return found


def _mpesa_commands(commands: Any) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    mpesa = commands.add_parser("mpesa", help="whether M-Pesa takes this shop; its C2B addresses")
    asked = mpesa.add_subparsers(required=True, metavar="what")
    mpesa_check = asked.add_parser(
        "check", help="keys, shortcode, passkey, clock; asks nobody for money"
    )
    mpesa_check.set_defaults(run=_mpesa_check)
    register = asked.add_parser("register", help="tell M-Pesa where C2B payments are announced")
    register.add_argument("--yes", action="store_true", help="production takes the addresses once")
    register.add_argument("--pull", metavar="NUMBER", help="Pull Transactions, too; 2547XXXXXXXX")
    register.set_defaults(run=_mpesa_register)
    return mpesa_check, register


def _run(options: argparse.Namespace) -> int:
    from gateway import daemon
    from gateway.http import end_lookups_soon
    from gateway.ops import logging as logs
    from gateway.ops import memory
    from gateway.vscu.host import end_process

    settings = load(options.config, lenient=True).settings
    memory.few_arenas()
    end_lookups_soon()
    logs.set_up(settings.log.level, settings.log.format)
    try:
        code = asyncio.run(daemon.run(settings))
    except GatewayError as error:
        print(f"{error.code}: {error.detail}", file=sys.stderr)
        code = int(getattr(error, "exit_code", 1))
    if settings.unit.host == "in-process":
        # The JVM's own threads would keep the process for ever (see vscu/host.py).
        end_process(code)
    return code


def _check(options: argparse.Namespace) -> int:
    from gateway import check

    report = check.check(options.config)
    print(check.render(report))
    return 0 if not report.problems else SettingsError.exit_code


def _settings(options: argparse.Namespace) -> Settings:
    """For a command by hand, which nobody gives credentials."""
    return load(options.config, by_hand=True, lenient=True).settings


def _status(options: argparse.Namespace) -> int:
    """Exit code 0 while it sells, 1 while it does not, 3 when there is nobody to ask."""
    from gateway import tools
    from gateway.status.headline import SELLING

    settings = _settings(options)
    found = tools.status(settings)
    if found is None:
        print(f"no gateway answers on port {settings.api.port}", file=sys.stderr)
        return 3
    print(dump(found) if options.json else tools.status_text(found))
    return 0 if found["state"] in SELLING else 1


def _devices(options: argparse.Namespace) -> int:
    """Exit code 1 when the gateway refuses, 3 when there is none to ask, 130 after Ctrl-C."""
    from gateway import device_tools
    from gateway.clock import SystemClock
    from gateway.devices.ports import Roots

    counter = device_tools.read_counter(options.config, os.environ)
    roots = Roots(options.dev, options.sys)

    def say(text: str) -> None:
        print(text, flush=True)

    try:
        if options.find:
            asyncio.run(device_tools.find(counter, roots, SystemClock(), say))
        elif options.network:
            answers = asyncio.run(device_tools.network(counter, roots, SystemClock()))
            print(dump(answers) if options.json else device_tools.network_text(answers))
        elif options.tap is not None:
            asyncio.run(
                device_tools.tap(
                    counter, options.tap, _code(), SystemClock(), say, once=options.once
                )
            )
        else:
            code = os.environ.get(device_tools.CODE_ENV)
            found = device_tools.listing(counter, roots, code)
            print(dump(found) if options.json else device_tools.listing_text(found))
    except device_tools.AskFailed as failed:
        print(failed, file=sys.stderr)
        return 3 if failed.absent else 1
    return 0


def _code() -> str:
    """Never an argument: every user of the machine could read it in the list of processes."""
    from gateway import device_tools

    try:
        return os.environ.get(device_tools.CODE_ENV) or getpass.getpass("Technician's code: ")
    except EOFError:
        raise device_tools.AskFailed(
            f"Put the technician's code into {device_tools.CODE_ENV}."
        ) from None


def _journal_verify(options: argparse.Namespace) -> int:
    from gateway import tools

    report = tools.journal_verify(_settings(options))
    print("\n".join(report.lines()))
    return 1 if report.errors else 0


def _journal_export(options: argparse.Namespace) -> int:
    from gateway import tools

    report = tools.journal_export(_settings(options), options.to)
    print("\n".join(report.lines()))
    print(f"written to {options.to}; check it anywhere: python3 verify.py journal.jsonl")
    return 1 if report.errors else 0


def _capture(options: argparse.Namespace) -> int:
    """With a file or `learn`: exit code 0 if every slip is read with certainty, 1 if not."""
    from gateway import capture_tool

    settings = _settings(options)
    learning = options.slip[:1] == ["learn"]
    numbers = capture_tool.slip_numbers(options.slip[1:] if learning else options.slip)
    if learning:
        text, certain = capture_tool.learned(
            settings,
            options.device,
            numbers,
            roles=capture_tool.line_roles(options.mark),
            taxes=capture_tool.tax_letters(options.tax),
        )
    elif options.file is None:
        number = numbers[0] if numbers else None
        print(capture_tool.stored(settings, options.device, number, options.last))
        return 0
    else:
        text, certain = capture_tool.from_file(settings, options.device, options.file)
    print(text)
    return 0 if certain else 1


def _mpesa_check(options: argparse.Namespace) -> int:
    """Exit code 0: payments can be asked for."""
    from gateway import mpesa_tools
    from gateway.clock import SystemClock

    settings = _settings(options)
    return 0 if asyncio.run(mpesa_tools.check(settings, SystemClock(), print)) else 1


def _mpesa_register(options: argparse.Namespace) -> int:
    from gateway import mpesa_tools
    from gateway.clock import SystemClock

    settings = _settings(options)
    done = mpesa_tools.register(
        settings, SystemClock(), print, sure=options.yes, pull_number=options.pull
    )
    return 0 if asyncio.run(done) else 1


def _unit_test(options: argparse.Namespace) -> int:
    """Exit code 0 when the test ran to its end, whatever it showed."""
    from gateway import unit_tool
    from gateway.clock import SystemClock
    from gateway.conformance import findings, toml_lines

    settings = unit_tool.read(options.config, CONFIG)
    wanted = unit_tool.Options(
        first_number=options.first_number,
        restart_command=options.restart_command,
        watch_s=options.watch,
        initialise=options.initialise,
    )

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    found = asyncio.run(unit_tool.run(settings, wanted, SystemClock(), say))
    report = findings.as_json(found, settings.unit)
    print(dump(report) if options.json else findings.as_text(found, settings.unit))
    if options.write is not None:
        try:
            toml_lines.write(options.write, "unit", findings.settings_of(found, settings.unit))
        except toml_lines.NotWritten as error:
            print(f"{error} Write the lines above by hand.", file=sys.stderr)
            return 1
        say(f"written to {options.write}")
    return 0


def _backup(options: argparse.Namespace) -> int:
    from gateway import tools

    made = tools.backup_now(_settings(options), options.to)
    print(f"{made.path}: {made.receipts} receipts, {made.size} bytes")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from gateway import tools

    settings = _settings(options)
    found = tools.restore(settings, options.file, unit_keys=options.unit_keys)
    print(f"restored: the store of {found['createdAt']} with {found['receipts']} receipts")
    if found["replaced"]:
        print(f"the store that was there is kept in {found['replaced']}")
        lost = found["carried"]
        print(
            f"it has {lost.sales} sales that the backup does not have; {lost.receipts} are or may be signed"
        )
        if lost.whole:
            print("their keys were taken over: none of them is signed a second time")
        else:
            print(
                "it is damaged, and only what could be read was taken over: let the tills send what they have "
                "before /unit is answered"
            )
    print(
        "Signing waits until the unit's counter shows at a start that nothing is missing, or a technician "
        "answers the page /unit."
    )
    return 0


def _relay(options: argparse.Namespace) -> int:
    """On a machine of its own: nothing of a shop's settings is there."""
    from gateway.ops import logging as logs
    from gateway.relay import server
    from gateway.relay import settings as relay_settings

    settings, secrets = relay_settings.load(options.config)
    logs.set_up(settings.log_level, "text")
    return asyncio.run(server.run(settings, secrets))


def _demo(options: argparse.Namespace) -> int:
    from gateway import demo

    if isinstance(sys.stdout, io.TextIOWrapper):
        # Read at once also where it goes into a file or a pipe: it runs until Ctrl-C.
        sys.stdout.reconfigure(line_buffering=True)
    return demo.main(once=options.once, port=options.port, directory=options.directory)


def dump(value: object) -> str:
    """One line of JSON for scripts."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
