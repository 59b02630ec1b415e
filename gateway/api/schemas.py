"""What a till may send, as models: the only place where the API's JSON names live."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gateway.errors import FieldError

PIN_PATTERN = r"^[A-Z][0-9]{9}[A-Z]$"


# Blanks of every width, and the byte order mark, which is an invisible one. Not what `str.strip` takes for a blank:
# the separators U+001C to U+001F are control characters.
_BLANKS = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
# Tabs and ends of lines, with the blanks around them.
_BREAKS = re.compile(rf"[{_BLANKS}]*[\t\n\v\f\r\x85\u2028\u2029][{_BLANKS}]*")
# Marks that turn the direction of writing: what is printed would not be what is signed.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _trimmed(value: Any) -> Any:
    return value.strip(_BLANKS) if isinstance(value, str) else value


def _normal(value: Any) -> Any:
    """Normalise what is harmless: blanks at the ends, a tab or an end of line, letters put together of parts."""
    if not isinstance(value, str):
        return value
    return unicodedata.normalize("NFC", _BREAKS.sub(" ", value).strip(_BLANKS))


def normal_text(value: Any) -> Any:
    """Return a text of a body as its model has it, for a body that is no model."""
    return _normal(value)


def _absent_if_empty(value: Any) -> Any:
    found = _normal(value)
    return None if found == "" else found


def _name(value: Any) -> Any:
    """A name of a person or a company: empty is absent, and what the wire has no room for is cut."""
    found = _absent_if_empty(value)
    return found[:NAME_MAX].strip(_BLANKS) if isinstance(found, str) else found


def _pin(value: Any) -> Any:
    """A PIN as people type it: blanks and case do not count."""
    if not isinstance(value, str):
        return value
    found = re.sub(rf"[{_BLANKS}]", "", value)
    return (found.upper() if found.isascii() else found) or None


def _no_control(text: str) -> str:
    # A control character in a name would be a command to the printer that prints it.
    for char in text:
        code = ord(char)
        if code < 0x20 or 0x7F <= code < 0xA0 or char in _BIDI or 0xD800 <= code <= 0xDFFF:
            raise ValueError(f"has a control character in it (U+{code:04X})")
    if not text:
        raise ValueError("must not be empty")
    return text


# custNm, regrNm (etims.md 2.2).
NAME_MAX = 60
_Normal = BeforeValidator(_normal)
_Trimmed = BeforeValidator(_trimmed)
Text20 = Annotated[str, Field(max_length=20), _Normal, AfterValidator(_no_control)]
Text50 = Annotated[str, Field(max_length=50), _Normal, AfterValidator(_no_control)]
Text60 = Annotated[str, Field(max_length=60), _Normal, AfterValidator(_no_control)]
Text200 = Annotated[str, Field(max_length=200), _Normal, AfterValidator(_no_control)]
Text400 = Annotated[str, Field(max_length=400), _Normal, AfterValidator(_no_control)]
Name = Annotated[Text60 | None, BeforeValidator(_name)]
Pin = Annotated[Annotated[str, Field(pattern=PIN_PATTERN)] | None, BeforeValidator(_pin)]
Amount = Annotated[str, Field(max_length=24), _Trimmed]
ItemClass = Annotated[str, Field(pattern=r"^[0-9]{1,10}$"), _Trimmed]
Id = Annotated[str, Field(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]
UnitCode = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,5}$"), _Trimmed]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CashierIn(_Model):
    id: Text20
    name: Name = None


class BuyerIn(_Model):
    pin: Pin = None
    name: Name = None
    phone: Annotated[Text20 | None, BeforeValidator(_absent_if_empty)] = None


class PaymentIn(_Model):
    method: Literal["CASH", "CREDIT", "CASH_CREDIT", "BANK_CHECK", "CARD", "MOBILE_MONEY", "OTHER"]
    amount: Amount
    reference: Text50 | None = None
    # The M-Pesa payment of the gateway's that this is; its money pays one sale.
    paymentId: Id | None = None


class TenderIn(_Model):
    """One tender of a sale whose M-Pesa money the gateway asks for: `phone` and `amount`, or `paymentId`."""

    method: Literal[
        "MPESA", "CASH", "CREDIT", "CASH_CREDIT", "BANK_CHECK", "CARD", "MOBILE_MONEY", "OTHER"
    ]
    amount: Amount | None = None
    phone: Annotated[str, Field(max_length=30)] | None = None
    paymentId: Id | None = None
    reference: Text50 | None = None


class LineIn(_Model):
    itemCode: Text20
    name: Text200
    quantity: Amount
    unitPrice: Amount
    taxCode: Annotated[str, Field(max_length=5), _Trimmed]
    itemClass: ItemClass | None = None
    discountPercent: Annotated[int, Field(ge=0, le=100)] | None = None
    discountAmount: Amount | None = None
    packageUnit: UnitCode | None = None
    packageCount: Amount | None = None
    quantityUnit: UnitCode | None = None
    barcode: Text20 | None = None
    total: Amount | None = None


class InvoiceIn(_Model):
    """`POST /v1/invoices`."""

    tillReceiptNo: Text50
    lines: Annotated[list[LineIn], Field(min_length=1)]
    total: Amount
    type: Literal["NORMAL", "TRAINING", "PROFORMA"] = "NORMAL"
    cashier: CashierIn | None = None
    buyer: BuyerIn | None = None
    payments: Annotated[list[PaymentIn], Field(max_length=20)] | None = None
    tenders: Annotated[list[TenderIn], Field(min_length=1, max_length=20)] | None = None
    totalTax: Amount | None = None
    remark: Annotated[Text400 | None, BeforeValidator(_absent_if_empty)] = None
    printer: Text60 | None = None


class CreditNoteIn(_Model):
    """`POST /v1/invoices/{id}/credit-notes`: the whole sale is cancelled, once (TIS 6.16)."""

    tillReceiptNo: Text50
    reason: Annotated[str, Field(pattern=r"^(0[1-9]|1[0-3])$")]
    cashier: CashierIn | None = None
    payments: Annotated[list[PaymentIn], Field(max_length=20)] | None = None
    remark: Annotated[Text400 | None, BeforeValidator(_absent_if_empty)] = None
    printer: Text60 | None = None


class SignedIn(_Model):
    """`POST /v1/invoices/{id}/decision`: the receipt as KRA's portal shows it."""

    choice: Literal["SIGNED"]
    rcptNo: Annotated[int, Field(ge=1, le=9_999_999_999)]
    totRcptNo: Annotated[int, Field(ge=1, le=9_999_999_999)]
    rcptSign: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{16,20}$")]
    intrlData: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{26,33}$")] | None = None
    scuTime: Text50
    total: Amount
    sdcId: Text20 | None = None
    despiteTime: Annotated[Text400, Field(min_length=5)] | None = None


class StatedIn(_Model):
    """`POST /v1/invoices/{id}/decision`: what an operator states with "not signed" or "another sale stands in
    its place", with the newest receipt of this control unit on the portal."""

    choice: Literal["NOT_SIGNED", "OTHER_SALE_THERE"]
    reason: Annotated[Text400, Field(min_length=5)]
    # 0: the portal shows no receipt of this unit; then without total and time.
    lastInvcNo: Annotated[int, Field(ge=0, le=9_999_999_999)]
    lastTotal: Amount | None = None
    lastTime: Text50 | None = None
    searched: bool = False
    confirmed: bool = False


class NumberingIn(_Model):
    """`POST /v1/unit/numbering`."""

    nextInvcNo: Annotated[int, Field(ge=1, le=9_999_999_999)]
    reason: Annotated[Text400, Field(min_length=5)]
    # Tills that have sent no sale since the start, and on which nothing is left to be sent.
    silentTills: Annotated[list[Text60], Field(max_length=1000)] = []


class DismissIn(_Model):
    """`POST /v1/captures/{id}/dismiss`."""

    reason: Annotated[Text400, Field(min_length=3)]


class DepositIn(_Model):
    """`POST /v1/reports/deposit`."""

    amount: Amount


class MpesaIn(_Model):
    """`POST /v1/payments/mpesa`: whole shillings, asked for once under the key."""

    saleRef: Text50
    amount: Amount
    phone: Annotated[str, Field(max_length=30)]


class QrIn(_Model):
    """`POST /v1/payments/qr`: a code for the customer's display."""

    amount: Amount
    reference: Annotated[str, Field(pattern=r"^[A-Za-z0-9 -]{1,12}$")]
    # The sale that a payment with this code is for; without it the reference is the sale's number.
    saleRef: Text50 | None = None
    size: Annotated[int, Field(ge=100, le=1000)] = 300


class CodeIn(_Model):
    """`POST /v1/payments/{id}/code`: the number on the customer's M-Pesa SMS."""

    receipt: Annotated[str, Field(max_length=20)]


class CloseIn(_Model):
    """`POST /v1/payments/{id}/close`, `POST /v1/checkouts/{id}/close`."""

    outcome: Literal["PAID_OTHERWISE", "ABANDONED"]
    reason: Text200 | None = None


class ClaimIn(_Model):
    """`POST /v1/payments/{id}/claim`: the sale that a customer paid for by himself."""

    saleRef: Text50


class SameIn(_Model):
    """`POST /v1/payments/{id}/same`: one money, or two payments."""

    otherPaymentId: Annotated[str, Field(max_length=40)]
    same: bool
    reason: Annotated[Text200, Field(min_length=5)]


class ReversalIn(_Model):
    """`POST /v1/payments/{id}/reversal`: whether M-Pesa's statement shows that the money was taken back."""

    wentBack: bool
    reason: Annotated[Text200, Field(min_length=5)]


class ReasonIn(_Model):
    """What a person decides about a payment, and why."""

    reason: Annotated[Text200, Field(min_length=5)]


class AcceptIn(ReasonIn):
    """`POST /v1/payments/{id}/accept`: how the difference to what was asked for was settled; a receipt's
    tenders must make its total, so it is cash, taken or given."""

    difference: Literal["CASH"]


class RefundIn(ReasonIn):
    """`POST /v1/payments/{id}/refund`: through M-Pesa, or given back by hand already."""

    byHand: bool = False


class ItemIn(_Model):
    """`POST /v1/items`: an article for KRA's register (VSCU spec, saveItems)."""

    itemCode: Text20
    name: Text200
    itemClass: ItemClass
    itemType: Literal["1", "2", "3"]
    taxCode: Literal["A", "B", "C", "D", "E"]
    price: Amount
    originCountry: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "KE"
    packageUnit: UnitCode | None = None
    quantityUnit: UnitCode | None = None
    barcode: Text20 | None = None
    active: bool = True


class StockMoveIn(_Model):
    """`POST /v1/stock/moves`: goods in (01 to 06) or out (11 to 16) other than by a sale."""

    type: Annotated[str, Field(pattern=r"^(0[1-6]|1[1-6])$")]
    lines: Annotated[list[LineIn], Field(min_length=1)]
    remark: Annotated[Text400 | None, BeforeValidator(_absent_if_empty)] = None


class StockLevelIn(_Model):
    """`POST /v1/stock/levels`: what is left of an item."""

    itemCode: Text20
    remaining: Amount


_SENTENCES = {
    "missing": ("MISSING", "is required"),
    "extra_forbidden": ("UNKNOWN_FIELD", "is not a field of this request"),
    "string_type": ("WRONG_TYPE", 'must be text in quotes, amounts too ("116.00")'),
    "int_type": ("WRONG_TYPE", "must be a whole number"),
    "list_type": ("WRONG_TYPE", "must be a list"),
    "model_type": ("WRONG_TYPE", "must be an object"),
    "model_attributes_type": ("WRONG_TYPE", "must be an object"),
    "bool_type": ("WRONG_TYPE", "must be true or false"),
    "string_too_short": ("TOO_SHORT", "needs at least {min_length} characters"),
    "string_too_long": ("TOO_LONG", "is longer than {max_length} characters"),
    "too_short": ("TOO_FEW", "needs at least {min_length}"),
    "too_long": ("TOO_MANY", "takes at most {max_length}"),
    "literal_error": ("NOT_ALLOWED", "must be one of {expected}"),
    "greater_than_equal": ("OUT_OF_RANGE", "must be at least {ge}"),
    "less_than_equal": ("OUT_OF_RANGE", "must be at most {le}"),
}
_PATTERNS = {
    "pin": ("PIN_INVALID", "is not a KRA PIN: a letter, nine digits, a letter (A123456789Z)"),
    "rcptSign": ("SIGNATURE_INVALID", "must be the 16 characters of the receipt signature"),
    "intrlData": ("INTERNAL_DATA_INVALID", "must be the 26 characters of the internal data"),
    "paymentId": ("ID_INVALID", "is not a payment's id"),
    "reference": ("NOT_ALLOWED", "takes 1 to 12 letters, digits, spaces and hyphens"),
    "reason": ("REASON_UNKNOWN", "must be a refund reason of KRA's list, 01 to 13"),
    "type": ("MOVE_UNKNOWN", "must be a stock move of KRA's list, 01 to 06 in, 11 to 16 out"),
    "originCountry": ("COUNTRY_INVALID", "must be a country code such as KE"),
    "itemClass": ("ITEM_CLASS_INVALID", "must be up to ten digits"),
    "packageUnit": ("UNIT_INVALID", "must be a unit code such as NT"),
    "quantityUnit": ("UNIT_INVALID", "must be a unit code such as U or KG"),
}


def field_errors(error: ValidationError) -> list[FieldError]:
    """pydantic's findings as (pointer, stable code, sentence); at most 50, for a phone's screen."""
    return [_field_error(item) for item in error.errors(include_url=False)[:50]]


def pointer(*path: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _field_error(item: Any) -> FieldError:
    path = item["loc"]
    kind, context = item["type"], item.get("ctx", {})
    name = str(path[-1]) if path else "the body"
    if kind == "string_pattern_mismatch":
        code, sentence = _PATTERNS.get(name, ("NOT_ALLOWED", "is not in the form expected"))
    elif kind == "value_error":
        code, sentence = "TEXT_INVALID", str(context.get("error", "cannot be taken"))
    else:
        code, sentence = _SENTENCES.get(kind, ("NOT_ALLOWED", "cannot be taken"))
        sentence = sentence.format_map(context) if context else sentence
    return FieldError(pointer(*path), code, f"{name} {sentence}.")
