"""Tokens: given, expiring, replaced by a newer one, refused in both shapes (daraja.md 1)."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from aiohttp import web

from hw_fakes.daraja import checks
from hw_fakes.daraja.world import World

KEY, SECRET = "fake-consumer-key", "fake-consumer-secret"


class OAuth:
    """`check` is what every other route asks first."""

    def __init__(self, world: World, key: str = KEY, secret: str = SECRET) -> None:
        self._world = world
        self.key, self.secret = key, secret

    async def generate(self, request: web.Request) -> web.StreamResponse:
        world, knobs = self._world, self._world.knobs
        if fault := knobs.faults.get("oauth"):
            world.note("token", outcome=f"fault {fault}")
            return world.fault(fault, request)
        refused = knobs.oauth_refusals > 0
        if refused:
            knobs.oauth_refusals -= 1
        if refused or not self._known(request.headers.get("Authorization", "")):
            world.note("token", outcome="refused")
            if knobs.oauth_refusal == "empty":
                return web.Response(status=400)
            return world.error(400, "400.008.01", "Invalid Authentication passed")
        if request.query.get("grant_type") != "client_credentials":
            world.note("token", outcome="grant type")
            return world.error(400, "400.008.02", "Invalid grant type passed")
        token = self.issue()
        world.note("token", outcome="given", ends=token[-4:])
        told = {"access_token": token, "expires_in": str(int(knobs.token_life_s))}
        return web.json_response(told)

    def issue(self) -> str:
        """A new token; with the knob tokenReplaces the ones before it are dead."""
        world = self._world
        if world.knobs.token_replaces:
            world.tokens.clear()
        token = world.ids.token()
        world.tokens[token] = world.clock.real() + world.knobs.token_life_s
        return token

    def check(self, request: web.Request, *apis: str) -> web.Response | None:
        """Return None if the token is good for these names of one API. The push refuses in words of its own."""
        world = self._world
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            return world.error(404, "404.001.04", "Invalid Authentication Header")
        if world.tokens.get(token, 0) > world.clock.real():
            return world.lacks_product(*apis)
        world.note("token", outcome="not accepted", ends=token[-4:])
        return self.refusal("stk" if apis[0] == "push" else "other")

    async def body(
        self, request: web.Request, family: str, *apis: str
    ) -> dict[str, Any] | web.StreamResponse:
        """What the routes beside STK begin with: fault, token, a JSON object. Or the answer at once.

        `apis`: narrower names of the family's member, for the knob noProduct."""
        world = self._world
        fault = world.knobs.faults.get(family)
        if fault and not (fault == "lost" and family in ("status", "reversal", "b2c", "balance")):
            world.note(family, outcome=f"fault {fault}")
            return world.fault(fault, request)
        if refusal := self.check(request, family, *apis):
            return refusal
        body = await checks.read_body(request)
        return body or world.error(400, "400.002.05", "Invalid Request Payload")

    def refusal(self, family: str) -> web.Response:
        world = self._world
        if world.knobs.stale_answer == "401":
            return world.error(401, "401.002.01", "Error Occurred - Invalid Access Token")
        if family == "stk" and world.knobs.stale_answer == "family":
            return world.error(404, "404.001.03", "Invalid Access Token")
        return world.error(400, "400.003.01", "Invalid Access Token")

    def _known(self, header: str) -> bool:
        scheme, _, value = header.partition(" ")
        try:
            return scheme == "Basic" and base64.b64decode(value, validate=True).decode() == (
                f"{self.key}:{self.secret}"
            )
        except (binascii.Error, UnicodeDecodeError):
            return False
