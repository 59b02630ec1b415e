"""Every kept slip as emupos reads it, an ESC/POS printer that shares nothing with us or our fakes."""

from __future__ import annotations

from pathlib import Path

from gateway.printing.document import Document, Logo, Qr, Text
from hw_fakes.printer.paper import Feed, Picture
from tests.conftest import need_tool
from tests.golden.cases import Case, cases
from tests.support.emupos import open_emupos
from tests.support.slips import decoded, paper_of


def lines_of(document: Document, replaced: dict[str, str]) -> list[str]:
    """What a reader must find on the paper, without where on the line it stands."""
    table = str.maketrans(replaced)
    lines: list[str] = []
    for block in document:
        match block:
            case Text(text=text):
                lines += [line.rstrip().translate(table) for line in text.split("\n")]
            case Qr(content=content):
                lines.append(f"[qr {content}]")
            case Logo():
                lines.append("[image]")
    return [line for line in lines if line]


def read_lines(case: Case, found: list[str]) -> list[str]:
    """A drawn QR is a picture to any reader, in bands; its content is read from the paper below."""
    drawn = not paper_of(case.bytes_file.read_bytes()).slip.qrs
    lines: list[str] = []
    for line in found:
        part = "[image]" if line.startswith("[image ") else line
        if part and not (part == "[image]" and lines[-1:] == ["[image]"]):
            lines.append(part)
    content = next((b.content for b in case.document if isinstance(b, Qr)), None)
    if drawn and content is not None:
        lines[lines.index("[image]")] = f"[qr {content}]"
    return lines


async def test_another_interpreter_reads_every_slip_as_we_do(tmp_path: Path) -> None:
    zbarimg = need_tool("zbarimg")
    async with open_emupos(tmp_path) as emupos:
        for case in cases():
            receipt = await emupos.print(case.bytes_file.read_bytes(), case.paper_mm)
            found = emupos.text(receipt)
            assert read_lines(case, found) == lines_of(case.document, case.replaced), case.name
            contents = [block.content for block in case.document if isinstance(block, Qr)]
            assert decoded(zbarimg, emupos.picture(receipt), tmp_path) == contents, case.name
        # Not one command, and no code page, that it did not know.
        assert emupos.not_understood() == []


async def test_the_fake_printer_and_the_other_one_agree_line_by_line(tmp_path: Path) -> None:
    """What our tests see on our fake's paper is what a printer that we did not write puts out."""
    async with open_emupos(tmp_path) as emupos:
        for case in cases():
            data = case.bytes_file.read_bytes()
            slip = paper_of(data).slip
            ours: list[str] = []
            for item in slip.items:
                if isinstance(item, Feed):
                    ours += [""] * (item.dots // 30)
                elif isinstance(item, Picture):
                    ours.append(f"[image {item.width}x{len(item.rows)}]")
                elif hasattr(item, "content"):
                    ours.append(f"[qr {item.content}]")
                else:
                    ours.append(item.text.rstrip())
            theirs = emupos.text(await emupos.print(data, case.paper_mm))
            while ours and not ours[-1]:
                ours.pop()
            assert ours == theirs, case.name
