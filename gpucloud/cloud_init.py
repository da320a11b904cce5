"""What a new machine does first, in the words of cloud-init, which the images of most clouds have.

Every key here is of https://cloudinit.readthedocs.io/en/latest/reference/modules.html (as of 2026-11-21). The
text is JSON, which is YAML too, so nothing in it has to be quoted by hand.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from gpucloud.model import utcnow
from gpucloud.provider import LaunchSpec

ON_HOST: Final = "/root/.gpucloud /home/*/.gpucloud"
"""Where the on-host program is once somebody has logged in; it then sees to the lease."""


def user_data(spec: LaunchSpec, *, powers_off: bool = True) -> str:
    """The user data of a machine: whom it lets in, by which host key it is known, and when it ends.

    The login user is the usual one of the image. Without a first login until the end of the lease the machine
    ``powers_off``, which is of use only where that ends its bill.
    """
    config: dict[str, Any] = {"ssh_authorized_keys": [spec.public_key]}
    if spec.host_key:
        keys = {"ed25519_private": spec.host_key.private, "ed25519_public": spec.host_key.public}
        config |= {"ssh_deletekeys": True, "ssh_keys": keys}
    if powers_off and spec.expires_at:
        left_s = math.ceil((spec.expires_at - utcnow()).total_seconds())
        config["runcmd"] = [["sh", "-c", _power_off_after(max(left_s, 1))]]
    return f"#cloud-config\n{json.dumps(config)}\n"


def _power_off_after(seconds: int) -> str:
    # What is started in the background here goes on when cloud-init is done.
    unless = f"ls -d {ON_HOST} 2>/dev/null | grep -q . || poweroff"
    return f"(sleep {seconds}; {unless}) >/dev/null 2>&1 </dev/null &"
