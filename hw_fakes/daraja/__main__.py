"""`python -m hw_fakes.daraja [--port N] [--relay HOST=URL]`: M-Pesa's Daraja on its own, with a phone as a page."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from hw_fakes.daraja.server import FakeDaraja

# Safaricom's test number, and two more to begin with; every other number has a wallet too.
CUSTOMERS = ("254708374149", "254712345678", "254110000111")


async def serve(options: argparse.Namespace) -> None:
    hosts = dict(each.partition("=")[::2] for each in options.relay)
    async with FakeDaraja(
        port=options.port, host=options.host, time_scale=options.scale, default=options.default,
        hosts=hosts, tls=options.tls,
    ) as fake:  # fmt: skip
        print(f"mpesa.base_url = {fake.url}\nphones: {fake.url}/_fake/phone", flush=True)
        if fake.authority is not None:
            print(f"trust this authority: {fake.authority}")
        print(f"consumer key {fake.oauth.key}, secret {fake.oauth.secret}", flush=True)
        for merchant in fake.merchants:
            print(
                f"{merchant.name}: {merchant.shortcode}, tills {', '.join(merchant.tills) or '-'}"
            )
        for phone in CUSTOMERS:
            fake.wallet(phone)
        await asyncio.Event().wait()


parser = argparse.ArgumentParser(prog="python -m hw_fakes.daraja", description=__doc__)
parser.add_argument("--port", type=int, default=8095)
parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets a real phone open the page")
parser.add_argument("--scale", type=float, default=1.0, help="0.1: all waiting takes a tenth")
parser.add_argument("--default", default="phone", help="the scenario of a push without one")
parser.add_argument(
    "--relay", action="append", default=[], metavar="HOST=URL",
    help="where an https host of callbacks really is, on this machine; * for any",
)  # fmt: skip
parser.add_argument(
    "--tls", type=Path, metavar="DIR",
    help="https, by a certificate authority that is made in this folder and stays there",
)  # fmt: skip
try:
    asyncio.run(serve(parser.parse_args()))
except KeyboardInterrupt:
    pass
except RuntimeError as error:
    raise SystemExit(str(error)) from None
