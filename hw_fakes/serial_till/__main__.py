"""`python -m hw_fakes.serial_till --link PATH [--sale FILE]`: a till on a serial line, and one sale.

The gateway opens PATH (`[serial_tills.NAME] port`). Without a file a sample sale is sent. The answer is
the last line; the same `--key` again gets the same receipt again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from hw_fakes.serial_till.peer import FakeSerialTill, LineDead, SerialWire

SAMPLE = {
    "tillReceiptNo": "000042",
    "total": "232.00",
    "lines": [
        {
            "itemCode": "KE2NTXU0000001", "name": "Bottled soda 500ml", "quantity": "2",
            "unitPrice": "116.00", "taxCode": "B",
        }
    ],
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hw_fakes.serial_till", description=__doc__)
    parser.add_argument("--link", type=Path, required=True, help="a stable name for the pty")
    parser.add_argument("--sale", type=Path, help="a JSON file as of POST /v1/invoices")
    parser.add_argument("--key", default="serial-till-000042", help="default: %(default)s")
    parser.add_argument("--tries", type=int, default=20, help="until the gateway is there")
    for name in ("lose_requests", "corrupt_requests", "lose_their_acks", "lose_answers",
                 "corrupt_answers", "lose_our_acks"):  # fmt: skip
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=0, metavar="N")
    parser.add_argument("--one-byte", action="store_true", help="one byte at a time")
    parser.add_argument("--stall-s", type=float, default=0.0, help="half a frame, then silence")
    return parser.parse_args()


async def sell(options: argparse.Namespace) -> int:
    names = SerialWire.__dataclass_fields__
    wire = SerialWire(**{name: getattr(options, name) for name in names if hasattr(options, name)})
    sale = json.loads(options.sale.read_text()) if options.sale else SAMPLE
    async with FakeSerialTill(wire, link=options.link) as till:
        print(f"the till is on {options.link}", flush=True)
        for left in range(options.tries, 0, -1):
            try:
                answer = await till.sell(options.key, sale)
                break
            except LineDead as dead:
                print(f"{dead}; {left - 1} more tries", file=sys.stderr, flush=True)
        else:
            return 1
    print(json.dumps({"status": answer.status, "body": answer.body}, ensure_ascii=False))
    return 0 if answer.status == 201 else 1


try:
    sys.exit(asyncio.run(sell(parse())))
except KeyboardInterrupt:
    pass
