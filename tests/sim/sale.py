"""A sale of the simulated shop, as its till knows it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from gateway import ids
from tests.sim.day import Asked


@dataclass(slots=True)
class Sale(Asked):
    refused: bool = False
    # Its till sends no key; `key` is its receipt number only.
    keyless: bool = False
    # The gateway's id of it, where an answer said one; another one after a claim that was lost.
    invoice_id: str | None = None
    # This copy of the store has seen its key while it was held, and knows it from then on.
    noted: bool = False
    # It may have been taken back in the time that an older copy of the store does not know.
    closed: bool = False

    def learn(self, said: tuple[int, bytes] | None) -> None:
        if said is None:
            return
        value = json.loads(said[1])
        found = value.get("invoiceId") or value.get("instance", "")
        if ids.is_id(found):
            self.invoice_id = found
