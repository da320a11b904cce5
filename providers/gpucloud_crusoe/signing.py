"""How Crusoe wants requests to be signed.

https://docs.crusoecloud.com/reference/api; where its words leave something open, as Crusoe's own client does
it: https://github.com/crusoecloud/client-go, auth/v1 (both as of 2026-11-21).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime
from operator import itemgetter
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from gpucloud.errors import AuthError
from gpucloud.model import utcnow

VERSION: Final = "1.0"


def signed(
    access_key: str, secret_key: str, method: str, address: str, now: Callable[[], datetime] = utcnow
) -> dict[str, str]:
    """The headers of a request of now. Raises ``AuthError`` for a secret that cannot be one."""
    url, at = urlsplit(address), now().strftime("%Y-%m-%dT%H:%M:%SZ")
    query = urlencode(sorted(parse_qsl(url.query, keep_blank_values=True), key=itemgetter(0)))
    message = "".join(f"{line}\n" for line in (url.path, query, method, at))
    digest = hmac.digest(_plain(secret_key), message.encode(), hashlib.sha256)
    signature = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return {"X-Crusoe-Timestamp": at, "Authorization": f"Bearer {VERSION}:{access_key}:{signature}"}


def _plain(secret_key: str) -> bytes:
    try:
        padded = secret_key.rstrip("=") + "=" * (-len(secret_key.rstrip("=")) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except ValueError as error:
        raise AuthError(
            "crusoe: the secret key is malformed",
            provider="crusoe",
            why="it is not in base64 as Crusoe tells it",
            hint="gpucloud login crusoe",
        ) from error
