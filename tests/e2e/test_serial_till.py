"""A till on a serial line: as strict as HTTP, the same answers, and one sale whatever its wire does."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hw_fakes.serial_till.codec import frame
from hw_fakes.serial_till.peer import FakeSerialTill, LineDead, SerialWire
from hw_fakes.vscu.unit import UnitControl
from tests.support.counter import until_event
from tests.support.daemon import Daemon
from tests.support.shop import OpenShop, a_sale, make_settings, open_shop

# A till's patience for an ACK here, in seconds: tests lose many.
ACK_S = 0.3


@asynccontextmanager
async def a_shop(
    unit: UnitControl, shop_dir: Path, *tills: FakeSerialTill, **more: Any
) -> AsyncIterator[OpenShop]:
    lines = {
        f"kiosk {n}": {"port": till.device_path, "till": f"till-{n}"}
        for n, till in enumerate(tills, start=1)
    }
    settings = make_settings(shop_dir, unit.url, serial_tills=lines, **more)
    async with open_shop(settings) as shop:
        for till in tills:
            await there(till)
        yield shop


async def there(till: FakeSerialTill) -> None:
    """The gateway has opened the line: what was said before that is not heard."""
    async with asyncio.timeout(60):
        while True:
            try:
                assert (await till.ask("GET", "/v1/status")).status == 200
                return
            except LineDead:
                continue


async def test_a_sale_is_signed_and_told_with_the_bytes_of_http(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeSerialTill(ack_s=ACK_S) as till, a_shop(unit, shop_dir, till) as shop:
        sale = a_sale()
        answer = await till.sell("key-1", sale)
        assert (answer.status, answer.key, answer.replayed) == (201, "key-1", False)
        over_http = await shop.till("till-1").sell("key-1", sale)
        assert over_http.headers["Idempotent-Replayed"] == "true"
        assert b'"body":' + over_http.body + b"}" in answer.raw
        again = await till.sell("key-1", sale)
        assert (again.status, again.body, again.replayed) == (201, answer.body, True)
        found = await till.ask("GET", f"/v1/invoices/{answer.body['invoiceId']}")
        assert found.body == answer.body
        assert len(await unit.journal()) == 1


@pytest.mark.parametrize(
    "wire",
    [
        SerialWire(lose_requests=2),
        SerialWire(corrupt_requests=2),
        SerialWire(lose_their_acks=2),
        SerialWire(lose_answers=1),
        SerialWire(corrupt_answers=2),
        SerialWire(lose_our_acks=1),
        SerialWire(one_byte=True),
        SerialWire(noise=b"\x15\x02\x06\x00\x55", corrupt_requests=1),
        SerialWire(stall_s=1.2),
        SerialWire(
            lose_requests=1, lose_their_acks=1, corrupt_answers=1, lose_our_acks=1, one_byte=True
        ),
    ],
    ids=lambda wire: "-".join(
        name
        for name in wire.__dataclass_fields__
        if getattr(wire, name) != getattr(SerialWire(), name)
    ),
)
async def test_a_bad_wire_makes_one_receipt_and_the_till_is_told_it(
    unit: UnitControl, shop_dir: Path, wire: SerialWire
) -> None:
    async with FakeSerialTill(ack_s=ACK_S) as till, a_shop(unit, shop_dir, till) as shop:
        sale = a_sale()
        till.wire = wire
        till.ack_s = 2.5 if wire.noise else ACK_S
        answer = await till.sell("key", sale)
        assert answer.status == 201
        till.wire = SerialWire()
        # An answer whose ACK was lost comes again; the till goes on all the same.
        following = await till.sell("next", a_sale())
        assert following.status == 201
        assert following.body["invoiceId"] != answer.body["invoiceId"]
        again = await shop.till("till-1").sell("key", sale)
        assert again.json == answer.body
        assert len(await unit.journal()) == 2


async def test_a_till_that_starts_anew_is_told_the_same_receipt_and_no_stale_answer(
    unit: UnitControl, shop_dir: Path
) -> None:
    """It counts from the beginning: its old sale's answer must not be taken for the new question's."""
    async with FakeSerialTill(ack_s=ACK_S, answer_s=20) as till:
        async with a_shop(unit, shop_dir, till):
            till.restart()
            sale = a_sale()
            till.wire.lose_answers = 1000
            till.answer_s = 1.0
            with pytest.raises(LineDead):
                await till.sell("key", sale)
            asked_under = till.sequence
            till.wire.lose_answers = 0
            till.restart()
            till.answer_s = 20
            other = await till.ask("GET", "/v1/reports/x")
            assert till.sequence == asked_under
            assert other.status == 200
            assert "invoiceId" not in other.body
            told = await till.sell("key", sale)
            assert (told.status, told.replayed) == (201, True)
            assert len(await unit.journal()) == 1


async def test_an_answer_that_was_never_heard_is_kept_for_the_same_frame(
    unit: UnitControl, shop_dir: Path
) -> None:
    """Without a key the frame itself is what tells a repeat: it is not sold again."""
    async with FakeSerialTill(ack_s=ACK_S, answer_s=0.5) as till:
        async with a_shop(unit, shop_dir, till):
            body = json.dumps({"method": "POST", "path": "/v1/invoices", "body": a_sale()}).encode()
            till.wire.lose_answers = 1000
            with pytest.raises(LineDead):
                await till.exchange(body)
            till.wire.lose_answers = 0
            till.answer_s = 20
            answer = await till.exchange(body, again=True)
            assert (answer.status, answer.replayed) == (201, False)
            # It has been acknowledged: the same again is now a new question, with HTTP's answer.
            asked_again = await till.exchange(body, again=True)
            assert asked_again.body["code"] == "LIKELY_REPEAT"
            anew = json.loads(body) | {"confirm": asked_again.body["invoiceId"]}
            assert (await till.exchange(json.dumps(anew).encode())).status == 201
            assert len(await unit.journal()) == 2


BAD = [
    ("POST", "/v1/invoices", "key", {"tillReceiptNo": "1"}),
    ("POST", "/v1/invoices", "key", a_sale(total="296.99")),
    ("POST", "/v1/invoices", "key", a_sale(surprise=1)),
    ("POST", "/v1/invoices", "key", [1, 2]),
    ("POST", "/v1/invoices", "key", None),
    ("POST", "/v1/invoices", "a key with\ncontrol", a_sale()),
    ("POST", "/v1/invoices", "Schlüssel", a_sale()),
    ("POST", "/v1/invoices", "", a_sale()),
    ("DELETE", "/v1/invoices", None, None),
    ("GET", "/v1/nothing", None, None),
    ("GET", "/v1/invoices/none", None, None),
    ("GET", "/v1/items?limit=many", None, None),
]


async def test_bad_input_has_the_code_the_place_and_the_sentence_of_http(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeSerialTill(ack_s=ACK_S) as till, a_shop(unit, shop_dir, till) as shop:
        for method, path, key, body in BAD:
            answer = await till.ask(method, path, key=key, body=body)
            sendable = key if key is None or key.isprintable() else "\N{REPLACEMENT CHARACTER}"
            http = await shop.till("till-1").request(
                method, path, key=sendable, data=json.dumps(body),
                headers={"Content-Type": "application/json"},
            )  # fmt: skip
            assert 400 <= answer.status < 500, (path, answer)
            assert (answer.status, answer.body) == (http.status, http.json), path
        assert await unit.journal() == []


async def test_a_frame_that_holds_no_request_says_what_is_wrong(
    unit: UnitControl, shop_dir: Path
) -> None:
    good = {"method": "POST", "path": "/v1/invoices", "key": "k", "body": a_sale()}
    twice = json.dumps(good)[:-1] + ',"key":"other"}'
    doubled = json.dumps(good).replace('"total": "297.00"', '"total": "297.00", "total": "1.00"')
    cases: list[tuple[bytes, int, str, str | None]] = [
        (b"not json", 400, "BODY_NOT_JSON", None),
        (b"", 400, "BODY_NOT_JSON", None),
        (b"\xff\xfe", 400, "BODY_NOT_JSON", None),
        (twice.encode(), 400, "BODY_NOT_JSON", None),
        (doubled.encode(), 400, "BODY_NOT_JSON", None),
        (b"[" * 3000, 400, "BODY_NOT_JSON", None),
        (b"[]", 400, "FRAME_INVALID", None),
        (json.dumps(good | {"Idempotency-Key": "k"}).encode(), 400, "FRAME_INVALID", "/Idempotency-Key"),
        (json.dumps(good | {"method": "SELL"}).encode(), 400, "FRAME_INVALID", "/method"),
        (json.dumps(good | {"path": "v1/invoices"}).encode(), 400, "FRAME_INVALID", "/path"),
        (json.dumps(good | {"path": 1}).encode(), 400, "FRAME_INVALID", "/path"),
        (json.dumps(good | {"key": 7}).encode(), 400, "FRAME_INVALID", "/key"),
        (json.dumps(good | {"path": "/metrics"}).encode(), 404, "NOT_FOUND", None),
        (json.dumps(good | {"path": "/v1/../metrics"}).encode(), 404, "NOT_FOUND", None),
        (b'{"method":"GET","path":"/v1/events"}', 404, "NOT_FOUND", None),
        (json.dumps(good).encode() + b" " * 60_000, 413, "BODY_TOO_LARGE", None),
    ]  # fmt: skip
    async with FakeSerialTill(ack_s=5) as till, a_shop(unit, shop_dir, till):
        for payload, status, code, pointer in cases:
            answer = await till.exchange(payload)
            assert (answer.status, answer.body["code"]) == (status, code), payload[:60]
            assert answer.body["detail"].endswith(".")
            if pointer is not None:
                assert [error["pointer"] for error in answer.body["errors"]] == [pointer]
        assert await unit.journal() == []


async def test_a_wrong_crc_length_or_end_is_refused_and_the_next_frame_is_read(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeSerialTill(ack_s=2.5) as till, a_shop(unit, shop_dir, till):
        payload = b'{"method":"GET","path":"/v1/status"}'
        good = frame(200, payload)
        longer = good[:2] + (len(payload) + 2000).to_bytes(2, "big") + good[4:]
        shorter = good[:2] + (len(payload) - 3).to_bytes(2, "big") + good[4:]
        for bad in (good[:-3] + b"\x00\x00\x03", good[:-1] + b"\x00", shorter, longer):
            before = till.heard_naks
            await till.write(bad)
            answer = await till.ask("GET", "/v1/status")
            assert answer.status == 200
            assert till.heard_naks > before or bad is longer


async def test_unplugged_in_mid_answer_and_plugged_into_another_port(
    unit: UnitControl, shop_dir: Path, tmp_path: Path
) -> None:
    link = tmp_path / "by-id"
    async with FakeSerialTill(link=link, ack_s=ACK_S) as till:
        lines = {"kiosk": {"port": str(link), "till": "till-1"}}
        async with open_shop(make_settings(shop_dir, unit.url, serial_tills=lines)) as shop:
            await there(till)
            await unit.knobs(latencyMs=600)
            sale = a_sale()
            body = json.dumps(
                {"method": "POST", "path": "/v1/invoices", "key": "key", "body": sale}
            ).encode()
            asking = asyncio.ensure_future(till.exchange(body))
            await until_event(shop, "invoice.signing")
            till.unplug()
            asking.cancel()
            await unit.knobs(latencyMs=0)
            till.plug()
            async with asyncio.timeout(30):
                while True:
                    try:
                        answer = await till.exchange(body, again=True)
                        break
                    except LineDead:
                        continue
            assert (answer.status, answer.key) == (201, "key")
            assert (await till.sell("key", sale)).body == answer.body
            assert len(await unit.journal()) == 1


async def test_two_serial_tills_at_once_each_get_their_own(
    unit: UnitControl, shop_dir: Path
) -> None:
    wires = SerialWire(noise=b"\x00"), SerialWire(one_byte=True)
    async with FakeSerialTill(ack_s=ACK_S) as one, FakeSerialTill(ack_s=ACK_S) as two:
        async with a_shop(unit, shop_dir, one, two):
            one.wire, two.wire = wires

            async def sell(till: FakeSerialTill) -> list[str]:
                # The same keys at both tills: a key belongs to its till.
                sales = [a_sale() for _ in range(5)]
                answers = [await till.sell(f"key-{n}", sale) for n, sale in enumerate(sales)]
                assert [answer.status for answer in answers] == [201] * 5
                return [answer.body["invoiceId"] for answer in answers]

            first, second = await asyncio.gather(sell(one), sell(two))
            assert len({*first, *second}) == 10
            assert len(await unit.journal()) == 10


async def test_a_gateway_killed_while_it_signs_tells_the_till_the_one_receipt(
    shop_dir: Path,
) -> None:
    async with FakeSerialTill(ack_s=ACK_S) as till:
        daemon = Daemon(
            shop_dir, f'[serial_tills.kiosk]\nport = "{till.device_path}"\ntill = "till-1"\n'
        )
        await daemon.start()
        try:
            await there(till)
            till.ack_s = 2.0
            await daemon.unit.knobs(latencyMs=10_000)
            sale = a_sale()
            asking = asyncio.ensure_future(till.sell("key", sale))
            async with asyncio.timeout(30):
                while not daemon.stored("SIGNING"):
                    await asyncio.sleep(0.005)
            await daemon.kill()
            asking.cancel()
            await daemon.start()
            async with asyncio.timeout(60):
                while True:
                    try:
                        answer = await till.sell("key", sale)
                    except LineDead:
                        continue
                    if answer.status == 201:
                        break
                    assert answer.status in (202, 503), answer
                    await asyncio.sleep(0.2)
            assert (await till.sell("key", sale)).body == answer.body
            assert len(await daemon.unit.journal()) == 1
        finally:
            await daemon.stop()


async def test_the_fake_runs_alone(unit: UnitControl, shop_dir: Path, tmp_path: Path) -> None:
    link = tmp_path / "till"
    lines = {"kiosk": {"port": str(link), "till": "till-1"}}
    async with open_shop(make_settings(shop_dir, unit.url, serial_tills=lines)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hw_fakes.serial_till", "--link", str(link),
            "--corrupt-requests", "1", stdout=subprocess.PIPE,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0
        assert json.loads(out.splitlines()[-1])["status"] == 201
        assert len(await unit.journal()) == 1
