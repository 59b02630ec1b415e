"""A till on a serial line: its frames become requests to the gateway's own API, one after the other.

An exchange is over when the till has acknowledged the answer. Until then a frame that comes again
(its ACK or its answer was lost) is acknowledged again and not done again; its answer is sent again. A
till that starts anew and sends the sale again is caught by its Idempotency-Key, as over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway import strict_json
from gateway.clock import Clock, wake_or_sleep
from gateway.counter.own_api import PREFIX, OwnApi
from gateway.devices import frames
from gateway.devices.channel import LineSettings
from gateway.devices.frames import Acknowledged, Broken, Decoder, Frame, Refused
from gateway.devices.line import DeviceLine
from gateway.errors import (
    BodyTooLarge,
    FieldError,
    FrameInvalid,
    GatewayError,
    NotFound,
    ShuttingDown,
)

log = logging.getLogger(__name__)

# A frame's bytes follow each other closer than this, or the frame is broken. Seconds.
SILENCE_S = 1.0
# An answer that is not acknowledged so long (seconds) after its last byte is sent again, so often.
ANSWER_TRIES, ANSWER_WAIT_S = 5, 2.0
BITS_PER_BYTE = 10
# Exchanges that are open at once; sequence numbers run from 0 to 255.
OPEN_MAX = 16
# A request may have so many bytes of JSON: half a second at 1 Mbit/s, five at 115200 baud.
REQUEST_MAX = 60_000
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PATH = re.compile(r"/[\x21-\x7e]{0,2000}")
MEMBERS = ("method", "path", "key", "confirm", "body")
# A stream never ends, so it cannot be one answer.
STREAM = PREFIX + "events"


@dataclass(slots=True, eq=False)
class _Exchange:
    """A request and, once it is known, its answer. `left`: the till has gone on to something else."""

    sequence: int
    body: bytes
    answer: bytes | None = None
    left: bool = False


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    key: str | None
    confirm: str | None
    body: bytes | None


class SerialTill:
    """Two loops: `line.run` hears, `run` works requests off in order."""

    def __init__(self, name: str, settings: LineSettings, api: OwnApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._decoder = Decoder()
        self._heard_ns = 0
        self._waiting: asyncio.Queue[_Exchange] = asyncio.Queue()
        self._open: OrderedDict[int, _Exchange] = OrderedDict()
        self._sending: _Exchange | None = None
        # The till has said something about the answer under way.
        self._told = asyncio.Event()
        self._acknowledged = False
        self._sequence = 0
        self._replies: set[asyncio.Task[bool]] = set()
        self.line = DeviceLine(
            name, settings, clock, heard=self._heard, opened=self._decoder.forget
        )

    # --- what the till says ---------------------------------------------------------------------------

    def _heard(self, data: bytes) -> None:
        now = self._clock.boottime_ns()
        late = self._decoder.in_frame and now - self._heard_ns > SILENCE_S * 1e9
        self._heard_ns = now
        for piece in (self._decoder.gap() if late else []) + self._decoder.feed(data):
            match piece:
                case Acknowledged(sequence):
                    self._answered(sequence, acknowledged=True)
                case Refused(sequence):
                    self._answered(sequence, acknowledged=False)
                case Broken(sequence):
                    self._say(frames.nak(sequence))
                case Frame():
                    self._take(piece)

    def _answered(self, sequence: int, *, acknowledged: bool) -> None:
        exchange = self._sending
        if exchange is None or sequence != self._sequence:
            return
        if acknowledged:
            # Over at once: the very next frame may be a new question under the same number.
            self._acknowledged = True
            if self._open.get(exchange.sequence) is exchange:
                del self._open[exchange.sequence]
        self._told.set()

    def _take(self, frame: Frame) -> None:
        known = self._open.get(frame.sequence)
        if known is not None and known.body == frame.body:
            self._say(frames.ack(frame.sequence))
            if known.answer is not None and known is not self._sending:
                self._waiting.put_nowait(known)
            return
        if known is not None:
            # The till has begun anew: what it asked under this number before is no answer to this.
            known.left = True
            del self._open[frame.sequence]
            if known is self._sending:
                self._told.set()
        while len(self._open) >= OPEN_MAX and self._give_up_one():
            pass
        if len(self._open) >= OPEN_MAX:
            return  # without an ACK it comes again, when there is room
        self._say(frames.ack(frame.sequence))
        exchange = _Exchange(frame.sequence, frame.body)
        self._open[frame.sequence] = exchange
        self._waiting.put_nowait(exchange)

    def _give_up_one(self) -> bool:
        """Forget the oldest answer that nobody acknowledged; False if there is none."""
        for sequence, exchange in self._open.items():
            if exchange.answer is not None and exchange is not self._sending:
                exchange.left = True
                del self._open[sequence]
                return True
        return False

    def _say(self, data: bytes) -> None:
        task = asyncio.ensure_future(self.line.write(data))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    # --- what it is told ------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            while True:
                exchange = await self._waiting.get()
                if exchange.answer is None:
                    exchange.answer = await self._answer(exchange)
                if self._open.get(exchange.sequence) is exchange:
                    await self._send(exchange)
        finally:
            # Started anew, it knows of nothing: what the till sends again is done again, by its key.
            self._sending = None
            self._open.clear()
            self._waiting = asyncio.Queue()
            await self._api.close()

    async def _answer(self, exchange: _Exchange) -> bytes:
        key, path = None, "/"
        try:
            asked = _read(exchange.body)
            key, path = asked.key, asked.path
            reply = await self._ask(asked)
            if len(reply.raw) > frames.LENGTH_MAX - 500:
                raise BodyTooLarge("The answer is longer than a frame; ask for less with ?limit=.")
            return _envelope(exchange.sequence, key, reply.status, reply.raw, reply.replayed)
        except GatewayError as error:
            raw = json.dumps(error.members(path), separators=(",", ":"), ensure_ascii=False)
            return _envelope(exchange.sequence, key, error.status, raw.encode("utf-8", "replace"))

    async def _ask(self, asked: _Request) -> Any:
        try:
            return await self._api.request(
                asked.method, asked.path, key=asked.key, confirm=asked.confirm, body=asked.body
            )
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            log.warning("serial_till.no_answer name=%s error=%r", self.line.name, error)
            raise ShuttingDown(
                "The gateway is starting. Send the same again in a few seconds.",
                retry_after_s=5,
                extra={"signed": "unknown"},
            ) from error

    async def _send(self, exchange: _Exchange) -> None:
        assert exchange.answer is not None
        self._sequence = (self._sequence + 1) % 256
        frame = frames.encode(self._sequence, exchange.answer)
        on_the_wire_s = len(frame) * BITS_PER_BYTE / self.line.settings.baud
        self._sending, self._acknowledged = exchange, False
        try:
            for _ in range(ANSWER_TRIES):
                self._told.clear()
                await self.line.write(frame)
                if not self._acknowledged and not exchange.left:
                    await wake_or_sleep(self._clock, self._told, on_the_wire_s + ANSWER_WAIT_S)
                if self._acknowledged or exchange.left:
                    break
            else:
                # Kept: the till asks again, or it has a receipt number to ask for.
                log.warning("serial_till.unacknowledged name=%s", self.line.name)
        finally:
            self._sending = None


def _read(raw: bytes) -> _Request:
    """FrameInvalid, BodyNotJson, BodyTooLarge, NotFound."""
    if len(raw) > REQUEST_MAX:
        raise BodyTooLarge("The request is too large for one sale. Split the sale.")
    value = strict_json.parse(strict_json.without_mark(raw), strict_json.DEPTH_MAX + 1)
    if not isinstance(value, dict):
        raise FrameInvalid("A frame must hold an object with method and path.")
    errors = [
        FieldError(f"/{name}", "UNKNOWN_FIELD", f"{name} is not a member of a request.")
        for name in value
        if name not in MEMBERS
    ]
    method, path = value.get("method"), value.get("path")
    if method not in METHODS:
        errors.append(FieldError("/method", "NOT_ALLOWED", "method must be GET or POST."))
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        errors.append(FieldError("/path", "NOT_ALLOWED", "path must begin with /v1/."))
    errors += [
        FieldError(f"/{name}", "WRONG_TYPE", f"{name} must be text in quotes.")
        for name in ("key", "confirm")
        if not isinstance(value.get(name, ""), str)
    ]
    if errors:
        raise FrameInvalid("The frame holds no request. Nothing was done.", errors=errors)
    assert isinstance(path, str)
    where = path.partition("?")[0]
    if (
        not where.startswith(PREFIX)
        or ".." in where.lower().replace("%2e", ".")
        or where.rstrip("/") == STREAM
    ):
        raise NotFound(f"There is nothing at {where}.")
    body = json.dumps(value["body"]).encode() if "body" in value else None
    return _Request(str(method), path, value.get("key"), value.get("confirm"), body)


def _envelope(
    reply_to: int, key: str | None, status: int, raw: bytes, replayed: bool = False
) -> bytes:
    """The answer's JSON with the API's own bytes in it."""
    head: dict[str, Any] = {"inReplyTo": reply_to}
    if key is not None:
        head["key"] = key[:200]
    head["status"] = status
    if replayed:
        head["replayed"] = True
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False)
    return text[:-1].encode("utf-8", "replace") + b',"body":' + raw + b"}"
