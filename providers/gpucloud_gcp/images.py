"""Which image a machine starts from, found by Google's own list at the moment of the launch.

Google and Canonical keep Ubuntu with NVIDIA's driver in ``ubuntu-os-accelerator-images``, in families such
as ``ubuntu-accelerator-2404-amd64-with-nvidia-580``, and plain Ubuntu in ``ubuntu-os-cloud``, in families
such as ``ubuntu-2404-lts-amd64``: https://docs.cloud.google.com/compute/docs/images/os-details. The families
for TPUs are beside those for NVIDIA, and each name has all the TPUs that it is for, such as
``ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e``: https://docs.cloud.google.com/tpu/docs/tpu-os-images (as of
2026-11-21). All have cloud-init.
"""

from __future__ import annotations

import re
from typing import Final

from gpucloud.errors import Rejected
from gpucloud_gcp import api
from gpucloud_gcp.account import Account
from gpucloud_gcp.errors import PROVIDER

WITH_DRIVER: Final = ("ubuntu-os-accelerator-images", "ubuntu-accelerator-[0-9]+-{}-with-nvidia-[0-9]+")
PLAIN: Final = ("ubuntu-os-cloud", "ubuntu-[0-9]+-lts-{}")
WITH_TPU: Final = ("ubuntu-os-accelerator-images", "ubuntu-accel-[0-9]+-{}-tpu-(.*-)?{}(-.*)?")
TPUS: Final = {"ct5p": "v5p", "ct6e": "v6e", "tpu7x": "tpu7x"}
"""How the names of families call the TPUs of a series."""

NAMES: Final = {"ARM64": "arm64"}
"""How the names of families call an architecture; any other is amd64."""


def chosen(account: Account, asked: str | None, kind: api.MachineType, *, driver: bool) -> str:
    """The address of an image for a machine: the one asked for, else the newest with, or without, a driver.

    What is asked for is an address, or the name of an image of the project, or ``family/NAME`` of it. Raises
    ``Rejected`` when there is none, and what a read raises.
    """
    if asked:
        whole = asked.startswith(("projects/", "https://"))
        return asked if whole else f"projects/{account.who.project}/global/images/{asked}"
    tpu = TPUS.get(kind.name.partition("-")[0])
    owner, pattern = WITH_TPU if tpu else WITH_DRIVER if driver else PLAIN
    family = pattern.format(NAMES.get(kind.architecture, "amd64"), tpu)
    rows = account.listed(api.IMAGES, f"family eq '{family}'", owner=owner)
    images = [account.read(api.Image, row) for row in rows]
    good = [image for image in images if image.status == "READY" and image.deprecated.state == "ACTIVE"]
    if not good:
        raise Rejected(
            f"{PROVIDER} has no image for this machine",
            provider=PROVIDER,
            why=f"the project {owner} has none of the family {family}",
            hint="give one with --image",
        )
    return max(good, key=_order).self_link


def _order(image: api.Image) -> tuple[list[int], str]:
    """The latest driver first, then the latest Ubuntu, then the latest day."""
    numbers = re.findall(r"\b[0-9]+\b", image.family)
    return [int(number) for number in reversed(numbers)], image.creation_timestamp
