"""Which of Hyperstack's images a machine starts from."""

from __future__ import annotations

import re

from gpucloud.errors import Rejected
from gpucloud.http import HttpClient
from gpucloud.replies import numbers_of, understood
from gpucloud_hyperstack.api import IMAGES, PAGE_SIZE, Images


def newest_in(provider: str, http: HttpClient, region: str) -> str:
    """The newest of the vendor's Ubuntu images with CUDA, in a region.

    Raises ``Rejected`` when it names none.
    """
    params = {"region": region, "per_page": PAGE_SIZE}
    told = understood(provider, Images.model_validate, http.get(IMAGES, params=params))
    fit = [
        image.name
        for group in told.images
        for image in group.images
        if image.is_public is not False
        and re.search("ubuntu.*cuda", image.name, re.IGNORECASE)
        and not (image.flavor_restrictions and image.flavor_restrictions.has_flavor_restrictions)
    ]
    if not fit:
        raise Rejected(
            f"{provider} names no Ubuntu image with CUDA for {region}",
            provider=provider,
            why="its list of images has none",
            hint="name one with --image",
        )
    return max(fit, key=numbers_of)
