"""The fiscal receipt: what the control unit returned, and the numbers and texts derived from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

PORTAL_PATH = "/common/link/etims/receipt/indexEtimsReceiptData?Data="
PORTALS = {
    "production": "https://etims.kra.go.ke",
    "sandbox": "https://etims-sbx.kra.go.ke",
}
# Labels of a second print: the stored data again, with the copy's designation (TIS 4.3, 6.17).
COPY_LABELS = {"NS": "CS", "NC": "CC"}


@dataclass(frozen=True, slots=True)
class Receipt:
    """One signed answer. `scu_time` is the unit's clock in Nairobi, the only time that is fiscal."""

    label: str
    invc_no: int
    rcpt_no: int
    tot_rcpt_no: int
    sdc_id: str
    mrc_no: str | None
    intrl_data: str
    rcpt_sign: str
    scu_time: datetime

    @property
    def cu_invoice_no(self) -> str:
        """`sdcId/rcptNo`, as KRA's portal prints it (TIS 6.23.4)."""
        return f"{self.sdc_id}/{self.rcpt_no}"

    @property
    def counter(self) -> str:
        """`A/B LABEL` (TIS 6.23.5)."""
        return f"{self.rcpt_no}/{self.tot_rcpt_no} {self.label}"


def dashed(text: str) -> str:
    """A dash after every fourth character (TIS 6.23.6 and 6.23.7)."""
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def portal_url(pin: str, branch_id: str, rcpt_sign: str, *, base: str) -> str:
    """The address in the QR: PIN (11) + branch (2) + signature (16), nothing between (etims.md 4.3)."""
    return f"{base}{PORTAL_PATH}{pin}{branch_id}{rcpt_sign}"
