"""Probes of the conformance test: each sends sandbox sales and records what they show.

Repeated numbers (A1), refusals (A4), the account of all receipts (A2, A10), the time a sale takes (A5). What
a read-back shows is in `reads.py`, restarts are in `restarts.py`.
"""

from __future__ import annotations

import json

from gateway.conformance.findings import Assumption, Findings, Result
from gateway.conformance.trial import Moved, Sending, Trial, TrialFailed, describe
from gateway.domain.outcome import Duplicate, NotSent, Refused, Signed

# Sales one after the other before anything else is tried.
BASELINE = 4
# Requests at once, and how often that is tried. A fast unit has a small window, so it is tried more often.
AT_ONCE = 4
ROUNDS, ROUNDS_FAST = 3, 10
FAST_S = 0.2


async def baseline(trial: Trial, found: Findings) -> None:
    """Sign a few sales. TrialFailed when none gets a receipt."""
    await trial.first()
    for _ in range(BASELINE):
        moved = await trial.marker()
        if moved is None:
            raise TrialFailed(f"The unit stopped signing: {_last_words(trial)}.")
        if moved.unexplained:
            found.fails(
                Assumption.A2,
                f"the receipt counter moved by {moved.extra + 1} for one sale: something else signs with this unit",
            )
    found.holds(
        Assumption.A2,
        "the receipt counter moved by one for each sale; true for the time of the test only",
    )


def _last_words(trial: Trial) -> str:
    unsigned = trial.account.unsigned
    return describe(unsigned[-1].outcome) if unsigned else "it repeats an old receipt"


# --- A1: the same number again ----------------------------------------------------------------------------


async def same_number_later(trial: Trial, found: Findings) -> None:
    """Send a signed sale again, and another sale under its number."""
    first = await trial.signed()
    if first is None:
        found.not_shown(Assumption.A1, "no sale was signed whose number could be repeated")
        return
    again = await trial.send(first.number, first.body)
    other = await trial.send(first.number, trial.body(first.number, "232.00"))
    moved = await trial.marker()
    said = _words_of_repeat(first, again)
    for what, sending in (("the same sale", again), ("another sale", other)):
        if _is_new_receipt(first, sending):
            found.fails(
                Assumption.A1,
                f"{what} under a used number got a second receipt ({describe(sending.outcome)})",
            )
    _count(found, moved, "a used number sent again", f"one after the other: {said}")
    if isinstance(other.outcome, Signed) and not _is_new_receipt(first, other):
        found.holds(
            Assumption.A2,
            "note: another sale under a used number is answered with the stored receipt, so a second writer's "
            "receipts would be taken for this shop's",
        )


def _words_of_repeat(first: Sending, again: Sending) -> str:
    if isinstance(again.outcome, Signed):
        return "a second receipt" if _is_new_receipt(first, again) else "the stored receipt again"
    return describe(again.outcome)


def _is_new_receipt(first: Sending, other: Sending) -> bool:
    return (
        isinstance(first.outcome, Signed)
        and isinstance(other.outcome, Signed)
        and other.outcome.data.rcpt_sign != first.outcome.data.rcpt_sign
    )


async def same_number_at_once(trial: Trial, found: Findings) -> None:
    """Send one sale several times at the same moment, and once more after its connection was cut off."""
    usual = trial.account.usual_s
    for _ in range(ROUNDS if usual >= FAST_S else ROUNDS_FAST):
        number = trial.number()
        body = trial.body(number)
        sendings = await trial.together(number, body, AT_ONCE)
        _judge_at_once(found, sendings, await trial.marker(), f"{AT_ONCE} requests at once")
        number = trial.number()
        body = trial.body(number)
        await trial.cut_off(number, body, usual / 3)
        again = await trial.send(number, body)
        # One receipt is due, whichever of the two requests it was for.
        _judge_at_once(found, [again], await trial.marker(), "sent again after a cut-off")
        if found.result(Assumption.A1) is Result.FAILS:
            return


def _judge_at_once(
    found: Findings, sendings: list[Sending], moved: Moved | None, what: str
) -> None:
    signs = {s.outcome.data.rcpt_sign for s in sendings if isinstance(s.outcome, Signed)}
    answers = ", ".join(sorted({_answer(each) for each in sendings}))
    if len(signs) > 1:
        found.fails(Assumption.A1, f"{what} got {len(signs)} receipts ({answers})")
        return
    if moved is None:
        found.not_shown(Assumption.A1, f"{what}: the sale after it got no receipt")
    elif moved.extra == 0:
        found.not_shown(Assumption.A1, f"{what}: nothing was signed ({answers})")
    elif moved.extra - len(moved.failed) > 1:
        found.fails(Assumption.A1, f"{what}: the unit signed {moved.extra} receipts ({answers})")
    elif moved.extra > 1:
        found.not_shown(
            Assumption.A1, f"{what}: {moved.extra} receipts, of which not all are accounted for"
        )
    else:
        found.holds(Assumption.A1, f"{what}: one receipt ({answers})")


def _answer(sending: Sending) -> str:
    return "a receipt" if isinstance(sending.outcome, Signed) else describe(sending.outcome)


def _count(found: Findings, moved: Moved | None, what: str, said: str) -> None:
    """Judge by the counter whether a repeated number was signed once more."""
    if moved is None:
        found.not_shown(Assumption.A1, f"{what}: the sale after it got no receipt ({said})")
    elif moved.unexplained:
        found.fails(
            Assumption.A1, f"{what}: the counter moved by {moved.extra} more than it may ({said})"
        )
    elif moved.extra:
        found.not_shown(Assumption.A1, f"{what}: not every receipt is accounted for ({said})")
    else:
        found.holds(Assumption.A1, f"{said}, and the counter did not move")


# --- A4: codes that come before anything is signed -------------------------------------------------------


async def refused_twice(trial: Trial, found: Findings) -> None:
    """Send a body that the unit must refuse twice, then a good sale under the same number."""
    number = trial.number()
    for name, body in _bad_bodies(trial.body(number)):
        first = await trial.send(number, body)
        if isinstance(first.outcome, Signed):
            # It takes that body, so the number is used.
            trial.account.take(first, trial.clock.now())
            number = trial.number()
            continue
        second = await trial.send(number, body)
        good = await trial.send(number, trial.body(number))
        moved = trial.account.take(good, trial.clock.now())
        said = f"without {name}: {describe(first.outcome)}, then {describe(second.outcome)}"
        if not isinstance(first.outcome, Refused):
            found.not_shown(Assumption.A4, f"{said}; that is not on unit.refused_codes")
        elif moved == 0:
            found.holds(
                Assumption.A4,
                f"{said}; nothing was signed, and a good sale took the same number",
            )
        elif moved is None:
            found.not_shown(
                Assumption.A4,
                f"{said}; then a good sale under the number got {describe(good.outcome)}",
            )
            await trial.marker()
        else:
            found.late_codes.add(first.code)
            found.fails(Assumption.A4, f"{said}; but the counter moved by {moved}")
        return
    found.not_shown(Assumption.A4, "the unit refused none of the bad sales")


def _bad_bodies(good: bytes) -> list[tuple[str, bytes]]:
    """Return the same sale without one field that every published build demands (etims.md 2.2)."""
    bodies = []
    for name in ("cfmDt", "salesTyCd", "itemList"):
        sale = json.loads(good)
        del sale[name]
        bodies.append((name, json.dumps(sale).encode()))
    return bodies


async def codes_after_signing(trial: Trial, found: Findings) -> None:
    """Ask again for every good sale that was answered with "not signed": the answer shows whether it was."""
    suspects = [
        each
        for each in trial.account.unsigned
        if isinstance(each.outcome, Refused) or (isinstance(each.outcome, NotSent) and each.code)
    ]
    trial.account.unsigned = []
    for each in suspects:
        again = await trial.send(each.number, each.body)
        moved = trial.account.take(again, trial.clock.now())
        if moved is not None:
            found.holds(Assumption.A4, f"code {each.code}: the sale had not been signed")
        elif isinstance(again.outcome, Duplicate | Signed):
            found.late_codes.add(each.code)
            found.fails(
                Assumption.A4,
                f"code {each.code} was the answer to a sale that the unit had signed; it is off the list now",
            )
        else:
            found.not_shown(
                Assumption.A4,
                f"code {each.code}: whether the sale was signed is not shown ({describe(again.outcome)})",
            )


# --- the account at the end ---------------------------------------------------------------------------------


async def account(trial: Trial, found: Findings, at_work_s: float) -> None:
    """Judge what all sales together show: answers of their own (A10) and the time they take (A5)."""
    book = trial.account
    for text in book.foreign:
        found.fails(Assumption.A10, text)
    count = len(book.receipts)
    found.holds(
        Assumption.A10, f"{count} answers carried a receipt of their own, above the one before"
    )
    longest = max(book.took_s, default=0.0)
    text = (
        f"the longest of {count} sales took {longest:.1f} s; a bound for all is the build's promise"
    )
    if longest > at_work_s:
        found.fails(Assumption.A5, f"{text}, and unit.at_work_s = {at_work_s:g} is too short")
    else:
        found.not_shown(Assumption.A5, text)
    found.receipts = count
