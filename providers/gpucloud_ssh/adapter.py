"""The user's own machines as a provider."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from gpucloud.errors import ConfigError, NoCapacity, NotFound, Rejected
from gpucloud.model import (
    Availability,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
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

if TYPE_CHECKING:
    from gpucloud_ssh.api import Claim, Claims, Host


class Ssh(Provider):
    """Machines of the user's own, taken and given back."""

    name = "ssh"
    evidence = Evidence.LIVE
    as_of = date(2026, 11, 21)
    traits = Traits(
        kind=Kind.MACHINE,
        markets=frozenset({Market.ON_DEMAND}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=None,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.UNSUPPORTED,
        name_length=64,
        idempotent_launch=True,
        listing_lag_s=0,
        outlives_instance=True,
    )

    @classmethod
    def configured(cls, settings: ProviderSettings) -> bool:
        """When the user's file names at least one machine."""
        return bool(settings.table.get("hosts"))

    @cached_property
    def _hosts(self) -> Mapping[str, Host]:
        from pydantic import ValidationError

        from gpucloud_ssh.api import Host, Settings

        try:
            return Settings.model_validate(self.settings.table).hosts
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(map(str, ("providers", self.name, *problem["loc"])))
            why, close = problem["msg"].removeprefix("Value error, "), []
            if problem["type"] == "extra_forbidden":
                known = Host.model_fields if len(problem["loc"]) > 1 else Settings.model_fields
                why = f"there is no such setting; known are {', '.join(known)}"
                close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
            raise ConfigError(
                f"ssh: the setting {place} is wrong",
                why=why,
                hint=f"did you mean {close[0]!r}?" if close else "gpucloud config show --origin",
            ) from error

    @contextmanager
    def _books(self, *, taking: bool = False) -> Iterator[Claims]:
        """The notes of who has taken what."""
        from gpucloud_ssh.api import Claims

        try:
            yield Claims(self.settings.state_dir)
        except OSError as error:
            raise Rejected(
                "ssh: the notes of who has taken which machine cannot be used",
                provider=self.name,
                why=str(error),
                hint="repair or remove the file that the reason names",
                outcome_unknown=taking,
            ) from error

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """One offer for each machine."""
        with self._books() as claims:
            taken = [claim.host for claim in claims.all()]
        for name, host in self._hosts.items():
            free = taken.count(name) < host.slots
            yield Offer(
                provider=self.name,
                instance_type=name,
                market=Market.ON_DEMAND,
                usd_per_hour=host.usd_per_hour,
                amount=host.usd_per_hour,
                as_of=utcnow(),
                source="your configuration",
                confidence="configured",
                gpu=host.gpu.gpu if host.gpu else None,
                gpu_count=host.gpu.count if host.gpu else 0,
                region=host.region,
                availability=Availability.AVAILABLE if free else Availability.UNAVAILABLE,
                vcpus=host.vcpus,
                memory_gib=host.memory_gib,
                disk_gib=host.disk_gib,
            )

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Take a free slot of the machine."""
        from gpucloud_ssh.api import Claim

        name = offer.instance_type
        host = self._hosts.get(name)
        if host is None:
            raise NoCapacity(f"ssh: {name} is no longer configured", provider=self.name, lasting=False)
        wanted = Claim(
            host=name,
            token=spec.token,
            cluster=spec.cluster,
            rank=spec.rank,
            owner=spec.owner,
            created_at=utcnow(),
            usd_per_hour=offer.usd_per_hour,
        )
        with self._books(taking=True) as claims:
            claim = claims.take(wanted, host.slots)
        if claim is None:
            raise NoCapacity(
                f"ssh: {name} is taken", provider=self.name, hint="gpucloud ps, to see by what", lasting=False
            )
        return self._instance(claim)

    def get(self, ref: InstanceRef) -> Instance:
        """Look up who has taken it."""
        claim = self._claim(ref)
        if claim is None or claim.host not in self._hosts:
            raise NotFound(f"ssh: no machine is taken by {ref.id}", provider=self.name)
        return self._instance(claim)

    def instances(self) -> Iterable[Instance]:
        """Every slot that is taken, of the machines that are still configured."""
        with self._books() as claims:
            taken = list(claims.all())
        return [self._instance(claim) for claim in taken if claim.host in self._hosts]

    def terminate(self, ref: InstanceRef) -> None:
        """Give the slot back."""
        with self._books() as claims:
            claims.release(ref.id)

    def host_keys(self, ref: InstanceRef) -> tuple[str, ...]:
        """The key that the user has configured."""
        claim = self._claim(ref)
        host = self._hosts.get(claim.host) if claim else None
        return (host.host_key,) if host and host.host_key else ()

    def _claim(self, ref: InstanceRef) -> Claim | None:
        with self._books() as claims:
            return claims.by_token(ref.id)

    def _instance(self, claim: Claim) -> Instance:
        host = self._hosts[claim.host]
        return Instance(
            provider=self.name,
            ref=InstanceRef(claim.token, host.region),
            state=InstanceState.RUNNING,
            token=claim.token,
            cluster=claim.cluster,
            rank=claim.rank,
            owner=claim.owner,
            ssh=host.ssh,
            created_at=claim.created_at,
            instance_type=claim.host,
            market=Market.ON_DEMAND,
            usd_per_hour=claim.usd_per_hour,
            slots=host.slots,
        )
