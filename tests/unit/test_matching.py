"""Which push a payment is for: one that fits, alone, or none (daraja.md 6)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import micros
from gateway.domain.payment import Money, Source, Tender
from gateway.domain.payment_wire import C2bNotice, PulledRow
from gateway.payments.matching import match, other_phone, same_phone, same_reference
from gateway.store.payments import PaymentRow

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
SENT = micros(NOW)
PHONE = "254708374149"
MINUTE = 60_000_000


def a_push(**changes: object) -> PaymentRow:
    row = PaymentRow(
        id="0" * 26, kind="STK", till_id="till-1", idem_key="k", body_digest="d", checkout_id=None,
        sale_ref="POS-1", amount_cents=45_000, phone=PHONE, account_ref="POS-1", token_hash="h",
        money=Money.WAITING, reason=None, tender=Tender.OPEN, merchant_request_id=None,
        checkout_request_id=None, receipt=None, paid_cents=None, paid_by=None, paid_at=None, payer=None,
        merged_into=None, invoice_id=None, sent_at=SENT, next_check_at=None, checks=0, soft_code=None,
        soft_at=None, created_at=SENT, updated_at=SENT, version=1,
    )  # fmt: skip
    return replace(row, **changes)  # type: ignore[arg-type]


def a_notice(
    reference: str = "",
    phone: str | None = "2547 ***** 149",
    cents: int = 45_000,
    after_s: float = 15,
) -> C2bNotice:
    at = NOW + timedelta(seconds=after_s)
    return C2bNotice("UKN0TEST01", cents, "174379", reference, phone, "JANE", at)


def test_a_paybills_reference_is_enough_in_any_letter_case_and_with_any_blanks() -> None:
    push = a_push()
    assert match(a_notice("POS-1", phone=None), [push], NOW) is push
    assert match(a_notice(" POS-1 "), [push], NOW) is push
    for typed in ("pos-1", "POS -1", " p o s-1", "Pos-1\t"):
        assert match(a_notice(typed, phone=None), [push], NOW) is push
    for other in ("POS-11", "POS", "Sample Transaction"):
        # Another reference is a word against it, however well the rest fits.
        assert match(a_notice(other), [push], NOW) is None
    assert match(a_notice("POS-1", after_s=47 * 3600), [push], NOW) is push
    assert match(a_notice("POS-1", after_s=49 * 3600), [push], NOW) is None


def test_without_a_reference_amount_number_and_a_quarter_of_an_hour_decide() -> None:
    push = a_push()
    assert match(a_notice(), [push], NOW) is push
    assert match(a_notice(phone=None), [push], NOW) is None
    assert match(a_notice(phone="2547 ***** 148"), [push], NOW) is None
    assert match(a_notice(after_s=14 * 60), [push], NOW) is push
    assert match(a_notice(after_s=16 * 60), [push], NOW) is None
    # Paid before it was asked for, beyond what two clocks may be apart.
    assert match(a_notice(after_s=-100), [push], NOW) is push
    assert match(a_notice(after_s=-130), [push], NOW) is None


def test_a_pulled_row_goes_by_the_same_rule() -> None:
    push = a_push()
    at = NOW + timedelta(seconds=15)
    row = PulledRow("UKN0TEST01", 45_000, PHONE, "", "c2b-pay-bill-debit", at)
    assert match(row, [push], NOW) is push
    assert match(replace(row, reference="POS-1", phone=None), [push], NOW) is push
    assert match(replace(row, at=None), [push], NOW) is push
    assert match(replace(row, at=None), [push], NOW + timedelta(hours=1)) is None


def test_a_refused_attempt_stands_back_behind_the_next_one() -> None:
    first = a_push(id="1" * 26, money=Money.NOT_PAID)
    second = a_push(id="2" * 26, sent_at=SENT + 2 * MINUTE)
    notice = a_notice("POS-1", after_s=150)
    assert match(notice, [first, second], NOW) is second
    assert match(notice, [first], NOW) is first
    assert match(notice, [first, replace(first, id="3" * 26)], NOW) is None


@pytest.mark.parametrize(
    ("shown", "fits"),
    [
        ("2547 ***** 149", True),
        ("254708374149", True),
        ("+254 708 374 149", True),
        ("0708374149", True),
        ("0708374***", True),
        ("07083xx149", True),
        ("2547 ***** 148", False),
        ("2541 ***** 149", False),
        ("************", False),
        ("254*******49", False),
        ("149", False),
        ("", False),
        (None, False),
    ],
)
def test_a_number_as_far_as_it_is_shown(shown: str | None, fits: bool) -> None:
    assert same_phone(PHONE, shown) is fits


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("form", [PHONE, f"+{PHONE}", "0708374149", "708374149"])
def test_a_hash_of_any_way_to_write_the_number_is_the_number(form: str) -> None:
    for shown in (hashed(form), hashed(form).upper(), f" {hashed(form)} "):
        assert same_phone(PHONE, shown)
        assert not other_phone(PHONE, shown)
    # What was hashed is not documented: a hash that fits nothing proves nothing either.
    stranger = hashed("254708374148")
    assert not same_phone(PHONE, stranger)
    assert not other_phone(PHONE, stranger)


@pytest.mark.parametrize(
    ("shown", "other"),
    [
        ("2547 ***** 148", True), ("254708374148", True), ("0708374148", True), ("2541 ***** 149", True),
        ("2547 ***** 149", False), ("************", False), ("149", False), ("", False), (None, False),
        ("ab" * 32, False), ("254*******49", False), ("254*******48", True),
    ],
)  # fmt: skip
def test_what_surely_is_another_number(shown: str | None, other: bool) -> None:
    assert other_phone(PHONE, shown) is other


def test_a_reference_that_m_pesa_filled_in_at_a_till_says_nothing() -> None:
    push = a_push()
    till = replace(a_notice("Merchant Payment"), kind="Buy Goods")
    assert match(till, [push], NOW) is push
    assert match(replace(till, kind="Pay Bill"), [push], NOW) is None
    at = NOW + timedelta(seconds=15)
    row = PulledRow("UKN0TEST01", 45_000, PHONE, "x", "c2b-buy-goods-debit", at)
    assert match(row, [push], NOW) is push


# --- properties -----------------------------------------------------------------------------------

# Few values of each, so that pushes meet by chance.
pushes = st.builds(
    a_push,
    id=st.uuids().map(lambda value: value.hex[:26]),
    kind=st.sampled_from(["STK", "STK", "STK", "C2B"]),
    amount_cents=st.sampled_from([45_000, 45_100]),
    phone=st.sampled_from([PHONE, "254708000149", "254111222333"]),
    account_ref=st.sampled_from(["POS-1", "POS-2"]),
    money=st.sampled_from(list(Money)),
    receipt=st.sampled_from([None, None, None, "UKN0TEST77"]),
    merged_into=st.sampled_from([None, None, None, "x"]),
    paid_cents=st.sampled_from([None, None, 45_000, 45_100]),
    paid_by=st.just(Source.QUERY),
    sent_at=st.integers(-60, 60).map(lambda minutes: SENT + minutes * MINUTE),
)
notices = st.builds(
    a_notice,
    reference=st.sampled_from(["", "", "POS-1", "POS-2", "POS-3"]),
    phone=st.sampled_from([None, PHONE, "2547 ***** 149", "2541 ***** 333", "0708374***"]),
    cents=st.sampled_from([45_000, 45_100]),
    after_s=st.integers(-3600, 3600),
)
UNSENT = {Money.NEW, Money.REFUSED, Money.REFUNDED}


@given(notices, st.lists(pushes, max_size=6))
def test_it_never_matches_what_cannot_be(notice: C2bNotice, rows: list[PaymentRow]) -> None:
    found = match(notice, rows, NOW)
    if found is None:
        return
    assert found in rows
    assert found.kind == "STK" and found.receipt is None and found.merged_into is None
    assert found.amount_cents == notice.amount_cents
    assert found.paid_cents in (None, notice.amount_cents)
    assert found.money not in UNSENT
    if notice.reference.strip():
        assert same_reference(notice.reference, found.account_ref)
    else:
        assert found.phone is not None and same_phone(found.phone, notice.phone)


@given(notices, st.lists(pushes, max_size=6))
def test_two_that_fit_are_none(notice: C2bNotice, rows: list[PaymentRow]) -> None:
    """Whichever push is chosen, it is chosen alone, and a second like it takes it back."""
    found = match(notice, rows, NOW)
    if found is None:
        return
    twin = replace(found, id="another-push")
    assert match(notice, [*rows, twin], NOW) is None
    assert match(notice, [twin, *rows], NOW) is None
    # No other of them would have been chosen in its place, but for one that was said to be unpaid.
    others = [row for row in rows if row is not found]
    rest = match(notice, others, NOW)
    assert rest is None or (rest.money is Money.NOT_PAID and found.money is not Money.NOT_PAID)


@given(notices, st.lists(pushes, max_size=6), st.randoms())
def test_the_order_of_the_candidates_says_nothing(notice, rows, chance) -> None:  # type: ignore[no-untyped-def]
    mixed = list(rows)
    chance.shuffle(mixed)
    one, other = match(notice, rows, NOW), match(notice, mixed, NOW)
    assert (one and one.id) == (other and other.id)
