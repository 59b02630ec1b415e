"""The till itself: asks, sends again, acknowledges; and a wire that loses, damages, stalls and is pulled."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_fakes.line import OnALine, PtyLine
from hw_fakes.serial_till.codec import ACK, NAK, Heard, Listener, frame, short

TRIES = 5


class LineDead(Exception):
    """The other side did not acknowledge, or not answer, as often as it was asked."""


@dataclass(slots=True)
class SerialWire:
    """What happens to the next so many things on the wire, seen from the till."""

    one_byte: bool = False
    lose_requests: int = 0
    corrupt_requests: int = 0
    lose_their_acks: int = 0
    lose_answers: int = 0
    corrupt_answers: int = 0
    lose_our_acks: int = 0
    # Half of the next request, then silence for so long (seconds), then nothing more of it.
    stall_s: float = 0.0
    # Sent before every frame.
    noise: bytes = b""


@dataclass(frozen=True, slots=True)
class TillAnswer:
    """`raw` is the answer's whole JSON, `body` what the API said."""

    status: int
    body: Any
    raw: bytes
    replayed: bool
    key: str | None


class FakeSerialTill(OnALine):
    """Async context manager; the gateway opens `device_path`, which is `link` where there is one.
    `ack_s`, `answer_s`: its patience."""

    def __init__(
        self,
        wire: SerialWire | None = None,
        *,
        link: Path | None = None,
        ack_s: float = 2.0,
        answer_s: float = 90.0,
    ) -> None:
        self.wire = wire or SerialWire()
        self.line = PtyLine(self._hear, link=link)
        self.ack_s = ack_s
        self.answer_s = answer_s
        self.sequence = 0
        # How often each of these went over the wire.
        self.sent_frames = 0
        self.heard_answers = 0
        self.heard_naks = 0
        self._listener = Listener()
        self._asked = -1
        self._acked = asyncio.Event()
        self._refused = False
        self._answered = asyncio.Event()
        self._answer: dict[str, Any] = {}
        self._raw = b""

    def plug(self) -> None:
        """On a fresh pty."""
        self._listener = Listener()
        super().plug()

    def restart(self) -> None:
        """Power off and on: it knows nothing of before and counts from the beginning."""
        self.sequence = 0
        self._asked = -1
        self._listener = Listener()

    # --- asking -----------------------------------------------------------------------------------------

    async def ask(
        self, method: str, path: str, *, key: str | None = None, **more: Any
    ) -> TillAnswer:
        """One request to its answer. LineDead when there is none."""
        value = {"method": method, "path": path, **more}
        if key is not None:
            value["key"] = key
        return await self.exchange(json.dumps(value).encode())

    async def sell(self, key: str | None, sale: dict[str, Any]) -> TillAnswer:
        return await self.ask("POST", "/v1/invoices", key=key, body=sale)

    async def exchange(self, payload: bytes, *, again: bool = False) -> TillAnswer:
        """Any bytes as a request; `again` under the sequence number of the last one."""
        if not again:
            self.sequence = (self.sequence + 1) % 256
        self._asked = self.sequence
        self._acked.clear()
        self._answered.clear()
        await self._until_acknowledged(frame(self.sequence, payload))
        try:
            async with asyncio.timeout(self.answer_s):
                await self._answered.wait()
        except TimeoutError:
            raise LineDead(f"no answer to {self.sequence}") from None
        self._asked = -1
        found = self._answer
        return TillAnswer(
            found["status"],
            found["body"],
            self._raw,
            found.get("replayed", False),
            found.get("key"),
        )

    async def _until_acknowledged(self, data: bytes) -> None:
        for _ in range(TRIES):
            self._refused = False
            await self._send(data)
            try:
                async with asyncio.timeout(self.ack_s):
                    await self._acked.wait()
            except TimeoutError:
                continue
            if not self._refused:
                return
            self._acked.clear()
        raise LineDead(f"{self.sequence} was never acknowledged")

    async def _send(self, data: bytes) -> None:
        wire = self.wire
        self.sent_frames += 1
        if wire.lose_requests > 0:
            wire.lose_requests -= 1
            return
        if wire.corrupt_requests > 0:
            wire.corrupt_requests -= 1
            data = data[:10] + bytes([data[10] ^ 0x40]) + data[11:]
        if wire.stall_s:
            await self.write(data[: len(data) // 2])
            pause, wire.stall_s = wire.stall_s, 0.0
            await asyncio.sleep(pause)
            return
        await self.write(wire.noise + data)

    async def write(self, data: bytes) -> None:
        """Bytes as they are."""
        self.line.wire.one_byte = self.wire.one_byte
        await self.line.write(data)

    # --- hearing ----------------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        for heard in self._listener.hear(data):
            self._take(heard)

    def _take(self, heard: Heard) -> None:
        wire = self.wire
        if heard.kind == "ack" and heard.sequence == self._asked:
            if wire.lose_their_acks > 0:
                wire.lose_their_acks -= 1
            else:
                self._acked.set()
        elif heard.kind == "nak":
            self.heard_naks += 1
            if heard.sequence == self._asked and not self._acked.is_set():
                self._refused = True
                self._acked.set()
        elif heard.kind == "broken":
            self.line.put(short(NAK, heard.sequence))
        elif heard.kind == "frame":
            self._hear_answer(heard)

    def _hear_answer(self, heard: Heard) -> None:
        wire = self.wire
        if wire.lose_answers > 0:
            wire.lose_answers -= 1
            return
        if wire.corrupt_answers > 0:
            wire.corrupt_answers -= 1
            self.line.put(short(NAK, heard.sequence))
            return
        value = json.loads(heard.payload)
        if value["inReplyTo"] == self._asked and not self._acked.is_set():
            # It may be the answer to an older request of this number: not taken before the ACK.
            return
        self.heard_answers += 1
        if wire.lose_our_acks > 0:
            wire.lose_our_acks -= 1
        else:
            self.line.put(short(ACK, heard.sequence))
        if value["inReplyTo"] == self._asked:
            self._answer, self._raw = value, heard.payload
            self._answered.set()
