"""KRA's lists in the store and the queue of registrations, through the whole gateway and the real fake."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from gateway.store import reference
from gateway.vscu.client import FIRST_WATERMARK
from hw_fakes.vscu.unit import UnitControl
from tests.support.shop import OpenShop, Reply, a_sale, make_settings, open_shop

READS = {"reference": {"every_hours": 6}}


async def until_read(shop: OpenShop, *names: str) -> None:
    async with asyncio.timeout(30):
        while True:
            news = asyncio.ensure_future(shop.gateway.db.changed())
            known = await shop.gateway.db.read(reference.refreshed)
            if set(names) <= set(known):
                news.cancel()
                return
            await news


async def rows(shop: OpenShop, path: str) -> list[dict[str, Any]]:
    """All pages of a list."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        reply = await shop.till().request("GET", f"{path}?limit=500&after={after}")
        assert reply.status == 200, reply.json
        found += reply.json["rows"]
        after = reply.json["next"]
        if after is None:
            return found


async def settled(shop: OpenShop, reply: Reply) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            news = asyncio.ensure_future(shop.gateway.db.changed())
            now = await shop.till().request(
                "GET", f"/v1/registrations/{reply.json['registrationId']}"
            )
            if now.json["state"] != "WAITING":
                news.cancel()
                return now.json
            await news


def an_item(**changes: Any) -> dict[str, Any]:
    item = {
        "itemCode": "KE2NTXU0000077",
        "name": "Maize flour 2kg",
        "itemClass": "50000000",
        "itemType": "2",
        "taxCode": "A",
        "price": "210.00",
    }
    return {**item, **changes}


async def test_lists_are_read_page_by_page_and_served_also_offline(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url, **READS)
    async with open_shop(settings) as shop:
        await until_read(shop, "codes", "item-classes", "branches", "notices", "purchases")
        await unit.knobs(upstream="offline")
        classes = await rows(shop, "/v1/item-classes")
        assert len(classes) == 1200
        assert len({row["itemClsCd"] for row in classes}) == 1200
        letters = await shop.till().request("GET", "/v1/codes?class=04")
        assert [row["cd"] for row in letters.json["rows"]] == ["A", "B", "C", "D", "E"]
        assert letters.json["asOf"] is not None
        assert (await rows(shop, "/v1/notices"))[0]["title"] == "Filing reminder"
        assert (await rows(shop, "/v1/branches"))[0]["bhfNm"] == "Headquarter"
        assert (await rows(shop, "/v1/purchases"))[0]["spplrNm"] == "Supplier"
        assert (await rows(shop, "/v1/imports"))[0]["itemNm"] == "OUTER PARTS"


async def test_a_watermark_moves_only_with_its_rows(unit: UnitControl, shop_dir: Path) -> None:
    """KRA goes away in the middle of a long list: the next read goes on from there, none is missed."""
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings) as shop:
        reader = shop.gateway.lists.reader
        await unit.knobs(upstream="offline")
        await reader.refresh("item-classes")
        assert "item-classes" in reader.problems
        assert await shop.gateway.db.read(lambda c: reference.state(c, "item-classes")) is None
        await unit.knobs(upstream="online")
        # One page, as if the link broke behind it.
        page = await reader._source.page("item-classes", FIRST_WATERMARK)
        await reader._store("item-classes", page, page.watermark)
        await unit.knobs(upstream="offline")
        await reader.refresh("item-classes")
        state = await shop.gateway.db.read(lambda c: reference.state(c, "item-classes"))
        assert state.watermark == page.watermark
        assert len(await rows(shop, "/v1/item-classes")) == 500
        listed = await shop.till().request("GET", "/v1/item-classes?limit=1")
        assert listed.json["problem"]
        await unit.knobs(upstream="online")
        await reader.refresh("item-classes")
        assert len(await rows(shop, "/v1/item-classes")) == 1200
        assert not reader.problems


async def test_a_list_is_read_again_from_where_it_ended(unit: UnitControl, shop_dir: Path) -> None:
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings) as shop:
        reader = shop.gateway.lists.reader
        await reader.refresh("notices")
        assert len(await rows(shop, "/v1/notices")) == 1
        await unit.knobs(notice="New rates")
        await reader.refresh("notices")
        assert [row["title"] for row in await rows(shop, "/v1/notices")] == [
            "Filing reminder",
            "New rates",
        ]


async def test_items_and_stock_reach_the_unit_in_order_after_an_outage(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url, reference={"first_stock_no": 41})
    async with open_shop(settings) as shop:
        till = shop.till()
        await unit.knobs(upstream="offline")
        item = await till.request("POST", "/v1/items", key="item", json=an_item())
        assert item.status == 202
        move = {"type": "02", "lines": a_sale()["lines"], "remark": "from the wholesaler"}
        moved = await till.request("POST", "/v1/stock/moves", key="move", json=move)
        more = await till.request("POST", "/v1/stock/moves", key="more", json=move)
        level = {"itemCode": "KE2NTXU0000077", "remaining": "24"}
        left = await till.request("POST", "/v1/stock/levels", key="level", json=level)
        again = await till.request("POST", "/v1/stock/moves", key="move", json=move)
        assert again.json["registrationId"] == moved.json["registrationId"]
        other = await till.request(
            "POST", "/v1/stock/moves", key="move", json={**move, "type": "01"}
        )
        assert (other.status, other.json["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        listed = await till.request("GET", "/v1/items")
        assert listed.json["waiting"] == ["KE2NTXU0000077"]
        status = await till.request("GET", "/v1/status")
        assert status.json["reference"]["waiting"] == 4
        # A sale does not wait for any of it.
        assert (await till.sell("sale", a_sale())).status == 201
        await unit.knobs(upstream="online")
        shop.gateway.lists.link_is_back()
        for reply in (item, moved, more, left):
            assert (await settled(shop, reply))["state"] == "DONE"
        assert (moved.json["subject"], more.json["subject"]) == ("41", "42")
        await shop.gateway.lists.reader.refresh("items")
        await shop.gateway.lists.reader.refresh("stock-moves")
        stored = await rows(shop, "/v1/items")
        assert [(row["itemCd"], row["dftPrc"]) for row in stored] == [("KE2NTXU0000077", "210.00")]


async def test_what_the_unit_refuses_is_set_aside_and_the_rest_flows(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings) as shop:
        till = shop.till()
        # The fake's field holds nine characters before the point fewer than this.
        bad = await till.request(
            "POST", "/v1/items", key="bad", json=an_item(price="99999999999999999999.00")
        )
        if bad.status == 202:
            refused = await settled(shop, bad)
            assert refused["state"] == "REFUSED"
            assert refused["reason"]
        else:
            assert bad.json["errors"][0]["pointer"] == "/price"
        good = await till.request("POST", "/v1/items", key="good", json=an_item())
        assert (await settled(shop, good))["state"] == "DONE"


async def test_mistakes_are_named_with_their_place(unit: UnitControl, shop_dir: Path) -> None:
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings) as shop:
        till = shop.till()
        for path, body, pointer in [
            ("/v1/items", an_item(itemType="9"), "/itemType"),
            ("/v1/items", an_item(price="1.234"), "/price"),
            ("/v1/items", {"name": "x"}, "/itemCode"),
            ("/v1/stock/moves", {"type": "09", "lines": a_sale()["lines"]}, "/type"),
            ("/v1/stock/moves", {"type": "02", "lines": []}, "/lines"),
            (
                "/v1/stock/moves",
                {"type": "02", "lines": [{**a_sale()["lines"][0], "taxCode": "X"}]},
                "/lines/0/taxCode",
            ),
            ("/v1/stock/levels", {"itemCode": "A", "remaining": "-1"}, "/remaining"),
        ]:
            reply = await till.request("POST", path, key="wrong", json=body)
            assert (reply.status, reply.json["code"]) == (422, "REGISTRATION_INVALID"), reply.json
            assert pointer in [error["pointer"] for error in reply.json["errors"]]
        for path in ("/v1/codes?limit=0", "/v1/items?limit=x", "/v1/customers/nobody"):
            assert (await till.request("GET", path)).json["code"] == "QUERY_INVALID"
        assert (await till.request("GET", "/v1/registrations/none")).status == 404


async def test_a_buyer_is_known_offline_once_he_was_asked_for(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings) as shop:
        till = shop.till()
        first = await till.request("GET", "/v1/customers/A123456789Z")
        assert first.json["taxprNm"] == "BUYER A123456789Z"
        await unit.knobs(upstream="offline")
        later = await till.request("GET", "/v1/customers/A123456789Z")
        assert (later.status, later.json["taxprNm"]) == (200, "BUYER A123456789Z")
        assert later.json["problem"]
        nobody = await till.request("GET", "/v1/customers/B123456789Z")
        assert (nobody.status, nobody.json["code"]) == (503, "UNIT_UNAVAILABLE")
