"""Prices of Verda (DataCrunch until 2025): on demand and spot, told to everybody.

What it tells: every instance type with its GPUs, processors, memory and two prices for the whole instance,
as strings. It does not tell where a type is sold or whether it can be had: that needs an account.

- The address: https://api.verda.com/v1/docs, "GET /instance-types", which asks for no credentials.
- ``gpu_memory`` is that of all GPUs together; ``storage`` is "dynamic", which is sold apart.
- A type whose name ends in ``CC`` is for confidential computing, and costs more for the same GPU.
- Types for processors only are in the same list, with no GPUs.

Facts as of October 2026.
"""

from gpucloud_verda.adapter import Verda

__all__ = ["Verda"]
