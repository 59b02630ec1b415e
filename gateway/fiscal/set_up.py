"""Name what keeps a new shop from its first sale: the unit's port, its registration, the way to KRA.

Before the first contact with KRA in a store's life there are no 24 hours to speak of, and a wrong serial is as
likely as a missing internet. So each code has its own words, and page, `/v1/status` and tills get the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.domain.ceiling import CeilingState
from gateway.errors import NotSetUp, UnitPortTaken

NOT_SET_UP = str(CeilingState.NOT_SET_UP)
PORT_TAKEN = "UNIT_PORT_TAKEN"
# Codes of the way to KRA (etims.md 3.2).
LINK_CODES = frozenset({"838", "894", "896", "999"})
# KRA has the serial as another kind of device, or does not know the unit.
OTHER_KIND_CODES = frozenset({"903", "905"})
UNKNOWN_CODES = frozenset({"904", "906"})
KEYS_CODES = frozenset({"892", "900"})
LINK_WORDS = (
    "The control unit cannot reach KRA{code}. Check this machine's internet: cable, router, data bundle. "
    "If the internet works, KRA is down."
)
ASKED = "KRA was not reached yet; it is being asked now."


@dataclass(frozen=True, slots=True)
class Registration:
    """What the settings state about the unit, and what the eTIMS portal has to agree with."""

    pin: str
    branch_id: str
    serial: str
    # The unit's folder, where it is known, and its address.
    place: str
    url: str

    def __str__(self) -> str:
        return f"serial {self.serial} for PIN {self.pin}, branch {self.branch_id}"


@dataclass(frozen=True, slots=True)
class Failure:
    """The last answer on the way to the first contact. `code` None: none was given; not `answered`: no answer."""

    reason: str
    code: str | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True)
class SetUpProblem:
    """What keeps every sale from being signed, as a state and a sentence for the technician on site."""

    state: str
    sentence: str


def explain(asked: Registration, initialised: str | None, failure: Failure | None) -> str:
    """Return what is wrong before the first contact, and what to do. `initialised`: "000", "902" or None."""
    if failure is None:
        return ASKED
    code = f" (code {failure.code})" if failure.code else ""
    if not failure.answered:
        return f"The control unit does not answer: {failure.reason}."
    if failure.code is None:
        return (
            f"What answers at {asked.url} is not a control unit ({failure.reason}). Compare unit.port or unit.url "
            "with the control unit's."
        )
    if failure.code in LINK_CODES:
        return LINK_WORDS.format(code=code)
    if failure.code == "901" and initialised == "902":
        return (
            f"KRA has {asked} as set up before (code 902), and this control unit does not have its keys (code 901). "
            f"They are in the folder of the earlier installation: copy that folder to {asked.place}, or ask KRA to "
            "release the device."
        )
    if failure.code == "901" and initialised == "000":
        return (
            f"The control unit in {asked.place} has lost its registration (code 901). Check that unit.directory is "
            "the folder it was set up in, or copy it from the backup."
        )
    if failure.code == "901":
        return (
            f"KRA has no {asked} (code 901). Compare the three with the eTIMS portal and correct unit.serial, "
            "branch.pin or branch.branch_id in the settings."
        )
    if failure.code in OTHER_KIND_CODES:
        return (
            f"KRA has {asked}, but as another kind of device{code}. The device must be a VSCU on the eTIMS portal: "
            "compare the serial, or apply for a VSCU."
        )
    if failure.code in UNKNOWN_CODES:
        return (
            f"KRA does not know this control unit{code}: {asked}. Compare the three with the eTIMS portal, "
            "and whether sandbox or production is meant."
        )
    if failure.code in KEYS_CODES:
        return (
            f"The control unit has lost its keys{code}. Copy the folder {asked.place} from the backup; without a "
            "backup, ask KRA to release the device."
        )
    return f"The control unit is not ready: {failure.reason}. It was asked with {asked}."


class SetUp:
    """One per gateway, asked by the page, the status and the gate of each sale; so it only reads memory."""

    def __init__(
        self,
        asked: Registration,
        *,
        port: Callable[[], str | None],
        state: Callable[[], CeilingState],
        initialised: Callable[[], str | None],
        failure: Callable[[], Failure | None],
    ) -> None:
        self._asked = asked
        self._port = port
        self._state = state
        self._initialised = initialised
        self._failure = failure

    def problem(self) -> SetUpProblem | None:
        """Return what keeps sales from being signed; None once KRA was reached and the port is the unit's."""
        taken = self._port()
        if taken is not None:
            return SetUpProblem(
                PORT_TAKEN,
                f"Nothing can be sold: {taken}. Stop that program; selling starts within seconds then.",
            )
        if self._state() is CeilingState.NOT_SET_UP:
            why = explain(self._asked, self._initialised(), self._failure())
            return SetUpProblem(NOT_SET_UP, f"Nothing can be sold yet. {why}")
        return None

    @property
    def waits_for_person(self) -> bool:
        """Return whether a restart of this process cannot help: the port is another program's, or the unit answered
        and is not registered."""
        if self._port() is not None:
            return True
        failure = self._failure()
        answered = failure is not None and failure.answered
        return answered and self._state() is CeilingState.NOT_SET_UP

    def gate(self) -> None:
        """Raise UnitPortTaken or NotSetUp while there is a problem."""
        problem = self.problem()
        if problem is None:
            return
        kind = UnitPortTaken if problem.state == PORT_TAKEN else NotSetUp
        raise kind(
            f"{problem.sentence} This sale is not signed.", retry_after_s=30, extra={"signed": "no"}
        )
