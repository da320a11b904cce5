"""Shadeform, a broker of some twenty clouds: one account, one key and one price list for all of them.

- The API: https://docs.shadeform.ai/api-reference (copy of 2026-03-05); spot is in the newer copy of
  https://github.com/shadeform/shadeform-cli (read 2026-11-21). The list of types answers without a key, which
  its page calls required, all at once and in no order; it is the public catalogue too.
- The instance type here is ``<cloud>/<shade_instance_type>``, the two names by which one is launched;
  ``excesssupply`` is Shadeform's own pool. Lines that have both names and the region in common but another
  ``cloud_instance_type`` are told apart in the catalogue by the reference of the offer: ``vm/gpu_8x_h200``. A
  launch cannot choose between them, so of live offers the dearest of them stands for all.
- On demand ``hourly_price`` is whole cents, at the type. Spot is an entry of its own beside that of the same
  region, whose ``hourly_price`` is a decimal string in dollars. A spot instance may be taken back without
  notice; it is then ``deleting`` with the detail ``preempted``.
- The details stand in ``configuration``; a copy of most stands beside it, and older replies have only that.
- ``interconnect`` is the socket of the GPUs and at times wrong: a name with "sxm" in it counts more.
- A country is told where the name of the region begins with its code: "US, Wichita, KS".
- ``deployment_type`` is ``vm``, ``container`` or ``baremetal``.
- The server ends an instance at a date and at a sum spent, so the fuse is A. Both are set; the sum is so much
  more than the lease costs that the date comes first, and is there in case the date is not minded.
- A create names no highest price. The type is read again right before it, and not rented once it costs more.
- A start script runs only once the instance can be logged into, and every listing shows it. A host key
  of ours cannot be planted so; what the machine shows at the first contact is pinned.
- There is no stopping. An instance is not billed any more from the moment on that it is ``deleting``.
- Our SSH key is found in the account by its contents, or added once and stays there (``gpucloud providers
  cleanup shadeform``).

Not known: how finely use is billed, limits of requests, the words of refusals beside those of ``api``, and
for how long a new instance may be missing from the list. The terms of use want to be asked before its data is
collected systematically. Facts as of 2026-11-21.
"""

from gpucloud_shadeform.adapter import Shadeform

__all__ = ["Shadeform"]
