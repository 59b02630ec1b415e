"""The only way a payment changes: one transaction holds the new state, the word that caused it with its
raw bytes, and the event for the till.

Words may come in any order, twice, late or not at all; `domain.payment` says what each means.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gateway.clock import Clock, micros
from gateway.domain.payment import (
    Act,
    Alarm,
    Change,
    Evidence,
    Money,
    Source,
    Tender,
    Verdict,
    acted,
    after,
    may,
)
from gateway.errors import GatewayError, PaymentSettled
from gateway.mpesa.masking import mask_request_id
from gateway.payments.view import payment_json
from gateway.store import events, payments
from gateway.store.database import Database
from gateway.store.payments import PaymentRow

log = logging.getLogger(__name__)

# What takes a payment away from a sale.
_SETTLES = frozenset({Act.SALE_WITHOUT_IT, Act.GIVEN_UP, Act.REFUND_ORDERED})


@dataclass(frozen=True, slots=True)
class Heard:
    """What one word did: the row after it, and the alarm it raised."""

    row: PaymentRow
    changed: bool
    alarm: Alarm | None


class Ledger:
    """`after_change` hooks run on the loop after a commit that changed something; they must not raise."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self.after_change: list[Callable[[PaymentRow], None]] = []
        # Why a payment may not be settled right now: a sale with it is at the unit, or about to be.
        self.held: Callable[[sqlite3.Connection, str], GatewayError | None] = lambda conn, id_: None
        # Whether the control unit has a sale with this payment right now.
        self.at_unit: Callable[[sqlite3.Connection, str], bool] = lambda conn, id_: False

    async def hear(
        self, payment_id: str, word: Evidence, raw: bytes | None = None, **fields: Any
    ) -> Heard:
        """One word about one payment, durably; `fields` are columns that change with it."""
        return await self.write(
            lambda conn: self.hear_in(conn, _get(conn, payment_id), word, raw, **fields)
        )

    async def act(
        self, payment_id: str, act: Act, who: str, reason: str = "", **fields: Any
    ) -> Heard:
        """What a till or a person does. PaymentSettled when it cannot be done (any more)."""
        return await self.write(
            lambda conn: self.act_in(conn, _get(conn, payment_id), act, who, reason, **fields)
        )

    async def write(self, fn: Callable[[sqlite3.Connection], Heard]) -> Heard:
        """A transaction that ends in a word; the hooks are told after its commit."""
        heard = await self._db.write(fn)
        self.told(heard)
        return heard

    def told(self, heard: Heard) -> None:
        """After a commit that was made elsewhere."""
        if heard.changed:
            self.told_of(heard.row)

    def told_of(self, row: PaymentRow) -> None:
        """After the commit of a new row, or of a changed one."""
        for hook in self.after_change:
            hook(row)

    # --- inside a transaction ---------------------------------------------------------------------

    def hear_in(
        self,
        conn: sqlite3.Connection,
        row: PaymentRow,
        word: Evidence,
        raw: bytes | None = None,
        **fields: Any,
    ) -> Heard:
        """`hear` as a part of the caller's transaction; the caller calls `told` after the commit."""
        at = micros(self._clock.now())
        change = after(row.state, word)
        asked = word.checkout_request_id
        if (
            row.checkout_request_id is None
            and asked is not None
            and not payments.by_request(conn, asked)
        ):
            fields["checkout_request_id"] = asked
        if row.merchant_request_id is None and word.merchant_request_id is not None:
            fields["merchant_request_id"] = word.merchant_request_id
        if row.payer is None and word.payer is not None:
            fields["payer"] = word.payer
        if change.state.money is Money.PAID and row.money is not Money.PAID:
            fields.setdefault("paid_at", at)
        if change.state.receipt is not None and row.receipt is None:
            change, merged_into = self._twin(conn, row, change, at)
            if merged_into is not None:
                fields["merged_into"] = merged_into
        new = payments.change(conn, row, change.state, at=at, **fields) if (
            change.changed or fields
        ) else row  # fmt: skip
        self._note(conn, new, word, change, at, raw)
        return Heard(new, change.changed, change.alarm)

    def act_in(
        self,
        conn: sqlite3.Connection,
        row: PaymentRow,
        act: Act,
        who: str,
        reason: str = "",
        **fields: Any,
    ) -> Heard:
        """`act` as a part of the caller's transaction."""
        at = micros(self._clock.now())
        held = self.held(conn, row.id) if act in _SETTLES else None
        if held is not None:
            held.extra.setdefault("payment", payment_json(row))
            raise held
        if not may(row.state, act):
            raise PaymentSettled(
                "This payment is not in a state for that any more. Look at it again.",
                extra={"payment": payment_json(row)},
            )
        change = acted(row.state, act)
        new = payments.change(conn, row, change.state, at=at, **fields) if (
            change.changed or fields
        ) else row  # fmt: skip
        source = Source.TILL if act in (Act.SALE_WITH_IT, Act.SALE_WITHOUT_IT) else Source.PERSON
        note = f"{who}: {reason}" if reason else who
        payments.say(
            conn, new, at=at, source=source, word=act, changed=change.changed, alarm=change.alarm, note=note,
        )  # fmt: skip
        self.tell_in(conn, new, change, at)
        return Heard(new, change.changed, change.alarm)

    def claim_in(
        self, conn: sqlite3.Connection, row: PaymentRow, till_id: str, sale_ref: str, who: str
    ) -> Heard:
        """Money that nobody had asked for gets its sale; its state stays."""
        held = self.held(conn, row.id)
        if held is not None:
            raise held
        at = micros(self._clock.now())
        new = payments.change(conn, row, at=at, till_id=till_id, sale_ref=sale_ref)
        payments.say(
            conn, new, at=at, source=Source.TILL, word="CLAIMED", changed=True,
            note=f"{who}: sale {sale_ref}",
        )  # fmt: skip
        change = Change(new.state, changed=True)
        self.tell_in(conn, new, change, at)
        return Heard(new, changed=True, alarm=None)

    def _note(
        self,
        conn: sqlite3.Connection,
        new: PaymentRow,
        word: Evidence,
        change: Change,
        at: int,
        raw: bytes | None,
    ) -> None:
        payments.say(
            conn, new, at=at, source=word.source, word=word.verdict, changed=change.changed, code=word.code,
            alarm=change.alarm, note=word.note, raw=raw,
        )  # fmt: skip
        self.tell_in(conn, new, change, at)

    def tell_in(self, conn: sqlite3.Connection, new: PaymentRow, change: Change, at: int) -> None:
        """The till's event, and the alarm a person must see."""
        data = payment_json(new)
        if change.changed:
            events.record(
                conn, at=at, kind="payment.changed", subject=new.id, till_id=new.till_id, data=data
            )
        if change.alarm is not None:
            log.warning(
                "payment.alarm id=%s alarm=%s money=%s tender=%s request=%s",
                new.id, change.alarm, new.money, new.tender, mask_request_id(new.checkout_request_id),
            )  # fmt: skip
            events.record(
                conn, at=at, kind="payment.alarm", subject=new.id, till_id=new.till_id,
                data={**data, "alarm": change.alarm},
            )  # fmt: skip

    # --- the same shilling, heard twice ------------------------------------------------------------

    def _twin(
        self, conn: sqlite3.Connection, row: PaymentRow, change: Change, at: int
    ) -> tuple[Change, str | None]:
        """A payment of ours whose receipt came by C2B as well is one payment (daraja.md 0.4).

        The twin that nobody has used yet points to `row`. One that a sale was completed with stays, and
        `row` points to it: the money came once.
        """
        assert change.state.receipt is not None
        other = payments.by_receipt(conn, change.state.receipt)
        if other is None or other.id == row.id:
            return change, None
        if other.kind == "STK":
            # Two requests cannot have one receipt: no money of its own, and a person must look.
            return Change(row.state, changed=False, alarm=Alarm.OTHER_RECEIPT), None
        # A sale that is at the unit with the twin keeps it: it may be signed at any moment.
        if other.tender in (Tender.OPEN, Tender.REVIEW) and not self.at_unit(conn, other.id):
            self._merge(conn, other, row, at)
            return change, None
        if may(change.state, Act.MERGED):
            # Before it was given up the money had an owner already: nothing is late.
            alarm = None if change.alarm is Alarm.LATE else change.alarm
            if _of_another_sale(other, row):
                alarm = Alarm.OTHER_SALE
            return Change(acted(change.state, Act.MERGED).state, True, alarm), other.id
        # Both have an owner: two sales and one receipt.
        kept = replace(change.state, receipt=None, paid_cents=row.paid_cents)
        return Change(kept, kept != row.state, Alarm.OTHER_RECEIPT), None

    def _merge(self, conn: sqlite3.Connection, twin: PaymentRow, into: PaymentRow, at: int) -> None:
        merged = acted(twin.state, Act.MERGED)
        if _of_another_sale(twin, into):
            # A till has claimed it for a sale that must now be paid in another way.
            merged = replace(merged, alarm=Alarm.OTHER_SALE)
        gone = payments.change(conn, twin, merged.state, at=at, merged_into=into.id)
        payments.say(
            conn, gone, at=at, source=Source.C2B, word=Act.MERGED, changed=True, alarm=merged.alarm,
            note=f"is {into.id}",
        )  # fmt: skip
        self.tell_in(conn, gone, merged, at)


def _of_another_sale(one: PaymentRow, other: PaymentRow) -> bool:
    """Return whether `one` was claimed or signed for a sale that is not `other`'s."""
    return one.sale_ref is not None and (one.till_id, one.sale_ref) != (
        other.till_id,
        other.sale_ref,
    )


def _get(conn: sqlite3.Connection, payment_id: str) -> PaymentRow:
    row = payments.by_id(conn, payment_id)
    assert row is not None, payment_id
    return row


def start_words() -> tuple[Evidence, Evidence]:
    """What a restart says of a push that was NEW, and of one that was SENDING."""
    return (
        Evidence(Source.START, Verdict.NOT_SENT, note="the gateway ended before it was sent"),
        Evidence(Source.START, Verdict.SEND_LOST, note="the gateway ended while it was being sent"),
    )
