"""The words the law leaves free, in English and Kiswahili; KRA's own stay as KRA wrote them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    buyer: str
    cashier: str
    change: str
    discount: str
    copy_number: str


WORDS = {
    "en": Words("BUYER", "CASHIER", "CHANGE", "DISCOUNT", "copy no."),
    "sw": Words("MNUNUZI", "KARANI", "CHENJI", "PUNGUZO", "nakala ya"),
}
