"""What acts on providers would send, as far as that is known before anything is sent.

Each verb of a provider is called in a rehearsal, where ``gpucloud.calls`` ends it at the first request that
changes something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from gpucloud import calls
from gpucloud.calls import KeptBack
from gpucloud.errors import GpucloudError
from gpucloud.fleet import Fleet
from gpucloud.fleet.extend import Extension
from gpucloud.fleet.launch import first_order
from gpucloud.fleet.plan import Plan
from gpucloud.fleet.reconcile import Finding
from gpucloud.model import Cluster, Rental, SideResource
from gpucloud.provider import HasSideResources, KeepsShared, MovesExpiry, Provider, Stops


def launch(fleet: Fleet, plan: Plan) -> Iterator[str]:
    """Rehearse the launch of the best offer, for one of its nodes; yields what there is to say of it."""
    offer = plan.offers[0]
    provider = fleet.registry.get(offer.provider)

    def order() -> None:
        provider.launch(offer, first_order(fleet, plan))

    yield _rehearsed(provider, order)
    if plan.request.nodes > 1:
        yield f"the same for each of the {plan.request.nodes} machines"


def end(fleet: Fleet, clusters: Iterable[Cluster]) -> Iterator[str]:
    """Rehearse the end of clusters."""
    for provider, rental in _rentals(fleet, clusters):
        assert rental.ref is not None
        yield _rehearsed(provider, partial(provider.terminate, rental.ref))


def stop(fleet: Fleet, clusters: Iterable[Cluster]) -> Iterator[str]:
    """Rehearse the stop of clusters."""
    for provider, rental in _rentals(fleet, clusters):
        if isinstance(provider, Stops) and rental.ref is not None:
            yield _rehearsed(provider, partial(provider.stop, rental.ref))


def start(fleet: Fleet, clusters: Iterable[Cluster]) -> Iterator[str]:
    """Rehearse the start of clusters."""
    for provider, rental in _rentals(fleet, clusters):
        if isinstance(provider, Stops) and rental.ref is not None:
            yield _rehearsed(provider, partial(provider.start, rental.ref))


def extend(fleet: Fleet, extension: Extension) -> Iterator[str]:
    """Rehearse that providers are told another end, where they are told one."""
    for provider, rental in _rentals(fleet, [extension.cluster]):
        if isinstance(provider, MovesExpiry) and rental.ref is not None:
            yield _rehearsed(provider, partial(provider.expire, rental.ref, extension.ends[rental.token]))


def fix(fleet: Fleet, findings: Iterable[Finding]) -> Iterator[str]:
    """Rehearse the end of what should be gone."""
    for finding in findings:
        provider = fleet.registry.get(finding.provider)
        if finding.resource is not None and isinstance(provider, HasSideResources):
            yield _rehearsed(provider, partial(provider.remove, finding.resource))
        elif finding.instance is not None:
            yield _rehearsed(provider, partial(provider.terminate, finding.instance.ref))


def clean_up(fleet: Fleet, resources: Iterable[SideResource]) -> Iterator[str]:
    """Rehearse the removal of what launches share."""
    for resource in resources:
        provider = fleet.registry.get(resource.provider)
        if isinstance(provider, KeepsShared):
            yield _rehearsed(provider, partial(provider.remove_shared, resource))


def _rentals(fleet: Fleet, clusters: Iterable[Cluster]) -> Iterator[tuple[Provider, Rental]]:
    for cluster in clusters:
        for rental in cluster.rentals:
            if rental.ref is not None:
                yield fleet.provider(rental), rental


def _rehearsed(provider: Provider, act: Callable[[], None]) -> str:
    """Call a verb, if it surely stops before it changes anything; returns what there is to say of it."""
    if not (provider.rehearsable and calls.rehearsing()):
        return (
            f"{provider.name}: what would be sent is not shown, for its adapter does not tell of everything"
        )
    try:
        act()
    except KeptBack:
        return f"{provider.name}: more follows, and depends on the answer"
    except GpucloudError as error:
        return f"{provider.name}: what would be sent is not known: {error.message}"
    return f"{provider.name}: nothing would be sent"
