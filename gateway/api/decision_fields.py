"""The fields of a technician's decisions, from the API's JSON or a page's form, with every mistake at once.

The sentences name a field as the form does, because a person reads them; the pointer has the JSON's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.api.schemas import SignedIn, StatedIn, field_errors
from gateway.clock import EAT
from gateway.errors import DecisionInvalid, FieldError
from gateway.fiscal.decision_rules import LastOnPortal, PartialReceipt, PortalReceipt, Stated
from gateway.money import parse_amount

M = TypeVar("M", bound=BaseModel)
# What the form calls each field.
LABELS = {
    "rcptNo": "Receipt number",
    "totRcptNo": "Total receipt number",
    "rcptSign": "Receipt signature",
    "intrlData": "Internal data",
    "sdcId": "SCU ID",
    "scuTime": "Time of the receipt",
    "despiteTime": "Why the time differs",
    "total": "Total on the portal",
    "reason": "How you know",
    "lastInvcNo": "Number of the newest receipt",
    "lastTotal": "Total of the newest receipt",
    "lastTime": "Time of the newest receipt",
    "searched": "That the whole day was searched",
    "confirmed": "The confirmation",
    "choice": "The choice",
    "nextInvcNo": "Number of the next sale",
    "silentTills": "Tills without a sale since the start",
}
UNDECIDED = "The decision has mistakes. Nothing was decided, and the sale stays in doubt."
NOT_NUMBERED = "The numbering has mistakes. Nothing was decided."
A_TIME = "must look like 2026-11-23T10:42:00."


def invalid(errors: list[FieldError], detail: str = UNDECIDED) -> DecisionInvalid:
    """Return the refusal of a decision, with one error per field and code."""
    once = {(error.pointer, error.code): error for error in errors}
    return DecisionInvalid(detail, errors=list(once.values()), extra={"signed": "unknown"})


def checked(model: type[M], value: Any) -> tuple[M | None, list[FieldError]]:
    """Return the body as a model, or every mistake in it in the form's words."""
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        return None, [_in_words(each) for each in field_errors(error)]


def read_receipt(
    value: Mapping[str, Any],
) -> tuple[PortalReceipt | None, PartialReceipt, list[FieldError]]:
    """Return the receipt on the portal; where it has mistakes, None, its readable fields and the mistakes."""
    seen, wrong = checked(SignedIn, value)
    bad = {error.pointer for error in wrong}
    when = _time(value, "scuTime", wrong, bad)
    total = _amount(value, "total", wrong, bad)
    sign = None if "/rcptSign" in bad else str(value["rcptSign"]).replace("-", "").upper()
    part = PartialReceipt(
        tot_rcpt_no=None if "/totRcptNo" in bad else value["totRcptNo"],
        rcpt_sign=sign,
        scu_time=when,
        total=total,
        sdc_id=None if "/sdcId" in bad else value.get("sdcId"),
        despite_time=None if "/despiteTime" in bad else value.get("despiteTime"),
    )
    if seen is None or when is None or total is None or sign is None:
        return None, part, wrong
    found = PortalReceipt(
        rcpt_no=seen.rcptNo,
        tot_rcpt_no=seen.totRcptNo,
        rcpt_sign=sign,
        intrl_data=(seen.intrlData or "").replace("-", "").upper(),
        scu_time=when,
        total=total,
        sdc_id=seen.sdcId,
        despite_time=seen.despiteTime,
    )
    return found, part, wrong


def read_statement(value: Mapping[str, Any]) -> Stated:
    """Return what the operator states. DecisionInvalid with every mistake in it."""
    said, wrong = checked(StatedIn, value)
    bad = {error.pointer for error in wrong}
    number = 0 if "/lastInvcNo" in bad else value["lastInvcNo"]
    total, when = None, None
    if number != 0:
        for name in ("lastTotal", "lastTime"):
            if value.get(name) is None:
                message = f"{LABELS[name]} is required."
                wrong.append(FieldError(f"/{name}", "MISSING", message))
                bad.add(f"/{name}")
    if value.get("lastTotal") is not None:
        total = _amount(value, "lastTotal", wrong, bad)
    if value.get("lastTime") is not None:
        when = _time(value, "lastTime", wrong, bad)
    if said is None or wrong:
        raise invalid(wrong)
    return Stated(
        said.reason, LastOnPortal(said.lastInvcNo, total, when), said.searched, said.confirmed
    )


def _amount(
    value: Mapping[str, Any], name: str, wrong: list[FieldError], bad: set[str]
) -> Decimal | None:
    if f"/{name}" in bad:
        return None
    try:
        # A portal shows thousands with commas.
        return parse_amount(str(value[name]).replace(",", "").strip())
    except ValueError as error:
        wrong.append(FieldError(f"/{name}", "AMOUNT_INVALID", f"{LABELS[name]} {error}."))
        return None


def _time(
    value: Mapping[str, Any], name: str, wrong: list[FieldError], bad: set[str]
) -> datetime | None:
    if f"/{name}" in bad:
        return None
    try:
        when = datetime.fromisoformat(str(value[name]))
        # Without an offset it is what the portal shows: Nairobi time.
        when = when.replace(tzinfo=EAT) if when.tzinfo is None else when.astimezone(EAT)
        if not 2000 <= when.year < 2200:
            raise ValueError("not of this age")
    except (ValueError, OverflowError):
        wrong.append(FieldError(f"/{name}", "NOT_A_TIME", f"{LABELS[name]} {A_TIME}"))
        return None
    return when


def _in_words(error: FieldError) -> FieldError:
    name = error.pointer.rpartition("/")[2]
    label = LABELS.get(name)
    if label is None or not error.message.startswith(f"{name} "):
        return error
    return FieldError(error.pointer, error.code, label + error.message.removeprefix(name))
