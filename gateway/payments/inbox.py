"""Works off what M-Pesa sent by itself: each message is durable before it is read, and ends in exactly one
way: a word about a payment, money that waits for an owner, or UNMATCHED with an alarm for a person.

The unguessable token in its address says whose a push's callback is (daraja.md 5): a message to an address
that was never given away changes nothing, whatever stands in it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.domain.payment import UNSETTLED, Alarm, Evidence, Source, Verdict
from gateway.domain.payment_wire import ApiResult, Arrival, StkResult
from gateway.errors import DiskFull, StoreError
from gateway.ids import token_hash
from gateway.mpesa.codes import callback_word
from gateway.mpesa.messages import parse_c2b, parse_c2b_reversal, parse_result, parse_stk
from gateway.payments.announced import announced_in, found_in, payer, when_paid
from gateway.payments.decisions import report_reversal
from gateway.payments.ledger import Heard, Ledger
from gateway.store import events, meta, mpesa_inbox, payments
from gateway.store.database import Database
from gateway.store.mpesa_inbox import Message, NewMessage
from gateway.store.payments import PaymentRow

log = logging.getLogger(__name__)

# A message whose payment is not there yet is looked at again so often, for so long (daraja.md 8, rule 4).
RETRY_S = 5.0
MATCH_FOR_NS = 60_000_000_000
# More than these are nobody's delay: what is beyond them is not waited for.
PARKED_MAX = 200
IDLE_S = 60.0
BATCH = 100
# A store that refuses is tried again after so long; if it refuses one message only, not for ever.
STORE_RETRY_S = 1.0
TRIES_MAX = 5
# A flood of forged messages is one alarm a minute, and no more than this of it is kept (64 MB at most).
ALARM_EVERY_NS = 60_000_000_000
FORGED_MAX = 1000
CURSOR_KEY = "mpesa.relay_cursor"
ResultHook = Callable[[str, ApiResult | None, bytes], Awaitable[bool]]


class _NotThere(Exception):
    """No payment or refund has this token, or not yet."""


@dataclass(frozen=True, slots=True)
class _End:
    """How a message ended. `look`: a payment that M-Pesa should be asked about at once."""

    state: str = "DONE"
    reason: str | None = None
    payment_id: str | None = None
    heard: tuple[Heard, ...] = ()
    look: PaymentRow | None = None
    alarm: Alarm | None = None


@dataclass(slots=True)
class _Parked:
    since_ns: int
    tried_ns: int


class Inbox:
    """`put` or `take` from wherever messages come; `run` works them off in order. A message may be worked
    off twice around a crash, and delivered any number of times: no second one changes anything.

    `shortcodes`: the paybill, or store and till number, that the shop's money goes to. `c2b_token`: as in
    the C2B addresses that were registered; None: none were, so every such message is a stranger's.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ledger: Ledger,
        *,
        shortcodes: Iterable[str] = (),
        c2b_token: str | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ledger = ledger
        self._shortcodes = frozenset(shortcodes)
        self._c2b_hash = "" if c2b_token is None else token_hash(c2b_token)
        self._wake = asyncio.Event()
        # The highest number looked at in this run, and those that wait for their payment.
        self._looked_at = 0
        self._parked: dict[int, _Parked] = {}
        self._refused: Counter[int] = Counter()
        self._forged_ns: int | None = None
        # Results of reversals and status questions: (token's hash; the result, or None for a time-out and
        # what cannot be read; raw) -> whether it was theirs. A hook may hear one result twice.
        self.on_result: list[ResultHook] = []
        # A callback said nothing readable: M-Pesa should be asked now (`next_check_at` is set already).
        self.look_now: list[Callable[[PaymentRow], None]] = []

    # --- into the store -----------------------------------------------------------------------------

    async def put(
        self, origin: str, origin_id: str | None, kind: str, token: str, raw: bytes, peer: str
    ) -> None:
        """Back when it is on the disk; only then may it be answered. StoreError when it is not."""
        await self._put(origin, (Arrival(kind, token, raw, peer, origin_id),), None)

    async def take(self, epoch: str, upto: int, arrivals: Sequence[Arrival]) -> None:
        """A page of the relay and how far it is read with it: one transaction, on the disk."""
        await self._put("RELAY", arrivals, f"{epoch}:{upto}")

    async def cursor(self) -> tuple[str, int]:
        """Which relay was read, and how far; ("", 0) before the first page."""
        value = await self._db.read(lambda conn: meta.get(conn, CURSOR_KEY))
        epoch, _, number = (value or ":0").rpartition(":")
        return epoch, int(number)

    async def _put(self, origin: str, arrivals: Sequence[Arrival], cursor: str | None) -> None:
        at = micros(self._clock.now())
        rows = [
            NewMessage(
                origin, item.origin_id, item.kind, token_hash(item.token), item.raw, item.peer, at
            )
            for item in arrivals
        ]

        def write(conn: sqlite3.Connection) -> None:
            for row in rows:
                mpesa_inbox.put(conn, row)
            if cursor is not None:
                meta.put(conn, CURSOR_KEY, cursor)

        await self._db.write(write)
        self.notify()

    def notify(self) -> None:
        """Something may be there to work off."""
        self._wake.set()

    # --- out of it, in order ------------------------------------------------------------------------

    async def run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.work()
            except StoreError as error:
                log.warning("inbox.waits reason=%s", error)
                await self._clock.sleep(STORE_RETRY_S)
                continue
            await wake_or_sleep(self._clock, self._wake, RETRY_S if self._parked else IDLE_S)

    async def work(self) -> None:
        """Everything that is there. StoreError when the store refuses: the message in hand stays NEW."""
        while numbers := await self._next():
            for number in numbers:
                await self._one(number)
                self._looked_at = number
        now_ns = self._clock.boottime_ns()
        for number, parked in list(self._parked.items()):
            if now_ns - parked.tried_ns >= RETRY_S * 1e9:
                parked.tried_ns = now_ns
                await self._one(number)

    async def _next(self) -> list[int]:
        after = self._looked_at
        return await self._db.read(lambda conn: mpesa_inbox.open_after(conn, after, BATCH))

    async def _one(self, number: int) -> None:
        """One message to its end, or parked. Whatever is in it, the next one gets its turn."""
        end: _End | None
        try:
            end = await self._work_off(number)
        except _NotThere:
            end = self._park(number)
        except StoreError as error:
            self._refused[number] += 1
            everything = isinstance(error, DiskFull) or self._db.broken is not None
            if everything or self._refused[number] < TRIES_MAX:
                raise
            end = _End("UNMATCHED", Alarm.UNREADABLE, alarm=Alarm.UNREADABLE)
        except Exception:  # a poisonous message must not hold up the others; it is kept and shown
            log.exception("inbox.poison message=%d", number)
            end = _End("UNMATCHED", Alarm.UNREADABLE, alarm=Alarm.UNREADABLE)
        if end is None:
            return
        if end.alarm is not None:
            await self._set_aside(number, end)
        self._parked.pop(number, None)
        self._refused.pop(number, None)
        for heard in end.heard:
            self._ledger.told(heard)
        if end.look is not None:
            for hook in self.look_now:
                hook(end.look)

    def _park(self, number: int) -> _End | None:
        """Its payment may not be there yet: later, for a while."""
        now_ns = self._clock.boottime_ns()
        if number not in self._parked and len(self._parked) < PARKED_MAX:
            self._parked[number] = _Parked(now_ns, now_ns)
        parked = self._parked.get(number)
        if parked is not None and now_ns - parked.since_ns < MATCH_FOR_NS:
            return None
        return _End("UNMATCHED", Alarm.FORGED, alarm=Alarm.FORGED)

    async def _set_aside(self, number: int, end: _End) -> None:
        """UNMATCHED, and the alarm of a message that belongs to no payment."""
        assert end.alarm is not None
        at, now_ns = micros(self._clock.now()), self._clock.boottime_ns()
        forged = end.alarm is Alarm.FORGED
        silent = forged and (
            self._forged_ns is not None and now_ns - self._forged_ns < ALARM_EVERY_NS
        )

        def write(conn: sqlite3.Connection) -> None:
            _settle(conn, number, end, at)
            if forged:
                mpesa_inbox.forget_forged(conn, Alarm.FORGED, FORGED_MAX)
            if not silent:
                data = {"alarm": end.alarm, "messageId": number}
                events.record(conn, at=at, kind="payment.alarm", data=data)

        await self._db.write(write)
        if not silent:
            log.warning("inbox.unmatched message=%d reason=%s", number, end.reason)
        if forged and not silent:
            self._forged_ns = now_ns

    # --- one message --------------------------------------------------------------------------------

    async def _work_off(self, number: int) -> _End:
        """Its end, committed, but for one with an alarm of its own, which `_set_aside` writes. _NotThere
        when nobody has its token."""
        message = await self._db.read(lambda conn: mpesa_inbox.by_id(conn, number))
        if message is None or message.state != "NEW":
            return _End()
        if message.kind in ("r", "t"):
            return await self._result(message)
        return await self._db.write(lambda conn: self._read_in(conn, message))

    async def _result(self, message: Message) -> _End:
        result = parse_result(message.raw) if message.kind == "r" else None
        for hook in self.on_result:
            if await hook(message.token_hash, result, message.raw):
                break
        else:
            raise _NotThere
        at = micros(self._clock.now())
        await self._db.write(lambda conn: _settle(conn, message.id, _End(), at))
        return _End()

    def _read_in(self, conn: sqlite3.Connection, message: Message) -> _End:
        at = micros(self._clock.now())
        end = (
            self._callback(conn, message, at)
            if message.kind == "s"
            else self._announcement(conn, message, at)
        )
        if end.alarm is None:
            _settle(conn, message.id, end, at)
        return end

    def _announcement(self, conn: sqlite3.Connection, message: Message, at: int) -> _End:
        """C2B: a validation asks for nothing (it was accepted), a confirmation is money that has come."""
        if not hmac.compare_digest(message.token_hash, self._c2b_hash):
            return _End("UNMATCHED", Alarm.FORGED, alarm=Alarm.FORGED)
        if message.kind == "v":
            return _End(reason="VALIDATION")
        reversed_ = parse_c2b_reversal(message.raw)
        if reversed_:
            return self._reversal(conn, message, reversed_, at)
        notice = parse_c2b(message.raw)
        if notice is None:
            return _End("UNMATCHED", Alarm.MALFORMED, alarm=Alarm.MALFORMED)
        if notice.shortcode not in self._shortcodes:
            return _End("UNMATCHED", Alarm.OTHER_SHORTCODE, alarm=Alarm.OTHER_SHORTCODE)
        heard = announced_in(conn, self._ledger, notice, Source.C2B, at, message.raw)
        return _End(payment_id=heard.row.id, heard=(heard,))

    def _reversal(
        self, conn: sqlite3.Connection, message: Message, receipts: tuple[str, ...], at: int
    ) -> _End:
        """A notice that a customer's payment was taken back; without a payment of ours it is kept and shown."""
        row = report_reversal(conn, self._ledger, receipts, Source.C2B, message.raw, at)
        if row is None:
            return _End("UNMATCHED", Alarm.REVERSED)
        return _End(reason=Alarm.REVERSED, payment_id=row.id, heard=(Heard(row, True, None),))

    def _callback(self, conn: sqlite3.Connection, message: Message, at: int) -> _End:
        row = payments.by_token(conn, message.token_hash)
        if row is None:
            raise _NotThere
        said = parse_stk(message.raw)
        if said is None:
            return self._said_nothing(conn, row, message, at)
        if _of_another(conn, row, said):
            word = Evidence(
                Source.CALLBACK, Verdict.NO_INFO, code=said.code, alarm=Alarm.OTHER_REQUEST
            )
            heard = self._ledger.hear_in(conn, row, word, message.raw)
            return _End("UNMATCHED", Alarm.OTHER_REQUEST, row.id, (heard,))
        verdict, reason = callback_word(said.code)
        word = Evidence(
            Source.CALLBACK,
            verdict,
            code=said.code,
            reason=reason,
            receipt=said.receipt,
            amount_cents=said.amount_cents,
            merchant_request_id=said.merchant_request_id,
            checkout_request_id=said.checkout_request_id,
            payer=payer(said.phone),
            note=said.description[:200],
        )
        moment = said.paid_at if verdict is Verdict.PAID else None
        heard = self._ledger.hear_in(conn, row, word, message.raw, **when_paid(row.money, moment))
        more = self._second_receipt(conn, said, heard, message, at)
        return _End(payment_id=row.id, heard=(heard, *more))

    def _said_nothing(
        self, conn: sqlite3.Connection, row: PaymentRow, message: Message, at: int
    ) -> _End:
        """From M-Pesa, to be sure, but nothing in it can be read: the question is asked the other way."""
        word = Evidence(Source.CALLBACK, Verdict.NO_INFO, alarm=Alarm.MALFORMED)
        open_ = row.money in UNSETTLED
        fields = {"next_check_at": at} if open_ else {}
        heard = self._ledger.hear_in(conn, row, word, message.raw, **fields)
        look = heard.row if open_ else None
        return _End(reason=Alarm.MALFORMED, payment_id=row.id, heard=(heard,), look=look)

    def _second_receipt(
        self,
        conn: sqlite3.Connection,
        said: StkResult,
        heard: Heard,
        message: Message,
        at: int,
    ) -> tuple[Heard, ...]:
        """One push and two receipts are two payments: the second needs an owner, too."""
        if heard.alarm is not Alarm.OTHER_RECEIPT or said.receipt is None:
            return ()
        if payments.by_receipt(conn, said.receipt) is not None or said.amount_cents is None:
            return ()
        found = found_in(
            conn,
            receipt=said.receipt,
            amount_cents=said.amount_cents,
            source=Source.CALLBACK,
            reference=heard.row.account_ref,
            phone=said.phone,
            paid_at=said.paid_at,
            at=at,
            raw=message.raw,
        )
        return (found,)


def _of_another(conn: sqlite3.Connection, row: PaymentRow, said: StkResult) -> bool:
    """The address is this payment's, the request is not. A row that has no number of M-Pesa's yet takes the
    callback's (its push was not answered, or not yet), unless that is another payment's."""
    theirs = said.checkout_request_id
    if theirs is None or row.checkout_request_id == theirs:
        return False
    return row.checkout_request_id is not None or payments.by_request(conn, theirs) is not None


def _settle(conn: sqlite3.Connection, number: int, end: _End, at: int) -> None:
    mpesa_inbox.settle(conn, number, end.state, at=at, payment_id=end.payment_id, reason=end.reason)
