"""`pos-gateway demo`: a whole shop of fakes in one process, one sale through it, and its receipt.

The gateway, the JVM and the fake unit in it are the real parts; the printer, the cloud and KRA are
the fakes of `hw_fakes`; so are M-Pesa and the customer's phone. The only module of the gateway that
knows them.
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
# Safaricom's public test shortcode and number.
SHORTCODE = "174379"
PAYS_ALONE = "254708374149"
PAYS_AFTER_S = 2.0
PAYMENT_MAX_S = 60.0
SHOWN = ("invoiceId", "invcNo", "rcptNo", "totRcptNo", "cuInvoiceNo", "rcptSign", "intrlData", "qr")
# The virtual printer's slip is waited for this long, in seconds.
SLIP_MAX_S = 30.0


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
    from hw_fakes.daraja import KEY, PASSKEY, SECRET, FakeDaraja
    from hw_fakes.ports import free_port
    from hw_fakes.printer.peer import FakePrinter
    from hw_fakes.vscu.unit import BRANCH, JAR, PIN, SERIAL, prepare

    async with AsyncExitStack() as stack:
        printer = await stack.enter_async_context(FakePrinter())
        cloud = await stack.enter_async_context(FakeCloud())
        mpesa_port = free_port()
        # M-Pesa takes https addresses with a name only; here it leads to the gateway's own port for it.
        daraja = await stack.enter_async_context(
            FakeDaraja(default="phone", hosts={"shop.demo": f"http://127.0.0.1:{mpesa_port}"})
        )
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
            unit={
                "jar": JAR,
                "directory": home / "unit",
                "port": unit_port,
                "serial": SERIAL,
                # `pos-gateway unit-test` proves both of the fake unit.
                "resend": True,
                "forgets_on_restart": True,
            },
            store={"directory": home / "store"},
            api={"port": port},
            tills=[{"id": "till-1", "name": "Till 1", "printer": "counter"}],
            till_tokens={"till-1": token},
            printers={"counter": {"port": printer.device_path, "baud": 115200}},
            cloud={"url": cloud.url},
            cloud_token=cloud.token,
            mpesa={
                "environment": "sandbox",
                "base_url": daraja.url,
                "shortcode": SHORTCODE,
                "callback_url": "https://shop.demo",
                "direct_host": "127.0.0.1",
                "direct_port": mpesa_port,
                "same_phone_s": 0,
            },
            mpesa_consumer_key=KEY,
            mpesa_consumer_secret=SECRET,
            mpesa_passkey=PASSKEY,
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
        daraja.script("ok", phone=PAYS_ALONE, done_s=PAYS_AFTER_S)
        print(await _sell_by_phone(gateway, token))
        if not once:
            print(_phone_help(gateway, token, daraja.url))
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


async def _sell_by_phone(gateway: Gateway, token: str) -> str:
    """A sale that the customer pays by M-Pesa: asked for, waited for by events, signed; in words."""
    sale = {
        **{name: value for name, value in SALE.items() if name != "payments"},
        "tillReceiptNo": "POS-000002",
        "tenders": [{"method": "MPESA", "phone": PAYS_ALONE, "amount": SALE["total"]}],
    }
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": secrets.token_hex(8)}
    async with aiohttp.ClientSession(headers=headers) as session, asyncio.timeout(PAYMENT_MAX_S):
        while True:
            # The next change is waited for from before the question on.
            changed = asyncio.ensure_future(gateway.db.changed())
            async with session.post(f"{gateway.url}/v1/invoices", json=sale) as response:
                answer: dict[str, Any] = await response.json(content_type=None)
            if response.status == 201:
                changed.cancel()
                return (
                    f"\nSale POS-000002 was paid by M-Pesa ({SALE['total']} KES, "
                    f"{PAYS_ALONE[:4]}...) and signed: receipt {answer['rcptNo']}/{answer['totRcptNo']}."
                )
            if response.status != 202:
                changed.cancel()
                raise RuntimeError(f"the sale was not paid: {answer.get('detail')}")
            await changed


def _phone_help(gateway: Gateway, token: str, daraja_url: str) -> str:
    body = json.dumps({"saleRef": "POS-000003", "amount": "450.00", "phone": "254712345678"})
    return (
        f"\nM-Pesa, with you as the customer. The phone: {daraja_url}/_fake/phone (its PIN is 1234)\n"
        f"The payments: {gateway.url}/payments\n\ncurl -s {gateway.url}/v1/payments/mpesa \\\n"
        f"  -H 'Authorization: Bearer {token}' \\\n  -H 'Idempotency-Key: payment-1' \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d '{body}'\n\nCtrl-C ends the demo."
    )


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
    body = json.dumps({**SALE, "tillReceiptNo": "POS-000004"})
    print(
        f"\nStatus page:  {gateway.url}/\n\nAnother sale (a new key for every sale; the same key "
        "again gives the same receipt again):\n\n"
        f"curl -s {gateway.url}/v1/invoices \\\n  -H 'Authorization: Bearer {token}' \\\n"
        f"  -H 'Idempotency-Key: sale-2' \\\n  -H 'Content-Type: application/json' \\\n"
        f"  -d '{body}'"
    )


async def _until_interrupted() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    await stop.wait()
