"""What glues money to receipts, put together: tenders in the signer's transactions, checkouts, webhooks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from gateway.clock import Clock
from gateway.domain.invoice import Invoice
from gateway.domain.signing import OPEN_STATES
from gateway.errors import GatewayError, StillWaiting, UnitUnavailable
from gateway.fiscal.intake import Intake, Submission
from gateway.fiscal.repeats import fingerprint, refusal
from gateway.payments.checkout import Checkouts
from gateway.payments.checkout_moves import PaidSale
from gateway.payments.desk import PaymentDesk
from gateway.payments.ledger import Ledger
from gateway.payments.tenders import Tenders
from gateway.payments.webhooks import Webhook
from gateway.settings import Settings
from gateway.store.checkouts import CheckoutRow
from gateway.store.database import Database
from gateway.store.invoices import InvoiceRow
from gateway.store.unclear_keys import SaleName
from gateway.supervisor import Restart, Supervisor
from gateway.sync.webhook import WebhookWire


def make_tenders(settings: Settings, clock: Clock, ledger: Ledger) -> Tenders:
    """Before the line of sales, whose transactions it is part of."""
    part = settings.mpesa
    tenders = Tenders(clock=clock, ledger=ledger, prompt_life_s=part.prompt_life_s, on=part.on)
    ledger.held = tenders.held
    ledger.at_unit = tenders.at_unit
    return tenders


def make_checkouts(
    settings: Settings,
    clock: Clock,
    db: Database,
    *,
    ledger: Ledger,
    desk: PaymentDesk,
    tenders: Tenders,
    intake: Intake,
    unit_problem: Callable[[], str | None],
) -> Checkouts:
    made = Checkouts(
        db=db,
        clock=clock,
        ledger=ledger,
        desk=desk,
        tenders=tenders,
        signing=_Signing(intake, unit_problem, gated=not settings.mpesa.push_while_suspended),
        wait_s=settings.api.wait_s,
        sign_within_s=settings.mpesa.sign_within_minutes * 60,
    )

    def refuse_repeat(conn: sqlite3.Connection, sale: PaidSale, checkout_id: str) -> None:
        mark = fingerprint(sale.invoice.till_receipt_no, sale.body_digest)
        earlier = intake.repeats.take(conn, sale.till_id, mark, checkout_id, sale.confirms)
        if earlier is not None:
            raise _repeat(earlier)

    made.moves.refuse_repeat = refuse_repeat
    return made


def _repeat(earlier: InvoiceRow) -> GatewayError:
    if earlier.state not in OPEN_STATES:
        return refusal(earlier)
    return StillWaiting(
        "A sale with this receipt number and the same content is still being signed under another key. Nobody was "
        "asked for money. Ask again in a moment.",
        retry_after_s=5,
        extra={"signed": "unknown", "invoiceId": earlier.id},
    )


def start_webhooks(
    settings: Settings, clock: Clock, db: Database, wire: WebhookWire, supervisor: Supervisor
) -> None:
    for till_id, url in settings.mpesa.webhooks.items():
        token = settings.till_tokens[till_id].get_secret_value()
        hook = Webhook(db=db, clock=clock, till_id=till_id, url=url, token=token, post=wire.post)
        supervisor.start(f"webhook {till_id}", hook.run, Restart.BACKOFF)


class _Signing:
    """The intake as the checkouts see it."""

    def __init__(
        self, intake: Intake, unit_problem: Callable[[], str | None], *, gated: bool
    ) -> None:
        self._intake = intake
        self._unit_problem = unit_problem
        self._gated = gated

    async def possible(self, sale: SaleName) -> None:
        try:
            await self._intake.could_sign(sale, gated=self._gated)
        except GatewayError as error:
            error.extra.setdefault("signed", "no")
            raise
        problem = self._unit_problem()
        if problem is not None:
            raise UnitUnavailable(
                f"The control unit cannot sign ({problem}), so nobody was asked for money. Try again.",
                retry_after_s=5,
                extra={"signed": "no"},
            )

    async def sign(self, row: CheckoutRow, invoice: Invoice) -> None:
        await self._intake.submit(
            Submission(
                till_id=row.till_id,
                idem_key=row.idem_key,
                body_digest=row.body_digest,
                request=row.request,
                invoice=invoice,
                printer=row.printer,
            )
        )
