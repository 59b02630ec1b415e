"""An inbox over a real store: pushes at any point of their life, and M-Pesa's messages about them."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway import ids
from gateway.clock import EAT, micros
from gateway.domain.payment import Evidence, Money, Source, Verdict
from gateway.mpesa.c2b_token import c2b_token
from gateway.payments.inbox import Inbox
from gateway.payments.ledger import Ledger
from gateway.store import events, mpesa_inbox, payments
from gateway.store.database import Database, open_database
from gateway.store.events import Event
from gateway.store.mpesa_inbox import Message
from gateway.store.payments import NewPush, PaymentRow
from tests.support.clock import FakeClock

DATA = Path(__file__).parents[1] / "data" / "daraja"
PHONE = "254708374149"
SHORTCODE = "174379"
C2B = c2b_token("passkey", SHORTCODE)
_numbers = itertools.count(1)


@dataclass
class Desk:
    """`look_now` holds the payments that M-Pesa should be asked about."""

    db: Database
    clock: FakeClock
    ledger: Ledger
    inbox: Inbox
    tokens: dict[str, str] = field(default_factory=dict)
    looks: list[str] = field(default_factory=list)

    async def push(
        self,
        money: Money = Money.WAITING,
        *,
        cents: int = 45_000,
        request: str | None = None,
        phone: str = PHONE,
        reference: str | None = None,
    ) -> str:
        """A push in this state; its id. `request`: M-Pesa's number of it, None for one without."""
        number = next(_numbers)
        token, at = f"token-{number:026d}", micros(self.clock.now())
        new = NewPush(
            id=ids.new_id(at), till_id="till-1", idem_key=f"k{number}", body_digest="0" * 64, checkout_id=None,
            sale_ref=f"POS-{number}", amount_cents=cents, phone=phone, account_ref=reference or f"POS-{number}",
            token_hash=ids.token_hash(token), at=at,
        )  # fmt: skip
        await self.db.write(lambda conn: payments.insert_push(conn, new))
        self.tokens[new.id] = token
        for word, fields in _life(money, request):
            extra = {"sent_at": at} if word.verdict is Verdict.SENDING else {}
            await self.ledger.hear(new.id, word, **extra, **fields)
        assert (await self.row(new.id)).money is money
        return new.id

    async def row(self, payment_id: str) -> PaymentRow:
        found = await self.db.read(lambda conn: payments.by_id(conn, payment_id))
        assert found is not None
        return found

    async def by_receipt(self, receipt: str) -> PaymentRow | None:
        return await self.db.read(lambda conn: payments.by_receipt(conn, receipt))

    async def callback(self, payment_id: str, raw: bytes) -> Message:
        """M-Pesa posts to the payment's own address; the message after it was worked off."""
        return await self.message("s", self.tokens[payment_id], raw)

    async def message(
        self, kind: str, token: str, raw: bytes, origin: str | None = None
    ) -> Message:
        await self.inbox.put("RELAY" if origin else "DIRECT", origin, kind, token, raw, "192.0.2.1")
        await self.inbox.work()
        return (await self.messages())[-1]

    async def messages(self) -> list[Message]:
        numbers = await self.db.read(
            lambda conn: [
                row[0] for row in conn.execute("SELECT id FROM mpesa_message ORDER BY id")
            ]
        )
        found = [await self.db.read(lambda conn: mpesa_inbox.by_id(conn, n)) for n in numbers]
        return [message for message in found if message is not None]

    async def events(self, kind: str) -> list[Event]:
        return await self.db.read(lambda conn: events.of_kind(conn, kind))

    async def alarms(self) -> list[str]:
        return [event.data["alarm"] for event in await self.events("payment.alarm")]


def _life(money: Money, request: str | None) -> list[tuple[Evidence, dict[str, Any]]]:
    sending = (Evidence(Source.PUSH, Verdict.SENDING), {})
    taken = (Evidence(Source.PUSH, Verdict.ACCEPTED, checkout_request_id=request), {})
    lost = (Evidence(Source.PUSH, Verdict.SEND_LOST), {})
    lives: dict[Money, list[tuple[Evidence, dict[str, Any]]]] = {
        Money.NEW: [],
        Money.SENDING: [sending],
        Money.SEND_UNKNOWN: [sending, lost],
        Money.WAITING: [sending, taken],
        Money.UNKNOWN: [sending, taken, (Evidence(Source.CLOCK, Verdict.DEADLINE), {})],
        Money.NOT_PAID: [sending, taken, (Evidence(Source.QUERY, Verdict.NOT_PAID), {})],
        Money.PAID: [sending, taken, (Evidence(Source.QUERY, Verdict.PAID), {})],
    }
    return lives[money]


@asynccontextmanager
async def open_desk(directory: Path, clock: FakeClock | None = None) -> AsyncIterator[Desk]:
    clock = clock or FakeClock()
    async with open_database(directory) as db:
        ledger = Ledger(db, clock)
        inbox = Inbox(db, clock, ledger, shortcodes=(SHORTCODE,), c2b_token=C2B)
        desk = Desk(db, clock, ledger, inbox)
        inbox.look_now.append(lambda row: desk.looks.append(row.id))
        yield desk


def stk(
    request: str = "ws_CO_1",
    code: object = 0,
    *,
    receipt: str = "UKN0TEST01",
    amount: object = 450.0,
    phone: object = 254708374149,
) -> bytes:
    """A push's callback as Daraja has it (daraja.md 3)."""
    body: dict[str, Any] = {
        "MerchantRequestID": f"m-{request}",
        "CheckoutRequestID": request,
        "ResultCode": code,
        "ResultDesc": "said M-Pesa",
    }
    if code in (0, "0"):
        items = {"Amount": amount, "MpesaReceiptNumber": receipt, "PhoneNumber": phone}
        body["CallbackMetadata"] = {"Item": [{"Name": n, "Value": v} for n, v in items.items()]}
    return json.dumps({"Body": {"stkCallback": body}}).encode()


def c2b(
    clock: FakeClock,
    receipt: str = "UKN0TEST01",
    amount: str = "450.00",
    *,
    reference: str = "",
    phone: str = "2547 ***** 149",
    shortcode: str = SHORTCODE,
    age_s: float = 0,
) -> bytes:
    """A C2B confirmation (daraja.md 6), of a payment so many seconds ago."""
    at = (clock.now() - timedelta(seconds=age_s)).astimezone(EAT)
    return json.dumps(
        {
            "TransactionType": "Pay Bill" if reference else "Buy Goods",
            "TransID": receipt,
            "TransTime": at.strftime("%Y%m%d%H%M%S"),
            "TransAmount": amount,
            "BusinessShortCode": shortcode,
            "BillRefNumber": reference,
            "MSISDN": phone,
            "FirstName": "JANE",
        }
    ).encode()
