"""The signature of a request between a gateway and its relay, made on one side and checked on the other.

The signed text is METHOD, PATH?QUERY, TIME (Unix seconds), NONCE and the body's SHA-256 in hex, one a line.
"""

from __future__ import annotations

import hashlib
import hmac


def signature(
    secret: bytes, method: str, path_query: str, time: str, nonce: str, body: bytes
) -> str:
    """Hex HMAC-SHA256. `path_query` from /v1 on, as it stands on the wire."""
    text = "\n".join((method, path_query, time, nonce, hashlib.sha256(body).hexdigest()))
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
