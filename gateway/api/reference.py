"""KRA's lists for the tills, from the store (so also offline), and what the shop registers with KRA."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aiohttp import web

from gateway import ids
from gateway.api.auth import Till
from gateway.api.body import read_json
from gateway.api.build import build_stock_lines, parse_as, positive
from gateway.api.invoices import idempotency_key
from gateway.api.schemas import PIN_PATTERN, ItemIn, StockLevelIn, StockMoveIn
from gateway.api.server import services, till_of
from gateway.clock import EAT, from_micros, iso, micros
from gateway.errors import (
    FieldError,
    KeyReused,
    NotFound,
    QueryInvalid,
    RegistrationInvalid,
    UnitUnavailable,
)
from gateway.money import parse_amount, parse_quantity
from gateway.store import reference, registrations
from gateway.store.registrations import Registration
from gateway.vscu import registers
from gateway.vscu.registers import Item, Registrar

# What the API calls a list, and the list in the store.
ROUTES = {
    "/v1/codes": "codes",
    "/v1/item-classes": "item-classes",
    "/v1/branches": "branches",
    "/v1/notices": "notices",
    "/v1/items": "items",
    "/v1/imports": "imports",
    "/v1/purchases": "purchases",
    "/v1/stock/moves": "stock-moves",
}
CUSTOMERS = "customers"
NOTHING_SENT = "This has mistakes. Nothing was sent to KRA."
PAGE_DEFAULT, PAGE_MAX = 500, 1000


@dataclass(frozen=True, slots=True)
class ReferenceDesk:
    """What these routes need beside the store. `problems` by list; `customer` asks KRA."""

    registrar: Registrar
    problems: Callable[[], dict[str, str]]
    customer: Callable[[str], Awaitable[dict[str, Any] | str | None]]
    notify: Callable[[], None]
    first_stock_no: int


def register(app: web.Application) -> None:
    app.router.add_get("/v1/codes", get_list)
    app.router.add_get("/v1/item-classes", get_list)
    app.router.add_get("/v1/branches", get_list)
    app.router.add_get("/v1/notices", get_list)
    app.router.add_get("/v1/items", get_list)
    app.router.add_get("/v1/imports", get_list)
    app.router.add_get("/v1/purchases", get_list)
    app.router.add_get("/v1/stock/moves", get_list)
    app.router.add_get("/v1/customers/{pin}", get_customer)
    app.router.add_post("/v1/items", post_item)
    app.router.add_post("/v1/stock/moves", post_stock_move)
    app.router.add_post("/v1/stock/levels", post_stock_level)
    app.router.add_get("/v1/registrations/{id}", get_registration)


async def get_list(request: web.Request) -> web.Response:
    """One page of a list as KRA last gave it. `class` picks one class of the codes."""
    till_of(request)
    parts = services(request)
    name = ROUTES[request.path]
    limit = _limit(request)
    prefix = request.query.get("class", "") if name == "codes" else ""
    after = max(request.query.get("after", ""), prefix)

    def read(conn: sqlite3.Connection) -> dict[str, Any]:
        rows = reference.page(conn, name, after=after, limit=limit + 1)
        full = len(rows) > limit
        rows = [(key, body) for key, body in rows[:limit] if key.startswith(prefix)]
        state = reference.state(conn, name)
        value: dict[str, Any] = {
            "list": name,
            "asOf": _when(state.refreshed_at) if state else None,
            "problem": parts.reference.problems().get(name),
            "rows": [body for _, body in rows],
            "next": rows[-1][0] if full and rows else None,
        }
        if name == "items":
            value["waiting"] = [
                json.loads(row.body)["itemCd"] for row in registrations.waiting(conn, "saveItems")
            ]
        return value

    return web.json_response(await parts.db.read(read))


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(PAGE_DEFAULT))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= PAGE_MAX:
        raise QueryInvalid(
            f"limit must be a whole number from 1 to {PAGE_MAX}.",
            errors=[FieldError("/limit", "OUT_OF_RANGE", f"1 to {PAGE_MAX}.")],
        )
    return int(text)


async def get_customer(request: web.Request) -> web.Response:
    """The taxpayer of a PIN: from KRA while it can be asked, otherwise as it was last known."""
    till_of(request)
    parts, pin = services(request), request.match_info["pin"]
    if re.fullmatch(PIN_PATTERN, pin) is None:
        raise QueryInvalid(
            "That is not a KRA PIN: a letter, nine digits, a letter (A123456789Z).",
            errors=[FieldError("/pin", "PIN_INVALID", "Not a PIN.")],
        )
    found = await parts.reference.customer(pin)
    at = micros(parts.clock.now())
    if isinstance(found, dict):
        row = {**found, "asOf": iso(from_micros(at))}
        await parts.db.write_soft(lambda conn: reference.put(conn, CUSTOMERS, [(pin, row)], at=at))
        return web.json_response(row)
    if found is None:
        raise NotFound("KRA knows no taxpayer with this PIN. Check it with the buyer.")
    stored = await parts.db.read(lambda conn: reference.one(conn, CUSTOMERS, pin))
    if stored is None:
        raise UnitUnavailable(
            "KRA cannot be asked now, and this PIN is not known here yet. The sale can be made "
            "all the same; check the PIN with the buyer.",
            retry_after_s=60,
            extra={"reason": found},
        )
    return web.json_response({**stored, "problem": found})


async def post_item(request: web.Request) -> web.Response:
    """An article for KRA's register (`saveItems`); the same item code again replaces it."""
    till, key, value = await _claimed(request)
    body = parse_as(ItemIn, value, RegistrationInvalid, NOTHING_SENT)
    parts = services(request)
    item = Item(
        code=body.itemCode,
        item_class=body.itemClass,
        item_type=body.itemType,
        name=body.name,
        origin=body.originCountry,
        package_unit=body.packageUnit or parts.defaults.package_unit,
        quantity_unit=body.quantityUnit or parts.defaults.quantity_unit,
        tax_letter=body.taxCode,
        price=positive(parse_amount, body.price, "price", NOTHING_SENT),
        barcode=body.barcode,
        active=body.active,
    )
    wire = registers.item_body(parts.reference.registrar, item)
    return await _queue(request, till, key, value, "saveItems", lambda conn: (item.code, wire))


async def post_stock_move(request: web.Request) -> web.Response:
    """Goods in or out other than by a sale (`saveStockItems`, code class 12)."""
    till, key, value = await _claimed(request)
    body = parse_as(StockMoveIn, value, RegistrationInvalid, NOTHING_SENT)
    parts = services(request)
    lines = build_stock_lines(body.lines, parts.rates(), parts.defaults)
    day = parts.clock.now().astimezone(EAT).date()

    def make(conn: sqlite3.Connection) -> tuple[str, bytes]:
        number = registrations.next_stock_number(conn, parts.reference.first_stock_no)
        wire = registers.stock_move_body(
            parts.reference.registrar,
            number=number,
            move_type=body.type,
            day=day,
            lines=lines,
            remark=body.remark,
        )
        return str(number), wire

    return await _queue(request, till, key, value, "saveStockItems", make)


async def post_stock_level(request: web.Request) -> web.Response:
    """What is left of an item (`saveStockMaster`), as an absolute figure."""
    till, key, value = await _claimed(request)
    body = parse_as(StockLevelIn, value, RegistrationInvalid, NOTHING_SENT)
    left = Decimal(0)
    if body.remaining.strip("0.") or not body.remaining:
        left = positive(parse_quantity, body.remaining, "remaining", NOTHING_SENT)
    wire = registers.stock_level_body(
        services(request).reference.registrar, item_code=body.itemCode, remaining=left
    )
    return await _queue(
        request, till, key, value, "saveStockMaster", lambda conn: (body.itemCode, wire)
    )


async def _claimed(request: web.Request) -> tuple[Till, str, Any]:
    till = till_of(request)
    key = idempotency_key(request, required=True)
    assert key is not None
    _, value = await read_json(request)
    return till, key, value


async def _queue(
    request: web.Request,
    till: Till,
    key: str,
    value: Any,
    kind: str,
    make: Callable[[sqlite3.Connection], tuple[str, bytes]],
) -> web.Response:
    """Claim by key, answer 202; the queue brings it to the unit, today or when KRA is back."""
    parts = services(request)
    at = micros(parts.clock.now())
    digest = ids.digest([kind, value])
    row = await parts.db.write(
        lambda conn: registrations.claim(
            conn,
            new_id=ids.new_id(at),
            till_id=till.id,
            idem_key=key,
            digest=digest,
            kind=kind,
            at=at,
            make=make,
        )
    )
    if row.digest != digest:
        raise KeyReused(
            "This key was already used for something else. Send it with a new key.",
            extra={"registrationId": row.id},
        )
    parts.reference.notify()
    return web.json_response(_view(row), status=202)


async def get_registration(request: web.Request) -> web.Response:
    """How far a registration has come: WAITING, DONE or REFUSED with the unit's reason."""
    till_of(request)
    id_ = request.match_info["id"]
    row: Registration | None = None
    if ids.is_id(id_):
        row = await services(request).db.read(lambda conn: registrations.by_id(conn, id_))
    if row is None:
        raise NotFound("There is no registration with this id.")
    return web.json_response(_view(row))


def _view(row: Registration) -> dict[str, Any]:
    return {
        "registrationId": row.id,
        "kind": row.kind,
        "subject": row.subject,
        "state": row.state,
        "reason": row.reason,
        "attempts": row.attempts,
        "createdAt": _when(row.created_at),
        "settledAt": _when(row.settled_at),
    }


def _when(at_us: int | None) -> str | None:
    return None if at_us is None else iso(from_micros(at_us))
