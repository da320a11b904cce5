"""Which image a machine starts from, by what Azure's own gallery has at the moment.

Microsoft's images for HPC have driver, CUDA or ROCm, and InfiniBand for each accelerator, beside cloud-init:
https://github.com/Azure/azhpc-images (November 2026). Their kinds are named by the version of Ubuntu, then by
what is special: ``2404``, ``2404-rocm``, ``2404-v100``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import Unsupported
from gpucloud.replies import Rows

if TYPE_CHECKING:
    from gpucloud.http import HttpClient
    from gpucloud.model import Gpu
    from gpucloud_azure.account import Account
    from gpucloud_azure.api import Sku

HPC: Final = ("microsoft-dsvm", "ubuntu-hpc")
CANONICAL: Final = "Canonical"
OF_AMD: Final = re.compile("^(MI[0-9]|Radeon)", re.IGNORECASE)
VOLTA: Final = "v100"
"""The open driver, and CUDA since 13, leave out the chips of Volta."""


def reference(text: str) -> dict[str, str] | None:
    """``--image`` in Azure's words: an id, or ``publisher:offer:sku:version``; ``None`` for anything else."""
    parts = text.split(":")
    if len(parts) == 4 and all(parts):
        return dict(zip(("publisher", "offer", "sku", "version"), parts, strict=True))
    if not text.startswith("/"):
        return None
    # Images that others share have addresses of their own, which are no ids of a subscription.
    of_others = {
        "/communitygalleries/": "communityGalleryImageId",
        "/sharedgalleries/": "sharedGalleryImageId",
    }
    kind = next((key for start, key in of_others.items() if text.lower().startswith(start)), "id")
    return {kind: text}


class Gallery:
    """The images that one account may start from."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def current(self, http: HttpClient, region: str, sku: Sku, gpu: Gpu | None) -> dict[str, str]:
        """The latest image for a size. Raises ``Unsupported`` when there is none."""
        arm = sku.has("CpuArchitectureType").lower() == "arm64"
        if gpu is None:
            publisher, offer = CANONICAL, self._ubuntu(http, region)
            kind = f"server{'-arm64' if arm else '' if _second(sku) else '-gen1'}"
        else:
            publisher, offer = HPC
            kind = f"([0-9]{{4}}){_special(gpu, arm)}"
        found = [name for name in self._kinds(http, region, publisher, offer) if re.fullmatch(kind, name)]
        if not found:
            raise Unsupported(
                f"{self._account.provider} has no image for {sku.name} in {region}",
                provider=self._account.provider,
                why=f"none of {publisher}:{offer} is like {kind}",
                hint="name one: --image PUBLISHER:OFFER:SKU:VERSION",
            )
        return {"publisher": publisher, "offer": offer, "sku": max(found), "version": "latest"}

    def _ubuntu(self, http: HttpClient, region: str) -> str:
        """The latest Ubuntu with long support."""
        offers = self._names(http, region, f"publishers/{CANONICAL}/artifacttypes/vmimage/offers")
        return max((name for name in offers if re.fullmatch("ubuntu-[0-9]{2}_04-lts", name)), default="")

    def _kinds(self, http: HttpClient, region: str, publisher: str, offer: str) -> Iterable[str]:
        if not offer:
            return []
        path = f"publishers/{publisher}/artifacttypes/vmimage/offers/{offer}/skus"
        return self._names(http, region, path)

    def _names(self, http: HttpClient, region: str, path: str) -> list[str]:
        from gpucloud_azure.api import COMPUTE, ImageName

        where = self._account.path(f"providers/Microsoft.Compute/locations/{region}/{path}")
        listed: Any = http.get(where, params={"api-version": COMPUTE})
        rows = Rows(self._account.provider)
        return [
            each.name
            for each in rows.read(ImageName.model_validate, listed if isinstance(listed, list) else [])
        ]


def _special(gpu: Gpu, arm: bool) -> str:
    """What the name of the kind ends with."""
    if arm:
        return "-arm64"
    if OF_AMD.search(gpu.chip):
        return "-rocm"
    return f"-{VOLTA}" if gpu.chip.lower() == VOLTA else ""


def _second(sku: Sku) -> bool:
    """Whether it starts images of the second generation, as nearly all do."""
    told = sku.has("HyperVGenerations")
    return not told or "V2" in told
