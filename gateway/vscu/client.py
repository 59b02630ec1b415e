"""Speaks the unit's local protocol: one method per path, and the sale with what its outcome proves.

Plain HTTP on loopback, no auth (etims.md 1.1). Nothing here is ever sent twice: aiohttp retries only
idempotent methods, every call is a POST (pinned by a test), and who resends decides so elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import aiohttp

from gateway.clock import Clock, compact
from gateway.domain.outcome import (
    Duplicate,
    NotSent,
    Refused,
    SaleOutcome,
    Signed,
    SignedData,
    Unknown,
)
from gateway.http import Lookups, read_whole
from gateway.vscu.codes import (
    BY_BYTES,
    CEILING_CANDIDATES,
    DEVICE_CODES,
    DUPLICATE_CODES,
    LINK_STATUSES,
    NOT_READY_CODES,
    REFUSED_CODES,
    Proof,
    proof,
    words,
)
from gateway.vscu.refusal import (
    NO_PATH,
    NUMBER,
    REQUEST,
    Filled,
    Number,
    Sent,
    about_number,
    cause_of,
    not_ready,
)
from gateway.vscu.tax_rates import RatesRead, tax_rates_of
from gateway.vscu.wire import ANSWER_MAX_BYTES, Answer, decode, encode, receipt_data

log = logging.getLogger(__name__)

# The 22 local paths of etims.md 2.1 (and ZRA's read-back), by the name the settings use for them.
PATHS = {
    "selectInitInfo": "/initializer/selectInitInfo",
    "selectCodes": "/code/selectCodes",
    "selectItemsClass": "/itemClass/selectItemsClass",
    "selectCustomer": "/customers/selectCustomer",
    "selectBranches": "/branches/selectBranches",
    "saveBrancheCustomers": "/branches/saveBrancheCustomers",
    "saveBrancheUsers": "/branches/saveBrancheUsers",
    "saveBrancheInsurances": "/branches/saveBrancheInsurances",
    "selectNotices": "/notices/selectNotices",
    "selectItems": "/items/selectItems",
    "saveItems": "/items/saveItems",
    "saveItemComposition": "/items/saveItemComposition",
    "selectImportItems": "/imports/selectImportItems",
    "updateImportItems": "/imports/updateImportItems",
    "saveSales": "/trnsSales/saveSales",
    "selectTrnsPurchaseSales": "/trnsPurchase/selectTrnsPurchaseSales",
    "savePurchases": "/trnsPurchase/savePurchases",
    "selectStockItems": "/stock/selectStockItems",
    "saveStockItems": "/stock/saveStockItems",
    "saveStockMaster": "/stockMaster/saveStockMaster",
    "saveZReports": "/reports/saveZReports",
    "checkZReport": "/reports/checkZReport",
    "selectInvoice": "/trnsSales/selectInvoice",
}
NO_ANSWER = "no answer in time"
# What nothing else may keep from the unit. The rest waits for KRA, and while KRA is silent for long: a till's
# question about a customer must not take the last connection from a sale.
OWN_LINE = ("saveSales", "selectCodes", "selectInvoice")
# Connections: a sale, a read-back, the probe, KRA's codes, and one to spare; and for the rest together.
OWN, READS = 5, 4
# First watermark of an incremental read (etims.md 2.4).
FIRST_WATERMARK = "20180520000000"
OK_AND_EMPTY = ("000", "0", "00", "0000", "001")


# How long a unit may take to be initialised, for which it asks KRA. Seconds.
INITIALISE_S = 60.0


class WrongListener(aiohttp.ClientConnectionError):
    """A new connection would reach another program than the unit. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class CallFailed:
    """No answer. `sent` False means that not one byte of the request left."""

    reason: str
    sent: bool
    refused: bool = False


@dataclass(frozen=True, slots=True)
class ContactResult:
    """Whether a read that the unit serves from KRA came back (etims.md 7.2)."""

    ok: bool
    kra_time: datetime | None
    reason: str
    code: str | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Initialised:
    """`already` for 902; `info` is data.info of the one and only 000 (etims.md 1.5)."""

    already: bool
    info: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class NotInitialised:
    """Why neither 000 nor 902 came. `code` None: the unit gave no code, or no answer at all (`answered`)."""

    reason: str
    code: str | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A stored sale as the unit reads it back: the receipt, all fields, and the bytes."""

    data: SignedData
    fields: Mapping[str, Any]
    raw: bytes


class UnitClient:
    """One session to one unit for one branch. Use as an async context manager."""

    def __init__(
        self,
        *,
        base_url: str,
        pin: str,
        branch_id: str,
        clock: Clock,
        answer_timeout_s: float = 30,
        probe_timeout_s: float = 3,
        success_codes: tuple[str, ...] = ("000",),
        duplicate_codes: tuple[str, ...] = DUPLICATE_CODES,
        refused_codes: tuple[str, ...] = REFUSED_CODES,
        not_ready_codes: tuple[str, ...] = NOT_READY_CODES,
        filled: Filled | None = None,
        paths: Mapping[str, str] | None = None,
        check_port: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._base_url = base_url
        self._who = {"tin": pin, "bhfId": branch_id}
        self._clock = clock
        self._answer_timeout_s = answer_timeout_s
        self._probe_timeout_s = probe_timeout_s
        self._success = success_codes
        self._filled = filled or Filled()
        self._proof = partial(
            proof,
            duplicate_codes=duplicate_codes,
            refused_codes=refused_codes,
            not_ready_codes=not_ready_codes,
        )
        self._paths = {**PATHS, **(paths or {})}
        # Called with the outcome of every sending, first or second. Must not raise.
        self.on_outcome: Callable[[SaleOutcome], None] = lambda outcome: None
        self._check_port = check_port
        self._session: aiohttp.ClientSession | None = None
        self._own: aiohttp.ClientSession | None = None
        # When nothing listened on the unit's port for the last time, by CLOCK_BOOTTIME: its run was over.
        self.refused_ns: int | None = None

    async def __aenter__(self) -> UnitClient:
        self._session = _session(READS, self._check_port)
        self._own = _session(OWN, self._check_port)
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._session, self._own):
            if session is not None:
                await session.close()

    # --- one request -------------------------------------------------------------------------------

    async def call(
        self, name: str, fields: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Answer | CallFailed:
        """POST `fields` (tin and bhfId are added) to the path called `name`."""
        return await self.post(name, encode({**self._who, **(fields or {})}), timeout_s=timeout_s)

    async def post(
        self, name: str, body: bytes, *, timeout_s: float | None = None
    ) -> Answer | CallFailed:
        """POST exact bytes. Never raises for the wire's faults, never sends twice."""
        session = self._own if name in OWN_LINE else self._session
        assert session is not None
        timeout = aiohttp.ClientTimeout(total=timeout_s or self._answer_timeout_s, connect=5)
        try:
            async with session.post(
                self._base_url + self._paths[name],
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                raw = await read_whole(response, ANSWER_MAX_BYTES)
                if raw is None:
                    return CallFailed("the answer is too large", sent=True)
                return decode(response.status, raw)
        except WrongListener as error:
            return CallFailed(str(error), sent=False)
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ConnectionRefusedError):
                self.refused_ns = self._clock.boottime_ns()
            return CallFailed(f"no connection: {error.strerror or error}", sent=False, refused=True)
        except aiohttp.ConnectionTimeoutError:
            return CallFailed("no connection in time", sent=False)
        except asyncio.TimeoutError:
            return CallFailed(NO_ANSWER, sent=True)
        except (aiohttp.ClientError, OSError) as error:
            return CallFailed(f"the connection broke: {type(error).__name__}", sent=True)

    # --- the sale ----------------------------------------------------------------------------------

    async def send_sale(self, body: bytes) -> SaleOutcome:
        """Hand over one sale, once, and return what came of it."""
        outcome = await self._send_sale(body)
        self.on_outcome(outcome)
        return outcome

    async def _send_sale(self, body: bytes) -> SaleOutcome:
        answer = await self.post("saveSales", body)
        if isinstance(answer, CallFailed):
            if answer.sent:
                # Some units hang up at their own ceiling: then a resend is of use only once KRA answers.
                return Unknown(answer.reason, link=answer.reason != NO_ANSWER)
            return NotSent(answer.reason, ceiling_hint=answer.refused)
        return self.judge(answer, body)

    def judge(self, answer: Answer, body: bytes) -> SaleOutcome:
        """Return what `answer` proves about the sale whose request was `body`."""
        if answer.code is None:
            return _without_envelope(answer)
        if answer.code in self._success:
            data = receipt_data(answer.data, answer.result_dt)
            if isinstance(data, str):
                # It says success; that it cannot be read makes it no less signed.
                return Unknown(f"a success that cannot be used: {data}", answer.code, answer.raw)
            return Signed(data, answer.raw)
        return self._without_receipt(answer.code, answer, body)

    def _without_receipt(self, code: str, answer: Answer, body: bytes) -> SaleOutcome:
        reason = words(code, answer.message)
        hint = code in CEILING_CANDIDATES
        match self._proof(code):
            case Proof.REFUSED:
                return self._refused(code, reason, answer, Sent.of(body, self._filled))
            case Proof.NOT_READY:
                return NotSent(reason, answer.raw, hint, cause=not_ready(code, answer.message))
            case Proof.DUPLICATE:
                return Duplicate(code, reason, answer.raw)
            case Proof.LINK:
                cause = not_ready(code, answer.message) if code in DEVICE_CODES else None
                return Unknown(reason, code, answer.raw, hint, link=True, cause=cause)
            case Proof.AMBIGUOUS:
                return Unknown(reason, code, answer.raw, hint)

    def _refused(self, code: str, reason: str, answer: Answer, sent: Sent) -> SaleOutcome:
        match about_number(code, answer.message, sent):
            case Number.USED:
                return Duplicate(code, reason, answer.raw)
            case Number.TOO_HIGH:
                return Refused(code, reason, answer.raw, False, NUMBER)
            case Number.NOTHING:
                cause = cause_of(code, answer.message, sent)
                return Refused(code, reason, answer.raw, code in BY_BYTES, cause)

    # --- reads -------------------------------------------------------------------------------------

    async def healthy(self) -> str | None:
        """None when the unit answers a protocol read well; else why not (etims.md 1.6).

        An open port proves nothing: HTML, 404, an empty answer or any code but 000 and 001 is a
        unit that cannot sign. A link fault (894, 838) is KRA out of reach, not a sick unit. Nor is one that
        is slow: while KRA's side swallows packets the unit waits for it in vain before it answers, and it
        has as long for that as for a sale.
        """
        for timeout_s in (self._probe_timeout_s, self._answer_timeout_s):
            asked = {"lastReqDt": compact(self._clock.now())}
            answer = await self.call("selectCodes", asked, timeout_s=timeout_s)
            if not (isinstance(answer, CallFailed) and answer.reason == NO_ANSWER):
                break
        if isinstance(answer, CallFailed):
            return answer.reason
        if answer.code in (*OK_AND_EMPTY, "894", "838"):
            return None
        if answer.code is None:
            return f"the answer is not a control unit's (HTTP {answer.status}, {answer.message})"
        return words(answer.code, answer.message)

    async def contact(self) -> ContactResult:
        """A read that the unit can only serve from KRA: notices newer than now."""
        answer = await self.call(
            "selectNotices",
            {"lastReqDt": compact(self._clock.now())},
            timeout_s=self._answer_timeout_s,
        )
        if isinstance(answer, CallFailed):
            return ContactResult(False, None, answer.reason, answered=False)
        ok = answer.status == 200 and answer.code in OK_AND_EMPTY
        reason = "" if ok else words(answer.code, answer.message)
        return ContactResult(ok, answer.result_dt, reason, answer.code)

    async def initialise(self, serial: str) -> Initialised | NotInitialised:
        """`selectInitInfo`: one-shot 000, then 902 (etims.md 1.5). Its one answer is waited for longer than others:
        once it is lost, a new unit cannot be told from one that another store has sold with."""
        wait_s = max(INITIALISE_S, self._answer_timeout_s)
        answer = await self.call("selectInitInfo", {"dvcSrlNo": serial}, timeout_s=wait_s)
        if isinstance(answer, CallFailed):
            return NotInitialised(answer.reason, answered=False)
        if answer.code in self._success and isinstance(answer.data, dict):
            info = answer.data.get("info")
            return Initialised(False, info if isinstance(info, dict) else {})
        if answer.code == "902":
            return Initialised(True, None)
        return NotInitialised(words(answer.code, answer.message), answer.code)

    async def tax_rates(self) -> RatesRead | None:
        """Class 04 of `selectCodes`; None when the unit did not serve it."""
        answer = await self.call("selectCodes", {"lastReqDt": FIRST_WATERMARK})
        if isinstance(answer, CallFailed) or answer.code not in self._success:
            return None
        return tax_rates_of(answer.data)

    async def read_back(self, invc_no: int) -> StoredAnswer | str | None:
        """The stored receipt of `invc_no`, where the build has such an endpoint (ZRA's has, 8.3).

        None: the unit says that it holds none. A str: why nothing can be said.
        """
        answer = await self.call("selectInvoice", {"invcNo": invc_no})
        if isinstance(answer, CallFailed):
            return answer.reason
        if answer.code == "001":
            return None
        if answer.code not in self._success:
            return words(answer.code, answer.message)
        data = receipt_data(answer.data, answer.result_dt)
        if isinstance(data, str):
            return data
        return StoredAnswer(data, answer.data, answer.raw)


def _without_envelope(answer: Answer) -> SaleOutcome:
    """Return what an answer of HTTP alone proves."""
    if answer.status == 400:
        return Refused("400", words("400"), answer.raw, True, REQUEST)
    if answer.status in (404, 405):
        reason = f"the unit serves no such path (HTTP {answer.status})"
        return NotSent(reason, answer.raw, cause=NO_PATH)
    link = answer.status in LINK_STATUSES
    hint = answer.status == 503
    return Unknown(f"HTTP {answer.status}, {answer.message}", None, answer.raw, hint, link)


def _session(connections: int, check_port: Callable[[], str | None]) -> aiohttp.ClientSession:
    async def check(*_: object) -> None:
        problem = check_port()
        if problem is not None:
            raise WrongListener(problem)

    # Before the connection and once it stands: in between, the port may change hands. A connection that stands
    # stays with its program.
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(check)
    trace.on_connection_create_end.append(check)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=30, resolver=Lookups()),
        # A proxy in the environment must never see a sale.
        trust_env=False,
        auto_decompress=True,
        trace_configs=[trace],
    )
