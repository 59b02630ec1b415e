"""The product's own rules, asked with the model's plain values.

Answers are remembered, because the model asks the same again millions of times. A test that changes a rule
calls `forget`.
"""

from functools import cache

from gateway.domain.outcome import SignedData
from gateway.domain.signing import SigningState
from gateway.fiscal import ahead_rules, contradiction, decision_rules, rules, unit_rest
from gateway.fiscal.ahead_rules import Hold, Known, Seen
from gateway.fiscal.decision_rules import LastOnPortal, PortalReceipt, Stated
from gateway.fiscal.identity import StoredSale
from gateway.fiscal.rules import Circumstances, Fact, Verdict
from gateway.fiscal.unit_rest import Moment, UnitWork
from gateway.money import from_cents
from gateway.store.invoices import InvoiceRow
from gateway.store.marker import Mark
from gateway.store.receipts import ReceiptRow
from tests.support.invoices import at_noon

SECOND = 1_000_000_000
NOON = at_noon()
_ROW = {
    "seq": 1, "id": "I", "till_id": "t", "idem_key": "k", "body_digest": "d", "label": "NS",
    "original_id": None, "till_receipt_no": "P", "document": b"{}", "printer": None,
    "state": SigningState.IN_DOUBT, "unit_request": b"x", "attempts": 1, "answer_status": None,
    "answer": None, "created_at": 0, "updated_at": 0, "last_sent_boot_id": "boot",
    "last_sent_boot_ns": 1000 * SECOND,
}  # fmt: skip


def row(no: int, key: int = 0, life: str | None = "now") -> InvoiceRow:
    return InvoiceRow(**_ROW, total_cents=total(key), invc_no=no, unit_life=life)


def total(key: int) -> int:
    """Two tills' sales differ in their totals, and both from a second writer's."""
    return 100 * (key + 1)


@cache
def verdict(fact: Fact, first: bool = False, at_rest: bool = False, fresh: bool = True) -> Verdict:
    return rules.verdict(fact, Circumstances(first=first, at_rest=at_rest, fresh=fresh))


# --- a decision about one sale -----------------------------------------------------------------------------


@cache
def ends_by_restart_only(host: str, bounded: bool, live: bool) -> bool:
    """Return whether time alone never ends a sending of this sale, and no restart has ended it yet (rule `rest`)."""
    work = UnitWork(90, bounded=bounded, forgets=True, unit_life="now" if host == "in" else None)
    life = None if host != "in" else "now" if live else "before"
    restarted = host != "in" and not live
    at = Moment("boot", 9000 * SECOND, 500 * SECOND, None, 2000 * SECOND if restarted else None)
    return unit_rest.rest(row(1, life=life), work, at) is None


@cache
def contradicted(
    no: int, entered: int | None, shown: int | None, counted: int | None, last: int, dup: bool
) -> bool:
    """Return whether the unit contradicts a decision (rule `contra`). `entered`: the receipt of a SIGNED, by its
    counter; `shown`: what the read-back shows under the number; `counted`: the unit's counter."""
    receipt = None
    if entered is not None:
        receipt = PortalReceipt(entered, entered, f"S{entered}", "", NOON, from_cents(0))
    why = None
    if counted is not None:
        why = contradiction.contradicts_counter(counted, last, receipt)
    if why is None and shown is not None:
        data = SignedData(shown, shown, "", f"S{shown}", NOON, None, None)
        stored = StoredSale(data, 0, None, None, b"", {})
        why = contradiction.contradicts_reader(no, stored, receipt)
    return bool(decision_rules.contra(dup, why))


@cache
def is_held(hold: tuple[int, int] | None) -> bool:
    """Return whether a signing hold forbids to release a sale (rule `copyrow`)."""
    return decision_rules.copyrow(None if hold is None else "held") is not None


@cache
def demands_search() -> bool:
    """Return whether an operator who looked under the number only is sent back (rule `search`)."""
    last = LastOnPortal(0)
    return decision_rules.search(Stated("r", last, searched=False), row(1)) is not None


def own_receipt(no: int, key: int, counter: int) -> ReceiptRow:
    return ReceiptRow(
        seq=counter, invoice_id=f"I{counter}", label="NS", invc_no=no, rcpt_no=counter,
        tot_rcpt_no=counter, sdc_id="KRACU0300000001", mrc_no=None, intrl_data="",
        rcpt_sign=f"S{counter}", scu_time=f"202607071200{counter:02d}", total_cents=total(key),
        how="ANSWER", signed_at=0, previous="", hash="",
    )  # fmt: skip


@cache
def portal_refuses(no: int, key: int, own: tuple, newest: tuple | None) -> bool:
    """Return whether the portal's newest receipt forbids "not signed". `own`: ours as (number, key, counter)."""
    rows = [own_receipt(*each) for each in own]
    return bool(decision_rules.portal_agrees(row(no, key), rows, _last(newest)))


@cache
def is_another_sale(own: tuple, newest: tuple | None, contradicts: bool) -> bool:
    """Return whether the third choice is accepted for that receipt."""
    rows = [own_receipt(*each) for each in own]
    return not decision_rules.another_sale(rows, _last(newest), contradicted=contradicts)


def _last(newest: tuple | None) -> LastOnPortal:
    if newest is None:
        return LastOnPortal(0)
    no, key, counter = newest
    return LastOnPortal(no, from_cents(total(key)), NOON.replace(second=counter))


# --- store and unit ------------------------------------------------------------------------------------------


def _known(hold, rest, opened, next_no: int, last: int) -> Known:
    return Known(
        next_invc_no=next_no, last_counter=last, open_row=row(next_no) if opened else None,
        restored="0" if rest else None, unit_restored=False, lost=None, store_id="this",
        took_over=None, hold=_hold(hold), unclear=False,
    )  # fmt: skip


def _hold(hold) -> Hold | None:
    return None if hold is None else Hold("held", seen=bool(hold[0]), complete=bool(hold[1]))


def _mark(mark: int | None) -> Mark | None:
    return None if mark is None else Mark("this", mark)


@cache
def why_held(hold, rest, opened, next_no, last, mark, seen, equal, at_rest):
    """Return what store and unit come to at a start: (seen, complete), or None (rules `agree`, `copyrow`)."""
    known = _known(hold, rest, opened, next_no, last)
    found = ahead_rules.why_held(known, _mark(mark), Seen(_hold(seen), equal), at_rest=at_rest)
    return None if found is None else (int(found.seen), int(found.complete))


@cache
def least_next(next_no: int, mark: int | None) -> int:
    return ahead_rules.least_next(_known(None, 0, False, next_no, 0), _mark(mark))


@cache
def is_missing(hold, next_no: int, decided: int) -> bool:
    """Return whether sales are missing here after the numbering decision (rule `skip`)."""
    return ahead_rules.is_missing(_known(hold, 0, False, next_no, 0), decided)


@cache
def demands_tills(hold, next_no: int, decided: int) -> bool:
    """Return whether the numbering decision waits for a till that has sent nothing yet (rule `drain`)."""
    known = _known(hold, 0, False, next_no, 0)
    return ahead_rules.drain(known, decided, ["till-1"], []) is not None


def forget() -> None:
    """Ask the product again."""
    for each in list(globals().values()):
        if hasattr(each, "cache_clear"):
            each.cache_clear()
