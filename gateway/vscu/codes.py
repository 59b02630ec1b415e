"""What each result code of the unit proves about a sale, and what to say about it.

Merged table of etims.md 3.2. The safer reading wins: a code after which the unit may hold the sale
is AMBIGUOUS, because resending that sale as new would make a second receipt.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Proof(StrEnum):
    """What an answer code says about one sale."""

    REFUSED = "REFUSED"  # not taken, and will not be taken as it is: the till must correct it
    NOT_READY = "NOT_READY"  # not taken; may be taken later as it is (link, device, sequence)
    DUPLICATE = "DUPLICATE"  # the number is known; with which sale is not said
    AMBIGUOUS = "AMBIGUOUS"  # may be taken


# Only codes that the unit gives before it signs are here; all others are AMBIGUOUS.
_REFUSED = {
    "834": "sales and receipt type do not go together",
    "881": "a purchase code is needed",
    "882": "the purchase code is not valid",
    "883": "the purchase code was used already",
    "884": "the buyer's PIN is not valid",
    "893": "the request's body is not right",
    "895": "the request's method is not right",
    "910": "a field is missing or wrong",
    "911": "the request was empty",
    "912": "the request's method is not right",
    "913": "a code is not in KRA's lists",
    "930": "the original sale is not known",
    "931": "the credit note does not fit the sale",
    "932": "the credit note does not fit the sale",
    "933": "the credit note is larger than the sale",
    "934": "the sale was credited already",
    "935": "the credit note does not fit the sale",
}
# These speak of the request's bytes alone. The others of _REFUSED depend on what the unit or KRA knows
# by now, and that may be an earlier sending of the same sale: its purchase code is used, its credit
# note is there already.
BY_BYTES = frozenset({"400", "834", "881", "893", "895", "910", "911", "912"})
# The unit did not sign: it says so of itself, before it could. 899 is not here: it is also the answer
# to a duplicate and to a full disk (etims.md 8.3). 838 and 900 to 906 are not here either: they may be
# what KRA answered to the upload of a sale that the unit had signed already.
_NOT_READY = {
    "836": "the unit's counters were altered; it must reach KRA to read them again",
    "891": "the unit's KRA address is not set up",
    "892": "the unit has lost its keys",
    "E11": "the unit's memory is full; it must reach KRA, then be restarted",
    "11": "the unit's memory is full; it must reach KRA, then be restarted",
}
# Codes that may be the unit's way of saying that 24 hours are over (etims.md 0.3, 7.3; unknown).
CEILING_CANDIDATES = frozenset({"894", "838"})
_WORDS = {
    **_REFUSED,
    **_NOT_READY,
    "838": "the unit has no connection to KRA and will not sign without it",
    "900": "the unit has lost its keys",
    "901": "the unit is not a valid device; it must be initialised",
    "903": "KRA has this serial number as another kind of device",
    "904": "KRA does not know the unit",
    "905": "KRA has this serial number as another kind of device",
    "906": "KRA does not know the unit",
    "894": "the unit could not reach KRA",
    "896": "the unit could not reach KRA",
    "899": "the unit failed without saying why",
    "921": "KRA does not take the sale in this order",
    "922": "KRA does not take the sale in this order",
    "924": "the invoice number exists already",
    "994": "the unit has this sale already",
    "990": "too many requests",
    "991": "KRA could not register it",
    "999": "KRA reports an unknown error",
}


# A refusal that speaks of the invoice's number is no refusal of its contents: newer builds say
# "Invc No: 7 is invalid, use the expected value: 8" to a sale they have signed (etims.md 8.3).
_ABOUT_THE_NUMBER = re.compile(r"invc\s*_?no|invoice number|expected value|overlap|already", re.I)


def proof(code: str, duplicate_codes: tuple[str, ...], message: str = "") -> Proof:
    """What `code`, in answer to a sale, proves."""
    if code in duplicate_codes or (code in _REFUSED and _ABOUT_THE_NUMBER.search(message)):
        return Proof.DUPLICATE
    if code in _REFUSED:
        return Proof.REFUSED
    if code in _NOT_READY:
        return Proof.NOT_READY
    return Proof.AMBIGUOUS


def words(code: str | None, message: str = "") -> str:
    """A sentence part for a person: the meaning where it is known, the unit's own text otherwise."""
    if code is None:
        return message or "no answer that can be read"
    known = _WORDS.get(code)
    if known is None:
        return f"code {code}: {message}" if message else f"code {code}"
    return f"{known} (code {code}{': ' + message if message else ''})"
