"""A bare loop: an asyncssh connection for each host."""

import asyncio
import sys
from pathlib import Path

import asyncssh

hosts, key_file, user = sys.argv[1:]
key = asyncssh.read_private_key(key_file)


async def run(place: str) -> int:
    """The status of the command on one host."""
    host, port = place.split()
    async with asyncssh.connect(
        host, int(port), username=user, client_keys=[key], known_hosts=None, config=None, agent_path=None
    ) as connection:
        done = await connection.run("true")
        return done.exit_status or 0


async def everywhere() -> int:
    """The worst status."""
    return max(await asyncio.gather(*map(run, Path(hosts).read_text().splitlines())))


sys.exit(asyncio.run(everywhere()))
