"""Outcomes of handing one sale to the control unit, separated by what each proves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SignedData:
    """`saveSales.data` (etims.md 4.1), checked. `scu_time` is aware, Nairobi."""

    rcpt_no: int
    tot_rcpt_no: int
    intrl_data: str
    rcpt_sign: str
    scu_time: datetime
    sdc_id: str | None
    mrc_no: str | None


@dataclass(frozen=True, slots=True)
class Cause:
    """A reason for which the control unit signs no sale and that no till can remove.

    `code` is stable, for programs; `sentence` is for the cashier and the status page, without its stop.
    `ours`: the unit refused what this gateway fills in (clock, branch, rates). Otherwise the unit itself is
    not ready, and its restart may change that.
    """

    code: str
    sentence: str
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Signed:
    """The unit signed this very request."""

    data: SignedData
    raw: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """This sending was not signed, and will be refused again if sent unchanged. `by_bytes`: whatever came
    before, it would have been refused; otherwise an earlier sending may be the reason. `cause`: the refusal
    is about what the gateway fills in, so the till's sale stays good and its key usable."""

    code: str
    message: str
    raw: bytes
    by_bytes: bool
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The unit has this invcNo already; whether with this sale is not stated."""

    code: str
    message: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Unknown:
    """The unit may have signed it: no answer, half an answer, or a code that proves nothing. `link`: the
    answer means trouble between the unit and KRA or at KRA, so a second sending is of use only when KRA
    answers again. `cause`: what a person must mend, where the code says so."""

    reason: str
    code: str | None = None
    raw: bytes | None = None
    ceiling_hint: bool = False
    link: bool = False
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """This sending was not signed and may be accepted later unchanged: not one byte left the gateway, or the
    unit reported that it is not ready (`cause`)."""

    reason: str
    raw: bytes | None = None
    ceiling_hint: bool = False
    cause: Cause | None = None


SaleOutcome = Signed | Refused | Duplicate | Unknown | NotSent
