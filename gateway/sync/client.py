"""Sends one batch of records to the cloud and reads its answer, record by record.

Protocol: `POST {url}/v1/gateways/{id}/receipts`, gzip JSON, bearer token; idempotent by invoice id,
so a batch may be sent again whenever its answer did not come (openapi.json beside this file).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from gateway.http import NO_NAMES, Lookups, read_whole, why_not

ANSWER_MAX_BYTES = 4 * 1024 * 1024
TAKEN = ("stored", "duplicate")


class Record(Protocol):
    @property
    def seq(self) -> int: ...
    @property
    def subject_id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The cloud's word on each record it named: seqs it has, and seqs it refused with the reason."""

    taken: tuple[int, ...]
    refused: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class NotTaken:
    """No usable answer; the batch must be sent again. `poison`: the cloud refused the batch as such
    (400, 413), so one of its records may be what it cannot take."""

    reason: str
    retry_after_s: float | None = None
    poison: bool = False


class CloudClient:
    """One session to one cloud. Use as an async context manager."""

    def __init__(
        self,
        *,
        url: str,
        gateway_id: str,
        token: str,
        timeout_s: float,
        ca_file: Path | None = None,
    ) -> None:
        self._url = f"{url.rstrip('/')}/v1/gateways/{gateway_id}/receipts"
        self._token = token
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None
        self._lookups = Lookups()
        # Bodies put on the wire so far, in bytes, as compressed; what a bandwidth cap counts.
        self.sent_bytes = 0

    async def __aenter__(self) -> CloudClient:
        tls: ssl.SSLContext | bool = True
        if self._ca_file is not None:
            tls = ssl.create_default_context(cafile=str(self._ca_file))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=tls, resolver=self._lookups),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, batch_id: str, records: Sequence[Record]) -> Acknowledged | NotTaken:
        """One batch, once."""
        assert self._session is not None
        # In a thread: a full batch takes tens of milliseconds, and a sale must not wait for that.
        body = await asyncio.to_thread(gzip.compress, _body(batch_id, records), 6)
        self.sent_bytes += len(body)
        try:
            async with self._session.post(
                self._url,
                data=body,
                headers={
                    "Authorization": f"Bearer {self._token}",
                    "Content-Type": "application/json",
                    "Content-Encoding": "gzip",
                },
                allow_redirects=False,
            ) as response:
                raw = await read_whole(response, ANSWER_MAX_BYTES) or b""
                return _read(response.status, response.headers.get("Retry-After"), raw, batch_id)
        except asyncio.TimeoutError:
            if self._lookups.hang:
                return NotTaken(f"no connection to the cloud: {NO_NAMES}")
            return NotTaken("the cloud did not answer in time")
        except (aiohttp.ClientError, OSError) as error:
            return NotTaken(f"no connection to the cloud: {why_not(error)}")


def _body(batch_id: str, records: Sequence[Record]) -> bytes:
    """Payloads are stored as JSON already and go out as they are, to the byte."""
    parts = [
        b'{"seq":%d,"invoiceId":%s,"kind":%s,"sha256":"%s","payload":%s}'
        % (
            record.seq,
            json.dumps(record.subject_id).encode(),
            json.dumps(record.kind).encode(),
            record.sha256.encode(),
            record.payload,
        )
        for record in records
    ]
    return b'{"batch":%s,"records":[%s]}' % (json.dumps(batch_id).encode(), b",".join(parts))


def _read(
    status: int, retry_after: str | None, raw: bytes, batch_id: str
) -> Acknowledged | NotTaken:
    if status != 200:
        wait = float(retry_after) if retry_after and retry_after.isdigit() else None
        return NotTaken(f"the cloud answered HTTP {status}", wait, poison=status in (400, 413, 422))
    try:
        value = json.loads(raw)
        if value["batch"] != batch_id:
            return NotTaken("the cloud answered for another batch")
        results: list[dict[str, Any]] = value["results"]
        taken = tuple(int(item["seq"]) for item in results if item["status"] in TAKEN)
        refused = tuple(
            (int(item["seq"]), f"{item.get('code', '')} {item.get('message', '')}".strip())
            for item in results
            if item["status"] == "refused"
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        # A hotel's login page answers 200 as well.
        return NotTaken("what answered is not the cloud")
    return Acknowledged(taken, refused)
