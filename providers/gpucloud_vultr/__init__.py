"""Prices of Vultr: virtual machines with GPUs, dedicated machines with GPUs, and bare metal with GPUs.

What it tells: every plan with its GPUs, processors, memory, disk, prices on demand and preemptible, and the
locations where it is "valid for use". Whether a location has one left is not told: that is asked by location.

- The addresses: https://www.vultr.com/api/#tag/plans, "List Plans" and "List Bare Metal Plans", and
  https://www.vultr.com/api/#tag/region, "List Regions". They need no account. Pages follow
  ``meta.links.next``, which is empty on the last. The limit is 30 requests a second from one address.
- Prices are dollars for the whole plan, ``hourly_cost`` an hour. A location can have prices of its own, in
  ``location_cost``. A plan without a price by the hour costs its share of one by the month, which is for 730
  hours, or for 672 of bare metal: "How Am I Billed for My Servers?", of 2025-09-15, at
  https://docs.vultr.com/support/platform/billing/how-am-i-billed-for-my-servers. It is capped there, too.
- ``deploy_ondemand`` and ``deploy_preemptible`` say how a plan is sold; some are only preemptible.
- ``gpu_vram_gb`` is that of the whole plan. ``gpu_count`` is a number, or a text such as "8" or "1/4". Parts
  of a GPU are left out.
- Dedicated machines (type ``vdm``) and some bare metal say of their GPUs nothing but what is in the plan's
  name: ``vcg-h100-216c-1914gb-640vram``, ``vbm-256c-2048gb-8-mi300x-gpu``. Where the name has no number, it
  follows from the memory of one; where it does not, as from ``vcg-mi325x-252c-2872g-1536vram``, the plan is
  left out.
- ``ram`` is MiB, called MB; ``disk`` is GB of one of ``disk_count`` disks.
- ``locations`` can have empty names. A plan in none cannot be had; but dedicated machines can be in locations
  that only some accounts are told.

Facts as of November 2026.
"""

from gpucloud_vultr.adapter import Vultr

__all__ = ["Vultr"]
