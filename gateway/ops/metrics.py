"""`/metrics`: the status as Prometheus text. Labels are configured names only, so their number is bounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("ONLINE", "OFFLINE", "WARNING", "NOT_SET_UP", "SUSPENDED", "CLOCK_FAULT")


def render(status: Mapping[str, Any]) -> str:
    """The whole page out of `/v1/status`; one family after the other, with help and type."""
    lines: list[str] = []
    for name, kind, help_, samples in _families(status):
        lines += [f"# HELP pos_gateway_{name} {help_}", f"# TYPE pos_gateway_{name} {kind}"]
        for labels, value in samples:
            lines.append(f"pos_gateway_{name}{_labels(labels)} {_number(value)}")
    return "\n".join(lines) + "\n"


Sample = tuple[Mapping[str, str], Any]


def _families(s: Mapping[str, Any]) -> Iterable[tuple[str, str, str, list[Sample]]]:
    ceiling, cloud, unit = s["ceiling"], s["cloud"], s["unit"]
    printers = s["printing"]["printers"]
    one: Mapping[str, str] = {}
    yield (
        "state",
        "gauge",
        "1 for the ceiling's state.",
        [({"state": state}, int(ceiling["state"] == state)) for state in STATES],
    )
    yield (
        "ceiling_seconds_left",
        "gauge",
        "Time to the offline ceiling.",
        [(one, ceiling["secondsLeft"])],
    )
    yield (
        "ceiling_used_ratio",
        "gauge",
        "Used part of the offline ceiling.",
        [(one, None if ceiling["usedPercent"] is None else ceiling["usedPercent"] / 100)],
    )
    yield (
        "receipts_today",
        "gauge",
        "Receipts signed today (Nairobi).",
        [(one, s["receipts"]["today"])],
    )
    yield "sales_waiting", "gauge", "Sales in line for the unit.", [(one, s["signer"]["waiting"])]
    yield (
        "sale_in_doubt",
        "gauge",
        "1 while a sale's outcome is open.",
        [(one, int(s["signer"]["openInvoice"] is not None and s["signer"]["blocked"] is not None))],
    )
    yield (
        "signing_held",
        "gauge",
        "1 while the unit is ahead of the store.",
        [(one, int(s["signer"]["hold"] is not None))],
    )
    yield (
        "unit_healthy",
        "gauge",
        "1 while the control unit answers.",
        [(one, int(unit["healthy"]))],
    )
    jvm = unit["jvm"] or {}
    yield (
        "jvm_heap_bytes",
        "gauge",
        "Used heap of the hosted JVM.",
        [(one, jvm.get("heap_used_bytes"))],
    )
    yield "jvm_threads", "gauge", "Threads of the hosted JVM.", [(one, jvm.get("threads"))]
    yield (
        "print_jobs_waiting",
        "gauge",
        "Slips waiting, by printer.",
        [({"printer": p["name"]}, p["queued"]) for p in printers],
    )
    yield (
        "printer_ready",
        "gauge",
        "1 while the printer takes slips.",
        [({"printer": p["name"]}, int(p["ok"])) for p in printers],
    )
    for name in ("waiting", "parked", "stored"):
        yield f"outbox_{name}", "gauge", f"Records for the cloud: {name}.", [(one, cloud[name])]
    mpesa = s["mpesa"]
    yield (
        "mpesa_state",
        "gauge",
        "1 for M-Pesa's state.",
        [({"state": state}, int(mpesa["state"] == state)) for state in ("off", "ready", "problem")],
    )
    for name, key, help_ in (
        ("open", "open", "Customers who are being asked for money."),
        ("unknown", "unknown", "Payments whose outcome nobody has told."),
        ("money_without_receipt", "moneyWithoutReceipt", "Paid, and no signed sale has it."),
        ("refunds_due", "refundsDue", "Paid, and to be given back."),
        (
            "receipts_without_money",
            "receiptsWithoutMoney",
            "Signed as mobile money, not confirmed.",
        ),
    ):
        yield f"mpesa_{name}", "gauge", help_, [(one, mpesa[key])]
    yield (
        "store_durable_commits_total",
        "counter",
        "Commits that waited for the disk.",
        [(one, s["store"]["durableCommits"])],
    )
    yield (
        "disk_full",
        "gauge",
        "1 while the store lives on its reserve.",
        [(one, int(s["store"]["diskFull"]))],
    )


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    inner = ",".join(
        '{}="{}"'.format(k, v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " "))
        for k, v in labels.items()
    )
    return "{" + inner + "}"


def _number(value: Any) -> str:
    return "NaN" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
