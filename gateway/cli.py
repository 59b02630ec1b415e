"""The command line: `pos-gateway run | check | demo | status`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway import __version__
from gateway.errors import GatewayError
from gateway.settings import SettingsError, load

CONFIG = Path("/etc/pos-gateway/gateway.toml")


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

    demo = commands.add_parser("demo", help="a whole shop of fakes, and one sale through it")
    demo.add_argument(
        "--once", action="store_true", help="one sale, then exit; JSON in the last line"
    )
    demo.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    demo.add_argument("--directory", type=Path, help="keep the demo's data here")
    demo.set_defaults(run=_demo)
    return parser


def _run(options: argparse.Namespace) -> int:
    from gateway import daemon
    from gateway.ops import logging as logs
    from gateway.ops import memory
    from gateway.vscu.host import end_process

    settings = load(options.config).settings
    memory.few_arenas()
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


def _demo(options: argparse.Namespace) -> int:
    from gateway import demo

    return demo.main(once=options.once, port=options.port, directory=options.directory)


def dump(value: object) -> str:
    """One line of JSON for scripts."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
