"""The ceiling over any story of clocks: no step of any clock gives time back, and at the limit nothing
more is signed."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.ceiling import (
    HOUR_US,
    CeilingState,
    Checkpoint,
    ClockReading,
    Limits,
    advance,
    ceiling,
    contacted,
    first_checkpoint,
    signed,
)

START = 1_700_000_000_000_000
LIMITS = Limits()


@dataclass(frozen=True)
class Step:
    """`real` microseconds go by; the wall clock shows them plus `skew`; perhaps over a reboot."""

    real: int
    skew: int = 0
    reboot: bool = False
    contact: bool = False
    sale: bool = False


STEPS = st.lists(
    st.builds(
        Step,
        real=st.integers(0, 30 * HOUR_US),
        skew=st.one_of(st.just(0), st.integers(-40 * HOUR_US, 40 * HOUR_US)),
        reboot=st.booleans(),
        contact=st.integers(0, 9).map(lambda n: n == 0),
        sale=st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@given(STEPS)
def test_a_machine_that_stays_on_counts_real_time_whatever_its_wall_clock(
    steps: list[Step],
) -> None:
    wall, boot_ns = START, 0
    at = contacted(first_checkpoint(ClockReading(wall, boot_ns, "boot")))
    age = 0
    for step in steps:
        wall += step.real + step.skew
        boot_ns += step.real * 1000
        age += step.real
        at = advance(at, ClockReading(wall, boot_ns, "boot"))
        assert at.contact_age_us == age
        if step.contact:
            at, age = contacted(at), 0
        view = ceiling(at, LIMITS)
        if age >= LIMITS.limit_us:
            assert view.state in (CeilingState.SUSPENDED, CeilingState.CLOCK_FAULT)
            assert view.blocks


@given(STEPS)
def test_no_step_gives_time_back(steps: list[Step]) -> None:
    wall, boot_ns, boot = START, 0, 0
    at = contacted(first_checkpoint(ClockReading(wall, boot_ns, "0")))
    for step in steps:
        wall += step.real + step.skew
        boot_ns = step.real * 500 if step.reboot else boot_ns + step.real * 1000
        boot += step.reboot
        before = at
        at = advance(at, ClockReading(wall, boot_ns, str(boot)))
        if step.sale:
            at = signed(at)
        assert at.high_water_us >= before.high_water_us
        assert (at.contact_age_us or 0) >= (before.contact_age_us or 0)
        assert before.unsent_age_us is None or (at.unsent_age_us or 0) >= before.unsent_age_us
        if before.contact_age_us is not None and before.contact_age_us >= LIMITS.limit_us:
            assert ceiling(at, LIMITS).blocks


@given(STEPS, st.sampled_from([(True, True), (True, False), (False, True)]))
def test_the_earlier_reading_wins(steps: list[Step], on: tuple[bool, bool]) -> None:
    limits = Limits(last_contact=on[0], oldest_unsent=on[1])
    boot_ns = 0
    at = contacted(first_checkpoint(ClockReading(START, 0, "b")))
    for step in steps:
        boot_ns += step.real * 1000
        at = advance(at, ClockReading(START + boot_ns // 1000, boot_ns, "b"))
        if step.contact:
            at = contacted(at)
        if step.sale:
            at = signed(at)
        view = ceiling(at, limits)
        ages = [at.contact_age_us if on[0] else None, at.unsent_age_us if on[1] else None]
        oldest = max((age for age in ages if age is not None), default=0)
        assert view.left_us == max(0, limits.limit_us - oldest)
        assert view.blocks == (oldest >= limits.limit_us)


def reading(after_us: int) -> ClockReading:
    return ClockReading(START + after_us, after_us * 1000, "b")


def at_age(age_us: int) -> Checkpoint:
    return advance(contacted(first_checkpoint(reading(0))), reading(age_us))


def test_the_last_microsecond_sells_and_the_next_does_not() -> None:
    assert not ceiling(at_age(24 * HOUR_US - 1), LIMITS).blocks
    assert ceiling(at_age(24 * HOUR_US), LIMITS).state is CeilingState.SUSPENDED


def test_states_and_warning_steps() -> None:
    states = {
        0: CeilingState.ONLINE,
        11 * 60_000_000: CeilingState.OFFLINE,
        18 * HOUR_US: CeilingState.WARNING,
        24 * HOUR_US: CeilingState.SUSPENDED,
    }
    for age, state in states.items():
        assert ceiling(at_age(age), LIMITS).state is state
    assert ceiling(at_age(18 * HOUR_US), LIMITS).warn_step == 75
    assert ceiling(at_age(22 * HOUR_US), LIMITS).warn_step == 90


def test_a_gateway_that_never_heard_kra_signs_nothing() -> None:
    view = ceiling(first_checkpoint(reading(0)), LIMITS)
    assert view.state is CeilingState.NOT_SET_UP
    assert view.blocks
    # There are no hours to speak of before the first contact.
    assert (view.left_us, view.used_percent, view.warn_step) == (None, None, None)


def test_a_clock_in_its_own_past_is_a_fault_and_heals() -> None:
    at = advance(at_age(HOUR_US), ClockReading(START - HOUR_US, 2 * HOUR_US * 1000, "b"))
    assert ceiling(at, LIMITS).state is CeilingState.CLOCK_FAULT
    healed = advance(at, ClockReading(START + 3 * HOUR_US, 3 * HOUR_US * 1000, "b"))
    assert ceiling(healed, LIMITS).state is CeilingState.OFFLINE


def test_a_flat_battery_does_not_hide_the_time_the_machine_was_off() -> None:
    """Off for ten hours, up at 1970, set right half an hour later: ten and a half hours went by."""
    off, later = 10 * HOUR_US, HOUR_US // 2
    before = at_age(20 * HOUR_US)
    dead = advance(before, ClockReading(1_000_000, 1_000_000_000, "c"))
    assert ceiling(dead, LIMITS).state is CeilingState.CLOCK_FAULT
    dead = advance(dead, ClockReading(later, later * 1000, "c"))
    assert dead.contact_age_us == 20 * HOUR_US + later
    right = advance(dead, ClockReading(START + 20 * HOUR_US + off + later, later * 1000, "c"))
    assert right.contact_age_us == 30 * HOUR_US + later
    assert ceiling(right, LIMITS).state is CeilingState.SUSPENDED
    # Once found it is not counted again.
    after = advance(right, ClockReading(right.reading.wall_us + 5, later * 1000 + 5000, "c"))
    assert after.contact_age_us == right.contact_age_us + 5
    # KRA heard meanwhile: what was before no longer matters.
    heard = advance(contacted(dead), ClockReading(right.reading.wall_us, later * 1000, "c"))
    assert heard.contact_age_us == 0


@given(st.integers(0, 40 * HOUR_US), st.integers(0, HOUR_US), st.integers(0, HOUR_US))
def test_off_and_up_with_a_wrong_clock_twice_is_counted_once(off: int, up: int, more: int) -> None:
    at = advance(at_age(HOUR_US), ClockReading(0, up * 1000, "c"))
    at = advance(at, ClockReading(0, more * 1000, "d"))
    real = off + up + more
    at = advance(at, ClockReading(START + HOUR_US + real, more * 1000, "d"))
    assert at.contact_age_us == HOUR_US + real


def test_a_clock_that_was_a_year_ahead_is_cured_by_kras_own_time() -> None:
    year = 365 * 24 * HOUR_US
    ahead = advance(at_age(0), ClockReading(START + year, 1000, "b"))
    right = advance(ahead, ClockReading(START + 1_000_000, 1_000_000_000, "b"))
    assert ceiling(right, LIMITS).state is CeilingState.CLOCK_FAULT
    assert ceiling(contacted(right), LIMITS).state is CeilingState.CLOCK_FAULT
    assert (
        ceiling(contacted(right, kra_us=right.reading.wall_us), LIMITS).state is CeilingState.ONLINE
    )


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=300))
def test_asking_often_gives_no_time_back(steps_ns: list[int]) -> None:
    """A thousand small looks are as long as one large one."""
    start = ClockReading(START, 0, "boot")
    often = contacted(first_checkpoint(start))
    once = often
    boot_ns = 0
    for step in steps_ns:
        boot_ns += step
        often = advance(often, ClockReading(START + boot_ns // 1000, boot_ns, "boot"))
    once = advance(once, ClockReading(START + boot_ns // 1000, boot_ns, "boot"))
    assert often.contact_age_us == once.contact_age_us
