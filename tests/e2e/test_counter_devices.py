"""Scale and scanner on real ptys: what a till weighs and scans, and what becomes of it on bad wires,
without power, and on another port; and whose a port is."""

from __future__ import annotations

import asyncio
import fcntl
import os
import termios
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.counter import scale as counter_scale
from hw_fakes.line import Wire
from hw_fakes.scale.peer import FakeScale
from hw_fakes.scanner.peer import FakeScanner
from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FakeClock
from tests.support.counter import device_is, listening, weigh
from tests.support.shop import OpenShop, Reply, make_settings, open_shop


def pan(scale: FakeScale, **more: Any) -> dict[str, Any]:
    named = {"cas": "and", "continuous": "toledo-continuous", "cas-asked": "cas"}
    protocol = named.get(scale.protocol, scale.protocol)
    return {"scales": {"pan": {"port": scale.device_path, "protocol": protocol, **more}}}


def front(scanner: FakeScanner, till: str = "till-1") -> dict[str, Any]:
    return {"scanners": {"front": {"port": scanner.device_path, "till": till}}}


# --- scale ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["toledo", "and", "cas"])
async def test_what_lies_on_the_scale(unit: UnitControl, shop_dir: Path, protocol: Any) -> None:
    async with FakeScale(protocol) as scale:
        async with open_shop(make_settings(shop_dir, unit.url, **pan(scale))) as shop:
            await device_is(shop, "pan", None)
            scale.put("1.235")
            reply = await weigh(shop)
            assert (reply.status, reply.json) == (
                200,
                {"weight": "1.235", "unit": "kg", "stable": True},
            )
            # The bowl, tared; then what is in it.
            scale.press_tare()
            scale.put("2.740")
            assert (await weigh(shop)).json["weight"] == "1.505"
            scale.lift()
            assert "below zero" in (await weigh(shop)).json["detail"]
            scale.clear_tare()
            scale.put("15.100")
            over = await weigh(shop)
            assert (over.status, over.json["code"]) == (503, "DEVICE_PROBLEM")
            assert "too much" in over.json["detail"]
            scale.put("0.250")
            scale.press_zero()
            scale.lift()
            assert "below zero" in (await weigh(shop)).json["detail"]
            scale.press_zero()
            assert (await weigh(shop)).json["weight"] == "0.000"


async def test_a_scale_that_is_set_to_another_format_is_named_with_its_bytes(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeScale("yaohua", interval_s=0.01) as scale, FakeScale() as short:
        scales = {
            "pan": {"port": scale.device_path, "protocol": "and"},
            "deck": {"port": short.device_path, "protocol": "toledo"},
        }
        async with open_shop(make_settings(shop_dir, unit.url, scales=scales)) as shop:
            scale.put("1.235")
            await device_is(shop, "pan", 'this looks like protocol = "yaohua"')
            said = (await weigh(shop)).json["detail"]
            assert "it sends, but not what is set" in said and "30 30 3d 35 33 32 2e 31" in said
            await device_is(shop, "deck", None)
            short.point = False
            short.put("1.235")
            assert "decimals = 3" in (await weigh(shop, name="deck")).json["detail"]
            await device_is(shop, "deck", "decimals = 3")
            short.point = True
            assert (await weigh(shop, name="deck")).json["weight"] == "1.235"
            await device_is(shop, "deck", None)


async def test_scales_of_other_makers(unit: UnitControl, shop_dir: Path) -> None:
    protocols: list[Any] = ["continuous", "yaohua", "ohaus", "sics", "nci", "cas-asked", "dibal"]
    async with AsyncExitStack() as stack:
        scales = {
            each: await stack.enter_async_context(FakeScale(each, interval_s=0.02))
            for each in protocols
        }
        named = {
            name: pan(scale, unit="kg", decimals=3)["scales"]["pan"]
            for name, scale in scales.items()
        }
        async with open_shop(make_settings(shop_dir, unit.url, scales=named)) as shop:

            async def all_weigh() -> dict[str, Reply]:
                replies = await asyncio.gather(*(weigh(shop, name=name) for name in scales))
                return dict(zip(scales, replies, strict=True))

            for name, scale in scales.items():
                await device_is(shop, name, None)
                scale.put("1.235")
            for name, reply in (await all_weigh()).items():
                assert reply.json == {"weight": "1.235", "unit": "kg", "stable": True}, name
            for scale in scales.values():
                scale.put("-0.100")
            for name, reply in (await all_weigh()).items():
                part = "status 1" if name == "dibal" else "below zero"
                assert (reply.status, part in reply.json["detail"]) == (503, True), name
            for scale in scales.values():
                scale.put("15.100")
            assert {reply.status for reply in (await all_weigh()).values()} == {503}
            for scale in scales.values():
                scale.lift()
                scale.put("1.235")
                scale.restless = True
            for name, reply in (await all_weigh()).items():
                assert (reply.status, "not at rest" in reply.json["detail"]) == (503, True), name


async def test_a_scale_at_unrest_gives_no_weight_to_charge_for(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeScale("toledo") as asked, FakeScale("and") as sending:
        scales = {
            "pan": {"port": asked.device_path, "protocol": "toledo"},
            "deck": {"port": sending.device_path, "protocol": "and"},
        }
        async with open_shop(make_settings(shop_dir, unit.url, scales=scales)) as shop:
            await device_is(shop, "pan", None)
            await device_is(shop, "deck", None)
            for scale in (asked, sending):
                scale.put("1.000")
                scale.restless = True
            moving = await weigh(shop)
            assert moving.status == 503
            assert "not at rest" in moving.json["detail"]
            assert moving.headers["Retry-After"] == "1"
            shown = await weigh(shop, name="deck")
            assert (shown.status, shown.json["stable"]) == (200, False)
            for scale in (asked, sending):
                scale.restless = False
            assert (await weigh(shop)).json["weight"] == "1.000"
            assert (await weigh(shop, name="deck")).json["stable"] is True
            assert (await weigh(shop, name="none")).status == 404


@pytest.mark.parametrize("protocol", ["toledo", "and"])
async def test_a_weight_is_never_older_than_the_question(
    unit: UnitControl, shop_dir: Path, protocol: Any
) -> None:
    async with FakeScale(protocol) as scale:
        async with open_shop(make_settings(shop_dir, unit.url, **pan(scale))) as shop:
            await device_is(shop, "pan", None)
            for grams in range(100, 1100, 100):
                scale.put(f"0.{grams:03d}" if grams < 1000 else "1.000")
                assert Decimal((await weigh(shop)).json["weight"]) * 1000 == grams


@pytest.mark.parametrize("at", [0, 4], ids=["whole", "cut"])
async def test_a_late_answer_is_not_taken_for_the_next_one(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The scale's answer stalls before its first byte, or in the middle; then other goods lie there."""
    # After 5 s it is given up; here it is waited for, however long the next question takes.
    monkeypatch.setattr(counter_scale, "LATE_S", 60.0)
    async with FakeScale(wire=Wire(stall_after=at, one_byte=True)) as scale:
        async with open_shop(make_settings(shop_dir, unit.url, **pan(scale))) as shop:
            await device_is(shop, "pan", None)
            scale.put("3.000")
            assert "no answer" in (await weigh(shop)).json["detail"]
            scale.put("0.500")
            asked = asyncio.ensure_future(weigh(shop))
            # The next question stands when (the rest of) the old answer comes.
            async with asyncio.timeout(20):
                while not waits(scale):
                    await asyncio.sleep(0.01)
            scale.line.resume()
            assert (await asked).json["weight"] == "0.500"
            scale.put("2.000")
            assert (await weigh(shop)).json["weight"] == "2.000"


def waits(scale: FakeScale) -> bool:
    """The gateway's question lies in the stalled wire."""
    waiting = bytearray(4)
    fcntl.ioctl(scale.line._master, termios.FIONREAD, waiting)
    return int.from_bytes(waiting, "little") > 0


@pytest.mark.parametrize(
    "wire",
    [Wire(one_byte=True), Wire(baud=1200), Wire(delay_s=0.3)],
    ids=["bytes", "slow", "late"],
)
async def test_a_slow_wire_to_the_scale(unit: UnitControl, shop_dir: Path, wire: Wire) -> None:
    async with FakeScale(wire=wire) as scale:
        async with open_shop(make_settings(shop_dir, unit.url, **pan(scale))) as shop:
            await device_is(shop, "pan", None)
            scale.put("1.235")
            assert (await weigh(shop)).json["weight"] == "1.235"


@pytest.mark.parametrize("protocol", ["toledo", "and", "cas"])
@pytest.mark.parametrize("wire", [{"noise": 0.05}, {"lose_every": 23}], ids=str)
async def test_a_noisy_wire_gives_the_weight_or_none(
    unit: UnitControl, shop_dir: Path, protocol: Any, wire: dict[str, Any]
) -> None:
    """Never another weight: a digit that was lost leaves a number too."""
    async with FakeScale(protocol, wire=Wire(**wire), interval_s=0.01) as scale:
        async with open_shop(make_settings(shop_dir, unit.url, **pan(scale))) as shop:
            await device_is(shop, "pan", None)
            scale.put("12.345")
            for reply in [await weigh(shop) for _ in range(3)]:
                assert reply.status in (200, 503)
                if reply.status == 200:
                    assert reply.json["weight"] == "12.345"
            scale.wire.noise = 0.0
            scale.wire.lose_every = 0
            async with asyncio.timeout(20):
                while (await weigh(shop)).status != 200:
                    pass


async def test_two_tills_ask_one_scale_at_once(unit: UnitControl, shop_dir: Path) -> None:
    # The first answer is under way while the others come.
    async with FakeScale(wire=Wire(delay_s=0.3)) as scale:
        async with open_shop(make_settings(shop_dir, unit.url, **pan(scale))) as shop:
            await device_is(shop, "pan", None)
            scale.put("0.750")
            tills = [f"till-{number}" for number in range(1, 9)]
            replies = await asyncio.gather(*(weigh(shop, till) for till in tills))
            assert {reply.json["weight"] for reply in replies} == {"0.750"}
            # Questions that stand in line are answered by one: nobody waits for seven others.
            assert len([entry for entry in scale.journal() if entry["what"] == "asked"]) < 8


async def test_a_scale_without_an_answer_without_power_and_unplugged(
    unit: UnitControl, shop_dir: Path, tmp_path: Path
) -> None:
    async with FakeScale(link=tmp_path / "by-path") as scale:
        async with open_shop(make_settings(shop_dir, unit.url, **pan(scale))) as shop:
            await device_is(shop, "pan", None)
            scale.put("0.750")
            scale.silent = True
            silent = await asyncio.gather(*(weigh(shop) for _ in range(4)))
            assert {reply.status for reply in silent} == {503}
            assert "no answer" in silent[0].json["detail"]
            scale.silent = False
            scale.power_off()
            assert "no answer" in (await weigh(shop)).json["detail"]
            scale.power_on()
            assert (await weigh(shop)).json["weight"] == "0.750"
            scale.silent = True
            asked = asyncio.ensure_future(weigh(shop))
            count = len(scale.journal())
            await scale.wait_until(lambda: len(scale.journal()) > count)
            scale.unplug()
            assert "plugged" in (await asked).json["detail"]
            scale.silent = False
            scale.plug()
            await device_is(shop, "pan", None)
            assert (await weigh(shop)).json["weight"] == "0.750"


async def test_a_scale_that_is_set_to_pounds_or_to_counting(
    unit: UnitControl, shop_dir: Path
) -> None:
    """Half a kilo would be charged as one and a tenth."""
    async with FakeScale() as asked, FakeScale("and") as sending:
        scales = {
            "pan": {"port": asked.device_path, "protocol": "toledo"},
            "deck": {"port": sending.device_path, "protocol": "and"},
        }
        async with open_shop(make_settings(shop_dir, unit.url, scales=scales)) as shop:
            await device_is(shop, "pan", None)
            await device_is(shop, "deck", None)
            for name, scale in (("pan", asked), ("deck", sending)):
                scale.put("0.500")
                scale.unit = "lb"
                reply = await weigh(shop, name=name)
                assert (reply.status, "kg" in reply.json["detail"]) == (503, True)
            sending.unit = "g"
            assert (await weigh(shop, name="deck")).json["weight"] == "0.5000"


# --- scanner --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suffix",
    ["\r", "\n", "\r\n", "\t", "\0", "\x03", "\r\0"],
    ids=["cr", "lf", "crlf", "tab", "nul", "etx", "padded"],
)
async def test_a_code_is_an_event_for_its_till_and_for_no_other(
    unit: UnitControl, shop_dir: Path, suffix: str
) -> None:
    async with FakeScanner(suffix=suffix) as one, FakeScanner(suffix=suffix) as two:
        scanners = {
            "one": {"port": one.device_path, "till": "till-1"},
            "two": {"port": two.device_path, "till": "till-2"},
        }
        async with open_shop(make_settings(shop_dir, unit.url, scanners=scanners)) as shop:
            await device_is(shop, "one", None)
            await device_is(shop, "two", None)
            async with listening(shop, "till-1") as first, listening(shop, "till-2") as second:
                one.scan("6161100100015")
                two.scan("5449000000996")
                one.prefix = "\x02]E0"
                one.scan("6161100100022")
                heard = await first.wait_for("scanner.read", 2)
                assert [event["code"] for event in heard] == ["6161100100015", "6161100100022"]
                assert {event["device"] for event in heard} == {"one"}
                (other,) = await second.wait_for("scanner.read", 1)
                assert other["code"] == "5449000000996"
                assert len(first.of("scanner.read")) == 2


@pytest.mark.parametrize(
    "wire", [Wire(one_byte=True), Wire(baud=1200), Wire(delay_s=0.2)], ids=["bytes", "slow", "late"]
)
async def test_a_code_in_pieces_is_one_code(unit: UnitControl, shop_dir: Path, wire: Wire) -> None:
    # The clock stands still: no pause between two pieces is long enough to cut a code.
    clock = FakeClock()
    async with FakeScanner(wire=wire, suffix="\r\n") as scanner:
        settings = make_settings(shop_dir, unit.url, **front(scanner))
        async with open_shop(settings, clock) as shop:
            await device_is(shop, "front", None)
            async with listening(shop, "till-1") as heard:
                codes = [f"616110010{number:04d}" for number in range(5)]
                for code in codes:
                    scanner.scan(code)
                events = await heard.wait_for("scanner.read", 5)
                assert [event["code"] for event in events] == codes


async def test_junk_is_no_code(unit: UnitControl, shop_dir: Path) -> None:
    async with FakeScanner() as scanner:
        async with open_shop(make_settings(shop_dir, unit.url, **front(scanner))) as shop:
            await device_is(shop, "front", None)
            async with listening(shop, "till-1") as heard:
                for junk in (
                    b"\x00\xff\xfe\r",
                    b"\r\n\r\n\r",
                    b"X" * 513 + b"\r",
                    b"Y" * 5000 + b"\r",
                    b"61611\x00100\r",
                    "6161é\r".encode(),
                ):
                    scanner.send_raw(junk)
                await device_is(shop, "front", "it sends, but not what is set: 36 31 36 31 c3 a9")
                scanner.scan("Z" * 512)
                # Fields of a GS1 code are held apart by FNC1.
                scanner.scan("0106161100100015\x1d3102001250")
                events = await heard.wait_for("scanner.read", 2)
                assert [event["code"] for event in events] == [
                    "Z" * 512,
                    "0106161100100015\x1d3102001250",
                ]


async def test_half_a_code_is_no_code(unit: UnitControl, shop_dir: Path) -> None:
    """The wire stalls in the middle: neither half, nor a half and the next code together."""
    clock = FakeClock()
    async with FakeScanner() as scanner:
        settings = make_settings(shop_dir, unit.url, **front(scanner))
        async with open_shop(settings, clock) as shop:
            await device_is(shop, "front", None)
            async with listening(shop, "till-1") as heard:
                scanner.send_raw(b"6161100")
                await reached(shop, b"6161100")
                await clock.advance(seconds=5)
                scanner.send_raw(b"100015\r")
                scanner.scan("5449000000996")
                (event,) = await heard.wait_for("scanner.read", 1)
                assert event["code"] == "5449000000996"


async def reached(shop: OpenShop, data: bytes, name: str = "front") -> None:
    """Waits until the gateway has these bytes, as a technician's tap shows."""
    async with asyncio.timeout(20):
        while True:
            tap = await shop.technician().request("GET", f"/v1/devices/{name}/tap")
            heard = [piece["hex"] for piece in tap.json["traffic"] if piece["direction"] == "in"]
            if data in bytes.fromhex("".join(heard)):
                return


async def test_a_scanner_put_back_on_another_port(
    unit: UnitControl, shop_dir: Path, tmp_path: Path
) -> None:
    async with FakeScanner(link=tmp_path / "by-id") as scanner:
        async with open_shop(make_settings(shop_dir, unit.url, **front(scanner))) as shop:
            await device_is(shop, "front", None)
            async with listening(shop, "till-1") as heard:
                scanner.send_raw(b"6161")
                await reached(shop, b"6161")
                for _ in range(2):
                    before = scanner.line.pty
                    scanner.unplug()
                    await device_is(shop, "front", "plugged in")
                    scanner.plug()
                    assert scanner.line.pty != before
                    await device_is(shop, "front", None)
                scanner.scan("5449000000996")
                (event,) = await heard.wait_for("scanner.read", 1)
                assert event["code"] == "5449000000996"


# --- ports ----------------------------------------------------------------------------------------


async def test_a_port_has_one_owner(unit: UnitControl, shop_dir: Path, tmp_path: Path) -> None:
    """By another name, and by another program: a problem that says so, and it heals."""
    async with FakeScanner() as scanner, FakeScale() as scale:
        again = tmp_path / "by-path"
        taken = os.open(scale.device_path, os.O_RDWR | os.O_NOCTTY)
        fcntl.flock(taken, fcntl.LOCK_EX)
        before = termios.tcgetattr(taken)
        settings = make_settings(
            shop_dir,
            unit.url,
            scanners={
                "front": {"port": scanner.device_path, "till": "till-1"},
                "back": {"port": str(again), "till": "till-2"},
            },
            scales={"pan": {"port": scale.device_path, "baud": 1200}},
        )
        async with open_shop(settings) as shop:
            await device_is(shop, "front", None)
            again.symlink_to(scanner.device_path)
            await device_is(shop, "back", "in use by another")
            await device_is(shop, "pan", "in use by another")
            assert (await weigh(shop)).json["code"] == "DEVICE_PROBLEM"
            # Not even its speed was touched.
            assert termios.tcgetattr(taken) == before
            async with listening(shop, "till-1") as heard:
                scanner.scan("6161100100015")
                assert len(await heard.wait_for("scanner.read", 1)) == 1
            os.close(taken)
            await device_is(shop, "pan", None)
            assert exclusive(scale.line._slave)
            assert (await weigh(shop)).json["weight"] == "0.000"
        # And all is given back at the end.
        assert not exclusive(scale.line._slave)


def exclusive(fd: int) -> bool:
    """Whether others' opens of this terminal are refused (TIOCGEXCL, not in Python's termios)."""
    answer = bytearray(4)
    fcntl.ioctl(fd, 0x80045440, answer)
    return any(answer)
