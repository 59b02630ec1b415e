"""An operator who looks at KRA's portal and decides: what the fake unit signed is what the portal shows."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.clock import Clock
from tests.support.shop import OpenShop, Reply


class Link:
    """A link to KRA that answers or not, as a test says: the edge behind `UnitRest`."""

    def __init__(self, clock: Clock, *, answers: bool = True) -> None:
        self._clock = clock
        self.answers = answers
        self.contact_begun_ns: int | None = clock.boottime_ns() if answers else None
        self.contact_since_ns: int | None = self.contact_begun_ns
        self.asked = 0

    def contact_soon(self) -> None:
        self.asked += 1

    async def contact_after(self, boottime_ns: int, timeout_s: float) -> bool:
        self.asked += 1
        if self.answers:
            self.contact_begun_ns = self._clock.boottime_ns()
            self.contact_since_ns = self.contact_since_ns or self.contact_begun_ns
        return self.answers


# Answers that ask the operator to wait or to look at the portal once more.
AGAIN = {"TOO_SOON", "KRA_NOT_REACHED", "LOOK_AGAIN"}


def codes(reply: Reply) -> set[str]:
    """The codes of a refusal's fields."""
    return {error["code"] for error in (reply.json or {}).get("errors", ())}


def portal_time(entry: dict[str, Any]) -> str:
    """The time of a receipt of the unit's journal as the portal shows it."""
    stamp = entry["vsdcRcptPbctDate"]
    return f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[8:10]}:{stamp[10:12]}:{stamp[12:]}"


def statement(newest: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    """NOT_SIGNED with `newest` as the portal's newest receipt; None for an empty portal."""
    said: dict[str, Any] = {
        "choice": "NOT_SIGNED",
        "reason": "searched all receipts of the day",
        "lastInvcNo": 0,
        "searched": True,
        "confirmed": True,
    }
    if newest is not None:
        said["lastInvcNo"] = newest["invcNo"]
        said["lastTotal"] = f"{newest['totAmt']:.2f}"
        said["lastTime"] = portal_time(newest)
    return {**said, **changes}


async def decide(shop: OpenShop, invoice_id: str, **said: Any) -> Reply:
    """Decide, and look again for as long as the gateway asks for that."""
    async with asyncio.timeout(60):
        while True:
            reply = await shop.technician().decide(invoice_id, **said)
            if not codes(reply) & AGAIN:
                return reply


async def number(shop: OpenShop, next_invc_no: int, **changes: Any) -> Reply:
    """Decide the numbering after a look at every silent till, and again for as long as asked for."""
    technician = shop.technician()
    async with asyncio.timeout(60):
        while True:
            shown = (await technician.request("GET", "/v1/unit/numbering")).json
            said = {
                "nextInvcNo": next_invc_no,
                "reason": "as KRA's portal shows it",
                "silentTills": shown["silentTills"],
                **changes,
            }
            reply = await technician.request("POST", "/v1/unit/numbering", json=said)
            if not codes(reply) & AGAIN:
                return reply
