"""The 24-hour ceiling as pure functions: how long ago, how long yet, may anything be signed now.

"If there is no internet connection for 24 hours after VSCU issues a receipt signature and an
internal data, VSCU stops issuing a receipt number" (VSCU spec 2.2). Two readings of that text exist
(etims.md 7.2): A, last contact with KRA; B, the oldest receipt signed and not known to be uploaded.
The earlier one wins. Ages are real elapsed time: CLOCK_BOOTTIME within one boot, and across boots the
larger of what was known and what the wall clock says; no clock step ever gives time back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

HOUR_US = 3_600_000_000
# The wall clock may step back this far (NTP slewing, a leap second) without being called wrong.
STEP_BACK_TOLERANCE_US = 2_000_000
# And stand this far from KRA's.
CLOCK_APART_US = 600_000_000


class CeilingState(StrEnum):
    ONLINE = "ONLINE"  # KRA was heard within two heartbeats
    OFFLINE = "OFFLINE"  # not heard lately; selling goes on
    WARNING = "WARNING"  # past the first warning step; selling goes on
    NOT_SET_UP = "NOT_SET_UP"  # KRA was never reached since this store was made: nothing is signed
    SUSPENDED = "SUSPENDED"  # the limit is reached: nothing is signed
    CLOCK_FAULT = "CLOCK_FAULT"  # the clock cannot be trusted: nothing is signed


BLOCKING = frozenset({CeilingState.NOT_SET_UP, CeilingState.SUSPENDED, CeilingState.CLOCK_FAULT})


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One look at the machine's clocks: microseconds UTC, nanoseconds since boot, the boot's id."""

    wall_us: int
    boottime_ns: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The stopwatches at one moment. An age of None: that stopwatch is not running."""

    reading: ClockReading
    high_water_us: int
    contact_age_us: int | None = None
    unsent_age_us: int | None = None
    # What KRA's clock showed at the last contact (its resultDt), microseconds UTC.
    kra_us: int | None = None
    # The wall clock stands behind a mark that an earlier boot has set: so much was counted since that
    # mark. The time the machine was off is still missing from it. None: nothing is missing.
    counted_us: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """From settings; microseconds. `readings` = (A on, B on)."""

    limit_us: int = 24 * HOUR_US
    online_us: int = 600_000_000
    last_contact: bool = True
    oldest_unsent: bool = True
    warn_percent: tuple[int, ...] = (75, 90, 98)
    # How far the wall clock may stand from KRA's.
    clock_apart_us: int = CLOCK_APART_US


@dataclass(frozen=True, slots=True)
class CeilingView:
    """What the ceiling says at one moment. `left_us` is 0 when suspended, None in a clock fault
    and before the first contact."""

    state: CeilingState
    left_us: int | None
    used_percent: int | None
    warn_step: int | None
    rules: str | None
    contact_age_us: int | None
    unsent_age_us: int | None
    limit_us: int

    @property
    def blocks(self) -> bool:
        return self.state in BLOCKING


def first_checkpoint(reading: ClockReading) -> Checkpoint:
    """Return the state of a gateway that has never reached KRA: nothing is signed until it has."""
    return Checkpoint(reading, high_water_us=reading.wall_us)


def advance(at: Checkpoint, now: ClockReading) -> Checkpoint:
    """The same stopwatches, later. Ages never fall; the high-water mark never falls."""
    since_mark_us = now.wall_us - max(at.reading.wall_us, at.high_water_us)
    counted_us = at.counted_us
    if now.boot_id == at.reading.boot_id:
        elapsed_us = max(0, (now.boottime_ns - at.reading.boottime_ns) // 1000)
        # The rest of a microsecond is carried on: asked a hundred times a second, it would be
        # seconds by the end of the day.
        carried_ns = at.reading.boottime_ns + elapsed_us * 1000
        now = replace(now, boottime_ns=min(carried_ns, now.boottime_ns))
    else:
        # Time since boot is certain, so it is the least that went by.
        elapsed_us = now.boottime_ns // 1000
        counted_us = counted_us or 0
    if counted_us is not None and since_mark_us >= 0:
        # Time while the machine was off is known from the wall clock alone: at once, or, where the
        # clock's battery is flat, when somebody sets it.
        elapsed_us = max(elapsed_us, since_mark_us - counted_us)
        counted_us = None
    elif counted_us is not None:
        counted_us += elapsed_us
    return Checkpoint(
        now,
        high_water_us=max(at.high_water_us, now.wall_us),
        contact_age_us=None if at.contact_age_us is None else at.contact_age_us + elapsed_us,
        unsent_age_us=None if at.unsent_age_us is None else at.unsent_age_us + elapsed_us,
        kra_us=at.kra_us,
        counted_us=counted_us,
    )


def contacted(
    at: Checkpoint, *, kra_us: int | None = None, apart_us: int = CLOCK_APART_US
) -> Checkpoint:
    """KRA answered, and its clock showed `kra_us`. What was signed before is taken as uploaded: a unit
    that reaches KRA retransmits by itself (etims.md 7.3). Where KRA's clock agrees with ours, a
    high-water mark that is ahead was the lie."""
    agrees = kra_us is not None and abs(at.reading.wall_us - kra_us) <= apart_us
    high_water_us = at.reading.wall_us if agrees else at.high_water_us
    return replace(
        at,
        contact_age_us=0,
        unsent_age_us=None,
        high_water_us=high_water_us,
        kra_us=kra_us,
        # What is missing was before this contact.
        counted_us=None,
    )


def kra_now_us(at: Checkpoint) -> int | None:
    """What KRA's clock shows by now, as far as is known: its last stamp and the time since."""
    if at.kra_us is None or at.contact_age_us is None:
        return None
    return at.kra_us + at.contact_age_us


def signed(at: Checkpoint) -> Checkpoint:
    """A receipt was signed; reading B's stopwatch starts unless an older receipt started it."""
    return at if at.unsent_age_us is not None else replace(at, unsent_age_us=0)


def clock_is_behind(at: Checkpoint) -> bool:
    """The wall clock stands before a moment it has already shown."""
    return at.reading.wall_us < at.high_water_us - STEP_BACK_TOLERANCE_US


def clock_is_apart(at: Checkpoint, limits: Limits) -> bool:
    """The wall clock and KRA's differ by more than the limit, either way."""
    kra_us = kra_now_us(at)
    return kra_us is not None and abs(at.reading.wall_us - kra_us) > limits.clock_apart_us


def ceiling(at: Checkpoint, limits: Limits) -> CeilingView:
    """The verdict at the checkpoint's own moment. At exactly the limit nothing more is signed."""
    ages: list[tuple[int, str]] = []
    if limits.last_contact:
        ages.append((limits.limit_us if at.contact_age_us is None else at.contact_age_us, "A"))
    if limits.oldest_unsent and at.unsent_age_us is not None:
        ages.append((at.unsent_age_us, "B"))
    age_us, rules = max(ages, default=(0, "B"))
    never = limits.last_contact and at.contact_age_us is None
    left_us = max(0, limits.limit_us - age_us)
    used = min(100, age_us * 100 // limits.limit_us)
    step = max(
        (s for s in limits.warn_percent if age_us * 100 >= limits.limit_us * s), default=None
    )
    if clock_is_behind(at) or clock_is_apart(at, limits):
        state = CeilingState.CLOCK_FAULT
    elif never:
        state = CeilingState.NOT_SET_UP
    elif left_us == 0:
        state = CeilingState.SUSPENDED
    elif step is not None:
        state = CeilingState.WARNING
    elif at.contact_age_us is not None and at.contact_age_us <= limits.online_us:
        state = CeilingState.ONLINE
    else:
        state = CeilingState.OFFLINE
    fault = state in (CeilingState.CLOCK_FAULT, CeilingState.NOT_SET_UP)
    return CeilingView(
        state=state,
        left_us=None if fault else left_us,
        used_percent=None if fault else used,
        warn_step=None if never else step,
        rules=None if never else rules,
        contact_age_us=at.contact_age_us,
        unsent_age_us=at.unsent_age_us,
        limit_us=limits.limit_us,
    )
