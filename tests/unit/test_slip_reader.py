"""The bytes of single slips: what is on paper, what is a doubt, what is answered."""

from __future__ import annotations

import codecs

import pytest
from escpos.capabilities import CAPABILITIES

from gateway.counter.slip_commands import CODE_PAGES
from gateway.counter.slip_reader import RAW_MAX_BYTES, SLIP_MAX_BYTES, CapturedSlip, SlipReader
from gateway.counter_line import template_of
from tests.support.capture import sample_settings

CUT = b"\x1dV\x01"
SALE = (
    b"\x1b@MAMA MBOGA STORES\nRECEIPT NO 0001\n25/11/2026 10:15\nSODA 500ML              120.00 V\n"
    b"  2 x 60.00\nBREAD 400G               65.00 Z\nTOTAL                     185.00\n"
    b"M-PESA                    185.00\nTHANK YOU\n"
)
TEMPLATE = template_of(sample_settings())
NO_TEXT = "it has no text that can be read, only a picture or a code"


def slips_of(data: bytes, code_page: str | None = None) -> list[CapturedSlip]:
    reader = SlipReader(code_page=code_page)
    _, slips = reader.feed(data)
    return slips + reader.end()


def one(data: bytes, code_page: str | None = None) -> CapturedSlip:
    (slip,) = slips_of(data, code_page)
    return slip


def lines_of(data: bytes, code_page: str | None = None) -> tuple[str, ...]:
    """The lines of one slip without a doubt."""
    slip = one(data, code_page)
    assert slip.doubts == ()
    return slip.lines


def is_sold(data: bytes) -> bool:
    slip = one(data)
    return TEMPLATE.read(slip.lines, slip.doubts).kind == "sale"


def test_the_sale_alone_is_read() -> None:
    assert is_sold(SALE + CUT)


# --- D12: pictures ----------------------------------------------------------------------------------------

PICTURES = {
    "GS v 0": b"\x1dv0\x00\x02\x00\x02\x00abcd",
    "GS v 0, 92 kB": (b"\x1dv0\x00\x48\x00\xff\x00" + b"\xaa" * 18360) * 5,
    "ESC *": b"\x1b*\x21\x02\x00abcdef\n",
    "ESC * of 8 dots": b"\x1b*\x00\x03\x00abc\n",
    "GS ( L stored and printed": b"\x1d(L\x0b\x000p0\x01\x011\x08\x00\x01\x00a\x1d(L\x02\x0002",
    "GS 8 L stored and printed": b"\x1d8L\x0b\x00\x00\x000p0\x01\x011\x08\x00\x01\x00a\x1d(L\x02\x0002",
    "GS ( L of the memory": b"\x1d(L\x06\x000E00\x01\x01",
    "GS * and GS /": b"\x1d*\x01\x01abcdefgh\x1d/\x00",
    "GS *": b"\x1d*\x01\x01abcdefgh",
    "FS q and FS p": b"\x1cq\x01\x01\x00\x01\x00abcdefgh\x1cp\x01\x00",
    "FS q": b"\x1cq\x01\x01\x00\x01\x00abcdefgh",
    "FS p": b"\x1cp\x01\x00",
    "GS Q 0": b"\x1dQ0\x00\x02\x00\x01\x00ab",
    "GS D": b"\x1dD0C0ab00BM\x0a\x00\x00\x00abcd",
    "a QR code": b"\x1d(k\x07\x001P0abcd\x1d(k\x03\x001Q0",
    "a barcode": b"\x1dk\x04123\x00",
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES.keys())
def test_a_slip_without_text_is_a_slip_that_is_not_read(picture: bytes) -> None:
    slip = one(b"\x1b@" + picture + CUT)
    assert slip.doubts == (NO_TEXT,)
    reading = TEMPLATE.read(slip.lines, slip.doubts)
    assert (reading.kind, reading.problems) == ("unread", (NO_TEXT,))
    assert all(line[0] + line[-1] == "[]" for line in slip.lines)


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES.keys())
def test_a_picture_beside_text_changes_no_line(picture: bytes) -> None:
    assert is_sold(picture + b"\n" + SALE + picture + b"\n" + CUT)


def test_a_picture_of_200_kb_and_more_is_one_slip_and_keeps_its_bytes() -> None:
    data = (b"\x1dv0\x00\x48\x00\xff\x00" + b"\xaa" * 18360) * 14 + CUT
    assert one(data).raw == data
    assert len(data) > SLIP_MAX_BYTES


def test_a_cut_of_blank_paper_is_no_slip() -> None:
    assert slips_of(b"\x1b@\n\n\n" + CUT + b"\x1b@\x1bt\x10\x1bp\x00\x19\xfa" + CUT) == []


def test_a_picture_whose_data_stop_does_not_swallow_the_next_slip() -> None:
    reader = SlipReader()
    reader.feed(b"\x1dv0\x00\x48\x00\xff\x00" + b"\xaa" * 100)
    (half,) = reader.end()
    assert half.doubts == (NO_TEXT, "the data of a command are missing")
    _, (slip,) = reader.feed(SALE + CUT)
    assert TEMPLATE.read(slip.lines, slip.doubts).kind == "sale"


# --- the length of a slip ---------------------------------------------------------------------------------


def test_a_slip_of_1_mb_is_one_slip_and_the_next_one_is_whole() -> None:
    long = b"SODA 500ML              120.00 V\n" * (1_000_000 // 33)
    reader = SlipReader()
    _, slips = reader.feed(long + CUT + SALE + CUT)
    assert [slip.doubts for slip in slips] == [("it is too long for one slip",), ()]
    assert TEMPLATE.read(slips[1].lines, slips[1].doubts).kind == "sale"
    picture = b"\x1dv0\x00\xff\xff\xff\xff" + b"\xaa" * (RAW_MAX_BYTES + 5)
    _, (slip,) = SlipReader().feed(picture)
    assert (slip.doubts[-1], len(slip.raw)) == ("it is too long for one slip", RAW_MAX_BYTES)


def test_a_till_that_never_ends_a_slip_is_seen_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.counter.slip_reader.SLIP_MAX_BYTES", 2000)
    reader = SlipReader()
    found = [slip for _ in range(230) for slip in reader.feed(b"A" * 99 + b"\n")[1]]
    assert [slip.doubts for slip in found] == [("it is too long for one slip",)] * 2


# --- D14, D17: encodings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\x1c(C\x02\x0002" + "CAFÉ ng’ombe".encode(), "CAFÉ ng’ombe"),
        (b"\x1c(C\x02\x00\x30\x02" + "½KG".encode() + b"\x1c(C\x02\x0001\x1bt\x10\xbdKG", "½KG½KG"),
        (b"\x1c&" + "面包".encode("gb18030") + b"\x1c. X", "面包 X"),
        (b"\x1b9\x01" + "面包".encode(), "面包"),
        (b"\x1b9\x03" + "麵包".encode("big5"), "麵包"),
        (b"\x1cC1\x1c&" + "パン".encode("cp932"), "パン"),
        (b"\x1bt\x0f\xa1SODA\xa2", "‘SODA’"),
        (b"\x1bt\x28CAF\xe9", "CAFé"),
        (b"\x1bt\x10caf\xe9\x1bt\x00 \x82", "café é"),
        (b"\x1bt\x01" + b"\x95" * 12, "─" * 12),
        (b"\xc4" * 12, "─" * 12),
        (b"\x1bR\x03#5", "£5"),
        (b"\x1bR\x03#\x1b@#", "£"),
    ],
)
def test_switches_of_the_encoding_are_followed(data: bytes, line: str) -> None:
    assert lines_of(data + b"\n" + CUT)[0] == line


@pytest.mark.parametrize(
    "data",
    [
        "SUKARI ½KG".encode(),
        b"\x1bt\x00" + "SUKARI ½KG".encode(),
        b"\x1bt\x10" + "SUKARI ½KG".encode(),
        "面包".encode("gb18030"),
        "CAFÉ".encode("cp1252"),
        "CAFÉ".encode("cp437"),
        b"\x1bt\x00" + "ÉTÉ".encode("cp1252"),
        b"\x1c(C\x02\x0002CAF\xe9",
        b"\x1c&CAF\xe9 1",
        b"\x1bt\x63CAF\xe9",
        b"\x1bR\x2f#5",
        b"\x1cC0\x1c&\xb0\xa1",
    ],
)
def test_text_in_an_encoding_that_no_command_gives_is_a_doubt(data: bytes) -> None:
    slip = one(data + b"\n" + CUT)
    assert slip.doubts
    assert TEMPLATE.read(slip.lines, slip.doubts).kind == "unread"


def test_the_setting_gives_the_encoding_of_a_till_that_chooses_none() -> None:
    for codec in ("cp437", "cp1252", "utf-8", "gb18030"):
        assert lines_of("CAFÉ".encode(codec) + b"\n" + CUT, codec) == ("CAFÉ",)
    assert lines_of(b"\x1bt\x00" + "CAFÉ".encode() + b"\n" + CUT, "utf-8") == ("CAFÉ",)
    assert one(b"CAF\xe9\n" + CUT, "utf-8").doubts
    big5 = b"\x1cC0\x1c&" + "麵包".encode("big5") + b"\n" + CUT
    assert "set code_page" in one(big5).doubts[0]
    assert lines_of(big5, "big5") == ("麵包",)


def test_code_pages_have_the_numbers_that_printers_agree_on() -> None:
    encodings = CAPABILITIES["encodings"]
    for number, name in CAPABILITIES["profiles"]["default"]["codePages"].items():
        python = encodings.get(name, {}).get("python_encode")
        if python and int(number) != 1:
            assert codecs.lookup(CODE_PAGES[int(number)]).name == codecs.lookup(python).name


# --- D15: commands ----------------------------------------------------------------------------------------

SILENT_COMMANDS = {
    "kick without times, twice": b"\x1bp\x00\x1bp\x01",
    "kick": b"\x1bp\x00\x19\xfa",
    "kick with a time of 27": b"\x1bp\x00\x1b\xfa",
    "kick with FA as UTF-8": b"\x1bp\x00\x19\xc3\xba",
    "NUL": b"\x00" * 40,
    "EAN13 with length and NUL": b"\x1dk\x43\x0d4007817525074\x00",
    "italic": b"\x1b4\x1b5",
    "line spacing": b"\x1b0\x1b2\x1b3\x18",
    "GS Z and ESC Z": b"\x1dZ\x02\x1bZ\x00L\x06\x04\x000001",
    "buzzer ESC (": b"\x1b(A\x04\x0007\x03\x0f",
    "buzzer ESC C": b"\x1bC\x03\x02\x01",
    "buzzer ESC B": b"\x1bB\x03\x02",
    "page length": b"\x1bC\x20",
    "GS g": b"\x1dg0\x00\x14\x00",
    "GS y": b"\x1dy\x00",
    "status 7": b"\x10\x04\x07\x01",
    "user characters": b"\x1b&\x03AA\x0c" + b"\n" * 36,
    "shift bytes": b"\x0e\x0f\x11\x12\x14\x0b\x1f\x11\x04",
    "answer of some makers": b"\x12q\x00\x12~\x03",
    "heating": b"\x1b7\x07\x50\x02",
    "counter": b"\x1dC0\x04\x00\x1dC1\x01\x00\x09\x00\x01\x01\x1dC2\x01\x00\x1dC;1;9;1;1;1;\x1dc",
    "power off, buzzer, status, clear": b"\x10\x14\x02\x01\x08\x10\x14\x03\x01\x01\x01\x01\x01\x10\x14\x07\x01\x10\x14\x08\x01\x03\x14\x01\x06\x02\x08",
    "memory": b"\x1cg1\x00\x00\x00\x00\x00\x03\x00abc\x1cg2\x00\x00\x00\x00\x00\x03\x00",
    "kanji character": b"\x1c2\xfe\xa1" + b"\x1b" * 72,
    "tabs": b"\x1bD\x08\x10\x00",
    "tabs without an end": b"\x1bD\x08\x10\x08",
    "kanji modes": b"\x1c!\x00\x1c-\x00\x1cS\x00\x00\x1cW\x00",
    "maintenance": b"\x1d<\x1d|\x04\x1dj\x00\x1d#\x00\x1dz0\x01\x02",
    "margins": b"\x1dL\x00\x00\x1dW\x40\x02\x1dP\x00\x00",
    "status": b"\x10\x04\x01\x10\x05\x01\x1dr\x01\x1bv\x1bu\x00\x1da\xff",
    "functions": b"\x1d(A\x02\x00\x00\x02\x1d(E\x03\x00\x06\x01\x00\x1d(K\x02\x001\x00\x1d(z\x02\x00\x00\x00\x1c(A\x02\x000\x00",
}  # fmt: skip


@pytest.mark.parametrize("command", SILENT_COMMANDS.values(), ids=SILENT_COMMANDS.keys())
def test_a_documented_command_changes_no_line_wherever_it_stands(command: bytes) -> None:
    assert is_sold(command + SALE + CUT)
    # A till goes on with a command, so that a kick without its times is seen to be one.
    assert is_sold(SALE.replace(b"\n", b"\n" + command + b"\x1bE\x00", 4) + CUT)
    assert is_sold(SALE + command + CUT)
    reader = SlipReader()
    for _ in range(2):
        _, (slip,) = reader.feed(SALE + CUT + command)
        assert TEMPLATE.read(slip.lines, slip.doubts).kind == "sale"


@pytest.mark.parametrize("lead", [b"\x1b", b"\x1d", b"\x1c", b"\x10"])
def test_no_command_makes_a_wrong_sale(lead: bytes) -> None:
    """Every command, known or not, with parameters of zero: the sale is read exactly or not at all."""
    middle = SALE.index(b"BREAD")
    read = 0
    for number in range(256):
        command = lead + bytes([number]) + b"\x00" * 80
        reader = SlipReader()
        _, slips = reader.feed(SALE[:middle] + command + b"\n" + SALE[middle:] + CUT)
        for slip in slips + reader.end():
            reading = TEMPLATE.read(slip.lines, slip.doubts)
            if reading.invoice is not None:
                read += 1
                names = [line["name"] for line in reading.invoice["lines"]]
                assert names == ["SODA 500ML", "BREAD 400G"], command
    assert read


def test_an_unknown_command_takes_no_byte_after_it() -> None:
    slip = one(b"A\n\x1b\x7fB\n\x1b\x1b!\x00C\n\x1d\x1dV\x00")
    assert slip.lines == ("A", "B", "C")
    assert slip.doubts == ("ESC 7F is not known", "ESC 1B is not known", "GS 1D is not known")
    slips = slips_of(b"A\n\x1bp\x00\x1dV\x00B\n\x1dV\x00")
    assert [slip.lines for slip in slips] == [("A",), ("B",)]


def test_a_control_byte_inside_a_word_is_a_doubt() -> None:
    assert one(b"BR\x00EAD\n").doubts == ("byte 00 is no text",)
    assert one(b"TOTAL 1\x1285.00\n").doubts == ("byte 12 is no text",)
    assert lines_of(b"TOTAL \x0e185.00\x14\n") == ("TOTAL 185.00",)
    assert lines_of(b"TOTAL \x12quick\n\x12A\n\x12q\n\x12\n") == ("TOTAL quick", "A", "q", "")


def test_text_that_may_look_different_on_paper_is_a_doubt() -> None:
    assert one(b"\x1b&\x01AA\x01x\x1b%\x01BANANA\n").doubts
    assert lines_of(b"\x1b&\x01AA\x01x\x1b%\x01\x1b%\x00BANANA\n") == ("BANANA",)
    assert one(b"A\n\x1bK\x40B\n").doubts
    assert one(b"\x1d:A\n\x1d:\x1d^\x02\x00\x00").doubts
    assert one(b"\x1bLA\n\x18B\n").doubts


# --- D16: columns and line ends ---------------------------------------------------------------------------


def test_positions_and_tabs_are_columns_of_two_blanks_at_least() -> None:
    assert lines_of(b"SODA 500ML\x1b$\x20\x01120.00 V\n") == ("SODA 500ML              120.00 V",)
    assert lines_of(b"\x1b$\x00\x00A\x1b$\x10\x00B\n") == ("A  B",)
    assert lines_of(b"\x1b$\x20\x01120.00\x1b$\x00\x00SODA\n") == ("SODA" + " " * 20 + "120.00",)
    assert lines_of(b"SODA 500ML\x1b\\\x30\x00120.00\n") == ("SODA 500ML    120.00",)
    assert lines_of(b"SODA 50\t120.00\n") == ("SODA 50  120.00",)
    assert lines_of(b"\x1bD\x14\x00SODA\t120.00\n") == ("SODA" + " " * 16 + "120.00",)
    assert lines_of(b"\x1bLSODA\x1d$\x40\x00120.00\x0c") == ("SODA", "120.00")
    assert one(b"SODA 500ML\x1b$\x10\x00120.00\n").doubts == ("text is printed over text",)
    assert one(b"SODA\x1b\\\xf0\xff120.00\n").doubts == ("text is moved back over text",)


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\n\r", b"\r\r\n"])
def test_every_line_end_makes_the_same_lines(end: bytes) -> None:
    slip = one(SALE.replace(b"\n", end) + CUT)
    assert [line for line in slip.lines if line] == [line for line in one(SALE + CUT).lines if line]
    assert TEMPLATE.read(slip.lines, slip.doubts).kind == "sale"


# --- D19: the display behind the printer ------------------------------------------------------------------


def test_text_for_the_display_is_no_slip() -> None:
    scan = b"\x1b=\x02\x0cSODA 500ML    60.00\x1f\x24\x10\x01\x1b=\x01"
    reader = SlipReader()
    for _ in range(3):
        assert reader.feed(scan) == (b"", [])
        assert not reader.in_slip
        assert reader.end() == []
    _, (slip,) = reader.feed(SALE[:60] + scan + SALE[60:] + CUT)
    assert slip.doubts == ()
    assert reader.feed(b"\x1b=\x02\x10\x04\x01")[0] == b"\x16"


def test_a_slip_that_is_sent_to_the_display_does_not_vanish() -> None:
    slip = one(b"\x1b=\x02" + SALE.replace(b"\x1b@", b"") + CUT)
    assert slip.doubts == ("it was sent while the printer was switched off (ESC =)",)
    assert "SODA 500ML              120.00 V" in slip.lines


# --- D20: answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"\x10\x04\x01", b"\x16"), (b"\x10\x04\x02", b"\x12"), (b"\x10\x04\x03", b"\x12"),
        (b"\x10\x04\x04", b"\x12"), (b"\x10\x04\x07\x01", b"\x12"), (b"\x1dr\x01", b"\x00"),
        (b"\x1dr\x02", b"\x01"), (b"\x1dr1", b"\x00"), (b"\x1dr2", b"\x01"), (b"\x1bu\x00", b"\x01"),
        (b"\x1bv", b"\x00"), (b"\x1da\xff", b"\x14\x00\x00\x00"), (b"\x1da\x00", b""),
        (b"\x1d(H\x06\x0000abcd", b"\x37\x22abcd\x00"), (b"\x1dg2\x00\x14\x00", b"_0\x00"),
    ],
)  # fmt: skip
def test_status_requests_are_answered_as_by_a_printer_with_a_closed_drawer(
    question: bytes, answer: bytes
) -> None:
    assert SlipReader().feed(question)[0] == answer
