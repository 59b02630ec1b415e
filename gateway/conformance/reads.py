"""Probes of what the unit shows of its receipts: its read-back, its database, its counter (A8, A10)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.conformance.findings import Assumption, Findings
from gateway.conformance.trial import Sending, Trial
from gateway.domain.outcome import Signed
from gateway.vscu.client import StoredAnswer

# Between two looks while a sale is being signed. Seconds.
LOOK_EVERY_S = 0.02
# A number so far above the last one was never used.
UNUSED = 500

Read = Callable[[int], Awaitable[StoredAnswer | str | None]]
Count = Callable[[], Awaitable[int | str]]


@dataclass(frozen=True, slots=True)
class Shown:
    """The unit's sources by the names of their settings; `counter` None where none is configured."""

    readers: tuple[tuple[str, Read], ...]
    counter: Count | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """One look while a sale was signed, and how long its answer took."""

    stored: StoredAnswer | str | None
    took_s: float


async def usable(trial: Trial, found: Findings, shown: Shown) -> Shown:
    """Return the sources that answer; the build may have none."""
    number = next(iter(trial.account.receipts))
    readers = []
    for name, read in shown.readers:
        stored = await read(number)
        if isinstance(stored, str):
            found.not_shown(Assumption.A8, f"{name} gives no answer: {stored}")
        else:
            readers.append((name, read))
    return Shown(tuple(readers), shown.counter)


async def all_receipts(trial: Trial, found: Findings, shown: Shown, when: str) -> None:
    """Compare every receipt of the test with what the sources show."""
    for name, read in shown.readers:
        await _all_of(trial, found, name, read, when)
    if shown.counter is not None:
        await _counter(trial, found, shown.counter, when)


async def _all_of(trial: Trial, found: Findings, name: str, read: Read, when: str) -> None:
    for number, receipt in sorted(trial.account.receipts.items()):
        stored = await read(number)
        if isinstance(stored, str):
            found.not_shown(Assumption.A8, f"{name} gave no answer {when}: {stored}")
            return
        if stored is None:
            found.fails(
                Assumption.A8, f"{name} shows nothing for sale {number}, which was signed, {when}"
            )
            return
        if stored.data.rcpt_sign != receipt.data.rcpt_sign:
            found.fails(
                Assumption.A10,
                f"sale {number} was answered with receipt {receipt.data.tot_rcpt_no}, but {name} shows "
                f"receipt {stored.data.tot_rcpt_no}",
            )
            return
    unused = max(trial.account.receipts, default=0) + UNUSED
    if await read(unused) is not None:
        found.fails(Assumption.A8, f"{name} does not show nothing for {unused}, a number not used")
        return
    found.holds(Assumption.A8, f"{name} shows all {len(trial.account.receipts)} receipts {when}")


async def _counter(trial: Trial, found: Findings, count: Count, when: str) -> None:
    stands, last = await count(), trial.account.last
    if isinstance(stands, str):
        found.not_shown(Assumption.A8, f"the counter gave no answer {when}: {stands}")
    elif stands != last:
        found.fails(Assumption.A8, f"the counter stands at {stands} {when}, not at {last}")
    else:
        found.holds(Assumption.A8, f"the counter stands at the last receipt {when}")


async def while_signing(trial: Trial, found: Findings, shown: Shown, watch_s: float) -> None:
    """Look while a sale is being signed, and at once after its answer."""
    for name, read in shown.readers:
        number = trial.number()
        body = trial.body(number)
        looks: list[Look] = []
        sending = await _look_until_signed(trial, number, body, read, looks)
        trial.account.take(sending, trial.clock.now())
        if not isinstance(sending.outcome, Signed):
            found.not_shown(Assumption.A8, f"{name}: the sale to look at got no receipt")
            continue
        await _judge(trial, found, name, read, sending, looks, watch_s)


async def _look_until_signed(
    trial: Trial, number: int, body: bytes, read: Read, looks: list[Look]
) -> Sending:
    done = asyncio.Event()

    async def sell() -> Sending:
        try:
            return await trial.send(number, body)
        finally:
            done.set()

    async def watch() -> None:
        while not done.is_set():
            began = trial.clock.boottime_ns()
            stored = await read(number)
            looks.append(Look(stored, (trial.clock.boottime_ns() - began) / 1e9))
            await trial.clock.sleep(LOOK_EVERY_S)

    sending, _ = await asyncio.gather(sell(), watch())
    return sending


async def _judge(
    trial: Trial,
    found: Findings,
    name: str,
    read: Read,
    sending: Sending,
    looks: list[Look],
    watch_s: float,
) -> None:
    assert isinstance(sending.outcome, Signed)
    sign = sending.outcome.data.rcpt_sign
    during = [each.stored for each in looks if isinstance(each.stored, StoredAnswer)]
    if any(each.data.rcpt_sign != sign for each in during):
        found.fails(Assumption.A8, f"{name} showed another receipt while the sale was signed")
        return
    silent = sum(isinstance(each.stored, str) for each in looks)
    waits = max((each.took_s for each in looks), default=0.0) > sending.took_s / 2
    said = f"{'it waits' if waits else 'it does not wait'} for a sale that is being signed"
    said += f" ({silent} looks without an answer)" if silent else ""
    began = trial.clock.boottime_ns()
    stored = await read(sending.number)
    if isinstance(stored, StoredAnswer) and stored.data.rcpt_sign == sign:
        found.holds(Assumption.A8, f"{name}: {said}; the receipt is shown at once after its answer")
        return
    while (trial.clock.boottime_ns() - began) / 1e9 < watch_s:
        stored = await read(sending.number)
        if isinstance(stored, StoredAnswer):
            break
        await trial.clock.sleep(LOOK_EVERY_S)
    late_s = (trial.clock.boottime_ns() - began) / 1e9
    if isinstance(stored, StoredAnswer):
        found.fails(Assumption.A8, f"{name} shows a receipt only {late_s:.1f} s after its answer")
    else:
        found.fails(Assumption.A8, f"{name} does not show a signed sale within {watch_s:g} s")
