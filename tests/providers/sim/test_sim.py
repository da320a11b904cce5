"""The simulated market against the contract of all adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpucloud.provider import Provider, ProviderSettings
from gpucloud.testing import ProviderConformance
from gpucloud_sim import Sim


class TestSim(ProviderConformance):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        return Sim(ProviderSettings("sim", tmp_path / "state", script="boot=0s"))


class TestSimWhoseListingLags(ProviderConformance):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        return Sim(ProviderSettings("sim", tmp_path / "state", script="slow-list=3"))


class TestSimThatEndsSlowly(ProviderConformance):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        return Sim(ProviderSettings("sim", tmp_path / "state", script="stuck=3"))
