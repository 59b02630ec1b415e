"""The first day of a shop: each cause before the first contact has its own words, the same in every place."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.settings import Settings
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import BRANCH, PIN, SERIAL, UnitControl
from tests.support.shop import TOKENS, OpenShop, a_sale, make_settings, open_shop

WAIT_S = 60.0
# A unit that says nothing at all is served without after this long. Seconds.
QUICK = {"start_timeout_s": 0.2}


class StandIn:
    """A unit that answers each path with one code. What was asked is kept."""

    def __init__(self, **codes: str) -> None:
        self.codes = codes
        self.info: Mapping[str, Any] = {}
        self.asked: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        name = request.path.rsplit("/", 1)[-1]
        self.asked.append(name)
        code = self.codes.get(name, "000")
        if code == "html":
            return web.Response(text="<html>It works!</html>", content_type="text/html")
        data = {"info": dict(self.info)} if name == "selectInitInfo" else {}
        body = {"resultCd": code, "resultMsg": f"text of {code}", "resultDt": None, "data": data}
        return web.json_response(body)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[StandIn]:
        app = web.Application()
        app.router.add_post("/{path:.*}", self.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


async def status(shop: OpenShop) -> dict[str, Any]:
    return dict((await shop.till().request("GET", "/v1/status")).json)


async def until(shop: OpenShop, wanted: str) -> dict[str, Any]:
    """The status once its sentence has these words."""
    async with asyncio.timeout(WAIT_S):
        while wanted not in (found := await status(shop))["sentence"]:
            await asyncio.sleep(0.05)
    return found


async def says_everywhere(shop: OpenShop, wanted: str, state: str = "NOT_SET_UP") -> None:
    """Page, status, metrics and till agree, and none of them speaks of hours that have not passed."""
    found = await until(shop, wanted)
    assert found["state"] == state
    ceiling = found["ceiling"]
    assert (ceiling["secondsLeft"], ceiling["usedPercent"]) == (None, None)
    page = (await shop.till().request("GET", "/")).body.decode()
    assert wanted in page.replace("&#39;", "'").replace("&#34;", '"')
    assert "left of 24 h" not in page
    refused = await shop.till().sell("key", a_sale(tillReceiptNo="P"))
    assert (refused.status, refused.json["code"]) == (503, state)
    assert refused.json["signed"] == "no" and refused.json["retryable"] is True
    assert wanted in refused.json["detail"]
    for text in (found["sentence"], page, refused.body.decode()):
        assert "24 hours" not in text
    metrics = (await shop.till().request("GET", "/metrics")).body.decode()
    assert f'pos_gateway_state{{state="{state}"}} 1' in metrics


PORTAL = "Compare the three with the eTIMS portal"
LINK = "Check this machine's internet"
ROWS = [
    ({"selectInitInfo": "901", "selectCodes": "901", "selectNotices": "901"},
     f"KRA has no serial {SERIAL} for PIN {PIN}, branch {BRANCH} (code 901). {PORTAL}"),
    ({"selectInitInfo": "902", "selectCodes": "901", "selectNotices": "901"},
     "this control unit does not have its keys (code 901)"),
    ({"selectCodes": "901", "selectNotices": "901"}, "has lost its registration (code 901)"),
    *(({"selectInitInfo": code, "selectCodes": "901", "selectNotices": "901"},
       f"as another kind of device (code {code})") for code in ("903", "905")),
    *(({"selectInitInfo": code, "selectCodes": "901", "selectNotices": "901"},
       f"KRA does not know this control unit (code {code})") for code in ("904", "906")),
    *(({"selectInitInfo": code, "selectCodes": "901", "selectNotices": code},
       f"cannot reach KRA (code {code}). {LINK}") for code in ("894", "838", "896", "999")),
    # Initialised, and the way to KRA was lost before the first read.
    *(({"selectNotices": code}, f"cannot reach KRA (code {code}). {LINK}") for code in ("894", "838")),
    *(({"selectInitInfo": code, "selectCodes": code, "selectNotices": code},
       f"has lost its keys (code {code})") for code in ("892", "900")),
    ({"selectInitInfo": "899", "selectCodes": "901", "selectNotices": "899"}, "code 899"),
    ({"selectInitInfo": "777", "selectCodes": "777", "selectNotices": "777"}, "text of 777"),
    ({"selectInitInfo": "html", "selectCodes": "html", "selectNotices": "html"},
     "is not a control unit"),
]  # fmt: skip


@pytest.mark.parametrize(("codes", "wanted"), ROWS, ids=[str(codes) for codes, _ in ROWS])
async def test_each_cause_before_the_first_contact_has_its_words(
    codes: dict[str, str], wanted: str, shop_dir: Path
) -> None:
    async with StandIn(**codes).run() as unit:
        async with open_shop(make_settings(shop_dir, unit.url, unit=QUICK)) as shop:
            if codes.get("selectInitInfo") == "902":
                # A unit that was used before lacks its number, too.
                found = await until(shop, wanted)
                assert found["state"] == "EMPTY_STORE"
                refused = await shop.till().sell("key", a_sale())
                assert refused.json["code"] == "EMPTY_STORE"
                return
            await says_everywhere(shop, wanted)


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ("unit", {"serial": "dvc-wrong-9999"}),
        ("branch", {"pin": "P051234567X"}),
        ("branch", {"branch_id": "07"}),
    ],
)
async def test_a_wrong_registration_is_not_called_a_missing_internet(
    section: str, wrong: dict[str, str], unit: UnitControl, shop_dir: Path
) -> None:
    sections: dict[str, Any] = {"unit": dict(QUICK)}
    sections[section] = {**sections.get(section, {}), **wrong}
    settings = make_settings(shop_dir, unit.url, **sections)
    branch, serial = settings.branch, settings.unit.serial
    async with open_shop(settings) as shop:
        await says_everywhere(
            shop,
            f"KRA has no serial {serial} for PIN {branch.pin}, branch {branch.branch_id} (code 901)",
        )


async def test_the_set_up_goes_on_by_itself_once_kra_is_reached(
    unit: UnitControl, shop_dir: Path
) -> None:
    await unit.knobs(upstream="offline")
    async with open_shop(make_settings(shop_dir, unit.url, unit=QUICK)) as shop:
        await says_everywhere(shop, LINK)
        await unit.knobs(upstream="online")
        await until(shop, "Selling. KRA is connected.")
        assert (await shop.till().sell("key", a_sale(tillReceiptNo="P"))).status == 201


async def test_a_unit_that_is_not_there_is_named(shop_dir: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with open_shop(make_settings(shop_dir, url, unit=QUICK)) as shop:
        await says_everywhere(shop, "The control unit does not answer: no connection")


async def test_the_command_says_the_same_and_exits_with_1(shop_dir: Path) -> None:
    port = free_port()
    async with StandIn(selectInitInfo="901", selectCodes="901", selectNotices="901").run() as unit:
        settings = make_settings(shop_dir, unit.url, unit=QUICK, api={"port": port})
        async with open_shop(settings) as shop:
            await until(shop, "KRA has no serial")
            code, out = await command(shop_dir, settings, port)
    assert code == 1
    assert out.startswith("NOT_SET_UP: ") and "KRA has no serial" in out
    assert "24 h" not in out


async def command(directory: Path, settings: Settings, port: int) -> tuple[int, str]:
    config = directory / "gateway.toml"
    config.write_text(
        f'[branch]\npin = "{PIN}"\ntrade_name = "T"\n[unit]\nserial = "s"\nhost = "external"\n'
        f'[store]\ndirectory = "{directory / "store"}"\n[api]\nport = {port}\n[[tills]]\nid = "till-1"\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "status", "--config", str(config),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "GATEWAY_TILL_TOKENS": "till-1=0123456789abcdef"},
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


# --- a unit that was used before -----------------------------------------------------------------


async def used_unit(unit: UnitControl) -> None:
    """The unit as another system left it: initialised, with two sales signed."""
    who = {"tin": PIN, "bhfId": BRANCH}
    assert (await unit.post("/initializer/selectInitInfo", {**who, "dvcSrlNo": SERIAL}))[
        "resultCd"
    ] == "000"


async def number(shop: OpenShop, next_invc_no: int) -> Any:
    said = {
        "nextInvcNo": next_invc_no,
        "reason": "read on KRA's portal",
        "silentTills": sorted(TOKENS),
    }
    return await shop.technician().request("POST", "/v1/unit/numbering", json=said)


async def test_an_empty_store_beside_a_used_unit_asks_for_the_number_before_the_first_sale(
    unit: UnitControl, shop_dir: Path
) -> None:
    await used_unit(unit)
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings) as shop:
        found = await status(shop)
        assert found["state"] == "EMPTY_STORE"
        assert "next invoice number" in found["sentence"] and "/unit" in found["sentence"]
        assert "code 902" in found["signer"]["hold"]
        refused = await shop.till().sell("early", a_sale(tillReceiptNo="P"))
        assert (refused.status, refused.json["code"]) == (503, "EMPTY_STORE")
        # Whether the store that is missing has signed it, nobody can say.
        assert refused.json["signed"] == "unknown"
    # A restart does not forget the question.
    async with open_shop(settings) as shop:
        assert (await status(shop))["state"] == "EMPTY_STORE"
        assert await unit.journal() == []
        page = await shop.till().request("GET", "/unit")
        assert "code 902" in page.body.decode()
        said = await number(shop, 89)
        assert said.status == 200, said.json
        assert (await status(shop))["state"] == "ONLINE"
        sold = await shop.till().sell("new", a_sale(tillReceiptNo="Q"))
        assert (sold.status, sold.json["invcNo"]) == (201, 89)
        # What came while it was not known may have been signed under a number that was skipped.
        assert (await shop.till().sell("early", a_sale(tillReceiptNo="P"))).status != 201
    async with open_shop(settings) as shop:
        assert (await status(shop))["state"] == "ONLINE"


@pytest.mark.parametrize(
    "info",
    [
        {"lastSaleInvcNo": 57},
        {"lastInvcNo": "57"},
        {"lastSaleRcptNo": 57},
        {"lastTrainInvcNo": 3},
    ],
    ids=json.dumps,
)
async def test_an_initialisation_that_shows_earlier_sales_asks_as_well(
    info: dict[str, Any], shop_dir: Path
) -> None:
    stand_in = StandIn()
    stand_in.info = info
    async with stand_in.run() as unit, open_shop(make_settings(shop_dir, unit.url)) as shop:
        assert (await status(shop))["state"] == "EMPTY_STORE"
        refused = await shop.till().sell("early", a_sale(tillReceiptNo="P"))
        assert (refused.status, refused.json["code"]) == (503, "EMPTY_STORE")
        assert "saveSales" not in unit.asked


async def test_a_new_unit_asks_nothing(shop_dir: Path) -> None:
    stand_in = StandIn()
    stand_in.info = {"lastSaleInvcNo": 0, "lastInvcNo": None, "lastPchsInvcNo": 12}
    async with stand_in.run() as unit, open_shop(make_settings(shop_dir, unit.url)) as shop:
        assert (await status(shop))["state"] == "ONLINE"
        assert unit.asked.count("selectInitInfo") == 1


async def test_a_unit_that_is_initialised_late_asks_before_the_first_sale_too(
    unit: UnitControl, shop_dir: Path
) -> None:
    """KRA is away at the start, so 902 comes long after the comparison of the start."""
    await used_unit(unit)
    await unit.knobs(upstream="offline")
    async with open_shop(make_settings(shop_dir, unit.url, unit=QUICK)) as shop:
        await until(shop, LINK)
        await unit.knobs(upstream="online")
        async with asyncio.timeout(WAIT_S):
            while (await status(shop))["state"] != "EMPTY_STORE":
                await asyncio.sleep(0.05)
        assert (await shop.till().sell("early", a_sale())).json["code"] == "EMPTY_STORE"
        assert await unit.journal() == []
