"""A Document as bytes, and bytes as paper: the gateway's encoder and the fake printer's reading of it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from gateway.devices.escpos import Manner, encode
from gateway.printing.document import Document
from hw_fakes.printer.interpreter import Interpreter
from hw_fakes.printer.paper import Paper, Slip
from hw_fakes.printer.render import to_png


class Printable(Protocol):
    @property
    def document(self) -> Document: ...
    @property
    def profile(self) -> str: ...
    @property
    def cut(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Read:
    slip: Slip
    problems: list[str]

    def picture(self, dots: int) -> bytes:
        return to_png(self.slip, dots=dots)


def printed(case: Printable) -> bytes:
    return encode(case.document, Manner(case.profile, case.cut))


def paper_of(data: bytes) -> Read:
    """The one slip that these bytes make, torn off where the printer has no cutter."""
    paper = Paper()
    interpreter = Interpreter(paper, lambda answer: None, status=lambda which: 0)
    interpreter.feed(data)
    slips = paper.slips or [paper.open]
    assert len(slips) == 1
    return Read(slips[0], interpreter.problems)


def decoded(zbarimg: str, picture: Path, folder: Path) -> list[str]:
    """What an independent decoder reads in the picture; empty where there is no code.

    Of a very long slip it is shown the end, as a person would hold it to the camera.
    """
    with Image.open(picture) as paper:
        if paper.height > 4000:
            picture = folder / picture.name
            paper.crop((0, paper.height - 2000, paper.width, paper.height)).save(picture)
    run = subprocess.run(
        [zbarimg, "--quiet", "--raw", str(picture)], capture_output=True, text=True, check=False
    )
    return run.stdout.split()
