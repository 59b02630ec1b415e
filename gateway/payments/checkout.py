"""A sale that is paid by M-Pesa and then signed, as one flow that survives a crash between any two steps.

COLLECTING -> READY -> SIGNED, or CLOSED; every move is a compare-and-swap in a transaction that has looked
at all parts. One task drives each open checkout; tills only wait for it. See docs/internals/payments.md.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import replace
from typing import Protocol

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.domain import invoice_json
from gateway.domain.invoice import Invoice, Payment
from gateway.domain.payment import OPEN_PUSH, Act, Money, Tender
from gateway.domain.report import CASH
from gateway.errors import (
    GatewayError,
    KeyReused,
    PaymentInvalid,
    PaymentMayBeSame,
    PaymentOpen,
    PaymentReversed,
    PaymentSettled,
    PaymentUnsigned,
    StoreError,
)
from gateway.money import ZERO, from_cents
from gateway.payments.checkout_moves import (
    CheckoutMoves,
    PaidSale,
    found_or_unknown,
    with_parts,
)
from gateway.payments.checkout_view import (
    Part,
    PartState,
    checkout_json,
    failed,
    part_digest,
    part_key,
    parts_of,
    waiting,
)
from gateway.payments.desk import Ask, PaymentDesk
from gateway.payments.ledger import Ledger
from gateway.payments.tenders import Tenders
from gateway.store import checkouts, events, invoices, payments
from gateway.store.checkouts import OPEN_CHECKOUTS, CheckoutRow, CheckoutState
from gateway.store.database import Database
from gateway.store.invoices import InvoiceRow
from gateway.store.payments import PaymentRow
from gateway.store.unclear_keys import SaleName

log = logging.getLogger(__name__)

# Between two attempts to sign what is paid, in seconds: first and last.
SIGN_AGAIN_FIRST_S = 1.0
SIGN_AGAIN_LAST_S = 15.0
# All open checkouts are looked at so often, whatever woke nobody. Seconds.
SWEEP_S = 30.0


class Signing(Protocol):
    """The way to a receipt."""

    async def possible(self, sale: SaleName) -> None:
        """Raises the reason why this new sale could not be signed right now."""
        ...

    async def sign(self, row: CheckoutRow, invoice: Invoice) -> None:
        """Through the intake, under the checkout's own key; back when the sale has its final state.
        Raises why it has not."""
        ...


class Checkouts:
    """`run` takes up what is open and drives it; `sell` is what a till's request waits in."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        ledger: Ledger,
        desk: PaymentDesk,
        tenders: Tenders,
        signing: Signing,
        wait_s: float,
        sign_within_s: float,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ledger = ledger
        self._desk = desk
        self._tenders = tenders
        self._signing = signing
        self._wait_s = wait_s
        self.moves = CheckoutMoves(
            clock=clock, ledger=ledger, tenders=tenders, sign_within_s=sign_within_s
        )
        self._drives: dict[str, asyncio.Task[None]] = {}
        # Set when there is something new for a checkout that is being driven.
        self._wakes: dict[str, asyncio.Event] = {}
        # Checkouts whose till is there: only then is a further part asked for.
        self._wanted: set[str] = set()
        self._problems: dict[str, GatewayError] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._links: set[asyncio.Task[None]] = set()
        ledger.after_change.append(self._payment_changed)

    # --- a till's request -------------------------------------------------------------------------

    async def begun(self, till_id: str, idem_key: str) -> CheckoutRow | None:
        return await self._db.read(lambda conn: checkouts.by_key(conn, till_id, idem_key))

    async def sell(self, sale: PaidSale) -> InvoiceRow:
        """The signed invoice. PaymentWaiting (202) while money or signature are awaited, PaymentFailed
        (409) when the sale is closed, KeyReused, or why nobody was asked for money."""
        row = await self.begun(sale.till_id, sale.idem_key)
        if row is None:
            await self._signing.possible(sale.name)
            row = await self._db.write(lambda conn: self.moves.claim(conn, sale))
        return await self.again(row, sale.body_digest)

    async def again(self, row: CheckoutRow, body_digest: str) -> InvoiceRow:
        """The outcome of a checkout that was begun before, for the same body."""
        if row.body_digest != body_digest:
            raise KeyReused(
                "This key was already used for a different sale. Send the sale with a new key.",
                extra={"checkoutId": row.id},
            )
        if row.state is CheckoutState.READY:
            await self.sign_now(row.id)
        self._wanted.add(row.id)
        self._problems.pop(row.id, None)
        self._kick(row.id)
        try:
            async with asyncio.timeout(self._wait_s):
                return await self._end_of(row.id)
        except TimeoutError:
            raise await self._db.read(lambda conn: self._told(conn, row.id)) from None

    def _told(self, conn: sqlite3.Connection, checkout_id: str) -> GatewayError:
        row = found_or_unknown(checkouts.by_id(conn, checkout_id))
        now = micros(self._clock.now())
        closed = row.state is CheckoutState.CLOSED
        return failed(conn, row, now) if closed else waiting(conn, row, now)

    async def _end_of(self, checkout_id: str) -> InvoiceRow:
        while True:
            news = self._news.setdefault(checkout_id, asyncio.Event())
            row, invoice = await self._db.read(lambda conn: _with_invoice(conn, checkout_id))
            if row.state is CheckoutState.SIGNED:
                assert invoice is not None
                return invoice
            if row.state is CheckoutState.CLOSED:
                raise await self._db.read(lambda conn: self._told(conn, checkout_id))
            problem = self._problems.get(checkout_id)
            if problem is not None:
                raise _told_anew(problem, checkout_id)
            await news.wait()

    # --- what tills and people decide ---------------------------------------------------------------

    async def close(
        self, checkout_id: str, act: Act, who: str, reason: str, *, person: bool
    ) -> None:
        """SALE_WITHOUT_IT (paid otherwise: money that came stays free for the new sale) or GIVEN_UP (the
        customer left: it goes back). PaymentSettled when it is signed, or about to be: a till loses against
        READY, a technician only against the unit."""
        heard = await self._db.write(
            lambda conn: self.moves.close(conn, checkout_id, act, who, reason, person)
        )
        for one in heard:
            self._ledger.told(one)
        self._tell(checkout_id)

    async def sign_now(self, checkout_id: str) -> None:
        """Somebody asks for the signature of what is paid: it is tried again for its time."""
        at = micros(self._clock.now())
        if await self._db.write(
            lambda conn: checkouts.sign_until(
                conn, checkout_id, at + self.moves.sign_within_us, at=at
            )
        ):
            self._kick(checkout_id)

    # --- the drive --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take up what is open, now and whenever something was missed. Asks nobody for money by itself."""
        try:
            while True:
                try:
                    for row in await self._db.read(checkouts.all_open):
                        self._kick(row.id)
                    for paid in await self._db.read(payments.unowned):
                        await self._find_receipt(paid.id)
                except StoreError as error:
                    log.warning("checkout.sweep_waits reason=%s", error)
                await self._clock.sleep(SWEEP_S)
        finally:
            tasks = [*self._drives.values(), *self._links]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _payment_changed(self, row: PaymentRow) -> None:
        """A hook of the ledger."""
        if row.money in OPEN_PUSH and row.tender is Tender.OPEN:
            return
        task = asyncio.ensure_future(self._look_at(row))
        self._links.add(task)
        task.add_done_callback(self._links.discard)

    async def _look_at(self, row: PaymentRow) -> None:
        try:
            found = await self._db.read(lambda conn: checkouts.open_with(conn, row.id))
            if found is not None:
                self._kick(found.id)
            elif row.money is Money.PAID:
                await self._find_receipt(row.id)
        except StoreError as error:
            # The sweep sees it, too.
            log.warning("checkout.look_waits payment=%s reason=%s", row.id, error)

    async def _find_receipt(self, payment_id: str) -> None:
        if await self._db.read(lambda conn: self._tenders.may_have_receipt(conn, payment_id)):
            await self._db.write(lambda conn: self._tenders.find_its_receipt(conn, payment_id))
            self._tenders.flush()

    def _kick(self, checkout_id: str) -> None:
        self._wakes.setdefault(checkout_id, asyncio.Event()).set()
        if checkout_id not in self._drives:
            task = asyncio.ensure_future(self._drive(checkout_id))
            self._drives[checkout_id] = task

    def _tell(self, checkout_id: str) -> None:
        news = self._news.pop(checkout_id, None)
        if news is not None:
            news.set()

    async def _drive(self, checkout_id: str) -> None:
        wake = self._wakes[checkout_id]
        pause = SIGN_AGAIN_FIRST_S
        try:
            # Nothing is awaited between the last look at `wake` and the end: no kick gets lost.
            while wake.is_set():
                wake.clear()
                retry = await self._try(checkout_id)
                self._tell(checkout_id)
                if retry:
                    await wake_or_sleep(self._clock, wake, pause)
                    wake.set()
                    pause = min(pause * 2, SIGN_AGAIN_LAST_S)
        finally:
            self._drives.pop(checkout_id, None)
            self._wakes.pop(checkout_id, None)

    async def _try(self, checkout_id: str) -> bool:
        try:
            return await self._step(checkout_id)
        except StoreError as error:
            self._problems[checkout_id] = error
            return True
        except GatewayError as error:
            self._problems[checkout_id] = error
            return False
        except Exception as error:  # a fault of ours must not leave the till without a word
            log.exception("checkout.failed id=%s", checkout_id)
            self._problems[checkout_id] = GatewayError(
                f"Something went wrong inside the gateway with this sale: {type(error).__name__}."
            )
            return True

    async def _step(self, checkout_id: str) -> bool:
        """As far as it goes now; True when it is to be tried again by itself."""
        row, found = await self._db.read(lambda conn: with_parts(conn, checkout_id))
        if row.state is CheckoutState.COLLECTING:
            states = [part.state for part in found]
            if PartState.FAILED in states or all(state is PartState.PAID for state in states):
                row = await self._db.write(lambda conn: self.moves.conclude(conn, checkout_id))
            else:
                await self._ask_next(row, found)
        if row.state is not CheckoutState.READY:
            if row.state not in OPEN_CHECKOUTS:
                self._wanted.discard(checkout_id)
                self._problems.pop(checkout_id, None)
            return False
        return await self._sign(row)

    async def _ask_next(self, row: CheckoutRow, found: list[Part]) -> None:
        """One part after the other: the next when all before it are paid."""
        for part in found:
            if part.state is PartState.PAID:
                continue
            if part.state is PartState.UNASKED and row.id in self._wanted:
                try:
                    await self._desk.ask(_ask(row, part))
                except GatewayError:
                    # The till is told why. It asks again, or takes cash: nothing rings by itself later.
                    self._wanted.discard(row.id)
                    raise
            return

    async def _unsigned(self, row: CheckoutRow, now: int) -> None:
        """ "Money came, no receipt": a person decides. Told once by each run of the gateway."""
        if isinstance(self._problems.get(row.id), PaymentUnsigned):
            return
        self._problems[row.id] = PaymentUnsigned(
            "The money came, and the sale could not be signed in time. Sign it now, or close it.",
            extra={"signed": "no", "checkoutId": row.id},
        )
        log.error("checkout.unsigned id=%s", row.id)

        def tell(conn: sqlite3.Connection) -> None:
            data = {"alarm": "UNSIGNED", **checkout_json(conn, row, now)}
            events.record(
                conn, at=now, kind="payment.alarm", subject=row.id, till_id=row.till_id, data=data
            )

        await self._db.write(tell)

    async def _sign(self, row: CheckoutRow) -> bool:
        """One attempt. True: try again later."""
        now = micros(self._clock.now())
        if row.sign_until is not None and now >= row.sign_until:
            await self._unsigned(row, now)
            return False
        try:
            invoice = await self._db.read(lambda conn: _document(conn, row))
            await self._signing.sign(row, invoice)
        except (
            PaymentSettled,
            PaymentInvalid,
            PaymentOpen,
            PaymentMayBeSame,
            PaymentReversed,
        ) as error:
            # The last look said no: the money has another owner meanwhile.
            self._problems[row.id] = error
            closed = await self._db.write(lambda conn: self.moves.lost(conn, row.id))
            return not closed
        except GatewayError as error:
            self._problems[row.id] = error
            return True
        self._problems.pop(row.id, None)
        return not await self._db.write(lambda conn: self.moves.signed(conn, row.id))


def _ask(row: CheckoutRow, part: Part) -> Ask:
    assert part.row.phone is not None
    return Ask(
        till_id=row.till_id,
        key=part_key(row.id, part.row.position),
        body_digest=part_digest(part.row),
        sale_ref=row.sale_ref,
        amount_cents=part.row.amount_cents,
        phone=part.row.phone,
        checkout_id=row.id,
    )


def _with_invoice(
    conn: sqlite3.Connection, checkout_id: str
) -> tuple[CheckoutRow, InvoiceRow | None]:
    row = found_or_unknown(checkouts.by_id(conn, checkout_id))
    return row, None if row.invoice_id is None else invoices.by_id(conn, row.invoice_id)


def _document(conn: sqlite3.Connection, row: CheckoutRow) -> Invoice:
    """The invoice as it is signed: each M-Pesa part with its payment, the receipt where it is known, and
    what came. Where a person took another amount, the difference is cash (`Act.AMOUNT_ACCEPTED`)."""
    invoice = invoice_json.from_json(row.document)
    found = iter(parts_of(conn, row))
    signed, more = [], ZERO
    for tender in invoice.payments:
        # Marked by the API when the sale was built.
        if tender.payment_id is not None:
            payment = next(found).payment
            assert payment is not None
            came = from_cents(payment.state.came_cents)
            more += came - tender.amount
            tender = replace(tender, amount=came, payment_id=payment.id, reference=payment.receipt)
        signed.append(tender)
    change = invoice.change + more
    if change < ZERO:
        # The customer paid the rest into the drawer.
        signed.append(Payment(CASH, -change))
    return replace(invoice, payments=tuple(signed), change=max(change, ZERO))


def _told_anew(problem: GatewayError, checkout_id: str) -> GatewayError:
    """One error for everybody who waits: without its frames, and with the checkout's id."""
    problem.extra.setdefault("checkoutId", checkout_id)
    problem.extra.setdefault("signed", "no")
    return problem.with_traceback(None)


# What a till may say that became of the sale.
OUTCOMES: dict[str, Act] = {"PAID_OTHERWISE": Act.SALE_WITHOUT_IT, "ABANDONED": Act.GIVEN_UP}
