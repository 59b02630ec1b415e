"""`python -m hw_fakes.legacy_till --link PATH`: a till that only prints, and one slip of it.

The gateway opens PATH (`[captures.NAME] port`); `--port` uses a serial device that is there instead.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from hw_fakes.legacy_till import slips
from hw_fakes.legacy_till.peer import FakeLegacyTill, NoPrinter

KINDS = (*slips.STYLES, "x-report", "no-sale", "garbled", "picture")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hw_fakes.legacy_till", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--link", type=Path, help="a stable name for a pty")
    where.add_argument("--port", type=Path, help="a serial device, with a null modem cable")
    parser.add_argument("--slip", choices=KINDS, default="plain", help="default: %(default)s")
    parser.add_argument("--number", default="0001", help="default: %(default)s")
    parser.add_argument("--date", default=slips.TillSale().date, help="default: %(default)s")
    parser.add_argument("--times", type=int, default=1, help="print it so often")
    parser.add_argument("--banner", default="", help='a line such as "*** DUPLICATE ***"')
    parser.add_argument("--tries", type=int, default=30, help="until the printer answers")
    return parser.parse_args()


def slip_of(options: argparse.Namespace) -> bytes:
    sale = slips.TillSale(number=options.number, date=options.date)
    if options.slip == "x-report":
        return slips.x_report()
    if options.slip == "picture":
        return slips.picture()
    if options.slip == "no-sale":
        return slips.no_sale()
    if options.slip == "garbled":
        return slips.garbled(slips.plain(sale))
    return slips.printed(options.slip, sale, banner=options.banner)


async def run(options: argparse.Namespace) -> int:
    data = slip_of(options)
    async with FakeLegacyTill(link=options.link, port=options.port, wait_s=30.0) as till:
        print(f"the till is on {till.device_path}", flush=True)
        try:
            await till.find(options.tries, each_s=1.0)
            for _ in range(options.times):
                await till.print_slip(data)
                print("printed", flush=True)
        except NoPrinter as error:
            print(f"PRINTER ERROR: {error}", file=sys.stderr)
            return 1
    return 0


try:
    sys.exit(asyncio.run(run(parse())))
except KeyboardInterrupt:
    pass
