"""Azure against the contract of all adapters."""

from __future__ import annotations

import pytest

from gpucloud.provider import Provider
from gpucloud.testing import ProviderConformance
from gpucloud_azure import Azure


class TestAzure(ProviderConformance):
    @pytest.fixture
    def provider(self, azure: Azure) -> Provider:
        return azure
