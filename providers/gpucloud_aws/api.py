"""What Amazon publishes, and what EC2 tells an account, in Amazon's words; and what of it is kept.

A region's price list is hundreds of megabytes and changes every few days, its Spot prices are small and
change every hour. So that new Spot prices do not cost reading the list again, the lines of it that matter
are part of what tells one edition of a region from the next.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Set
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from gpucloud.model import utcnow

log = logging.getLogger(__name__)

_REGIONS = re.compile(r'"regions"\s*:\s*\[\s*')
_BETWEEN = re.compile(r"[\s,]*")

ADDRESSES: Final = {
    "catalog_url": "https://pricing.us-east-1.amazonaws.com",
    "spot_url": "https://website.spot.ec2.aws.a2z.com",
    "advisor_url": "https://spot-bid-advisor.s3.amazonaws.com",
}
"""Where its documents are, by the setting that may say otherwise."""

REGIONS_PATH: Final = "/offers/v1.0/aws/AmazonEC2/current/region_index.json"
LIST_PATH: Final = "/offers/v1.0/aws/AmazonEC2/current/{region}/index.csv"
SPOT_PATH: Final = "/spot.json"
ADVISOR_PATH: Final = "/spot-advisor-data.json"

ON_DEMAND: Final = "OnDemand"
HOURS: Final = "Hrs"


class Document(NamedTuple):
    """A document; ``changed_at`` is when it last changed, if the server says so."""

    text: str
    validator: str | None
    changed_at: datetime | None


class Words(BaseModel):
    """Whatever Amazon adds is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class RegionIndex(Words):
    """Which regions, local zones and wavelength zones have a price list."""

    regions: dict[str, Any] = Field(min_length=1)


class Line(Words):
    """One row of a price list. ``usd`` is for the whole instance and hour, and so are ``gpus`` and memory."""

    sku: str = Field(alias="SKU", min_length=1)
    instance_type: str = Field(alias="Instance Type", min_length=1)
    usd: Decimal = Field(alias="PricePerUnit")
    market: str = Field(alias="MarketOption")
    gpus: str = Field(alias="GPU")
    gpu_memory: str = Field("", alias="GPU Memory")
    vcpus: str = Field("", alias="vCPU")
    memory: str = Field("", alias="Memory")
    storage: str = Field("", alias="Storage")


class _Memory(Words):
    mib: int | None = Field(default=None, alias="SizeInMiB")


class Device(Words):
    """The accelerators of one kind in an instance type. ``memory`` is that of each."""

    count: int = Field(alias="Count", ge=0)
    name: str = Field("", alias="Name")
    maker: str = Field("", alias="Manufacturer")
    memory: _Memory | None = Field(None, alias="MemoryInfo")


class _Gpus(Words):
    devices: tuple[Device, ...] = Field((), alias="Gpus")


class _Neuron(Words):
    devices: tuple[Device, ...] = Field((), alias="NeuronDevices")


class _Inference(Words):
    devices: tuple[Device, ...] = Field((), alias="Accelerators")


class _Vcpus(Words):
    count: int | None = Field(default=None, alias="DefaultVCpus")


class _Storage(Words):
    total_gb: int | None = Field(default=None, alias="TotalSizeInGB")


class _Efa(Words):
    most: int = Field(default=1, alias="MaximumEfaInterfaces")


class _Network(Words):
    performance: str | None = Field(default=None, alias="NetworkPerformance")
    efa: bool = Field(default=False, alias="EfaSupported")
    cards: int = Field(default=1, alias="MaximumNetworkCards")
    efa_info: _Efa = Field(default=_Efa(), alias="EfaInfo")

    @property
    def efa_cards(self) -> range:
        """The indexes of the network cards that have EFA.

        Where one card has none, as in a p6-b300.48xlarge, it is the first. Of other types that have it on
        some of their cards only, EC2 does not tell which these are: for them it is the first alone.
        """
        if not self.efa:
            return range(0)
        without = self.cards - self.efa_info.most
        if without <= 0 or (without == 1 and self.cards > 2):
            return range(max(without, 0), self.cards)
        return range(1)


class _Strategies(Words):
    supported: tuple[str, ...] = Field(default=(), alias="SupportedStrategies")


class _Processor(Words):
    architectures: tuple[str, ...] = Field(default=(), alias="SupportedArchitectures")


class InstanceType(Words):
    """What EC2 itself tells of an instance type: its GPUs, Amazon's own chips, or others for inference."""

    instance_type: str = Field(alias="InstanceType", min_length=1)
    vcpus: _Vcpus = Field(_Vcpus(), alias="VCpuInfo")
    main_memory: _Memory = Field(_Memory(), alias="MemoryInfo")
    storage: _Storage = Field(_Storage(), alias="InstanceStorageInfo")
    network: _Network = Field(_Network(), alias="NetworkInfo")
    groups: _Strategies = Field(_Strategies(), alias="PlacementGroupInfo")
    processor: _Processor = Field(_Processor(), alias="ProcessorInfo")
    usage: tuple[str, ...] = Field((), alias="SupportedUsageClasses")
    gpus: _Gpus | None = Field(None, alias="GpuInfo")
    neuron: _Neuron | None = Field(None, alias="NeuronInfo")
    inference: _Inference | None = Field(None, alias="InferenceAcceleratorInfo")

    @property
    def devices(self) -> tuple[Device, ...]:
        """Its accelerators, as the first of these tells them: Amazon's own chips are told twice."""
        told = self.gpus or self.neuron or self.inference
        return told.devices if told else ()


class PastPrice(Words):
    """What a Spot instance of a type costs in an availability zone from a moment on."""

    zone: str = Field(alias="AvailabilityZone", min_length=1)
    instance_type: str = Field(alias="InstanceType")
    product: str = Field(alias="ProductDescription")
    usd: Decimal = Field(alias="SpotPrice", gt=0)
    since: AwareDatetime = Field(alias="Timestamp")


class Page(Words):
    """One page of a reply in JSON."""

    rows: list[Any] = []
    token: str | None = Field(None, alias="NextToken")


class PageOfProducts(Page):
    """What GetProducts answers: each row is the text of a ``Product``."""

    rows: list[Any] = Field(alias="PriceList")


class PageOfQuotas(Page):
    """What ListServiceQuotas answers."""

    rows: list[dict[str, Any]] = Field(alias="Quotas")


class _Attributes(Words):
    instance_type: str = Field(alias="instanceType", min_length=1)
    region: str = Field(alias="regionCode", min_length=1)


class _Product(Words):
    attributes: _Attributes


class _Dimension(Words):
    unit: str
    prices: dict[str, Decimal] = Field(alias="pricePerUnit")


class _Term(Words):
    dimensions: dict[str, _Dimension] = Field(alias="priceDimensions")


class _Terms(Words):
    on_demand: dict[str, _Term] = Field({}, alias="OnDemand")


class Product(Words):
    """One line of what GetProducts tells: an instance type in a region, and what an hour of it costs."""

    product: _Product
    terms: _Terms

    @property
    def usd(self) -> Decimal | None:
        """The dearest price for an hour in dollars; ``None`` where it is sold in other ways only."""
        told = (
            dimension.prices["USD"]
            for term in self.terms.on_demand.values()
            for dimension in term.dimensions.values()
            if dimension.unit == HOURS and "USD" in dimension.prices
        )
        return max((usd for usd in told if usd.is_finite() and usd > 0), default=None)


class _Tag(Words):
    key: str = Field(alias="Key")
    value: str = Field("", alias="Value")


class _State(Words):
    name: str = Field(alias="Name")


class _Reason(Words):
    code: str = Field(default="", alias="Code")


class _Placement(Words):
    zone: str | None = Field(default=None, alias="AvailabilityZone")
    group: str = Field(default="", alias="GroupName")


class _Ipv6(Words):
    address: str = Field(alias="Ipv6Address")


class _Interface(Words):
    ipv6: tuple[_Ipv6, ...] = Field((), alias="Ipv6Addresses")


class _Group(Words):
    id: str = Field("", alias="GroupId")


class Machine(Words):
    """An instance, as DescribeInstances and RunInstances tell it."""

    id: str = Field(alias="InstanceId", min_length=1)
    instance_type: str | None = Field(None, alias="InstanceType")
    state: _State = Field(alias="State")
    reason: _Reason = Field(_Reason(), alias="StateReason")
    tagged: tuple[_Tag, ...] = Field((), alias="Tags")
    launched_at: AwareDatetime | None = Field(None, alias="LaunchTime")
    public_address: str | None = Field(None, alias="PublicIpAddress")
    private_address: str | None = Field(None, alias="PrivateIpAddress")
    secured_by: tuple[_Group, ...] = Field((), alias="SecurityGroups")
    interfaces: tuple[_Interface, ...] = Field((), alias="NetworkInterfaces")
    placement: _Placement = Field(_Placement(), alias="Placement")
    lifecycle: str | None = Field(None, alias="InstanceLifecycle")

    @property
    def tags(self) -> dict[str, str]:
        """Its tags by their keys."""
        return {tag.key: tag.value for tag in self.tagged}

    @property
    def groups(self) -> list[str]:
        """The ids of its security groups."""
        return [group.id for group in self.secured_by]

    @property
    def address(self) -> str | None:
        """Where the world reaches it: by IPv4 if it can, else by IPv6."""
        ipv6 = (each.address for interface in self.interfaces for each in interface.ipv6)
        return self.public_address or next(ipv6, None)


class Offering(Words):
    """A Capacity Block that is sold, as DescribeCapacityBlockOfferings tells it. ``fee`` is for all of it."""

    id: str = Field(alias="CapacityBlockOfferingId", min_length=1)
    instance_type: str = Field(alias="InstanceType", min_length=1)
    nodes: int = Field(alias="InstanceCount", gt=0)
    zone: str = Field(alias="AvailabilityZone", min_length=1)
    starts_at: AwareDatetime = Field(alias="StartDate")
    ends_at: AwareDatetime = Field(alias="EndDate")
    fee: Decimal = Field(alias="UpfrontFee", ge=0, allow_inf_nan=False)
    currency: str = Field(alias="CurrencyCode", pattern="^[A-Z]{3}$")
    tenancy: str = Field("default", alias="Tenancy")
    segments: tuple[Any, ...] = Field((), alias="CapacityBlockOfferingSegmentSet")


class CapacityReservation(Words):
    """A Capacity Block that was bought, as DescribeCapacityReservations tells it."""

    id: str = Field(alias="CapacityReservationId", min_length=1)
    state: str = Field(alias="State")
    instance_type: str = Field(alias="InstanceType", min_length=1)
    nodes: int = Field(alias="TotalInstanceCount")
    zone: str = Field(alias="AvailabilityZone")
    free: int | None = Field(default=None, alias="AvailableInstanceCount")
    starts_at: AwareDatetime | None = Field(None, alias="StartDate")
    ends_at: AwareDatetime | None = Field(None, alias="EndDate")
    tagged: tuple[_Tag, ...] = Field((), alias="Tags")

    @property
    def tags(self) -> dict[str, str]:
        """Its tags by their keys."""
        return {tag.key: tag.value for tag in self.tagged}


class _Ebs(Words):
    size_gib: int | None = Field(default=None, alias="VolumeSize")


class _Mapping(Words):
    device: str | None = Field(None, alias="DeviceName")
    ebs: _Ebs = Field(_Ebs(), alias="Ebs")


class Image(Words):
    """An AMI, as DescribeImages tells it."""

    id: str = Field(alias="ImageId", min_length=1)
    name: str = Field("", alias="Name")
    root_device: str = Field(alias="RootDeviceName", min_length=1)
    mappings: tuple[_Mapping, ...] = Field((), alias="BlockDeviceMappings")

    @property
    def size_gib(self) -> int:
        """How large its root volume is at least; 0 when it is not told."""
        sizes = (each.ebs.size_gib for each in self.mappings if each.device == self.root_device)
        return next(sizes, None) or 0


class PriceList(Words):
    """What matters of a region's price list."""

    validator: str | None
    published_at: datetime | None
    lines: tuple[Line, ...]


class SpotPrices(Words):
    """Dollars per hour by instance type, for one region; ``as_of`` is when Amazon last changed them."""

    validator: str | None = None
    as_of: datetime | None = None
    usd: dict[str, Decimal] = {}


class Bands(Words):
    """How often instances of a type were interrupted in one region, as the advisor writes it: ``<5%``."""

    validator: str | None = None
    labels: dict[str, str] = {}


class Edition(Words):
    """All that the offers of one region are made of; as a text it is the validator of the part."""

    prices: PriceList
    spot: SpotPrices
    bands: Bands

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Read it again; ``None`` when there is none or another version of this program wrote it."""
        try:
            return None if text is None else cls.model_validate_json(text)
        except ValidationError as error:
            log.debug("what is remembered of the last edition cannot be used: %s", error)
            return None


class _Column(Words):
    name: str
    prices: dict[str, Any]


class _Size(Words):
    size: str
    columns: tuple[_Column, ...] = Field(alias="valueColumns")


class _UsageGroup(Words):
    sizes: tuple[Any, ...]


class _SpotRegion(Words):
    groups: tuple[_UsageGroup, ...] = Field(alias="instanceTypes")


class _Range(Words):
    index: int
    label: str


class _Advisor(Words):
    ranges: tuple[_Range, ...]
    regions: dict[str, Any] = Field(alias="spot_advisor")


class _AdvisorRegion(Words):
    linux: dict[str, Any] = Field({}, alias="Linux")


def read_spot(region: str, types: Set[str], document: Document) -> SpotPrices:
    """The Linux prices of ``types`` in a region. Raises ``ValueError`` for another kind of document."""
    ours = (one for one in _regions(document.text) if isinstance(one, dict) and one.get("region") == region)
    found = [_SpotRegion.model_validate(one) for one in ours]
    sizes = (size for one in found for group in one.groups for size in group.sizes)
    usd = dict(_priced(sizes, types))
    return SpotPrices(validator=document.validator, as_of=document.changed_at or utcnow(), usd=usd)


def read_bands(region: str, types: Set[str], document: Document) -> Bands:
    """The advisor's words on ``types`` in a region. Raises ``ValueError`` for another kind of document."""
    advisor = _Advisor.model_validate_json(document.text)
    linux = _AdvisorRegion.model_validate(advisor.regions.get(region, {})).linux
    words = {one.index: one.label for one in advisor.ranges}
    labels = dict(_labelled({name: linux[name] for name in types & linux.keys()}, words))
    return Bands(validator=document.validator, labels=labels)


def _regions(text: str) -> Iterator[Any]:
    """The regions of a Spot feed, one after the other: all at once they would take forty megabytes.

    The feed has been a call of JavaScript, and may be again.
    """
    start = _REGIONS.search(text)
    if not start:
        raise ValueError("there are no regions in it")
    decoder, at = json.JSONDecoder(), start.end()
    while not text.startswith("]", at):
        region, at = decoder.raw_decode(text, at)
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr] # It matches nothing, too.
        yield region


def _priced(sizes: Iterator[Any], types: Set[str]) -> Iterator[tuple[str, Decimal]]:
    for entry in sizes:
        try:
            size = _Size.model_validate(entry)
            texts = [column.prices.get("USD") for column in size.columns if column.name == "linux"]
            usd = Decimal(str(texts[0]))
        except (ValidationError, InvalidOperation, IndexError) as error:
            # N/A* is a price, too: it is not sold there.
            log.debug("no Spot price in %.200r: %s", entry, error)
            continue
        if size.size in types and usd.is_finite() and usd > 0:
            yield size.size, usd


def _labelled(entries: dict[str, Any], words: dict[int, str]) -> Iterator[tuple[str, str]]:
    for name, entry in entries.items():
        try:
            yield name, words[entry["r"]]
        except (LookupError, TypeError) as error:
            log.debug("no band of %s in %.200r: %r", name, entry, error)
