"""The token in the addresses of messages that no request of ours began: C2B and Pull."""

from __future__ import annotations

import hashlib
import hmac


def c2b_token(passkey: str, shortcode: str) -> str:
    """40 hex digits, always the same for one shortcode, to be guessed by nobody without the passkey.

    Safaricom takes the C2B addresses once (daraja.md 6), so the token must outlive the store, the relay and
    every key that can be made anew: the passkey stays as long as the shortcode does. Hex, since Safaricom
    refuses addresses with words like "exe" and "cmd" in them, which longer alphabets spell by chance. The
    sandbox's passkey is public, and so is its token.
    """
    text = b"pos-gateway c2b " + shortcode.encode()
    return hmac.new(passkey.encode(), text, hashlib.sha256).hexdigest()[:40]
