"""The client of Daraja against a Daraja that checks everything and fails on purpose; check and register, too."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.domain.payment import Reason
from gateway.domain.payment_wire import Accepted, Ack, Lost, PushOrder, QueryVerdict, Refused
from gateway.mpesa.account import Account
from gateway.mpesa.c2b_token import c2b_token
from gateway.mpesa.client import DarajaClient
from gateway.mpesa.messages import parse_c2b, parse_result, parse_stk
from gateway.mpesa_tools import check, register
from hw_fakes.daraja import KEY, PASSKEY, SECRET, FakeDaraja, phone_for
from tests.support.clock import FakeClock
from tests.support.shop import make_settings

CALLBACKS = "https://relay.example.co.ke/shop-1"
_tokens = itertools.count(1)


def order(scenario: str = "ok_fast", shillings: int = 450, lead: str = "25470800") -> PushOrder:
    url = f"{CALLBACKS}/s/token{next(_tokens)}"
    return PushOrder(shillings * 100, phone_for(scenario, lead), "T07-000123", "POS sale", url)


@asynccontextmanager
async def daraja(**knobs: Any) -> AsyncIterator[tuple[FakeDaraja, Account]]:
    """The fake, a hundred times as fast as the world, with an account that it knows."""
    knobs = {"query_limited": False, "time_scale": 0.01} | knobs
    async with FakeDaraja(**knobs) as fake:
        yield fake, Account(
            environment="sandbox", base_url=fake.url, shortcode="174379", till_number=None,
            consumer_key=KEY, consumer_secret=SECRET, passkey=PASSKEY, initiator="testapi",
            security_credential="credential", merchant_name="TEST TRADERS LTD",
        )  # fmt: skip


async def accepted(client: DarajaClient, what: PushOrder) -> str:
    reply = await client.push(what)
    assert isinstance(reply, Accepted), reply
    return reply.checkout_request_id


async def test_paybill_and_till_from_push_to_paid() -> None:
    async with daraja(pending="mixed", prompt_life_s=1_000_000) as (fake, account):
        till = replace(account, shortcode="600984", till_number="5566778")
        for who in (account, till):
            async with DarajaClient(who, SystemClock()) as client:
                # The customer has all day, and answers when both questions have been asked.
                what = order(lead=f"254711{who.shortcode[:2]}")
                fake.script("phone", phone=what.phone)
                checkout = await accepted(client, what)
                assert (await client.query(checkout)).verdict is QueryVerdict.PENDING
                assert (await client.query(checkout)).verdict is QueryVerdict.PENDING
                await fake.wait_for(lambda: fake.pushes[-1].answered is not None)
                fake.answer(what.phone, "pin", fake.wallet(what.phone).pin)
                await fake.settled()
                reply = await client.query(checkout)
                assert (reply.verdict, reply.code) == (QueryVerdict.PAID, "0")
        assert [payment.amount for payment in fake.payments] == [450, 450]
        assert [payment.number for payment in fake.payments] == ["174379", "5566778"]
        assert len([each for each in fake.entries("token") if each["outcome"] == "given"]) == 2


@pytest.mark.parametrize(
    ("scenario", "verdict", "reason"),
    [
        ("cancel", QueryVerdict.NOT_PAID, Reason.CANCELLED),
        ("wrong_pin", QueryVerdict.NOT_PAID, Reason.FAILED_PIN),
        ("funds", QueryVerdict.NOT_PAID, Reason.FAILED_FUNDS),
        ("unreachable", QueryVerdict.SOFT, Reason.FAILED_UNREACHABLE),
        ("expired", QueryVerdict.NOT_PAID, Reason.FAILED_EXPIRED),
        ("busy_async", QueryVerdict.NOT_PAID, Reason.FAILED_BUSY),
        ("rule_limited", QueryVerdict.NOT_PAID, Reason.FAILED_RETRYABLE),
        ("product_mismatch", QueryVerdict.NOT_PAID, Reason.FAILED_CONFIG),
        ("operator_missing", QueryVerdict.NOT_PAID, Reason.FAILED_CONFIG),
        ("push_9999", QueryVerdict.SOFT, Reason.FAILED_RETRYABLE),
        ("everything_silent_paid", QueryVerdict.PENDING, None),
        ("query_html_503", QueryVerdict.NO_INFO, None),
        ("wrong_id_query", QueryVerdict.NO_INFO, None),
        ("unknown_code_query", QueryVerdict.NO_INFO, None),
    ],
)
async def test_what_a_query_says_at_the_end(
    scenario: str, verdict: QueryVerdict, reason: Reason | None
) -> None:
    async with daraja(answer_s=1) as (fake, account):
        fake.script(scenario)
        async with DarajaClient(account, SystemClock()) as client:
            checkout = await accepted(client, order("ok"))
            await fake.settled()
            reply = await client.query(checkout)
    assert (reply.verdict, reply.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("scenario", "reason", "wait_s"),
    [
        ("busy_sync", Reason.NOT_SENT, 60),
        ("push_500_busy", Reason.NOT_SENT, 60),
        ("push_quota", Reason.NOT_SENT, 60),
        ("push_429", Reason.NOT_SENT, 12),
        ("push_ResponseCode_1", Reason.NOT_SENT, None),
        ("invalid_callback_url", Reason.CONFIG, None),
        ("oauth_400_empty", Reason.CONFIG, None),
        ("push_503", None, None),
        ("push_html", None, None),
        ("push_empty", None, None),
        ("push_500", None, None),
        ("push_soap", None, None),
        ("push_reset", None, None),
        ("push_malformed_200", None, None),
        ("push_timeout_not_prompted", None, None),
    ],
)
async def test_what_a_push_that_is_not_taken_means(
    scenario: str, reason: Reason | None, wait_s: float | None
) -> None:
    """`reason` None: nobody knows whether the phone rings, and it is not sent again."""
    async with daraja() as (fake, account):
        fake.script(scenario, times=2)
        async with DarajaClient(account, SystemClock()) as client:
            reply = await client.push(order("ok"))
        if reason is None:
            assert isinstance(reply, Lost)
        else:
            assert isinstance(reply, Refused)
            assert (reply.reason, reply.retry_after_s) == (reason, wait_s)
        assert len(fake.entries("push")) == 1
        assert fake.pushes == []


async def test_a_push_without_an_answer_may_have_rung() -> None:
    async with daraja(hold_s=100_000) as (fake, account):
        async with DarajaClient(account, SystemClock(), timeout_s=3) as client:
            # The token is there: all of the time is the push's.
            assert await client.ready() is None
            reply = await client.push(order("push_timeout_prompted"))
        assert isinstance(reply, Lost)
        assert len(fake.pushes) == 1


@pytest.mark.parametrize("scenario", ["token_expired", "token_replaced"])
async def test_a_token_that_dies_costs_one_new_token(scenario: str) -> None:
    async with daraja() as (fake, account):
        async with DarajaClient(account, SystemClock()) as client:
            await accepted(client, order(scenario))
            given = [each for each in fake.entries("token") if each["outcome"] == "given"]
            assert len(given) == 2
            assert len(fake.pushes) == 1


@pytest.mark.parametrize("stale", ["family", "401", "400"])
async def test_twenty_calls_with_a_dead_token_share_the_new_one(stale: str) -> None:
    async with daraja(stale_answer=stale, token_replaces=True) as (fake, account):
        async with DarajaClient(account, SystemClock()) as client:
            await asyncio.gather(*(client.ready() for _ in range(20)))
            assert len(fake.entries("token")) == 1
            fake.expire_tokens()
            orders = [order(lead=f"254712{n:02d}") for n in range(20)]
            await asyncio.gather(*(accepted(client, each) for each in orders))
            given = [each for each in fake.entries("token") if each["outcome"] == "given"]
            assert len(given) == 2
            assert len(fake.pushes) == 20


async def test_a_token_is_renewed_before_its_end() -> None:
    clock = FakeClock(datetime.now(UTC))
    async with daraja() as (fake, account):
        async with DarajaClient(account, clock) as client:
            assert await client.ready() is None
            clock.pass_time(seconds=3530)
            assert await client.ready() is None
            clock.pass_time(seconds=20)
            assert await client.ready() is None
            await accepted(client, order())
            assert [each["outcome"] for each in fake.entries("token")] == ["given", "given"]


async def test_two_gateways_whose_tokens_kill_each_other_do_not_take_turns_for_ever() -> None:
    async with daraja(token_replaces=True) as (fake, account):
        async with DarajaClient(account, SystemClock()) as one:
            async with DarajaClient(account, SystemClock()) as two:
                for n, client in enumerate([one, two] * 5):
                    await accepted(client, order(lead=f"254712{n:02d}"))
        # At most one token for each request.
        assert len([e for e in fake.entries("token") if e["outcome"] == "given"]) <= 10
        assert len(fake.pushes) == 10


async def test_questions_above_the_limit_are_told_how_long_to_wait() -> None:
    # In real time: one question in twelve seconds.
    async with daraja(query_limited=True, retry_after=True, time_scale=1) as (_, account):
        async with DarajaClient(account, SystemClock()) as client:
            checkout = await accepted(client, order())
            replies = [await client.query(checkout) for _ in range(2)]
    assert replies[0].verdict is not QueryVerdict.LIMITED
    assert replies[1].verdict is QueryVerdict.LIMITED
    assert replies[1].retry_after_s is not None
    assert 1 <= replies[1].retry_after_s <= 13


class Messages:
    """A public https address as far as the fake is concerned; keeps what is posted to it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.got.append((head.split()[1].decode(), await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    def of(self, kind: str) -> list[bytes]:
        return [raw for path, raw in self.got if f"/{kind}/" in path]


async def test_messages_pull_status_reversal_and_qr() -> None:
    """One payment through every message that M-Pesa sends about it, each read by its reader."""
    messages = Messages()
    async with (
        daraja(answer_s=1) as (fake, account),
        await asyncio.start_server(messages.serve, "127.0.0.1", 0) as server,
    ):
        port = server.sockets[0].getsockname()[1]
        fake.turn(hosts={"relay.example.co.ke": f"http://127.0.0.1:{port}"})
        async with DarajaClient(account, SystemClock()) as client:
            assert isinstance(
                await client.register_c2b(f"{CALLBACKS}/c/t", f"{CALLBACKS}/v/t"), Ack
            )
            again = await client.register_c2b(f"{CALLBACKS}/c/t", f"{CALLBACKS}/v/t")
            assert isinstance(again, Refused)
            assert "already" in again.message
            checkout = await accepted(client, order("types_variant"))
            await fake.settled()
            (payment,) = fake.payments

            results = [parse_stk(raw) for raw in messages.of("s")]
            assert [result and result.receipt for result in results] == [payment.receipt]
            assert results[0] is not None
            assert (results[0].amount_cents, results[0].checkout_request_id) == (45000, checkout)
            notices = [parse_c2b(raw) for raw in messages.of("c")]
            assert [(n and n.receipt, n and n.amount_cents) for n in notices] == [
                (payment.receipt, 45000)
            ]

            assert isinstance(await client.register_pull("254708374149", f"{CALLBACKS}/r/t"), Ack)
            end = datetime.now(UTC) + timedelta(minutes=1)
            for zone in ("eat", "utc"):
                fake.turn(pull_zone=zone)
                pulled = await client.pull(end - timedelta(hours=1), end, 0)
                assert pulled.problem is None
                (row,) = pulled.rows
                assert (row.receipt, row.amount_cents) == (payment.receipt, 45000)
                assert row.phone == payment.phone
                assert row.at == payment.at.replace(microsecond=0)
            assert (await client.pull(end - timedelta(hours=1), end, 1)).rows == ()

            urls = (f"{CALLBACKS}/r/t", f"{CALLBACKS}/t/t")
            asked = await client.status(payment.receipt, *urls)
            ordered = await client.reverse(payment.receipt, 45000, *urls, "Goods returned")
            assert isinstance(asked, Ack)
            assert isinstance(ordered, Ack)
            await fake.settled()
            told = {
                result.conversation_id: result
                for raw in messages.of("r")
                if (result := parse_result(raw)) is not None
            }
            assert told[asked.conversation_id].parameters["ReceiptNo"] == payment.receipt
            done = told[ordered.conversation_id]
            assert (done.code, done.originator_id) == ("0", ordered.originator_id)
            assert done.parameters["OriginalTransactionID"] == payment.receipt
            await client.reverse(payment.receipt, 45000, *urls, "Goods returned")
            await fake.settled()
            twice = parse_result(messages.of("r")[-1])
            assert twice is not None
            assert twice.code == "R000001"

            png = await client.qr(45000, "T07-000123", 300)
            assert isinstance(png, bytes)
            fake.turn(faults={"qr": "503"})
            words = await client.qr(45000, "T07-000123", 300)
            assert isinstance(words, str)


def settings_of(tmp_path: Path, url: str, **mpesa: Any) -> Any:
    secrets = {"key": KEY, "secret": SECRET, "passkey": PASSKEY}
    secrets.update({name: mpesa.pop(name) for name in list(mpesa) if name in secrets})
    section = {
        "environment": "sandbox", "base_url": url, "shortcode": "174379",
        "callback_url": CALLBACKS, **mpesa,
    }  # fmt: skip
    return make_settings(
        tmp_path, "http://127.0.0.1:1", mpesa=section, mpesa_consumer_key=secrets["key"],
        mpesa_consumer_secret=secrets["secret"], mpesa_passkey=secrets["passkey"],
    )  # fmt: skip


async def said(settings: Any, clock: Any = None) -> tuple[bool, str]:
    lines: list[str] = []
    good = await check(settings, clock or SystemClock(), lines.append)
    return good, "\n".join(lines)


async def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    async with daraja() as (fake, _):
        assert await said(settings_of(tmp_path, fake.url)) == (
            True,
            f"sandbox: {fake.url}, paybill 174379\nconsumer key and secret: taken\n"
            "shortcode and passkey: taken\nclock: agrees with M-Pesa's\n"
            "messages do not reach this box (no relay, no direct port): it asks M-Pesa, "
            "and receipt numbers come late or not at all",
        )
        for wrong, words in (
            ({"key": "key-of-production"}, "Are they the app's keys for sandbox?"),
            ({"passkey": "passkey-of-another"}, "shortcode and passkey do not belong together"),
            ({"shortcode": "999999"}, "shortcode 999999 does not exist in sandbox"),
            ({"environment": "disabled"}, "M-Pesa is off"),
        ):
            good, told = await said(settings_of(tmp_path, fake.url, **wrong))
            assert not good
            assert words in told
            assert "key-of" not in told.replace("passkey of", "")
        for hours, words in ((-3, "10800 seconds slow"), (2, "7200 seconds fast")):
            # It stands still while the check takes its time.
            clock = FakeClock(datetime.now(UTC) + timedelta(hours=hours))
            good, told = await said(settings_of(tmp_path, fake.url), clock)
            assert not good
            seconds, way = words.split(" seconds ")
            off = re.search(rf"(\d+) seconds {way}", told)
            assert off is not None and abs(int(off[1]) - int(seconds)) < 60, told
        fake.turn(oauth_refusal="empty", oauth_refusals=1)
        good, told = await said(settings_of(tmp_path, fake.url))
        assert not good
        assert "sandbox" in told
    good, told = await said(settings_of(tmp_path, fake.url))
    assert not good
    assert "no connection to M-Pesa" in told


async def test_register_tells_m_pesa_the_addresses_once(tmp_path: Path) -> None:
    async with daraja() as (fake, _):
        settings = settings_of(tmp_path, fake.url)
        lines: list[str] = []
        clock = SystemClock()
        assert await register(settings, clock, lines.append, sure=False, pull_number="254708374149")
        token = c2b_token(PASSKEY, "174379")
        merchant = fake.merchants[0]
        assert merchant.registered is not None
        assert merchant.registered["ConfirmationURL"] == f"{CALLBACKS}/c/{token}"
        assert merchant.registered["ValidationURL"] == f"{CALLBACKS}/v/{token}"
        assert merchant.registered["ResponseType"] == "Completed"
        assert merchant.pull_registered
        assert token not in "\n".join(lines)
        lines.clear()
        assert not await register(settings, clock, lines.append, sure=False)
        assert "registered before" in lines[-1]
        lines.clear()
        assert not await register(
            settings, clock, lines.append, sure=True, pull_number="0708374149"
        )
        assert "2547XXXXXXXX" in lines[-1]


async def test_production_is_registered_only_after_a_yes(tmp_path: Path) -> None:
    async with daraja() as (fake, _):
        settings = settings_of(tmp_path, fake.url, environment="production")
        lines: list[str] = []
        assert not await register(settings, SystemClock(), lines.append, sure=False)
        assert "--yes" in lines[-1]
        assert fake.merchants[0].registered is None
        assert await register(settings, SystemClock(), lines.append, sure=True)


async def test_the_command_line(tmp_path: Path) -> None:
    async with daraja() as (fake, _):
        config = tmp_path / "gateway.toml"
        config.write_text(
            f"""
            [branch]
            pin = "A000123456B"
            trade_name = "SHOP"
            [unit]
            host = "external"
            serial = "dvc-1"
            [store]
            directory = "{tmp_path}"
            [[tills]]
            id = "till-1"
            [mpesa]
            environment = "sandbox"
            base_url = "{fake.url}"
            shortcode = "174379"
            callback_url = "{CALLBACKS}"
            """
        )
        env = os.environ | {
            "GATEWAY_TILL_TOKENS": "till-1=token-of-till-number-1",
            "GATEWAY_MPESA_CONSUMER_KEY": KEY,
            "GATEWAY_MPESA_CONSUMER_SECRET": SECRET,
            "GATEWAY_MPESA_PASSKEY": PASSKEY,
        }
        for what, code, words in (
            ("check", 0, "shortcode and passkey: taken"),
            ("register", 0, "C2B addresses: registered"),
            ("register", 1, "registered before"),
        ):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", "mpesa", what, "--config", str(config),
                env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(60):
                out, err = await process.communicate()
            assert (process.returncode, words in out.decode(), err) == (code, True, b""), out + err
