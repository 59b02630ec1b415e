"""The till API under garbage: hypothesis over its models, and broken HTTP on the wire.

Whatever comes in: no 5xx but the gateway's own stated refusals, no stack trace in an answer, nothing
stored that could be signed unless it is a valid sale, and the next good sale is signed.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api import build
from gateway.api.build import Defaults, build_credit_note, build_invoice, parse_model
from gateway.api.schemas import CreditNoteIn, InvoiceIn, NumberingIn, SignedIn, StatedIn
from gateway.domain.invoice import Cashier
from gateway.domain.tax import DEFAULT_RATES
from gateway.errors import GatewayError
from gateway.strict_json import parse
from hw_fakes.vscu.unit import UnitControl
from tests.support.invoices import an_invoice
from tests.support.shop import TOKENS, OpenShop, a_sale, make_settings, open_shop

DEFAULTS = Defaults(Cashier("c", "c"), "42294957", "NT", "U", 999)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
NASTY = st.one_of(
    JSON,
    st.sampled_from(
        ["", "-1", "1e9", "NaN", "0", "0.00", "99999999999999999999", "1.005", "١٢٣", "\u0000", "A" * 500,
         "../../etc/passwd", "'; DROP TABLE invoice; --", "\ud83d\ude00", "B ", [], {}, [[]]]
    ),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for name, member in value.items():
            found += places(member, (*path, name))
    elif isinstance(value, list):
        for at, member in enumerate(value):
            found += places(member, (*path, at))
    return found


@st.composite
def damaged_sales(draw: st.DrawFn) -> Any:
    """A valid sale with one to three things changed, removed or added."""
    sale: Any = a_sale(
        buyer={"pin": "A123456789Z", "name": "Buyer"},
        payments=[{"method": "CASH", "amount": "297.00"}],
        cashier={"id": "c1"},
    )
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([place for place in places(sale) if place]))
        parent = sale
        for step in path[:-1]:
            parent = parent[step]
        how = draw(st.sampled_from(["change", "remove", "add"]))
        if how == "remove":
            del parent[path[-1]]
        elif how == "change":
            parent[path[-1]] = draw(NASTY)
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=8))] = draw(NASTY)
    return sale


@given(damaged_sales() | JSON)
@settings(max_examples=600, deadline=None)
def test_a_damaged_sale_is_an_invoice_or_a_refusal(value: Any) -> None:
    """Through the very functions of the route: a valid Invoice, or a 4xx that names its places."""
    try:
        parsed = parse(json.dumps(value).encode())
        invoice = build_invoice(parse_model(InvoiceIn, parsed), DEFAULT_RATES, DEFAULTS)
    except GatewayError as error:
        assert 400 <= error.status < 500
        assert all(item.code and item.message for item in error.errors)
        assert all(item.pointer == "" or item.pointer.startswith("/") for item in error.errors)
        return
    assert invoice.total >= 0
    assert sum(row.gross for row in invoice.letters) == invoice.total
    assert sum(row.tax for row in invoice.letters) == invoice.tax


@pytest.mark.parametrize("model", [CreditNoteIn, SignedIn, StatedIn, NumberingIn])
@given(value=JSON)
@settings(max_examples=150, deadline=None)
def test_garbage_for_the_other_models_is_a_refusal_or_valid(model: Any, value: Any) -> None:
    try:
        parse_model(model, value)
    except GatewayError as error:
        assert 400 <= error.status < 500


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "ignore")))
@settings(max_examples=400, deadline=None)
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    try:
        parse(raw)
    except GatewayError as error:
        assert error.status == 400


def test_a_credit_note_for_a_credit_note_is_refused() -> None:
    body = parse_model(CreditNoteIn, {"tillReceiptNo": "C", "reason": "06"})
    note = build_credit_note(
        body, an_invoice(), original_invc_no=1, original_cu_invoice_no="X/1", defaults=DEFAULTS
    )
    with pytest.raises(GatewayError) as caught:
        build_credit_note(
            body, note, original_invc_no=1, original_cu_invoice_no="X/1", defaults=DEFAULTS
        )
    assert caught.value.status == 422
    assert build.CASH == "01"


@pytest.fixture
async def shop(unit: UnitControl, shop_dir: Path) -> AsyncIterator[OpenShop]:
    async with open_shop(make_settings(shop_dir, unit.url)) as opened:
        yield opened


def request(body: bytes, *, head: str = "POST /v1/invoices HTTP/1.1", **headers: str) -> bytes:
    lines = {
        "Host": "x",
        "Authorization": f"Bearer {TOKENS['till-1']}",
        "Idempotency-Key": "fuzz",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    lines.update({name.replace("_", "-"): value for name, value in headers.items()})
    text = "\r\n".join([head, *(f"{name}: {value}" for name, value in lines.items() if value)])
    return text.encode("latin-1") + b"\r\n\r\n" + body


GOOD = json.dumps(a_sale(tillReceiptNo="wire")).encode()
BROKEN = {
    "half a request line": b"POST /v1/inv",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    "a body shorter than said": request(GOOD, Content_Length=str(len(GOOD) + 50)),
    "a body longer than said": request(GOOD, Content_Length=str(len(GOOD) - 50)),
    "two lengths": request(GOOD).replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n", 1),
    "a negative length": request(GOOD, Content_Length="-5"),
    "length and chunks": request(GOOD, Transfer_Encoding="chunked"),
    "a broken chunk": request(
        b"zz\r\n{}\r\n0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked"
    ),
    "a chunk cut off": request(b'ff\r\n{"a"', Content_Length="", Transfer_Encoding="chunked"),
    "a bad gzip body": request(b"not gzip", Content_Encoding="gzip"),
    "a header without an end": request(GOOD)[:120],
    "a header of 100 kB": request(GOOD, X_Long="x" * 100_000),
    "a null byte in a header": request(GOOD, X_Null="a\x00b"),
    "a method of our own": request(GOOD, head="SELL /v1/invoices HTTP/1.1"),
    "no version": request(GOOD, head="POST /v1/invoices HTTP/x.y"),
    "a path outside": request(GOOD, head="POST /../../etc/passwd HTTP/1.1"),
    "a path with bytes": request(GOOD, head="POST /v1/invoices/%ff%fe%00 HTTP/1.1"),
    "expect a continue": request(GOOD, Expect="200-maybe"),
    "UTF-16": request(GOOD.decode().encode("utf-16")),
    "a UTF-8 mark first": request(b"\xef\xbb\xbf" + GOOD[:-5]),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
async def test_broken_http_signs_nothing_and_hurts_nobody(
    shop: OpenShop, unit: UnitControl, raw: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.gateway.port)
    writer.write(raw)
    writer.write_eof()
    answer = await reader.read(65536)
    writer.close()
    first = answer.split(b"\r\n", 1)[0]
    assert not answer or first.split()[1].startswith(b"4"), answer[:200]
    assert b"Traceback" not in answer
    assert b'File "' not in answer
    assert await unit.journal() == []
    assert (await shop.till().sell("good", a_sale())).status == 201
    assert len(await unit.journal()) == 1


async def test_two_requests_in_one_packet_are_one_sale(shop: OpenShop, unit: UnitControl) -> None:
    """A client that pipelines its retry."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.gateway.port)
    writer.write(request(GOOD) + request(GOOD, Connection="close"))
    answer = await reader.read()
    writer.close()
    assert answer.count(b"HTTP/1.1 201") == 2
    assert len(await unit.journal()) == 1


async def test_a_thousand_damaged_sales_over_the_wire(shop: OpenShop, unit: UnitControl) -> None:
    """The same garbage through the whole server, with what was signed counted at the unit."""
    signed = 0
    base = a_sale(payments=[{"method": "CASH", "amount": "297.00"}])
    number = 0
    for path in [place for place in places(base) if place]:
        for bad in (
            None,
            "",
            "-1",
            "x" * 300,
            0,
            1.5,
            [],
            {},
            True,
            "99999999999999999999.99",
            "\u202e",
        ):
            sale = copy.deepcopy(base)
            parent: Any = sale
            for step in path[:-1]:
                parent = parent[step]
            parent[path[-1]] = bad
            number += 1
            reply = await shop.till().sell(f"bad-{number}", sale)
            assert reply.status == 201 or 400 <= reply.status < 500, (path, bad, reply.body)
            signed += reply.status == 201
            assert b"Traceback" not in reply.body
    assert len(await unit.journal()) == signed
    assert number > 150


async def test_an_error_told_again_and_again_holds_nothing(
    unit: UnitControl, shop_dir: Path
) -> None:
    """A till that asks for a doubtful sale all night must not fill the memory (each raise would hang
    its frames on the one stored error)."""
    # Its answer is lost at once; nothing has to be waited for.
    parts = make_settings(shop_dir, unit.url)
    async with open_shop(parts) as shop:
        await unit.knobs(loseAnswers=1)
        sale = a_sale()
        invoice_id = (await shop.till().sell("key", sale)).json["invoiceId"]
        for _ in range(30):
            assert (await shop.till().sell("key", sale)).json["code"] == "OUTCOME_UNKNOWN"
        job = shop.gateway.signer.job(invoice_id)
        assert job is not None
        error = job.done.result()
        assert isinstance(error, GatewayError)
        depth, trace = 0, error.__traceback__
        while trace is not None:
            depth, trace = depth + 1, trace.tb_next
        assert depth < 30
