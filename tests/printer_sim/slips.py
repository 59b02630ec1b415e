"""`python -m tests.printer_sim.slips --slips 10000 --seed 1`: random slips through random printers, and the books."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

from gateway.devices.channel import LineSettings
from gateway.devices.escpos import encode
from gateway.devices.printer import Outcome, PrinterSetup, ReceiptPrinter, Result
from gateway.printing.document import Block, Cut, Document, Qr, Text
from hw_fakes.printer.interpreter import Interpreter
from hw_fakes.printer.paper import Paper
from tests.printer_sim.line import Faults, Model, VirtualClock, VirtualLine

FAULTS = ("none", "none", "none", "power", "unplugged", "paper", "stall", "answers")
KINDS = ("confirms", "confirms", "answers", "mute")
SLIPS_OF_A_PRINTER = 4


@dataclass(slots=True)
class Books:
    """What became of the slips; `wrong` has a sentence for each violation."""

    ends: Counter[str]
    wrong: list[str]


def a_document(chance: Random, number: int) -> Document:
    """A slip of 4 to 300 lines, each with its number, most with KRA's QR."""
    lines = chance.choice((4, 20, 40, 60, 120, 300))
    blocks: list[Block] = [
        Text(
            f"{number:06d} {line:03d} " + "ITEM " * chance.randint(1, 6), bold=chance.random() < 0.1
        )
        for line in range(lines)
    ]
    if chance.random() < 0.7:
        blocks.insert(chance.randrange(len(blocks)), Qr("https://example.test/" + "7" * 80, 6))
    return (*blocks, Text(f"{number:06d} TOTAL"), Cut())


def a_model(chance: Random) -> Model:
    kind = chance.choice(KINDS)
    return Model(
        baud=chance.choice((9600, 19200, 115200)),
        buffer_bytes=chance.choice((1024, 2048, 4096)),
        speed_mm_s=chance.choice((50.0, 55.0, 60.0, 90.0, 150.0)),
        questions=() if kind == "mute" else chance.choice(((1, 2, 3, 4), (1, 4))),
        confirms=kind == "confirms",
    )


def some_faults(chance: Random, size: int) -> tuple[str, Faults]:
    name, at = chance.choice(FAULTS), chance.randint(1, max(1, size))
    match name:
        case "power":
            power_s = chance.uniform(0.5, 10)
            # A short one can lie between two questions to a printer that does not confirm.
            return "power" if power_s > 5 else "blink", Faults(power_at=at, power_s=power_s)
        case "unplugged":
            return name, Faults(unplugged_at=at, unplugged_s=chance.uniform(0.5, 8))
        case "paper":
            return name, Faults(paper_at=at, paper_s=chance.uniform(1, 40))
        case "stall":
            return name, Faults(stall_at=at, stall_s=chance.uniform(0.2, 5))
        case "answers":
            return name, Faults(lose_answers=chance.uniform(0.05, 0.5))
    return "none", Faults()


def texts_of(paper: Paper) -> list[str]:
    return [line for slip in [*paper.slips, paper.open] for line in slip.text().splitlines()]


def expected(document: Document, printer: ReceiptPrinter) -> list[str]:
    paper = Paper()
    Interpreter(paper, lambda data: None, status=lambda which: 0).feed(
        encode(document, printer.manner)
    )
    return texts_of(paper)


def a_printer(chance: Random) -> tuple[ReceiptPrinter, VirtualLine]:
    clock = VirtualClock()
    model = a_model(chance)
    line = VirtualLine(model, clock, chance)
    setup = PrinterSetup("p", LineSettings("/dev/ttyUSB9", model.baud), columns=48)
    printer = ReceiptPrinter(setup)
    seam: Any = printer
    # The port is virtual, and the driver's clock with it.
    seam._channel = seam._talk.channel = line
    seam._clock = clock
    # What the worker keeps in the store.
    seam.learned = lambda found: setattr(printer, "known", found)
    return printer, line


def print_one(
    printer: ReceiptPrinter, line: VirtualLine, document: Document
) -> tuple[Outcome | None, int]:
    """Look until it would print, then print; None where it never would, and how often it was begun."""
    for _ in range(100):
        if printer.look() is not None:
            line.clock.s += 1.0
            continue
        line.begin()
        outcome = printer.print_slip(document)
        if outcome.result is not Result.NOT_SENT:
            return outcome, 1
    return None, 0


def play(seed: int, books: Books) -> None:
    """One printer and its slips."""
    chance = Random(seed)
    printer, line = a_printer(chance)
    for number in range(SLIPS_OF_A_PRINTER):
        document = a_document(chance, number)
        line.model.faults = Faults()
        while printer.look() is not None:
            line.clock.s += 1.0
        size = len(encode(document, printer.manner))
        name, line.model.faults = some_faults(chance, size)
        overflowed, before = line.overflowed, len(texts_of(line.paper))
        outcome, _ = print_one(printer, line, document)
        line.model.faults = Faults()
        line.settle()
        judge(
            seed,
            number,
            name,
            outcome,
            books,
            line,
            expected(document, printer),
            before,
            overflowed,
        )


def judge(
    seed: int,
    number: int,
    fault: str,
    outcome: Outcome | None,
    books: Books,
    line: VirtualLine,
    wanted: list[str],
    before: int,
    overflowed: int,
) -> None:
    result = "NONE" if outcome is None else outcome.result.value
    books.ends[f"{fault}/{result}"] += 1
    say = f"seed {seed}, slip {number}, {fault}, {line.model}: {result} {outcome.reason if outcome else ''}"
    # A head that stands still, or paper that is out, can be seen only where the printer says so.
    shown = line.model.confirms or fault == "none"
    if line.overflowed != overflowed and shown:
        books.wrong.append(f"{line.overflowed - overflowed} bytes overflowed: {say}")
    there = [text for text in texts_of(line.paper)[max(0, before - 1) :] if text]
    lines = [text for text in wanted if text]
    whole = all(there.count(text) >= lines.count(text) for text in lines)
    if result == "PRINTED" and not whole:
        books.wrong.append(f"printed and not whole: {say}")
    if any(there.count(text) > 1 for text in lines if "TOTAL" in text):
        books.wrong.append(f"twice: {say}")
    if fault == "none" and (result not in ("PRINTED", "SENT") or not whole):
        books.wrong.append(f"not whole, or asked about, without a fault: {say}")
    if fault == "stall" and line.model.confirms and (result != "PRINTED" or not whole):
        books.wrong.append(f"not whole after a stall: {say}")
    if result == "SENT" and not whole and line.model.questions and fault in ("power", "unplugged"):
        books.wrong.append(f"sent, though it did not answer meanwhile: {say}")
    if result == "SENT" and line.model.confirms:
        books.wrong.append(f"sent by a printer that confirms: {say}")


def run(slips: int, seed: int) -> Books:
    books = Books(Counter(), [])
    for number in range(-(-slips // SLIPS_OF_A_PRINTER)):
        play(seed + number, books)
    return books


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.printer_sim.slips")
    parser.add_argument("--slips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    books = run(options.slips, options.seed)
    for name, count in sorted(books.ends.items()):
        print(f"{name:<24} {count:6}")
    print(f"slips={sum(books.ends.values())} violations={len(books.wrong)}")
    print("\n".join(books.wrong[:20]))
    return int(bool(books.wrong))


if __name__ == "__main__":
    sys.exit(main())
