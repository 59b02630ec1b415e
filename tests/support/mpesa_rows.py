"""The rows of fake_scenarios.json as the end-to-end tests play them: how each must end (`gateway_must_end`),
the shop in which it is played, the daemon's death in its middle, and M-Pesa's books against the store's."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.mpesa.c2b_token import c2b_token
from hw_fakes.daraja import PASSKEY, phone_for
from hw_fakes.vscu.unit import UnitControl
from tests.support.mpesa_shop import (
    PATIENCE_S,
    RELAY_HOST,
    SHORTCODE,
    MpesaShop,
    MpesaTill,
    Screen,
    open_mpesa_shop,
)
from tests.support.shop import Reply, a_sale

OPEN = ("NEW", "SENDING", "SEND_UNKNOWN", "WAITING", "UNKNOWN")
TOTAL = "297.00"


@dataclass(frozen=True)
class End:
    """How a row ends: money, reason, tender of the payment; one of these alarms; what stood in its story; how
    many prompts."""

    money: str
    reason: str | None = None
    tender: str = "OPEN"
    alarm: tuple[str, ...] = ()
    paid_by: tuple[str, ...] = ()
    receipt: bool | None = None
    through: tuple[str, ...] = ()
    pushes: int = 1


def paid(*paid_by: str, **more: Any) -> End:
    """Paid, and the sale signed with it."""
    return End("PAID", tender="COMPLETED_BY_MPESA", paid_by=paid_by, **{"receipt": True, **more})


def failed(reason: str, *alarm: str) -> End:
    return End("NOT_PAID", reason, alarm=alarm)


# A kill in its middle decides which of two contradicting words is heard first; each order has a test of its
# own in test_payments_core.py.
EITHER = ("PAID_AFTER_FAILURE", "FAILURE_AFTER_PAID")

ROWS: dict[str, End] = {
    "ok": paid("CALLBACK", "C2B", "QUERY"),
    "ok_fast": paid("CALLBACK", "C2B", "QUERY"),
    "callback_before_push_response": paid("CALLBACK", "C2B"),
    "cancel": failed("CANCELLED"),
    "wrong_pin": failed("FAILED_PIN"),
    "funds": failed("FAILED_FUNDS"),
    "unreachable": failed("FAILED_UNREACHABLE"),
    "expired": failed("FAILED_EXPIRED"),
    "busy_async": failed("FAILED_BUSY"),
    "busy_sync": End("REFUSED", "NOT_SENT"),
    "rule_limited": failed("FAILED_RETRYABLE"),
    "product_mismatch": failed("FAILED_CONFIG", "SETUP"),
    "operator_missing": failed("FAILED_CONFIG", "SETUP"),
    "push_9999": failed("FAILED_RETRYABLE"),
    "lost_callback_paid": paid("QUERY", receipt=False),
    "lost_callback_paid_c2b": paid("C2B"),
    "lost_callback_unpaid": failed("CANCELLED"),
    "everything_silent_paid": paid("PULL", through=("UNKNOWN",)),
    "everything_silent_unpaid": End("NOT_PAID", "NOT_FOUND", through=("UNKNOWN",)),
    "late_success": End("PAID", tender="REFUND_DUE", alarm=("LATE",), receipt=True, through=("UNKNOWN",)),
    "late_success_after_failed_query": paid("CALLBACK", alarm=("PAID_AFTER_FAILURE",), through=("NOT_PAID",)),
    "contradiction_cb_ok_query_failed": paid("CALLBACK", "C2B"),
    "contradiction_cb_failed_query_ok": paid("C2B", "QUERY", alarm=EITHER),
    "dup_callback": paid("CALLBACK", "C2B", "QUERY"),
    "dup_conflicting_callback": paid("CALLBACK", "C2B", "QUERY", alarm=EITHER),
    "c2b_and_callback": paid("CALLBACK", "C2B", "QUERY"),
    "wrong_amount": End("PAID", tender="REVIEW", alarm=("OTHER_AMOUNT",), receipt=True),
    "spoofed_callback": End("UNKNOWN"),
    "malformed_callback": paid("QUERY", receipt=False, alarm=("MALFORMED",)),
    "types_variant": paid("CALLBACK", "C2B", "QUERY"),
    "too_early_query": paid("CALLBACK", "C2B", "QUERY"),
    "rate_limited_query": paid("QUERY", "PULL", receipt=None),
    "query_html_503": paid("CALLBACK", "C2B"),
    "token_expired": paid("CALLBACK", "C2B", "QUERY"),
    "token_replaced": paid("CALLBACK", "C2B", "QUERY"),
    "oauth_400_empty": End("REFUSED", "CONFIG", alarm=("SETUP",), pushes=0),
    "push_timeout_prompted": paid("CALLBACK", "C2B", through=("SEND_UNKNOWN",)),
    "push_timeout_not_prompted": End("NOT_PAID", "NOT_FOUND", through=("SEND_UNKNOWN", "UNKNOWN"), pushes=0),
    "push_500_busy": End("REFUSED", "NOT_SENT"),
    "push_ResponseCode_1": End("REFUSED"),
    "invalid_callback_url": End("REFUSED", "CONFIG", alarm=("SETUP",)),
    "double_tap": paid("CALLBACK", "C2B", "QUERY"),
    "restart_mid_flight": paid("CALLBACK", "C2B", "QUERY"),
    "restart_before_response": paid("CALLBACK", "C2B", through=("SEND_UNKNOWN",)),
    "customer_pays_till_directly": End("PAID", paid_by=("C2B",), receipt=True, pushes=0),
    "reversal_after_paid": End("REFUNDED", tender="REFUNDED", receipt=True),
}  # fmt: skip


@dataclass
class Case:
    """One row in a running shop."""

    name: str
    phone: str
    ref: str
    payment_id: str = ""
    killed_in: str = ""
    checkout: bool = False


@dataclass
class Stage:
    """A shop, its tills, and the rows that are played in it."""

    shop: MpesaShop
    till: MpesaTill
    screen: Screen
    chance: random.Random
    cases: dict[str, Case] = field(default_factory=dict)

    def case(self, name: str, lead: str = "25470800") -> Case:
        case = Case(name, phone_for(name, lead), f"R-{name[:30]}")
        self.cases[name] = case
        return case

    async def ask(self, case: Case) -> Reply:
        reply = await self.till.push(f"key-{case.name}", case.ref, TOTAL, case.phone)
        assert reply.status == 202, (case.name, reply.json)
        case.payment_id = reply.json["paymentId"]
        return reply

    async def sell_asking(self, case: Case) -> Reply:
        """The same as one sale with `tenders`."""
        case.checkout = True
        sale = a_sale(
            tillReceiptNo=case.ref,
            tenders=[{"method": "MPESA", "phone": case.phone, "amount": TOTAL}],
        )
        reply = await self.till.insist("POST", "/v1/invoices", key=f"key-{case.name}", json=sale)
        return reply

    def find_payment(self, case: Case) -> None:
        if not case.payment_id:
            rows = self.shop.rows("SELECT id FROM payment WHERE sale_ref = ?", case.ref)
            assert len(rows) == 1, (case.name, rows)
            case.payment_id = rows[0]["id"]

    async def kill(self, *cases: Case, states: tuple[str, ...] = OPEN) -> None:
        """The daemon is gone between two instructions; each of these rows was in its middle."""
        await self.shop.daemon.kill()
        for case in cases:
            self.find_payment(case)
            case.killed_in = self.shop.row(case.payment_id)["money"]
            assert case.killed_in in states, (case.name, case.killed_in)

    async def start(self) -> None:
        await asyncio.sleep(self.chance.uniform(0, 1.0))  # the box is off for up to twenty seconds
        await self.shop.daemon.start()

    async def sell_with(self, case: Case) -> None:
        """The money is there: the till posts the sale that it pays."""
        sale = a_sale(
            tillReceiptNo=case.ref,
            payments=[{"method": "MOBILE_MONEY", "amount": TOTAL, "paymentId": case.payment_id}],
        )
        reply = await self.till.insist("POST", "/v1/invoices", key=f"sale-{case.name}", json=sale)
        assert reply.status == 201, (case.name, reply.json)

    # --- the end --------------------------------------------------------------------------------------

    async def ends(self, case: Case) -> None:
        """The row is as the table says; then its sale is signed where money is there for it."""
        end = ROWS[case.name]
        shop = self.shop
        assert case.killed_in, case.name

        def there() -> dict[str, Any] | None:
            row = shop.row(case.payment_id)
            receipt = end.receipt is not True or row["receipt"] is not None
            return row if row["money"] == end.money and receipt else None

        row = await shop.until(there, f"{case.name} {end} {shop.row(case.payment_id)['money']}")
        if end.tender == "COMPLETED_BY_MPESA" and not case.checkout:
            await self.sell_with(case)
        row = await shop.until(
            lambda: (r := shop.row(case.payment_id))["tender"] == end.tender and r,
            f"{case.name} {end.tender} {row['tender']}",
        )

        def said() -> list[dict[str, Any]]:
            return shop.rows(
                "SELECT * FROM payment_event WHERE payment_id = ? ORDER BY id", case.payment_id
            )

        if end.alarm:
            # The word that contradicts, or says nothing readable, may be the last to come.
            await shop.until(
                lambda: not set(end.alarm).isdisjoint(word["alarm"] for word in said()),
                f"{case.name}: one of {end.alarm}",
            )
        words = said()
        story = [(word["source"], word["word"], word["money"]) for word in words]
        assert row["money"] == end.money, (case.name, story)
        if end.reason is not None:
            assert row["reason"] == end.reason, (case.name, row["reason"], story)
        if end.paid_by:
            assert row["paid_by"] in end.paid_by, (case.name, row["paid_by"], story)
        if end.receipt is not None:
            assert (row["receipt"] is not None) == end.receipt, (case.name, story)
        for state in end.through:
            assert state in {word["money"] for word in words}, (case.name, state, story)
        changed = [word["money"] for word in words]
        if "PAID" in changed:
            rest = changed[changed.index("PAID") :]
            assert set(rest) <= {"PAID", "REFUNDED"}, (case.name, story)
        sent = [push for push in shop.fake.pushes if push.phone == case.phone]
        refused = [e for e in shop.fake.entries("push") if e.get("phone") == case.phone]
        assert len(sent) <= 1, (case.name, "the phone rang twice")
        assert len({e.get("callbackUrl") for e in refused}) <= 1, (case.name, refused)
        # The till was told the end, in words for the cashier.
        if end.pushes or sent:
            await self.screen.until(
                lambda: any(e.data["state"] == end.money for e in self.screen.of(case.payment_id)),
                f"{case.name} on the till",
            )
            last = self.screen.of(case.payment_id)[-1]
            assert last.data["sentence"]["en"] and last.data["sentence"]["sw"]

    async def books_agree(self) -> None:
        """M-Pesa's journal and the store: each shilling is one payment's, and no payment has another's."""
        shop = self.shop
        # Copies and twins of what has ended may still be on their way into the books.
        await shop.fake.settled(PATIENCE_S)
        await shop.until(
            lambda: not shop.rows("SELECT * FROM mpesa_message WHERE state = 'NEW'"),
            "messages that nobody worked off",
        )
        came = {p.receipt: p for p in shop.fake.payments if p.kind in ("STK", "C2B")}
        rows = shop.rows("SELECT * FROM payment WHERE merged_into IS NULL AND paid_by IS NOT NULL")
        by_receipt = {row["receipt"]: row for row in rows if row["receipt"]}
        assert len(by_receipt) == len([row for row in rows if row["receipt"]])
        assert set(by_receipt) <= set(came), "a receipt that M-Pesa does not have"
        for receipt, row in by_receipt.items():
            assert row["paid_cents"] == came[receipt].amount * 100
        unnamed = [row for row in rows if row["receipt"] is None]
        missing = [p for receipt, p in came.items() if receipt not in by_receipt]
        assert {row["phone"] for row in unnamed} == {p.phone for p in missing}
        journal = await shop.unit.journal()
        signed = [entry["trdInvcNo"] for entry in journal]
        assert len(signed) == len(set(signed)), "a sale was signed twice"
        owned = {row["sale_ref"] for row in rows if row["tender"] == "COMPLETED_BY_MPESA"}
        assert owned <= set(signed)
        bugs = shop.fake.entries("bug")
        assert not bugs, bugs


Play = Callable[[Stage], Awaitable[None]]


async def play(
    directory: Path,
    unit: UnitControl,
    act: Play,
    *,
    settings: str = "",
    speed: float = 20,
    **knobs: Any,
) -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    print(f"SEED={seed}")
    async with open_mpesa_shop(directory, unit, speed=speed, settings=settings, **knobs) as shop:
        till = shop.till()
        (merchant,) = (m for m in shop.fake.merchants if m.shortcode == SHORTCODE)
        address = f"https://{RELAY_HOST}/shop-1/{{}}/{c2b_token(PASSKEY, SHORTCODE)}"
        merchant.registered = {
            "ResponseType": "Completed", "ConfirmationURL": address.format("c"), "ValidationURL": address.format("v"),
        }  # fmt: skip
        async with till.screen() as screen:
            stage = Stage(shop, till, screen, random.Random(seed))
            await act(stage)
            await stage.books_agree()


def pushed(stage: Stage, case: Case) -> bool:
    """M-Pesa has this push: the phone rings, or will."""
    return any(push.phone == case.phone for push in stage.shop.fake.pushes)


C2B = "c2b = true\nquery_every_s = 1\n"
PULL = C2B + "pull = true\npull_margin_minutes = 1\n"
