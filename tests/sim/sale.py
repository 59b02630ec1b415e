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
    # Its till makes a new key for the same receipt after each answer that did not come.
    new_keys: bool = False
    round: int = 0
    # The gateway's id of it, where an answer said one; another one after a claim that was lost.
    invoice_id: str | None = None
    # This copy of the store has seen its key while it was held, and knows it from then on.
    noted: bool = False
    # It may have been taken back in the time that an older copy of the store does not know.
    closed: bool = False

    @property
    def idem_key(self) -> str:
        """The key that is sent; the receipt number of the sale is always `key`."""
        return f"{self.key}~{self.round}" if self.new_keys else self.key

    @property
    def quarantined(self) -> bool:
        """Whether its till was told that it is never signed under its key."""
        return self.final is not None and b'"MAYBE_SIGNED"' in self.final[1]

    def learn(self, said: tuple[int, bytes] | None) -> None:
        if said is None:
            # A store that was put in place of another one does not know the keys of the time between.
            self.round += 0 if self.forgotten or self.final else 1
            return
        value = json.loads(said[1])
        found = value.get("invoiceId") or value.get("instance", "")
        # Of several keys only one is signed; the answers that show it are the receipt and the repeat.
        if ids.is_id(found) and (not self.new_keys or said[0] in (201, 409)):
            self.invoice_id = found
