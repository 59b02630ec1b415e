"""Pull Transactions: what came in during the last 48 hours, in lists of lists (daraja.md 6)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from hw_fakes.daraja import checks
from hw_fakes.daraja.bank import Payment
from hw_fakes.daraja.checks import text
from hw_fakes.daraja.clock import EAT
from hw_fakes.daraja.oauth import OAuth
from hw_fakes.daraja.world import World

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
        now = world.clock.now()
        oldest = now - timedelta(hours=knobs.pull_window_h)
        newest = now - timedelta(seconds=knobs.pull_lag_s)
        rows = [
            payment
            for payment in world.bank.payments
            if payment.kind in ("STK", "C2B")
            and payment.shortcode == merchant.shortcode
            and start <= payment.at.replace(microsecond=0) <= end
            and oldest <= payment.at <= newest
        ]
        page = rows[int(offset) : int(offset) + int(knobs.pull_page)]
        world.note(
            "pull", outcome=f"{len(page)} rows", start=start.isoformat(), end=end.isoformat(),
            offset=int(offset),
        )  # fmt: skip
        return web.json_response(
            {
                "ResponseRefID": world.ids.request(),
                "ResponseCode": "1000" if page else "1001",
                "ResponseMessage": "Success" if page else "No transactions",
                "Response": [[self._row(payment, merchant.name) for payment in page]],
            }
        )

    def _row(self, payment: Payment, name: str) -> dict[str, Any]:
        """Lower-case keys, the amount text, the number without its country."""
        zone = UTC if self._world.knobs.pull_zone == "utc" else EAT
        till = payment.number != payment.shortcode
        return {
            "transactionId": payment.receipt,
            "trxDate": f"{payment.at.astimezone(zone):%Y-%m-%dT%H:%M:%SZ}",
            "msisdn": int(payment.phone[3:]),
            "sender": payment.names[0],
            "transactiontype": "c2b-buy-goods-debit" if till else "c2b-pay-bill-debit",
            "billreference": payment.reference,
            "amount": f"{payment.amount}.00",
            "organizationname": name,
        }


def _stamp(value: str) -> datetime | None:
    if not STAMP.fullmatch(value):
        return None
    try:
        return datetime.strptime(value, "%Y-%m-%d %H:%M:%S").replace(tzinfo=EAT)
    except ValueError:
        return None
