"""Google Cloud against the contract of all adapters."""

from __future__ import annotations

import pytest

from gpucloud.model import utcnow
from gpucloud.provider import Provider
from gpucloud.testing import ProviderConformance
from gpucloud_gcp import Gcp
from tests.harness.gcp import Project


@pytest.fixture(autouse=True)
def reservable(project: Project) -> None:
    project.calendar["a3-highgpu-8g", "us-central1-a"] = utcnow(), 8


class TestGcp(ProviderConformance):
    @pytest.fixture
    def provider(self, gcp: Gcp) -> Provider:
        return gcp


class TestGcpWhoseListingLags(ProviderConformance):
    @pytest.fixture
    def provider(self, gcp: Gcp, project: Project) -> Provider:
        project.lag = 2
        return gcp


class TestGcpWithShortPagesThatWorksSlowly(ProviderConformance):
    @pytest.fixture
    def provider(self, gcp: Gcp, project: Project) -> Provider:
        project.page = 3
        project.slow = 3
        return gcp
