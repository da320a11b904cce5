"""Amazon EC2 against the contract of all adapters."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import ClassVar

import pytest

from gpucloud.model import Market, Offer, Requirements, utcnow
from gpucloud.provider import Provider
from gpucloud.testing import ProviderConformance
from gpucloud_aws import Aws
from tests.harness.aws import Served, serving
from tests.harness.aws.blocks import Offering
from tests.providers.aws.conftest import an_adapter

ONE_TIME = "EC2 does not stop a Spot instance that is bought once"


@pytest.fixture(scope="class")
def shared_cloud(elsewhere_nothing: None) -> Iterator[Served]:
    """One cloud for all tests of a class: whatever they rent, they end."""
    with serving() as served:
        starts_at = (utcnow() + timedelta(hours=2)).replace(microsecond=0)
        ends_at = starts_at + timedelta(days=1)
        # Each test that reserves buys one of them.
        served.cloud.offerings = [
            Offering(f"cb-{n}", "p5.48xlarge", "us-east-1a", starts_at, ends_at) for n in range(2)
        ]
        yield served
        assert not served.cloud.billing()


@pytest.fixture(scope="class")
def shared_adapter(shared_cloud: Served, tmp_path_factory: pytest.TempPathFactory) -> Aws:
    return an_adapter(shared_cloud, tmp_path_factory.mktemp("home"))


class TestAwsOnDemand(ProviderConformance):
    @pytest.fixture
    def provider(self, shared_adapter: Aws) -> Provider:
        return shared_adapter

    def cheapest(self, provider: Provider) -> Offer:
        wanted = Requirements(markets=(Market.ON_DEMAND,))
        return min(provider.offers(wanted), key=lambda offer: (offer.usd_per_hour, offer.id))


class TestAwsSpot(ProviderConformance):
    """What is cheapest is on Spot."""

    deviations: ClassVar = {
        "test_a_stopped_instance_is_listed_as_stopped_and_stays_so": ONE_TIME,
        "test_stop_twice_succeeds": ONE_TIME,
        "test_a_started_instance_comes_up_as_the_one_it_was": ONE_TIME,
        "test_a_stopped_instance_can_be_terminated": ONE_TIME,
    }

    @pytest.fixture
    def provider(self, shared_adapter: Aws) -> Provider:
        return shared_adapter


class TestAwsWhoseListingLags(TestAwsOnDemand):
    @pytest.fixture
    def provider(self, shared_cloud: Served, shared_adapter: Aws) -> Provider:
        shared_cloud.cloud.listing_lag = 3
        return shared_adapter


class TestAwsWithoutADefaultNetwork(TestAwsOnDemand):
    @pytest.fixture
    def provider(self, shared_cloud: Served, shared_adapter: Aws) -> Provider:
        for region in shared_cloud.cloud.regions:
            shared_cloud.cloud.without_default_vpc(region)
        return shared_adapter
