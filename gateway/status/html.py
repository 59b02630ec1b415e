"""What every page shares: the templates, the headers that keep them to themselves, a form's fields."""

from __future__ import annotations

from typing import Any

import jinja2
from aiohttp import web

from gateway.api.body import in_time
from gateway.api.server import Services
from gateway.errors import GatewayError, UnknownTechnician

# Everything the pages load comes from here; `'unsafe-inline'` is not needed.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("gateway.status"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


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
    posted = await in_time(request.post())
    fields = {name: str(value).strip() for name, value in posted.items()}
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
            given[name] = [str(value).strip() for value in posted.getall(name)]
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
