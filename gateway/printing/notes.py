"""Strips of paper that are no receipts: the ceiling's warnings."""

from __future__ import annotations

import textwrap
from datetime import datetime, timedelta

from gateway.clock import EAT
from gateway.domain.ceiling import CeilingState, CeilingView
from gateway.printing.document import Block, Cut, Document, Text


def strip_text(view: CeilingView, now: datetime) -> str | None:
    """What is printed when the ceiling comes nearer; None where there is nothing to say."""
    at = now.astimezone(EAT)
    if view.state is CeilingState.SUSPENDED:
        head = "SELLING IS SUSPENDED"
        says = "KRA was not heard for too long. Bring the internet back; selling goes on by itself."
    elif view.state is CeilingState.WARNING and view.left_us is not None:
        end = at + timedelta(microseconds=view.left_us)
        head = f"SELLING STOPS AT {end:%H:%M}"
        hours, minutes = divmod(view.left_us // 60_000_000, 60)
        says = f"KRA is not heard. {hours} h {minutes} min left. Bring the internet back."
    else:
        return None
    return f"{head}\n{says}\n{at:%d/%m/%Y %H:%M}"


def with_banner(banner: str, document: Document, columns: int) -> Document:
    """`document` under a line of large letters between two rules."""
    rule = Text("=" * columns)
    large = [
        Text(line, align="center", bold=True, size=2)
        for line in textwrap.wrap(banner, max(1, columns // 2))
    ]
    return (rule, *large, rule, *document)


def note_document(text: str, columns: int) -> Document:
    """The first line large, the rest wrapped."""
    head, *rest = text.split("\n")
    blocks: list[Block] = [
        Text(line, align="center", bold=True, size=2)
        for line in textwrap.wrap(head, max(1, columns // 2))
    ]
    for line in rest:
        blocks += [Text(part) for part in textwrap.wrap(line, columns) or [""]]
    return (*blocks, Cut())
