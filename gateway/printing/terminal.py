"""A Document as text: for the terminal with a QR that a phone can scan, and plain for a journal."""

from __future__ import annotations

from gateway.printing.document import Cut, Document, Qr, Text


def to_text(document: Document, *, columns: int, qr: bool = False) -> str:
    """Lines joined by newlines. With `qr`, QRs are drawn in half blocks, else named by content."""
    lines: list[str] = []
    for block in document:
        match block:
            case Text(text=text, align=align, size=size):
                lines += [_place(line, align, size, columns) for line in text.split("\n")]
            case Qr(content=content):
                lines += _drawn(content) if qr else [f"[QR {content}]"]
            case Cut():
                pass
    return "\n".join(line.rstrip() for line in lines)


def _place(line: str, align: str, size: int, columns: int) -> str:
    shown = " ".join(line) if size > 1 else line
    if align == "center":
        return shown.center(columns)
    return shown.rjust(columns) if align == "right" else shown


def _drawn(content: str) -> list[str]:
    """Two modules to a character, dark on light whatever the terminal's colours are."""
    import segno

    matrix = [
        list(row) for row in segno.make(content, error="m", micro=False).matrix_iter(border=2)
    ]
    if len(matrix) % 2:
        matrix.append([0] * len(matrix[0]))
    lines = []
    for top, bottom in zip(matrix[::2], matrix[1::2], strict=True):
        cells = "".join(
            {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}[bool(a), bool(b)]
            for a, b in zip(top, bottom, strict=True)
        )
        lines.append(cells)
    return lines
