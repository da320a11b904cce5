"""Azure's words: where its retail prices are, what it says of one, and what its pages say of the sizes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel, to_pascal

URL: Final = "https://prices.azure.com"
PATH: Final = "api/retail/prices"
VERSION: Final = "2023-01-01-preview"

FILTER: Final = (
    "serviceName eq 'Virtual Machines' and priceType eq 'Consumption' "
    "and armRegionName eq '{region}' and contains(armSkuName, 'Standard_N')"
)
"""Since this version values are compared with their case."""

CONSUMPTION: Final = "Consumption"
HOUR: Final = "1 Hour"

DEFAULT_REGIONS: Final = (
    "eastus",
    "eastus2",
    "southcentralus",
    "westus2",
    "westus3",
    "northeurope",
    "westeurope",
    "swedencentral",
)

REGIONS: Final = {
    region: country
    for country, regions in {
        "AE": "uaecentral uaenorth",
        "AT": "austriaeast",
        "AU": "australiacentral australiacentral2 australiaeast australiasoutheast",
        "BE": "belgiumcentral",
        "BR": "brazilsouth brazilsoutheast",
        "CA": "canadacentral canadaeast",
        "CH": "switzerlandnorth switzerlandwest",
        "CL": "chilecentral",
        "DE": "germanynorth germanywestcentral",
        "DK": "denmarkeast",
        "ES": "spaincentral",
        "FR": "francecentral francesouth",
        "GB": "uksouth ukwest",
        "HK": "eastasia",
        "ID": "indonesiacentral",
        "IE": "northeurope",
        "IL": "israelcentral",
        "IN": "centralindia southindia westindia jioindiacentral jioindiawest",
        "IT": "italynorth",
        "JP": "japaneast japanwest",
        "KR": "koreacentral koreasouth",
        "MX": "mexicocentral",
        "MY": "malaysiawest",
        "NL": "westeurope",
        "NO": "norwayeast norwaywest",
        "NZ": "newzealandnorth",
        "PL": "polandcentral",
        "QA": "qatarcentral",
        "SE": "swedencentral swedensouth",
        "SG": "southeastasia",
        "US": "centralus eastus eastus2 northcentralus southcentralus westcentralus westus westus2 westus3",
        "ZA": "southafricanorth southafricawest",
    }.items()
    for region in regions.split()
}
"""The country of each region: https://learn.microsoft.com/azure/reliability/regions-list, November 2026."""


class Size(NamedTuple):
    """What a size has: ``gpus`` GPUs of ``gpu_memory`` GB each, and ``memory_gib`` beside them."""

    gpu: str
    gpu_memory: int
    gpus: int
    memory_gib: int
    interconnect: str | None = None


_FABRIC: Final = "nvlink, ib"

SIZES: Final = {
    name.casefold(): size
    for name, size in {
        # nca100v4-series
        "Standard_NC24ads_A100_v4": Size("NVIDIA A100 PCIe", 80, 1, 220),
        "Standard_NC48ads_A100_v4": Size("NVIDIA A100 PCIe", 80, 2, 440),
        "Standard_NC96ads_A100_v4": Size("NVIDIA A100 PCIe", 80, 4, 880),
        # ncadsh100v5-series, nccadsh100v5-series
        "Standard_NC40ads_H100_v5": Size("NVIDIA H100 NVL", 94, 1, 320),
        "Standard_NC80adis_H100_v5": Size("NVIDIA H100 NVL", 94, 2, 640),
        "Standard_NCC40ads_H100_v5": Size("NVIDIA H100 NVL", 94, 1, 320),
        # ncast4v3-series
        "Standard_NC4as_T4_v3": Size("NVIDIA T4", 16, 1, 28),
        "Standard_NC8as_T4_v3": Size("NVIDIA T4", 16, 1, 56),
        "Standard_NC16as_T4_v3": Size("NVIDIA T4", 16, 1, 110),
        "Standard_NC64as_T4_v3": Size("NVIDIA T4", 16, 4, 440),
        # ncrtxpro6000bse-v6-series
        "Standard_NC144ds_xl_RTXPRO6000BSE_v6": Size("NVIDIA RTX PRO 6000", 96, 1, 516),
        "Standard_NC144lds_xl_RTXPRO6000BSE_v6": Size("NVIDIA RTX PRO 6000", 96, 1, 264),
        "Standard_NC288ds_xl_RTXPRO6000BSE_v6": Size("NVIDIA RTX PRO 6000", 96, 2, 1032),
        "Standard_NC288lds_xl_RTXPRO6000BSE_v6": Size("NVIDIA RTX PRO 6000", 96, 2, 516),
        # The pages of ND say NVLink between eight NVIDIA GPUs, which is SXM, and of NDv2 NVLink as well.
        # ndv2-series, ndasra100v4-series, ndma100v4-series, ndh100v5-series, nd-h200-v5-series
        "Standard_ND40rs_v2": Size("NVIDIA V100 SXM", 32, 8, 672, _FABRIC),
        "Standard_ND96asr_v4": Size("NVIDIA A100 SXM", 40, 8, 900, _FABRIC),
        "Standard_ND96amsr_A100_v4": Size("NVIDIA A100 SXM", 80, 8, 1900, _FABRIC),
        "Standard_ND96isr_H100_v5": Size("NVIDIA H100 SXM", 80, 8, 1900, _FABRIC),
        "Standard_ND96isr_H200_v5": Size("NVIDIA H200 SXM", 141, 8, 1850, _FABRIC),
        # ndmi300xv5-series: Infinity Fabric
        "Standard_ND96isr_MI300X_v5": Size("AMD MI300X", 192, 8, 1850, "ib"),
        # nd-gb200-v6-series, nd-gb300-v6-series
        "Standard_ND128isr_NDR_GB200_v6": Size("NVIDIA GB200", 192, 4, 900, _FABRIC),
        "Standard_ND128isr_GB300_v6": Size("NVIDIA GB300", 288, 4, 864, _FABRIC),
        "Standard_ND128isrG5_GB300_v6": Size("NVIDIA GB300", 288, 4, 864, _FABRIC),
        # nvadsa10v5-series, nvadsv710-v5-series, ngadsv620-series: only those with whole GPUs
        "Standard_NV36ads_A10_v5": Size("NVIDIA A10", 24, 1, 440),
        "Standard_NV36adms_A10_v5": Size("NVIDIA A10", 24, 1, 880),
        "Standard_NV72ads_A10_v5": Size("NVIDIA A10", 24, 2, 880),
        "Standard_NV24ads_V710_v5": Size("AMD Radeon Pro V710", 24, 1, 128),
        "Standard_NV28adms_V710_v5": Size("AMD Radeon Pro V710", 24, 1, 160),
        "Standard_NG32ads_V620_v1": Size("AMD Radeon PRO V620", 32, 1, 64),
        "Standard_NG32adms_V620_v1": Size("AMD Radeon PRO V620", 32, 1, 176),
    }.items()
}
"""Sizes with whole GPUs, from Microsoft's pages as read on 21 November 2026.

The comments name the pages below https://learn.microsoft.com/azure/virtual-machines/sizes/gpu-accelerated/.
"""


def _aware(time: datetime) -> datetime:
    """A time without a zone is UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


_Time = Annotated[datetime, AfterValidator(_aware)]


class Row(BaseModel):
    """One meter of a size in a region: a price, how it is billed, and since and until when."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    arm_sku_name: str = Field(min_length=1)
    arm_region_name: str
    product_name: str
    meter_name: str
    type: str
    unit_of_measure: str
    currency_code: str
    retail_price: Decimal | None = Field(default=None, lt=10**9)
    effective_start_date: _Time | None = None
    effective_end_date: _Time | None = None
    is_primary_meter_region: bool = False

    @property
    def price(self) -> Decimal:
        """Dollars for the hour; zero where none is told."""
        return self.retail_price or Decimal(0)


class Page(BaseModel):
    """Some rows, each to be read for itself, and the whole address of the next page, if there is one."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_pascal)

    items: list[Any]
    next_page_link: str | None = None
