"""Money that moves without a request of the shop's own: settlement, a customer's reversal, rows of Pull by hand."""

from __future__ import annotations

from typing import Any

from hw_fakes.daraja.bank import Merchant, Payment
from hw_fakes.daraja.c2b import C2b
from hw_fakes.daraja.pull import Pull
from hw_fakes.daraja.world import World

# The number that Pull's rows have where no customer is.
NO_CUSTOMER = "254700000000"


class Movements:
    def __init__(self, world: World, c2b: C2b, pull: Pull) -> None:
        self._world = world
        self._c2b = c2b
        self._pull = pull

    def settle(self, number: str, amount: int | None = None) -> Payment:
        """Sweep the balance (or `amount`) of a shop to its bank account."""
        world, merchant = self._world, self._merchant(number)
        swept = merchant.balance if amount is None else amount
        if not 0 < swept <= merchant.balance:
            raise ValueError(f"{number} has {merchant.balance} shillings to settle")
        now = world.clock.now()
        payment = Payment(
            receipt=world.ids.receipt(now), kind="SETTLEMENT", phone=NO_CUSTOMER,
            shortcode=merchant.shortcode, number=merchant.shortcode, amount=swept, at=now,
        )  # fmt: skip
        world.bank.book(payment)
        world.note("payment", **payment.told())
        return payment

    def reverse(self, receipt: str) -> Payment:
        """Give a payment back because the customer sent its SMS to 456. The shop is not asked."""
        world = self._world
        payment = world.bank.payment(receipt)
        if payment is None or payment.kind not in ("STK", "C2B"):
            raise ValueError(f"no customer's payment {receipt}")
        if payment.reversed_by is not None:
            raise ValueError(f"{receipt} was reversed by {payment.reversed_by}")
        now = world.clock.now()
        back = Payment(
            receipt=world.ids.receipt(now), kind="REVERSAL", phone=payment.phone,
            shortcode=payment.shortcode, number=payment.number, amount=payment.amount, at=now,
            of=payment.receipt,
        )  # fmt: skip
        world.bank.book(back)
        payment.reversed_by = back.receipt
        world.note("payment", by="customer", **back.told())
        world.begin(self._c2b.tell_reversal(payment, back))
        return back

    def add_rows(self, number: str, rows: list[dict[str, Any]]) -> None:
        """Give Pull rows as they stand here. One without `trxDate` gets the time of now."""
        merchant, now = self._merchant(number), self._world.clock.now()
        if not rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError("rows is a list of objects")
        for row in rows:
            whole = {"trxDate": self._pull.stamp(now), **row}
            merchant.pull_rows.append((now.isoformat(), whole))

    def _merchant(self, number: str) -> Merchant:
        merchant = self._world.bank.merchant(number)
        if merchant is None:
            raise ValueError(f"no shop has the number {number}")
        return merchant
