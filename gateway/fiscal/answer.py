"""The body a till gets for a signed sale. Made once, in the committing transaction; replayed as is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.clock import iso
from gateway.domain.invoice import Invoice
from gateway.domain.receipt import Receipt, portal_url
from gateway.money import text


def signed_body(
    *,
    invoice_id: str,
    till_id: str,
    invoice: Invoice,
    receipt: Receipt,
    qr: str,
    chain_hash: str,
    printer: str | None,
    recovered: bool,
    extras: Mapping[str, Any],
) -> bytes:
    """UTF-8 JSON. Money as strings, numbers of the unit as integers, times in Nairobi."""
    value = {
        "invoiceId": invoice_id,
        "state": "SIGNED",
        "till": till_id,
        "tillReceiptNo": invoice.till_receipt_no,
        "label": receipt.label,
        "invcNo": receipt.invc_no,
        "rcptNo": receipt.rcpt_no,
        "totRcptNo": receipt.tot_rcpt_no,
        "cuInvoiceNo": receipt.cu_invoice_no,
        "counter": receipt.counter,
        "sdcId": receipt.sdc_id,
        "mrcNo": receipt.mrc_no,
        "intrlData": receipt.intrl_data,
        "rcptSign": receipt.rcpt_sign,
        "scuTime": iso(receipt.scu_time),
        "qr": qr,
        "recovered": recovered,
        "total": text(invoice.total),
        "totalTax": text(invoice.tax),
        "change": text(invoice.change),
        "taxes": [
            {
                "letter": row.letter,
                "rate": f"{row.percent.normalize():f}",
                "gross": text(row.gross),
                "net": text(row.net),
                "tax": text(row.tax),
            }
            for row in invoice.letters
        ],
        "originalCuInvoiceNo": invoice.original_cu_invoice_no,
        "printer": printer,
        "journalHash": chain_hash,
        **extras,
    }
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def qr_of(receipt: Receipt, *, pin: str, branch_id: str, base: str) -> str:
    """What the receipt's QR holds; a proforma and a training sale are not KRA's to look up, but the
    unit signed them all the same, so the address is given and the paper decides."""
    return portal_url(pin, branch_id, receipt.rcpt_sign, base=base)
