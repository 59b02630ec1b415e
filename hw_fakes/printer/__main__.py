"""`python -m hw_fakes.printer [--link PATH] [--png DIR]`: a virtual receipt printer on a pty."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from hw_fakes.printer.paper import Slip
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.printer.render import to_png


async def serve(link: Path | None, folder: Path | None) -> None:
    count = 0

    def show(slip: Slip) -> None:
        nonlocal count
        count += 1
        print(slip.text(), "\n- - - - - - - - - - - 8<", flush=True)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"slip-{count:04d}.png").write_bytes(to_png(slip))

    async with FakePrinter(on_slip=show) as printer:
        path = printer.device_path
        if link is not None:
            link.unlink(missing_ok=True)
            link.symlink_to(path)
            path = str(link)
        print(f"the printer is on {path}", flush=True)
        await asyncio.Event().wait()


parser = argparse.ArgumentParser(prog="python -m hw_fakes.printer", description=__doc__)
parser.add_argument("--link", type=Path, help="a stable name for the pty")
parser.add_argument("--png", type=Path, help="a folder for a picture of every slip")
options = parser.parse_args()
try:
    asyncio.run(serve(options.link, options.png))
except KeyboardInterrupt:
    pass
