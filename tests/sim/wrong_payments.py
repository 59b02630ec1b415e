"""Mistakes that gateways of this field make with M-Pesa (daraja.md 7), each as small as it can be, so that
the simulation can show that it finds them. Never used for anything else."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.domain.payment import Change, Evidence, Money, PaymentState, Verdict, after
from gateway.domain.payment_wire import Lost
from gateway.mpesa import codes, messages
from gateway.payments import announced, ledger, reconcile, twins
from gateway.store.payments import PaymentRow
from tests.sim.paying_gateway import PayingGateway, SimWire

Patch = Callable[[pytest.MonkeyPatch], type[PayingGateway]]


class _Unguarded(PayingGateway):
    """Without the database's own rules, which would stop most of it."""

    drops = ""

    async def take_up(self) -> None:
        def drop(conn: sqlite3.Connection) -> None:
            for statement in self.drops.split(";"):
                conn.execute(statement)

        await self.db.write(drop)
        await super().take_up()


def first_end_wins(patch: pytest.MonkeyPatch) -> type[PayingGateway]:
    """As mpesa-stk: what was called failed or timed out hears nothing any more (daraja.md 7.1)."""

    def deaf(now: PaymentState, word: Evidence) -> Change:
        if now.money in (Money.NOT_PAID, Money.UNKNOWN):
            return Change(now, changed=False)
        return after(now, word)

    patch.setattr(ledger, "after", deaf)
    return PayingGateway


def not_paid_overrides_paid(patch: pytest.MonkeyPatch) -> type[PayingGateway]:
    """The last word counts."""

    def last_word(now: PaymentState, word: Evidence) -> Change:
        if now.money is Money.PAID and word.verdict is Verdict.NOT_PAID:
            return Change(replace(now, money=Money.NOT_PAID, reason=word.reason), changed=True)
        return after(now, word)

    class Unguarded(_Unguarded):
        drops = "DROP TRIGGER IF EXISTS payment_money_moves"

    patch.setattr(ledger, "after", last_word)
    return Unguarded


def pushes_again(patch: pytest.MonkeyPatch) -> type[PayingGateway]:
    """As mpesakit: a push without an answer is sent once more."""

    class Again(SimWire):
        async def post(self, path: str, body: Any, limit: int = codes.ANSWER_MAX_BYTES) -> Any:
            answer = await super().post(path, body, limit)
            if isinstance(answer, Lost) and "stkpush/" in path:
                answer = await super().post(path, body, limit)
            return answer

    class Gateway(PayingGateway):
        def over(self, wire: SimWire) -> None:
            super().over(Again(self.life, self.daraja, self.clock))

    return Gateway


def twin_counts_twice(patch: pytest.MonkeyPatch) -> type[PayingGateway]:
    """The C2B confirmation of a push is money of its own."""

    class Unguarded(_Unguarded):
        drops = "DROP INDEX IF EXISTS payment_one_receipt"

    patch.setattr(announced, "match", lambda notice, rows, now: None)
    patch.setattr(announced.payments, "by_receipt", lambda conn, receipt: None)
    return Unguarded


def any_of_the_amount(patch: pytest.MonkeyPatch) -> type[PayingGateway]:
    """Money is given to the first open push of its amount."""

    def match(notice: Any, rows: list[PaymentRow], now: Any) -> PaymentRow | None:
        return next((row for row in rows if row.amount_cents == notice.amount_cents), None)

    patch.setattr(announced, "match", match)
    return PayingGateway


def any_query_counts(patch: pytest.MonkeyPatch) -> type[PayingGateway]:
    """An answer's CheckoutRequestID is not looked at."""
    real = codes.query_verdict

    def careless(status: int, raw: bytes, asked: str, *more: Any) -> Any:
        found = codes.fields.document(raw)
        said = codes.fields.ident(codes.fields.member(found, "CheckoutRequestID"))
        return real(status, raw, said or asked, *more)

    patch.setattr(codes, "query_verdict", careless)
    return PayingGateway


def uses_both(patch: pytest.MonkeyPatch) -> type[PayingGateway]:
    """A till's confirmation that shows no payer is money of its own, beside the push that it announces."""
    patch.setattr(twins, "in_the_way", lambda conn, row: None)
    return PayingGateway


def empty_list_proves(patch: pytest.MonkeyPatch) -> type[PayingGateway]:
    """Whatever Pull does not show was not paid, also when it shows nothing at all."""

    class Nothing(set[str]):
        def __bool__(self) -> bool:
            return True

        def __sub__(self, other: Any) -> Any:
            return set()

    patch.setattr(reconcile, "_known_in", lambda conn, reading: Nothing())
    patch.setattr(messages, "_NO_TRANSACTIONS", re.compile(".*"))
    return PayingGateway


WRONG: list[Patch] = [
    first_end_wins, not_paid_overrides_paid, pushes_again, twin_counts_twice, any_of_the_amount,
    any_query_counts, uses_both, empty_list_proves,
]  # fmt: skip
