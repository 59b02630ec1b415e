"""Each rule of an operator's decision as a table: which fact, about which sending, allows what."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from gateway.clock import EAT, compact, micros
from gateway.domain.outcome import SignedData
from gateway.domain.signing import SigningState
from gateway.fiscal import ahead_rules, decision_rules
from gateway.fiscal.ahead_rules import Hold, Known, Seen
from gateway.fiscal.contradiction import contradicts_counter, contradicts_reader
from gateway.fiscal.decision_rules import LastOnPortal, PortalReceipt, Stated
from gateway.fiscal.identity import StoredSale
from gateway.fiscal.unit_rest import Moment, UnitRest, UnitWork, rest, rest_of_all, upload
from gateway.store.invoices import InvoiceRow
from gateway.store.marker import Mark
from gateway.store.receipts import ReceiptRow
from tests.support.clock import FakeClock
from tests.support.decisions import Link

S = 1_000_000_000
SOLD = datetime(2026, 11, 23, 10, 0, 10, tzinfo=EAT)
ROW = InvoiceRow(
    seq=2, id="I", till_id="till-1", idem_key="k", body_digest="d", label="NS", original_id=None,
    till_receipt_no="P2", total_cents=29700, document=b"{}", printer=None,
    state=SigningState.IN_DOUBT, invc_no=11, unit_request=b"x", attempts=1, answer_status=None,
    answer=None, created_at=micros(SOLD), updated_at=micros(SOLD), unit_life="now",
    last_sent_boot_id="boot", last_sent_boot_ns=1000 * S,
)  # fmt: skip
IN = UnitWork(at_work_s=90, bounded=True, forgets=True, unit_life="now")
EXTERNAL = UnitWork(at_work_s=90, bounded=True, forgets=True)
EXTERNAL_ROW = replace(ROW, unit_life=None)
AT = Moment("boot", now_ns=2000 * S, started_ns=500 * S)


@pytest.mark.parametrize(
    ("row", "work", "at", "from_s"),
    [
        pytest.param(ROW, IN, AT, 1090, id="sent to the present run"),
        pytest.param(replace(ROW, unit_life="before"), IN, AT, 500, id="that run has ended"),
        pytest.param(
            replace(ROW, unit_life="before"), replace(IN, forgets=False), AT, 590,
            id="and the unit remembers what it had accepted",
        ),
        pytest.param(replace(ROW, unit_life=None), IN, AT, 1090, id="run not recorded"),
        pytest.param(ROW, replace(IN, bounded=False), AT, None, id="no bound: a restart"),
        pytest.param(
            replace(ROW, unit_life="before"), replace(IN, bounded=False), AT, 500,
            id="no bound, after a restart",
        ),
        pytest.param(EXTERNAL_ROW, EXTERNAL, AT, 1090, id="external"),
        pytest.param(
            replace(EXTERNAL_ROW, last_sent_boot_id="other"), EXTERNAL, AT, 590,
            id="external, sent in an earlier boot",
        ),
        pytest.param(
            replace(EXTERNAL_ROW, last_sent_boot_id=None, last_sent_boot_ns=None), EXTERNAL, AT,
            590, id="external, sent by an older version",
        ),
        pytest.param(EXTERNAL_ROW, replace(EXTERNAL, bounded=False), AT, None, id="external, no bound"),
        pytest.param(
            EXTERNAL_ROW, replace(EXTERNAL, bounded=False), replace(AT, restart_ns=1500 * S), 1500,
            id="external, seen down since",
        ),
        pytest.param(
            EXTERNAL_ROW, replace(EXTERNAL, bounded=False), replace(AT, restart_ns=1030 * S), None,
            id="external, seen down while the bytes may not have left yet",
        ),
        pytest.param(
            EXTERNAL_ROW, replace(EXTERNAL, bounded=False), replace(AT, restart_ns=900 * S), None,
            id="external, seen down before",
        ),
    ],
)  # fmt: skip
def test_rest(row: InvoiceRow, work: UnitWork, at: Moment, from_s: int | None) -> None:
    """V5: when no sending can be signed any more; the wall clock is no part of it."""
    found = rest(row, work, at)
    assert found == (None if from_s is None else from_s * S)


@pytest.mark.parametrize(
    ("open_row", "held_s", "work", "restart_s", "from_s"),
    [
        (None, None, IN, None, 500),
        (None, None, EXTERNAL, None, 590),
        (None, None, replace(EXTERNAL, bounded=False), None, None),
        (None, None, replace(EXTERNAL, bounded=False), 700, 700),
        (ROW, None, IN, None, 1090),
        (EXTERNAL_ROW, None, EXTERNAL, None, 1090),
        (None, 1800, IN, None, 1890),
        (ROW, 1800, replace(IN, bounded=False), None, None),
    ],
)
def test_rest_of_all(
    open_row: InvoiceRow | None,
    held_s: int | None,
    work: UnitWork,
    restart_s: int | None,
    from_s: int | None,
) -> None:
    """V11: the numbering decision waits for everything that may still be signed."""
    at = replace(AT, restart_ns=None if restart_s is None else restart_s * S)
    held_ns = None if held_s is None else held_s * S
    found = rest_of_all(open_row, held_ns, work, at)
    assert found == (None if from_s is None else from_s * S)


@pytest.mark.parametrize(
    ("contact_s", "since_s", "allowed"),
    [
        pytest.param(None, None, False, id="never"),
        pytest.param(1089, 600, False, id="before the end of the work"),
        pytest.param(1090, 600, False, id="the unit may still be sending"),
        pytest.param(1149, 600, False, id="a second too early"),
        pytest.param(1150, 600, True, id="it has had its time"),
        pytest.param(1500, 1441, False, id="KRA is reached again only now"),
        pytest.param(1501, 1441, True, id="and has been for the time"),
        pytest.param(1500, None, False, id="the last contact failed"),
    ],
)
def test_upload(contact_s: int | None, since_s: int | None, allowed: bool) -> None:
    """V4 and A9: a contact that began before the unit's work was over proves nothing, and neither does one that
    began before the unit has sent what it had."""
    at = replace(
        AT,
        contact_ns=None if contact_s is None else contact_s * S,
        since_ns=None if since_s is None else since_s * S,
    )
    assert upload(1090 * S, replace(IN, upload_s=60), at) is allowed
    without = contact_s is not None and since_s is not None and contact_s >= 1090
    assert upload(1090 * S, IN, at) is without


async def test_not_signed_waits_until_the_unit_has_sent_what_it_has() -> None:
    clock = FakeClock()
    link = Link(clock)
    unit_rest = UnitRest(clock, replace(IN, at_work_s=5, upload_s=60), link)
    row = replace(ROW, last_sent_boot_id=clock.boot_id(), last_sent_boot_ns=clock.boottime_ns())
    clock.pass_time(seconds=6)
    await link.contact_after(0, 0)
    (early,) = await unit_rest.ask_kra(unit_rest.of(row))
    assert early.code == "TOO_SOON"
    assert "sending receipts to KRA" in early.message
    clock.pass_time(seconds=60)
    # Only a contact after that shows that KRA was reached all the time.
    assert [each.code for each in unit_rest.of(row)] == ["KRA_NOT_REACHED"]
    assert [each.code for each in await unit_rest.ask_kra(unit_rest.of(row))] == ["LOOK_AGAIN"]
    assert unit_rest.of(row) == []


async def test_a_contact_that_the_decision_itself_causes_asks_for_another_look() -> None:
    clock = FakeClock()
    link = Link(clock, answers=False)
    unit_rest = UnitRest(clock, replace(IN, at_work_s=5), link)
    row = replace(ROW, last_sent_boot_id=clock.boot_id(), last_sent_boot_ns=clock.boottime_ns())
    assert [each.code for each in unit_rest.of(row)] == ["TOO_SOON"]
    assert [each.code for each in await unit_rest.ask_kra(unit_rest.of(row))] == ["TOO_SOON"]
    clock.pass_time(seconds=6)
    assert [each.code for each in await unit_rest.ask_kra(unit_rest.of(row))] == ["KRA_NOT_REACHED"]
    link.answers = True
    assert [each.code for each in await unit_rest.ask_kra(unit_rest.of(row))] == ["LOOK_AGAIN"]
    assert unit_rest.of(row) == []


def own(number: int, *, total: int = 29700, time: datetime = SOLD, **more: object) -> ReceiptRow:
    values: dict[str, object] = {
        "seq": number, "invoice_id": f"I{number}", "label": "NS", "invc_no": number,
        "rcpt_no": number, "tot_rcpt_no": number, "sdc_id": "KRACU0300000001", "mrc_no": None,
        "intrl_data": "I", "rcpt_sign": f"S{number}", "scu_time": compact(time),
        "total_cents": total, "how": "ANSWER", "signed_at": 0, "previous": "", "hash": "",
    }  # fmt: skip
    return ReceiptRow(**{**values, **more})  # type: ignore[arg-type]


LAST = LastOnPortal(10, Decimal("297.00"), SOLD)


@pytest.mark.parametrize(
    ("receipts", "last", "expected"),
    [
        pytest.param([own(10)], LAST, [], id="ours"),
        pytest.param([own(10)], replace(LAST, time=SOLD.replace(second=0)), [], id="to the minute"),
        pytest.param(
            [own(10)], replace(LAST, time=SOLD - timedelta(seconds=1)), ["TIME_DIFFERS"],
            id="another second",
        ),
        pytest.param([own(10)], replace(LAST, total=Decimal("1.00")), ["TOTAL_DIFFERS"], id="total"),
        pytest.param(
            [own(10)], LastOnPortal(10), ["TOTAL_DIFFERS", "TIME_DIFFERS"], id="nothing but a number"
        ),
        pytest.param([], LastOnPortal(0), [], id="the first sale of a shop"),
        pytest.param([own(10)], LastOnPortal(0), ["PORTAL_BEHIND"], id="not on the portal yet"),
        pytest.param([own(10)], replace(LAST, number=9), ["PORTAL_BEHIND"], id="an earlier one"),
        pytest.param([own(8)], LAST, [], id="a number that was given up, or used before this store"),
        pytest.param([], LAST, [], id="used before this store"),
        pytest.param([own(10)], replace(LAST, number=11), ["PORTAL_SHOWS_THIS_SALE"], id="this sale"),
        pytest.param(
            [own(10)], replace(LAST, number=11, total=Decimal("5.00")), ["PORTAL_SHOWS_ANOTHER_SALE"],
            id="another one in its place",
        ),
        pytest.param([own(10)], replace(LAST, number=12), ["PORTAL_SHOWS_ANOTHER_SALE"], id="beyond"),
        # The portal may show the unit's own number. It may also be this sale's.
        pytest.param([own(10, rcpt_no=7)], replace(LAST, number=7), [], id="the unit's number"),
        pytest.param(
            [own(10, rcpt_no=7)], replace(LAST, number=7, time=SOLD.replace(second=0)),
            ["PORTAL_BEHIND"], id="the unit's number, to the minute only",
        ),
        pytest.param(
            [own(10, tot_rcpt_no=11)], replace(LAST, number=11), ["PORTAL_SHOWS_THIS_SALE"],
            id="the unit's number that is this sale's as well",
        ),
        # Training receipts may be missing on the portal.
        pytest.param([own(10, label="TS"), own(9)], replace(LAST, number=9), [], id="before a training sale"),
        pytest.param([own(10, label="TS"), own(9)], LAST, [], id="the training sale"),
        pytest.param([own(10, total=-29700, label="NC")], LAST, [], id="a credit note"),
    ],
)  # fmt: skip
def test_portal_agrees(receipts: list[ReceiptRow], last: LastOnPortal, expected: list[str]) -> None:
    """N6, V7, V7b: only our own newest receipt shows that nothing was signed after it."""
    found = decision_rules.portal_agrees(ROW, receipts, last)
    assert [each.code for each in found] == expected


@pytest.mark.parametrize(
    ("searched", "confirmed", "expected"),
    [
        (True, True, []),
        (False, True, ["SEARCH_MISSING"]),
        (True, False, ["CONFIRMATION_MISSING"]),
        (False, False, ["SEARCH_MISSING", "CONFIRMATION_MISSING"]),
    ],
)
def test_search(searched: bool, confirmed: bool, expected: list[str]) -> None:
    stated = Stated("a reason", LAST, searched, confirmed)
    asked = (decision_rules.search(stated, ROW), decision_rules.confirmation(stated, ROW))
    assert [each.code for each in asked if each is not None] == expected


ENTERED = PortalReceipt(11, 11, "S" * 16, "", SOLD, Decimal("297.00"))


@pytest.mark.parametrize(
    ("counted", "stored", "entered", "contradicts"),
    [
        (10, 10, None, False),
        (11, 10, None, True),
        (13, 10, None, True),
        (9, 10, None, False),
        (11, 10, ENTERED, False),
        (10, 10, ENTERED, True),
    ],
)
def test_contra_counter(
    counted: int, stored: int, entered: PortalReceipt | None, contradicts: bool
) -> None:
    """V6: a counter above our last receipt excludes "not signed"."""
    assert (contradicts_counter(counted, stored, entered) is not None) is contradicts


@pytest.mark.parametrize(
    ("entered", "sign", "contradicts"),
    [
        (None, "S" * 16, True),
        (ENTERED, "S" * 16, False),
        (ENTERED, "SSSS-SSSS-SSSS-SSSS", False),
        (ENTERED, "T" * 16, True),
    ],
)
def test_contra_reader(entered: PortalReceipt | None, sign: str, contradicts: bool) -> None:
    """V6: whatever the unit shows under the number excludes "not signed", and another receipt "signed"."""
    found = StoredSale(SignedData(11, 11, "", sign, SOLD, None, None), 29700, None, None, b"", {})
    assert (contradicts_reader(11, found, entered) is not None) is contradicts


@pytest.mark.parametrize(
    ("duplicate", "said", "expected"),
    [
        (False, None, []),
        (True, None, ["DUPLICATE_SEEN"]),
        (False, "it has it", ["CONTRADICTED"]),
        (True, "it has it", ["DUPLICATE_SEEN", "CONTRADICTED"]),
    ],
)
def test_contra(duplicate: bool, said: str | None, expected: list[str]) -> None:
    assert [each.code for each in decision_rules.contra(duplicate, said)] == expected


KNOWN = Known(
    next_invc_no=11, last_counter=10, open_row=None, restored=None, unit_restored=False, lost=None,
    store_id="this", took_over=None, hold=None, unclear=False,
)  # fmt: skip
COPY = replace(KNOWN, restored=str(micros(SOLD)))
OLD_UNIT = Hold("the unit was put back", complete=True)
PROVEN = Hold("sales are missing")
OTHER = Mark("another", 40)


@pytest.mark.parametrize(
    ("known", "mark", "seen", "at_rest", "expected"),
    [
        pytest.param(COPY, None, Seen(equal=True), True, True, id="nothing is missing"),
        pytest.param(COPY, None, Seen(equal=True), False, None, id="V11: a sending under way"),
        pytest.param(COPY, None, Seen(), True, False, id="the counter cannot be read"),
        pytest.param(
            replace(COPY, open_row=ROW), None, Seen(equal=True), True, False,
            id="V10: an open sale in the copy",
        ),
        pytest.param(
            replace(KNOWN, open_row=ROW), OTHER, Seen(equal=True), True, False,
            id="V10: an open sale in another store",
        ),
        pytest.param(
            replace(KNOWN, open_row=ROW, hold=OLD_UNIT), None, Seen(equal=True), True, True,
            id="an open sale, and only the unit was old",
        ),
        pytest.param(
            replace(COPY, unit_restored=True), None, Seen(equal=True), True, False,
            id="the unit was put back as well",
        ),
        pytest.param(KNOWN, OTHER, Seen(equal=True), True, True, id="a new installation"),
    ],
)  # fmt: skip
def test_agree(
    known: Known, mark: Mark | None, seen: Seen, at_rest: bool, expected: bool | None
) -> None:
    assert ahead_rules.agree(known, mark, seen, at_rest=at_rest) is expected


@pytest.mark.parametrize(
    ("known", "mark", "seen", "at_rest", "noticed", "held", "proven"),
    [
        pytest.param(KNOWN, None, Seen(), True, None, False, False, id="a shop like any other"),
        pytest.param(KNOWN, None, Seen(), True, "lost", True, True, id="the newest are lost"),
        pytest.param(KNOWN, None, Seen(equal=True), True, "lost", True, True, id="and the unit agrees"),
        pytest.param(COPY, None, Seen(), True, None, True, False, id="restored"),
        pytest.param(COPY, None, Seen(equal=True), True, None, False, False, id="restored, agrees"),
        pytest.param(COPY, None, Seen(equal=True), False, None, True, False, id="agrees later"),
        pytest.param(KNOWN, OTHER, Seen(), True, None, True, True, id="another store"),
        pytest.param(KNOWN, OTHER, Seen(equal=True), False, None, True, False, id="perhaps a new one"),
        pytest.param(
            replace(COPY, hold=PROVEN), None, Seen(equal=True), True, None, True, True,
            id="what was seen is not unseen",
        ),
        pytest.param(
            replace(COPY, open_row=ROW), None, Seen(equal=True), True, None, True, False, id="copyrow"
        ),
        pytest.param(
            replace(KNOWN, hold=OLD_UNIT), None, Seen(), True, None, True, False, id="the old unit"
        ),
        pytest.param(
            replace(COPY, hold=Hold("later", seen=False)), None, Seen(), True, None, True, False,
            id="restored, cannot be read any more",
        ),
    ],
)  # fmt: skip
def test_why_held(
    known: Known,
    mark: Mark | None,
    seen: Seen,
    at_rest: bool,
    noticed: str | None,
    held: bool,
    proven: bool,
) -> None:
    hold = ahead_rules.why_held(known, mark, seen, at_rest=at_rest, noticed=noticed)
    assert (hold is not None, hold is not None and hold.is_proven) == (held, proven)


@pytest.mark.parametrize(
    ("hold", "next_invc_no", "missing"),
    [
        pytest.param(None, 11, False, id="the number that is next anyway"),
        pytest.param(None, 12, True, id="V7: skips without a hold"),
        pytest.param(PROVEN, 11, True, id="sales were seen to be missing"),
        pytest.param(Hold("backup", seen=False), 11, False, id="nothing was sold since the backup"),
        pytest.param(Hold("backup", seen=False), 12, True, id="something was"),
        pytest.param(OLD_UNIT, 11, False, id="the unit was old"),
        pytest.param(
            OLD_UNIT, 12, True, id="the unit was old, and numbers are skipped all the same"
        ),
    ],
)
def test_skip(hold: Hold | None, next_invc_no: int, missing: bool) -> None:
    assert ahead_rules.is_missing(replace(KNOWN, hold=hold), next_invc_no) is missing


@pytest.mark.parametrize(
    ("hold", "next_invc_no", "silent", "confirmed", "asked"),
    [
        (None, 11, ["a"], [], False),
        (None, 12, ["a"], [], True),
        (PROVEN, 11, ["a", "b"], ["a"], True),
        (PROVEN, 11, ["a", "b"], ["b", "a", "c"], False),
        (PROVEN, 11, [], [], False),
        (Hold("backup", seen=False), 11, ["a"], [], True),
        (OLD_UNIT, 11, ["a"], [], False),
    ],
)
def test_drain(
    hold: Hold | None, next_invc_no: int, silent: list[str], confirmed: list[str], asked: bool
) -> None:
    """A7: after a loss, every till that has sent nothing is asked for."""
    found = ahead_rules.drain(replace(KNOWN, hold=hold), next_invc_no, silent, confirmed)
    assert (found is not None) is asked
