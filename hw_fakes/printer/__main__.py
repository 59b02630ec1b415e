"""`python -m hw_fakes.printer [--tcp PORT | --link PATH] [--png DIR] [--control PORT]`: a virtual receipt
printer on a pty or a TCP port, its paper on the terminal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from pathlib import Path

from hw_fakes.printer.control import PrinterControl
from hw_fakes.printer.paper import Slip
from hw_fakes.printer.peer import FakePrinter, Wire
from hw_fakes.printer.render import to_png


async def serve(options: argparse.Namespace) -> None:
    count = 0

    def show(slip: Slip) -> None:
        nonlocal count
        count += 1
        print(slip.text(), "\n- - - - - - - - - - - 8<", flush=True)
        if options.png is not None:
            options.png.mkdir(parents=True, exist_ok=True)
            (options.png / f"slip-{count:04d}.png").write_bytes(to_png(slip))

    async with contextlib.AsyncExitStack() as stack:
        printer = FakePrinter(
            on_slip=show, link=options.link, tcp_port=options.tcp, wire=Wire(baud=options.baud)
        )
        await stack.enter_async_context(printer)
        print(f"the printer is on {printer.device_path}", flush=True)
        if options.control is not None:
            control = PrinterControl(printer, options.control)
            await stack.enter_async_context(control)
            print(f"its control is on {control.url}/_fake/state", flush=True)
        await asyncio.Event().wait()


parser = argparse.ArgumentParser(prog="python -m hw_fakes.printer", description=__doc__)
where = parser.add_mutually_exclusive_group()
where.add_argument("--tcp", type=int, metavar="PORT", help="listen there (0: any) instead of a pty")
where.add_argument("--link", type=Path, help="a stable name for the pty, as udev gives it")
parser.add_argument("--png", type=Path, metavar="DIR", help="a picture of every slip")
parser.add_argument("--control", type=int, metavar="PORT", help="HTTP /_fake/ there (0: any)")
parser.add_argument("--baud", type=int, help="how fast it takes bytes; default: as they come")
if __name__ == "__main__":
    try:
        asyncio.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        pass
