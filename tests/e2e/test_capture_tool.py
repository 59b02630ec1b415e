"""`pos-gateway capture`: a technician sees how each line is read, in the store and before going live."""

from __future__ import annotations

import asyncio
import html
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from hw_fakes.legacy_till import slips
from hw_fakes.vscu.unit import UnitControl
from tests.support.capture import PATTERNS, old_till, toml, until_slips
from tests.support.shop import TECHNICIANS, TOKENS, OpenShop

SALE = slips.TillSale()
CODE = TECHNICIANS["wanjiru"]


def configuration(folder: Path, names: tuple[str, ...] = ("old",), **changes: Any) -> Path:
    text = f"""
[branch]
pin = "A000123456B"
trade_name = "SHOP"
[unit]
host = "external"
serial = "dvc-1"
[store]
directory = "{folder / "store"}"
"""
    for at, name in enumerate(names, start=1):
        text += f'[[tills]]\nid = "till-{at}"\n'
        text += f'[captures.{name}]\nport = "/dev/null{at}"\ntill = "till-{at}"\n'
        values = {**PATTERNS, **changes}
        text += "".join(f"{key} = {toml(value)}\n" for key, value in values.items())
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


async def tool(config: Path, *more: str) -> tuple[int, str]:
    tokens = ",".join(f"{till}={token}" for till, token in list(TOKENS.items())[:2])
    if "till-2" not in config.read_text():
        tokens = tokens.split(",")[0]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "capture", "--config", str(config), *more,
        env={**os.environ, "GATEWAY_TILL_TOKENS": tokens},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_a_template_is_tried_on_a_file_before_going_live(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    binary, text, both = tmp_path / "slip.bin", tmp_path / "slip.txt", tmp_path / "two.bin"
    binary.write_bytes(slips.fancy(SALE))
    text.write_text("\n".join(slips.lines_of(replace(SALE, extra=("PROMO WEEK",)))))
    both.write_bytes(slips.plain(SALE) + slips.x_report())
    code, out = await tool(config, "--file", str(binary))
    assert code == 0
    assert "certain: receipt 0001, 25/11/2026 10:15, 2 items, 185.00" in out
    assert "  item        SODA 500ML" in out
    assert "name=SODA 500ML amount=120.00 tax=V" in out
    code, out = await tool(config, "--file", str(text))
    assert code == 1
    assert "  ???         PROMO WEEK" in out
    assert "! no pattern fits: PROMO WEEK" in out
    code, out = await tool(config, "--file", str(both))
    assert code == 0
    assert "slip 2 of 2" in out
    assert "not a sale" in out
    binary.write_bytes(slips.plain(SALE).replace(b"BREAD", b"BR\x1b\x7fAEAD"))
    code, out = await tool(config, "--file", str(binary))
    assert (code, "doubt       ESC 7F is not known" in out) == (1, True)


async def test_wrong_use_says_what_is_there(tmp_path: Path) -> None:
    config = configuration(tmp_path, ("old", "bar"))
    slip = tmp_path / "slip"
    slip.write_bytes(b"\n\n")
    for more, says in (
        (("--file", str(slip)), "Say which with --device: old, bar."),
        (("--device", "oven"), "[captures] of the configuration has: old, bar."),
        (("--device", "old", "--file", str(tmp_path / "none")), "cannot be read"),
        (("--device", "old", "--file", str(slip)), "holds no line of text"),
        ((), "There is no store"),
    ):
        code, out = await tool(config, *more)
        assert code != 0
        assert says in out
        assert "Traceback" not in out


async def test_a_bad_pattern_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    config = configuration(tmp_path, total="^TOTAL", ignore=("(",))
    config.write_text(config.read_text().replace('till = "till-1"', 'till = "till-9"'))
    code, out = await tool(config)
    assert code == 78
    assert "captures.old.total: has no group (?P<amount>...)" in out
    assert "captures.old.ignore: '(' is no pattern" in out
    assert "old.till: till-9 is not in [[tills]]" in out


async def test_two_captures_of_one_till_are_refused(tmp_path: Path) -> None:
    config = configuration(tmp_path, ("old", "bar"))
    config.write_text(config.read_text().replace('till = "till-2"', 'till = "till-1"'))
    code, out = await tool(config)
    assert (code, "captures.bar.till: till-1 is the till of old already" in out) == (78, True)


async def test_a_template_is_learned_from_the_slips_of_the_store(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The till's slips are not read yet; the proposal reads them, and says which it would refuse."""
    async with old_till(unit, shop_dir, capture={"tax_letters": {}}) as (shop, till, _):
        await till.print_slip(slips.plain(SALE))
        await till.print_slip(slips.plain(replace(SALE, number="0002", tender="M-PESA")))
        await till.print_slip(slips.plain(replace(SALE, number="0003", extra=("PROMO WEEK",))))
        await till.print_slip(slips.x_report())
        await until_slips(shop, "UNREAD", "UNREAD", "UNREAD", "NOT_A_SALE")
        config = configuration(shop_dir)
        taxes = ("--tax", "V=B", "--tax", "Z=C")
        code, out = await tool(config, "learn", "1", "2", *taxes)
        assert code == 0, out
        assert "   5 item        SODA 500ML              120.00 V" in out
        assert "tax_letters = { 'V' = 'B', 'Z' = 'C' }" in out
        assert "of the newest 4 slips: 2 read as sales, 0 no sales, 2 refused" in out
        assert "slip 3 refused: no pattern fits: PROMO WEEK" in out
        code, page = await learn_page(shop, slips="1 2", **{"tax.V": "B", "tax.Z": "C"})
        assert code == 200
        assert "2 read as sales, 0 no sales, 2 refused" in page
        assert "Slip 3: no pattern fits: PROMO WEEK" in page
        # Without numbers: the newest sales, the odd one among them.
        code, page = await learn_page(shop, role5="item")
        assert "Say which tax letter" in page
        assert "3 read" not in page
        for fields, status in (
            ({"slips": "99"}, 400),
            ({"slips": "x"}, 400),
            ({"code": "wrong"}, 401),
        ):
            assert (await learn_page(shop, **fields))[0] == status
        assert "MAMA" not in (await shop.till().request("GET", "/captured/learn")).body.decode()


async def learn_page(shop: OpenShop, **fields: str) -> tuple[int, str]:
    reply = await shop.till().request("POST", "/captured/learn", data={"code": CODE, **fields})
    return reply.status, html.unescape(reply.body.decode())


async def test_slips_of_the_store_are_shown_beside_the_gateway(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with old_till(unit, shop_dir) as (shop, till, _):
        await till.print_slip(slips.plain(SALE))
        await till.print_slip(slips.plain(replace(SALE, number="0002", extra=("PROMO WEEK",))))
        await till.print_slip(
            slips.plain(replace(SALE, number="0003")).replace(b"BREAD", b"B\x00D")
        )
        rows = await until_slips(shop, "SIGNED", "UNREAD", "UNREAD")
        config = configuration(shop_dir)
        code, out = await tool(config)
        assert code == 0
        assert f"invoice {rows[0].invoice_id}" in out
        assert "! no pattern fits: PROMO WEEK" in out
        assert "doubt       byte 00 is no text" in out
        code, out = await tool(config, "2", "--device", "old")
        assert code == 0
        assert "slip 2  old" in out
        assert "slip 1" not in out
        assert "there is no slip 99" in (await tool(config, "99"))[1]
