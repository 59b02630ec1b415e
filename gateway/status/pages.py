"""`/` and the story of one invoice: what a technician opens on a phone."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2
from aiohttp import web

from gateway.api.events import stream
from gateway.api.invoices import find
from gateway.api.server import services
from gateway.clock import from_micros, iso
from gateway.money import from_cents, text
from gateway.store import events, receipts

# Everything the pages load comes from here; `'unsafe-inline'` is not needed.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("gateway.status"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def register(app: web.Application) -> None:
    app.router.add_get("/", get_page)
    app.router.add_get("/live", get_live)
    app.router.add_get("/fragment", get_fragment)
    app.router.add_get("/invoices/{id}", get_story)
    app.router.add_get("/static/{name}", get_static)


async def get_page(request: web.Request) -> web.Response:
    """The whole page, useful without a line of JavaScript."""
    status = await services(request).status()
    return _html("status.html", s=status)


async def get_fragment(request: web.Request) -> web.Response:
    """The page's changing part; the page asks for it when an event says that something happened."""
    status = await services(request).status()
    return _html("fragment.html", s=status)


async def get_live(request: web.Request) -> web.StreamResponse:
    """Events for the page: kinds only matter here, and none carries a buyer's data."""
    return await stream(request, services(request), till_id=None, last=None)


async def get_story(request: web.Request) -> web.Response:
    """All that happened to one invoice, in order."""
    parts = services(request)
    row = await find(request)
    told = await parts.db.read(lambda conn: events.story(conn, row.id))
    receipt = await parts.db.read(lambda conn: receipts.by_invoice(conn, row.id))
    return _html(
        "story.html",
        row=row,
        receipt=receipt,
        total=text(from_cents(row.total_cents)),
        events=[
            {"at": iso(from_micros(event.at)), "kind": event.kind, "data": event.data}
            for event in told
        ],
    )


async def get_static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    kind = _TYPES.get(name.rpartition(".")[2])
    entry = resources.files("gateway.status").joinpath("static", name)
    if kind is None or "/" in name or not entry.is_file():
        raise web.HTTPNotFound
    headers = {**HEADERS, "Cache-Control": "max-age=300"}
    return web.Response(body=entry.read_bytes(), content_type=kind, headers=headers)


def _html(template: str, **values: Any) -> web.Response:
    body = _ENVIRONMENT.get_template(template).render(**values)
    return web.Response(text=body, content_type="text/html", headers=HEADERS)
