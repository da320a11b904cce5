"""Small real adapters for tests: what they answer is what they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Final

from gpucloud.errors import NotFound
from gpucloud.model import Instance, InstanceRef, Market, Offer, Requirements
from gpucloud.provider import (
    Fuse,
    Kind,
    LaunchSpec,
    Provider,
    ProviderSettings,
    Reach,
    StoppedBilling,
    Traits,
)

WHEN: Final = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def an_offer(**changes: Any) -> Offer:
    """An offer of which only what matters to a test is said."""
    plain = Offer(
        provider="acme",
        instance_type="big",
        market=Market.ON_DEMAND,
        usd_per_hour=Decimal(1),
        as_of=WHEN,
        source="price list",
        region="us-east",
    )
    return replace(plain, **changes)


class Stated(Provider):
    """Answers with what it is told to, or does what it is told to instead."""

    name: ClassVar[str] = "stated"
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset(Market),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=1,
        billing_minimum_s=0,
        billed_while_stopped=StoppedBilling.UNSUPPORTED,
        name_length=64,
        idempotent_launch=True,
        listing_lag_s=0,
    )

    def __init__(
        self,
        settings: ProviderSettings,
        offers: Callable[[], Iterable[Offer]] = tuple,
        instances: Callable[[], Iterable[Instance]] = tuple,
    ) -> None:
        super().__init__(settings)
        self._offers = offers
        self._instances = instances

    @classmethod
    def configured(cls, settings: ProviderSettings) -> bool:
        """Always."""
        return True

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """What was given."""
        return self._offers()

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Never: nothing here is for rent."""
        raise NotImplementedError

    def get(self, ref: InstanceRef) -> Instance:
        """One of what was given."""
        for instance in self._instances():
            if instance.ref == ref:
                return instance
        raise NotFound(f"{self.name}: there is no {ref.id}", provider=self.name)

    def instances(self) -> Iterable[Instance]:
        """What was given."""
        return self._instances()

    def terminate(self, ref: InstanceRef) -> None:
        """Nothing here runs."""


def stated(
    name: str,
    offers: Callable[[], Iterable[Offer]] = tuple,
    instances: Callable[[], Iterable[Instance]] = tuple,
) -> Stated:
    """A provider of that name."""
    adapter: type[Stated] = type(name.capitalize(), (Stated,), {"name": name})
    return adapter(ProviderSettings(name, Path("/nonexistent")), offers, instances)


def failing(error: BaseException) -> Callable[[], Any]:
    """An answer that is an error."""

    def answer() -> Any:
        raise error

    return answer
