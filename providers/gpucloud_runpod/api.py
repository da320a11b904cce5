"""RunPod's words: endpoints and replies of its REST API, second version."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import BaseModel, Field, model_validator
from pydantic.alias_generators import to_camel

from gpucloud.wire import Amount, Count, Moment, Price, Text

GPUS: Final = "v2/catalog/gpus"
PODS: Final = "v2/pods"


class Prices(BaseModel):
    """Dollars an hour for one GPU in each cloud."""

    secure: Price = None
    community: Price = None


class Most(BaseModel):
    """How many GPUs one pod can have in each cloud; 0 where it has none."""

    secure: Count = None
    community: Count = None


class DataCenter(BaseModel):
    """A place, such as ``EU-RO-1``, and how much is left there."""

    id: str = Field(min_length=1)
    availability: str


class Cuda(BaseModel):
    """A version of CUDA that machines have, and whether one of those is free."""

    version: str = Field(pattern=r"^[0-9]{1,2}\.[0-9]{1,2}$")
    available: bool


class GpuType(BaseModel, alias_generator=to_camel):
    """One type of GPU, and what is left of it in the cloud and the number that were asked for.

    ``memory`` is GB of one. ``data_centers`` are missing where none has any left.
    """

    id: str = Field(min_length=1)
    name: Text = None
    memory: Amount = None
    secure: bool = False
    community: bool = False
    price: Prices
    max_count: Most = Most()
    availability: Text = None
    data_centers: list[DataCenter] = []
    cuda_versions: list[Cuda] = []


class GpuTypes(BaseModel):
    """The list of types, whose rows are read one by one."""

    gpus: list[Any]


class Gpus(BaseModel):
    """How many of which type a pod has."""

    id: str
    count: Count = 1


class Endpoint(BaseModel):
    """Where SSH answers."""

    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    username: Text = None


class Ssh(BaseModel):
    """``direct`` is there once the pod runs with a public port; the proxy, beside it, carries no files."""

    direct: Endpoint | None = None


class Port(BaseModel):
    """A port of a running pod, and what it is outside."""

    private: int
    public: int | None = Field(default=None, ge=1, le=65535)
    type: str = ""
    ip: Text = None


class Runtime(BaseModel):
    """What a running pod tells."""

    ports: list[Port] | None = None


class Pod(BaseModel, alias_generator=to_camel):
    """One pod; ``cost`` is dollars an hour, 0 while it is stopped. One without GPUs has no ``gpu``."""

    id: str = Field(min_length=1)
    status: str
    env: dict[str, Any] = {}
    gpu: Gpus | None = None
    cloud: Text = None
    cost: Price = None
    ssh: Ssh | None = None
    runtime: Runtime | None = None
    created_at: Moment = None


class Pagination(BaseModel, alias_generator=to_camel):
    """Whether there is more, and what to ask for it with."""

    has_next_page: bool
    next_cursor: Text = None

    @model_validator(mode="after")
    def _more_can_be_asked_for(self) -> Self:
        if self.has_next_page and self.next_cursor is None:
            raise ValueError("there is a next page that nobody can ask for")
        return self


class Pods(BaseModel):
    """A page of pods. A listing without ``pagination`` is whole."""

    pods: list[Pod]
    pagination: Pagination | None = None

    @property
    def next_cursor(self) -> str | None:
        """What the next page is asked for with; ``None`` on the last."""
        return self.pagination.next_cursor if self.pagination and self.pagination.has_next_page else None
