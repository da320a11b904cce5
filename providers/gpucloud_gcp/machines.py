"""The machines with accelerators that there are, zone by zone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import chain
from typing import Any, Final

from gpucloud.catalog.names import named
from gpucloud.model import Gpu, Requirements
from gpucloud.parallel import results, run_all
from gpucloud.replies import Rows
from gpucloud_gcp import api
from gpucloud_gcp.account import Account, Forbidden
from gpucloud_gcp.errors import PROVIDER
from gpucloud_gcp.history import MIB_IN_GIB, gpus_of

log = logging.getLogger(__name__)

MACHINES: Final = (
    "name eq '[ag][0-9].*'",
    "name eq 'n1-standard-(4|8|16)'",
    "name eq 'ct6e-standard-(1|4|8)t|ct5p-hightpu-(1|2|4)t-tpu|tpu7x-standard-4t'",
)
"""The series with GPUs of their own, those to which some are attached here, and machines with TPUs.

Of TPUs these are all that are made as instances; the others in the list, such as those of v5e, are for GKE
and the TPU API: https://docs.cloud.google.com/compute/docs/tpus/tpu-machines (as of 2026-11-21). Some are
there twice, with ``-tpu`` at the end and without; the smaller ones of v5p only with it.
"""

TPUS: Final = ("ct5p-", "ct6e-", "tpu7x-")
"""The series with TPUs."""

ATTACHED: Final = ("nvidia-tesla-t4", "nvidia-tesla-p4", "nvidia-tesla-v100", "nvidia-tesla-p100")
"""What can be attached to N1: https://docs.cloud.google.com/compute/docs/gpus (as of 2026-11-21)."""

NOT_QUEUED: Final = "a4x-"
"""The series with accelerators of its own that no queue gives out.

https://docs.cloud.google.com/compute/docs/instances/about-flex-start-vms (as of 2026-11-21). It leaves out G4
as well, which https://docs.cloud.google.com/compute/docs/release-notes of 2025-12-19 adds.
"""

ATTACHABLE: Final = f"name eq '({'|'.join(ATTACHED)})'"

SSD_GIB: Final = 375
"""Of each disk that a machine brings along: https://docs.cloud.google.com/compute/docs/disks/local-ssd."""

WHOLE_G4: Final = 48
"""vCPUs for each GPU of a G4; one with fewer has only a part of a GPU, of which the list does not tell."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One instance type in one zone. ``type`` is Google's machine type, without what is attached to it.

    ``accelerator`` is Google's name for its GPUs, ``memory_gib`` what it has beside them and ``ssd_gib`` the
    disks that it brings along.
    """

    zone: str
    name: str
    type: str
    accelerator: str
    gpu: Gpu
    gpu_count: int
    vcpus: int | None
    memory_gib: Decimal | None
    ssd_gib: int

    @property
    def region(self) -> str:
        """The region: a zone is a region, a hyphen and a letter."""
        return self.zone.rpartition("-")[0]

    @property
    def tpu(self) -> bool:
        """Whether its accelerators are TPUs."""
        return self.type.startswith(TPUS)

    @property
    def queued(self) -> bool:
        """Whether it can be waited for in Google's queue."""
        return self.name == self.type and not self.type.startswith(NOT_QUEUED)


def parts(instance_type: str) -> tuple[str, str, int]:
    """What ``n1-standard-8+nvidia-tesla-t4`` is: a machine type, the accelerator attached and how many.

    Only one is ever attached here; without any it is ``""`` and 0.
    """
    machine_type, _, accelerator = instance_type.partition("+")
    return machine_type, accelerator, 1 if accelerator else 0


def machines(account: Account, wanted: Requirements, regions: Sequence[str]) -> list[Machine]:
    """Every machine with GPUs in all zones, or in those of ``regions``, that may be wanted.

    Raises what a read raises, and ``BadReply`` when nothing can be understood.
    """
    rows = Rows(PROVIDER)
    reads: dict[str, Callable[[], list[tuple[str, Any]]]] = {
        where: partial(_of_zones, account, where) for where in MACHINES
    }
    reads[ATTACHABLE] = partial(_attachable, account)
    # The pages of one list come one after the other, so several short lists are there sooner.
    told = results(run_all(reads))
    attachable = told.pop(ATTACHABLE)
    listed = (
        (zone, row, attachable)
        for zone, row in chain.from_iterable(told.values())
        if in_one_of(zone, wanted.regions) and (not regions or zone.rpartition("-")[0] in regions)
    )
    found = [one for made in rows.read(_made, listed) for one in made]
    return [one for one in found if _wanted(one, wanted)]


def _of_zones(account: Account, where: str) -> list[tuple[str, Any]]:
    rows = account.some(api.MACHINE_TYPES, where)
    return [(scope.rpartition("/")[2], row) for scope, row in rows]


def _attachable(account: Account) -> list[tuple[str, str]]:
    """Which accelerators may be attached, with the zone of each."""
    rows = account.allowed(lambda: list(account.some(api.ACCELERATOR_TYPES, ATTACHABLE)))
    if isinstance(rows, Forbidden):
        log.warning(
            "%s: no GPUs attached to N1: the permission compute.acceleratorTypes.list is missing (%s)",
            PROVIDER,
            rows.why,
        )
        return []
    return [(scope.rpartition("/")[2], account.read(api.AcceleratorType, row).name) for scope, row in rows]


def _made(listed: tuple[str, object, Sequence[tuple[str, str]]]) -> list[Machine] | None:
    zone, row, attachable = listed
    kind = api.MachineType.model_validate(row)
    memory = kind.memory_mb / MIB_IN_GIB if kind.memory_mb else None
    ssd = kind.bundled_local_ssds.partition_count * SSD_GIB
    if kind.accelerators:
        gpu, count = gpus_of(kind)
        if kind.name.startswith("g4-") and (kind.guest_cpus or 0) < WHOLE_G4 * count:
            return None
        word = kind.accelerators[0].guest_accelerator_type
        own = Machine(zone, kind.name, kind.name, word, gpu, count, kind.guest_cpus, memory, ssd)
        return [own]
    if not kind.name.startswith("n1-"):
        return None
    return [
        Machine(zone, f"{kind.name}+{word}", kind.name, word, named(word), 1, kind.guest_cpus, memory, ssd)
        for where, word in attachable
        if where == zone
    ]


def in_one_of(zone: str, names: Sequence[str]) -> bool:
    """Whether a zone may be meant by one of the names of places, of which all may be part."""
    place = zone.lower()
    return not names or any(place == name.lower() or place.startswith(f"{name.lower()}-") for name in names)


def _wanted(machine: Machine, wanted: Requirements) -> bool:
    types = [name.lower() for name in wanted.instance_types]
    if types and machine.name.lower() not in types:
        return False
    return not wanted.gpus or any(wish.accepts(machine.gpu, machine.gpu_count) for wish in wanted.gpus)
