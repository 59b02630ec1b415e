"""Bad input gets a 4xx with a stable code and the field's place; nothing of it can ever be signed."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hw_fakes.vscu.unit import UnitControl
from tests.support.shop import OpenShop, a_sale, make_settings, open_shop


@pytest.fixture
async def shop(unit: UnitControl, shop_dir: Path) -> AsyncIterator[OpenShop]:
    async with open_shop(make_settings(shop_dir, unit.url)) as opened:
        yield opened


def changed(path: str, value: Any) -> dict[str, Any]:
    """A sale with one field set (`lines.0.taxCode`), or removed with value `...`."""
    sale = json.loads(json.dumps(a_sale()))
    at: Any = sale
    *parents, last = path.split(".")
    for part in parents:
        at = at[int(part) if part.isdigit() else part]
    key: Any = int(last) if last.isdigit() else last
    if value is ...:
        del at[key]
    else:
        at[key] = value
    return sale


FIELD_MISTAKES = [
    ("tillReceiptNo", ..., "/tillReceiptNo", "MISSING"),
    ("surprise", 1, "/surprise", "UNKNOWN_FIELD"),
    ("lines.0.colour", "red", "/lines/0/colour", "UNKNOWN_FIELD"),
    ("total", 297, "/total", "WRONG_TYPE"),
    ("lines", "none", "/lines", "WRONG_TYPE"),
    ("lines", [], "/lines", "TOO_FEW"),
    ("lines.0.quantity", "-2", "/lines/0/quantity", "AMOUNT_INVALID"),
    ("lines.0.quantity", "0", "/lines/0/quantity", "AMOUNT_INVALID"),
    ("lines.0.quantity", "1.2345", "/lines/0/quantity", "AMOUNT_INVALID"),
    ("lines.0.unitPrice", "1e3", "/lines/0/unitPrice", "AMOUNT_INVALID"),
    ("lines.0.unitPrice", "NaN", "/lines/0/unitPrice", "AMOUNT_INVALID"),
    ("total", "-297.00", "/total", "AMOUNT_INVALID"),
    ("total", "297.01", "/total", "TOTAL_DRIFTS"),
    ("totalTax", "32.01", "/totalTax", "TAX_DRIFTS"),
    ("lines.1.total", "64.99", "/lines/1/total", "LINE_TOTAL_DRIFTS"),
    ("lines.0.taxCode", "F", "/lines/0/taxCode", "TAX_CODE_UNKNOWN"),
    ("lines.0.name", "soda\x1b@", "/lines/0/name", "TEXT_INVALID"),
    ("lines.0.name", "", "/lines/0/name", "TEXT_INVALID"),
    ("lines.1.name", " \t\ufeff ", "/lines/1/name", "TEXT_INVALID"),
    ("lines.1.name", "soda\x1f", "/lines/1/name", "TEXT_INVALID"),
    ("lines.1.name", "a\u202eb", "/lines/1/name", "TEXT_INVALID"),
    ("tillReceiptNo", "1\x00", "/tillReceiptNo", "TEXT_INVALID"),
    ("buyer", {"name": "a\u2066b"}, "/buyer/name", "TEXT_INVALID"),
    ("lines.0.name", "x" * 201, "/lines/0/name", "TOO_LONG"),
    ("lines.0.discountPercent", 101, "/lines/0/discountPercent", "OUT_OF_RANGE"),
    ("lines.0.discountAmount", "232.01", "/lines/0/discountAmount", "DISCOUNT_TOO_LARGE"),
    ("buyer", {"pin": "A12345"}, "/buyer/pin", "PIN_INVALID"),
    ("payments", [{"method": "CASH", "amount": "10.00"}], "/payments", "PAYMENTS_SHORT"),
    ("payments", [{"method": "CARD", "amount": "300.00"}], "/payments", "PAYMENTS_DRIFT"),
    ("payments", [{"method": "GOLD", "amount": "297.00"}], "/payments/0/method", "NOT_ALLOWED"),
    ("type", "FREE", "/type", "NOT_ALLOWED"),
    ("printer", "nowhere", "/printer", "PRINTER_UNKNOWN"),
]


@pytest.mark.parametrize(("path", "value", "pointer", "code"), FIELD_MISTAKES)
async def test_a_mistake_in_a_field_names_the_field(
    shop: OpenShop, unit: UnitControl, path: str, value: Any, pointer: str, code: str
) -> None:
    reply = await shop.till().sell("key", changed(path, value))
    assert reply.status == 422
    assert reply.headers["Content-Type"].startswith("application/problem+json")
    assert (pointer, code) in [(e["pointer"], e["code"]) for e in reply.json["errors"]]
    assert reply.json["code"] == "INVOICE_INVALID"
    assert all(error["message"].endswith(".") for error in reply.json["errors"])
    await nothing_was_stored(shop, unit)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "BODY_NOT_JSON"),
        (b"", "BODY_NOT_JSON"),
        (b'{"total": NaN}', "BODY_NOT_JSON"),
        (b'{"a": 1, "a": 2}', "BODY_NOT_JSON"),
        (b'"\\ud800"', "BODY_NOT_JSON"),
        (b"\xff\xfe", "BODY_NOT_JSON"),
        (b"[" * 100_000, "BODY_NOT_JSON"),
        (b'{"total": ' + b"9" * 10_000 + b"}", "BODY_NOT_JSON"),
        (b"[]", "INVOICE_INVALID"),
        (b"null", "INVOICE_INVALID"),
    ],
)
async def test_a_body_that_is_no_invoice(
    shop: OpenShop, unit: UnitControl, body: bytes, code: str
) -> None:
    reply = await shop.till().request(
        "POST",
        "/v1/invoices",
        key="key",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    assert reply.json["code"] == code
    assert 400 <= reply.status < 500
    await nothing_was_stored(shop, unit)


async def test_a_body_over_one_mebibyte(shop: OpenShop, unit: UnitControl) -> None:
    body = io.BytesIO(json.dumps(a_sale(remark="x" * 1_100_000)).encode())
    reply = await shop.till().request(
        "POST",
        "/v1/invoices",
        key="key",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    assert (reply.status, reply.json["code"]) == (413, "BODY_TOO_LARGE")
    await nothing_was_stored(shop, unit)


@pytest.mark.parametrize("key", ["k" * 300, "two words", "ключ"])
async def test_a_key_that_cannot_be_used(shop: OpenShop, unit: UnitControl, key: str) -> None:
    reply = await shop.till().sell(key, a_sale())
    assert (reply.status, reply.json["code"]) == (400, "IDEMPOTENCY_KEY_INVALID")
    await nothing_was_stored(shop, unit)


@pytest.mark.parametrize("token", ["", "Bearer ", "Bearer wrong-token-of-a-till", "Basic dGlsbA=="])
async def test_a_wrong_token(shop: OpenShop, unit: UnitControl, token: str) -> None:
    till = shop.till()
    till.headers["Authorization"] = token
    reply = await till.sell("key", a_sale())
    assert (reply.status, reply.json["code"]) == (401, "UNKNOWN_TILL")
    assert "wrong-token" not in reply.body.decode()
    await nothing_was_stored(shop, unit)


async def test_paths_and_methods_that_are_not_there(shop: OpenShop) -> None:
    till = shop.till()
    for method, path, status, code in [
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("DELETE", "/v1/invoices", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/invoices/nothing", 404, "INVOICE_UNKNOWN"),
        ("GET", "/v1/invoices/01M85688FDS72E7ER2HKA679A2", 404, "INVOICE_UNKNOWN"),
        ("GET", "/static/../../etc/passwd", 404, "NOT_FOUND"),
    ]:
        reply = await till.request(method, path)
        assert (reply.status, reply.json["code"]) == (status, code), path
    reply = await till.request("GET", "/v1/events", headers={"Last-Event-ID": "soon"})
    assert reply.status == 400


async def test_broken_http_does_not_disturb_the_daemon(shop: OpenShop) -> None:
    port = shop.gateway.port
    for junk in [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/invoices HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/invoices HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
        b"POST /v1/invoices HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"G" * 100_000,
    ]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(junk)
        if b"half" in junk:
            writer.write_eof()
        try:
            async with asyncio.timeout(5):
                answer = await reader.read(65536)
        except (ConnectionError, TimeoutError):
            answer = b""
        assert not answer.startswith(b"HTTP/1.1 5")
        writer.close()
    assert (await shop.till().sell("key", a_sale())).status == 201


async def nothing_was_stored(shop: OpenShop, unit: UnitControl) -> None:
    rows = await shop.gateway.db.read(
        lambda conn: conn.execute("SELECT COUNT(*) FROM invoice").fetchone()[0]
    )
    assert rows == 0
    assert await unit.journal() == []
