"""What an unclean stop left, said in one line: "power failed 14:03; 3 sales in hand: 2 completed, ..."

In hand is what may have been under way at the moment of the end: the sale at the unit, those claimed
and not signed yet, and those signed in the last seconds, whose tills may not have heard it. The line
is made anew each time it is asked for, because the resolver may still be at work.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from gateway.clock import EAT, from_micros, iso
from gateway.domain.signing import SigningState
from gateway.store import continuity, invoices, meta

RUNNING_KEY = meta.RUNNING
# A till that heard nothing within this time before the end has not been answered. Microseconds.
UNHEARD_US = 2_000_000


@dataclass(frozen=True, slots=True)
class UncleanStop:
    """`at_us`: the last sign of life. `power`: the machine went down with it."""

    at_us: int
    power: bool
    in_hand: tuple[str, ...]
    prints: int


def take_stock(
    conn: sqlite3.Connection, *, boot_id: str, waiting_us: int, prints: int, at: int
) -> UncleanStop | None:
    """Look once, before anything is signed; None after a clean stop or at the very first start.

    `waiting_us`: how long a till waits for its answer; older claims had their "not signed".
    """
    running = meta.get(conn, RUNNING_KEY)
    meta.put(conn, RUNNING_KEY, str(at))
    if not running:
        return None
    checkpoint = continuity.load(conn)
    last = invoices.last_change(conn, before=at)
    alive = [int(running), last or 0]
    if checkpoint is not None:
        alive.append(checkpoint.reading.wall_us)
    end = max(moment for moment in alive if moment <= at) if min(alive) <= at else at
    ids = invoices.under_way(conn, claimed_since=end - waiting_us, signed_since=end - UNHEARD_US)
    power = checkpoint is not None and checkpoint.reading.boot_id != boot_id
    return UncleanStop(end, power, tuple(ids), prints)


def describe(conn: sqlite3.Connection, stop: UncleanStop) -> dict[str, Any]:
    """The report as it stands now, with `text` for people."""
    states = [row.state for id_ in stop.in_hand if (row := invoices.by_id(conn, id_)) is not None]
    doubt = sum(state in (SigningState.IN_DOUBT, SigningState.SIGNING) for state in states)
    waiting = sum(state is SigningState.RECEIVED for state in states)
    done = len(states) - doubt - waiting
    when = from_micros(stop.at_us).astimezone(EAT)
    what = "power failed" if stop.power else "the gateway ended without a stop"
    sales = "1 sale" if len(states) == 1 else f"{len(states)} sales"
    text = f"{what} {when:%H:%M}; {sales} in hand"
    if states:
        text += f": {done} completed, {waiting} not signed, {doubt} in doubt"
    if stop.prints:
        text += f"; {stop.prints} slips may be half printed"
    return {
        "unclean": True,
        "at": iso(when),
        "power": stop.power,
        "inHand": len(states),
        "completed": done,
        "notSigned": waiting,
        "inDoubt": doubt,
        "printsOpen": stop.prints,
        "text": text,
    }
