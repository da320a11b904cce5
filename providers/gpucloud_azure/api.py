"""Azure's words: its retail prices, what its pages say of the sizes, and what Resource Manager tells.

Versions of the interfaces as of November 2026: https://learn.microsoft.com/rest/api/compute/,
https://learn.microsoft.com/rest/api/virtualnetwork/ and https://learn.microsoft.com/rest/api/resources/.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
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


# -- Resource Manager ----------------------------------------------------------------------------------

COMPUTE: Final = "2025-04-01"
DISKS: Final = "2025-01-02"
GRAPH: Final = "2022-10-01"
NETWORK: Final = "2024-07-01"
RESOURCES: Final = "2022-09-01"
SCORES: Final = "2025-06-05"
SKUS: Final = "2021-07-01"
"""The later version of sizes says nothing more that matters here."""

MACHINES: Final = "Microsoft.Compute/virtualMachines"
DISK: Final = "Microsoft.Compute/disks"
PLACEMENT: Final = "Microsoft.Compute/proximityPlacementGroups"
ADDRESS: Final = "Microsoft.Network/publicIPAddresses"
INTERFACE: Final = "Microsoft.Network/networkInterfaces"
SECURITY: Final = "Microsoft.Network/networkSecurityGroups"
NETWORKS: Final = "Microsoft.Network/virtualNetworks"
GROUP: Final = "Microsoft.Resources/resourceGroups"

VERSIONS: Final = {
    MACHINES: COMPUTE,
    DISK: DISKS,
    PLACEMENT: COMPUTE,
    ADDRESS: NETWORK,
    INTERFACE: NETWORK,
    SECURITY: NETWORK,
    NETWORKS: NETWORK,
}
"""By which version each type is read."""

EVICTIONS: Final = """SpotResources
| where type =~ 'microsoft.compute/skuspotevictionrate/location'
| where sku.name in~ ({sizes}) and location in~ ({regions})
| project size = tostring(sku.name), region = location, rate = tostring(properties.evictionRate)"""
"""What share of machines is taken back within an hour, such as "5-10", by what the last week or month saw:
https://learn.microsoft.com/azure/virtual-machines/spot-vms"""


def _listed(value: Any) -> Any:
    """Azure writes null where there is nothing in a list."""
    return [] if value is None else value


def _tagged(value: Any) -> Any:
    return {} if value is None else value


_Tags = Annotated[dict[str, str], BeforeValidator(_tagged)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Listing(_Wire):
    """Some rows, each to be read for itself, and the whole address of the next page, if there is one."""

    value: list[Any]
    next_link: str | None = None


def _by_name(value: Any) -> Any:
    """Rows of name and value, too many to make something of each; the first of a name counts."""
    try:
        return {} if value is None else {each["name"]: each["value"] for each in reversed(value)}
    except (TypeError, KeyError) as error:
        raise ValueError("it is no list of names and values") from error


class Restriction(_Wire):
    """Why a size cannot be used; ``type`` is ``Location`` or ``Zone``."""

    type: str
    reason_code: str = ""


class Sku(_Wire):
    """A size as it is offered in one region."""

    name: str
    family: str = ""
    capabilities: Annotated[dict[str, str], BeforeValidator(_by_name)] = {}
    restrictions: Annotated[list[Restriction], BeforeValidator(_listed)] = []

    def has(self, capability: str) -> str:
        """What it says under a name; empty when it says nothing."""
        return self.capabilities.get(capability, "")

    def number(self, capability: str) -> Decimal | None:
        """The same as a number above zero; ``None`` when it is none."""
        try:
            value = Decimal(self.has(capability))
        except ArithmeticError:
            return None
        return value if value.is_finite() and value > 0 else None

    def can(self, capability: str) -> bool:
        """Whether it says True."""
        return self.has(capability).lower() == "true"

    @property
    def refused(self) -> set[str]:
        """Why it cannot be used anywhere in the region, in Azure's words."""
        return {each.reason_code for each in self.restrictions if each.type == "Location"}


class UsageName(_Wire):
    """What is counted."""

    value: str


class Usage(_Wire):
    """How many vCPUs of a family, or in all, are in use in a region, and how many may be."""

    name: UsageName
    current_value: int
    limit: int


class Status(_Wire):
    """One line of what an instance does, such as ``PowerState/running``."""

    code: str = ""
    message: str = ""


class InstanceView(_Wire):
    """What an instance does."""

    statuses: Annotated[list[Status], BeforeValidator(_listed)] = []


class Hardware(_Wire):
    """Which size it has."""

    vm_size: str | None = None


class Link(_Wire):
    """Another thing, by its name."""

    id: str


class MachineProperties(_Wire):
    """What is asked of a machine, and what became of it."""

    provisioning_state: str = ""
    hardware_profile: Hardware = Hardware()
    priority: str = "Regular"
    time_created: _Time | None = None
    instance_view: InstanceView = InstanceView()
    proximity_placement_group: Link | None = None


class Machine(_Wire):
    """A virtual machine."""

    id: str
    name: str
    location: str
    tags: _Tags = {}
    properties: MachineProperties = MachineProperties()

    @property
    def power(self) -> str:
        """Such as ``running``; empty before it has begun to start."""
        return next((code[11:] for code in self._codes if code.startswith("PowerState/")), "")

    @property
    def failure(self) -> Status | None:
        """Why it could not be made, started or changed; the code is Azure's own word for it."""
        if self.properties.provisioning_state != "Failed":
            return None
        told = (each for each in self.properties.instance_view.statuses if "/failed" in each.code)
        last = next(told, Status())
        return Status(code=last.code.rpartition("/failed")[2].strip("/"), message=last.message)

    @property
    def _codes(self) -> list[str]:
        return [each.code for each in self.properties.instance_view.statuses]


class RuleProperties(_Wire):
    """Where in the order of rules it is."""

    priority: int
    direction: str


class Rule(_Wire):
    """A rule of a security group."""

    name: str
    properties: RuleProperties


class IpProperties(_Wire):
    """Where an interface is in its network, by one kind of address."""

    version: str = Field(default="IPv4", alias="privateIPAddressVersion")
    private_address: str | None = Field(default=None, alias="privateIPAddress")


class IpConfiguration(_Wire):
    """One address of an interface."""

    properties: IpProperties = IpProperties()


class ThingProperties(_Wire):
    """What of other things matters: addresses and rules."""

    ip_address: str | None = None
    ip_configurations: Annotated[list[IpConfiguration], BeforeValidator(_listed)] = []
    security_rules: Annotated[list[Rule], BeforeValidator(_listed)] = []


class Thing(_Wire):
    """Anything else that has a name and tags."""

    id: str
    name: str
    type: str = ""
    location: str = ""
    managed_by: str | None = None
    tags: _Tags = {}
    properties: ThingProperties = ThingProperties()


class ImageName(_Wire):
    """An offer of a publisher, or a kind of it."""

    name: str


class Score(_Wire):
    """How likely spot machines are to be had, in a word, and whether the quota suffices."""

    region: str
    sku: str
    score: str
    is_quota_available: bool | None = None


class Scores(_Wire):
    """What the recommender answers."""

    placement_scores: list[Any]


class EvictionRate(_Wire):
    """How often a size is taken back in a region within an hour: ``0-5`` or ``20+`` per cent."""

    size: str
    region: str
    rate: str


class GraphReply(_Wire):
    """What Resource Graph found; more of it follows under the token."""

    data: list[Any]
    skip_token: str | None = Field(default=None, alias="$skipToken")
