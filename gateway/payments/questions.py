"""What M-Pesa is asked about one receipt: the code on a customer's phone, or a refund in doubt.

A code that a cashier types proves nothing (anybody can write an SMS). It counts when the money under it
has come already, when M-Pesa says so, or when a person with a code of their own answers for it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import sqlite3
from collections.abc import Callable

from gateway import ids
from gateway.clock import Clock, from_compact, micros
from gateway.domain.payment import Evidence, Money, Source, Tender, Verdict
from gateway.domain.payment_wire import Ack, ApiResult, Daraja
from gateway.errors import FieldError, PaymentInvalid, PaymentSettled, PaymentUnknown
from gateway.money import cents, parse_amount
from gateway.payments import twins
from gateway.payments.decisions import report_reversal
from gateway.payments.ledger import Heard, Ledger
from gateway.payments.matching import APART_US, ECHO_US, REFERENCE_US, other_phone, same_phone
from gateway.payments.push import TOKEN_BYTES
from gateway.payments.refunds import Refunds
from gateway.payments.view import payment_json
from gateway.store import payments, payments_shown, refunds
from gateway.store.database import Database
from gateway.store.payments import PaymentRow
from gateway.store.refunds import Question, RefundState

log = logging.getLogger(__name__)

RECEIPT = re.compile(r"[A-Z0-9]{10}", re.ASCII)
# A payment that was over before it was asked for by more than this is another sale's. Microseconds.
EARLIER_US = 600 * 1_000_000
COMPLETED = "completed"
# A payment that is paid is asked about at most this often, however often "check" is pressed. Microseconds.
AGAIN_US = 60 * 1_000_000
# CreditPartyName is "600999 - SHOP", with blanks around the hyphen or without.
_PARTY = re.compile(r"\s*[-\u2010-\u2015]\s*")


class Questions:
    """`daraja` None: nothing is asked (no initiator is set up), a typed code is only remembered."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        ledger: Ledger,
        refunds: Refunds,
        daraja: Daraja | None,
        callback_url: str,
        shortcodes: frozenset[str],
    ) -> None:
        self._db = db
        self._clock = clock
        self._ledger = ledger
        self._refunds = refunds
        self._daraja = daraja
        self._callback_url = callback_url.rstrip("/")
        self._shortcodes = shortcodes
        self._asking: set[asyncio.Task[None]] = set()
        # Told when a receipt was typed that nobody has heard of: M-Pesa's list may hold it.
        self.on_typed: Callable[[], None] = lambda: None

    # --- a code that is typed ------------------------------------------------------------------------

    async def code(
        self, payment_id: str, text: str, who: str, *, vouched: bool = False
    ) -> PaymentRow:
        """A receipt's number from the customer's phone. `vouched`: a person with a technician's code has seen
        the money on M-Pesa's own statement. PaymentInvalid (no such number, another amount), PaymentSettled
        (the code is another payment's). The payment as it is then; M-Pesa's answer comes as an event."""
        receipt = text.strip().upper().replace(" ", "")
        if RECEIPT.fullmatch(receipt) is None:
            raise _bad_code("An M-Pesa code has ten letters and digits. Read it again.")
        token = secrets.token_urlsafe(TOKEN_BYTES)

        def write(conn: sqlite3.Connection) -> Heard:
            row = payments.by_id(conn, payment_id)
            if row is None:
                raise PaymentUnknown("There is no such payment.")
            return self._typed_in(conn, row, receipt, token, who, vouched=vouched)

        heard = await self._ledger.write(write)
        if heard.row.receipt != receipt:
            self.on_typed()
            self._begin(token, receipt)
        return heard.row

    def _typed_in(
        self,
        conn: sqlite3.Connection,
        row: PaymentRow,
        receipt: str,
        token: str,
        who: str,
        *,
        vouched: bool,
    ) -> Heard:
        note = f"code {receipt} typed by {who}"
        owner = payments.by_receipt(conn, receipt)
        if owner is not None and owner.id == row.id:
            return Heard(row, changed=False, alarm=None)
        if owner is not None:
            self._may_take(owner, row)
            others = [other for other in twins.of(conn, owner) if other.id != row.id]
            if others and row.money is not Money.PAID:
                raise twins.refusal(owner, others[0], signing=False)
            word = Evidence(
                owner.paid_by or Source.C2B, Verdict.PAID, receipt=receipt,
                amount_cents=owner.state.came_cents, payer=owner.payer, note=note,
            )  # fmt: skip
            return self._ledger.hear_in(conn, row, word)
        if row.receipt is not None:
            raise PaymentSettled(
                f"This payment has the code {row.receipt} already.",
                extra={"payment": payment_json(row)},
            )
        if vouched:
            word = Evidence(
                Source.PERSON,
                Verdict.PAID,
                receipt=receipt,
                amount_cents=row.amount_cents,
                note=note,
            )
            return self._ledger.hear_in(conn, row, word)
        at = micros(self._clock.now())
        refunds.ask(conn, ids.token_hash(token), row.id, None, receipt, who, at=at)
        return self._ledger.hear_in(conn, row, Evidence(Source.TILL, Verdict.NO_INFO, note=note))

    def _may_take(self, owner: PaymentRow, row: PaymentRow) -> None:
        if owner.kind != "C2B" or owner.tender not in (Tender.OPEN, Tender.REVIEW):
            raise PaymentSettled(
                "This code belongs to another sale.", extra={"payment": payment_json(row)}
            )
        if owner.state.came_cents != row.amount_cents:
            raise _bad_code("The payment under this code was of another amount.")

    # --- asked of M-Pesa -----------------------------------------------------------------------------

    async def about_refund(self, refund_id: str, who: str) -> None:
        """Ask what became of an UNKNOWN refund's payment. Nothing is sent twice by it."""
        token = secrets.token_urlsafe(TOKEN_BYTES)

        def write(conn: sqlite3.Connection) -> str | None:
            refund = refunds.by_id(conn, refund_id)
            row = None if refund is None else payments.by_id(conn, refund.payment_id)
            if refund is None or row is None or refund.state is not RefundState.UNKNOWN:
                raise PaymentSettled("This refund is not in doubt.")
            if row.receipt is not None:
                at = micros(self._clock.now())
                refunds.ask(conn, ids.token_hash(token), row.id, refund.id, row.receipt, who, at=at)
            return row.receipt

        receipt = await self._db.write(write)
        if receipt is not None:
            self._begin(token, receipt)

    async def about_payment(self, payment_id: str, who: str) -> None:
        """Ask whether a paid payment still stands; nothing is asked twice within a minute."""
        if self._daraja is None:
            return
        token = secrets.token_urlsafe(TOKEN_BYTES)

        def write(conn: sqlite3.Connection) -> str | None:
            row = payments.by_id(conn, payment_id)
            at = micros(self._clock.now())
            if row is None or row.receipt is None or row.merged_into is not None:
                return None
            if refunds.asked_since(conn, row.id, at - AGAIN_US):
                return None
            refunds.ask(conn, ids.token_hash(token), row.id, None, row.receipt, who, at=at)
            return row.receipt

        receipt = await self._db.write(write)
        if receipt is not None:
            self._begin(token, receipt)

    def _begin(self, token: str, receipt: str) -> None:
        if self._daraja is None:
            return
        task = asyncio.ensure_future(self._ask(self._daraja, token, receipt))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, daraja: Daraja, token: str, receipt: str) -> None:
        base = self._callback_url
        reply = await daraja.status(receipt, f"{base}/r/{token}", f"{base}/t/{token}")
        if not isinstance(reply, Ack):
            log.warning("status.not_asked reason=%s", reply.message)

    async def close(self) -> None:
        """Questions on the wire end with the gateway; what was not asked may be typed again."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def on_result(self, token_hash: str, result: ApiResult | None, raw: bytes) -> bool:
        """The answer under a token; False when the token is no question's."""
        asked = await self._db.read(lambda conn: refunds.question(conn, token_hash))
        if asked is None:
            return False
        if asked.refund_id is not None:
            await self._about_refund(asked, asked.refund_id, result)
        await self._ledger.write(lambda conn: self._answer_in(conn, asked, result, raw))
        return True

    async def _about_refund(
        self, asked: Question, refund_id: str, result: ApiResult | None
    ) -> None:
        """Only a clear "reversed" closes a refund; everything else is a person's."""
        if result is None or not _is_reversed(result):
            return
        try:
            await self._refunds.settle(refund_id, done=True, who="M-Pesa", reason=_status(result))
        except PaymentSettled:
            # It was closed while the question was out.
            log.info("status.late refund=%s by=%s", refund_id, asked.who)

    def _answer_in(
        self, conn: sqlite3.Connection, asked: Question, result: ApiResult | None, raw: bytes
    ) -> Heard:
        row = payments.by_id(conn, asked.payment_id)
        assert row is not None
        refunds.answered(conn, asked.token_hash, at=micros(self._clock.now()))
        word = Evidence(Source.STATUS, Verdict.NO_INFO, note="an answer that says nothing")
        if result is not None:
            word = self._weigh(row, asked, result)
            told = result.parameters.get("ReceiptNo") or asked.receipt
            known = payments.by_receipt(conn, asked.receipt) is not None
            if _is_reversed(result) and asked.refund_id is None:
                if known and told == asked.receipt:
                    at = micros(self._clock.now())
                    report_reversal(conn, self._ledger, (asked.receipt,), Source.STATUS, raw, at)
            elif word.verdict is Verdict.PAID and self._may_be_anothers(conn, row, result, word):
                word = _nothing(result.code, "status: another paid request may be this money")
        return self._ledger.hear_in(conn, row, word, raw)

    def _may_be_anothers(
        self, conn: sqlite3.Connection, row: PaymentRow, result: ApiResult, word: Evidence
    ) -> bool:
        """Return whether a typed code may be the receipt of another push that was paid: its customer's SMS."""
        if row.money is Money.PAID or word.amount_cents is None:
            return False
        party = _PARTY.split(result.parameters.get("DebitPartyName", "").strip(), maxsplit=1)[0]
        told = result.parameters
        when = _when(told.get("FinalisedTime") or told.get("InitiatedTime") or "")
        if row.phone is not None and same_phone(row.phone, party):
            return False
        at = micros(self._clock.now()) if when is None else when
        others = payments_shown.receipts_to_follow(
            conn, word.amount_cents, at - REFERENCE_US, at + APART_US + 1
        )
        near = ECHO_US if when is not None else REFERENCE_US
        return any(
            other.id != row.id
            and other.phone is not None
            and not other_phone(other.phone, party or None)
            and at - (other.sent_at or other.created_at) <= near
            for other in others
        )

    def _weigh(self, row: PaymentRow, asked: Question, result: ApiResult) -> Evidence:
        """PAID when M-Pesa says that this receipt is completed money of this shop, and new enough."""
        told, says = result.parameters, _status(result)
        code = result.code
        if asked.refund_id is not None or code != "0" or says != COMPLETED:
            return _nothing(code, f"status: {says or result.description}")
        if told.get("ReceiptNo") != asked.receipt:
            return _nothing(code, "status: of another receipt")
        party = _PARTY.split(told.get("CreditPartyName", "").strip(), maxsplit=1)[0].split(" ")[0]
        if party.isdigit() and party not in self._shortcodes:
            return _nothing(code, "status: paid to another shop")
        when = _when(told.get("FinalisedTime") or told.get("InitiatedTime") or "")
        if when is not None and when < row.created_at - EARLIER_US:
            return _nothing(code, "status: paid before it was asked for")
        amount = _cents(told.get("Amount", ""))
        if amount is None:
            return _nothing(code, "status: without an amount")
        return Evidence(
            Source.STATUS, Verdict.PAID, code, receipt=asked.receipt, amount_cents=amount
        )


def _status(result: ApiResult) -> str:
    return result.parameters.get("TransactionStatus", "").strip().lower()


def _is_reversed(result: ApiResult) -> bool:
    return "revers" in _status(result)


def _nothing(code: str, note: str) -> Evidence:
    return Evidence(Source.STATUS, Verdict.NO_INFO, code, note=note)


def _when(text: str) -> int | None:
    try:
        return micros(from_compact(text))
    except ValueError:
        return None


def _cents(text: str) -> int | None:
    try:
        return cents(parse_amount(text))
    except ValueError:
        return None


def _bad_code(says: str) -> PaymentInvalid:
    return PaymentInvalid(says, errors=[FieldError("/receipt", "INVALID", says)])
