"""The contract of ``gpucloud.provider`` as tests: subclass it, give a ``provider`` fixture, and run pytest.

A deviation is named in ``deviations`` with its reason and becomes a strict expected failure: on the day the
adapter learns it, the suite fails until the claim is taken back.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Final, TypeVar

import pytest
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from gpucloud import calls
from gpucloud.errors import NotFound, ProviderError
from gpucloud.model import (
    CANNOT_BE_HAD,
    Availability,
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
    Admits,
    Evidence,
    HasSideResources,
    KeepsShared,
    LaunchSpec,
    MovesExpiry,
    Provider,
    Reach,
    ReportsHostKeys,
    Reserves,
    StoppedBilling,
    Stops,
    Traits,
)
from gpucloud.remote.keys import new_key_pair
from gpucloud.store import new_id

T = TypeVar("T")

RENTING_TESTS: Final = (
    "test_offers_are_complete",
    "test_offers_are_live",
    "test_launch_returns_an_instance_with_our_token",
    "test_a_launched_instance_is_listed",
    "test_get_agrees_with_the_listing",
    "test_an_instance_comes_up_with_an_address",
    "test_get_of_a_missing_instance_is_not_found",
    "test_terminate_takes_it_off_the_listing",
    "test_terminate_of_a_missing_instance_succeeds",
    "test_terminate_twice_succeeds",
    "test_two_launches_make_two_instances",
    "test_one_token_makes_one_instance",
    "test_instances_carry_a_token",
)
"""The tests that ask every provider for something."""

REHEARSAL_TESTS: Final = (
    "test_a_rehearsed_launch_makes_nothing",
    "test_a_rehearsed_end_leaves_the_instance",
)
"""The tests of dry runs; skipped for an adapter that does not tell of all that it sends."""

ABILITY_TESTS: Final = (
    "test_a_stopped_instance_is_listed_as_stopped_and_stays_so",
    "test_stop_twice_succeeds",
    "test_a_started_instance_comes_up_as_the_one_it_was",
    "test_start_of_a_running_instance_succeeds",
    "test_a_stopped_instance_can_be_terminated",
    "test_stop_and_start_of_a_missing_instance_are_not_found",
    "test_the_last_expiry_counts",
    "test_expire_of_a_missing_instance_is_not_found",
    "test_what_launch_made_beside_an_instance_is_listed",
    "test_terminate_leaves_nothing_beside_the_instance",
    "test_remove_twice_succeeds",
    "test_remove_of_a_missing_resource_succeeds",
    "test_a_network_is_admitted_to_an_instance_again_and_again",
    "test_admit_to_a_missing_instance_is_not_found",
    "test_what_is_shared_stays_for_the_next_launch_and_can_be_removed",
    "test_blocks_tell_when_for_how_long_and_for_how_much",
    "test_what_was_reserved_is_listed_with_its_token",
    *REHEARSAL_TESTS,
)
"""The tests of what only some providers can do; skipped for an adapter without the ability."""

DEVIATIONS: Final = (AssertionError, ProviderError, pytest.fail.Exception)
"""How a test may fail that is named as a deviation; all else is a bug, and stays a failure."""

WITHOUT_ADDRESS: Final = {Reach.EXEC, Reach.NONE}
"""How instances are reached that need no address."""

LOOKS: Final = 5
"""In how many listings one after the other a state must be the same to count as lasting."""


class ProviderConformance:
    """What every adapter must do."""

    deviations: ClassVar[Mapping[str, str]] = {}
    """Names of tests that this adapter does not pass, with the reason."""

    deadline_s: ClassVar[float] = 30
    """How long the provider may take for what it does not do at once."""

    soonest_expiry: ClassVar[timedelta] = timedelta(0)
    """How far ahead of now the provider wants an expiry to be at least."""

    @pytest.fixture
    def provider(self) -> Provider:
        """The adapter under test, ready to rent."""
        pytest.fail("give the suite a provider fixture")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, reason in cls.deviations.items():
            test = getattr(cls, name, None)
            if test is None or not name.startswith("test_"):
                raise TypeError(f"{cls.__name__}.deviations names {name!r}, which is no test of the suite")
            setattr(cls, name, _deviating(test, reason))

    @pytest.fixture
    def rent(self, provider: Provider) -> Iterator[Callable[[LaunchSpec], Instance]]:
        """Launches the cheapest offer that can be had; what was launched is ended afterwards."""
        launched: list[Instance] = []

        def launch(spec: LaunchSpec) -> Instance:
            launched.append(provider.launch(self.cheapest(provider), spec))
            return launched[-1]

        yield launch
        for instance in launched:
            provider.terminate(instance.ref)
        tokens = {instance.token for instance in launched}
        self.eventually(lambda: not any(self.listed(provider, token) for token in tokens))

    @pytest.fixture
    def rented(self, provider: Provider, rent: Callable[[LaunchSpec], Instance]) -> Instance:
        """An instance, ended afterwards."""
        return rent(self.spec(provider))

    @pytest.fixture
    def stopping(self, provider: Provider) -> Stops:
        """The adapter, if it can stop an instance."""
        if not isinstance(provider, Stops):
            pytest.skip(f"{provider.name} cannot stop an instance")
        return provider

    @pytest.fixture
    def expiring(self, provider: Provider) -> MovesExpiry:
        """The adapter, if it can move an expiry."""
        if not isinstance(provider, MovesExpiry):
            pytest.skip(f"{provider.name} cannot be told when to end an instance")
        return provider

    @pytest.fixture
    def admitting(self, provider: Provider) -> Admits:
        """The adapter, if it opens SSH to chosen networks only."""
        if not isinstance(provider, Admits):
            pytest.skip(f"{provider.name} lets everybody reach SSH")
        return provider

    @pytest.fixture
    def sharing(self, provider: Provider) -> KeepsShared:
        """The adapter, if its launches share something."""
        if not isinstance(provider, KeepsShared):
            pytest.skip(f"{provider.name} keeps nothing that launches share")
        return provider

    @pytest.fixture
    def telling(self, provider: Provider) -> Provider:
        """The adapter, if it tells of all that it sends."""
        if not provider.rehearsable:
            pytest.skip(f"{provider.name} does not tell of all that it sends")
        return provider

    @pytest.fixture
    def rehearsed(self, telling: Provider) -> Iterator[list[calls.Call]]:
        """The requests of a rehearsal, which begins now and lasts as long as the test."""
        told: list[calls.Call] = []
        calls.listen(told.append, rehearse=True)
        yield told
        calls.listen(None)

    @pytest.fixture
    def reserving(self, provider: Provider) -> Reserves:
        """The adapter, if it sells capacity for a time to come."""
        if not isinstance(provider, Reserves):
            pytest.skip(f"{provider.name} sells no reservations")
        return provider

    def window(self) -> Window:
        """When conformance would like to reserve; vendors write times without fractions of a second."""
        now = utcnow().replace(microsecond=0)
        return Window(timedelta(days=1), now + timedelta(hours=1), now + timedelta(days=14))

    @pytest.fixture
    def keeping(self, provider: Provider) -> HasSideResources:
        """The adapter, if it lists what bills beside an instance."""
        if not isinstance(provider, HasSideResources):
            pytest.skip(f"{provider.name} lists nothing that bills beside an instance")
        return provider

    def cheapest(self, provider: Provider) -> Offer:
        """The cheapest offer that can be had at this moment, surely if there is such a one, and no queue."""
        offers = [
            offer
            for offer in provider.offers(Requirements(markets=()))
            if offer.availability not in CANNOT_BE_HAD and offer.market is not Market.QUEUED
        ]
        assert offers, "there is no offer that can be had"
        return min(offers, key=lambda o: (o.availability is not Availability.AVAILABLE, o.usd_per_hour, o.id))

    def spec(self, provider: Provider) -> LaunchSpec:
        """What to launch, with a fresh token."""
        return LaunchSpec(
            token=new_id("gc-", 20),
            cluster="conformance",
            rank=0,
            owner="conformance",
            public_key=new_key_pair().public,
            host_key=new_key_pair() if provider.traits.plants_host_key else None,
        )

    def listed(self, provider: Provider, token: str | None) -> Instance | None:
        """The living instance with that token in a listing of this moment."""
        return next((i for i in provider.instances() if i.token == token and i.alive), None)

    def up(self, provider: Provider, ref: InstanceRef) -> Instance:
        """The instance once it runs, and has an address where it is reached by one."""
        addressed = provider.traits.reach not in WITHOUT_ADDRESS

        def look() -> Instance | None:
            instance = provider.get(ref)
            running = instance.state is InstanceState.RUNNING
            return instance if running and (instance.ssh or not addressed) else None

        found = self.eventually(look)
        assert found is not None
        return found

    def stopped(self, provider: Provider, instance: Instance) -> bool:
        """Whether a listing of this moment shows it as stopped."""
        found = self.listed(provider, instance.token)
        return found is not None and found.state is InstanceState.STOPPED

    def beside(self, keeping: HasSideResources, token: str | None) -> list[SideResource]:
        """What a listing of this moment shows beside the instance with that token."""
        return [resource for resource in keeping.side_resources() if resource.token == token]

    def eventually(self, question: Callable[[], T]) -> T:
        """The first answer that is true. Fails when there is none within the deadline."""
        waiting = Retrying(
            retry=retry_if_result(lambda answer: not answer),
            stop=stop_after_delay(self.deadline_s),
            wait=wait_fixed(0.05),
        )
        try:
            return waiting(question)
        except RetryError:
            pytest.fail(f"not within {self.deadline_s} s")

    # -- the class ---------------------------------------------------------------------------------

    def test_name_is_one_word(self, provider: Provider) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9]*", provider.name)
        assert type(provider).__module__.split(".")[0] == f"gpucloud_{provider.name}"

    def test_facts_are_dated(self, provider: Provider) -> None:
        assert provider.as_of is not None
        assert date(2026, 1, 1) <= provider.as_of <= utcnow().date()
        assert isinstance(provider.evidence, Evidence)

    def test_traits_are_facts(self, provider: Provider) -> None:
        traits = provider.traits
        assert isinstance(traits, Traits)
        assert traits.markets
        assert traits.name_length >= 20, "the token must fit somewhere"
        assert traits.listing_lag_s >= 0

    def test_configured_needs_no_network(self, provider: Provider) -> None:
        bare = replace(provider.settings, table={}, environ={}, script="")
        assert isinstance(type(provider).configured(bare), bool)
        type(provider)(bare)

    def test_what_a_stopped_instance_bills_is_told_by_who_can_stop(self, provider: Provider) -> None:
        told = provider.traits.billed_while_stopped
        if isinstance(provider, Stops):
            assert told is not StoppedBilling.UNSUPPORTED
        else:
            # What bills in full while it is stopped need not be stoppable.
            assert told in {StoppedBilling.UNSUPPORTED, StoppedBilling.FULL}

    # -- offers ------------------------------------------------------------------------------------

    def test_offers_are_complete(self, provider: Provider) -> None:
        offers = list(provider.offers(Requirements(markets=())))
        assert offers
        assert len({offer.id for offer in offers}) == len(offers)
        for offer in offers:
            assert offer.provider == provider.name
            assert offer.instance_type
            assert offer.source
            assert offer.market in provider.traits.markets
            assert isinstance(offer.usd_per_hour, Decimal)
            assert offer.usd_per_hour >= 0
            assert offer.amount is None or isinstance(offer.amount, Decimal)
            assert re.fullmatch(r"[A-Z]{3}", offer.currency)
            assert bool(offer.gpu_count) == (offer.gpu is not None)
            assert isinstance(offer.availability, Availability)
            assert offer.vcpus is None or offer.vcpus > 0
            assert offer.memory_gib is None or offer.memory_gib > 0

    def test_offers_are_live(self, provider: Provider) -> None:
        before = utcnow()
        for offer in provider.offers(Requirements(markets=())):
            assert offer.as_of.tzinfo is not None
            assert before - timedelta(minutes=1) <= offer.as_of <= utcnow() + timedelta(minutes=1)

    # -- launch, get, list -------------------------------------------------------------------------

    def test_launch_returns_an_instance_with_our_token(
        self, provider: Provider, rent: Callable[[LaunchSpec], Instance]
    ) -> None:
        spec = self.spec(provider)
        instance = rent(spec)
        assert instance.token == spec.token
        assert instance.provider == provider.name
        assert instance.ref.id
        assert instance.state in {InstanceState.PENDING, InstanceState.RUNNING}

    def test_a_launched_instance_is_listed(self, provider: Provider, rented: Instance) -> None:
        found = self.eventually(lambda: self.listed(provider, rented.token))
        assert found is not None
        assert found.ref == rented.ref
        assert (found.cluster, found.rank, found.owner) == ("conformance", 0, "conformance")

    def test_get_agrees_with_the_listing(self, provider: Provider, rented: Instance) -> None:
        found = self.eventually(lambda: self.listed(provider, rented.token))
        assert found is not None
        got = provider.get(rented.ref)
        assert (got.ref, got.token, got.cluster) == (found.ref, found.token, found.cluster)

    def test_an_instance_comes_up_with_an_address(self, provider: Provider, rented: Instance) -> None:
        up = self.up(provider, rented.ref)
        if up.ssh is not None:
            assert up.ssh.host
            assert 0 < up.ssh.port < 65536
        if isinstance(provider, ReportsHostKeys):
            assert all(re.match(r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+", key) for key in provider.host_keys(up.ref))

    def test_get_of_a_missing_instance_is_not_found(self, provider: Provider) -> None:
        with pytest.raises(NotFound):
            provider.get(InstanceRef(new_id("gc-", 20)))

    def test_two_launches_make_two_instances(
        self, provider: Provider, rent: Callable[[LaunchSpec], Instance]
    ) -> None:
        one, other = rent(self.spec(provider)), rent(self.spec(provider))
        assert one.ref != other.ref
        assert self.eventually(lambda: self.listed(provider, one.token))
        assert self.eventually(lambda: self.listed(provider, other.token))

    def test_one_token_makes_one_instance(
        self, provider: Provider, rent: Callable[[LaunchSpec], Instance]
    ) -> None:
        if not provider.traits.idempotent_launch:
            pytest.skip("launch is not idempotent here; the core settles by listing")
        spec = self.spec(provider)
        first, second = rent(spec), rent(spec)
        assert first.ref == second.ref
        assert self.eventually(lambda: self.listed(provider, spec.token))
        assert [i.token for i in provider.instances()].count(spec.token) == 1

    def test_instances_carry_a_token(self, provider: Provider, rented: Instance) -> None:
        assert self.eventually(lambda: self.listed(provider, rented.token))
        for instance in provider.instances():
            assert instance.token
            assert instance.owner
            assert instance.market in {None, *Market}
            assert instance.usd_per_hour is None or isinstance(instance.usd_per_hour, Decimal)

    # -- terminate ---------------------------------------------------------------------------------

    def test_terminate_takes_it_off_the_listing(self, provider: Provider, rented: Instance) -> None:
        assert self.eventually(lambda: self.listed(provider, rented.token))
        provider.terminate(rented.ref)
        assert self.eventually(lambda: self.listed(provider, rented.token) is None)

    def test_terminate_of_a_missing_instance_succeeds(self, provider: Provider) -> None:
        ref = InstanceRef(new_id("gc-", 20))
        provider.terminate(ref)
        assert all(instance.ref != ref for instance in provider.instances())

    def test_terminate_twice_succeeds(self, provider: Provider, rented: Instance) -> None:
        provider.terminate(rented.ref)
        provider.terminate(rented.ref)
        assert self.eventually(lambda: self.listed(provider, rented.token) is None)

    # -- stop and start ----------------------------------------------------------------------------

    def test_a_stopped_instance_is_listed_as_stopped_and_stays_so(
        self, stopping: Stops, provider: Provider, rented: Instance
    ) -> None:
        self.up(provider, rented.ref)
        stopping.stop(rented.ref)
        assert self.eventually(lambda: self.stopped(provider, rented))
        assert all(self.stopped(provider, rented) for _ in range(LOOKS))
        assert provider.get(rented.ref).state is InstanceState.STOPPED

    def test_stop_twice_succeeds(self, stopping: Stops, provider: Provider, rented: Instance) -> None:
        self.up(provider, rented.ref)
        stopping.stop(rented.ref)
        stopping.stop(rented.ref)
        assert self.eventually(lambda: self.stopped(provider, rented))
        stopping.stop(rented.ref)
        assert self.stopped(provider, rented)

    def test_a_started_instance_comes_up_as_the_one_it_was(
        self, stopping: Stops, provider: Provider, rented: Instance
    ) -> None:
        self.up(provider, rented.ref)
        stopping.stop(rented.ref)
        assert self.eventually(lambda: self.stopped(provider, rented))
        stopping.start(rented.ref)
        again = self.up(provider, rented.ref)
        assert (again.ref, again.token) == (rented.ref, rented.token)
        assert [i.token for i in provider.instances()].count(rented.token) == 1

    def test_start_of_a_running_instance_succeeds(
        self, stopping: Stops, provider: Provider, rented: Instance
    ) -> None:
        self.up(provider, rented.ref)
        stopping.start(rented.ref)
        self.up(provider, rented.ref)

    def test_a_stopped_instance_can_be_terminated(
        self, stopping: Stops, provider: Provider, rented: Instance
    ) -> None:
        self.up(provider, rented.ref)
        stopping.stop(rented.ref)
        assert self.eventually(lambda: self.stopped(provider, rented))
        provider.terminate(rented.ref)
        assert self.eventually(lambda: self.listed(provider, rented.token) is None)

    def test_stop_and_start_of_a_missing_instance_are_not_found(self, stopping: Stops) -> None:
        ref = InstanceRef(new_id("gc-", 20))
        with pytest.raises(NotFound):
            stopping.stop(ref)
        with pytest.raises(NotFound):
            stopping.start(ref)

    # -- expiry ------------------------------------------------------------------------------------

    def test_the_last_expiry_counts(
        self, expiring: MovesExpiry, provider: Provider, rented: Instance
    ) -> None:
        assert self.eventually(lambda: self.listed(provider, rented.token))
        expiring.expire(rented.ref, utcnow() + timedelta(hours=1))
        assert all(self.listed(provider, rented.token) for _ in range(LOOKS))
        expiring.expire(rented.ref, utcnow() + self.soonest_expiry)
        assert self.eventually(lambda: self.listed(provider, rented.token) is None)

    def test_expire_of_a_missing_instance_is_not_found(self, expiring: MovesExpiry) -> None:
        with pytest.raises(NotFound):
            expiring.expire(InstanceRef(new_id("gc-", 20)), utcnow() + timedelta(hours=1))

    # -- what bills beside an instance -------------------------------------------------------------

    def test_what_launch_made_beside_an_instance_is_listed(
        self, keeping: HasSideResources, provider: Provider, rented: Instance
    ) -> None:
        assert self.eventually(lambda: self.beside(keeping, rented.token))
        for resource in self.beside(keeping, rented.token):
            assert resource.provider == provider.name
            assert resource.kind
            assert resource.ref.id
            assert resource.owner == "conformance"
            assert resource.cluster in {None, "conformance"}
            assert resource.usd_per_hour is None or isinstance(resource.usd_per_hour, Decimal)

    def test_terminate_leaves_nothing_beside_the_instance(
        self, keeping: HasSideResources, provider: Provider, rented: Instance
    ) -> None:
        assert self.eventually(lambda: self.listed(provider, rented.token))
        assert self.eventually(lambda: self.beside(keeping, rented.token))
        provider.terminate(rented.ref)
        assert self.eventually(lambda: self.listed(provider, rented.token) is None)
        assert self.eventually(lambda: not self.beside(keeping, rented.token))

    def test_remove_twice_succeeds(
        self, keeping: HasSideResources, provider: Provider, rented: Instance
    ) -> None:
        assert self.eventually(lambda: self.listed(provider, rented.token))
        made = self.eventually(lambda: self.beside(keeping, rented.token))
        provider.terminate(rented.ref)
        # While the instance is there, what it uses need not be removable.
        assert self.eventually(lambda: self.listed(provider, rented.token) is None)
        for resource in [*made, *made]:
            keeping.remove(resource)
        assert self.eventually(lambda: not self.beside(keeping, rented.token))

    def test_remove_of_a_missing_resource_succeeds(self, keeping: HasSideResources, rented: Instance) -> None:
        made = self.eventually(lambda: self.beside(keeping, rented.token))
        for resource in made:
            keeping.remove(replace(resource, ref=replace(resource.ref, id=new_id("gc-", 20))))
        assert {r.ref for r in self.beside(keeping, rented.token)} >= {r.ref for r in made}

    # -- firewalls, and what launches share --------------------------------------------------------

    def test_who_opens_ssh_to_some_alone_can_let_in_more(self, provider: Provider) -> None:
        assert provider.traits.firewalled == isinstance(provider, Admits)

    def test_a_network_is_admitted_to_an_instance_again_and_again(
        self, admitting: Admits, provider: Provider, rented: Instance
    ) -> None:
        self.up(provider, rented.ref)
        for networks in (("203.0.113.7/32",), ("203.0.113.8/32", "2001:db8::7/128"), ("203.0.113.7/32",)):
            admitting.admit(rented.ref, networks)
        assert provider.get(rented.ref).state is InstanceState.RUNNING

    def test_admit_to_a_missing_instance_is_not_found(self, admitting: Admits) -> None:
        with pytest.raises(NotFound):
            admitting.admit(InstanceRef(new_id("gc-", 20)), ("203.0.113.7/32",))

    def test_what_is_shared_stays_for_the_next_launch_and_can_be_removed(
        self, sharing: KeepsShared, provider: Provider, rented: Instance
    ) -> None:
        assert self.eventually(lambda: self.listed(provider, rented.token))
        provider.terminate(rented.ref)
        assert self.eventually(lambda: self.listed(provider, rented.token) is None)
        left = list(sharing.shared_resources())
        assert left
        for resource in [*left, *left]:
            assert resource.provider == provider.name
            sharing.remove_shared(resource)
        assert not list(sharing.shared_resources())

    # -- reservations ------------------------------------------------------------------------------

    def test_blocks_tell_when_for_how_long_and_for_how_much(
        self, reserving: Reserves, provider: Provider
    ) -> None:
        window = self.window()
        blocks = list(reserving.blocks(Requirements(), window))
        assert blocks
        for block in blocks:
            assert block.provider == provider.name
            assert block.ref
            assert block.starts_at >= window.earliest
            assert block.ends_at - block.starts_at >= window.lasting
            assert block.nodes >= window.nodes
            assert 0 <= block.usd_upfront <= block.usd
            assert block.usd > 0

    def test_what_was_reserved_is_listed_with_its_token(
        self, reserving: Reserves, provider: Provider
    ) -> None:
        block = min(reserving.blocks(Requirements(), self.window()), key=lambda block: block.usd)
        spec = self.spec(provider)
        bought = reserving.reserve(block, spec)
        assert (bought.token, bought.instance_type, bought.nodes) == (
            spec.token,
            block.instance_type,
            block.nodes,
        )

        def listed() -> Reservation | None:
            return next((each for each in reserving.reservations() if each.token == spec.token), None)

        found = self.eventually(listed)
        assert found is not None
        assert (found.ref, found.owner, found.name) == (bought.ref, spec.owner, spec.cluster)
        assert found.state in {ReservationState.PENDING, ReservationState.SCHEDULED, ReservationState.ACTIVE}

    # -- rehearsals --------------------------------------------------------------------------------

    def test_a_rehearsed_launch_makes_nothing(self, provider: Provider, rehearsed: list[calls.Call]) -> None:
        spec = self.spec(provider)
        with pytest.raises(calls.KeptBack):
            provider.launch(self.cheapest(provider), spec)
        assert rehearsed[-1].kept_back
        calls.listen(None)
        assert self.listed(provider, spec.token) is None
        if isinstance(provider, HasSideResources):
            assert not self.beside(provider, spec.token)

    def test_a_rehearsed_end_leaves_the_instance(
        self, telling: Provider, rented: Instance, rehearsed: list[calls.Call]
    ) -> None:
        with pytest.raises(calls.KeptBack):
            telling.terminate(rented.ref)
        assert rehearsed[-1].kept_back
        calls.listen(None)
        assert telling.get(rented.ref).alive


def _deviating(test: Callable[..., None], reason: str) -> Callable[..., None]:
    """A copy of a test that is expected to fail, also where already its fixtures do."""

    @functools.wraps(test)
    def deviating(*arguments: Any, **fixtures: Any) -> None:
        test(*arguments, **fixtures)

    mark: Callable[[Callable[..., None]], Callable[..., None]] = pytest.mark.xfail(
        strict=True, reason=reason, raises=DEVIATIONS
    )
    return mark(deviating)
