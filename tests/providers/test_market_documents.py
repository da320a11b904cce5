"""Every call to a rental market, and every reply of its fake, is judged by the vendor's own document."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from gpucloud.errors import NotFound
from gpucloud.model import InstanceRef, Requirements, utcnow
from gpucloud.provider import HasSideResources, KeepsShared, MovesExpiry, Provider, Stops
from gpucloud.registry import load
from tests.harness.rental import MARKETS
from tests.harness.rental.document import needs_documents
from tests.harness.rental.market import Market, serving
from tests.providers.rented import a_spec, running
from tests.providers.renting import adapter_at, cheapest, identity_in

JUDGED = [market for market in MARKETS.values() if market.spec]


@pytest.mark.parametrize("kind", JUDGED, ids=lambda kind: kind.name)
def test_a_whole_life_is_as_the_document_has_it(kind: type[Market], tmp_path: Path) -> None:
    needs_documents()
    adapter = load(kind.name)
    assert issubclass(adapter, Provider)
    with serving(kind()) as served:
        provider = adapter_at(adapter, served, tmp_path)
        key = identity_in(tmp_path)
        spec = a_spec(key, expires_at=utcnow() + timedelta(hours=2))
        instance = provider.launch(cheapest(provider), spec)
        _live(provider, running(provider, instance).ref)
        with suppress(NotFound):
            provider.get(InstanceRef("gone"))
        assert served.market.judged == len(served.market.requests) > 5
        assert served.market.excused == set(kind.deviations), "a deviation that nothing shows"
    assert not served.market.billing()


def _live(provider: Provider, ref: InstanceRef) -> None:
    """Everything that an adapter can do with an instance, until it is gone."""
    if isinstance(provider, MovesExpiry):
        provider.expire(ref, utcnow() + timedelta(hours=3))
    if isinstance(provider, Stops):
        provider.stop(ref)
        provider.start(ref)
    if isinstance(provider, HasSideResources):
        list(provider.side_resources())
    list(provider.offers(Requirements(markets=())))
    list(provider.instances())
    provider.terminate(ref)
    for instance in provider.instances():
        assert instance.ref != ref or not instance.alive
    if isinstance(provider, HasSideResources):
        for resource in provider.side_resources():
            provider.remove(resource)
    if isinstance(provider, KeepsShared):
        for shared in list(provider.shared_resources()):
            provider.remove_shared(shared)
