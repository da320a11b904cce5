"""Twenty provider APIs in one process: each answers ``/NUMBER`` after a while, over TLS.

Arguments: offers in each answer, seconds until it comes, a file with key and certificate. Prints its port.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys

PROVIDERS = 20
CHIPS = ("H100 SXM", "A100 80GB PCIe", "RTX 4090", "L40S", "H200")


def answer(number: int, count: int) -> bytes:
    """Offers in the words of some vendor, some 200 bytes each."""
    chance = random.Random(number)
    rows = [
        {
            "name": f"type-{index}",
            "gpu": chance.choice(CHIPS),
            "gpus": chance.choice([1, 2, 4, 8]),
            "usd": str(chance.randrange(10**5, 10**7) / 10**6),
            "region": f"region-{index % 20}",
            "vcpus": chance.randrange(1, 200),
            "memory": 64,
            "spot": chance.random() < 0.5,
            "description": "x" * 60,
        }
        for index in range(count)
    ]
    return json.dumps(rows).encode()


async def main(count: int, wait_s: float, certificate: str) -> None:
    """Serve until the process is ended."""
    answers = [answer(number, count) for number in range(PROVIDERS)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            while (await reader.readline()).strip():
                pass
            await asyncio.sleep(wait_s)
            body = answers[int(line.split()[1].strip(b"/"))]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))
