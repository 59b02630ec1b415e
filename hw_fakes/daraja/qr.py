"""Dynamic QR: a real PNG of a code that a phone can read. What stands in it is the fake's own."""

from __future__ import annotations

import base64
import io

import segno
from aiohttp import web

from hw_fakes.daraja import checks
from hw_fakes.daraja.checks import text
from hw_fakes.daraja.oauth import OAuth
from hw_fakes.daraja.world import World

KINDS = ("BG", "PB", "WA", "SM", "SB")


class Qr:
    def __init__(self, world: World, oauth: OAuth) -> None:
        self._world = world
        self._oauth = oauth

    async def generate(self, request: web.Request) -> web.StreamResponse:
        world = self._world
        body = await self._oauth.body(request, "qr")
        if not isinstance(body, dict):
            return body
        for name in ("MerchantName", "RefNo", "CPI"):
            if not text(body, name):
                return world.invalid(name)
        if text(body, "TrxCode") not in KINDS:
            return world.invalid("TrxCode")
        if checks.amount(text(body, "Amount")) is None:
            return world.invalid("Amount")
        size = text(body, "Size") or "300"
        if not size.isdecimal() or not 50 <= int(size) <= 2000:
            return world.invalid("Size")
        told = "|".join(text(body, name) for name in ("TrxCode", "CPI", "Amount", "RefNo"))
        symbol = segno.make(told, error="m", micro=False)
        png = io.BytesIO()
        symbol.save(png, kind="png", scale=max(1, int(size) // symbol.symbol_size()[0]))
        world.note("qr", outcome="made", says=told)
        return web.json_response(
            {
                "ResponseCode": world.ids.conversation(world.clock.now()),
                "RequestID": world.ids.request(),
                "ResponseDescription": "QR Code Successfully Generated.",
                "QRCode": base64.b64encode(png.getvalue()).decode(),
            }
        )
