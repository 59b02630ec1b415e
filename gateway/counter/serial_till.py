"""A till on a serial line: its frames become requests to the gateway's own API, one after the other.

A frame that comes again (its ACK was lost) is acknowledged again and not done again; a till that
starts anew and sends the sale again is caught by its Idempotency-Key, as over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from typing import Any

import aiohttp

from gateway.clock import Clock, wake_or_sleep
from gateway.counter.own_api import PREFIX, OwnApi
from gateway.devices import frames
from gateway.devices.channel import LineSettings
from gateway.devices.frames import Acknowledged, Broken, Decoder, Frame, Refused
from gateway.devices.line import DeviceLine

log = logging.getLogger(__name__)

# A frame's bytes follow each other closer than this, or the frame is broken. Seconds.
SILENCE_S = 1.0
# An answer that is not acknowledged is sent again, so often and after so long (seconds).
ANSWER_TRIES, ANSWER_WAIT_S = 5, 2.0
# Frames remembered to know a repeat; sequence numbers run from 0 to 255.
REMEMBER = 32
WAITING_MAX = 16
METHODS = ("GET", "POST")


class SerialTill:
    """Two loops: `line.run` hears, `run` works requests off in order."""

    def __init__(self, name: str, settings: LineSettings, api: OwnApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._decoder = Decoder()
        self._heard_ns = 0
        self._requests: asyncio.Queue[Frame] = asyncio.Queue(WAITING_MAX)
        self._seen: OrderedDict[tuple[int, bytes], None] = OrderedDict()
        self._acknowledged = asyncio.Event()
        self._awaited: int | None = None
        self._sequence = 0
        self._replies: set[asyncio.Task[bool]] = set()
        self.line = DeviceLine(name, settings, clock, heard=self._heard, opened=self._begin)

    def _begin(self) -> None:
        self._decoder.forget()
        self._seen.clear()

    def _heard(self, data: bytes) -> None:
        now = self._clock.boottime_ns()
        if self._decoder.in_frame and now - self._heard_ns > SILENCE_S * 1e9:
            self._decoder.forget()
        self._heard_ns = now
        for piece in self._decoder.feed(data):
            match piece:
                case Acknowledged(sequence):
                    if sequence == self._awaited:
                        self._acknowledged.set()
                case Refused(sequence):
                    pass  # sent again when the wait is over
                case Broken(sequence):
                    self._say(frames.nak(sequence))
                case Frame():
                    self._take(piece)

    def _take(self, frame: Frame) -> None:
        known = (frame.sequence, frame.body)
        if known not in self._seen:
            try:
                self._requests.put_nowait(frame)
            except asyncio.QueueFull:
                self._say(frames.nak(frame.sequence))
                return
            self._seen[known] = None
            while len(self._seen) > REMEMBER:
                self._seen.popitem(last=False)
        self._say(frames.ack(frame.sequence))

    def _say(self, data: bytes) -> None:
        task = asyncio.ensure_future(self.line.write(data))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def run(self) -> None:
        try:
            while True:
                frame = await self._requests.get()
                answer = await self._answer(frame.body)
                await self._send({"inReplyTo": frame.sequence, **answer})
        finally:
            await self._api.close()

    async def _answer(self, body: bytes) -> dict[str, Any]:
        try:
            request = json.loads(body)
            method, path, key = request["method"], request["path"], request.get("key")
            content = request.get("body")
            if (
                method not in METHODS
                or not isinstance(path, str)
                or not path.startswith(PREFIX)
                or not (key is None or isinstance(key, str))
            ):
                raise ValueError
            raw = None if content is None else json.dumps(content).encode()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {
                "status": 400,
                "body": _problem("A frame must hold method, path, key and body."),
            }
        try:
            reply = await self._api.request(method, path, key=key, body=raw)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            log.warning("serial_till.no_answer name=%s error=%s", self.line.name, error)
            return {"status": 503, "body": _problem("The gateway is starting. Send it again.")}
        return {"status": reply.status, "body": reply.body}

    async def _send(self, value: dict[str, Any]) -> None:
        self._sequence = (self._sequence + 1) % 256
        data = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        try:
            frame = frames.encode(self._sequence, data)
        except ValueError:
            # The till asked for more than a frame holds; it must ask for less.
            short = {"inReplyTo": value["inReplyTo"], "status": 413, "body": None}
            frame = frames.encode(self._sequence, json.dumps(short).encode())
        self._awaited = self._sequence
        for _ in range(ANSWER_TRIES):
            self._acknowledged.clear()
            await self.line.write(frame)
            await wake_or_sleep(self._clock, self._acknowledged, ANSWER_WAIT_S)
            if self._acknowledged.is_set():
                return
        log.warning("serial_till.unacknowledged name=%s", self.line.name)


def _problem(detail: str) -> dict[str, str]:
    return {"code": "FRAME_INVALID", "detail": detail}
