"""The words of RunPod's GraphQL: what it is asked, and what it says of one type of GPU."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, Field
from pydantic.alias_generators import to_camel

from gpucloud.wire import Amount

URL: Final = "https://api.runpod.io"
PATH: Final = "graphql"

PROBED: Final = (1, 2, 4, 8)
"""For how many GPUs in one pod the stock is asked: a question can only be so long."""


def _probes() -> str:
    each = "{0}{1}: lowestPrice(input: {{gpuCount: {1}{2}}}) {{stockStatus minVcpu minMemory}}"
    clouds = {"any": "", "secure": ", secureCloud: true"}
    return " ".join(each.format(cloud, count, more) for count in PROBED for cloud, more in clouds.items())


_FIELDS: Final = (
    "id displayName memoryInGb secureCloud communityCloud maxGpuCountSecureCloud maxGpuCountCommunityCloud"
    " securePrice communityPrice secureSpotPrice communitySpotPrice"
)

REQUEST: Final = {"query": f"query {{gpuTypes {{{_FIELDS} minPodGpuCount {_probes()}}}}}"}
PLAIN_REQUEST: Final = {"query": f"query {{gpuTypes {{{_FIELDS}}}}}"}
"""The question without stock, for when the whole one is refused."""


Count = Annotated[int | None, Field(ge=0, le=1000)]


class Probe(BaseModel, alias_generator=to_camel):
    """What is left for pods with so many GPUs, and the processors and GB that such a pod has at least."""

    stock_status: str | None = None
    min_vcpu: Amount = None
    min_memory: Amount = None


class Cloud(NamedTuple):
    """One of the two clouds; prices are for one GPU, ``most`` is for one pod."""

    name: str
    price: Decimal | None
    spot: Decimal | None
    most: int


class GpuType(BaseModel, alias_generator=to_camel, extra="allow"):
    """One type of GPU; prices are dollars an hour for one."""

    id: str = Field(min_length=1)
    display_name: str | None = None
    memory_in_gb: Amount = None
    min_pod_gpu_count: Count = None
    secure_cloud: bool | None = None
    secure_price: Amount = None
    secure_spot_price: Amount = None
    max_gpu_count_secure_cloud: Count = None
    community_cloud: bool | None = None
    community_price: Amount = None
    community_spot_price: Amount = None
    max_gpu_count_community_cloud: Count = None

    def clouds(self) -> Iterator[Cloud]:
        """The clouds that have this type. What is not said of how many a pod can have is one."""
        secure, community = self.max_gpu_count_secure_cloud, self.max_gpu_count_community_cloud
        if self.secure_cloud:
            most = 1 if secure is None else secure
            yield Cloud("secure", self.secure_price, self.secure_spot_price, most)
        if self.community_cloud:
            most = 1 if community is None else community
            yield Cloud("community", self.community_price, self.community_spot_price, most)

    def probe(self, cloud: str, count: int) -> Probe | None:
        """What is left in ``any`` or the ``secure`` cloud; ``None`` where that was not asked or not told."""
        told: dict[str, Any] = self.model_extra or {}
        if f"{cloud}{count}" not in told:
            return None
        return Probe.model_validate(told[f"{cloud}{count}"] or {})


class Data(BaseModel, alias_generator=to_camel):
    """The types; each is read for itself, so that one that is malformed does not cost the others."""

    gpu_types: list[Any]


class Fault(BaseModel):
    """Why a question could not be answered."""

    message: str = ""


class Reply(BaseModel):
    """What GraphQL answers with, also when it failed, and then under a status of success."""

    data: Data | None = None
    errors: list[Fault] | None = None


def types(body: object) -> list[Any]:
    """The types in an answer. Raises ``ValueError`` also for a failure under a status of success."""
    reply = Reply.model_validate(body)
    if reply.data is None:
        raise ValueError("; ".join(fault.message for fault in reply.errors or ()) or "there is no data")
    return reply.data.gpu_types
