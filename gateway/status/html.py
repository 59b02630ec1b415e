"""What every page shares: the templates, the headers that keep them to themselves, a form's fields."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import jinja2
from aiohttp import web

from gateway.api.server import Services
from gateway.body_share import BodyShare
from gateway.errors import GatewayError, RequestError, UnknownTechnician, UnsupportedBody

# Everything the pages load comes from here; `'unsafe-inline'` is not needed.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    # By this a page tells the gateway from whoever else answers at its address (page.js).
    "Pos-Gateway": "page",
}
# A form holds a code and a few words, and is read before the code can be checked.
FORM_MAX_BYTES = 16 * 1024
FORMS_AT_ONCE = 8
FORM_MAX_S = 10.0
FIELDS_MAX = 100
_FORMS: web.AppKey[BodyShare] = web.AppKey("forms", BodyShare)
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("gateway.status"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def register(app: web.Application) -> None:
    """Set up what the forms of all pages share."""
    app[_FORMS] = BodyShare(size_max=FORM_MAX_BYTES, at_once=FORMS_AT_ONCE, within_s=FORM_MAX_S)


def page(
    template: str, *, status: int = 200, problem: GatewayError | None = None, **values: Any
) -> web.Response:
    """`problem`: what was wrong with the form that this page answers; its status is the page's."""
    if problem is not None:
        status = problem.status
    values["problem"] = problem
    body = _ENVIRONMENT.get_template(template).render(**values)
    return web.Response(text=body, status=status, content_type="text/html", headers=HEADERS)


async def form(
    request: web.Request,
    numbers: tuple[str, ...] = (),
    *,
    flags: tuple[str, ...] = (),
    lists: tuple[str, ...] = (),
) -> tuple[str, dict[str, Any]]:
    """Return the person's code, and the other fields as the API's JSON would have them. `flags` are checkboxes,
    `lists` checkboxes of one name."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise UnsupportedBody(
            "Send the form as application/x-www-form-urlencoded. Nothing was done."
        )
    raw = await request.app[_FORMS].read(request)
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise RequestError("The form cannot be read, and nothing was done.") from None
    fields: dict[str, str] = {}
    for name, text in pairs:
        fields.setdefault(name, text.strip())
    code = fields.pop("code", "")
    given: dict[str, Any] = {name: value for name, value in fields.items() if value}
    for name in numbers:
        if given.get(name, "").isdecimal():
            given[name] = int(given[name])
    for name in flags:
        if name in given:
            given[name] = given[name] == "true"
    for name in lists:
        if name in given:
            given[name] = [text.strip() for field, text in pairs if field == name]
    return code, given


def person(parts: Services, code: str) -> str:
    """Who has this code: a till, or a technician. Every form asks for it, so there is no session that
    somebody else's page could use. UnknownTechnician for nobody's."""
    till = parts.tills.name_of(code)
    if till is not None:
        return till
    try:
        return parts.technicians.check(code)
    except UnknownTechnician:
        raise UnknownTechnician("This code is not known here. Nothing was done.") from None
