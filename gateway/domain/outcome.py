"""What can come back from handing one sale to the control unit, told apart by what it proves."""

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
class Signed:
    """The unit signed this very request."""

    data: SignedData
    raw: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The unit certainly did not take it and will not take it as it is. `by_bytes`: whatever came
    before, it never would have; otherwise an earlier sending may be the reason."""

    code: str
    message: str
    raw: bytes
    by_bytes: bool


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The unit says it already holds this invcNo; whether with this sale is not said."""

    code: str
    message: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Unknown:
    """The unit may have signed it: no answer, half an answer, or a code that proves nothing."""

    reason: str
    code: str | None = None
    raw: bytes | None = None
    ceiling_hint: bool = False


@dataclass(frozen=True, slots=True)
class NotSent:
    """Not one byte of the request left the gateway, or the unit answered that it serves no such
    thing: certainly not taken, and worth trying again later."""

    reason: str
    raw: bytes | None = None
    ceiling_hint: bool = False


SaleOutcome = Signed | Refused | Duplicate | Unknown | NotSent
