"""Result codes of the control unit: what each proves about a sale, and its words for a person.

Merged table of etims.md 3.2. The safer reading wins: a code after which the unit may have signed is
AMBIGUOUS or LINK, because a sale that is sent again as a new one would make a second receipt.
`vscu/refusal.py` reads the texts; no text ever decides whether a sale was signed.
"""

from __future__ import annotations

from enum import StrEnum


class Proof(StrEnum):
    """Verdict of a result code about the sale that it answers."""

    REFUSED = "REFUSED"  # not signed by this sending, and refused again if sent unchanged
    NOT_READY = "NOT_READY"  # not signed by this sending; the unit is not able to sign at present
    DUPLICATE = "DUPLICATE"  # the invoice number is used; by which sale is not stated
    LINK = "LINK"  # proves nothing: trouble on the path to KRA, or at KRA
    AMBIGUOUS = "AMBIGUOUS"  # proves nothing


# Codes that the unit gives before it signs. Sources: etims.md 3.2, class "reject", and 2.3; each is in
# the tables of KRA, RRA and ZRA integrators. The setting `unit.refused_codes` replaces the list.
REFUSED_CODES = (
    *("834", "881", "882", "883", "884", "893", "895", "910", "911", "912", "913"),
    *("930", "931", "932", "933", "934", "935"),
)
# Codes with which the unit reports its own state before it signs: etims.md 3.2, classes "sequence" (836),
# "config" (891), "keys" (892) and "storage" (E11, 11). The setting `unit.not_ready_codes` replaces the list.
# 899 is not on it: it is also the answer to a duplicate and to a full disk (etims.md 8.3). Nor are 838 and
# 900 to 906: they may be KRA's answer to the upload of a sale that the unit has signed already.
NOT_READY_CODES = ("836", "891", "892", "E11", "11")
DUPLICATE_CODES = ("924", "994")
# Codes whose meaning is the path to KRA, the device's standing at KRA, or load or failure there (etims.md
# 3.2: classes link, backlog, device, keys of "Server", rate, server). The sale may be signed or not, and a
# second sending would only meet the same trouble until KRA answers again.
LINK_CODES = frozenset(
    {
        *("802", "838", "894", "896"),
        *("900", "901", "903", "904", "905", "906", "E04"),
        *("990", "991", "992", "993", "996", "999"),
        # TIS 21.6.3: server, internet, system, unknown.
        *("20", "90", "96", "99"),
    }
)
# HTTP answers without an envelope that come from a proxy or an overloaded server, not from a sale.
LINK_STATUSES = frozenset({429, 502, 503, 504})
# Codes of a device that KRA or the unit does not accept. They prove nothing about the sale, but the shop
# cannot sell until the cause is removed, so the status page names them.
DEVICE_CODES = frozenset({"900", "901", "903", "904", "905", "906", "E04"})
# These depend on the request's bytes alone. The other refusals depend on what the unit or KRA stores by now,
# and that may be an earlier sending of the same sale: its purchase code is used, its credit note exists.
BY_BYTES = frozenset({"400", "834", "881", "893", "895", "910", "911", "912"})
# Codes with which the unit may report that 24 hours without KRA are over (etims.md 0.3, 7.3; unknown).
CEILING_CANDIDATES = frozenset({"894", "838"})

# The words follow the published texts (etims.md 3.2; ZRA's table for 930 to 935).
_WORDS = {
    "400": "the unit cannot read the request",
    "801": "nothing waits to be sent to KRA",
    "802": "the unit must first send to KRA what it has signed",
    "803": "everything was sent to KRA",
    "804": "there is no report to send",
    "805": "the unit has data to send to KRA again",
    "834": "the sales type and the receipt type do not go together",
    "836": "the unit's counters were altered; it must reach KRA to read them again",
    "838": "the unit has no connection to KRA",
    "881": "a purchase code is needed",
    "882": "the purchase code is not valid",
    "883": "the purchase code was used already",
    "884": "the buyer's PIN is not valid",
    "891": "the unit's KRA address is not set up",
    "892": "the unit has lost its keys",
    "893": "the unit cannot make its request to KRA from this sale",
    "894": "the unit could not reach KRA",
    "895": "the request's method is not allowed",
    "896": "KRA answered the unit with an error",
    "899": "the unit failed without a reason",
    "900": "the unit has lost its keys",
    "901": "the unit is not a valid device; it must be initialised",
    "902": "the device is installed already",
    "903": "KRA has this serial number as another kind of device",
    "904": "KRA does not know the unit",
    "905": "KRA has this serial number as another kind of device",
    "906": "KRA does not know the unit",
    "910": "a field is missing or wrong",
    "911": "the request was empty",
    "912": "the request's method is wrong",
    "913": "a code is not in KRA's lists",
    "921": "KRA does not accept sales that were declared already",
    "922": "KRA needs the sale before its invoice",
    "924": "the invoice number exists already",
    "930": "the original invoice was not found",
    "931": "the credit note's amount is larger than the original's for an item",
    "932": "an item of the credit note is not on the original invoice",
    "933": "the credit note is larger than the original invoice",
    "934": "a quantity of the credit note is larger than the original's",
    "935": "the credit note does not match the original invoice",
    "990": "KRA has had too many requests",
    "991": "KRA could not register it",
    "992": "KRA could not change it",
    "993": "KRA could not delete it",
    "994": "the unit has this sale already",
    "995": "there is no file to download",
    "996": "KRA's server failed",
    "999": "KRA reports an unknown error",
    "11": "the unit's memory is full; it must reach KRA, then be restarted",
    "E04": "KRA does not know the device or the branch",
    "E11": "the unit's memory is full; it must reach KRA, then be restarted",
    "E31": "the date of the last request is not valid",
}


def proof(
    code: str,
    duplicate_codes: tuple[str, ...] = DUPLICATE_CODES,
    *,
    refused_codes: tuple[str, ...] = REFUSED_CODES,
    not_ready_codes: tuple[str, ...] = NOT_READY_CODES,
) -> Proof:
    """Return what `code`, in answer to a sale, proves. The lists are the settings of this build."""
    if code in duplicate_codes:
        return Proof.DUPLICATE
    if code in refused_codes:
        return Proof.REFUSED
    if code in not_ready_codes:
        return Proof.NOT_READY
    return Proof.LINK if code in LINK_CODES else Proof.AMBIGUOUS


def words(code: str | None, message: str = "") -> str:
    """Return part of a sentence: the meaning where it is known, the unit's own text otherwise."""
    if code is None:
        return message or "no answer that can be read"
    known = _WORDS.get(code)
    if known is None:
        return f"code {code}: {message}" if message else f"code {code}"
    return f"{known} (code {code}{': ' + message if message else ''})"


def meaning(code: str) -> str | None:
    """Return the table's words of `code` alone, None for a code that is not in the table."""
    return _WORDS.get(code)
