"""The user's own machines against the contract of all adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpucloud.provider import Provider, ProviderSettings
from gpucloud.testing import ProviderConformance
from gpucloud_ssh import Ssh

HOSTS = {
    "desk": {"address": "desk.example", "gpu": "RTX4090"},
    "closet": {"address": "closet.example", "usd_per_hour": 0.25, "vcpus": 16, "memory_gib": 64},
    "lab": {"address": "10.0.0.7", "gpu": "H100-SXM-80:8", "usd_per_hour": 12.5, "slots": 2},
}


class TestSsh(ProviderConformance):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        return Ssh(ProviderSettings("ssh", tmp_path / "state", table={"hosts": HOSTS}))
