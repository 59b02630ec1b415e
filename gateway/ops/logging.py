"""Sets up the log: one line per event, readable in the journal, with secrets and persons masked."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping

# journald reads a level from a `<n>` at a line's start (sd-daemon(3)).
_PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
_MASKS = (
    (re.compile(r"(?i)((?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{8,}"), r"\1***"),
    (re.compile(r"\b([A-Z])\d{7}(\d\d[A-Z])\b"), r"\1*******\2"),
    # M-Pesa's CheckoutRequestID ends in nine digits of the payer's number.
    (re.compile(r"\b(ws_CO_\w*?)\d{6}(\d{3})(?![\w*])"), r"\1******\2"),
    (re.compile(r"\b(?:\+?254|0)([17])\d{5}(\d{3})\b"), r"0\1*****\2"),
)


def masked(text: str) -> str:
    """Tokens in headers, KRA PINs, Kenyan phone numbers and what holds one made unreadable."""
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return text


class _Text(logging.Formatter):
    def __init__(self, *, journal: bool) -> None:
        super().__init__(None if journal else "%(asctime)s %(levelname)-7s %(name)s %(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = masked(super().format(record))
        if not self._journal:
            return text
        return f"<{_PRIORITY.get(record.levelname, 6)}>{record.name} {text}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        value = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": masked(record.getMessage()),
        }
        if record.exc_info:
            value["trace"] = masked(self.formatException(record.exc_info))
        return json.dumps(value, ensure_ascii=False)


def set_up(level: str, style: str, env: Mapping[str, str] | None = None) -> None:
    """Log to stderr. Under systemd lines carry their level for the journal and no time of their own."""
    env = os.environ if env is None else env
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text(journal="JOURNAL_STREAM" in env))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # One line per request would bury the sale's own lines.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
