"""Prices of CloudRift: virtual machines in the data centres of its partners.

What it tells: every instance type, cut into variants of one to eight GPUs, each with one price in US cents an
hour for the whole of it, and how many nodes are free in each data centre. It sells on demand only.

- The address: https://api.cloudrift.ai/swagger-ui/, "instance-types/list". It is asked by POST, needs no
  credentials, and has neither editions nor pages. Requests carry the date of a protocol.
- Prices are cents with fractions: 139.36 is $1.3936. ``cost_per_hour`` of the type itself is not used.
- ``vram`` is that of one GPU; it, ``dram`` and ``disk`` are bytes. The disk is in the price.
- A type without free nodes may name no data centre at all; its price is told without a region.
- Where a data centre has no public addresses, that is said beside the free nodes.

Facts as of October 2026 (rift-server 0.62).
"""

from gpucloud_cloudrift.adapter import Cloudrift

__all__ = ["Cloudrift"]
