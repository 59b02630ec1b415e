"""`python -m hw_fakes.cloud [--port N] [--token T]`: the fake cloud on its own."""

from __future__ import annotations

import argparse
import asyncio

from hw_fakes.cloud.server import FakeCloud


async def serve(port: int, token: str | None) -> None:
    async with FakeCloud(port=port, token=token) as cloud:
        print(f"cloud.url = {cloud.url}\nGATEWAY_CLOUD_TOKEN={cloud.token}", flush=True)
        await asyncio.Event().wait()


parser = argparse.ArgumentParser(prog="python -m hw_fakes.cloud", description=__doc__)
parser.add_argument("--port", type=int, default=8090)
parser.add_argument("--token")
options = parser.parse_args()
try:
    asyncio.run(serve(options.port, options.token))
except KeyboardInterrupt:
    pass
