"""Vultr: virtual machines with GPUs, dedicated machines with GPUs, and bare metal with GPUs, on demand.

Its catalogue tells everybody every plan with its GPUs, processors, memory, disk, prices on demand and
preemptible, and the locations where it is "valid for use". Which locations have one left is told to accounts,
by location and type of plan.

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
- What renting is like follows https://www.vultr.com/api/ as its document of 2023-02 has it, and what govultr
  and dstack, of 2026, know beyond that. It is not known how a plan is rented preemptibly, so that price is
  never an offer to an account.
- A machine that is halted bills in full, so nothing is stopped, and the fuse is D. Use is billed by the hour.
- Our key is found in the account by its contents or added once, and stays there. User data is cloud-init's,
  in base64, so the machine's host key is ours from its first start.
- Virtual machines are put into a firewall group that launches share, of which the description is for whom it
  opens SSH; an instance is let into a wider one later. Bare metal has no firewall, so everybody reaches its
  SSH. Keys and groups cost nothing (``gpucloud providers cleanup vultr``).
- Several nodes are put into the only VPC of their location, which the vendor makes if there is none.
- Machines are known by their label and by their tags. Which letters tags may have is not documented.
- The image is Ubuntu 22.04, of which it is known that it comes with NVIDIA's drivers on virtual machines; on
  bare metal, and with AMD's GPUs, that is not known. ``--image`` is the number of an operating system, the id
  of a snapshot, or the name of an application such as ``docker``.
- Virtual machines and bare metal have lists of their own; an id is looked for in both.
- Not known: how an account without money is refused.

Facts as of 2026-11-21.
"""

from gpucloud_vultr.adapter import Vultr

__all__ = ["Vultr"]
