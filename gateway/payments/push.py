"""Sends pushes: each once, never again by itself. Durable before the first byte, a word after the last.

A push has no key that M-Pesa would know again (daraja.md 0.5): what was not answered may ring on the
phone, so it is waited for and looked for, not repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock, micros
from gateway.domain.payment import Evidence, Money, Reason, Source, Verdict
from gateway.domain.payment_wire import Accepted, Daraja, Lost, PushOrder, PushReply, Refused
from gateway.errors import StoreError
from gateway.payments.ledger import Heard, Ledger, start_words
from gateway.payments.schedule import FIRST_LOOK_US
from gateway.store import payments
from gateway.store.database import Database
from gateway.store.payments import PaymentRow

log = logging.getLogger(__name__)

# So many pushes are on the wire at a time: one that hangs for its time-out holds up no other customer.
AT_ONCE = 8
# A customer who was told to take out the phone does not wait longer than this for the request to leave;
# after it nothing is sent, and the cashier is told so. Seconds.
LEAVE_WITHIN_S = 30.0
# A store that refuses (disk full) is asked again this often for what M-Pesa said. Seconds.
RETRY_S = 1.0
# At most 13 characters, of those that no phone company filters (daraja.md 2).
DESCRIPTION = "POS sale"
# 32 characters that nobody can guess: M-Pesa's messages have no signature (daraja.md 5).
TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True)
class _Waiting:
    payment_id: str
    # The unguessable part of the callback address; lives here only, the store knows its digest.
    token: str
    since_ns: int


class Pusher:
    """`take` for each intent, `run` for as long as the daemon lives."""

    def __init__(
        self, *, db: Database, clock: Clock, ledger: Ledger, daraja: Daraja, callback_url: str
    ) -> None:
        self._db = db
        self._clock = clock
        self._ledger = ledger
        self._daraja = daraja
        self._callback_url = callback_url.rstrip("/")
        self._line: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        # Told when a payment has left, with the time it did: the looks at it begin.
        self.on_sent: Callable[[PaymentRow], None] = lambda row: None

    @property
    def in_hand(self) -> int:
        """Pushes that wait to leave or for their answer."""
        return len(self._line) + len(self._sending)

    def take(self, payment_id: str, token: str) -> None:
        """An intent that is durable; it leaves at once."""
        self._line.append(_Waiting(payment_id, token, self._clock.boottime_ns()))
        self._wake.set()

    async def run(self) -> None:
        try:
            while True:
                self._wake.clear()
                while self._line and len(self._sending) < AT_ONCE:
                    task = asyncio.ensure_future(self._send(self._line.popleft()))
                    self._sending.add(task)
                    task.add_done_callback(self._ended)
                await self._wake.wait()
        finally:
            # What was on the wire is SENDING in the store; the next start says that it is unknown.
            for task in list(self._sending):
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("push.failed", exc_info=error)

    # --- one push -------------------------------------------------------------------------------------

    async def _send(self, waiting: _Waiting) -> None:
        refusal: Refused | Lost | None
        try:
            refusal = await self._daraja.ready()
        except Exception as error:  # a fault of ours: nothing has left
            log.exception("push.no_token id=%s", waiting.payment_id)
            refusal = Lost(type(error).__name__)
        if refusal is not None:
            await self._say(waiting.payment_id, _nothing_sent(refusal))
            return
        row = await self._leave(waiting)
        if row is None:
            return
        self.on_sent(row)
        assert row.phone is not None and row.account_ref is not None
        reply: PushReply
        try:
            reply = await self._daraja.push(
                PushOrder(
                    amount_cents=row.amount_cents,
                    phone=row.phone,
                    account_ref=row.account_ref,
                    description=DESCRIPTION,
                    callback_url=f"{self._callback_url}/s/{waiting.token}",
                )
            )
        except Exception as error:  # a fault of ours on the way: the bytes may have left
            log.exception("push.fault id=%s", row.id)
            reply = Lost(f"{type(error).__name__} while sending")
        heard = await self._say(row.id, _word(reply), reply.raw)
        log.info("push.answered id=%s money=%s", row.id, heard.row.money)

    async def _leave(self, waiting: _Waiting) -> PaymentRow | None:
        """SENDING, durably, or the end of it: the request comes too late for the customer."""
        while (self._clock.boottime_ns() - waiting.since_ns) / 1e9 < LEAVE_WITHIN_S:
            try:
                at = micros(self._clock.now())
                word = Evidence(Source.PUSH, Verdict.SENDING)
                heard = await self._ledger.hear(
                    waiting.payment_id, word, sent_at=at, next_check_at=at + FIRST_LOOK_US
                )
            except StoreError as error:
                log.warning("push.not_begun id=%s reason=%s", waiting.payment_id, error)
                await self._clock.sleep(RETRY_S)
            else:
                return heard.row
        note = f"it could not leave within {LEAVE_WITHIN_S:.0f} s"
        word = Evidence(Source.PUSH, Verdict.NOT_SENT, reason=Reason.NOT_SENT, note=note)
        await self._say(waiting.payment_id, word)
        return None

    async def _say(self, payment_id: str, word: Evidence, raw: bytes | None = None) -> Heard:
        """What M-Pesa said is kept, however long the store refuses."""
        while True:
            try:
                return await self._ledger.hear(payment_id, word, raw)
            except StoreError as error:
                if self._db.broken is not None:
                    raise
                log.error("push.answer_waits id=%s reason=%s", payment_id, error)
                await self._clock.sleep(RETRY_S)


async def recover_pushes(db: Database, ledger: Ledger) -> None:
    """What the last run left: an intent that never left is refused, one that was leaving is unknown."""
    unsent, sending = start_words()
    for row in await db.read(payments.unsettled):
        if row.money not in (Money.NEW, Money.SENDING):
            continue
        word = unsent if row.money is Money.NEW else sending
        await ledger.hear(row.id, word)
        log.warning("push.recovered id=%s was=%s word=%s", row.id, row.money, word.verdict)


def _nothing_sent(refusal: Refused | Lost) -> Evidence:
    """No token: M-Pesa was never asked, whatever became of the token's own request."""
    if isinstance(refusal, Refused):
        return Evidence(
            Source.PUSH, Verdict.NOT_SENT, refusal.code, refusal.reason, note=refusal.message
        )
    return Evidence(Source.PUSH, Verdict.NOT_SENT, None, Reason.NOT_SENT, note=refusal.message)


def _word(reply: PushReply) -> Evidence:
    match reply:
        case Accepted():
            return Evidence(
                Source.PUSH,
                Verdict.ACCEPTED,
                "0",
                merchant_request_id=reply.merchant_request_id,
                checkout_request_id=reply.checkout_request_id,
            )
        case Refused():
            return Evidence(
                Source.PUSH, Verdict.NOT_SENT, reply.code, reply.reason, note=reply.message
            )
        case Lost():
            return Evidence(Source.PUSH, Verdict.SEND_LOST, note=reply.message)
