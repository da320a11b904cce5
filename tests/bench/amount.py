"""How much is to be measured: some benches take so long that ``GPUCLOUD_BENCH_SYNC`` has to ask for them."""

from __future__ import annotations

import os
from typing import Final

import pytest

AMOUNT: Final = os.environ.get("GPUCLOUD_BENCH_SYNC", "")
"""``some`` or ``full``, which takes the sizes that the limits are meant for; else nothing that takes long."""

FULL: Final = AMOUNT == "full"

at_length = pytest.mark.skipif(
    AMOUNT not in {"some", "full"}, reason="takes minutes: GPUCLOUD_BENCH_SYNC=some or full asks for it"
)
in_full = pytest.mark.skipif(not FULL, reason="takes much longer: GPUCLOUD_BENCH_SYNC=full asks for it")
