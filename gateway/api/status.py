"""`GET /v1/status` and the liveness probe: what the page shows, as JSON."""

from __future__ import annotations

from aiohttp import web

from gateway.api.server import services
from gateway.ops import metrics


def register(app: web.Application) -> None:
    app.router.add_get("/v1/status", get_status)
    app.router.add_get("/metrics", get_metrics)


async def get_status(request: web.Request) -> web.Response:
    """Open to the LAN: states and counts only, no buyer, no token."""
    return web.json_response(dict(await services(request).status()))


async def get_metrics(request: web.Request) -> web.Response:
    """The same for Prometheus."""
    text = metrics.render(await services(request).status())
    return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})
