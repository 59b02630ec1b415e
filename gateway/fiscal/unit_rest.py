"""Judges since when nothing that was sent can still be signed, and whether KRA's portal shows it by now.

Rules `rest` and `upload` of evidence.md: an operator's look at the portal proves that a sale was not signed
only when the control unit had ended its work and then reached KRA. All times are CLOCK_BOOTTIME of this boot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from gateway.clock import EAT, Clock
from gateway.errors import FieldError
from gateway.store.invoices import InvoiceRow

# How long a decision waits for KRA's answer to the question that it caused. Seconds.
KRA_ANSWER_S = 10.0
# The bytes of a sending leave within this time after it was recorded (an fsync, then 5 s to connect). Only a
# unit that was down later than that was restarted after the sending. Seconds.
LEFT_WITHIN_S = 60.0


class KraContact(Protocol):
    """The gateway's link to KRA through the control unit (`continuity/monitor.py`)."""

    @property
    def contact_begun_ns(self) -> int | None:
        """When the last contact of this process that KRA answered began, by CLOCK_BOOTTIME."""
        ...

    @property
    def contact_since_ns(self) -> int | None:
        """When the first one after the last that failed began; None while the last one failed."""
        ...

    def contact_soon(self) -> None: ...

    async def contact_after(self, boottime_ns: int, timeout_s: float) -> bool:
        """Ask KRA now; return whether a contact that began at or after `boottime_ns` was answered."""
        ...


@dataclass(frozen=True, slots=True)
class UnitWork:
    """What is assumed about the unit's work: a request ends within `at_work_s` where `bounded` (A5), and a
    restarted unit forgets what it had only accepted where `forgets` (A3); else it ends that within `at_work_s`
    of its restart. `upload_s`: while it reaches KRA, what it has signed is on the portal within this time (A9).
    `unit_life` identifies the unit's present run; None for an external unit."""

    at_work_s: float
    bounded: bool
    forgets: bool
    unit_life: str | None = None
    upload_s: float = 0.0

    @property
    def after_restart_ns(self) -> int:
        """For how long a restarted unit may sign what it had accepted before."""
        return 0 if self.forgets else int(self.at_work_s * 1e9)


@dataclass(frozen=True, slots=True)
class Moment:
    """The clocks at one moment: boot id, now, this process's start, the last contact with KRA, the last
    time at which nothing listened on an external unit's port, which ends its run, and since when no contact
    with KRA has failed."""

    boot_id: str
    now_ns: int
    started_ns: int
    contact_ns: int | None = None
    restart_ns: int | None = None
    since_ns: int | None = None


def last_sent_ns(row: InvoiceRow, at: Moment) -> int:
    """Return when the sale was last sent. A sending of an earlier boot, or one that an older version did not
    record, happened before this process started."""
    if row.last_sent_boot_ns is None or row.last_sent_boot_id != at.boot_id:
        return at.started_ns
    return row.last_sent_boot_ns


def rest(row: InvoiceRow, work: UnitWork, at: Moment) -> int | None:
    """Return from when on no sending of this sale can be signed; None: only a restart of the unit ends it."""
    if work.unit_life is not None and row.unit_life is None:
        # Sent by an older version, or to an external unit that was hosted before.
        return last_sent_ns(row, at) + int(work.at_work_s * 1e9)
    if work.unit_life is not None and row.unit_life != work.unit_life:
        # The unit's run that was sent the sale ended before this process started.
        return at.started_ns + work.after_restart_ns
    return rest_after(last_sent_ns(row, at), work, at)


def rest_after(sent_ns: int, work: UnitWork, at: Moment) -> int | None:
    """Return from when on nothing that was sent up to `sent_ns` can be signed; None as in `rest`."""
    if at.restart_ns is not None and at.restart_ns > sent_ns + int(LEFT_WITHIN_S * 1e9):
        return at.restart_ns + work.after_restart_ns
    return sent_ns + int(work.at_work_s * 1e9) if work.bounded else None


def rest_of_all(
    open_row: InvoiceRow | None, held_ns: int | None, work: UnitWork, at: Moment
) -> int | None:
    """Return from when on nothing at all can be signed that an earlier process, a lost store or this process
    up to `held_ns` has sent; None as in `rest`."""
    over = [
        at.started_ns + work.after_restart_ns
        if work.unit_life is not None
        else rest_after(at.started_ns, work, at)
    ]
    if open_row is not None:
        over.append(rest(open_row, work, at))
    if held_ns is not None:
        over.append(rest_after(held_ns, work, at))
    known = [each for each in over if each is not None]
    return max(known) if len(known) == len(over) else None


def uploaded_ns(quiet_ns: int, work: UnitWork, at: Moment) -> int | None:
    """Return from when on a contact with KRA shows that everything is on the portal that the unit had signed by
    `quiet_ns`; None while KRA is not reached. A unit that was restarted reaches KRA before it sends what its
    earlier run has left (seen on the fake unit, whose timer takes a second)."""
    if at.since_ns is None:
        return None
    return max(quiet_ns, at.since_ns) + int(work.upload_s * 1e9)


def upload(quiet_ns: int, work: UnitWork, at: Moment) -> bool:
    """Return whether KRA was reached so long after the unit had ended its work that the portal shows what it
    signed."""
    shown_ns = uploaded_ns(quiet_ns, work, at)
    return shown_ns is not None and at.contact_ns is not None and at.contact_ns >= shown_ns


class UnitRest:
    """Made once per process, before anything is sent."""

    def __init__(
        self,
        clock: Clock,
        work: UnitWork,
        link: KraContact,
        restart_ns: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._clock = clock
        self.work = work
        self._link = link
        self._restart_ns = restart_ns
        self._started_ns = clock.boottime_ns()

    def moment(self) -> Moment:
        return Moment(
            self._clock.boot_id(),
            self._clock.boottime_ns(),
            self._started_ns,
            self._link.contact_begun_ns,
            self._restart_ns(),
            self._link.contact_since_ns,
        )

    def of(self, row: InvoiceRow) -> Sequence[FieldError]:
        """Return why a decision about this sale must wait, as errors of `/choice`."""
        at = self.moment()
        return self._errors("/choice", rest(row, self.work, at), at)

    def of_all(self, open_row: InvoiceRow | None, held_ns: int | None) -> Sequence[FieldError]:
        """Return why the numbering decision must wait, as errors of `/nextInvcNo`."""
        at = self.moment()
        return self._errors("/nextInvcNo", rest_of_all(open_row, held_ns, self.work, at), at)

    def is_over(self) -> bool:
        """Return whether nothing that was sent before this process started can still be signed."""
        at = self.moment()
        quiet_ns = rest_of_all(None, None, self.work, at)
        return quiet_ns is not None and quiet_ns <= at.now_ns

    def over_in_s(self) -> float | None:
        """Return in how many seconds `is_over` becomes true; None while nobody can say."""
        at = self.moment()
        quiet_ns = rest_of_all(None, None, self.work, at)
        return None if quiet_ns is None else max(0.0, (quiet_ns - at.now_ns) / 1e9)

    async def ask_kra(self, errors: Sequence[FieldError]) -> Sequence[FieldError]:
        """Ask KRA now when only a contact is missing. The decision is refused all the same: the operator's
        look at the portal came before the contact, so it has to be repeated."""
        if [error.code for error in errors] != ["KRA_NOT_REACHED"]:
            return errors
        begun_ns = self._clock.boottime_ns()
        if not await self._link.contact_after(begun_ns, KRA_ANSWER_S):
            return errors
        says = (
            f"KRA was reached only now, at {self._wall(begun_ns)}. Search the portal once more, because it "
            "may show more than before, and then decide."
        )
        return [FieldError(errors[0].pointer, "LOOK_AGAIN", says)]

    def _errors(self, pointer: str, quiet_ns: int | None, at: Moment) -> list[FieldError]:
        if quiet_ns is None:
            return [FieldError(pointer, "UNIT_NOT_RESTARTED", self._restart())]
        if quiet_ns > at.now_ns:
            says = (
                "The control unit may still be signing what it was sent. Decide after "
                f"{self._wall(quiet_ns)}, and search the portal again before that."
            )
            return [FieldError(pointer, "TOO_SOON", says)]
        shown_ns = uploaded_ns(quiet_ns, self.work, at)
        reached = at.contact_ns is not None and at.contact_ns >= quiet_ns
        if reached and shown_ns is not None and shown_ns > at.now_ns:
            says = (
                "The control unit may still be sending receipts to KRA. Decide after "
                f"{self._wall(shown_ns)}, and search the portal again before that."
            )
            return [FieldError(pointer, "TOO_SOON", says)]
        if not upload(quiet_ns, self.work, at):
            self._link.contact_soon()
            says = (
                f"KRA has not been reached since {self._wall(max(quiet_ns, shown_ns or 0))}, so a receipt may be in the control "
                "unit and not on the portal yet. The gateway asks KRA now; if that fails, bring the internet "
                "back. Then search the portal again, and decide."
            )
            return [FieldError(pointer, "KRA_NOT_REACHED", says)]
        return []

    def _restart(self) -> str:
        if self.work.unit_life is not None:
            return (
                "It is not known how long this control unit works on a sale (unit.at_work_bounded). Restart the "
                "gateway, and the unit with it. Then search the portal again, and decide."
            )
        return (
            "It is not known how long this control unit works on a sale (unit.at_work_bounded). Stop the unit for "
            "30 seconds so that the gateway sees it stopped, and start it again. Then search the portal again, "
            "and decide."
        )

    def _wall(self, boot_ns: int) -> str:
        ahead = timedelta(microseconds=(boot_ns - self._clock.boottime_ns()) / 1000)
        return f"{(self._clock.now() + ahead).astimezone(EAT):%H:%M:%S}"
