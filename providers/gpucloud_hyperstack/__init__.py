"""Hyperstack (NexGen Cloud): virtual machines with NVIDIA GPUs in Canada, Norway and the USA.

- The API: https://docs.hyperstack.cloud/docs/api-reference (called Infrahub; its document of 2026-06-17).
- A flavor has no price. The price book has one for an hour of each GPU, in US dollars; processors, memory and
  local disks of a flavor with GPUs are in it (third parties, 2026-08-24 and 2026-09-06). A flavor whose GPU
  is not in the book is no offer. A public address may be billed beside it, and is not in the price.
- GPUs whose name ends in ``-spot`` are flavors of their own, at a price of their own (third party,
  2026-08-24); the document does not speak of them, and what an interruption does is not known.
- A machine lives in an environment, which is of one region, with a key pair of that environment. Ours are
  called ``gpucloud-``..., cost nothing and stay (``gpucloud providers cleanup hyperstack``).
- SSH is admitted by rules of the machine itself: those of a launch go with it. Unless it is said otherwise,
  the port of SSH is a random one that nobody tells. Nodes that are rented together get no rules for each
  other.
- Tags are labels. cloud-init is honoured, so the host key is ours from the first start. The login user is
  that of the Ubuntu images.
- Stopping is hibernating: the root disk bills on, the ephemeral disk is lost, and so is the address. Some
  flavors cannot do it. A machine that is only shut down bills in full, so the fuse is D.
- Requests that change a machine's state are GETs; these are sent once.
- How capacity and quotas are refused is not documented: the words that are looked for are those that the
  errors of OpenStack, which is below it, have. Not known either: how long a new machine may be missing from
  the list, for which half a minute is taken. 500 requests a minute are allowed from one address.

Facts as of 2026-11-21.
"""

from gpucloud_hyperstack.adapter import Hyperstack

__all__ = ["Hyperstack"]
