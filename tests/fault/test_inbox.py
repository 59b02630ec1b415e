"""Every message that M-Pesa, or somebody who plays it, can send ends in one way, stored, and never in the
way of the next (daraja.md 3, 5, 6 and 8)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import aiohttp
import pytest

from gateway.clock import EAT, from_micros
from gateway.domain.payment import Act, Money, Reason, Source, Tender
from gateway.domain.payment_wire import ApiResult, Arrival
from gateway.errors import DiskFull
from gateway.mpesa.direct import DirectSite
from gateway.store import payment_days, payments
from tests.fault.test_store_faults import fill
from tests.support.inbox import C2B, DATA, PHONE, c2b, open_desk, stk

REQUEST = "ws_CO_23112026101530417708374149"
SHAPES = sorted(path.name for path in (DATA / "callbacks").glob("*_*.json"))
NONSENSE = json.loads((DATA / "callbacks/malformed.json").read_text())


@pytest.mark.parametrize("name", SHAPES)
async def test_every_shape_of_a_callback_ends_as_the_table_says(name: str, tmp_path: Path) -> None:
    raw = (DATA / "callbacks" / name).read_bytes()
    code = name.split("_failure", maxsplit=1)[0] if "failure" in name else "0"
    table = json.loads((DATA / "result_codes.json").read_text())["codes"]
    async with open_desk(tmp_path) as desk:
        sent = json.loads(raw)["Body"]["stkCallback"]
        payment = await desk.push(request=sent["CheckoutRequestID"])
        message = await desk.callback(payment, raw)
        row = await desk.row(payment)
        assert (message.state, message.payment_id, message.raw) == ("DONE", payment, raw)
        if code == "0":
            assert (row.money, row.receipt, row.paid_by) == (
                Money.PAID,
                "UKN0TEST01",
                Source.CALLBACK,
            )
            wrong = "wrong_amount" in name
            assert row.paid_cents == (4_500 if wrong else 45_000)
            assert row.tender is (Tender.REVIEW if wrong else Tender.OPEN)
            assert await desk.alarms() == (["OTHER_AMOUNT"] if wrong else [])
        else:
            assert row.money is Money.NOT_PAID
            assert row.reason == next(item["outcome"] for item in table if item["code"] == code)
            assert await desk.alarms() == (["SETUP"] if row.reason == "FAILED_CONFIG" else [])
        told = await desk.db.read(lambda conn: payments.words(conn, payment))
        assert told[-1].raw == raw


@pytest.mark.parametrize("body", [*NONSENSE, None, "<html>", "0", "[[[[", '{"Body": NaN}'])
async def test_a_callback_that_says_nothing_moves_no_money_and_asks_the_other_way(
    body: object, tmp_path: Path
) -> None:
    raw = (
        b""
        if body is None
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        message = await desk.callback(payment, raw)
        row = await desk.row(payment)
        assert (row.money, row.receipt, row.reason) == (Money.WAITING, None, None)
        assert (message.state, message.reason, message.raw) == ("DONE", "MALFORMED", raw)
        assert await desk.alarms() == ["MALFORMED"]
        assert desk.looks == [payment] and row.next_check_at is not None
        # And it is no obstacle for the real one.
        await desk.callback(payment, stk(REQUEST))
        assert (await desk.row(payment)).money is Money.PAID


async def test_a_forged_callback_changes_nothing_and_is_kept_with_an_alarm(tmp_path: Path) -> None:
    """Right ids, right amount, wrong address; also another kind's address, and a flood of them."""
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        for n in range(30):
            await desk.message("s", f"guess-{n}", stk(REQUEST, receipt=f"UKN0FAKE{n:02d}"))
        await desk.message("c", "guess", c2b(desk.clock))
        await desk.message("c", desk.tokens[payment], c2b(desk.clock))
        await desk.message("s", C2B, stk(REQUEST))
        assert (await desk.row(payment)).money is Money.WAITING
        await desk.clock.advance(seconds=61)
        await desk.inbox.work()
        found = await desk.messages()
        assert {message.state for message in found} == {"UNMATCHED"}
        assert {message.reason for message in found} == {"FORGED"}
        assert len(found) == 33
        # The flood is kept whole; the alarm rings once a minute: at the C2B ones, and a minute after.
        assert await desk.alarms() == ["FORGED", "FORGED"]
        assert (await desk.row(payment)).money is Money.WAITING
        assert await desk.db.read(payments.unowned) == []
        assert await desk.db.read(payment_days.unmatched_count) == 33


async def test_a_flood_of_forged_messages_cannot_fill_the_disk(tmp_path: Path) -> None:
    """The newest thousand are kept, beside everything that is no forgery."""
    async with open_desk(tmp_path) as desk:
        other = await desk.message("c", C2B, c2b(desk.clock, shortcode="600966"))
        flood = tuple(Arrival("c", "guess", b"%d" % n, "", f"e:{n}") for n in range(1_100))
        await desk.inbox.take("e", 1_100, flood)
        await desk.inbox.work()
        kept = await desk.messages()
        assert [message.raw for message in kept] == [
            other.raw,
            *(b"%d" % n for n in range(100, 1_100)),
        ]


async def test_the_right_address_and_another_request_is_ignored_with_an_alarm(
    tmp_path: Path,
) -> None:
    async with open_desk(tmp_path) as desk:
        other = await desk.push(request="ws_CO_other", phone="254711111111")
        payment = await desk.push(request=REQUEST)
        lost = await desk.push(Money.SEND_UNKNOWN, phone="254722222222")
        for mine, theirs in (
            (payment, "ws_CO_stranger"),
            (payment, "ws_CO_other"),
            (lost, REQUEST),
        ):
            message = await desk.callback(mine, stk(theirs))
            assert (message.state, message.reason) == ("UNMATCHED", "OTHER_REQUEST")
            assert message.payment_id == mine
        for row in (other, payment, lost):
            assert (await desk.row(row)).receipt is None
        assert await desk.alarms() == ["OTHER_REQUEST"] * 3


@pytest.mark.parametrize("money", [Money.SENDING, Money.SEND_UNKNOWN])
async def test_a_callback_before_the_pushs_answer_gives_the_payment_its_number(
    money: Money, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(money)
        await desk.callback(payment, stk(REQUEST))
        row = await desk.row(payment)
        assert (row.money, row.checkout_request_id) == (Money.PAID, REQUEST)


async def test_duplicates_append_a_word_and_change_nothing(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        for _ in range(4):
            await desk.callback(payment, stk(REQUEST))
        told = await desk.db.read(lambda conn: payments.words(conn, payment))
        assert [word.changed for word in told[-4:]] == [True, False, False, False]
        assert len(await desk.events("payment.changed")) == len([w for w in told if w.changed])
        assert await desk.alarms() == []


async def test_what_contradicts_is_told_and_money_wins(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        first = await desk.push(request="ws_CO_1")
        await desk.callback(first, stk("ws_CO_1", 1032))
        assert (await desk.row(first)).reason is Reason.CANCELLED
        await desk.callback(first, stk("ws_CO_1"))
        assert (await desk.row(first)).money is Money.PAID
        await desk.callback(first, stk("ws_CO_1", 1032))
        assert (await desk.row(first)).money is Money.PAID
        assert await desk.alarms() == ["PAID_AFTER_FAILURE", "FAILURE_AFTER_PAID"]


async def test_a_second_receipt_for_one_push_has_an_owner_of_its_own(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        await desk.callback(payment, stk(REQUEST, receipt="UKN0TEST01"))
        for _ in range(2):
            await desk.callback(payment, stk(REQUEST, receipt="UKN0TEST99"))
        assert (await desk.row(payment)).receipt == "UKN0TEST01"
        second = await desk.by_receipt("UKN0TEST99")
        assert second is not None
        assert (second.kind, second.money, second.tender) == ("C2B", Money.PAID, Tender.OPEN)
        assert second.amount_cents == 45_000
        assert len(await desk.events("payment.unmatched")) == 1
        assert await desk.alarms() == ["OTHER_RECEIPT", "OTHER_RECEIPT"]


# --- C2B ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["c2b", "callback"])
async def test_a_push_and_its_c2b_twin_are_one_payment(first: str, tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST, reference="T07-000123")
        messages = [("s", desk.tokens[payment], stk(REQUEST))]
        messages.insert(
            0 if first == "c2b" else 1, ("c", C2B, c2b(desk.clock, reference="T07-000123"))
        )
        for kind, token, raw in messages:
            assert (await desk.message(kind, token, raw)).payment_id == payment
        row = await desk.row(payment)
        assert (row.money, row.receipt, row.paid_cents) == (Money.PAID, "UKN0TEST01", 45_000)
        assert row.paid_by == (Source.C2B if first == "c2b" else Source.CALLBACK)
        assert [row.id for row in await desk.db.read(payments.unowned)] == [payment]
        assert await desk.events("payment.unmatched") == []


@pytest.mark.parametrize("money", [Money.SEND_UNKNOWN, Money.WAITING, Money.UNKNOWN, Money.PAID])
async def test_c2b_stands_in_for_a_lost_callback_at_a_till(money: Money, tmp_path: Path) -> None:
    """Buy Goods has no reference: amount, masked number, and a quarter of an hour."""
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(money, request=None if money is Money.SEND_UNKNOWN else REQUEST)
        await desk.message("c", C2B, c2b(desk.clock))
        row = await desk.row(payment)
        assert (row.money, row.receipt) == (Money.PAID, "UKN0TEST01")


async def test_two_messages_that_name_two_amounts_for_one_receipt_are_an_alarm(
    tmp_path: Path,
) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        await desk.callback(payment, stk(REQUEST))
        await desk.message("c", C2B, c2b(desk.clock, amount="45.00"))
        assert (await desk.row(payment)).paid_cents == 45_000
        assert await desk.alarms() == ["OTHER_AMOUNT"]


async def test_money_nobody_asked_for_is_offered_once(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.push(request=REQUEST, cents=99_900)
        for _ in range(3):
            message = await desk.message("c", C2B, c2b(desk.clock, "UKN0TEST02"))
        found = await desk.by_receipt("UKN0TEST02")
        assert found is not None and message.payment_id == found.id
        assert (found.kind, found.money, found.tender) == ("C2B", Money.PAID, Tender.OPEN)
        assert (found.amount_cents, found.payer) == (45_000, "2547*****149")
        offers = await desk.events("payment.unmatched")
        assert [(offer.till_id, offer.subject) for offer in offers] == [(None, found.id)]
        assert "149" in offers[0].data["phone"] and PHONE not in json.dumps(offers[0].data)


async def test_money_that_two_pushes_fit_is_a_persons_to_give_until_the_callback_says(
    tmp_path: Path,
) -> None:
    async with open_desk(tmp_path) as desk:
        one = await desk.push(request="ws_CO_1", phone="254701000149")
        two = await desk.push(request="ws_CO_2", phone="254702000149")
        await desk.message("c", C2B, c2b(desk.clock))
        found = await desk.by_receipt("UKN0TEST01")
        assert found is not None and found.kind == "C2B"
        await desk.callback(two, stk("ws_CO_2"))
        merged = await desk.row(found.id)
        assert (merged.tender, merged.merged_into) == (Tender.MERGED, two)
        assert (await desk.row(one)).money is Money.WAITING


async def test_a_claimed_c2b_payment_keeps_its_sale_when_the_callback_comes(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        await desk.ledger.act(payment, Act.GIVEN_UP, "till-1")
        late = await desk.message("c", C2B, c2b(desk.clock))
        assert late.payment_id == payment
        row = await desk.row(payment)
        assert (row.money, row.tender) == (Money.PAID, Tender.REFUND_DUE)
        assert await desk.alarms() == ["LATE"]


async def test_money_for_another_shortcode_is_not_ours(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        for code in ("600966", ""):
            message = await desk.message("c", C2B, c2b(desk.clock, shortcode=code))
            assert (message.state, message.reason) == ("UNMATCHED", "OTHER_SHORTCODE")
        message = await desk.message("c", C2B, b'{"TransID": "UKN0TEST01"}')
        assert (message.state, message.reason) == ("UNMATCHED", "MALFORMED")
        assert await desk.alarms() == ["OTHER_SHORTCODE", "OTHER_SHORTCODE", "MALFORMED"]
        assert await desk.db.read(payments.unowned) == []


async def test_a_validation_is_kept_and_asks_for_nothing(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        message = await desk.message("v", C2B, c2b(desk.clock))
        assert (message.state, message.reason) == ("DONE", "VALIDATION")
        assert (await desk.row(payment)).money is Money.WAITING
        assert await desk.alarms() == []


# --- results, order, faults -----------------------------------------------------------------------


async def test_results_go_to_those_who_asked_and_time_outs_say_nothing(tmp_path: Path) -> None:
    heard: list[tuple[str, ApiResult | None]] = []
    mine: set[str] = set()

    async def hook(token_hash: str, result: ApiResult | None, raw: bytes) -> bool:
        if token_hash not in mine:
            return False
        heard.append((token_hash, result))
        return True

    raw = json.dumps(json.loads((DATA / "reversal.json").read_text())["result"]).encode()
    async with open_desk(tmp_path) as desk:
        desk.inbox.on_result.append(hook)
        # It comes before the refund's row is there: it waits, and others go on.
        early = await desk.message("r", "refund-1", raw)
        assert early.state == "NEW"
        payment = await desk.push(request=REQUEST)
        await desk.callback(payment, stk(REQUEST))
        assert (await desk.row(payment)).money is Money.PAID
        mine.add(early.token_hash)
        await desk.clock.advance(seconds=6)
        await desk.inbox.work()
        assert [result.code for _, result in heard if result] == ["0"]
        assert (await desk.messages())[0].state == "DONE"
        await desk.message("t", "refund-1", raw)
        assert heard[-1][1] is None


async def test_a_poisonous_message_blocks_nobody(tmp_path: Path) -> None:
    """A fault while one message is worked off: it is set aside with an alarm, the next has its turn."""

    async def broken(token_hash: str, result: ApiResult | None, raw: bytes) -> bool:
        raise RuntimeError("a programmer's error")

    async with open_desk(tmp_path) as desk:
        desk.inbox.on_result.append(broken)
        payment = await desk.push(request=REQUEST)
        await desk.inbox.put("DIRECT", None, "r", "x", b"{}", "")
        await desk.inbox.put("DIRECT", None, "s", desk.tokens[payment], stk(REQUEST), "")
        await desk.inbox.work()
        assert [message.state for message in await desk.messages()] == ["UNMATCHED", "DONE"]
        assert await desk.alarms() == ["UNREADABLE"]
        assert (await desk.row(payment)).money is Money.PAID


async def test_a_message_that_the_store_refuses_is_set_aside_after_some_tries(
    tmp_path: Path,
) -> None:
    async with open_desk(tmp_path) as desk:
        poisoned = await desk.push(request="ws_CO_1", phone="254711111111")
        payment = await desk.push(request="ws_CO_2")
        # The store itself refuses every word on one payment, as a bug in a trigger would.
        await desk.db.write(
            lambda conn: conn.execute(
                f"""CREATE TRIGGER refuse BEFORE INSERT ON payment_event WHEN NEW.payment_id = '{poisoned}'
                    BEGIN SELECT abs(-9223372036854775807 - 1); END"""
            )
        )
        await desk.inbox.put("DIRECT", None, "s", desk.tokens[poisoned], stk("ws_CO_1"), "")
        await desk.inbox.put(
            "DIRECT", None, "s", desk.tokens[payment], stk("ws_CO_2", receipt="UKN0TEST02"), ""
        )
        run = asyncio.ensure_future(desk.inbox.run())
        async with asyncio.timeout(20):
            while (await desk.row(payment)).money is not Money.PAID:
                await desk.clock.advance(seconds=1)
        run.cancel()
        assert (await desk.row(payment)).money is Money.PAID
        assert (await desk.row(poisoned)).money is Money.WAITING
        assert [message.state for message in await desk.messages()] == ["UNMATCHED", "DONE"]


async def test_what_the_relay_delivers_twice_is_one_message(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        page = (Arrival("s", desk.tokens[payment], stk(REQUEST), "", "epoch:7"),)
        await desk.inbox.take("epoch", 7, page)
        await desk.inbox.take("epoch", 7, page)
        await desk.inbox.work()
        assert len(await desk.messages()) == 1
        assert await desk.inbox.cursor() == ("epoch", 7)


async def test_what_was_put_before_a_kill_is_worked_off_after_it(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        token = desk.tokens[payment]
        await desk.inbox.put("DIRECT", None, "s", token, stk(REQUEST), "")
    async with open_desk(tmp_path) as desk:
        await desk.inbox.work()
        assert (await desk.row(payment)).money is Money.PAID


async def test_mpesa_says_when_it_was_paid(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        await desk.callback(payment, (DATA / "callbacks/0_success.json").read_bytes())
        at = (await desk.row(payment)).paid_at
        assert at is not None
        assert from_micros(at).astimezone(EAT).strftime("%Y%m%d%H%M%S") == "20261123101552"


# --- the direct site ------------------------------------------------------------------------------


async def test_the_direct_site_serves_messages_and_nothing_else(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        payment = await desk.push(request=REQUEST)
        token = desk.tokens[payment]
        site = DirectSite(
            clock=desk.clock, mailbox=desk.inbox, host="127.0.0.1", port=0,
            callback_url="https://shop.example.co.ke/pay/",
        )  # fmt: skip
        async with site, aiohttp.ClientSession(f"http://127.0.0.1:{site.port}") as session:
            for path in (f"/s/{token}", f"/pay/s/{token}"):
                async with session.post(path, data=stk(REQUEST)) as answer:
                    assert answer.status == 200
                    assert await answer.json() == {"ResultCode": 0, "ResultDesc": "Accepted"}
            wrong = {"/s/": 404, "/x/abc": 404, "/v1/status": 404, "/": 404, "/healthz": 404}
            for path, status in wrong.items():
                async with session.post(path, data=b"{}") as answer:
                    assert answer.status == status, path
            async with session.get(f"/s/{token}") as answer:
                assert answer.status == 405
            async with session.post(f"/s/{token}", data=b"x" * 65_537) as answer:
                assert answer.status == 413
            # Kept as it came, whatever it says it is.
            gzip = {"Content-Encoding": "gzip"}
            async with session.post(f"/s/{token}", data=b"no gzip", headers=gzip) as answer:
                assert answer.status == 200
            assert [m.raw for m in await desk.messages()] == [
                stk(REQUEST),
                stk(REQUEST),
                b"no gzip",
            ]
            # A flood is told so, and what was stored stays.
            statuses = set()
            for _ in range(260):
                async with session.post(f"/s/{token}", data=b"flood") as answer:
                    statuses.add(answer.status)
            assert statuses == {200, 429}
            # 200 at once, and one of them was too large.
            assert site.counts["stored"] == len(await desk.messages()) == 199
            assert site.counts["tooLarge"] == 1
        await desk.inbox.work()
        assert (await desk.row(payment)).money is Money.PAID


async def test_a_full_disk_acknowledges_nothing(small_disk: Path) -> None:
    async with open_desk(small_disk / "store") as desk:
        payment = await desk.push(request=REQUEST)
        token = desk.tokens[payment]
        site = DirectSite(
            clock=desk.clock,
            mailbox=desk.inbox,
            host="127.0.0.1",
            port=0,
            callback_url="https://a.ke",
        )
        async with site, aiohttp.ClientSession(f"http://127.0.0.1:{site.port}") as session:
            video = fill(small_disk)
            while True:  # what is left in the files themselves
                try:
                    await desk.inbox.put("DIRECT", None, "v", "x", b"x" * 50_000, "")
                except DiskFull:
                    break
            async with session.post(f"/s/{token}", data=stk(REQUEST) + b" " * 60_000) as answer:
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "5"
            with pytest.raises(DiskFull):
                await desk.inbox.take("epoch", 1, (Arrival("s", token, b" " * 60_000, "", "e:1"),))
            assert await desk.inbox.cursor() == ("", 0)
            video.unlink()
            async with session.post(f"/s/{token}", data=stk(REQUEST)) as answer:
                assert answer.status == 200
        await desk.inbox.work()
        assert (await desk.row(payment)).money is Money.PAID


async def test_the_store_keeps_what_was_sent(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.message("s", "nobody", b"forged")
        with pytest.raises(sqlite3.IntegrityError, match="never changed"):
            await desk.db.write(lambda conn: conn.execute("UPDATE mpesa_message SET raw = x''"))
