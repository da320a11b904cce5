"""A bare loop: a thread and a paramiko client for each host."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko

hosts, key_file, user = sys.argv[1:]
key = paramiko.Ed25519Key.from_private_key_file(key_file)


def run(place: str) -> int:
    """The status of the command on one host."""
    host, port = place.split()
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.MissingHostKeyPolicy())
        client.connect(host, int(port), user, pkey=key, allow_agent=False, look_for_keys=False)
        _, output, _ = client.exec_command("true")
        output.read()
        return output.channel.recv_exit_status()


places = Path(hosts).read_text().splitlines()
with ThreadPoolExecutor(len(places)) as pool:
    sys.exit(max(pool.map(run, places)))
