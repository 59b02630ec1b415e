"""Money back: ordered by a person with a reason, sent to M-Pesa at most once, told by its result.

A reversal takes the whole payment back (whether M-Pesa takes a part is not known: daraja.md 10); a part,
or what M-Pesa refuses, is given back by hand and written down here. What was not answered is UNKNOWN and
is never sent again by itself: M-Pesa's status, its result or a person closes it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3

from gateway import ids
from gateway.clock import Clock, micros, wake_or_sleep
from gateway.domain.payment import Act, Alarm, Evidence, Money, Reason, Source, Tender, Verdict, may
from gateway.domain.payment_wire import Ack, AckReply, ApiResult, Daraja, Lost, Refused
from gateway.errors import PaymentInvalid, PaymentSettled, PaymentsOff, PaymentUnknown, StoreError
from gateway.payments import twins
from gateway.payments.ledger import Heard, Ledger
from gateway.payments.push import RETRY_S, TOKEN_BYTES
from gateway.payments.view import payment_json
from gateway.store import events, payments, refunds
from gateway.store.database import Database
from gateway.store.payments import PaymentRow
from gateway.store.refunds import Refund, RefundState

log = logging.getLogger(__name__)

# M-Pesa's word for "was reversed before": done, by whomever (daraja.md 6).
ALREADY = "R000001"
REMARK = "Refund at the till"
# A result that has not come by then may be lost. Seconds.
RESULT_WITHIN_S = 600.0
LOOK_S = 60.0


class Refunds:
    """`recover` once, `run` for as long as the daemon lives. `daraja` None: only by hand."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        ledger: Ledger,
        daraja: Daraja | None,
        callback_url: str,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ledger = ledger
        self._daraja = daraja
        self._callback_url = callback_url.rstrip("/")
        self._tokens: dict[str, str] = {}
        self._wake = asyncio.Event()

    # --- ordered by a person -------------------------------------------------------------------------

    async def order(self, payment_id: str, who: str, reason: str, *, by_hand: bool) -> Refund:
        """The order, durably; a reversal leaves right after. PaymentUnknown, PaymentSettled (not paid, given
        back already, on its way), PaymentsOff (no initiator), PaymentInvalid (cents, no receipt yet)."""
        if not by_hand and self._daraja is None:
            raise PaymentsOff(
                "Reversals are not set up in this shop. Give the money back by hand and note it here."
            )
        token = secrets.token_urlsafe(TOKEN_BYTES)
        made: list[Refund] = []

        def write(conn: sqlite3.Connection) -> Heard:
            row = payments.by_id(conn, payment_id)
            if row is None:
                raise PaymentUnknown("There is no such payment.")
            heard, refund = self._order_in(conn, row, who, reason, None if by_hand else token)
            made.append(refund)
            return heard

        try:
            await self._ledger.write(write)
        except sqlite3.IntegrityError:
            row = await self._db.read(lambda conn: payments.by_id(conn, payment_id))
            raise PaymentSettled(
                "This money is on its way back already, or back.",
                extra={} if row is None else {"payment": payment_json(row)},
            ) from None
        refund = made[-1]
        if not by_hand:
            self._tokens[refund.id] = token
            self._wake.set()
        return refund

    def _order_in(
        self, conn: sqlite3.Connection, row: PaymentRow, who: str, reason: str, token: str | None
    ) -> tuple[Heard, Refund]:
        if not may(row.state, Act.REFUND_ORDERED):
            raise PaymentSettled(
                "There is no money of this payment to give back.",
                extra={"payment": payment_json(row)},
            )
        twins.refuse_if_unclear(conn, row)
        amount = row.state.came_cents
        if token is not None:
            _reversible(row, amount)
        at = micros(self._clock.now())
        heard = self._ledger.act_in(conn, row, Act.REFUND_ORDERED, who, reason)
        refund_id = ids.new_id(at)
        refunds.insert(
            conn,
            refund_id=refund_id,
            payment_id=row.id,
            amount_cents=amount,
            how="BY_HAND" if token is None else "REVERSAL",
            state=RefundState.DONE if token is None else RefundState.ASKED,
            who=who,
            reason=reason,
            token_hash=None if token is None else ids.token_hash(token),
            at=at,
        )
        if token is None:
            heard = self._ledger.act_in(conn, heard.row, Act.REFUNDED_BY_HAND, who, reason)
        refund = refunds.by_id(conn, refund_id)
        assert refund is not None
        return heard, refund

    async def settle(self, refund_id: str, done: bool, who: str, reason: str) -> Refund:
        """A person has looked at M-Pesa's own books: an UNKNOWN refund was done, or was not."""
        made: list[Refund] = []

        def write(conn: sqlite3.Connection) -> Heard:
            refund = refunds.by_id(conn, refund_id)
            if refund is None or refund.state is not RefundState.UNKNOWN:
                raise PaymentSettled("This refund is not in doubt.")
            says = f"{who}: {reason}"
            heard, settled = self._settled(
                conn, refund, done, Source.PERSON, None, says, receipt=None, raw=None
            )
            made.append(settled)
            return heard

        await self._ledger.write(write)
        return made[-1]

    # --- on the wire --------------------------------------------------------------------------------

    async def recover(self) -> None:
        """What the last run left: an order that never left is refused, one that was leaving is unknown."""

        def write(conn: sqlite3.Connection) -> int:
            at = micros(self._clock.now())
            count = 0
            for refund in refunds.unsettled(conn):
                if refund.state is RefundState.ASKED:
                    says = "the gateway ended before it was sent; order it again"
                    refused = refunds.move(conn, refund, RefundState.REFUSED, at=at, says=says)
                    self._tell(conn, refused, at)
                elif refund.state is RefundState.SENDING:
                    self._unknown(conn, refund, "the gateway ended while it was being sent", at)
                else:
                    continue
                count += 1
            return count

        count = await self._db.write(write)
        if count:
            log.warning("refund.recovered count=%d", count)

    async def run(self) -> None:
        while True:
            self._wake.clear()
            for refund in await self._db.read(refunds.unsettled):
                try:
                    await self._one(refund)
                except StoreError:
                    raise
                except Exception:  # one order must not hold up the others
                    log.exception("refund.failed id=%s", refund.id)
            await wake_or_sleep(self._clock, self._wake, LOOK_S)

    async def _one(self, refund: Refund) -> None:
        if refund.state is RefundState.ASKED and refund.id in self._tokens:
            await self._send(refund)
        elif refund.state is RefundState.SENT and self._late(refund):
            await self._give_up(refund, "M-Pesa took it and has told no result")
        elif refund.state is RefundState.SENDING and self._late(refund):
            await self._give_up(refund, "its answer could not be recorded")

    def _late(self, refund: Refund) -> bool:
        age_s = (micros(self._clock.now()) - refund.updated_at) / 1e6
        return not 0 <= age_s <= RESULT_WITHIN_S

    async def _give_up(self, refund: Refund, says: str) -> None:
        def write(conn: sqlite3.Connection) -> None:
            fresh = refunds.by_id(conn, refund.id)
            assert fresh is not None
            if fresh.state is refund.state:
                self._unknown(conn, fresh, says, micros(self._clock.now()))

        await self._db.write(write)

    async def _send(self, refund: Refund) -> None:
        assert self._daraja is not None
        token = self._tokens.pop(refund.id)
        refusal: Refused | Lost | None
        try:
            refusal = await self._daraja.ready()
        except Exception as error:  # a fault of ours: nothing has left
            log.exception("refund.no_token id=%s", refund.id)
            refusal = Lost(type(error).__name__)
        if refusal is not None:
            await self._keep(refund.id, _nothing_sent(refusal))
            return
        row = await self._db.write(lambda conn: self._begin(conn, refund))
        assert row.receipt is not None
        result_url = f"{self._callback_url}/r/{token}"
        timeout_url = f"{self._callback_url}/t/{token}"
        reply: AckReply
        try:
            reply = await self._daraja.reverse(
                row.receipt, refund.amount_cents, result_url, timeout_url, REMARK
            )
        except Exception as error:  # a fault of ours on the way: the bytes may have left
            log.exception("refund.fault id=%s", refund.id)
            reply = Lost(f"{type(error).__name__} while sending")
        await self._keep(refund.id, reply)

    def _begin(self, conn: sqlite3.Connection, refund: Refund) -> PaymentRow:
        refunds.move(conn, refund, RefundState.SENDING, at=micros(self._clock.now()))
        row = payments.by_id(conn, refund.payment_id)
        assert row is not None
        return row

    async def _keep(self, refund_id: str, reply: AckReply) -> None:
        """What M-Pesa said to the order; its result may have come before it."""

        def write(conn: sqlite3.Connection) -> None:
            refund = refunds.by_id(conn, refund_id)
            assert refund is not None
            at = micros(self._clock.now())
            if refund.state not in (RefundState.ASKED, RefundState.SENDING):
                return
            match reply:
                case Ack():
                    # An id that M-Pesa has given to another order names neither; the token still does.
                    known = refunds.has_conversation(conn, reply.conversation_id)
                    refunds.move(
                        conn, refund, RefundState.SENT, at=at, raw=reply.raw,
                        conversation_id=None if known else reply.conversation_id or None,
                    )  # fmt: skip
                case Refused():
                    refused = refunds.move(
                        conn, refund, RefundState.REFUSED, at=at, code=reply.code,
                        says=reply.message, raw=reply.raw,
                    )  # fmt: skip
                    self._tell(conn, refused, at)
                case Lost():
                    self._unknown(conn, refund, reply.message, at)

        while True:
            try:
                await self._db.write(write)
            except StoreError as error:
                if self._db.broken is not None:
                    raise
                log.error("refund.answer_waits id=%s reason=%s", refund_id, error)
                await self._clock.sleep(RETRY_S)
            else:
                return

    # --- M-Pesa's result ------------------------------------------------------------------------------

    async def on_result(self, token_hash: str, result: ApiResult | None, raw: bytes) -> bool:
        """A result or a time-out under a token; False when the token is no refund's. None: the queue's
        time-out, or a message that nobody can read: it says nothing."""
        refund = await self._db.read(lambda conn: refunds.by_token(conn, token_hash))
        if refund is None:
            return False
        await self._ledger.write(lambda conn: self._result_in(conn, refund.id, result, raw))
        return True

    def _result_in(
        self, conn: sqlite3.Connection, refund_id: str, result: ApiResult | None, raw: bytes
    ) -> Heard:
        refund = refunds.by_id(conn, refund_id)
        assert refund is not None
        row = payments.by_id(conn, refund.payment_id)
        assert row is not None
        at = micros(self._clock.now())
        original = "" if result is None else result.parameters.get("OriginalTransactionID", "")
        if result is None or (original and original != row.receipt):
            note = (
                "a result that cannot be read" if result is None else "a result of another receipt"
            )
            word = Evidence(Source.REVERSAL, Verdict.NO_INFO, note=note)
            if result is None and refund.state in (RefundState.SENDING, RefundState.SENT):
                self._unknown(conn, refund, "M-Pesa's queue timed out", at)
            return self._ledger.hear_in(conn, row, word, raw)
        done = result.code in ("0", ALREADY)
        heard, _ = self._settled(
            conn, refund, done, Source.REVERSAL, result.code, result.description,
            receipt=result.transaction_id, raw=raw,
        )  # fmt: skip
        return heard

    def _settled(
        self,
        conn: sqlite3.Connection,
        refund: Refund,
        done: bool,
        source: Source,
        code: str | None,
        says: str,
        *,
        receipt: str | None,
        raw: bytes | None,
    ) -> tuple[Heard, Refund]:
        """The end of a refund that is on its way or in doubt; what comes after an end is only noted."""
        row = payments.by_id(conn, refund.payment_id)
        assert row is not None
        at = micros(self._clock.now())
        open_states = (RefundState.SENDING, RefundState.SENT, RefundState.UNKNOWN)
        late = refund.state not in open_states
        if not late:
            state = RefundState.DONE if done else RefundState.REFUSED
            own = receipt if done and receipt != row.receipt else None
            refund = refunds.move(
                conn, refund, state, at=at, code=code, says=says, receipt=own, raw=raw
            )
            self._tell(conn, refund, at)
        gone = done and row.money is Money.PAID and row.tender is not Tender.MERGED
        verdict = Verdict.REFUNDED if gone else Verdict.NO_INFO
        heard = self._ledger.hear_in(conn, row, Evidence(source, verdict, code, note=says), raw)
        return heard, refund

    def _unknown(self, conn: sqlite3.Connection, refund: Refund, says: str, at: int) -> None:
        moved = refunds.move(conn, refund, RefundState.UNKNOWN, at=at, says=says)
        self._tell(conn, moved, at)

    def _tell(self, conn: sqlite3.Connection, refund: Refund, at: int) -> None:
        """The till's event; a refund that was not done is an alarm."""
        row = payments.by_id(conn, refund.payment_id)
        assert row is not None
        data = {**payment_json(row), "refund": refund_json(refund)}
        kind = "payment.changed"
        if refund.state is not RefundState.DONE:
            kind = "payment.alarm"
            data["alarm"] = Alarm.REFUND_OPEN
            log.warning("refund.alarm id=%s state=%s code=%s", refund.id, refund.state, refund.code)
        events.record(conn, at=at, kind=kind, subject=row.id, till_id=row.till_id, data=data)


def refund_json(refund: Refund) -> dict[str, object]:
    """A refund as the API and the events tell it."""
    return {
        "refundId": refund.id,
        "state": refund.state,
        "how": refund.how,
        "who": refund.who,
        "reason": refund.reason,
        "receipt": refund.receipt,
        "code": refund.code,
        "says": refund.says,
    }


def _reversible(row: PaymentRow, amount: int) -> None:
    if row.receipt is None:
        raise PaymentInvalid(
            "The receipt number of this payment has not come yet. Wait for it, or give the money back by hand."
        )
    if amount % 100:
        raise PaymentInvalid("M-Pesa reverses whole shillings only. Give the money back by hand.")


def _nothing_sent(refusal: Refused | Lost) -> Refused:
    """Without a token nothing was sent, whatever became of the token's own request."""
    if isinstance(refusal, Refused):
        return refusal
    return Refused(Reason.NOT_SENT, "", refusal.message, refusal.raw)
