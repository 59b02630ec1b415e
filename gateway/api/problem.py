"""The only place where an error becomes HTTP: application/problem+json (RFC 9457)."""

from __future__ import annotations

import json
import logging
import secrets
from typing import Any

from aiohttp import web

from gateway import errors
from gateway.errors import GatewayError

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"


def render(error: GatewayError, instance: str) -> tuple[int, bytes]:
    """(HTTP status, body). Deterministic, because a refusal is stored and replayed as bytes."""
    body = json.dumps(error.members(instance), separators=(",", ":"), ensure_ascii=False)
    return error.status, body.encode("utf-8", "replace")


def response(error: GatewayError, instance: str) -> web.Response:
    status, body = render(error, instance)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if status == errors.UnknownTill.status:
        headers["WWW-Authenticate"] = 'Bearer realm="pos-gateway"'
    return web.Response(status=status, body=body, content_type=CONTENT_TYPE, headers=headers)


@web.middleware
async def problems(request: web.Request, handler: Any) -> web.StreamResponse:
    """Every failure of a handler as a problem; the daemon goes on and no trace leaves it."""
    try:
        return await handler(request)  # type: ignore[no-any-return]
    except GatewayError as error:
        return response(error, request.path)
    except web.HTTPRedirection:
        raise
    except web.HTTPException as error:
        return response(_from_http(error, request), request.path)
    except Exception:  # the last guard: a programmer's error must not show its inside to a till
        reference = secrets.token_hex(4)
        log.exception("request.failed reference=%s path=%s", reference, request.path)
        hidden = GatewayError(
            f"Something went wrong inside the gateway. Note {reference} and call the technician.",
            extra={"reference": reference},
        )
        return response(hidden, request.path)


def _from_http(error: web.HTTPException, request: web.Request) -> GatewayError:
    if isinstance(error, web.HTTPNotFound):
        return errors.NotFound(f"There is nothing at {request.path}.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return errors.MethodNotAllowed(f"{request.path} takes {allowed}.")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return errors.BodyTooLarge("The request is too large for one sale. Split the sale.")
    translated = errors.RequestError(error.reason or "The request cannot be taken.")
    translated.status = error.status
    return translated
