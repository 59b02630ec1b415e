"""Strips of paper that are no receipts: the ceiling's warnings, captured slips, banners."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.clock import EAT
from gateway.domain.ceiling import CeilingState, CeilingView
from gateway.printing.document import Cut, Document
from gateway.printing.typeset import Typesetter
from gateway.printing.words import WORDS


def strip_text(view: CeilingView, now: datetime, language: str = "en") -> str | None:
    """What is printed when the ceiling comes nearer; None where there is nothing to say."""
    at = now.astimezone(EAT)
    words = WORDS[language]
    if view.state is CeilingState.SUSPENDED:
        head, says = words.suspended, words.suspended_says
    elif view.state is CeilingState.WARNING and view.left_us is not None:
        end = at + timedelta(microseconds=view.left_us)
        head = words.stops.format(f"{end:%H:%M}")
        says = words.stops_says.format(*divmod(view.left_us // 60_000_000, 60))
    else:
        return None
    return f"{head}\n{says}\n{at:%d/%m/%Y %H:%M}"


def with_banner(banner: str, document: Document, columns: int) -> Document:
    """`document` under a line of large letters between two rules."""
    hand = Typesetter(columns)
    return (hand.rule("="), *hand.large(banner), hand.rule("="), *document)


def note_document(text: str, columns: int) -> Document:
    """The first line large, the rest wrapped."""
    hand = Typesetter(columns)
    head, *rest = text.split("\n")
    large = hand.large(head) if head else ()
    return (*large, *(part for line in rest for part in hand.wrapped(line)), Cut())
