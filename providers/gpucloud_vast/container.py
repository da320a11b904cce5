"""What a container of Vast.ai does by itself: let our key in when it starts, and end its contract."""

from __future__ import annotations

import math
import shlex
from typing import Final

from gpucloud.cloud_init import ON_HOST
from gpucloud.provider import LaunchSpec

SELF_END: Final = """\
for own in $(tr '\\0' '\\n' </proc/1/environ | grep -E '^CONTAINER_(ID|API_KEY)='); do export "$own"; done
key="Authorization: Bearer $CONTAINER_API_KEY"
at="https://console.vast.ai/api/v0/instances/$CONTAINER_ID/"
{ curl -fsS -X DELETE -H "$key" "$at" || wget -qO- --method=DELETE --header "$key" "$at"; } |
  grep -q '"success": *true'
"""
"""Ends the instance with the key that Vast.ai has put into it, and that is good for this one alone.

Only the first process has it in its environment, and not those of SSH.
(https://docs.vast.ai/guides/instances/docker-environment, 2026-11)
"""


def on_start(spec: LaunchSpec) -> str:
    """The ``onstart`` of a container, POSIX sh, which Vast.ai runs at each start; it takes 4048 characters.

    Logins get no tmux around them, and the spec's key is let in: one that is given to Vast.ai itself comes
    into every instance of the account. Without a first login until the end of the lease it ends itself.
    """
    lines = [
        "touch /root/.no_auto_tmux",
        "mkdir -p -m 700 /root/.ssh",
        f"key={shlex.quote(spec.public_key)}",
        'grep -qxF "$key" /root/.ssh/authorized_keys 2>/dev/null || echo "$key" >>/root/.ssh/authorized_keys',
        "chmod 600 /root/.ssh/authorized_keys",
    ]
    if spec.expires_at:
        over = math.ceil(spec.expires_at.timestamp())
        lines += [
            f"end() {{\n{SELF_END}}}",
            f'(while [ "$(date +%s)" -lt {over} ]; do sleep 60; done',
            f"ls -d {ON_HOST} 2>/dev/null | grep -q . && exit",
            "until end; do sleep 60; done) >/dev/null 2>&1 </dev/null &",
        ]
    return "\n".join(lines) + "\n"
