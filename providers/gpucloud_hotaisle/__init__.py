"""Hot Aisle: virtual machines with AMD GPUs, on demand.

- The API: https://admin.hotaisle.app/api/docs/ (1.0.0, copy of 2026-06-25). Prices are whole US cents an hour
  for the machine; memory and disk are bytes. Errors are plain text.
- Since then a machine goes by its ``deployment_id``, which that copy lacks; where a reply has none, by its
  name. Clients of September 2026 show it; mojolearn's tools/hotaisle_vm_lib.sh (2026-09-25) is one.
- What can be had has no name; ours is put together from what it has. A create is told the same specifications
  back. There is no choice of image, and none of a region.
- A machine bills until it is deleted, stopped or not, and each offer has a minimum that is billed also when
  it ends earlier. One that powers itself off goes on billing, so the fuse is D.
- Every machine lets in the keys of the team's members, as ``hotaisle``; ours is added to the user once and
  stays there (``gpucloud providers cleanup hotaisle``). User data is taken only from an address on the web,
  so the machine's host key is not ours.
- A create takes nothing by which it could be found: our tags go into the description right afterwards. What
  is about to be made is noted on this computer first (``claims``); a machine that is new since then, as it
  was asked for and without a description becomes ours with the next listing. When a colleague makes one of
  the same kind, without a description, in just these seconds, nothing is taken, and the listing says so; but
  if our create had made nothing, theirs would be taken for ours. Without these notes, on another computer,
  such a machine is not seen.
- Not here: bare metal, which has a minimum of hours.
- Not known: steps of billing, price of traffic, limits of requests.

Facts as of 2026-11-21.
"""

from gpucloud_hotaisle.adapter import Hotaisle

__all__ = ["Hotaisle"]
