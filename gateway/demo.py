"""`pos-gateway demo`: a whole shop of fakes in one process, one sale through it, and its receipt.

The gateway, the JVM and the fake unit in it are the real parts; the printer, the cloud and KRA are
the fakes of `hw_fakes`. The only module of the gateway that knows them.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from gateway import slips, wiring
from gateway.app import Gateway, open_gateway
from gateway.ops import logging as logs
from gateway.printing.document import Document
from gateway.printing.terminal import to_text
from gateway.settings import Settings
from gateway.vscu.host import end_process

SALE = {
    "tillReceiptNo": "POS-000001",
    "cashier": {"id": "amina", "name": "Amina"},
    "lines": [
        {
            "itemCode": "KE2NTXU0000001",
            "name": "Bottled soda 500ml",
            "quantity": "2",
            "unitPrice": "116.00",
            "taxCode": "B",
        },
        {
            "itemCode": "KE2NTXU0000002",
            "name": "Ordinary bread 400g",
            "quantity": "1",
            "unitPrice": "65.00",
            "taxCode": "A",
        },
    ],
    "payments": [{"method": "CASH", "amount": "300.00"}],
    "total": "297.00",
}
SHOWN = ("invoiceId", "invcNo", "rcptNo", "totRcptNo", "cuInvoiceNo", "rcptSign", "intrlData", "qr")
# The virtual printer's slip is waited for this long, in seconds.
SLIP_MAX_S = 10.0


def main(*, once: bool, port: int, directory: Path | None) -> int:
    """Runs until Ctrl-C, or with `once` for one sale. Ends the process itself: a JVM is in it."""
    logs.set_up(os.environ.get("DEMO_LOG", "ERROR"), "text")
    made = None if directory else Path(tempfile.mkdtemp(prefix="pos-gateway-demo-"))
    home = (directory or made or Path()).resolve()
    code = 1
    try:
        code = asyncio.run(_demo(home, once=once, port=0 if once else port))
    except KeyboardInterrupt:
        code = 0
    except Exception as error:  # a newcomer gets a sentence, whatever went wrong
        print(f"The demo failed: {error}", file=sys.stderr)
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    end_process(code)
    return code


async def _demo(home: Path, *, once: bool, port: int) -> int:
    from hw_fakes.cloud.server import FakeCloud
    from hw_fakes.printer.peer import FakePrinter
    from hw_fakes.vscu.unit import BRANCH, JAR, PIN, SERIAL, free_port, prepare

    async with AsyncExitStack() as stack:
        printer = await stack.enter_async_context(FakePrinter())
        cloud = await stack.enter_async_context(FakeCloud())
        unit_port = free_port()
        prepare(home / "unit", port=unit_port)
        token = secrets.token_urlsafe(24)
        values: dict[str, Any] = dict(
            branch={
                "pin": PIN,
                "branch_id": BRANCH,
                "trade_name": "TEST TRADERS LTD",
                "address": "TEST PLAZA, NAIROBI",
            },
            unit={"jar": JAR, "directory": home / "unit", "port": unit_port, "serial": SERIAL},
            store={"directory": home / "store"},
            api={"port": port},
            tills=[{"id": "till-1", "name": "Till 1", "printer": "counter"}],
            till_tokens={"till-1": token},
            printers={"counter": {"port": printer.device_path, "baud": 115200}},
            cloud={"url": cloud.url},
            cloud_token=cloud.token,
        )
        settings = Settings(**values)
        gateway = await stack.enter_async_context(open_gateway(settings))
        answer = await _sell(gateway, token)
        await printer.wait_for_slips(1, SLIP_MAX_S)
        document = await gateway.db.read(
            lambda conn: slips.compose(
                conn, answer["invoiceId"], 0, wiring.shop(settings), slips.COLUMNS[80], 80
            )
        )
        _show(gateway, document, printer, token, once=once)
        if not once:
            await _until_interrupted()
        print(json.dumps({name: answer[name] for name in SHOWN}, separators=(",", ":")))
    return 0


async def _sell(gateway: Gateway, token: str) -> dict[str, Any]:
    """One sale, submitted the way a till does."""
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": secrets.token_hex(8)}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gateway.url}/v1/invoices", json=SALE, headers=headers) as response,
    ):
        answer: dict[str, Any] = await response.json(content_type=None)
        if response.status != 201:
            raise RuntimeError(f"the sale was not signed: {answer.get('detail')}")
        return answer


def _show(
    gateway: Gateway,
    document: Document,
    printer: Any,
    token: str,
    *,
    once: bool,
) -> None:
    print(to_text(document, columns=slips.COLUMNS[80], qr=True))
    slip = printer.paper.slips[0]
    print(f"\nThe virtual printer on {printer.device_path} printed the same slip "
          f"({len(slip.raw)} bytes of ESC/POS).")  # fmt: skip
    if once:
        return
    body = json.dumps({**SALE, "tillReceiptNo": "POS-000002"})
    print(
        f"\nStatus page:  {gateway.url}/\n\nAnother sale (a new key for every sale; the same key "
        "again gives the same receipt again):\n\n"
        f"curl -s {gateway.url}/v1/invoices \\\n  -H 'Authorization: Bearer {token}' \\\n"
        f"  -H 'Idempotency-Key: sale-2' \\\n  -H 'Content-Type: application/json' \\\n"
        f"  -d '{body}'\n\nCtrl-C ends the demo."
    )


async def _until_interrupted() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    await stop.wait()
