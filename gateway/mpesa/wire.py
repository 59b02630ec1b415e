"""One HTTP exchange with Daraja: the token in front, one try, and one more only after a refused token.

Says apart what surely did not reach M-Pesa (no connection) from what may have (anything later).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from gateway.clock import Clock
from gateway.domain.payment import Reason
from gateway.domain.payment_wire import Lost, Refused
from gateway.http import Lookups, read_whole, why_not
from gateway.mpesa import codes, fields
from gateway.mpesa.account import Account
from gateway.mpesa.token import Fetched, TokenSource, life_of

CONNECT_TIMEOUT_S = 10.0
UNREACHABLE = "UNREACHABLE"
# What went wrong longer ago says nothing of the link. Seconds.
NEWS_S = 600.0
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class Answer:
    """Whatever HTTP answer came, whole."""

    status: int
    raw: bytes
    retry_after: str | None
    date: str | None = None


class DarajaWire:
    """Use as an async context manager."""

    def __init__(self, account: Account, clock: Clock, timeout_s: float) -> None:
        self._account = account
        self._clock = clock
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._lookups = Lookups()
        self.tokens = TokenSource(self._fetch_token, clock)
        # Why the last exchange got no answer, or no token, and when.
        self._silent: tuple[str, int] | None = None
        # How far M-Pesa's clock is before ours, by its last answer to a request for a token.
        self.skew_s: float | None = None

    async def __aenter__(self) -> DarajaWire:
        self._session = aiohttp.ClientSession(
            # A connection of its own for each request: one that was kept could be closed by the other
            # side at the moment of a push, which would then count as lost.
            connector=aiohttp.TCPConnector(force_close=True, resolver=self._lookups),
            timeout=aiohttp.ClientTimeout(
                # Less than the whole, or who cannot be reached would be told as who did not answer.
                total=self._timeout_s,
                connect=min(CONNECT_TIMEOUT_S, self._timeout_s / 2),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tokens.close()
        if self._session is not None:
            await self._session.close()

    @property
    def problem(self) -> str | None:
        """Why M-Pesa cannot be asked just now; None while it can, or when nobody has asked it lately."""
        if self._silent is None or self._clock.boottime_ns() - self._silent[1] > NEWS_S * 1e9:
            return None
        return self._silent[0]

    async def post(
        self, path: str, body: dict[str, Any], limit: int = codes.ANSWER_MAX_BYTES
    ) -> Answer | Refused | Lost:
        """Refused: surely nothing was done (no token, no connection). Lost: nobody knows."""
        raw = json.dumps(body).encode()
        answer: Answer | Refused | Lost
        for last in (False, True):
            token = await self.tokens.get()
            if isinstance(token, Refused):
                return token
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            answer = await self._exchange("POST", path, headers, raw, limit)
            if not isinstance(answer, Answer) or not codes.token_refused(answer.status, answer.raw):
                return answer
            self.tokens.drop(token)
            if last:
                break
        # A fresh token was refused as well.
        assert isinstance(answer, Answer)
        stays = codes.token_stays_refused(answer.status, answer.raw)
        self._note(stays)
        return stays

    async def _fetch_token(self) -> Fetched | Refused:
        account = self._account
        pair = f"{account.consumer_key}:{account.consumer_secret}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        path = "/oauth/v1/generate?grant_type=client_credentials"
        answer = await self._exchange("GET", path, headers, None, codes.ANSWER_MAX_BYTES)
        if not isinstance(answer, Answer):
            # No token means that nothing else was sent, whatever became of this request.
            return Refused(Reason.NOT_SENT, UNREACHABLE, answer.message, b"")
        self._note_date(answer.date)
        if answer.status == 200:
            body = fields.document(answer.raw)
            token = fields.member(body, "access_token")
            if isinstance(token, str) and _TOKEN.fullmatch(token):
                return Fetched(token, life_of(fields.code(fields.member(body, "expires_in"))))
        refusal = _no_token(answer, account.environment)
        self._note(refusal)
        return refusal

    async def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, limit: int
    ) -> Answer | Refused | Lost:
        found = await self._try(method, path, headers, body, limit)
        self._note(None if isinstance(found, Answer) else found)
        return found

    def _note(self, what: Refused | Lost | None) -> None:
        self._silent = None if what is None else (what.message, self._clock.boottime_ns())

    async def _try(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, limit: int
    ) -> Answer | Refused | Lost:
        """One try. Nothing is followed: a redirected push would be sent twice."""
        assert self._session is not None
        where = self._account.environment
        try:
            async with self._session.request(
                method,
                self._account.base_url + path,
                data=body,
                headers=headers,
                allow_redirects=False,
            ) as response:
                raw = await read_whole(response, limit)
                if raw is None:
                    return Lost(f"M-Pesa ({where}) answered with more than {limit} bytes")
                found = response.headers
                return Answer(response.status, raw, found.get("Retry-After"), found.get("Date"))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            why = why_not(error, self._lookups)
            return Refused(
                Reason.NOT_SENT, UNREACHABLE, f"no connection to M-Pesa ({where}): {why}", b""
            )
        except asyncio.TimeoutError:
            return Lost(f"M-Pesa ({where}) did not answer in time")
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            return Lost(f"M-Pesa's ({where}) answer was cut off: {type(error).__name__}")

    def _note_date(self, header: str | None) -> None:
        try:
            told = parsedate_to_datetime(header or "")
        except (ValueError, OverflowError):
            return
        told = told if told.tzinfo is not None else told.replace(tzinfo=UTC)
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        self.skew_s = (told - epoch).total_seconds() - (self._clock.now() - epoch).total_seconds()


def _no_token(answer: Answer, environment: str) -> Refused:
    """Why there is no token. Names the environment, since keys of the other one are the usual cause, and
    repeats nothing that M-Pesa said but its code: its text or body might hold a key or half a token."""
    status = answer.status
    fault = codes.fault_of(answer.raw)
    code = fields.code(fault.code) or str(status)
    limited = codes.is_limit(fault) or code in ("500.003.02", "500.003.03")
    if status == 429 or status >= 500 or limited:
        wait = codes.retry_after(answer.retry_after)
        text = f"M-Pesa ({environment}) gives no access token at the moment: {code}"
        return Refused(Reason.NOT_SENT, code, text, b"", wait)
    if codes.is_blocked(status, answer.raw):
        text = (
            f"M-Pesa ({environment}) gives no access token: {codes.BLOCKED} (HTTP {status} without a "
            "word of M-Pesa). Ask the internet provider, or Safaricom's API support"
        )
        return Refused(Reason.CONFIG, code, text, b"")
    if status in (400, 401, 403):
        text = (
            f"M-Pesa ({environment}) does not take the consumer key and secret: {code}. "
            f"Are they the app's keys for {environment}?"
        )
        return Refused(Reason.CONFIG, code, text, b"")
    if status == 200:
        text = f"M-Pesa ({environment}) answered without an access token that can be used"
        return Refused(Reason.NOT_SENT, "200", text, b"")
    text = f"what answers as M-Pesa ({environment}) is not it, or its address has changed: {code}"
    return Refused(Reason.CONFIG, code, text, b"")
