"""Which of Crusoe's images a machine starts from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpucloud.model import Offer
from gpucloud.replies import release_of

if TYPE_CHECKING:
    from gpucloud_crusoe.api import Image


def newest_for(offer: Offer, images: Iterable[Image]) -> str | None:
    """The newest Ubuntu there with the drivers for an offer's GPU, as a create names it, if there is one."""
    drivers = drivers_for(offer)
    fit = [image for image in images if "ubuntu" in image.name and drivers in image.name]
    here = [image for image in fit if not image.locations or offer.region in image.locations]
    newest = max(here, key=lambda image: (release_of(image.name), -len(image.name)), default=None)
    if newest is None:
        return None
    return f"{newest.name}:latest" if "latest" in newest.tags else newest.name


def drivers_for(offer: Offer) -> str:
    """What the names of the images have in them that have the drivers for an offer's GPU."""
    if offer.gpu and offer.gpu.chip.startswith("MI"):
        return "rocm"
    return "nvidia-sxm" if offer.gpu and offer.gpu.form_factor == "SXM" else "nvidia-pcie"
