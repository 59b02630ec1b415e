"""The line under display, scale, scanner and tills: it heals, it never runs hot, and leaves nothing open."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

from gateway.counter.scale import Scale
from gateway.devices.channel import Channel, LineSettings
from gateway.devices.line import REOPEN_LAST_S, STUCK, WRITE_MAX_S, DeviceLine
from hw_fakes.scale.peer import FakeScale
from hw_fakes.scanner.peer import FakeScanner
from tests.support.clock import FakeClock


class NotingClock(FakeClock):
    """Writes down how long it was asked to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await super().sleep(seconds)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.002)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@asynccontextmanager
async def running(line: DeviceLine) -> AsyncIterator[DeviceLine]:
    task = asyncio.ensure_future(line.run())
    try:
        yield line
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_port_that_is_not_there_is_tried_in_bounded_steps(tmp_path: Path) -> None:
    clock = NotingClock()
    async with running(DeviceLine("front", LineSettings(str(tmp_path / "none")), clock)) as line:
        for count in range(1, 8):
            await until(lambda count=count: len(clock.asked) >= count)
            await clock.advance(seconds=REOPEN_LAST_S)
        assert "plugged in" in (line.problem or "")
        assert await line.write(b"x") is False
    assert clock.asked[:5] == [0.5, 1.0, 2.0, 2.0, 2.0]


async def test_a_device_that_hangs_up_at_once_is_not_opened_all_the_time() -> None:
    clock = NotingClock()
    opened = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        line = DeviceLine("front", LineSettings(f"socket://127.0.0.1:{port}"), clock)
        async with running(line):
            for count in range(1, 6):
                await until(lambda count=count: len(clock.asked) >= count)
                # Each opening has had its pause, and no pause two openings.
                assert (opened, len(clock.asked)) == (count, count)
                await clock.advance(seconds=clock.asked[-1])
    assert clock.asked[:4] == [0.5, 1.0, 2.0, 2.0]


async def test_a_stop_leaves_no_file_no_thread_and_no_lock() -> None:
    ours = {"MainThread", "asyncio"}
    # The thread of a printer that was let go before, by another test, may still be at its end.
    await until(lambda: {t.name.split("_")[0] for t in threading.enumerate()} <= ours)
    async with FakeScanner() as scanner:
        await asyncio.to_thread(lambda: None)
        settings = LineSettings(scanner.device_path)
        files = open_files()
        for turn in range(12):
            line = DeviceLine("front", settings, FakeClock())
            async with running(line):
                # Stopped before it opens, while it does, and after.
                if turn % 3 == 1:
                    await asyncio.sleep(0)
                elif turn % 3 == 2:
                    await until(lambda line=line: line.problem is None)
            assert open_files() == files
        channel = Channel(settings)
        channel.open()
        channel.close()
        # The loop's own pool; a line has no thread of its own.
        assert {t.name.split("_")[0] for t in threading.enumerate()} <= ours


async def test_a_device_that_takes_no_data_is_said_to_be_stuck_and_heals() -> None:
    clock = FakeClock()
    async with FakeScanner() as device:
        line = DeviceLine("pole", LineSettings(device.device_path), clock)
        async with running(line):
            await until(lambda: line.problem is None)
            device.line.hold()
            long = asyncio.ensure_future(line.write(b"x" * 1_000_000))
            async with asyncio.timeout(20):
                while not long.done():
                    await clock.advance(seconds=WRITE_MAX_S / 8)
            assert await long is False
            assert STUCK in (line.problem or "")
            # The next waits in line, and goes out once there is room.
            short = asyncio.ensure_future(line.write(b"y"))
            device.line.release()
            assert await short is True
            assert line.problem is None


async def test_a_cable_pulled_in_mid_write() -> None:
    clock = FakeClock()
    async with FakeScanner() as device:
        line = DeviceLine("pole", LineSettings(device.device_path), clock)
        async with running(line):
            await until(lambda: line.problem is None)
            device.line.hold()
            long = asyncio.ensure_future(line.write(b"x" * 1_000_000))
            await asyncio.sleep(0)
            device.unplug()
            async with asyncio.timeout(20):
                assert await long is False
            await until(lambda: line.problem is not None and not line.is_open)
            assert await line.write(b"x") is False


async def test_what_a_scale_sent_before_the_question_is_no_answer_to_it() -> None:
    """The old weight lies unread in the port while the till asks."""
    clock = FakeClock()
    async with FakeScale("and") as device:
        device.silent = True
        scale = Scale("pan", LineSettings(device.device_path), "and", clock)
        async with running(scale.line):
            await until(lambda: scale.line.problem is None)
            device.put("9.000")
            device.say(device.a_line() * 3)
            device.put("0.500")
            asked = asyncio.ensure_future(scale.read())
            await asyncio.sleep(0)
            device.silent = False
            async with asyncio.timeout(20):
                assert (await asked).weight == Decimal("0.500")
