"""Credit notes of the simulated shop: what desks ask for, and what must be true of them at the end.

The product takes a sale back as a whole, once (TIS 6.16); a part of one is refused. What is checked is
stated more widely: all notes of a sale together never exceed it, as a whole and line by line."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.sim.day import Asked
from tests.sim.sale import Sale
from tests.sim.unit import SDC_ID

# An id that is nobody's.
UNKNOWN = "0" * 26
# Reasons for one goods return (class 32); the second is another body under the same key.
REASONS = ("06", "05")
# A part of the sale, as another API would say it.
PART = {"lines": [{"seq": 1, "quantity": "1"}], "total": "116.00"}


@dataclass(slots=True)
class Note(Asked):
    """One credit note under one key. Without `of` and `of_note` it is of a sale that is not there."""

    of: Sale | None = None
    of_note: Note | None = None
    # Asks for a part first.
    partial: bool = False
    # Says sometimes this, sometimes that under its one key.
    twisted: bool = False
    sent: tuple[str, str, bool] = ("", "", False)
    # Which reason was told a receipt.
    signed_as: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the gateway keeps what it answered, so that it says the same for ever."""
        return self.final is not None and (
            self.final[0] in (201, 409) or b'"UNIT_REFUSED"' in self.final[1]
        )

    def next_request(self, chance: random.Random) -> tuple[str, dict[str, Any]]:
        """(the id in the path, the body)"""
        invoice_id = UNKNOWN
        if self.of is not None:
            invoice_id = self.of.invoice_id or UNKNOWN
        elif self.of_note is not None:
            invoice_id = self.of_note.invoice_id or UNKNOWN
        reason = REASONS[0]
        if self.final is not None and self.sent[1]:
            reason = self.sent[1]
        elif self.twisted:
            reason = chance.choice(REASONS)
        part = self.partial and self.final is None
        self.sent = (invoice_id, reason, part)
        body = {"tillReceiptNo": self.key, "reason": reason}
        return invoice_id, {**body, **PART} if part else body

    def look_at(self, said: tuple[int, bytes]) -> None:
        """Whether this ends it."""
        status, code = said[0], json.loads(said[1]).get("code", "")
        _, reason, part = self.sent
        if part:
            # Refused for what it is, or for what was done with the key before; never signed.
            if status in (201, 202):
                self.problems.append(f"{self.key} asked for a part and hears {status}")
            self.partial = False
        elif status == 201:
            self.signed_as.add(reason)
            self.final = said
        elif status == 409:
            self.final = said
        elif code == "IDEMPOTENCY_KEY_REUSED" and not self.twisted:
            self.problems.append(f"{self.key} is called another credit note")
            self.final = said
        elif code == "INVOICE_UNKNOWN":
            # A sale that was waiting may be lost by a power cut; once its key is quarantined it never comes.
            if self.of is None or self.of.quarantined:
                self.final = said
        elif status == 422 and code != "IDEMPOTENCY_KEY_REUSED":
            self.final = said

    @property
    def invoice_id(self) -> str | None:
        told = [body for status, body in self.heard if status == 201]
        return json.loads(told[0])["invoiceId"] if told else None


def new_note(
    chance: random.Random, till: str, key: str, sales: list[Sale], notes: list[Note]
) -> Note:
    """Of a sale in whatever state it is, now and then of one that others take back too, of a credit note,
    or of nothing."""
    note = Note(till, key, partial=chance.random() < 0.2, twisted=chance.random() < 0.2)
    known = [sale for sale in sales if sale.invoice_id is not None and not sale.closed]
    taken = [n for n in notes if n.of is not None and not n.of.closed]
    signed = [n for n in notes if n.invoice_id is not None and not n.forgotten]
    kind = chance.random()
    if kind < 0.05 or not known:
        return note
    if kind < 0.1 and signed:
        note.of_note = chance.choice(signed)
    elif kind < 0.3 and taken:
        note.of = chance.choice(taken).of
    elif kind < 0.5 and (open_ := [sale for sale in known if sale.final is None]):
        note.of = chance.choice(open_)
    else:
        note.of = chance.choice(known)
    return note


def rival_of(note: Note) -> Note:
    """The same sale by another desk, under a key of its own."""
    return Note("desk-3", f"{note.key}-rival", of=note.of)


def check_notes(journal: list[dict[str, Any]], notes: list[Note]) -> list[str]:
    """Every sentence that is not true; `journal`: what the unit has signed, in its order."""
    journal = [entry for entry in journal if "alien" not in entry]
    by_key = {entry["trdInvcNo"]: entry for entry in journal}
    problems = [problem for note in notes for problem in note.problems]
    for note in notes:
        problems += _of_key(note, by_key)
    return problems + _sums(journal)


def _of_key(note: Note, by_key: dict[str, dict[str, Any]]) -> list[str]:
    """What its desk was told against what the unit holds."""
    entry = by_key.get(note.key)
    if entry is None:
        return [f"{note.key} was told a receipt the unit does not have"] if note.signed_as else []
    problems = []
    sale = by_key.get(note.of.key) if note.of is not None else None
    if sale is None:
        return [f"{note.key} is signed, and its sale is not"]
    if entry["rcptTyCd"] != "R" or entry["orgInvcNo"] != sale["invcNo"]:
        problems.append(f"{note.key} takes back {entry['orgInvcNo']}, not {sale['invcNo']}")
    if note.signed_as and note.signed_as != {entry["rfdRsnCd"]}:
        problems.append(f"{note.key} is signed for {entry['rfdRsnCd']}, told for {note.signed_as}")
    for status, body in note.heard:
        value = json.loads(body)
        of = f"{SDC_ID}/{sale['rcptNo']}"
        if status == 201 and value["originalCuInvoiceNo"] != of:
            problems.append(f"{note.key} is told as of {value['originalCuInvoiceNo']}, not {of}")
    if note.final is not None and note.final[0] != 201:
        problems.append(f"{note.key} was told {note.final}, and is signed")
    return problems


def _sums(journal: list[dict[str, Any]]) -> list[str]:
    """No sale is taken back beyond what it was, in all and in each line."""
    sold = {entry["invcNo"]: entry for entry in journal if entry["rcptTyCd"] == "S"}
    back: dict[int, list[dict[str, Any]]] = defaultdict(list)
    problems = []
    for entry in journal:
        if entry["rcptTyCd"] == "R":
            back[entry["orgInvcNo"]].append(entry)
    for number, entries in back.items():
        sale = sold.get(number)
        if sale is None or sale["rcptNo"] > entries[0]["rcptNo"]:
            problems.append(f"a credit note of {number}, which was no sale then")
            continue
        for what, (total, taken) in _amounts(sale, entries).items():
            if taken > total:
                keys = [entry["trdInvcNo"] for entry in entries]
                problems.append(
                    f"{sale['trdInvcNo']} {what} was {total}, {keys} take {taken:.2f} back"
                )
    return problems


def _amounts(
    sale: dict[str, Any], notes: list[dict[str, Any]]
) -> dict[str, tuple[Decimal, Decimal]]:
    """By what is counted: (of the sale, of its notes together). A line that the sale has not counts 0."""

    def figures(entry: dict[str, Any]) -> dict[str, Decimal]:
        found = {"in all": Decimal(str(entry["totAmt"]))}
        for item in entry["itemList"]:
            found[f"line {item['itemSeq']}"] = Decimal(str(item["totAmt"]))
            found[f"pieces of line {item['itemSeq']}"] = Decimal(str(item["qty"]))
        return found

    total = figures(sale)
    taken: dict[str, Decimal] = defaultdict(Decimal)
    for entry in notes:
        for what, amount in figures(entry).items():
            taken[what] += amount
    return {what: (total.get(what, Decimal(0)), amount) for what, amount in taken.items()}
