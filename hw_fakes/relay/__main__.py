"""`python -m hw_fakes.relay [--port N] [--directory DIR]`: the real relay for one gateway, `shop-1`."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from hw_fakes.relay import RelayProcess


async def serve(port: int, directory: Path) -> None:
    async with RelayProcess(directory, port=port) as relay:
        (name, secret), *_ = relay.secrets.items()
        print(f"mpesa.relay_url = {relay.url}\nmpesa.relay_gateway = {name}", flush=True)
        print(f"GATEWAY_MPESA_RELAY_SECRET={secret}", flush=True)
        await asyncio.Event().wait()


parser = argparse.ArgumentParser(prog="python -m hw_fakes.relay", description=__doc__)
parser.add_argument("--port", type=int, default=8099)
parser.add_argument("--directory", type=Path)
options = parser.parse_args()
try:
    folder = options.directory or Path(tempfile.mkdtemp(prefix="relay-"))
    asyncio.run(serve(options.port, folder))
except KeyboardInterrupt:
    pass
