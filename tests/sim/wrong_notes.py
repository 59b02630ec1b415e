"""Mistakes a gateway can make with credit notes, each as small as it can be, so that the simulation can
show that it finds them. Never used for anything else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.api import invoices as routes
from gateway.api import problem
from gateway.domain.outcome import Refused, SaleOutcome
from gateway.domain.signing import SigningState
from gateway.errors import AlreadyCredited, GatewayError
from gateway.fiscal import evidence, intake, signer
from gateway.fiscal.job import Answer, Begun, Job, Settlement
from gateway.fiscal.signer import Signer
from gateway.store import invoices
from gateway.store.invoices import Sending
from tests.sim import habits
from tests.sim.gateway import RealGateway
from tests.sim.habits import Habits
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life

Patch = Callable[[pytest.MonkeyPatch], type[RealGateway]]


def looks_outside(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """Whether the sale was taken back is asked before the write-ahead's transaction, not in it."""
    noted = invoices.credit_note_of
    patch.setattr(signer.invoices, "credit_note_of", lambda conn, original_id: None)

    class Outside(RealGateway):
        async def take_up(self) -> None:
            await self.db.write(
                lambda conn: conn.execute("DROP INDEX IF EXISTS invoice_one_credit")
            )

        async def credit(
            self, till: str, key: str, invoice_id: str, body: Any
        ) -> tuple[int, bytes]:
            found = await self.db.read(lambda conn: noted(conn, invoice_id))
            if found is not None and found.idem_key != key:
                return problem.render(AlreadyCredited("It has one."), "")
            return await super().credit(till, key, invoice_id, body)

    return Outside


def written_late(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A credit note is not written ahead: its number and bytes come with its receipt."""

    def ahead(conn: sqlite3.Connection, begun: Begun) -> None:
        row, number = begun.row, begun.row.invc_no
        assert number is not None
        received = replace(row, state=SigningState.RECEIVED)
        assert row.last_sent_boot_id is not None
        assert row.last_sent_boot_ns is not None
        sending = Sending(row.unit_life, row.last_sent_boot_id, row.last_sent_boot_ns)
        invoices.write_ahead(
            conn,
            received,
            invc_no=number,
            unit_request=begun.body,
            sending=sending,
            at=row.updated_at,
        )

    class Late(Signer):
        def _write_ahead(self, conn: sqlite3.Connection, job: Job) -> Begun | Answer | GatewayError:
            conn.execute("SAVEPOINT ahead")
            begun = super()._write_ahead(conn, job)
            if isinstance(begun, Begun) and begun.row.original_id is not None:
                conn.execute("ROLLBACK TO ahead")
            conn.execute("RELEASE ahead")
            return begun

        async def _sign(self, begun: Begun, job: Job) -> Settlement | None:
            planned = await super()._sign(begun, job)
            if planned is None or begun.row.original_id is None:
                return planned

            def apply(conn: sqlite3.Connection) -> None:
                ahead(conn, begun)
                planned.apply(conn)

            return Settlement(apply, planned.publish)

        async def _fall_into_doubt(self, begun: Begun, outcome: SaleOutcome) -> None:
            if begun.row.original_id is not None:
                await self._db.write(lambda conn: ahead(conn, begun))
            await super()._fall_into_doubt(begun, outcome)

    class Gateway(RealGateway):
        signer_type = Late

    return Gateway


def believes_the_unit(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """934 ("credited already") to bytes that are sent again counts as a refusal of these bytes."""
    judged = evidence.Resend._inconclusive

    async def believes(self: Any, row: Any, outcome: Any) -> Any:
        if isinstance(outcome, Refused) and outcome.code == "934":
            return evidence.HoldsItNot("the unit did not take it")
        return await judged(self, row, outcome)

    patch.setattr(evidence.Resend, "_inconclusive", believes)
    patch.setattr(habits, "of", lambda seed: Habits())

    class Gateway(RealGateway):
        def __init__(self, life: Life, disk: Disk, sim_unit: SimUnit) -> None:
            # A unit that looks at what is credited before it looks whether it has the number.
            sim_unit.checks_credit = sim_unit.credit_first = True
            sim_unit.read_back = False
            super().__init__(life, disk, sim_unit)

    return Gateway


def unknown_is_unsigned(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """Of a sale in doubt it is said that it was not signed."""
    patch.setattr(routes, "OPEN_STATES", frozenset())
    return RealGateway


def any_body(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """The key alone decides; another body under it gets the first one's receipt."""
    patch.setattr(intake, "_same_sale", lambda row, body_digest: None)
    return RealGateway


# With what the simulation says of it.
WRONG: dict[Patch, str] = {
    looks_outside: "take 594.00 back",
    # The next sale under its number is called a duplicate, which holds signing before there are two.
    written_late: "is signed in the unit, RECEIVED here",
    believes_the_unit: "was told that it is not signed, and then was",
    unknown_is_unsigned: "hears that its sale was not signed, and it is",
    any_body: "is signed for",
}
