"""The simulated market as a provider."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from gpucloud.errors import NotFound, Unreachable
from gpucloud.http import retry_reads
from gpucloud.model import (
    Availability,
    Block,
    Gpu,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    Reservation,
    ReservationState,
    SideResource,
    Window,
    utcnow,
)
from gpucloud.provider import (
    Evidence,
    Fuse,
    Kind,
    LaunchSpec,
    Provider,
    ProviderSettings,
    Reach,
    StoppedBilling,
    Traits,
)
from gpucloud_local.adapter import making, to_instance, using

if TYPE_CHECKING:
    from gpucloud_sim.api import Api, Bought, Sight

T = TypeVar("T")

HASTE = 20
"""How many times as fast as a real vendor's the simulated faults pass."""


class Sim(Provider):
    """A market that does what its script says."""

    name = "sim"
    evidence = Evidence.LIVE
    as_of = date(2026, 11, 21)
    traits = Traits(
        kind=Kind.PROCESS,
        markets=frozenset({Market.ON_DEMAND, Market.SPOT, Market.QUEUED, Market.RESERVED}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.PROVIDER,
        billing_grain_s=1,
        billing_minimum_s=0,
        billed_while_stopped=StoppedBilling.STORAGE,
        name_length=64,
        idempotent_launch=False,
        listing_lag_s=3,
        interruption_notice_s=2,
        notice_probe='test -e "$HOME/.interruption-notice"',
    )

    @classmethod
    def configured(cls, settings: ProviderSettings) -> bool:
        """When somebody asks for it by name, by config or by a script."""
        return bool(settings.script or settings.table)

    @cached_property
    def _api(self) -> Api:
        from gpucloud_sim.api import Api
        from gpucloud_sim.script import parse

        text = self.settings.script or str(self.settings.table.get("script", ""))
        return Api(self.settings.state_dir, parse(text) if text else None)

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """The price list; all of it can be had, except when the script says otherwise at launch."""
        for line in self._read(self._api.prices):
            yield Offer(
                provider=self.name,
                instance_type=line.instance_type,
                market=line.market,
                usd_per_hour=line.usd_per_hour,
                amount=line.usd_per_hour,
                as_of=utcnow(),
                source="simulation",
                confidence="simulated",
                gpu=Gpu.parse(line.gpu) if line.gpu else None,
                gpu_count=line.gpu_count,
                region=line.region,
                availability=Availability.AVAILABLE,
                vcpus=line.vcpus,
                memory_gib=Decimal(line.memory_gib),
                disk_gib=Decimal(100),
            )

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; never retried, like every launch."""
        from gpucloud_local.api import Spec

        asked = Spec(
            token=spec.token,
            cluster=spec.cluster,
            rank=spec.rank,
            owner=spec.owner,
            created_at=utcnow(),
            instance_type=offer.instance_type,
            market=offer.market,
            usd_per_hour=str(offer.usd_per_hour),
            region=offer.region,
            expires_at=spec.expires_at,
            reservation=spec.reservation,
            wait_s=spec.wait.total_seconds() if spec.wait is not None else 0,
        )
        with making(self.name):
            return self._instance(self._api.create(asked, spec.public_key))

    def get(self, ref: InstanceRef) -> Instance:
        """Look one up."""
        return self._instance(self._read(lambda: self._api.get(ref.id)))

    def instances(self) -> Iterable[Instance]:
        """List them, as late as the script says."""
        from gpucloud_sim.api import ListingDown

        try:
            return [self._instance(sight) for sight in self._read(self._api.machines)]
        except ListingDown:
            raise Unreachable("sim: the listing fails", provider=self.name, vendor_code="500") from None

    def terminate(self, ref: InstanceRef) -> None:
        """End one."""
        with suppress(NotFound), using(self.name):
            self._api.delete(ref.id)

    def stop(self, ref: InstanceRef) -> None:
        """Stop one; it keeps its disk."""
        with using(self.name):
            self._api.stop(ref.id)

    def start(self, ref: InstanceRef) -> None:
        """Start one again, at another address."""
        with using(self.name):
            self._api.start(ref.id)

    def expire(self, ref: InstanceRef, at: datetime) -> None:
        """Move the moment at which one ends by itself."""
        with using(self.name):
            self._api.expire(ref.id, at)

    def side_resources(self) -> Iterable[SideResource]:
        """List the disks and addresses, as late as the script says."""
        return [
            SideResource(
                provider=self.name,
                kind=resource.kind,
                ref=InstanceRef(resource.id, resource.region),
                token=resource.token,
                cluster=resource.cluster,
                owner=resource.owner,
                usd_per_hour=resource.usd_per_hour,
            )
            for resource in self._read(self._api.resources)
        ]

    def remove(self, resource: SideResource) -> None:
        """Delete one that no instance uses."""
        with using(self.name):
            self._api.remove(resource.ref.id)

    def blocks(self, wanted: Requirements, window: Window) -> Iterable[Block]:
        """Everything with GPUs can be reserved, paid for when it is bought."""
        from gpucloud_sim.market import blocks

        lines = self._read(self._api.prices)
        for ref, line, start, end, usd in blocks(lines, window):
            yield Block(
                provider=self.name,
                ref=ref,
                instance_type=line.instance_type,
                nodes=window.nodes,
                region=line.region,
                zone=line.region,
                starts_at=start,
                ends_at=end,
                usd=usd,
                usd_upfront=usd,
                gpu=Gpu.parse(line.gpu),
                gpu_count=line.gpu_count,
                amount=usd,
            )

    def reserve(self, block: Block, spec: LaunchSpec) -> Reservation:
        """Buy one; never retried, like every launch."""
        from gpucloud_sim.api import Bought

        bought = Bought(
            token=spec.token,
            name=spec.cluster,
            owner=spec.owner,
            instance_type=block.instance_type,
            nodes=block.nodes,
            region=block.region,
            starts_at=block.starts_at,
            ends_at=block.ends_at,
        )
        with making(self.name):
            self._api.reserve(bought)
        return self._reservation(bought, 0)

    def reservations(self) -> Iterable[Reservation]:
        """List what was bought."""
        from gpucloud_sim.api import ListingDown

        try:
            return [self._reservation(*each) for each in self._read(self._api.reservations)]
        except ListingDown:
            raise Unreachable("sim: the listing fails", provider=self.name, vendor_code="500") from None

    def _reservation(self, bought: Bought, taken: int) -> Reservation:
        now = utcnow()
        state = ReservationState.ACTIVE if bought.starts_at <= now else ReservationState.SCHEDULED
        if bought.given_up or bought.ends_at <= now:
            state = ReservationState.FAILED if bought.given_up else ReservationState.ENDED
        return Reservation(
            provider=self.name,
            ref=InstanceRef(bought.token, bought.region),
            state=state,
            instance_type=bought.instance_type,
            nodes=bought.nodes,
            zone=bought.region,
            starts_at=bought.starts_at,
            ends_at=bought.ends_at,
            free=bought.nodes - taken,
            token=bought.token,
            name=bought.name,
            owner=bought.owner,
        )

    def host_keys(self, ref: InstanceRef) -> tuple[str, ...]:
        """The key that the instance's server made."""
        with suppress(NotFound):
            status = self._read(lambda: self._api.get(ref.id)).machine.status
            return (status.host_key,) if status else ()
        return ()

    def _instance(self, sight: Sight) -> Instance:
        instance = to_instance(self.name, sight.machine)
        ending = sight.ending and instance.alive
        state = InstanceState.TERMINATING if ending else instance.state
        return replace(instance, state=state, usd_per_hour=sight.usd_per_hour)

    def _read(self, request: Callable[[], T]) -> T:
        with using(self.name):
            return retry_reads(
                request,
                sleep=lambda seconds: time.sleep(seconds / HASTE),
                clock=lambda: time.monotonic() * HASTE,
            )
