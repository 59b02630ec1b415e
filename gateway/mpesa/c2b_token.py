"""The token in the addresses of messages that no request of ours began: C2B and Pull."""

from __future__ import annotations

import base64
import hashlib
import hmac


def c2b_token(passkey: str, shortcode: str) -> str:
    """32 characters, always the same for one shortcode, to be guessed by nobody without the passkey.

    Safaricom takes the C2B addresses once (daraja.md 6), so the token must outlive the store, the relay and
    every key that can be made anew: the passkey stays as long as the shortcode does. The sandbox's passkey
    is public, and so is its token.
    """
    made = hmac.new(passkey.encode(), b"pos-gateway c2b " + shortcode.encode(), hashlib.sha256)
    # Lower case: nothing on the way may fold it.
    return base64.b32encode(made.digest()[:20]).decode().lower()
