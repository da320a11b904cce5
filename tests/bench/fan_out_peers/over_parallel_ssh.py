"""The parallel-ssh library with its fast client."""

import sys
from pathlib import Path

from pssh.clients import ParallelSSHClient  # type: ignore[import-not-found,unused-ignore]
from pssh.config import HostConfig  # type: ignore[import-not-found,unused-ignore]

hosts, key_file, user = sys.argv[1:]
places = [place.split() for place in Path(hosts).read_text().splitlines()]
client = ParallelSSHClient(
    [host for host, _ in places],
    host_config=[HostConfig(port=int(port), user=user, private_key=key_file) for _, port in places],
    pool_size=len(places),
)
outputs = client.run_command("true")
client.join(outputs)
sys.exit(max(output.exit_code for output in outputs))
