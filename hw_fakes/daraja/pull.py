"""Pull Transactions: what came in during the last 48 hours, in lists of lists (daraja.md 6)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from hw_fakes.daraja import checks
from hw_fakes.daraja.bank import Merchant, Payment
from hw_fakes.daraja.checks import text
from hw_fakes.daraja.clock import EAT
from hw_fakes.daraja.oauth import OAuth
from hw_fakes.daraja.world import World

# Rows that are no customer's payment.
TYPES = {
    "REVERSAL": "c2b-reversal",
    "B2C": "business-payment-to-customer",
    "SETTLEMENT": "merchant-to-organization-settlement",
}
STAMP = re.compile(r"\d{4}-\d{2}-\d{2} \d{1,2}:\d{2}:\d{2}")


class Pull:
    def __init__(self, world: World, oauth: OAuth) -> None:
        self._world = world
        self._oauth = oauth

    async def register(self, request: web.Request) -> web.StreamResponse:
        world = self._world
        body = await self._oauth.body(request, "pull")
        if not isinstance(body, dict):
            return body
        merchant = world.bank.merchant(text(body, "ShortCode"))
        if merchant is None:
            return world.invalid("ShortCode")
        if text(body, "RequestType") != "Pull":
            return world.invalid("RequestType")
        if not checks.PHONE.fullmatch(text(body, "NominatedNumber")):
            return world.invalid("NominatedNumber")
        if not checks.https(text(body, "CallBackURL")):
            return world.invalid("CallBackURL")
        before, merchant.pull_registered = merchant.pull_registered, True
        world.note("pull", outcome="registered", shortcode=text(body, "ShortCode"))
        return web.json_response(
            {
                "ResponseRefID": world.ids.request(),
                "ResponseStatus": "1001" if before else "1000",
                "ShortCode": text(body, "ShortCode"),
                "ResponseDescription": "ShortCode already Registered"
                if before
                else "ShortCode registered successfully",
            }
        )

    async def query(self, request: web.Request) -> web.StreamResponse:
        world, knobs = self._world, self._world.knobs
        body = await self._oauth.body(request, "pull")
        if not isinstance(body, dict):
            return body
        merchant = world.bank.merchant(text(body, "ShortCode"))
        start, end = _stamp(text(body, "StartDate")), _stamp(text(body, "EndDate"))
        offset = text(body, "OffSetValue")
        if merchant is None:
            return world.invalid("ShortCode")
        if start is None:
            return world.invalid("StartDate")
        if end is None or end < start:
            return world.invalid("EndDate")
        if not offset.isdecimal():
            return world.invalid("OffSetValue")
        if self._unknown(merchant):
            world.note("pull", outcome="not registered", shortcode=text(body, "ShortCode"))
            return self._answer("1001", "No records found or Organization Name not available", [])
        now = world.clock.now()
        oldest = now - timedelta(hours=knobs.pull_window_h)
        newest = now - timedelta(seconds=knobs.pull_lag_s)
        booked = [
            payment
            for payment in world.bank.payments
            if (payment.kind != "REVERSAL" or knobs.pull_reversals != "none")
            and payment.shortcode == merchant.shortcode
            and start <= payment.at.replace(microsecond=0) <= end
            and oldest <= payment.at <= newest
        ]
        rows = [self._row(payment, merchant.name) for payment in booked]
        for at, row in merchant.pull_rows:
            if start <= datetime.fromisoformat(at).replace(microsecond=0) <= end:
                rows.append(row)
        page = rows[int(offset) : int(offset) + int(knobs.pull_page)]
        world.note(
            "pull", outcome=f"{len(page)} rows", start=start.isoformat(), end=end.isoformat(),
            offset=int(offset),
        )  # fmt: skip
        if page:
            return self._answer("1000", "Success", page)
        return self._answer(knobs.pull_empty_code, "No transactions", page)

    def _unknown(self, merchant: Merchant) -> bool:
        """Return True for a shop that was never registered for Pull, or fails in spite of it (a child paybill)."""
        knobs, numbers = self._world.knobs, merchant.numbers()
        if any(number in knobs.pull_fails for number in numbers):
            return True
        known = merchant.pull_registered or any(n in knobs.pull_registered for n in numbers)
        return knobs.pull_must_register and not known

    def _answer(self, code: str, words: str, page: list[dict[str, Any]]) -> web.Response:
        """Return HTTP 200 whatever the code is. The knob pullEmpty is the form of a list without rows."""
        told: dict[str, Any] = {
            "ResponseRefID": self._world.ids.request(),
            "ResponseCode": code,
            "ResponseMessage": words,
            "Response": [page],
        }
        form = self._world.knobs.pull_empty
        if not page and form == "absent":
            del told["Response"]
        elif not page and form != "nested":
            told["Response"] = {"flat": [], "null": None}[form]
        return web.json_response(told)

    def _row(self, payment: Payment, name: str) -> dict[str, Any]:
        """Lower-case keys, the amount text, the number without its country."""
        till = payment.number != payment.shortcode
        customer = "c2b-buy-goods-debit" if till else "c2b-pay-bill-debit"
        negative = payment.kind == "REVERSAL" and self._world.knobs.pull_reversals == "negative"
        return {
            "transactionId": payment.receipt,
            "trxDate": self.stamp(payment.at),
            "msisdn": int(payment.phone[3:]),
            "sender": payment.names[0] or name,
            "transactiontype": customer if negative else TYPES.get(payment.kind, customer),
            "billreference": payment.reference,
            "amount": f"{'-' if negative else ''}{payment.amount}.00",
            "organizationname": name,
        }

    def stamp(self, at: datetime) -> str:
        zone = UTC if self._world.knobs.pull_zone == "utc" else EAT
        return f"{at.astimezone(zone):%Y-%m-%dT%H:%M:%SZ}"


def _stamp(value: str) -> datetime | None:
    if not STAMP.fullmatch(value):
        return None
    try:
        return datetime.strptime(value, "%Y-%m-%d %H:%M:%S").replace(tzinfo=EAT)
    except ValueError:
        return None
