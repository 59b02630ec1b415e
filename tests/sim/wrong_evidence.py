"""Mistakes a gateway can make with what it learns about a sale in doubt: one for each of seven
rules of docs/internals/evidence.md. Never used for anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.domain.outcome import Duplicate, Refused
from gateway.fiscal import evidence, resolver, rules, signer
from gateway.fiscal.job import Begun, Job, Settlement
from gateway.fiscal.signer import Signer
from tests.sim import habits
from tests.sim.gateway import RealGateway
from tests.sim.habits import Habits
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life

Patch = Callable[[pytest.MonkeyPatch], type[RealGateway]]


def _shop(
    patch: pytest.MonkeyPatch,
    ways: Habits | None = None,
    *,
    read_back: bool | None = None,
    disk: str = "",
) -> type[RealGateway]:
    """A shop in which the mistake matters: what its unit does and its disk loses does not depend on the seed."""
    if ways is not None:
        patch.setattr(habits, "of", lambda seed: ways)

    class Gateway(RealGateway):
        def __init__(self, life: Life, disk_: Disk, sim_unit: SimUnit) -> None:
            if read_back is not None:
                sim_unit.read_back = read_back
            if disk:
                disk_.copies, disk_.lies = disk == "copies", disk == "lies"
                disk_.always_marked = not sim_unit.read_back
            super().__init__(life, disk_, sim_unit)

    return Gateway


def _proves(
    patch: pytest.MonkeyPatch, fact: rules.Fact, proves: rules.Verdict, first: bool | None = None
) -> None:
    """From now on `fact` proves this, whatever the circumstances are."""
    wrong = rules.Rule("wrong", fact, proves, first=first)
    patch.setattr(rules, "RULES", (wrong, *rules.RULES))


def life(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A unit that shows nothing has not signed, though it may still be at work."""
    _proves(patch, rules.Fact.SHOWS_NOTHING, rules.Verdict.NOT_SIGNED)
    return _shop(patch, Habits(), read_back=True)


def id_(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A sale that looks like ours under our number is ours."""
    _proves(patch, rules.Fact.SHOWS_UNCLEAR, rules.Verdict.SIGNED)
    return _shop(patch, Habits(beside=3, alike=True), read_back=True)


def other(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """Whatever stands under our number is ours."""
    _proves(patch, rules.Fact.SHOWS_OTHER, rules.Verdict.SIGNED)
    return _shop(patch, Habits(beside=3), read_back=True)


def _blind(shop: type[RealGateway]) -> type[RealGateway]:
    """The start does not notice that the newest transactions are lost."""

    class Blind(shop):  # type: ignore[misc, valid-type]
        def __init__(self, life: Life, disk: Disk, sim_unit: SimUnit) -> None:
            super().__init__(life, disk, sim_unit)
            self.ahead._noticed = None

    return Blind


def _released(patch: pytest.MonkeyPatch, kind: type[Any]) -> None:
    judged = evidence.Resend._inconclusive

    async def believes(self: Any, row: Any, outcome: Any) -> Any:
        if isinstance(outcome, kind):
            return evidence.HoldsItNot("the unit did not take it")
        return await judged(self, row, outcome)

    patch.setattr(evidence.Resend, "_inconclusive", believes)


def bytes_(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A resend that is refused was not signed the first time either."""
    _released(patch, Refused)
    return _shop(patch, Habits(guard="bytes"), read_back=False)


def contra(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A resend that is called a duplicate is refused, and so not signed."""
    _released(patch, Duplicate)
    return _shop(patch, Habits(), read_back=False)


def fresh(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """Any receipt that is answered is this sale's."""
    for module in (signer, resolver):
        patch.setattr(module, "not_fresh", lambda conn, data: None)
    return _shop(patch, Habits(echo=0.3), read_back=False)


def noticed(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A loss of the newest transactions is not noticed at the start."""
    return _blind(_shop(patch, Habits(guard="again"), read_back=False, disk="lies"))


def early(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """The till is answered before the receipt is on the disk."""

    class Early(Signer):
        async def _begin_after(self, settlement: Settlement | None, job: Job) -> Begun | None:
            if settlement is not None:
                await self._commit(settlement)
            return await super()._begin_after(None, job)

        async def _commit(self, settlement: Settlement) -> None:
            await self._db.write_soft(settlement.apply)
            self._publish(settlement)

    class Gateway(RealGateway):
        signer_type = Early

    return Gateway


# The shops of the wrong gateways, in which the gateway as it is does nothing wrong.
SHOPS: dict[str, tuple[Habits, dict[str, Any]]] = {
    "life": (Habits(), {"read_back": True}),
    "id": (Habits(beside=3, alike=True), {"read_back": True}),
    "bytes": (Habits(guard="bytes"), {"read_back": False}),
    "fresh": (Habits(echo=0.3), {"read_back": False}),
    "noticed": (Habits(guard="again"), {"read_back": False, "disk": "lies"}),
}


def right(patch: pytest.MonkeyPatch, name: str) -> type[RealGateway]:
    """The gateway as it is, in the shop of a wrong one."""
    ways, more = SHOPS[name]
    return _shop(patch, ways, **more)


# With what the simulation says of it.
WRONG: dict[Patch, str] = {
    life: "hears that its sale was not signed, and it is",
    id_: "was told a receipt the unit does not have",
    other: "was told a receipt the unit does not have",
    bytes_: "was told that it is not signed, and then was",
    contra: "was told that it is not signed, and then was",
    # The store's own index stops the process before the till is told.
    fresh: "another sale has this signature",
    early: "is answered before that is on the disk",
    noticed: "was told that it is not signed, and then was",
}
