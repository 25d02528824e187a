"""What the portal reads usage and load with: made of the gateway's token, so there is no second secret, and good for nothing that changes."""

from __future__ import annotations

import hashlib
import hmac


def portal_token(token: str) -> str:
    """The portal's own token at usage (`/usage`) and policy (`GET /load`); from it nobody finds the gateway's. Empty where that is."""
    if not token:
        # What everybody can compute must open nothing.
        return ""
    return hmac.new(token.encode(), b"what the portal reads", hashlib.sha256).hexdigest()
