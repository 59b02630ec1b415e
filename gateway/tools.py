"""What the command line does with a store, beside the daemon or while it is stopped."""

from __future__ import annotations

import json
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.device_tools import local_url
from gateway.errors import StoreError
from gateway.journal import export
from gateway.journal.verify import Report
from gateway.printing.terminal import to_text
from gateway.settings import Settings
from gateway.slips import compose
from gateway.store import backup
from gateway.store import restore as restoring
from gateway.store.backup import Made
from gateway.store.database import FILE_NAME
from gateway.store.receipts import ReceiptRow
from gateway.wiring import shop


@contextmanager
def read_only(settings: Settings) -> Iterator[sqlite3.Connection]:
    """The store as it is now, whether the daemon runs or not. StoreError when there is none."""
    path = settings.store.directory / FILE_NAME
    if not path.is_file():
        raise StoreError(f"There is no store at {path}.")
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    try:
        conn.execute("BEGIN")
        yield conn
    finally:
        conn.close()


def journal_verify(settings: Settings) -> Report:
    """Chain, counts and gaps of the store itself."""
    with read_only(settings) as conn:
        return export.check(conn, _who(settings))


def journal_export(settings: Settings, directory: Path) -> Report:
    """Three files in `directory`, checked after they were written."""
    seller = shop(settings)

    def render(conn: sqlite3.Connection, row: ReceiptRow) -> str:
        document = compose(conn, row.invoice_id, 0, seller, export.TEXT_COLUMNS, 80)
        return to_text(document, columns=export.TEXT_COLUMNS)

    with read_only(settings) as conn:
        return export.export(conn, _who(settings), directory, render)


def backup_now(settings: Settings, target: Path | None) -> Made:
    store, unit = settings.store.directory, settings.unit.directory
    return backup.make(store, unit, target or settings.backup_directory, SystemClock().now())


def restore(settings: Settings, file: Path, *, unit_keys: bool) -> dict[str, Any]:
    """StoreError while the daemon runs: it holds the store's lock."""
    unit = settings.unit.directory if unit_keys else None
    return restoring.restore(file, settings.store.directory, unit, SystemClock().now())


def _who(settings: Settings) -> dict[str, Any]:
    branch = settings.branch
    return {"pin": branch.pin, "branchId": branch.branch_id, "tradeName": branch.trade_name}


def status(settings: Settings) -> dict[str, Any] | None:
    """`/v1/status` of the running gateway on this machine; None when none answers."""
    url = f"{local_url(settings.api.host, settings.api.port)}/v1/status"
    try:
        # A proxy in the environment is not on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=5) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except urllib.error.HTTPError as error:
        body = json.loads(error.read() or b"{}")
        raise StoreError(str(body.get("detail") or f"it answers HTTP {error.code}")) from error
    except (OSError, ValueError):
        return None


def status_text(found: dict[str, Any]) -> str:
    """The same in words, a line for each thing."""
    ceiling, signer, unit, cloud = (found[k] for k in ("ceiling", "signer", "unit", "cloud"))
    lines = [f"{found['state']}: {found['sentence']}"]
    if ceiling["left"] is not None:
        lines.append(f"ceiling   {ceiling['left']} left of {ceiling['limit']}")
    lines += [ceiling["forecast"]] if ceiling["forecast"] else []
    if ceiling["clocks"]:
        lines += [f"clock     {name}: {at}" for name, at in ceiling["clocks"].items()]
    lines.append(f"receipts  {found['receipts']['today']} today, {signer['waiting']} waiting")
    lines += [f"waits     {signer['blocked']}"] if signer["blocked"] else []
    lines += [f"held      {signer['hold']}"] if signer["hold"] else []
    lines.append(f"unit      {'signs' if unit['healthy'] else unit['reason']} ({unit['sdcId']})")
    for printer in found["printing"]["printers"]:
        lines.append(
            f"printer   {printer['name']}: {printer['reason'] or printer['state']}, "
            f"{printer['queued']} waiting"
        )
    lines.append(
        f"cloud     {cloud['state']}, {cloud['stored']} stored, {cloud['waiting']} waiting"
    )
    lines.append(f"backup    {found['backup']['problem'] or found['backup']['last'] or 'none yet'}")
    if found["gateway"]["lastStop"]:
        lines.append(f"last stop {found['gateway']['lastStop']['text']}")
    return "\n".join(lines)
