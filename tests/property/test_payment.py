"""The two truths under any order of words and acts, and the database that has to agree with them."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import micros
from gateway.domain.payment import (
    Act,
    Alarm,
    Evidence,
    Money,
    PaymentState,
    Reason,
    Source,
    Tender,
    Verdict,
    acted,
    after,
    may,
)
from gateway.errors import IllegalTransition
from gateway.payments.ledger import Heard, Ledger
from gateway.store import invoices, migrate, payments, unit
from gateway.store.database import Database, open_database
from gateway.store.invoices import NewInvoice
from gateway.store.payments import NewPush, PaymentRow
from tests.support.clock import FakeClock

ASKED = 45_000
RECEIPT = "UKN0000001"
START = PaymentState(Money.NEW, Tender.OPEN, ASKED)
# Every paid shilling has an owner: the sale it is in, a person's list, or the customer again.
OWNED = {
    Tender.OPEN, Tender.REVIEW, Tender.COMPLETED_BY_MPESA, Tender.REFUND_DUE, Tender.REFUNDED, Tender.MERGED,
}  # fmt: skip

FAILURES = [Evidence(Source.CALLBACK, Verdict.NOT_PAID, "1", reason) for reason in Reason]
PAID_WORDS = [
    Evidence(Source.CALLBACK, Verdict.PAID, "0", receipt=RECEIPT, amount_cents=ASKED),
    Evidence(Source.CALLBACK, Verdict.PAID, "0", receipt=RECEIPT, amount_cents=ASKED - 100),
    Evidence(Source.QUERY, Verdict.PAID, "0"),
    Evidence(Source.C2B, Verdict.PAID, receipt=RECEIPT, amount_cents=ASKED),
    Evidence(Source.PULL, Verdict.PAID, receipt="UKN0000002", amount_cents=ASKED),
    Evidence(Source.CALLBACK, Verdict.PAID, "0", amount_cents=ASKED + 5_000),
]
OTHERS = [
    Evidence(Source.PUSH, Verdict.SENDING),
    Evidence(Source.PUSH, Verdict.ACCEPTED, checkout_request_id="ws_CO_1"),
    Evidence(Source.PUSH, Verdict.NOT_SENT, "429", Reason.NOT_SENT),
    Evidence(Source.PUSH, Verdict.NOT_SENT, "404", Reason.CONFIG),
    Evidence(Source.PUSH, Verdict.SEND_LOST),
    Evidence(Source.QUERY, Verdict.NO_INFO, "4999"),
    Evidence(Source.CLOCK, Verdict.DEADLINE),
    Evidence(Source.PULL, Verdict.NOT_FOUND),
    Evidence(Source.CLOCK, Verdict.NO_MORE),
    Evidence(Source.REVERSAL, Verdict.REFUNDED),
]
WORDS = [*FAILURES, *PAID_WORDS, *OTHERS]
# What the wire itself does comes in its own order and once; everything else in any.
ANY_TIME = [w for w in WORDS if w.verdict not in (Verdict.SENDING, Verdict.REFUNDED)]
ACTS = [act for act in Act if act is not Act.MERGED]
step = st.one_of(st.sampled_from(WORDS), st.sampled_from(ACTS))


def take(state: PaymentState, what: Evidence | Act) -> tuple[PaymentState, Alarm | None]:
    """One step; what cannot be done changes nothing."""
    try:
        change = after(state, what) if isinstance(what, Evidence) else acted(state, what)
    except IllegalTransition:
        return state, None
    return change.state, change.alarm


@given(st.lists(step, max_size=30))
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_paid_money_stays_paid_and_every_shilling_has_an_owner(steps: list[Evidence | Act]) -> None:
    state, accepted = START, False
    for what in steps:
        before = state
        state, alarm = take(state, what)
        accepted = accepted or (what is Act.AMOUNT_ACCEPTED and state != before)
        if before.money is Money.PAID:
            assert state.money in (Money.PAID, Money.REFUNDED)
        if before.money is Money.REFUNDED:
            assert state.money is Money.REFUNDED
        if state.money in (Money.PAID, Money.REFUNDED):
            assert state.tender in OWNED
            assert state.paid_by is not None
        else:
            assert state.tender in (Tender.OPEN, Tender.COMPLETED_OTHERWISE, Tender.ABANDONED)
        if state.money is Money.PAID and state.tender is Tender.OPEN and not accepted:
            assert state.came_cents == ASKED
        if before.receipt is not None:
            assert state.receipt == before.receipt
        if before.paid_cents is not None:
            assert state.paid_cents == before.paid_cents
        if state.tender is Tender.COMPLETED_BY_MPESA and before.tender is not state.tender:
            assert before.money is Money.PAID and what is Act.SALE_WITH_IT
        if state.tender is Tender.REFUND_DUE and before.tender is not state.tender:
            assert alarm is Alarm.LATE or isinstance(what, Act)


@given(st.lists(st.sampled_from(ANY_TIME), min_size=1, max_size=5), st.randoms())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_paid_or_not_does_not_depend_on_the_order_of_words(
    words: list[Evidence], random: Any
) -> None:
    sending, _ = take(START, OTHERS[0])
    shuffled = list(words)
    random.shuffle(shuffled)
    ends = []
    for order in (words, shuffled):
        state = sending
        for word in order:
            state, _ = take(state, word)
        ends.append(state)
    assert {end.money is Money.PAID for end in ends} == {
        any(word.verdict is Verdict.PAID for word in words)
    }


def test_a_failure_after_money_and_money_after_a_failure_are_alarms() -> None:
    for failure, paid in itertools.product(FAILURES, PAID_WORDS[:1]):
        sending, _ = take(START, OTHERS[0])
        failed, _ = take(sending, failure)
        state, alarm = take(failed, paid)
        assert (state.money, alarm) == (Money.PAID, Alarm.PAID_AFTER_FAILURE)
        state, alarm = take(state, failure)
        assert (state.money, alarm) == (Money.PAID, Alarm.FAILURE_AFTER_PAID)


# --- the database agrees --------------------------------------------------------------------------------


def reachable() -> list[PaymentState]:
    """Every state that words and acts lead to from an intent, breadth first."""
    seen, line = {START}, [START]
    while line:
        state = line.pop(0)
        for what in (*WORDS, *Act):
            following, _ = take(state, what)
            if following not in seen:
                seen.add(following)
                line.append(following)
    return sorted(seen, key=str)


STATES = reachable()


@pytest.fixture
def conn(tmp_path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(tmp_path / "db", isolation_level=None)
    migrate.migrate(connection, tmp_path / "db")
    connection.execute("PRAGMA foreign_keys = ON")
    _an_invoice(connection)
    return connection


def insert(conn: sqlite3.Connection, state: PaymentState, number: int) -> PaymentRow:
    """A row in this state, put there without asking the triggers of moves."""
    conn.execute(
        """INSERT INTO payment (id, kind, till_id, idem_key, body_digest, sale_ref, amount_cents, phone,
               account_ref, token_hash, money, tender, reason, receipt, paid_cents, paid_by, merged_into,
               invoice_id, created_at, updated_at)
           VALUES (?, 'STK', 't', ?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 1)""",
        (
            f"{number:026d}", str(number), str(number), state.amount_cents, str(number), str(number),
            f"{number:064d}", state.money, state.tender, state.reason, state.receipt, state.paid_cents,
            state.paid_by, f"{0:026d}" if state.tender is Tender.MERGED else None,
            "9" * 26 if state.tender is Tender.COMPLETED_BY_MPESA else None,
        ),
    )  # fmt: skip
    row = payments.by_id(conn, f"{number:026d}")
    assert row is not None
    return row


def test_every_move_of_the_machine_is_one_the_database_takes(conn: sqlite3.Connection) -> None:
    insert(conn, START, 0)
    moves = 0
    for state in STATES:
        for what in (*WORDS, *Act):
            following, _ = take(state, what)
            if following == state:
                continue
            fields: dict[str, Any] = {}
            if following.tender is Tender.MERGED:
                fields["merged_into"] = f"{0:026d}"
            if following.tender is Tender.COMPLETED_BY_MPESA:
                fields["invoice_id"] = "9" * 26
            conn.execute("BEGIN")
            row = insert(conn, state, 1)
            payments.change(conn, row, following, at=2, **fields)
            conn.execute("ROLLBACK")
            moves += 1
    assert moves > 300


def test_every_other_move_is_refused_by_the_database(conn: sqlite3.Connection) -> None:
    insert(conn, START, 0)
    allowed_money = {(a.money, take(a, w)[0].money) for a in STATES for w in (*WORDS, *Act)}
    allowed_tender = {(a.tender, take(a, w)[0].tender) for a in STATES for w in (*WORDS, *Act)}
    # The two words of one step: a payment that was given up is paid and is another's.
    for tender in (Tender.COMPLETED_OTHERWISE, Tender.ABANDONED):
        allowed_tender.add((tender, Tender.MERGED))
    refused = 0
    for state in STATES:
        for money in Money:
            if (state.money, money) not in allowed_money:
                refused += _refused(conn, state, "money", money)
        for tender in Tender:
            if (state.tender, tender) not in allowed_tender:
                refused += _refused(conn, state, "tender", tender)
    assert refused > 300


def _refused(conn: sqlite3.Connection, state: PaymentState, column: str, value: str) -> int:
    conn.execute("BEGIN")
    row = insert(conn, state, 1)
    try:
        with pytest.raises(sqlite3.IntegrityError):
            conn.execute(f"UPDATE payment SET {column} = ? WHERE id = ?", (value, row.id))
    finally:
        conn.execute("ROLLBACK")
    return 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE payment SET amount_cents = 1",
        "UPDATE payment SET phone = '254700000000'",
        "UPDATE payment SET token_hash = NULL",
        "UPDATE payment SET receipt = 'OTHER'",
        "UPDATE payment SET receipt = NULL",
        "UPDATE payment SET paid_cents = 1",
        "UPDATE payment SET account_ref = 'X'",
        "DELETE FROM payment",
    ],
)
def test_what_was_asked_and_what_was_told_never_change(
    conn: sqlite3.Connection, statement: str
) -> None:
    insert(conn, replace(STATES[0], money=Money.PAID, tender=Tender.OPEN, reason=None,
        receipt=RECEIPT, paid_cents=ASKED, paid_by=Source.CALLBACK), 1)  # fmt: skip
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute(statement)


# --- one shilling, one owner ------------------------------------------------------------------------------


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path) as opened:
        yield opened


def push(number: int, phone: str = "254712345678") -> NewPush:
    return NewPush(
        id=f"{number:026d}", till_id="till-1", idem_key=f"k{number}", body_digest="0" * 64,
        checkout_id=None, sale_ref=f"POS-{number}", amount_cents=ASKED, phone=phone,
        account_ref=f"R{number}", token_hash=f"{number:064d}", at=1,
    )  # fmt: skip


CALLBACK, QUERY, FOUND, GIVEN_UP, FAILED = "callback", "query", "found", "given up", "failed"
ORDERS = [
    order
    for size in (2, 3, 4)
    for order in itertools.permutations((CALLBACK, QUERY, FOUND, GIVEN_UP, FAILED), size)
    if CALLBACK in order or FOUND in order
]


@given(st.sampled_from(ORDERS), st.integers(0, 5), st.booleans())
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_one_shilling_has_one_owner_in_every_order_with_a_restart_between(
    tmp_path_factory: pytest.TempPathFactory, order: tuple[str, ...], restart_at: int, twice: bool
) -> None:
    folder = tmp_path_factory.mktemp("twins")
    clock = FakeClock()
    steps = [step for step in order for _ in range(2 if twice else 1)]
    at = 0
    while at < len(steps) or at == 0:
        # A new run of the gateway takes the store as it is.
        upto = restart_at if at < restart_at < len(steps) else len(steps)
        async with open_database(folder) as opened:
            ledger = Ledger(opened, clock)
            if at == 0:
                await opened.write(lambda conn: payments.insert_push(conn, push(1)))
                await ledger.hear(push(1).id, OTHERS[0])
            for step in steps[at:upto]:
                await _do(opened, ledger, clock, step)
            rows = await opened.read(lambda conn: payments.between(conn, 0, 2**62))
        at = upto
    heard = {CALLBACK, FOUND} & set(order)
    owners = [row for row in rows if row.receipt == RECEIPT and row.merged_into is None]
    assert len(owners) == (1 if heard else 0)
    loose = [row for row in rows if row.money is Money.PAID and row.tender is not Tender.MERGED]
    # C2B found before anybody could say that it is the push's: two rows until the callback comes.
    assert len(loose) == (1 if CALLBACK in order or QUERY not in order else 2)
    for row in rows:
        if row.tender is Tender.MERGED:
            assert row.merged_into == owners[0].id and row.receipt == RECEIPT


async def _do(db: Database, ledger: Ledger, clock: FakeClock, step: str) -> None:
    first = push(1).id
    match step:
        case "callback":
            await ledger.hear(first, PAID_WORDS[0])
        case "query":
            await ledger.hear(first, PAID_WORDS[2])
        case "failed":
            await ledger.hear(first, FAILURES[0])
        case "given up":
            row = await db.read(lambda conn: payments.by_id(conn, first))
            if row is not None and may(row.state, Act.GIVEN_UP):
                await ledger.act(first, Act.GIVEN_UP, "till-1")
        case _:
            await ledger.write(_found(ledger, clock))


def _found(ledger: Ledger, clock: FakeClock) -> Callable[[sqlite3.Connection], Heard]:
    def write(conn: sqlite3.Connection) -> Heard:
        at = micros(clock.now())
        owner = payments.by_receipt(conn, RECEIPT)
        if owner is not None:
            return ledger.hear_in(conn, owner, PAID_WORDS[3])
        payments.insert_found(
            conn, payment_id="0" * 25 + "7", receipt=RECEIPT, amount_cents=ASKED, source=Source.C2B,
            account_ref=None, payer=None, paid_at=None, at=at,
        )  # fmt: skip
        row = payments.by_id(conn, "0" * 25 + "7")
        assert row is not None
        return Heard(row, changed=True, alarm=None)

    return write


async def test_a_receipt_that_two_requests_claim_is_money_once_and_an_alarm(db: Database) -> None:
    ledger = Ledger(db, FakeClock())
    for number, phone in ((1, "254712345678"), (2, "254712345679")):
        await db.write(lambda conn, n=number, p=phone: payments.insert_push(conn, push(n, p)))
        await ledger.hear(push(number).id, OTHERS[0])
    await ledger.hear(push(1).id, PAID_WORDS[0])
    heard = await ledger.hear(push(2).id, PAID_WORDS[0])
    assert (heard.row.money, heard.alarm) == (Money.SENDING, Alarm.OTHER_RECEIPT)


async def test_money_that_a_sale_has_claimed_is_not_refunded_for_the_push_that_brought_it(
    db: Database,
) -> None:
    """The customer's money came by C2B and its push was given up for it: one shilling, that sale's."""
    clock = FakeClock()
    ledger = Ledger(db, clock)
    await db.write(lambda conn: payments.insert_push(conn, push(1)))
    await ledger.hear(push(1).id, OTHERS[0])
    await ledger.write(_found(ledger, clock))
    twin = "0" * 25 + "7"
    await db.write(_an_invoice)
    await ledger.act(twin, Act.SALE_WITH_IT, "till-1", invoice_id="9" * 26)
    await ledger.act(push(1).id, Act.GIVEN_UP, "till-1")
    heard = await ledger.hear(push(1).id, PAID_WORDS[0])
    assert (heard.row.tender, heard.row.merged_into, heard.alarm) == (Tender.MERGED, twin, None)


async def test_two_sales_with_one_receipt_are_an_alarm(db: Database) -> None:
    clock = FakeClock()
    ledger = Ledger(db, clock)
    await db.write(lambda conn: payments.insert_push(conn, push(1)))
    await ledger.hear(push(1).id, OTHERS[0])
    await ledger.hear(push(1).id, PAID_WORDS[2])
    await ledger.write(_found(ledger, clock))
    await db.write(_an_invoice)
    await ledger.act(push(1).id, Act.SALE_WITH_IT, "till-1", invoice_id="9" * 26)
    await ledger.act("0" * 25 + "7", Act.SALE_WITH_IT, "till-1", invoice_id="9" * 26)
    heard = await ledger.hear(push(1).id, PAID_WORDS[0])
    assert heard.alarm is Alarm.OTHER_RECEIPT
    assert (heard.row.money, heard.row.receipt) == (Money.PAID, None)


async def test_money_that_went_back_learns_its_receipt_and_is_not_new_money(db: Database) -> None:
    ledger = Ledger(db, FakeClock())
    await db.write(lambda conn: payments.insert_push(conn, push(1)))
    await ledger.hear(push(1).id, OTHERS[0])
    await ledger.hear(push(1).id, PAID_WORDS[2])
    await ledger.act(push(1).id, Act.REFUND_ORDERED, "wanjiru")
    await ledger.hear(push(1).id, OTHERS[-1])
    heard = await ledger.hear(push(1).id, PAID_WORDS[3])
    assert (heard.row.money, heard.row.receipt) == (Money.REFUNDED, RECEIPT)


def _an_invoice(conn: sqlite3.Connection) -> None:
    unit.ensure(conn, first_invoice_no=1, at=1)
    invoices.claim(
        conn,
        NewInvoice(
            id="9" * 26, till_id="t", idem_key="k", body_digest="0" * 64, label="NS", original_id=None,
            till_receipt_no="P", total_cents=1, request=b"{}", document=b"{}", printer=None, at=1,
        ),
    )  # fmt: skip
