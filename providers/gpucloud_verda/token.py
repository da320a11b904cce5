"""The token that Verda sells an account's id and secret for: kept in memory alone, and replaced in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from gpucloud import redact
from gpucloud.http import HttpClient
from gpucloud.replies import understood

MARGIN_S: Final = 60
"""So long before its end a token is not used any more."""


class Tokens:
    """Puts a token that is good for a while into ``headers``, which a client sends with each request.

    ``secrets`` tells the account's id and secret; it is asked only when there is need of a token.
    """

    def __init__(self, provider: str, secrets: Callable[[], tuple[str, str]]) -> None:
        self.headers: dict[str, str] = {}
        self._provider = provider
        self._secrets = secrets
        self._ends = float("-inf")
        self._lock = threading.Lock()

    def renew(self, http: HttpClient) -> None:
        """Get another one unless there is a good one. Raises what a read over the network raises."""
        from gpucloud_verda.api import TOKEN, Token

        with self._lock:
            began = time.monotonic()
            if began < self._ends:
                return
            id, secret = self._secrets()
            asked = {"grant_type": "client_credentials", "client_id": id, "client_secret": secret}
            told = understood(self._provider, Token.model_validate, http.query(TOKEN, json=asked))
            redact.add(told.access_token)
            self.headers["Authorization"] = f"Bearer {told.access_token}"
            self._ends = began + told.expires_in - MARGIN_S
