"""Compares an operator's decision with what the control unit itself shows (rule `contra` of evidence.md).

The unit's read-back, its database and its receipt counter are asked right before the decision is stored. A
source that cannot answer contradicts nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from gateway.fiscal.evidence import CountingUnit, ReadingUnit
from gateway.fiscal.identity import StoredSale
from gateway.store.invoices import InvoiceRow


class EnteredReceipt(Protocol):
    """The receipt that an operator has read on the portal."""

    @property
    def tot_rcpt_no(self) -> int: ...
    @property
    def rcpt_sign(self) -> str: ...


class Contradictions:
    """`readers` and `counter` as the resolver has them; `last_stored`: the receipt counter of the last
    receipt in the store."""

    def __init__(
        self,
        *,
        readers: Sequence[ReadingUnit],
        counter: CountingUnit | None,
        last_stored: Callable[[], Awaitable[int]],
    ) -> None:
        self._readers = tuple(readers)
        self._counter = counter
        self._last_stored = last_stored

    async def __call__(self, row: InvoiceRow, entered: EnteredReceipt | None) -> str | None:
        """Return why the decision cannot be true, or None. `entered` is None for "not signed"."""
        counted = None if self._counter is None else await self._counter.last_counter()
        if isinstance(counted, int):
            why = contradicts_counter(counted, await self._last_stored(), entered)
            if why is not None:
                return why
        assert row.invc_no is not None
        for reader in self._readers:
            found = await reader.stored_sale(row.invc_no)
            if isinstance(found, StoredSale):
                why = contradicts_reader(row.invc_no, found, entered)
                if why is not None:
                    return why
        return None


def contradicts_counter(counted: int, stored: int, entered: EnteredReceipt | None) -> str | None:
    """Return why the unit's receipt counter excludes the decision, or None."""
    if entered is None and counted > stored:
        return (
            f"the control unit's receipt counter is at {counted}, and the last receipt here is {stored}: the "
            "unit has signed something since"
        )
    if entered is not None and entered.tot_rcpt_no > counted:
        return (
            f"the control unit's receipt counter is at {counted}, so it has not signed a receipt "
            f"{entered.tot_rcpt_no} yet"
        )
    return None


def contradicts_reader(
    invc_no: int, found: StoredSale, entered: EnteredReceipt | None
) -> str | None:
    """Return why the sale that the unit shows under this invoice number excludes the decision, or None."""
    if entered is None:
        return f"the control unit shows receipt {found.data.tot_rcpt_no} under invoice number {invc_no}"
    if found.data.rcpt_sign.replace("-", "").upper() != entered.rcpt_sign:
        return (
            f"the control unit shows receipt {found.data.tot_rcpt_no} with another signature under invoice "
            f"number {invc_no}"
        )
    return None
