"""When a payment is looked at: seconds after its push left (daraja.md 4.4).

Ages come from the clock that no hand can set; the wall clock counts only for what an earlier run left,
and then never for less than the step that was reached.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection

from gateway.clock import Clock, micros
from gateway.domain.payment import OPEN_PUSH, Money
from gateway.store.payments import PaymentRow

# While the customer stands there, then when the books are looked through.
STEPS_S = (20, 35, 50, 65, 90, 120, 180, 300, 900, 3600, 21_600, 86_400, 172_800)
FIRST_LOOK_US = STEPS_S[0] * 1_000_000
# From here on nothing is learnt any more: M-Pesa's own list goes no further back.
LAST_S = STEPS_S[-1]
# A refusal is asked about once more, when callback and books have had their time: a contradiction is an alarm.
AFTER_REFUSAL_S = 300


def age_s(row: PaymentRow, now_us: int) -> float:
    """How old the push is by the wall clock; at least the step that was reached, whatever was set."""
    reached = STEPS_S[min(row.checks, len(STEPS_S)) - 1] if row.checks else 0
    return max((now_us - (row.sent_at or row.created_at)) / 1e6, float(reached))


def askable(row: PaymentRow) -> bool:
    """Whether an STK query can say anything: M-Pesa has given the request a name, and it is not paid."""
    return row.checkout_request_id is not None and (
        row.money in OPEN_PUSH or row.money in (Money.UNKNOWN, Money.NOT_PAID)
    )


def step_after(age: float) -> int:
    """The number of the first step that is still to come at this age in seconds."""
    return bisect_right(STEPS_S, age)


def next_step(row: PaymentRow, age: float) -> int | None:
    """The step at which `row` is looked at next; None: never again by itself."""
    step = step_after(age)
    if row.money is Money.NOT_PAID:
        step = STEPS_S.index(AFTER_REFUSAL_S)
        return step if age < AFTER_REFUSAL_S and askable(row) else None
    if row.money not in OPEN_PUSH and row.money is not Money.UNKNOWN:
        return None
    # The last look is a person's: it is not skipped when the clock has run past it.
    last = len(STEPS_S) - 1
    return min(step, last) if step <= last or row.checks < last else None


class Ages:
    """How old each push is, by the clock that nobody sets from the moment it is first seen in this run."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left_ns: dict[str, int] = {}

    def sent(self, row: PaymentRow) -> None:
        """It has just left."""
        self._left_ns[row.id] = self._clock.boottime_ns()

    def of(self, row: PaymentRow) -> float:
        """Seconds."""
        now_ns = self._clock.boottime_ns()
        left_ns = self._left_ns.get(row.id)
        if left_ns is None:
            left_ns = now_ns - int(age_s(row, micros(self._clock.now())) * 1e9)
            self._left_ns[row.id] = left_ns
        return (now_ns - left_ns) / 1e9

    def keep(self, payment_ids: Collection[str]) -> None:
        """Forget all others."""
        for gone in self._left_ns.keys() - set(payment_ids):
            del self._left_ns[gone]
