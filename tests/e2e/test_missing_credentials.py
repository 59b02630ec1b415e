"""The daemon without a key of M-Pesa's: cash is sold, and page and tills name what is missing."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from tests.support.daemon import Daemon
from tests.support.shop import a_sale

MPESA = """
[mpesa]
environment = "sandbox"
shortcode = "174379"
callback_url = "https://x.example"
[cloud]
url = "https://cloud.example"
"""
NAMED = "the credential mpesa_passkey is missing"


async def test_cash_is_sold_and_mpesa_is_off_with_its_reason(tmp_path: Path) -> None:
    keys = {"GATEWAY_MPESA_CONSUMER_KEY": "k", "GATEWAY_MPESA_CONSUMER_SECRET": "s"}
    daemon = Daemon(tmp_path, MPESA, keys)
    async with daemon, aiohttp.ClientSession() as session:
        till = daemon.till(session)
        sold = await till.sell("cash", a_sale(tillReceiptNo="P"))
        assert sold.status == 201, sold.json
        status = (await till.request("GET", "/v1/status")).json
        assert status["state"] == "ONLINE"
        assert (status["mpesa"]["on"], status["mpesa"]["state"]) == (False, "off")
        assert any(NAMED in says for says in status["mpesa"]["problems"])
        # Receipts are kept for the cloud, whose token is missing as well.
        assert status["cloud"]["waiting"] == 1 and "cloud_token" in status["cloud"]["problem"]
        for path in ("/", "/payments"):
            assert NAMED in (await till.request("GET", path)).body.decode()
        ask = {"phone": "254722000000", "amount": "100", "saleRef": "A"}
        pushed = await till.request("POST", "/v1/payments/mpesa", key="push", json=ask)
        assert (pushed.status, pushed.json["code"]) == (409, "PAYMENTS_OFF")
        assert NAMED in pushed.json["detail"]
        tenders = [{"method": "MPESA", "phone": "254722000000", "amount": "297.00"}]
        paid = await till.sell("paid", a_sale(tillReceiptNo="Q", tenders=tenders))
        assert (paid.status, paid.json["code"]) == (409, "PAYMENTS_OFF")
        assert NAMED in paid.json["detail"]
        assert await daemon.stop() == 0
