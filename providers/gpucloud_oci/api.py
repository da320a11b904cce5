"""Oracle's words: where its shapes and prices are, what it says of one, and which GPUs its names mean."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

SHAPES_URL: Final = "https://www.oracle.com/a/ocom/docs/cloudestimator2/data"
SHAPES_PATH: Final = "shapes.json"
PRICES_URL: Final = "https://apexapps.oracle.com/pls/apex/cetools/api/v1"
PRICES_PATH: Final = "products/"
PRICES_ASKED: Final = {"currencyCode": "USD"}

ACTIVE: Final = "ACTIVE"
OCPU: Final = "ocpu"
BY_GPU: Final = "GPU Per Hour"
BY_OCPU: Final = "OCPU Per Hour"
AS_YOU_GO: Final = "PAY_AS_YOU_GO"

GPUS: Final = {
    "GPU2": "NVIDIA P100 16GB",
    "GPU3": "NVIDIA V100 16GB",
    "GPU4": "NVIDIA A100 40GB",
    "B4": "NVIDIA A100 40GB",
    "GM4": "NVIDIA A100 80GB",
    "A100-v2": "NVIDIA A100 80GB",
    "H100": "NVIDIA H100 SXM 80GB",
    "RTXPRO": "NVIDIA RTX PRO 6000",
}
"""The GPU of shapes whose names do not tell it, or not all that is known of it, as of November 2026.

From https://docs.oracle.com/en-us/iaas/Content/Compute/References/computeshapes.htm; that H100 is SXM from
https://blogs.oracle.com/cloud-infrastructure/scaling-ai-oci-nvidia-breakthroughs-mlperf-v41.
"""


class _Words(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)


class Kind(_Words):
    """One of a few words."""

    value: str


class Part(_Words):
    """What a shape is billed by, and how much of it there is."""

    part_number: str = Field(min_length=1)
    qty: Decimal | None = Field(default=None, ge=0, lt=10**9)
    type: Kind


class Shape(_Words):
    """A kind of machine. Memory is in GB; that of the GPUs may be the sum or that of one."""

    name: str = Field(min_length=1)
    status: str
    hidden: bool | None = None
    allow_preemptible: bool | None = None
    bundle_memory_qty: Decimal | None = Field(default=None, ge=0, lt=10**9)
    gpu_qty: int | None = Field(default=None, ge=0, le=10_000)
    gpu_memory_qty: Decimal | None = Field(default=None, ge=0, lt=10**9)
    products: list[Part]


class Price(_Words):
    """Dollars, or another currency, for one of the unit; ``model`` is how it is paid."""

    model: str
    value: Decimal | None = Field(default=None, lt=10**9)


class Localization(_Words):
    """The prices of a product in one currency."""

    currency_code: str
    prices: list[Price]


class Product(_Words):
    """One line of the price list; ``metric_name`` is the unit, such as ``GPU Per Hour``."""

    part_number: str = Field(min_length=1)
    metric_name: str
    currency_code_localizations: list[Localization]


class Listing(_Words):
    """Shapes or products, each to be read for itself, and perhaps the address of the next page."""

    items: list[Any]
    links: list[Any] | None = None

    @property
    def next(self) -> str | None:
        """The whole address of the next page."""
        found = (link["href"] for link in self.links or () if _is_next(link))
        return next(found, None)


def _is_next(link: Any) -> bool:
    return isinstance(link, dict) and link.get("rel") == "next" and isinstance(link.get("href"), str)
