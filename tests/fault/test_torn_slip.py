"""The real daemon is killed while an original is on the wire: a person is asked, and what is printed
after that is a copy with its number."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from gateway import tools
from gateway.settings_file import load
from hw_fakes.printer.peer import FakePrinter, Wire
from tests.support.daemon import Daemon
from tests.support.shop import TOKENS, a_sale


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("baud", "shop_goes_dark"),
    [(9600, False), (1200, True)],
    ids=["9600 baud, only the gateway", "1200 baud, all of the shop"],
)
async def test_killed_with_a_slip_on_the_wire_it_asks_and_prints_a_copy(
    tmp_path: Path, baud: int, shop_goes_dark: bool
) -> None:
    sale = a_sale()
    async with FakePrinter(wire=Wire(baud=baud)) as printer:
        extra = f'[printers.counter]\nport = "{printer.device_path}"\nbaud = {baud}\n'
        daemon = Daemon(tmp_path, extra)
        text = daemon.config.read_text().replace(
            'id = "till-1"\n', 'id = "till-1"\nprinter = "counter"\n'
        )
        daemon.config.write_text(text)
        async with daemon, aiohttp.ClientSession() as session:
            till = daemon.till(session)
            # Nothing is printed before the till has its answer, however long that takes.
            printer.open_cover()
            sold = await till.sell("one", sale)
            assert sold.status == 201
            printer.close_cover()
            async with asyncio.timeout(30):
                while not printer.paper.open.items:
                    await asyncio.sleep(0.01)
            await daemon.kill()
            assert printer.paper.slips == [], "it was out before the kill"
            if shop_goes_dark:
                printer.power_cut()
                printer.wire.baud = None
            await daemon.start()
            # The till sends the sale again and hears the same receipt; no paper comes of it.
            assert (await till.sell("one", sale)).body == sold.body
            (job,) = (await till.request("GET", "/v1/print-jobs")).json["jobs"]
            assert (job["kind"], job["state"]) == ("ORIGINAL", "UNCONFIRMED")
            page = (await till.request("GET", "/counter")).body.decode()
            assert "Did it come out?" in page
            answer = await till.request(
                "POST", f"/v1/print-jobs/{job['id']}/answer", json={"cameOut": False}
            )
            assert (answer.json["kind"], answer.json["copyNo"]) == ("COPY", 1)
            count = 1
            while "1/1 CS" not in (await printer.wait_for_slips(count, 60))[-1].text():
                count += 1
            x = (await till.request("GET", "/v1/reports/x")).json
            assert x["sales"] == {"number": 1, "amount": "297.00"}
            assert x["copies"] == {"number": 1, "amount": "297.00"}
            z = (await till.request("POST", "/v1/reports/z")).json
            assert z["copies"] == {"number": 1, "amount": "297.00"}
            assert await daemon.stop() == 0
    originals = [slip for slip in printer.paper.slips if "COPY" not in slip.text()]
    assert len(originals) <= 1
    tokens = ",".join(f"{name}={token}" for name, token in TOKENS.items())
    settings = load(daemon.config, {"GATEWAY_TILL_TOKENS": tokens}).settings
    assert tools.journal_export(settings, tmp_path / "journal").errors == []
    told = (tmp_path / "journal" / "journal.jsonl").read_text().splitlines()
    prints = [json.loads(line)["text"] for line in told if '"type":"print"' in line]
    assert [text.split()[0] for text in prints] == [
        "print.unconfirmed",
        "print.copy",
        "print.decided",
    ]
    assert "copyNo=1" in prints[1]
    assert "who=till-1" in prints[2]
    assert "said=lost" in prints[2]
