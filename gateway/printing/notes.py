"""Strips of paper that are no receipts: the ceiling's warnings, captured slips, banners."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.clock import EAT
from gateway.domain.ceiling import CeilingState, CeilingView
from gateway.printing.document import Cut, Document, Qr, Text
from gateway.printing.typeset import Typesetter
from gateway.printing.words import WORDS

# The body of the job that is a test print.
TEST_PRINT = "TEST PRINT"
TEST_CONTENT = "https://etims.kra.go.ke/common/link/etims/receipt/indexEtimsReceiptData"


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
    if text == TEST_PRINT:
        return test_document(columns)
    hand = Typesetter(columns)
    head, *rest = text.split("\n")
    large = hand.large(head) if head else ()
    return (*large, *(part for line in rest for part in hand.wrapped(line)), Cut())


def test_document(columns: int) -> Document:
    """A slip that shows what a printer can do: its width, its letters, and both kinds of QR."""
    hand = Typesetter(columns)
    return (
        *hand.large(TEST_PRINT),
        *hand.centred("THIS IS NOT AN OFFICIAL RECEIPT"),
        hand.rule(),
        *hand.wrapped("The line above goes from one margin to the other. Cafe: Caf\u00e9. Ng'ombe: Ng\u2019ombe."),
        hand.rule(),
        Text("A: by the printer's own command", "center"),
        Qr(TEST_CONTENT, 5, how="native"),
        Text("B: as a picture", "center"),
        Qr(TEST_CONTENT, 5, how="picture"),
        *hand.wrapped("Say on the page of this printer which of the two is a square. Letters and digits in the place "
                      "of A mean that it has no QR of its own."),
        Cut(),
    )  # fmt: skip
