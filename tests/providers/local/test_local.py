"""The local provider against the contract of all adapters, with both of its SSH servers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpucloud.provider import Provider, ProviderSettings
from gpucloud.testing import ProviderConformance
from gpucloud_local import Local


class TestLocal(ProviderConformance):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        return Local(ProviderSettings("local", tmp_path / "state"))


@pytest.mark.needs_sshd
class TestLocalWithOpenSsh(ProviderConformance):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        # Root's sshd insists on a folder that only a running system service would have made.
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        return Local(ProviderSettings("local", tmp_path / "state", table={"sshd": "openssh"}))
