"""Read the text of a refusal: does it reject the number of the sale that was sent, and who filled the field.

Reached only for codes that the unit gives before it signs, so nothing here decides whether the sending was
signed. `about_number` separates "this number is used" (a duplicate) from all other refusals; `cause_of`
separates what the till gave from what this gateway fills in. Fields: saveSales, etims.md 2.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any

from gateway.domain.outcome import Cause
from gateway.vscu.codes import meaning, words

# --- what was sent --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filled:
    """Values that this gateway sends where the till gives none; None where they are not known here."""

    walk_in_pin: str | None = None
    walk_in_name: str | None = None
    item_class: str | None = None
    package_unit: str | None = None
    quantity_unit: str | None = None
    cashier_id: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The request that was answered. `body` is empty where its bytes are no JSON object."""

    body: Mapping[str, Any] = field(default_factory=dict)
    filled: Filled = field(default_factory=Filled)

    @classmethod
    def of(cls, raw: bytes, filled: Filled) -> Sent:
        """Return the request in `raw`."""
        try:
            body = json.loads(raw, parse_float=Decimal)
        except (ValueError, RecursionError):
            body = None
        return cls(body if isinstance(body, dict) else {}, filled)

    @property
    def invc_no(self) -> int | None:
        """Return the sale's own number."""
        number = self.body.get("invcNo")
        return number if isinstance(number, int) else None

    def lines(self, name: str) -> list[Any]:
        """Return the member `name` of every line."""
        items = self.body.get("itemList")
        return [item.get(name) for item in items or () if isinstance(item, dict)]


# --- is it about the sale's own number? -------------------------------------------------------------------


class Number(Enum):
    """Verdict of a refusal's text about the number of the sale that was sent."""

    NOTHING = "nothing"
    USED = "used"  # or not acceptable for a reason that may be this
    TOO_HIGH = "too high"  # the unit expects a lower one: it has never had this one


# Codes whose own meaning is clear: a purchase code, a PIN, the original invoice. The others leave it to the
# text what is wrong, so only they can be about the sale's number without repeating that number.
_CLEAR_CODES = frozenset(
    {"834", "881", "882", "883", "884", "895", "911", "912"}
    | {"930", "931", "932", "933", "934", "935"}
)
_NUMBER = re.compile(
    r"(?P<other>(?:org|orig|original|trd|trade|trader|trader's|credit|debit|spplr|supplier|purchase|note|cust"
    r"|customer|customer's|ref|reference|referenced)"
    r"[\W_]*(?:(?:sales?|tax|cis)(?:'s)?)?[\W_]*)?"
    r"(?:invc|invoice|inv|sale|sales|receipt)(?:'s|\W+with(?:\W+the)?)?[\W_]*(?:no|num|number|nr)(?![a-z])"
    r"(?!\W+longer)"
    r"(?:(?:[\W_]|\bis\b|\bwith\b|\bvalue\b){0,8}?(?P<number>\d+))?",
    re.I,
)
_ITSELF = re.compile(
    r"(?<!original )(?<!orig )\b(?:invoice|sale|cis invoice)(?: data)?[\W_]*(?P<number>\d+)?[\W_]*"
    r"(?:(?:is|was|has)\b[\W_]*)?(?:been\b[\W_]*)?"
    r"(?:exists\b|already (?:been\b[\W_]*)?(?:exist|regist|receiv|sent|sign|process|declar|used|issued)|"
    r"duplicate)"
    r"|\bduplicated? (?:invoice|sale)\b(?! item)",
    re.I,
)
_EXPECTED = re.compile(r"\bexpect(?:ed|s|ing)?\b\D{0,30}(?P<number>\d+)", re.I)
_USED = re.compile(
    r"\balready\b|\bexist(?:s|ed|ing)\b|\bduplicat|\boverlap|\b(?:is|was|been) (?:used|taken)\b|\bin use\b",
    re.I,
)
_WRONG = re.compile(
    r"\binvalid\b|\bnot valid\b|\bwrong\b|\bincorrect\b|\bsequence\b|\border\b|\bmust be\b|\bshould be\b",
    re.I,
)


def about_number(code: str, message: str, sent: Sent) -> Number:
    """Return the text's verdict about the sale's own number. References to the original invoice, the
    till's receipt number and the numbers of other sales count as nothing."""
    ours = sent.invc_no
    named = fields_in(message)
    elsewhere = bool(named) and "invcNo" not in named
    is_open = code not in _CLEAR_CODES
    expected = _EXPECTED.search(message)
    for match in _NUMBER.finditer(message):
        if match["other"]:
            continue
        given = match["number"]
        if given is not None and expected is not None and match.start("number") >= expected.start():
            given = None  # the number of "expected value: 8" is not the number that is spoken about
        if (given is not None and ours != int(given)) or (given is None and not is_open):
            continue
        claim = expected or (None if elsewhere else _USED.search(message))
        if claim is None and is_open and not elsewhere:
            claim = _WRONG.search(message)
        if claim is not None:
            return _against(expected, ours)
    if not is_open or elsewhere:
        return Number.NOTHING
    itself = _ITSELF.search(message)
    if "invcNo" in named or (itself and itself["number"] in (None, str(ours))):
        return _against(expected, ours)
    return Number.NOTHING


def _against(expected: re.Match[str] | None, ours: int | None) -> Number:
    if expected and ours is not None and int(expected["number"]) < ours:
        return Number.TOO_HIGH
    return Number.USED


# --- whose field is it? -----------------------------------------------------------------------------------


def _cause(code: str, sentence: str) -> Cause:
    return Cause(code, sentence, ours=True)


CLOCK = _cause(
    "CLOCK",
    "The control unit does not accept the date of the sale. Between 00:00 and 03:00 a unit that compares in "
    "UTC does this, and it ends at 03:00; at another time the clock of this machine or of the unit is wrong",
)
BRANCH = _cause(
    "BRANCH",
    "The control unit does not accept this shop's PIN or branch. branch.pin, branch.branch_id and unit.serial "
    "must be those that KRA has registered",
)
RATES = _cause(
    "RATES",
    "The control unit does not accept the tax rates of this sale. The rates are read again now; if the same "
    "sale is refused again, ring it up as a new sale, which gets the new rates",
)
# A credit note goes out at the rates of its sale, whatever they are by now.
RATES_OF_ORIGINAL = _cause(
    "RATES",
    "The control unit does not accept a credit note at the tax rates of its sale, which KRA has changed since",
)
AMOUNTS = _cause(
    "AMOUNTS",
    "The control unit does not accept the tax or the sums that this gateway calculated. unit.taxable_amount "
    "or the tax rates are not what this unit expects",
)
CASHIER = _cause(
    "CASHIER",
    "The control unit does not accept the cashier of the settings. Set unit.cashier_id and unit.cashier_name",
)
RECEIPT_TEXT = _cause(
    "RECEIPT_TEXT",
    "The control unit does not accept the receipt block of the settings: branch.trade_name, branch.address "
    "or the messages of [receipt]",
)
SALE_TYPE = _cause(
    "SALE_TYPE",
    "The control unit does not accept this kind of sale or credit note as the gateway sends it",
)
SALE_STATUS = _cause(
    "SALE_STATUS",
    "The control unit does not accept the sale's status. For credit notes set unit.credit_note_status",
)
WALK_IN = _cause(
    "WALK_IN",
    "The control unit does not accept a sale without the buyer's details. Set unit.walk_in_pin and "
    "unit.walk_in_name",
)
ITEM_DEFAULTS = _cause(
    "ITEM_DEFAULTS",
    "The control unit does not accept the codes that the settings give items without their own: "
    "unit.package_unit, unit.quantity_unit or unit.item_class",
)
REQUEST = _cause("REQUEST", "The control unit cannot read what this gateway sends")
NUMBER = _cause(
    "NUMBER",
    "The control unit expects a lower invoice number than this gateway's next one; the two do not agree "
    "about what was signed",
)

NO_PATH = Cause(
    "PATH",
    "The control unit serves no path for sales. The VSCU application is not running, or unit.paths is wrong",
)
_NOT_READY = {
    "836": "SEQUENCE",
    "891": "KRA_ADDRESS",
    "892": "KEYS",
    "900": "KEYS",
    "11": "MEMORY_FULL",
    "E11": "MEMORY_FULL",
    **dict.fromkeys(("901", "903", "904", "905", "906", "E04"), "DEVICE"),
}


def not_ready(code: str, message: str) -> Cause:
    """Return the cause for a code with which a unit reports that it cannot sign."""
    said = meaning(code)
    text = f"{said[0].upper()}{said[1:]} (code {code})" if said else words(code, message)
    if said is None:
        text = f"The control unit is not ready: {text}"
    return Cause(_NOT_READY.get(code, "NOT_READY"), text)


def _rates(sent: Sent) -> Cause | None:
    return RATES_OF_ORIGINAL if sent.body.get("rcptTyCd") == "R" else RATES


# None: the till gave it. A function looks at the request.
_Owner = Cause | None | Callable[[Sent], Cause | None]


def _if_sent(value: Callable[[Sent], bool], cause: Cause) -> _Owner:
    return lambda sent: cause if value(sent) else None


def _buyer(name: str, filled: Callable[[Filled], str | None]) -> _Owner:
    return _if_sent(
        lambda sent: bool(sent.body) and sent.body.get(name) in (None, filled(sent.filled)), WALK_IN
    )


def _default(name: str, filled: Callable[[Filled], str | None]) -> _Owner:
    def ours(sent: Sent) -> bool:
        values = sent.lines(name)
        return bool(values) and all(value in (None, filled(sent.filled)) for value in values)

    return _if_sent(ours, ITEM_DEFAULTS)


def _cashier(name: str) -> _Owner:
    known = "regrId" if name.startswith("regr") else "modrId"
    return _if_sent(
        lambda sent: (
            sent.filled.cashier_id is None or sent.body.get(known) in (None, sent.filled.cashier_id)
        ),
        CASHIER,
    )


def _phone(sent: Sent) -> Cause | None:
    receipt = sent.body.get("receipt")
    given = isinstance(receipt, dict) and receipt.get("custMblNo") is not None
    return None if given else RECEIPT_TEXT


# The mark that `vscu/sale.py` puts behind the till's remark, alone.
_MARK = re.compile(r"\[[0-9A-HJKMNP-TV-Z]{26}\]")


def _remark(sent: Sent) -> Cause | None:
    remark = sent.body.get("remark")
    return REQUEST if sent.body and (remark is None or _MARK.fullmatch(str(remark))) else None


def _barcode(sent: Sent) -> Cause | None:
    values = sent.lines("bcd")
    return REQUEST if values and all(value is None for value in values) else None


_FIELDS: dict[str, _Owner] = {
    **dict.fromkeys(("tin", "bhfId", "dvcSrlNo", "cmcKey", "sdcId", "mrcNo"), BRANCH),
    **dict.fromkeys(("trdInvcNo", "orgInvcNo", "rfdRsnCd", "pmtTyCd", "totAmt", "itemList")),
    **dict.fromkeys(
        ("itemCd", "itemNm", "pkg", "qty", "prc", "splyAmt", "dcRt", "dcAmt", "taxTyCd")
    ),
    "invcNo": NUMBER,
    "custTin": _buyer("custTin", lambda filled: filled.walk_in_pin),
    "custNm": _buyer("custNm", lambda filled: filled.walk_in_name),
    "custMblNo": _phone,
    "remark": _remark,
    "bcd": _barcode,
    **dict.fromkeys(("salesTyCd", "rcptTyCd"), SALE_TYPE),
    "salesSttsCd": SALE_STATUS,
    **dict.fromkeys(
        ("cfmDt", "salesDt", "stockRlsDt", "cnclReqDt", "cnclDt", "rfdDt", "rcptPbctDt"), CLOCK
    ),
    **dict.fromkeys(
        ("totItemCnt", "itemSeq", "totTaxblAmt", "totTaxAmt", "taxblAmt", "taxAmt"), AMOUNTS
    ),
    **{f"{name}{letter}": AMOUNTS for name in ("taxblAmt", "taxAmt") for letter in "ABCDE"},
    "taxRt": _rates,
    **{f"taxRt{letter}": _rates for letter in "ABCDE"},
    **{name: _cashier(name) for name in ("regrId", "regrNm", "modrId", "modrNm")},
    **dict.fromkeys(("receipt", "rptNo", "trdeNm", "adrs", "topMsg", "btmMsg"), RECEIPT_TEXT),
    **dict.fromkeys(("prchrAcptcYn", "isrccCd", "isrccNm", "isrcRt", "isrcAmt"), REQUEST),
    "itemClsCd": _default("itemClsCd", lambda filled: filled.item_class),
    "pkgUnitCd": _default("pkgUnitCd", lambda filled: filled.package_unit),
    "qtyUnitCd": _default("qtyUnitCd", lambda filled: filled.quantity_unit),
}
_KNOWN = {name.lower(): name for name in _FIELDS}
# Names of fields that are also plain words: counted only inside brackets.
_WORDS_TOO = frozenset({"tin", "receipt", "remark", "pkg", "qty", "prc", "bcd", "itemlist"})
_CONTAINERS = frozenset({"receipt", "itemList"})
_BRACKETS = re.compile(r"[\[<({\"'`]([^\[\]<>(){}\"'`]*)[\]>)}\"'`]")
_TOKEN = re.compile(r"[A-Za-z]+")


def fields_in(message: str) -> tuple[str, ...]:
    """Return the fields of saveSales that a text names, in the spec's spelling and without repeats."""
    found: dict[str, None] = {}
    inside = {
        token.lower() for part in _BRACKETS.findall(message) for token in _TOKEN.findall(part)
    }
    for token in _TOKEN.findall(message):
        name = _KNOWN.get(token.lower())
        if name is not None and (token.lower() not in _WORDS_TOO or token.lower() in inside):
            found[name] = None
    members = [name for name in found if name not in _CONTAINERS]
    return tuple(members or found)


def _any_pin(sent: Sent) -> Cause | None:
    """Return the owner of a PIN that the text does not attribute: the till if it gave one, else the shop."""
    return BRANCH if _owner(_FIELDS["custTin"], sent) is not None else None


# Phrases of texts that name no field; the first match counts.
_PHRASES: tuple[tuple[re.Pattern[str], _Owner], ...] = tuple(
    (re.compile(pattern, re.I), owner)
    for pattern, owner in (
        (r"\b(?:customer|buyer|cust|purchaser)\W{0,3}s?\W*(?:tin|tpin|pin)\b", _FIELDS["custTin"]),
        (r"\b(?:sales?|confirm(?:ation|ed)?|release|refund|invoice)\W*(?:date|time)\b", CLOCK),
        (r"\bbranch\b|\b(?:taxpayer|seller|trader)'?s?\W*(?:tin|tpin|pin)\b|\bdevice\b", BRANCH),
        (r"\btp?in\b", _any_pin),
        (r"\btax\W*rates?\b|(?<!discount )\brates?\b", _rates),
        (r"\bwrong amount computation\b|\b(?:taxable|tax) amounts?\b", AMOUNTS),
        (r"\b(?:registrant|registrar|modifier|cashier)\b", _FIELDS["regrId"]),
        (r"\bsales?\W*type\b|\breceipt\W*type\b", SALE_TYPE),
        # No till sends a date or a time.
        (r"\bdates?\b|\btime(?:stamp)?\b|\bclock\b|\b180 days\b", CLOCK),
    )
)
# Refusals of the request as such, which no till has made; 893 may name a field all the same.
_OF_THE_REQUEST = frozenset({"895", "911", "912"})


def cause_of(code: str, message: str, sent: Sent) -> Cause | None:
    """Return the cause when a refusal is about what this gateway fills in, None when the till gave it.
    Where a text names fields of both, the till can change something, so it is the till's."""
    if code == "834":
        return SALE_TYPE
    if code == "884":
        return _owner(_FIELDS["custTin"], sent)
    if code in _OF_THE_REQUEST:
        return REQUEST
    if code in _CLEAR_CODES:
        return None
    named = fields_in(message)
    computed = re.search(r"\bcomput|\bcalculat", message, re.I)
    if named:
        causes = [
            AMOUNTS if computed and name == "totAmt" else _owner(_FIELDS[name], sent)
            for name in named
        ]
        return causes[0] if all(causes) else None
    for pattern, owner in _PHRASES:
        if pattern.search(message):
            return _owner(owner, sent)
    # The number without a claim that it is used: the gateway's field all the same.
    own = any(not match["other"] and not match["number"] for match in _NUMBER.finditer(message))
    return REQUEST if code == "893" or own else None


def _owner(owner: _Owner, sent: Sent) -> Cause | None:
    return owner(sent) if callable(owner) else owner
