"""One cloud behind two ports, plain and over TLS.

Arguments: seconds until each reply, a file with key and certificate, which cloud, and what its module wants
to know. Prints the ports once it can answer.
"""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import ssl
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

WORTH_COMPRESSING: Final = 1000
UNKNOWN: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; the names of headers are in lower case."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


def reply(body: bytes, *, compressed: bool) -> bytes:
    """All that is sent back."""
    more = "Content-Encoding: gzip\r\n" if compressed else ""
    content = gzip.compress(body, 1) if compressed else body
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{more}\r\n"
    )
    return head.encode() + content


async def asked_for(reader: asyncio.StreamReader) -> Asked | None:
    """The next request of a connection; ``None`` when it was closed."""
    line = await reader.readline()
    if not line:
        return None
    headers = {}
    while header := (await reader.readline()).strip():
        name, _, value = header.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    target = urlsplit(line.split()[1].decode())
    return Asked(unquote(target.path), dict(parse_qsl(target.query)), headers, body)


async def main(wait_s: float, certificate: str, cloud: Any, words: list[str]) -> None:
    """Serve until the process is ended."""
    plain: dict[Any, bytes] = {}
    smaller: dict[Any, bytes] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that has ended may have left connections as they were.
        with suppress(ConnectionError):
            while asked := await asked_for(reader):
                await asyncio.sleep(wait_s)
                key = cloud.key(asked)
                if key not in plain:
                    sys.stderr.write(f"{cloud.__name__}: nobody has made a reply to {key}\n")
                takes_gzip = "gzip" in asked.headers.get("accept-encoding", "")
                answer = smaller.get(key) if takes_gzip else None
                writer.write(answer or plain.get(key, UNKNOWN))
                await writer.drain()
        writer.close()

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    servers = [
        await asyncio.start_server(serve, "127.0.0.1", 0, ssl=secured, backlog=1000)
        for secured in (None, tls)
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    for key, body in cloud.replies(f"https://127.0.0.1:{ports[1]}", *words).items():
        plain[key] = reply(body, compressed=False)
        if cloud.COMPRESSES and len(body) > WORTH_COMPRESSING:
            smaller[key] = reply(body, compressed=True)
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    module = importlib.import_module(f"tests.bench.clouds.{sys.argv[3]}")
    asyncio.run(main(float(sys.argv[1]), sys.argv[2], module, sys.argv[4:]))
