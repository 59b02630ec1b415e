"""The rules by which store and control unit are known to agree or to disagree (evidence.md section 4).

Pure but for reading the store's own facts. `ahead.py` asks the unit and acts on the result.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.clock import EAT, from_micros
from gateway.errors import EmptyStore, FieldError, UnitAhead
from gateway.store import invoices, lost, meta, receipts, unclear_keys, unit
from gateway.store.invoices import InvoiceRow
from gateway.store.marker import Mark

# Kinds of hold, as the status shows them: store and unit disagree; the store has no sale of a used unit.
UNIT_AHEAD, EMPTY_STORE = UnitAhead.code, EmptyStore.code


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing is signed, in words. `seen`: something was found that this store lacks, it is not only known
    to be a backup. `complete`: the unit is the old copy, no sale is missing here."""

    reason: str
    seen: bool = True
    complete: bool = False
    state: str = UNIT_AHEAD

    @property
    def signed(self) -> str:
        """What is true of a sale that is sent now and is not here."""
        return "no" if self.complete else "unknown"

    @property
    def is_proven(self) -> bool:
        """Return whether sales are certainly missing here: no later look can end that."""
        return self.seen and not self.complete


@dataclass(frozen=True, slots=True)
class Known:
    """What this store knows of the unit's numbering."""

    next_invc_no: int
    last_counter: int
    open_row: InvoiceRow | None
    restored: str | None
    unit_restored: bool
    lost: lost.Signed | None
    store_id: str | None
    took_over: str | None
    hold: Hold | None
    unclear: bool

    @property
    def has_open_sale(self) -> bool:
        return self.open_row is not None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the unit showed: `hold`, what it has that this store lacks; `equal`, that its receipt counter stands
    at our last receipt."""

    hold: Hold | None = None
    equal: bool = False


def stored_hold(conn: sqlite3.Connection) -> Hold | None:
    stored = meta.get(conn, meta.HOLD)
    return None if stored is None else Hold(**json.loads(stored))


def read_known(conn: sqlite3.Connection) -> Known:
    return Known(
        next_invc_no=unit.next_invc_no(conn),
        last_counter=receipts.last_counter(conn),
        open_row=invoices.open_row(conn),
        restored=meta.get(conn, meta.RESTORED),
        unit_restored=meta.get(conn, meta.UNIT_RESTORED) is not None,
        lost=lost.signed(conn),
        store_id=meta.get(conn, meta.STORE_ID),
        took_over=meta.get(conn, meta.TOOK_OVER),
        hold=stored_hold(conn),
        unclear=unclear_keys.any_settled(conn),
    )


def is_copy(known: Known, mark: Mark | None) -> bool:
    """Return whether this store is a copy of itself, or another one than the unit's last, and unsettled."""
    return (
        known.restored is not None
        or known.lost is not None
        or other_store(known, mark) is not None
        or (known.hold is not None and not known.hold.complete)
    )


def agree(known: Known, mark: Mark | None, seen: Seen, *, at_rest: bool) -> bool | None:
    """Return whether the equal counter shows that nothing is missing here; None: only later.

    Not while a sending of the store before may still be signed, not while the copy has an open sale, because
    nobody knows what the lost store did with it, and not where the unit was put back together with the store.
    """
    if not seen.equal or known.unit_restored or known.lost is not None:
        return False
    if known.has_open_sale and is_copy(known, mark):
        return False
    return True if at_rest else None


def why_held(
    known: Known,
    mark: Mark | None,
    seen: Seen,
    *,
    at_rest: bool,
    noticed: str | None = None,
) -> Hold | None:
    """Return what all that is known comes to. Nothing that was once seen to be missing is unseen by a later look,
    and an old unit makes this store complete only where nothing shows that it is old itself. `noticed`: how
    it was noticed at the start that the newest transactions of this store are lost (rule `noticed`)."""
    if known.hold is not None and known.hold.is_proven:
        return known.hold
    if noticed is not None:
        return Hold(noticed)
    other = other_store(known, mark)
    if seen.hold is not None:
        old_too = known.restored is not None or other is not None or known.lost is not None
        return replace(seen.hold, complete=False) if old_too else seen.hold
    agreed = agree(known, mark, seen, at_rest=at_rest)
    if agreed:
        return None
    if agreed is None and (known.hold or other or known.restored is not None):
        return known.hold or Hold(
            "the control unit may still be signing what it was sent before this start; its counter is compared "
            "again as soon as that is over",
            seen=False,
        )
    if known.hold is not None and known.hold.complete:
        return known.hold
    if known.restored is not None:
        return restored(known)
    return other or known.hold


def other_store(known: Known, mark: Mark | None) -> Hold | None:
    """Return what the marker in the unit's folder shows: another store sold with this unit, or a later state of
    this one."""
    if mark is None or mark.store_id == known.took_over:
        return None
    if mark.store_id != known.store_id:
        return Hold(
            "the unit's folder says that another store sold with this unit until now, and this one does "
            "not have its sales: look whether its disk is there and store.directory is right"
        )
    used = known.next_invc_no - 1 + (1 if known.has_open_sale else 0)
    if mark.last_invc_no > used:
        return Hold(
            f"the unit's folder says that this store had come to invoice number {mark.last_invc_no}, and "
            f"now it knows of {used}: it is an older copy"
        )
    return None


def restored(known: Known) -> Hold:
    at = f"{from_micros(int(known.restored or 0)).astimezone(EAT):%d/%m/%Y %H:%M}"
    if known.lost is not None:
        more, last = known.lost.receipts, known.lost.last_invc_no
        return Hold(
            f"this store is a backup of {at}, and the store that it replaced had {more} "
            f"receipt{'' if more == 1 else 's'} more"
            + (f", up to invoice number {last}" if last is not None else "")
        )
    if known.unit_restored:
        reason = (
            f"this store and the unit's folder are backups, the store of {at}, and only KRA's portal "
            "shows what was signed since"
        )
    else:
        reason = (
            f"this store is a backup of {at}, and the unit cannot be asked what it has signed since"
        )
    return Hold(reason, seen=False)


def last_used(known: Known, mark: Mark | None) -> int:
    """Return the last number that is known to be used, by this store or by the one before it."""
    lost_to = None if known.lost is None else known.lost.last_invc_no
    marked = mark is not None and mark.store_id != known.took_over
    return max(lost_to or 0, mark.last_invc_no if mark is not None and marked else 0)


def least_next(known: Known, mark: Mark | None) -> int:
    """Return the lowest number that the next sale may have."""
    return max(known.next_invc_no, last_used(known, mark) + 1)


def skip(known: Known, next_invc_no: int) -> bool:
    """Return whether the decision skips numbers: sales are missing here, whether signing is held or not."""
    return next_invc_no > known.next_invc_no


def is_missing(known: Known, next_invc_no: int) -> bool:
    """Return whether sales are missing in this store, so that noted and claimed keys may be signed."""
    return skip(known, next_invc_no) or (known.hold is not None and known.hold.is_proven)


def drain(
    known: Known, next_invc_no: int, silent: Sequence[str], confirmed: Sequence[str]
) -> FieldError | None:
    """Demand that every till has sent what it has no answer for, before the decision after a loss: a key that
    comes first after it is not recognised (A7, V16). `silent`: tills that sent nothing since the start."""
    held = known.hold is not None and not known.hold.complete
    open_tills = [till for till in silent if till not in confirmed]
    if not (held or is_missing(known, next_invc_no)) or not open_tills:
        return None
    says = (
        f"These tills have sent no sale since the gateway started: {', '.join(open_tills)}. Let each send what it "
        "has no answer for. State for each of them that nothing is left on it."
    )
    return FieldError("/silentTills", "TILLS_SILENT", says)


def accounts_for_all(known: Known) -> bool:
    """Return whether a numbering decision accounts for every receipt that the unit has now.

    Not while a sale is open that stays open: one of the receipts may be its own. The open sale of a held
    store is quarantined by the decision.
    """
    return known.open_row is None or known.hold is not None
