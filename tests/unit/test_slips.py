"""What the settings and odd inputs do to a slip, without a wire."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from escpos.capabilities import CAPABILITIES
from PIL import Image

from gateway.check import check
from gateway.devices.escpos import Manner, encode
from gateway.printing.document import Cut, Logo, Text
from gateway.printing.layout import receipt_document
from gateway.printing.terminal import to_text
from gateway.printing.typeset import Typesetter, clean
from gateway.printing.words import WORDS
from gateway.wiring import messages, sale_form, shop
from tests.golden.cases import ACCENTS, a_line, cash, labelled
from tests.golden.cases import shop as seller
from tests.support.shop import make_settings
from tests.support.slips import paper_of

CONFIG = """
[branch]
pin = "A000123456B"
trade_name = "TEST TRADERS LTD"
address = "TEST PLAZA"
[unit]
host = "external"
url = "http://127.0.0.1:1"
serial = "dvc-test-0001"
[store]
directory = "{home}/store"
[receipt]
logo = "logo.png"
[[tills]]
id = "till-1"
printer = "counter"
[printers.counter]
port = "socket://127.0.0.1:1"
paper_mm = {paper_mm}
profile = "{profile}"
"""
ENV = {"GATEWAY_TILL_TOKENS": "till-1 = token-of-till-number-1"}


def checked(home: Path, *, paper_mm: int = 58, profile: str = "default") -> dict[str, str]:
    path = home / "gateway.toml"
    path.write_text(CONFIG.format(home=home, paper_mm=paper_mm, profile=profile))
    return {problem.key: problem.message for problem in check(path, ENV).problems}


def test_a_logo_that_fits_is_taken_and_one_that_does_not_is_refused_in_a_sentence(
    tmp_path: Path,
) -> None:
    logo = tmp_path / "logo.png"
    Image.new("1", (384, 50)).save(logo)
    assert checked(tmp_path) == {}
    Image.new("1", (385, 50)).save(logo)
    assert checked(tmp_path) == {
        "receipt.logo": "logo.png is 385 dots wide, and printer counter prints 384 on its 58 mm"
        " paper; make the picture narrower"
    }
    assert checked(tmp_path, paper_mm=80) == {}


def test_a_logo_that_is_none_is_refused(tmp_path: Path) -> None:
    logo = tmp_path / "logo.png"
    assert "cannot be read: No such file" in checked(tmp_path)["receipt.logo"]
    logo.write_bytes(b"GIF89a")
    assert checked(tmp_path)["receipt.logo"].endswith("logo.png is not a PNG picture")
    Image.new("1", (100, 50)).save(logo)
    logo.write_bytes(logo.read_bytes()[:40])
    assert "cannot print the logo" in checked(tmp_path)["printers.counter.profile"]


def test_a_profile_nobody_knows_and_a_head_narrower_than_its_paper_are_said(tmp_path: Path) -> None:
    Image.new("1", (540, 50)).save(tmp_path / "logo.png")
    assert (
        "unknown printer profile 'TM-T99'"
        in (checked(tmp_path, paper_mm=80, profile="TM-T99")["printers.counter.profile"])
    )
    # The TM-T88V prints 512 dots on 80 mm.
    assert (
        "540 > 512"
        in (checked(tmp_path, paper_mm=80, profile="TM-T88V")["printers.counter.profile"])
    )


def test_a_logo_that_went_missing_does_not_keep_the_receipt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        data = encode((Logo(str(tmp_path / "gone.png")), Text("TOTAL"), Cut()))
    assert paper_of(data).slip.text(0).strip() == "TOTAL"
    assert "print.logo_failed" in caplog.text


def test_no_profile_says_anything_on_our_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logo = tmp_path / "logo.png"
    Image.new("1", (100, 50)).save(logo)
    for profile in ("default", "RP326", "TM-T88V", "POS-5890", "TUP500"):
        encode((Logo(str(logo)), Cut()), Manner(profile))
    assert capsys.readouterr().out == ""


# Displays, which python-escpos lists beside the printers.
DISPLAYS = {"AF-240", "OCD-100"}


@pytest.mark.parametrize("profile", sorted(DISPLAYS))
def test_a_profile_that_cannot_draw_the_qr_is_refused(tmp_path: Path, profile: str) -> None:
    Image.new("1", (90, 50)).save(tmp_path / "logo.png")
    assert (
        "cannot draw the receipt's QR"
        in (checked(tmp_path, profile=profile)["printers.counter.profile"])
    )


@pytest.mark.parametrize("profile", sorted(set(CAPABILITIES["profiles"]) - DISPLAYS))
def test_every_profile_takes_every_receipt(profile: str) -> None:
    """Whatever a printer lacks: a QR command, raster pictures, a cutter, code pages."""
    columns = 32
    for label in ("NS", "CC", "PS"):
        slip = labelled(label, **ACCENTS)
        document = receipt_document(slip, seller(), columns=columns, paper_mm=58)
        data = encode(document, Manner(profile))
        read = paper_of(data)
        assert [p for p in read.problems if not p.startswith("code page")] == []
        assert "116.00" not in read.slip.text() and "ITEMS NUMBER" in read.slip.text()
        assert (b"(k" in data) == (
            CAPABILITIES["profiles"][profile]["features"]["qrCode"] and label != "PS"
        )


def test_greeting_and_thanks_follow_the_language_unless_the_shop_has_its_own(
    tmp_path: Path,
) -> None:
    def of(**receipt: object) -> tuple[str, tuple[str, ...]]:
        return messages(make_settings(tmp_path, "http://127.0.0.1:1", receipt=receipt).receipt)

    assert of() == ("Welcome to our shop", ("THANK YOU", "WE LOOK FORWARD TO SERVE YOU AGAIN"))
    assert of(language="sw") == ("Karibu dukani kwetu", WORDS["sw"].thanks)
    own = {"commercial_message": "", "footer_lines": ("KWAHERI",), "language": "sw"}
    assert of(**own) == ("", ("KWAHERI",))
    settings = make_settings(tmp_path, "http://127.0.0.1:1", receipt=own)
    assert shop(settings).footer_lines == ("KWAHERI",)
    assert sale_form(settings).bottom_message == "KWAHERI"


def test_both_languages_say_everything() -> None:
    english, swahili = WORDS["en"], WORDS["sw"]
    for name in english.__slots__:
        a, b = str(getattr(english, name)), str(getattr(swahili, name))
        assert a and b and a != b
        assert a.count("{}") == b.count("{}")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Cafe\u0301", "Café"),
        ("a\x1b@b\x00\x07", "a@b"),
        ("tab\there\u00a0there", "tab here there"),
        ("zero\u200bwidth\u202e", "zerowidth"),
        ("ﬁlter … ™", "filter ... TM"),
        ("茶☕", "??"),
        ("½ ² ª é ñ ’ €", "½ ² ª é ñ ’ €"),
    ],
)
def test_a_text_is_set_in_characters_of_one_column(given: str, shown: str) -> None:
    assert clean(given) == shown


def test_no_name_can_command_the_printer() -> None:
    """Control characters are refused at the door; here they would not pass either."""
    evil = cash(a_line(1, "\x1b@\x1dV\x00\x10\x14Soda", "1", "1.00", "B"))
    slip = labelled("NS", **evil)
    document = receipt_document(slip, seller(), columns=42)
    assert "@ VSoda" in to_text(document, columns=42)
    read = paper_of(encode(document))
    assert read.problems == []
    assert read.slip.cut


def test_words_at_both_margins_never_lose_a_letter() -> None:
    hand = Typesetter(24)
    pair = hand.pair("a very long name of something", "1,234,567.00").text.split("\n")
    assert pair == ["a very long name of", "something", "            1,234,567.00"]
    assert all(len(line) <= 24 for line in pair)


def test_a_centred_text_is_broken_evenly() -> None:
    lines = [block.text for block in Typesetter(32).centred("WE LOOK FORWARD TO SERVE YOU AGAIN")]
    assert lines == ["WE LOOK FORWARD TO", "SERVE YOU AGAIN"]


@pytest.mark.parametrize("columns", range(24, 65))
def test_every_width_holds_every_line(columns: int) -> None:
    big = cash(a_line(1, "Generator " * 9, "999", "9999999.99", "B"))
    for label in ("NS", "CC", "PS"):
        slip = labelled(label, copy_no=int(label == "CC") * 12, **big)
        shown = receipt_document(slip, replace(seller(), trade_name="N" * 90), columns=columns)
        for block in shown:
            if isinstance(block, Text):
                for line in block.text.split("\n"):
                    assert len(line) * block.size <= columns
