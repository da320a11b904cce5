"""A page that leads a browser on, once: what a program is started with, all users of a computer can read."""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Final

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")


class Doorway:
    """Leads from ``url``, which may be seen, to a target with a secret in it, for one visitor alone.

    Where the system tells whose a connection is, nobody but us and root is let in.
    """

    def __init__(self, target: str) -> None:
        self._server = _Server(target)
        self.url = f"http://127.0.0.1:{self._server.server_port}/{self._server.name}"
        threading.Thread(target=self._serve, name="doorway", daemon=True).start()

    def _serve(self) -> None:
        with self._server as server:
            while not server.visited:
                server.handle_request()


class _Server(HTTPServer):
    def __init__(self, target: str) -> None:
        self.target = target
        self.name = secrets.token_urlsafe(16)
        self.visited = False
        super().__init__(("127.0.0.1", 0), _Page)


class _Page(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5

    def do_GET(self) -> None:
        if self.path != f"/{self.server.name}" or not _ours(self.client_address[1], self.server.server_port):
            self.send_error(404)
            return
        self.server.visited = True
        self.send_response(302)
        self.send_header("Location", self.server.target)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _ours(client: int, server: int) -> bool:
    """Whether the connection between two local ports comes from us or from root, as far as can be known."""
    ends = (f":{client:04X}", f":{server:04X}")
    for table in _TABLES:
        with suppress(OSError, ValueError, IndexError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[1].endswith(ends[0]) and words[2].endswith(ends[1]):
                    return int(words[7]) in {0, os.getuid()}
    return True
