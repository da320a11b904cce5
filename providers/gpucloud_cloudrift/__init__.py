"""CloudRift: virtual machines in the data centres of its partners, on demand.

What it publishes: every instance type, cut into variants of one to eight GPUs, each with one price in US
cents an hour for the whole of it, and how many nodes are free in each data centre.

- The API: https://api.cloudrift.ai/swagger-ui/. Everything is asked by POST, with the date of a protocol; the
  types are told without credentials. There are neither editions nor pages.
- Prices are cents with fractions: 139.36 is $1.3936. ``cost_per_hour`` of the type itself is not used.
- ``vram`` is that of one GPU; it, ``dram`` and ``disk`` are bytes. The disk is in the price.
- A type without free nodes may name no data centre at all; its price is told without a region.
- Where a data centre has no public addresses, that is said beside the free nodes; nothing is rented there.
- Since 0.62 (2026-09-09) renting wants the protocol of 2026-09-08; a rental has tags, which the document of
  0.61 at hand lacks, and is made by the status 201. Lists of instances tell only some without a ``limit``.
- The image is the newest Ubuntu of the vendor's list with a driver that starts on the type. The key goes into
  the rental itself; the login is ``riftuser``. Commands for cloud-init run only after SSH answers, so the
  machine's host key is not ours.
- Billed by the second of active runtime, traffic for nothing (https://www.cloudrift.ai/pricing); a rental
  that fails to start is not billed. A paused machine bills on, and what a stopped one bills is not known, so
  stopping is not offered. Nothing ends an instance by itself, so the fuse is D.
- Not known: its words for a lack of nodes, of money and of quota.

Facts as of 2026-10-06 (rift-server 0.62.1).
"""

from gpucloud_cloudrift.adapter import Cloudrift

__all__ = ["Cloudrift"]
